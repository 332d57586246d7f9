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
    /// Whether the caller sends any number of messages.
    pub client_streaming: bool,
    /// Whether the answer is any number of messages.
    pub server_streaming: bool,
}

impl Method {
    /// Service, without its package, and method.
    #[must_use]
    pub fn names(&self) -> (&'static str, &'static str) {
        let (service, method) = self.path.rsplit_once('/').unwrap_or(("", self.path));
        (service.rsplit('.').next().unwrap_or(service), method)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_path_is_found() {
        for expected in METHODS {
            assert_eq!(method(expected.path), Some(expected));
        }
    }

    #[test]
    fn unlisted_path_is_not_found() {
        for path in [
            "",
            "/docker.swarmkit.v1.CA/",
            "/grpc.health.v1.Health/Check",
        ] {
            assert_eq!(method(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_methods_for_nodes_without_a_certificate_are_insecure() {
        let insecure: Vec<&str> = METHODS
            .iter()
            .filter(|method| method.insecure)
            .map(|method| method.path)
            .collect();
        assert_eq!(
            insecure,
            [
                "/docker.swarmkit.v1.CA/GetRootCACertificate",
                "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate",
                "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus",
                "/swarmkit_rs.v1.Identity/CheckJoinToken",
            ]
        );
    }

    #[test]
    fn methods_name_roles_exactly_when_they_need_a_certificate() {
        for method in METHODS {
            assert_eq!(method.roles.is_empty(), method.insecure, "{}", method.path);
        }
    }

    #[test]
    fn workers_may_heartbeat_and_may_not_manage() {
        let roles = |path| method(path).unwrap().roles;
        assert!(roles("/docker.swarmkit.v1.Dispatcher/Heartbeat").contains(&Role::Worker));
        assert_eq!(
            roles("/docker.swarmkit.v1.Control/ListNodes"),
            [Role::Manager]
        );
        assert_eq!(roles("/swarmkit_rs.v1.Explain/Why"), [Role::Manager]);
    }
}
