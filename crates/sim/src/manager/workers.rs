//! What signers and secret drivers hand back: an answer, or trouble that passes.

use swarm_ca::server::{JobId, Signed};
use swarm_dispatcher::{SecretAnswer, SecretRequestId};

use super::{Io, Manager, Process};
use crate::identity;
use crate::trace::Weight;
use crate::user::is_for_one_task;

impl Manager {
    /// A signature is made, or is not: then it is tried again.
    pub(crate) fn signed(&mut self, io: &mut Io<'_>, id: JobId) {
        let now = self.now(io.agenda);
        let is_failed = !self.is_calm
            && self
                .random
                .happens(self.settings.faults.sign_error_per_mille);
        let Some(Process {
            term: Some(term),
            jobs,
            ..
        }) = &mut self.process
        else {
            return;
        };
        let Some(job) = jobs.remove(&id) else {
            return;
        };
        let signed = if is_failed {
            Signed::Recoverable("the signer is away".to_owned())
        } else {
            identity::sign(&job)
        };
        term.leader.handle_signed(now, id, signed);
        self.plan(io);
    }

    /// A secret driver answered, or did not.
    pub(crate) fn answered(&mut self, io: &mut Io<'_>, id: SecretRequestId) {
        let now = self.now(io.agenda);
        let faults = &self.settings.faults;
        let is_failed = !self.is_calm && self.drivers.happens(faults.driver_error_per_mille);
        let Some(Process {
            term: Some(term),
            questions,
            replica,
            ..
        }) = &mut self.process
        else {
            return;
        };
        let Some(question) = questions.remove(&id) else {
            return;
        };
        let (secret, task) = (&question.secret.id, &question.task.id);
        let what = format_args!("hears of {secret} of task {task} (failed: {is_failed})");
        io.trace.add(io.agenda.now(), Weight::Minor, "mgr", what);
        let answer = if is_failed {
            Err("the driver is away".to_owned())
        } else {
            Ok(SecretAnswer {
                value: "from the driver".into(),
                do_not_reuse: is_for_one_task(&question.secret),
            })
        };
        let view = replica.store.view();
        let dispatcher = term.leader.dispatcher();
        dispatcher.handle_secret(now, id, answer, &view);
        self.plan(io);
    }
}
