//! `Debug` for the messages that hold secrets, so that no log line can contain one.
//!
//! Owns which fields are hidden. Does not protect memory: the fields themselves are public,
//! since they have to be encoded.

use std::fmt;

use crate::{ext, raftpb, v1};

/// Implements `Debug` with the fields after the semicolon hidden.
///
/// Every field has to be on one side or the other: one that is new to a message does not
/// compile until somebody has decided.
macro_rules! hide {
    ($($message:path { $($shown:ident),* ; $($hidden:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($hidden,)* } = self;
                // A derived `Debug` prints no module path and no `r#`; neither does this one.
                let path = stringify!($message);
                let name = path.rsplit("::").next().unwrap_or(path).trim();
                let mut output = formatter.debug_struct(name);
                $(output.field(stringify!($shown).trim_start_matches("r#"), $shown);)*
                $(output.field(stringify!($hidden), &Hidden::of($hidden));)*
                output.finish()
            }
        }
    )*};
}

hide! {
    v1::acceptance_policy::role_admission_policy::Secret { alg; data }
    v1::CaConfig {
        node_cert_expiry, external_cas, signing_ca_cert, force_rotate;
        signing_ca_key
    }
    v1::container_spec::PullOptions { ; registry_auth }
    v1::EncryptionKey { subsystem, algorithm, lamport_time; key }
    v1::GetUnlockKeyResponse { version; unlock_key }
    v1::IssueNodeCertificateRequest { role, csr, availability; token }
    v1::JoinTokens { ; worker, manager }
    v1::MaybeEncryptedRecord { algorithm, nonce; data }
    v1::RootCa {
        ca_cert, ca_cert_hash, join_tokens, root_rotation, last_forced_rotation;
        ca_key
    }
    v1::RootRotation { ca_cert, cross_signed_ca_cert; ca_key }
    v1::SecretSpec { annotations, templating, driver; data }
    raftpb::Entry { r#type, term, index; data }
    raftpb::Snapshot { metadata; data }
    ext::CheckJoinTokenRequest { ; token }
    ext::CreateJoinTokenResponse { info; token }
}

/// Stands for a secret in output. Whether there is one at all is no secret.
enum Hidden {
    Empty,
    Present,
}

impl Hidden {
    fn of(secret: &impl Secret) -> Self {
        if secret.is_absent() {
            Self::Empty
        } else {
            Self::Present
        }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "<empty>",
            Self::Present => "<hidden>",
        })
    }
}

trait Secret {
    fn is_absent(&self) -> bool;
}

impl Secret for String {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Secret for bytes::Bytes {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Secret> Secret for Option<T> {
    fn is_absent(&self) -> bool {
        self.as_ref().is_none_or(Secret::is_absent)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn debug_output_hides_a_secret_and_shows_the_rest() {
        let spec = v1::SecretSpec {
            annotations: Some(v1::Annotations {
                name: "db-password".to_owned(),
                ..Default::default()
            }),
            data: Bytes::from_static(b"hunter2"),
            ..Default::default()
        };
        let output = format!(
            "{:?}",
            v1::Secret {
                spec: Some(spec),
                ..Default::default()
            }
        );
        assert!(output.contains("db-password"), "{output}");
        assert!(output.contains("data: <hidden>"), "{output}");
        // A derived `Debug` would print the bytes as text.
        assert!(!output.contains("hunter2"), "{output}");
    }

    #[test]
    fn debug_output_hides_a_log_entry() {
        let entry = raftpb::Entry {
            index: Some(7),
            data: Some(Bytes::from_static(b"hunter2")),
            ..Default::default()
        };
        assert_eq!(
            format!("{entry:?}"),
            "Entry { type: None, term: None, index: Some(7), data: <hidden> }"
        );
    }

    #[test]
    fn debug_output_tells_an_absent_secret_from_a_present_one() {
        let tokens = v1::JoinTokens {
            worker: "SWMTKN-1".to_owned(),
            manager: String::new(),
        };
        assert_eq!(
            format!("{tokens:?}"),
            "JoinTokens { worker: <hidden>, manager: <empty> }"
        );
    }
}
