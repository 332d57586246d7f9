//! What a task of image `host` can have: a plain process of a node, without a container around it.
//!
//! Owns the judgement as far as the spec alone decides it, so that the manager refuses at creation
//! what the native executor of every node would reject. Does not own what depends on the node: its
//! users, its ports, and whether limits apply there (`conditions`).

mod signals;
mod unsupported;

use swarm_api::v1;

pub use signals::{SIGNAL_MAX, stop_signal};
pub use unsupported::{is_host_network, unsupported};

/// The image reference that means the node's own file system.
pub const IMAGE_HOST: &str = "host";
/// Directories in the target of a secret or config at most. Each costs several system calls at the
/// start and the end of a task; Docker's users have one or two.
pub const TARGET_DEPTH_MAX: usize = 16;

/// Names of resource limits, as in `setrlimit(2)` and Docker's `--ulimit`.
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A resource limit; `None` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// One of [`ULIMITS`].
    pub name: &'static str,
    /// The limit that applies.
    pub soft: Option<u64>,
    /// The limit up to which the process may raise it.
    pub hard: Option<u64>,
}

/// Every reason in the spec why no node can run it as a process of its own, each with a way out;
/// none for other images. Fields with templates may be expanded or not.
pub fn problems(spec: &v1::TaskSpec, container: &v1::ContainerSpec) -> Vec<String> {
    if container.image != IMAGE_HOST {
        return Vec::new();
    }
    let mut problems = unsupported(spec, container);
    let mut keep = |problem| problems.push(problem);
    let _judged = check_program(container).map_err(&mut keep);
    let _judged = check_dir(&container.dir).map_err(&mut keep);
    let _judged = ulimits(container).map_err(&mut keep);
    let _judged = stop_signal(&container.stop_signal).map_err(&mut keep);
    let _judged = check_oom_score_adj(container.oom_score_adj).map_err(&mut keep);
    let _judged = check_targets(container).map_err(&mut keep);
    problems
}

/// Checks that there is a program: the first word of command and arguments together, as the node's
/// file system has no entry point.
///
/// # Errors
/// There is none, or a word cannot be passed on.
pub fn check_program(container: &v1::ContainerSpec) -> Result<(), String> {
    let mut words = container.command.iter().chain(&container.args);
    match words.clone().next().map(String::as_str) {
        None | Some("") => Err(
            "command: image \"host\" has no program of its own; give one as command or arguments"
                .to_owned(),
        ),
        Some(_) if words.any(|word| word.contains('\0')) => {
            Err("command: a word holds a zero byte; remove it".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// Checks the working directory.
///
/// # Errors
/// It is relative, or no path.
pub fn check_dir(dir: &str) -> Result<(), String> {
    if dir.is_empty() || dir.starts_with('/') && !dir.contains('\0') {
        return Ok(());
    }
    Err(format!(
        "dir: {dir:?} is not an absolute path; write one that begins with /"
    ))
}

/// Reads the resource limits.
///
/// # Errors
/// The first that there is not, or whose numbers make no sense.
pub fn ulimits(container: &v1::ContainerSpec) -> Result<Vec<Ulimit>, String> {
    container.ulimits.iter().map(ulimit).collect()
}

fn ulimit(wire: &v1::container_spec::Ulimit) -> Result<Ulimit, String> {
    let v1::container_spec::Ulimit { name, soft, hard } = wire;
    let Some(name) = ULIMITS.into_iter().find(|known| known == name) else {
        return Err(format!(
            "ulimits: there is no {name:?}; there are {}",
            ULIMITS.join(", ")
        ));
    };
    let value = |number: i64| match number {
        -1 => Ok(None),
        number => u64::try_from(number).map(Some).map_err(|_| {
            format!("ulimits: {name} is {number}; use -1 for unlimited, 0 or more otherwise")
        }),
    };
    let (soft, hard) = (value(*soft)?, value(*hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(format!(
            "ulimits: {name} has a soft limit above its hard one; lower it"
        ));
    }
    Ok(Ulimit { name, soft, hard })
}

/// Checks the score by which the kernel chooses what to end when memory runs out.
///
/// # Errors
/// It is out of the kernel's range.
pub fn check_oom_score_adj(score: i64) -> Result<(), String> {
    if (-1000..=1000).contains(&score) {
        return Ok(());
    }
    Err(format!(
        "oom_score_adj: {score} is not between -1000 and 1000"
    ))
}

/// Checks how deep the targets of secrets and configs are.
///
/// # Errors
/// The first that is in too many directories.
pub fn check_targets(container: &v1::ContainerSpec) -> Result<(), String> {
    use v1::{config_reference, secret_reference};
    let secrets = container.secrets.iter().map(|own| match &own.target {
        Some(secret_reference::Target::File(file)) => ("secret", &own.secret_name, Some(file)),
        None => ("secret", &own.secret_name, None),
    });
    let configs = container.configs.iter().map(|own| match &own.target {
        Some(config_reference::Target::File(file)) => ("config", &own.config_name, Some(file)),
        Some(config_reference::Target::Runtime(_)) | None => ("config", &own.config_name, None),
    });
    for (noun, name, file) in secrets.chain(configs) {
        let target = file.map_or("", |file| &file.name);
        let depth = target.split('/').filter(|part| !part.is_empty()).count();
        if depth > TARGET_DEPTH_MAX + 1 {
            return Err(format!(
                "{noun} {name:?}: its target is in {} directories, {TARGET_DEPTH_MAX} are allowed; \
                 use a shorter path",
                depth - 1
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
