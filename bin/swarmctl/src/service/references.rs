//! Flags that give a service secrets and configs.

use std::str::FromStr;

use clap::Args;
use swarm_api::v1;
use v1::task_spec::Runtime;

use crate::connect::Manager;
use crate::failure::Failure;
use crate::lookup::{Named as _, find};

/// Who may read the file unless the flag says otherwise: everybody, as in SwarmKit.
const MODE_DEFAULT: u32 = 0o444;
/// Whom the file belongs to unless the flag says otherwise: root. An Engine cannot start a task
/// whose file belongs to nobody.
const OWNER_DEFAULT: &str = "0";
/// Permission bits.
const MODE_MAX: u32 = 0o777;

/// Flags of `service create`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NewReferences {
    /// A secret for the tasks, as `NAME[:FILE]` or
    /// `NAME[,target=FILE][,uid=ID][,gid=ID][,mode=0444]`.
    #[arg(long)]
    secret: Vec<ReferenceArg>,
    /// A config for the tasks, written like --secret.
    #[arg(long)]
    config: Vec<ReferenceArg>,
}

/// Flags of `service update`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ChangedReferences {
    /// Add a secret, as `NAME[:FILE]` or `NAME[,target=FILE][,uid=ID][,gid=ID][,mode=0444]`.
    #[arg(long)]
    add_secret: Vec<ReferenceArg>,
    /// Take away a secret, by its name or id.
    #[arg(long)]
    rm_secret: Vec<String>,
    /// Add a config, written like --add-secret.
    #[arg(long)]
    add_config: Vec<ReferenceArg>,
    /// Take away a config, by its name or id.
    #[arg(long)]
    rm_config: Vec<String>,
}

impl NewReferences {
    /// Looks the objects up and adds them to the spec.
    ///
    /// # Errors
    /// An object that does not exist.
    pub(crate) async fn apply(
        &self,
        manager: &Manager,
        spec: &mut v1::ServiceSpec,
    ) -> Result<(), Failure> {
        add(manager, spec, &self.secret, &self.config).await
    }
}

impl ChangedReferences {
    /// Takes away first, so that a reference can be replaced.
    ///
    /// # Errors
    /// An object that does not exist, or that the service does not use.
    pub(crate) async fn apply(
        &self,
        manager: &Manager,
        spec: &mut v1::ServiceSpec,
    ) -> Result<(), Failure> {
        if !self.rm_secret.is_empty() || !self.rm_config.is_empty() {
            let container = container(spec)?;
            for wanted in &self.rm_secret {
                let before = container.secrets.len();
                container
                    .secrets
                    .retain(|own| own.secret_name != *wanted && own.secret_id != *wanted);
                refuse_unused("secret", wanted, before > container.secrets.len())?;
            }
            for wanted in &self.rm_config {
                let before = container.configs.len();
                container
                    .configs
                    .retain(|own| own.config_name != *wanted && own.config_id != *wanted);
                refuse_unused("config", wanted, before > container.configs.len())?;
            }
        }
        add(manager, spec, &self.add_secret, &self.add_config).await
    }
}

fn refuse_unused(noun: &str, wanted: &str, was_used: bool) -> Result<(), Failure> {
    if was_used {
        return Ok(());
    }
    Err(
        Failure::refused(format!("the service does not use {noun} {wanted:?}"))
            .hint("`swarmctl service inspect` lists what it uses"),
    )
}

async fn add(
    manager: &Manager,
    spec: &mut v1::ServiceSpec,
    secrets: &[ReferenceArg],
    configs: &[ReferenceArg],
) -> Result<(), Failure> {
    if secrets.is_empty() && configs.is_empty() {
        return Ok(());
    }
    let container = container(spec)?;
    for wanted in secrets {
        let secret: v1::Secret = find(manager, &wanted.source).await?;
        let name = secret.name();
        container.secrets.push(v1::SecretReference {
            target: Some(v1::secret_reference::Target::File(wanted.file(&name))),
            secret_id: secret.id,
            secret_name: name,
        });
    }
    for wanted in configs {
        let config: v1::Config = find(manager, &wanted.source).await?;
        let name = config.name();
        container.configs.push(v1::ConfigReference {
            target: Some(v1::config_reference::Target::File(wanted.file(&name))),
            config_id: config.id,
            config_name: name,
        });
    }
    Ok(())
}

