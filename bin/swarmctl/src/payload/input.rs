//! Where the data of a secret or config comes from.

use std::io::{IsTerminal as _, Read};
use std::path::Path;

use crate::failure::Failure;

/// Bytes that are read at most: more than any manager takes (1000 KiB), so that the refusal is the
/// manager's, and little enough to hold.
const INPUT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Reads a file, or the standard input for `-` or nothing. No byte is added or left out, the line
/// end at the end included.
///
/// # Errors
/// When it cannot be read, is too large, or the standard input is a terminal.
pub(super) fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    match file {
        Some(path) if path.as_os_str() != "-" => {
            let name = path.display().to_string();
            let opened = std::fs::File::open(path);
            let file = opened.map_err(|error| unreadable(&name, &error))?;
            read_all(file, &name)
        }
        Some(_) | None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                return Err(Failure::usage("there is no data").hint(
                    "name a file with --file, or pipe the data in: it is not taken from the \
                     command line, which other users can see, nor typed, which the screen shows",
                ));
            }
            read_all(stdin.lock(), "the standard input")
        }
    }
}

fn read_all(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    from.take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut data)
        .map_err(|error| unreadable(name, &error))?;
    if data.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{name} has more than {INPUT_BYTES_MAX} bytes; no manager stores so much"
        ))
        .hint("a secret has less than 500 KiB, a config less than 1000 KiB"));
    }
    Ok(data)
}

/// Refuses a secret that is nothing but the line end which `echo` adds to a variable that is not
/// set.
///
/// # Errors
/// If it is.
pub(super) fn refuse_line_end(data: &[u8]) -> Result<(), Failure> {
    if data.is_empty() || !data.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
        return Ok(());
    }
    Err(
        Failure::usage("the data is only a line end, which is no secret").hint(
            "write it with `printf %s \"$SECRET\"`, and look whether the variable is set and the \
             file complete",
        ),
    )
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_taken_as_it_is_up_to_the_bound() {
        assert_eq!(read_all(&b"hush\n"[..], "x").unwrap(), b"hush\n");
        let fits = std::io::repeat(7).take(INPUT_BYTES_MAX);
        assert_eq!(read_all(fits, "x").unwrap().len() as u64, INPUT_BYTES_MAX);
        let endless = std::io::repeat(7);
        let refusal = read_all(endless, "x").unwrap_err();
        assert!(refusal.message().starts_with("x has more than"));
    }

    #[test]
    fn a_line_end_alone_is_no_secret() {
        for (data, is_taken) in [
            (&b"\n"[..], false),
            (b"\r\n", false),
            (b"\n\n", false),
            (b"x\n", true),
            (b" \n", true),
            // The manager says that it is empty.
            (b"", true),
        ] {
            assert_eq!(refuse_line_end(data).is_ok(), is_taken, "{data:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let refusal = read(Some(Path::new("/nowhere/at all"))).unwrap_err();
        assert!(refusal.message().starts_with("cannot read /nowhere/at all"));
    }
}
