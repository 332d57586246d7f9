//! Which roles each method accepts from a caller on the network.
//!
//! Owns the table. Does not own the check: that needs the caller's certificate, the cluster id
//! and the list of removed nodes, which only a manager has.

/// A role, as the organizational unit of a certificate spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `swarm-worker`
    Worker,
    /// `swarm-manager`
    Manager,
}

impl Role {
    /// The organizational unit that stands for the role.
    #[must_use]
    pub const fn organizational_unit(self) -> &'static str {
        match self {
            Self::Worker => "swarm-worker",
            Self::Manager => "swarm-manager",
        }
    }
}

/// One method and who may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Path of the HTTP/2 request: `/<package>.<Service>/<Method>`.
    pub path: &'static str,
    /// The caller's certificate must carry one of these. Empty exactly when `insecure`.
    pub roles: &'static [Role],
    /// Whether a caller without a certificate is accepted.
    pub insecure: bool,
}

include!("gen/authorization.rs");

/// The entry for a request path, or nothing for a path that no service of ours has.
///
/// A caller that gets nothing must refuse the request.
#[must_use]
pub fn method(path: &str) -> Option<&'static Method> {
    let at = METHODS
        .binary_search_by(|method| method.path.cmp(path))
        .ok()?;
    METHODS.get(at)
}
