//! Readers of logs, and the turn of the log broker's task.

use swarm_api::v1;
use swarm_log_broker::{BrokerError, ListenerId};
use swarm_types::Timestamp;

use super::lines::Lines;
use super::{Io, Manager, Process, StreamEvent};

impl Manager {
    /// The transport took a message about logs.
    pub(crate) fn log_sent(&mut self, io: &mut Io<'_>, listener: ListenerId) {
        if let Some(process) = &mut self.process {
            process.streams.push_back(StreamEvent::LogSent(listener));
            self.plan(io);
        }
    }

    /// A client begins to read lines; `None` when nobody leads.
    pub(crate) fn read_lines(
        &mut self,
        io: &mut Io<'_>,
        request: v1::SubscribeLogsRequest,
    ) -> Option<Result<(), BrokerError>> {
        let (now, at) = (self.now(io.agenda), io.agenda.now());
        let process = self.process.as_mut()?;
        let view = process.replica.store.view();
        let lines = &mut process.term.as_mut()?.lines;
        let begun = lines.subscribe((now, at), request, &view, &mut self.log_ids);
        self.drive_lines(io, now);
        self.plan(io);
        Some(begun)
    }

    /// The client at this place reads no more.
    pub(crate) fn stop_reading(&mut self, io: &mut Io<'_>, place: usize) {
        let now = self.now(io.agenda);
        if let Some(lines) = self.lines() {
            lines.unsubscribe(now, place);
            self.drive_lines(io, now);
            self.plan(io);
        }
    }

    /// The log broker's task gets its turn.
    pub(super) fn drive_lines(&mut self, io: &mut Io<'_>, now: Timestamp) {
        if let Some(Process {
            term: Some(term),
            replica,
            ..
        }) = &mut self.process
        {
            let when = (now, self.life);
            let ids = &mut self.log_ids;
            let seen = term.lines.turn(io, when, replica, &self.settings, ids);
            if self.lines_seen.is_ok() {
                self.lines_seen = seen;
            }
        }
    }

    pub(crate) fn lines(&mut self) -> Option<&mut Lines> {
        let process = self.process.as_mut()?;
        process.term.as_mut().map(|term| &mut term.lines)
    }
}
