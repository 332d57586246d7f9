//! The socket of the shim: agents connect, hear the status, and ask for an end.
//!
//! Whatever a client sends, the task goes on: a client that says what is not understood, or does
//! not read, is dropped.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::ShimError;
use crate::records::{REQUEST_BYTES_MAX, Request, Status};
use crate::task_dir::SOCKET_NAME;

/// Clients at once. An agent has one or two per task; the next one is turned away.
const CLIENTS_MAX: usize = 16;

/// The listener and everybody connected.
#[derive(Debug)]
pub(super) struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Clients {
    /// Listens in the current directory, which is the task's: the address of a socket is short.
    /// The caller holds the task's lock, so a socket that is there belongs to nobody any more: to a
    /// shim that was killed before it had recorded anything.
    pub(super) fn listen() -> Result<Self, ShimError> {
        match std::fs::remove_file(SOCKET_NAME) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(ShimError::system("remove the socket of an earlier shim")(
                    error,
                ));
            }
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(SOCKET_NAME).map_err(ShimError::system("listen on the socket"))?;
        listener
            .set_nonblocking(true)
            .map_err(ShimError::system("set up the socket"))?;
        Ok(Self {
            listener,
            clients: Vec::new(),
        })
    }

    pub(super) fn listener_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What to poll, in the order that [`Clients::handle_readable`] counts in.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().map(|client| client.stream.as_fd())
    }

    /// Takes everybody who waits at the door and tells them the status.
    pub(super) fn handle_connections(&mut self, status: &Status) {
        // Bounded by the backlog of the listener, which does not block.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client {
                stream,
                input: Vec::new(),
            };
            if client.send(status) {
                self.clients.push(client);
            }
        }
    }

    /// Reads from the client with this number and returns what it asks for. Only requests that
    /// change something are returned; the status is answered here.
    pub(super) fn handle_readable(&mut self, number: usize, status: &Status) -> Vec<Request> {
        let mut requests = Vec::new();
        let keep = match self.clients.get_mut(number) {
            Some(client) => client.serve(status, &mut requests),
            None => true,
        };
        if !keep {
            self.clients.remove(number);
        }
        requests
    }

    /// Tells everybody.
    pub(super) fn broadcast(&mut self, status: &Status) {
        self.clients.retain_mut(|client| client.send(status));
    }
}

impl Client {
    /// `false` when the client is to be dropped.
    fn serve(&mut self, status: &Status, requests: &mut Vec<Request>) -> bool {
        let mut buffer = [0; REQUEST_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) => {
                return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
            }
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match Request::from_line(&line) {
                Some(Request::Status) => {
                    if !self.send(status) {
                        return false;
                    }
                }
                Some(request) => requests.push(request),
                None => return false,
            }
        }
        self.input.len() < REQUEST_BYTES_MAX
    }

    /// `false` when the client does not read.
    fn send(&mut self, status: &Status) -> bool {
        let Ok(mut line) = serde_json::to_vec(status) else {
            return false;
        };
        line.push(b'\n');
        // A line is far smaller than the socket's buffer: a part only fits when nobody reads.
        matches!(self.stream.write(&line), Ok(count) if count == line.len())
    }
}
