//! Requests for certificates, as `swarm-manager` takes them: inside a transaction, answered when it
//! is durable.

use swarm_ca::requests::{self, Requester};
use swarm_ca::waiting::Origin;
use swarm_reconcile::Ctx;
use swarm_types::Timestamp;

use super::replica::Author;
use super::{Io, Manager};
use crate::event::{ConnId, Payload, Request};
use crate::identity::{Certificate, RootIx};

impl Manager {
    /// A node asks for a certificate: with the one that it has, or with the token of workers, which
    /// somebody brought it right before.
    pub(super) fn issue(
        &mut self,
        io: &mut Io<'_>,
        now: Timestamp,
        conn: ConnId,
        request: Request,
    ) {
        let Request::Issue { csr } = request else {
            return;
        };
        let certificate = io.network.certificate(conn);
        self.issues += 1;
        let number = self.issues;
        let Some(process) = &mut self.process else {
            return;
        };
        let view = process.replica.store.view();
        let Some(cluster) = view.cluster() else {
            return;
        };
        let root_ca = cluster.root_ca.clone().unwrap_or_default();
        let root = RootIx::of(&root_ca.ca_cert);
        let covered = |own: &Certificate| root.is_some_and(|root| own.is_covered_by(root));
        let requester = match certificate.filter(covered) {
            Some(own) if own.node == self.node => Requester::Local { node: own.node },
            Some(own) => Requester::Certified {
                node: own.node,
                roles: vec!["swarm-worker".to_owned()],
                cluster: cluster.id.clone(),
            },
            None => Requester::Anonymous,
        };
        let token = match &requester {
            Requester::Anonymous => root_ca.join_tokens.unwrap_or_default().worker,
            Requester::Local { .. } | Requester::Certified { .. } => String::new(),
        };
        let request = swarm_api::v1::IssueNodeCertificateRequest {
            csr,
            token,
            ..Default::default()
        };
        let ids = &mut self.ids;
        let mut taken = String::new();
        let written = process
            .replica
            .write(now, Author::Issue(number), |transaction| {
                let mut ctx = Ctx { now, ids };
                let from = (&requester, Origin::UNKNOWN);
                let (writes, reply) = requests::issue(transaction, from, request, &mut ctx)?;
                transaction
                    .apply_set(&writes)
                    .expect("decided on the same root");
                taken = reply.node_id;
                Ok::<_, swarm_ca::Refusal>(())
            });
        match written {
            Ok(()) => {
                process.issues.insert(number, (conn, taken));
            }
            Err(refusal) => {
                let refused = Payload::Taken(Err((refusal.code.number(), refusal.message)));
                io.network.send_message(io.agenda, conn, None, refused);
            }
        }
    }
}
