//! A small web service to deploy: says who it is, with nothing but the standard library.
//!
//! `hello-web [--listen IP:PORT | --port-base PORT]` answers `GET /` with service, slot, task, node
//! and process, and `GET /health` with `ok`. On one machine every replica needs a port of its own:
//! with `--port-base 8080` replica 3 listens on 127.0.0.1:8083. Without arguments it takes the port
//! from `SWARM_PORT_80` (a published port in host mode) or `PORT`, on all addresses, or else
//! 127.0.0.1:8080. One thread per connection, one request per connection.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections at once; the next one is told to come back.
const CONNECTIONS_MAX: usize = 64;
/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a client may take for its request, and again for reading the answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: it fails again at once while the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the program with its arguments (without its name); returns only when it cannot serve.
/// `swarmd` contains the program as well, so that `swarmd dev` needs no second file.
pub fn main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads_it = writeln!(io::stderr(), "hello-web: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let address = address(arguments, &variable)?;
    let listener = TcpListener::bind(&address)
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another port"))?;
    let _nobody_reads_it = writeln!(io::stdout(), "listening on {address}");
    serve(&listener, &Arc::from(greeting(&variable)));
    Ok(())
}

/// Where to listen; see the top of this file.
fn address(
    arguments: &[String],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let port = |text: &str| {
        let port = text.parse::<u16>();
        port.map_err(|_| format!("{text:?} is not a port; use a number up to 65535"))
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--listen", address] => Ok(address.to_owned()),
        ["--port-base", base] => {
            let slot = variable("SWARM_TASK_SLOT").unwrap_or_else(|| "0".to_owned());
            let slot = slot
                .parse::<u16>()
                .map_err(|_| format!("slot {slot:?} is too large"))?;
            let sum = port(base)?.checked_add(slot);
            let port = sum.ok_or_else(|| format!("{base} + slot {slot} is above 65535"))?;
            Ok(format!("127.0.0.1:{port}"))
        }
        [] => match variable("SWARM_PORT_80").or_else(|| variable("PORT")) {
            Some(given) => Ok(format!("0.0.0.0:{}", port(&given)?)),
            None => Ok("127.0.0.1:8080".to_owned()),
        },
        _ => Err(format!(
            "{words:?}: use --listen IP:PORT or --port-base PORT"
        )),
    }
}

/// What `GET /` answers.
fn greeting(variable: &dyn Fn(&str) -> Option<String>) -> String {
    let show = |name: &str| variable(name).unwrap_or_else(|| "-".to_owned());
    format!(
        "Hello from service {}\nslot {}\ntask {}\nnode {}\npid {}\n",
        show("SWARM_SERVICE_NAME"),
        show("SWARM_TASK_SLOT"),
        show("SWARM_TASK_ID"),
        show("SWARM_NODE_ID"),
        std::process::id()
    )
}

fn serve(listener: &TcpListener, greeting: &Arc<str>) {
    // Every connection's thread holds a clone of this; the count is that of the connections.
    let token = Arc::new(());
    loop {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        if Arc::strong_count(&token) > CONNECTIONS_MAX {
            answer(
                &stream,
                "503 Service Unavailable",
                "too many connections, try again\n",
            );
            continue;
        }
        let (token, greeting) = (token.clone(), greeting.clone());
        let thread = std::thread::Builder::new().spawn(move || {
            handle(&stream, &greeting);
            drop(token);
        });
        // Out of threads: the connection closes, the client tries again.
        drop(thread);
    }
}

fn handle(stream: &TcpStream, greeting: &str) {
    match read_head(stream) {
        Ok(head) => {
            let (status, body) = respond(&head, greeting);
            answer(stream, status, body);
        }
        Err(status) => answer(
            stream,
            status,
            "this is not a request that is understood here\n",
        ),
    }
}

/// The head of a request, up to the empty line.
fn read_head(mut stream: &TcpStream) -> Result<Vec<u8>, &'static str> {
    let deadline = Instant::now() + CLIENT_DEADLINE;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Err("408 Request Timeout");
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err("400 Bad Request"),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err("408 Request Timeout"),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err("431 Request Header Fields Too Large");
        }
    }
    Ok(head)
}

/// Status line and body for a request head.
fn respond<'a>(head: &[u8], greeting: &'a str) -> (&'static str, &'a str) {
    const BAD: (&str, &str) = ("400 Bad Request", "this is not a request\n");
    let Ok(text) = std::str::from_utf8(head) else {
        return BAD;
    };
    let line = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [_, _, version] if !version.starts_with("HTTP/1.") => BAD,
        ["GET", "/", _] => ("200 OK", greeting),
        ["GET", "/health", _] => ("200 OK", "ok\n"),
        ["GET", path, _] if path.starts_with('/') => ("404 Not Found", "try / or /health\n"),
        [method, _, _] if !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) => {
            ("405 Method Not Allowed", "only GET is understood\n")
        }
        _ => BAD,
    }
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        body.len()
    );
    // A client that is gone or does not read loses its answer; nobody else is held up.
    let _client_is_gone = stream
        .set_write_timeout(Some(CLIENT_DEADLINE))
        .and_then(|()| stream.write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests;
