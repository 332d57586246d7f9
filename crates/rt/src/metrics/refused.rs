//! The reasons for which something is refused, each a label of one counter.

/// Declares the reasons once, so that the list and the labels cannot drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $label:literal,)+) => {
        /// Why a peer did not get what it asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refused {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Refused {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The value of the label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// The certificate's time is over.
    CertificateExpired => "certificate_expired",
    /// The certificate's time has not begun: a clock is wrong.
    CertificateNotYetValid => "certificate_not_yet_valid",
    /// The certificate is signed by an authority that the cluster does not trust.
    CertificateUnknownAuthority => "certificate_unknown_authority",
    /// The certificate is damaged, or names no node.
    CertificateInvalid => "certificate_invalid",
    /// The handshake failed for another reason.
    HandshakeFailed => "handshake_failed",
    /// Handshake and HTTP/2 preface took too long.
    HandshakeTimeout => "handshake_timeout",
    /// The peer agrees to other protocols alone in the handshake, or does not begin as HTTP/2 does.
    NoHttp2 => "no_http2",
    /// The other end of an open connection is gone without a word.
    HalfOpen => "half_open",
    /// One address has too many handshakes in progress.
    TooManyHandshakes => "too_many_handshakes",
    /// The manager has as many connections as it takes.
    TooManyConnections => "too_many_connections",
    /// There are as many connections without a certificate as the manager takes.
    TooManyAnonymous => "too_many_anonymous",
    /// A node has as many connections as one may.
    TooManyOfNode => "too_many_of_node",
    /// A connection carried more pings, settings and window updates than its calls explain.
    FrameFlood => "frame_flood",
    /// A client of the figures was so slow that its place went to another one.
    SlowScraper => "slow_scraper",
    /// A connection without a certificate stayed longer than it takes to get one.
    AnonymousTooLong => "anonymous_too_long",
    /// A method was called without a certificate.
    NoCertificate => "no_certificate",
    /// The certificate, or the node's role, does not allow the method.
    WrongRole => "wrong_role",
    /// The certificate belongs to another cluster.
    WrongOrganization => "wrong_organization",
    /// The node was removed from the cluster.
    RemovedNode => "removed_node",
    /// A call was forwarded by someone who may not, or lacks information.
    BadForwarding => "bad_forwarding",
    /// A call was forwarded to a manager that does not lead.
    ForwardedToFollower => "forwarded_to_follower",
    /// The method does not exist, or is not offered on this listener.
    UnknownMethod => "unknown_method",
    /// A message is larger than the limit.
    OversizedMessage => "oversized_message",
    /// A write does not fit an entry of the log, not even alone.
    OversizedWrite => "oversized_write",
    /// A node describes itself, or a task, with more than is stored.
    OversizedReport => "oversized_report",
    /// One connection has too many calls in progress.
    TooManyCalls => "too_many_calls",
    /// A call did not send its request in time.
    CallTimeout => "call_timeout",
    /// A call says in a way that nobody understands how long its caller waits.
    BadDeadline => "bad_deadline",
    /// Too many nodes were made that never came.
    TooManyWaiting => "too_many_waiting",
    /// The join token is not one of this cluster's.
    BadToken => "bad_token",
    /// The certificate request cannot be used.
    BadRequest => "bad_certificate_request",
    /// A session that is not, or no longer, the node's.
    InvalidSession => "invalid_session",
    /// A node asks for a session, and is not in the cluster.
    UnknownNode => "unknown_node",
    /// A call of a node that has no session.
    NotRegistered => "not_registered",
    /// A node reported about a task of another node.
    OtherNodesTask => "other_nodes_task",
    /// A node registers too often.
    RegistrationRate => "registration_rate",
    /// Two machines use the same certificate.
    ClonedMachine => "cloned_machine",
}
