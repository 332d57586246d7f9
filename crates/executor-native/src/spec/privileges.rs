//! The privileges part of a spec: `no_new_privileges` is honoured, all else needs a container.

use swarm_api::v1;

/// Whether the task must not gain privileges.
pub(super) fn no_new_privileges(container: &v1::ContainerSpec) -> Result<bool, String> {
    let Some(privileges) = &container.privileges else {
        return Ok(false);
    };
    let known = v1::Privileges {
        no_new_privileges: privileges.no_new_privileges,
        ..v1::Privileges::default()
    };
    if *privileges != known {
        return Err(
            "privileges: only no_new_privileges is supported here; remove \
                    credential_spec, selinux_context, seccomp and apparmor, or use a node whose \
                    executor runs containers"
                .into(),
        );
    }
    Ok(privileges.no_new_privileges)
}
