//! Which requests of the Control service are answered by this crate.

use crate::refusal::{Refusal, rules};

rules! {
    RPC_UNIMPLEMENTED: Unimplemented, "Control.{} is not implemented yet";
}

/// The requests that have a function in this crate.
pub const IMPLEMENTED: &[&str] = &[
    "GetCluster",
    "ListClusters",
    "UpdateCluster",
    "GetNode",
    "ListNodes",
    "UpdateNode",
    "RemoveNode",
    "GetService",
    "ListServices",
    "CreateService",
    "UpdateService",
    "RemoveService",
    "ListServiceStatuses",
    "GetTask",
    "ListTasks",
    "RemoveTask",
    "GetSecret",
    "UpdateSecret",
    "ListSecrets",
    "CreateSecret",
    "RemoveSecret",
    "GetConfig",
    "UpdateConfig",
    "ListConfigs",
    "CreateConfig",
    "RemoveConfig",
];

/// The requests that the shell answers with [`unimplemented()`].
pub const UNIMPLEMENTED: &[&str] = &[
    "GetNetwork",
    "ListNetworks",
    "CreateNetwork",
    "RemoveNetwork",
    "GetExtension",
    "CreateExtension",
    "RemoveExtension",
    "GetResource",
    "UpdateResource",
    "ListResources",
    "CreateResource",
    "RemoveResource",
    "CreateVolume",
    "GetVolume",
    "UpdateVolume",
    "ListVolumes",
    "RemoveVolume",
];

/// The answer to a request that this program does not know how to do yet.
pub fn unimplemented(rpc: &str) -> Refusal {
    RPC_UNIMPLEMENTED.refuse(&[&rpc])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_request_of_the_service_is_in_exactly_one_list() {
        let of_the_service: BTreeSet<&str> = swarm_api::authorization::METHODS
            .iter()
            .filter_map(|method| method.path.strip_prefix("/docker.swarmkit.v1.Control/"))
            .collect();
        let listed: Vec<&str> = IMPLEMENTED.iter().chain(UNIMPLEMENTED).copied().collect();
        assert_eq!(listed.len(), 43);
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), of_the_service);
    }
}
