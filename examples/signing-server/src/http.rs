//! As much of HTTP/1.1 as a signing request needs: one request for each connection, with a length.

use std::io::{self, Read, Write};

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body at most; a signing request has two thousand.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// Why a request was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The connection ended or broke.
    Broken(String),
    /// It is answered with this status.
    Status(u16, &'static str),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Reads one request.
pub(crate) fn read(stream: &mut impl Read) -> Result<Request, Bad> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Bad::Status(431, "the head of the request is too long"));
        }
        more(stream, &mut bytes)?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().to_owned())
        });
    let length = length.ok_or(Bad::Status(411, "the request has no Content-Length"))?;
    let length: usize = length
        .parse()
        .map_err(|_| Bad::Status(400, "the Content-Length is not a number"))?;
    if length > BODY_BYTES_MAX {
        return Err(Bad::Status(413, "the request is too long"));
    }
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        more(stream, &mut body)?;
    }
    body.truncate(length);
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        body,
    })
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(), Bad> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(Bad::Broken("the connection ended".to_owned())),
        count => {
            bytes.extend_from_slice(&piece[..count]);
            Ok(())
        }
    }
}

/// Answers, and says that the connection ends with it.
pub(crate) fn answer(stream: &mut impl Write, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}",
        if status == 200 { "OK" } else { "Refused" }
    )?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> Bad {
        read(&mut text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_request_is_read_to_its_length_and_no_further() {
        let text = "POST /sign HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 2\r\n\r\n{}more";
        let request = read(&mut text.as_bytes()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/sign")
        );
        assert_eq!(request.body, b"{}");
    }

    #[test]
    fn requests_that_are_none_end_early() {
        assert!(matches!(bad("POST /sign HT"), Bad::Broken(_)));
        assert!(matches!(
            bad("POST / HTTP/1.1\r\n\r\n"),
            Bad::Status(411, _)
        ));
        let head = |length: &str| format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert!(matches!(bad(&head("x")), Bad::Status(400, _)));
        assert!(matches!(bad(&head("65537")), Bad::Status(413, _)));
        assert!(matches!(bad(&head("5")), Bad::Broken(_)));
        assert!(matches!(bad(&"a".repeat(20_000)), Bad::Status(431, _)));
    }
}