fn container(spec: &mut v1::ServiceSpec) -> Result<&mut v1::ContainerSpec, Failure> {
    match spec.task.as_mut().and_then(|task| task.runtime.as_mut()) {
        Some(Runtime::Container(container)) => Ok(container),
        Some(Runtime::Attachment(_) | Runtime::Generic(_)) | None => Err(Failure::refused(
            "this service runs no containers; it takes no secrets and configs",
        )),
    }
}

/// A secret or config, and where its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReferenceArg {
    source: String,
    target: Option<String>,
    uid: String,
    gid: String,
    mode: u32,
}

impl ReferenceArg {
    fn file(&self, name: &str) -> v1::FileTarget {
        v1::FileTarget {
            name: self.target.clone().unwrap_or_else(|| name.to_owned()),
            uid: self.uid.clone(),
            gid: self.gid.clone(),
            mode: self.mode,
        }
    }
}

impl FromStr for ReferenceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let mut reference = Self {
            source: String::new(),
            target: None,
            uid: OWNER_DEFAULT.to_owned(),
            gid: OWNER_DEFAULT.to_owned(),
            mode: MODE_DEFAULT,
        };
        if first.contains('=') {
            reference.set(first)?;
        } else {
            let (source, target) = match first.split_once(':') {
                Some((source, target)) => (source, Some(target.to_owned())),
                None => (first, None),
            };
            source.clone_into(&mut reference.source);
            reference.target = target;
        }
        for part in parts {
            reference.set(part)?;
        }
        if reference.source.is_empty() || reference.target.as_deref() == Some("") {
            return Err("write it as NAME, NAME:FILE or NAME,target=FILE,mode=0400".to_owned());
        }
        Ok(reference)
    }
}

impl ReferenceArg {
    fn set(&mut self, part: &str) -> Result<(), String> {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not written as key=value"))?;
        let number = || match value.parse::<u32>() {
            Ok(_) => Ok(value.to_owned()),
            Err(_) => Err(format!("{key} is a number, not {value:?}")),
        };
        match key {
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" => self.target = Some(value.to_owned()),
            "uid" => self.uid = number()?,
            "gid" => self.gid = number()?,
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok();
                self.mode = mode.filter(|mode| *mode <= MODE_MAX).ok_or_else(|| {
                    format!("mode is octal permissions such as 0400, not {value:?}")
                })?;
            }
            _ => return Err(format!("{key:?} is none of source, target, uid, gid, mode")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<v1::FileTarget, String> {
        let reference: ReferenceArg = text.parse()?;
        assert_eq!(reference.source, "db");
        Ok(reference.file("db"))
    }

    fn file(name: &str) -> v1::FileTarget {
        v1::FileTarget {
            name: name.to_owned(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        }
    }

    #[test]
    fn a_reference_has_a_short_and_a_long_form() {
        assert_eq!(parsed("db"), Ok(file("db")));
        assert_eq!(parsed("db:/etc/p"), Ok(file("/etc/p")));
        assert_eq!(parsed("source=db,target=p"), Ok(file("p")));
        let everything = v1::FileTarget {
            name: "p".to_owned(),
            uid: "7".to_owned(),
            gid: "8".to_owned(),
            mode: 0o400,
        };
        let long = "db,target=p,uid=7,gid=8,mode=0400";
        assert_eq!(parsed(long), Ok(everything));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            ":p",
            "db:",
            "target=p",
            "db,p",
            "db,mode=0999",
            "db,mode=4444",
            "db,uid=root",
            "db,colour=red",
        ] {
            assert!(text.parse::<ReferenceArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_that_the_service_does_not_use_cannot_be_taken_away() {
        assert!(refuse_unused("secret", "db", true).is_ok());
        let refusal = refuse_unused("secret", "db", false).unwrap_err();
        assert_eq!(refusal.message(), "the service does not use secret \"db\"");
    }
}
