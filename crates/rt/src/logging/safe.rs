//! Log lines hold what peers and tasks said. Whoever reads them on a terminal sees its control
//! characters, ends of lines and marks of direction as escapes; one event stays one line.

use std::io;

use swarm_types::printable;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, Writer};

/// Formats messages and fields as they are by default, escaped. What the format puts around them,
/// colours among it, is its own.
#[derive(Debug)]
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut line = printable::Line(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut line), fields)
    }
}

/// Passes JSON lines on in escapes of JSON. They come one at a time, whole.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Json<M> {
    type Writer = Json<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Json(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Json<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(printable::json(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut sink = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
            sink.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn tell() {
        let host = "x\u{1b}[2J\nforged\u{202e}";
        let span = tracing::info_span!("from", peer = %"\u{9b}1A");
        let _in_it = span.enter();
        tracing::warn!(%host, "a peer says {}", "\u{1b}]0;owned\u{7}");
    }

    #[test]
    fn a_line_of_text_has_no_control_characters_of_others() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(Fields)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, tell);
        let text = sink.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(printable::is_printable), "{line:?}");
        for part in ["forged", "owned", "1A"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_line_of_json_says_the_same_in_its_escapes() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(Json(move || writer.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, tell);
        let text = sink.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(printable::is_printable), "{line:?}");
        assert!(line.contains(r"forged\u202e"), "{line}");
    }
}
