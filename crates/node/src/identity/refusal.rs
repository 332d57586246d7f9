//! Why a node has no identity, with the way out.

use std::path::PathBuf;

use swarm_ca::chain::ChainError;
use swarm_ca::identity::IdentityError as NoIdentity;
use swarm_ca::issue::SignError;
use swarm_ca::root::{RootDigest, RootError};
use swarm_ca::token::TokenError;
use swarm_rt::tls::CredentialsError;
use swarm_types::{NodeId, Timestamp};

use crate::certificates::CertificatesError;
use crate::obtain::ObtainError;

/// Why there is no identity. Nothing on disk was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The files.
    #[error(transparent)]
    Files(#[from] CertificatesError),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A cluster did not let the node in.
    #[error("cannot join the cluster")]
    Obtain(#[from] ObtainError),
    /// A new root or certificate could not be made.
    #[error("cannot found a cluster")]
    Found(#[from] SignError),
    /// The certificate's root.
    #[error("root certificate {}", .0.display())]
    Root(PathBuf, #[source] RootError),
    /// The certificate is not believed under the root beside it.
    #[error(
        "node certificate {} is not accepted; restore the directory from a backup, or move the \
         state directory away to join as a new node", .0.display()
    )]
    Chain(PathBuf, #[source] ChainError),
    /// The certificate is not one of a node.
    #[error("node certificate {}", .0.display())]
    Certificate(PathBuf, #[source] NoIdentity),
    /// Certificate, key and root cannot be used together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate has expired while the node was off.
    #[error(
        "the certificate of node {node} expired at {not_after}, and this machine's clock says \
         {now}: if the clock is right, run `swarmctl node readmit {node}` on a manager, and start \
         this node once more with `--join-token` and the token that it prints; the node keeps its \
         id and its state"
    )]
    Expired {
        /// The node.
        node: NodeId,
        /// Until when the certificate was valid.
        not_after: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// The certificate has expired, and the token did not help.
    #[error(
        "the certificate of node {node} expired at {not_after}, and the given join token does not \
         renew it: run `swarmctl node readmit {node}` on a manager, and start this node once more \
         with `--join-token` and the token that it prints"
    )]
    NotReadmitted {
        /// The node.
        node: NodeId,
        /// Until when the certificate was valid.
        not_after: Timestamp,
        /// What is wrong with the token.
        source: Box<IdentityError>,
    },
    /// The certificate is from the future.
    #[error(
        "the certificate of node {node} is valid from {not_before} on, and this machine's clock \
         says {now}: set the clock"
    )]
    NotYetValid {
        /// The node.
        node: NodeId,
        /// From when the certificate is valid.
        not_before: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// A token gave an identity other than the one on disk.
    #[error(
        "the join token made a new node {new} instead of renewing the certificate of {old}, whose \
         state is in this directory; use a token of `swarmctl node readmit {old}`, and remove the \
         new node with `swarmctl node rm {new}`"
    )]
    OtherNode {
        /// The node on disk.
        old: NodeId,
        /// The node in the new certificate.
        new: NodeId,
    },
    /// The state directory belongs to the other kind of node.
    #[error("the state directory {} belongs to a {is}, {way_out}", .path.display())]
    OtherPart {
        /// The directory.
        path: PathBuf,
        /// What it belongs to.
        is: &'static str,
        /// How to go on.
        way_out: &'static str,
    },
    /// A token for somebody else, or for another cluster.
    #[error(
        "the state directory {} belongs to node {node}, which did not join with the given token: \
         to keep the node, start it without --join-token; to join as a new node, end its tasks and \
         remove its state first with `swarmd leave --state-dir {}`",
        .path.display(), .path.display()
    )]
    OtherToken {
        /// The directory.
        path: PathBuf,
        /// The node in it.
        node: NodeId,
    },
    /// Files of a cluster without the certificate that goes with them.
    #[error(
        "{} is there, but the node has no certificate; restore `certificates` from a backup, or \
         move the state directory away to start as a new node", .0.display()
    )]
    NoCertificate(PathBuf),
    /// A first manager that cannot issue certificates.
    #[error(
        "the root certificate {} is there without its key, and no external authority is named: \
         put the key beside it as `swarm-root-ca.key`, or name the authority with --external-ca",
        .0.display()
    )]
    NoSigner(PathBuf),
    /// External authorities for a cluster that exists.
    #[error(
        "--external-ca counts only when a cluster is founded; change a cluster with `swarmctl \
         cluster update --external-ca`, and start without it"
    )]
    LateExternal,
    /// A second manager.
    #[error(
        "the join token admits managers, and a second manager cannot run yet; join as a worker \
         with the token of `swarmctl cluster join-token worker`{}", rest(.0.as_ref())
    )]
    SecondManager(Option<NodeId>),
    /// A root that was there already is not the one of the token.
    #[error(
        "the root certificate {} has the digest {found}, and the join token is for {expected}; \
         remove the file to join the cluster of the token", .path.display()
    )]
    RootConflict {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: RootDigest,
        /// The digest in the token.
        expected: RootDigest,
    },
    /// FIPS.
    #[error("node is not FIPS-enabled but cluster requires FIPS")]
    Fips,
}

fn rest(node: Option<&NodeId>) -> String {
    node.map_or_else(String::new, |node| {
        format!("; remove the node that it made with `swarmctl node rm {node}`")
    })
}
