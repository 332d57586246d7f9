//! Which files a task gets for its secrets and configs, and where it finds them.
//!
//! A process on the node itself sees the node's files, so a relative target is below a directory
//! that the environment names. An absolute target, and `/run/secrets`, need a view of the file
//! system of the task's own, which only root can make.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use swarm_api::v1;

use super::Machine;
use crate::memory;
use crate::records::{Bind, PayloadFile, PayloadKind};

/// Where Docker's users look for secrets.
const SECRETS_TARGET: &str = "/run/secrets";
/// Below the task's directory in memory.
const SECRETS: &str = "secrets";
const CONFIGS: &str = "configs";
const ELSEWHERE: &str = "elsewhere";

/// Files, and how they get to where the spec wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Payloads {
    pub(super) files: Vec<PayloadFile>,
    /// Paths that only the task sees, with what is there.
    pub(super) binds: Vec<Bind>,
    /// The task's directory in memory; `None` if it needs none.
    pub(super) directory: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

impl Payloads {
    /// Variables that say where the files are.
    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        let Some(directory) = &self.directory else {
            return Vec::new();
        };
        let has = |kind| self.files.iter().any(|file| file.kind == kind);
        let path = |name| directory.join(name).display().to_string();
        let mut env = Vec::new();
        if has(PayloadKind::Secret) {
            env.push(("SWARM_SECRETS_DIR", path(SECRETS)));
            // As for services of systemd, so that programs which know that find their secrets.
            env.push(("CREDENTIALS_DIRECTORY", path(SECRETS)));
        }
        if has(PayloadKind::Config) {
            env.push(("SWARM_CONFIGS_DIR", path(CONFIGS)));
        }
        env
    }
}

/// A reference of either kind.
struct Reference<'a> {
    kind: PayloadKind,
    id: &'a str,
    name: &'a str,
    file: Option<&'a v1::FileTarget>,
}

/// Judges the references of a container.
///
/// # Errors
/// The first that cannot be had here, with the way out.
pub(super) fn plan(
    task: &str,
    container: &v1::ContainerSpec,
    machine: &dyn Machine,
) -> Result<Payloads, String> {
    let references = references(container);
    if references.is_empty() {
        return Ok(Payloads::default());
    }
    let directory = machine.payload_dir(task)?;
    let mut plan = Payloads {
        directory: Some(directory.clone()),
        ..Payloads::default()
    };
    let mut has_relative_secret = false;
    for reference in &references {
        let (file, target) = file(reference, plan.files.len(), machine)?;
        match target {
            Some(target) => plan.binds.push(Bind {
                source: directory.join(&file.path),
                target,
                is_dir: false,
            }),
            None => has_relative_secret |= file.kind == PayloadKind::Secret,
        }
        plan.files.push(file);
    }
    if machine.can_mount() {
        if has_relative_secret {
            // Before those that may be inside.
            let bind = Bind {
                source: directory.join(SECRETS),
                target: SECRETS_TARGET.into(),
                is_dir: true,
            };
            plan.binds.insert(0, bind);
        }
    } else {
        plan.warnings.push(format!(
            "other programs of the same user can read the secrets and configs of this task in {}; \
             run the agent as root to keep tasks apart",
            directory.display()
        ));
    }
    refuse_collisions(&plan.files)?;
    Ok(plan)
}

fn references(container: &v1::ContainerSpec) -> Vec<Reference<'_>> {
    let secrets = container.secrets.iter().map(|own| Reference {
        kind: PayloadKind::Secret,
        id: &own.secret_id,
        name: &own.secret_name,
        file: own
            .target
            .as_ref()
            .map(|v1::secret_reference::Target::File(file)| file),
    });
    let configs = container.configs.iter().map(|own| Reference {
        kind: PayloadKind::Config,
        id: &own.config_id,
        name: &own.config_name,
        file: match &own.target {
            Some(v1::config_reference::Target::File(file)) => Some(file),
            Some(v1::config_reference::Target::Runtime(_)) | None => None,
        },
    });
    secrets.chain(configs).collect()
}

/// The file, and the absolute path that it is to be found at, if it is one.
fn file(
    reference: &Reference<'_>,
    number: usize,
    machine: &dyn Machine,
) -> Result<(PayloadFile, Option<PathBuf>), String> {
    let what = format!("{} {:?}", reference.kind.noun(), reference.name);
    let wanted = reference.file.ok_or_else(|| {
        format!("{what}: it has no file, and there is no runtime here to use it; give it a file")
    })?;
    let target = Path::new(&wanted.name);
    let relative = target.strip_prefix("/").unwrap_or(target);
    if !memory::is_plain(relative) || wanted.name.contains('\0') {
        let text = format!("{what}: {:?} is not the path of a file", wanted.name);
        return Err(format!("{text}; write it without . and .."));
    }
    if target.is_absolute() && !machine.can_mount() {
        return Err(format!(
            "{what}: the target {:?} is absolute, and only an agent of root can give a task a \
             file of its own there; use a relative target, which is below SWARM_SECRETS_DIR or \
             SWARM_CONFIGS_DIR",
            wanted.name
        ));
    }
    if wanted.mode > 0o777 {
        let text = format!("{what}: mode {:o} has more than permissions", wanted.mode);
        return Err(format!("{text}; use 0777 or less"));
    }
    let path = match (target.is_absolute(), reference.kind) {
        (true, _) => Path::new(ELSEWHERE).join(number.to_string()),
        (false, PayloadKind::Secret) => Path::new(SECRETS).join(target),
        (false, PayloadKind::Config) => Path::new(CONFIGS).join(target),
    };
    let (uid, gid) = machine
        .file_owner(
            owner(&what, "uid", &wanted.uid)?,
            owner(&what, "gid", &wanted.gid)?,
        )
        .map_err(|reason| format!("{what}: {reason}"))?;
    let file = PayloadFile {
        kind: reference.kind,
        id: reference.id.to_owned(),
        path,
        uid,
        gid,
        mode: wanted.mode,
    };
    Ok((file, target.is_absolute().then(|| target.to_owned())))
}

fn owner(what: &str, field: &str, text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("{what}: {field} {text:?} is not a number; use the number of an id"))
}

/// A file cannot be at the path of another one, nor a directory on the way to it.
fn refuse_collisions(files: &[PayloadFile]) -> Result<(), String> {
    let paths: BTreeSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    for file in files {
        let inside = file
            .path
            .ancestors()
            .skip(1)
            .find(|path| paths.contains(path));
        if let Some(inside) = inside {
            let (outer, inner) = (inside.display(), file.path.display());
            return Err(format!(
                "secrets and configs: {outer} cannot be a file and hold {inner}; rename one"
            ));
        }
    }
    if paths.len() == files.len() {
        return Ok(());
    }
    Err("secrets and configs: two have the same file; rename one".to_owned())
}
