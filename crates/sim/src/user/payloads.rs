//! The secrets and configs that the user makes, and which services refer to them.

use swarm_api::v1;
use swarm_control_api as control;
use swarm_reconcile::Ctx;
use swarm_store::{Root, Transaction};
use swarm_types::{Config, Secret};
use v1::task_spec::Runtime;

use crate::random::Random;

/// Secrets and configs at any time, at most.
const PAYLOADS_MAX: usize = 12;
/// The driver of secrets that somebody else keeps.
const DRIVER: &str = "sim";
/// The end of the name of a secret whose data are for one task alone.
const ONCE: &str = "-once";

/// One action.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    CreateSecret(Box<v1::SecretSpec>),
    CreateConfig(Box<v1::ConfigSpec>),
    RemoveSecret(String),
    RemoveConfig(String),
}

impl Wish {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::CreateSecret(_) => "user create secret",
            Self::CreateConfig(_) => "user create config",
            Self::RemoveSecret(_) => "user remove secret",
            Self::RemoveConfig(_) => "user remove config",
        }
    }

    /// Asks the Control API.
    pub(super) fn perform(
        self,
        transaction: &mut Transaction,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), control::Refusal> {
        match self {
            Self::CreateSecret(spec) => {
                let request = v1::CreateSecretRequest { spec: Some(*spec) };
                let plan = control::create_secret(transaction, ctx, &|_| true, request)?;
                plan.apply(transaction).map(drop)
            }
            Self::CreateConfig(spec) => {
                let request = v1::CreateConfigRequest { spec: Some(*spec) };
                let plan = control::create_config(transaction, ctx, request)?;
                plan.apply(transaction).map(drop)
            }
            Self::RemoveSecret(secret_id) => {
                let request = v1::RemoveSecretRequest { secret_id };
                let plan = control::remove_secret(transaction, request)?;
                plan.apply(transaction).map(drop)
            }
            Self::RemoveConfig(config_id) => {
                let request = v1::RemoveConfigRequest { config_id };
                let plan = control::remove_config(transaction, request)?;
                plan.apply(transaction).map(drop)
            }
        }
    }

    pub(super) fn object(&self) -> String {
        let name = |annotations: &Option<v1::Annotations>| {
            annotations.clone().map(|own| own.name).unwrap_or_default()
        };
        match self {
            Self::CreateSecret(spec) => name(&spec.annotations),
            Self::CreateConfig(spec) => name(&spec.annotations),
            Self::RemoveSecret(id) | Self::RemoveConfig(id) => id.clone(),
        }
    }
}

/// Whether the driver provides a secret for one task alone.
pub(crate) fn is_for_one_task(secret: &Secret) -> bool {
    let annotations = secret.spec.annotations.as_ref();
    annotations.is_some_and(|own| own.name.ends_with(ONCE))
}

/// What there is at the beginning: one of each kind.
pub(super) fn first() -> Vec<Wish> {
    (0..4).map(create).collect()
}

/// Draws one more action.
pub(super) fn draw(view: &Root, number: u64, random: &mut Random) -> Option<Wish> {
    let secrets: Vec<String> = view.all::<Secret>().map(|own| own.id.to_string()).collect();
    let configs: Vec<String> = view.all::<Config>().map(|own| own.id.to_string()).collect();
    match random.below(4) {
        0 => random.pick(&secrets).cloned().map(Wish::RemoveSecret),
        1 => random.pick(&configs).cloned().map(Wish::RemoveConfig),
        _ if secrets.len() + configs.len() < PAYLOADS_MAX => Some(create(4 + number)),
        _ => None,
    }
}

/// The next of the kinds in turn.
fn create(number: u64) -> Wish {
    let annotations = |name: String| {
        Some(v1::Annotations {
            name,
            ..Default::default()
        })
    };
    let driver = || {
        Some(v1::Driver {
            name: DRIVER.to_owned(),
            ..Default::default()
        })
    };
    let secret = match number % 4 {
        0 => v1::SecretSpec {
            annotations: annotations(format!("secret-{number}")),
            data: "hush".into(),
            ..Default::default()
        },
        1 => v1::SecretSpec {
            annotations: annotations(format!("driven-{number}")),
            driver: driver(),
            ..Default::default()
        },
        2 => v1::SecretSpec {
            annotations: annotations(format!("driven-{number}{ONCE}")),
            driver: driver(),
            ..Default::default()
        },
        _ => {
            return Wish::CreateConfig(Box::new(v1::ConfigSpec {
                annotations: annotations(format!("config-{number}")),
                data: "plain".into(),
                ..Default::default()
            }));
        }
    };
    Wish::CreateSecret(Box::new(secret))
}

/// Lets a service refer to some of them.
pub(super) fn refer(spec: &mut v1::ServiceSpec, view: &Root, random: &mut Random) {
    let task = spec.task.as_mut().and_then(|task| task.runtime.as_mut());
    let Some(Runtime::Container(container)) = task else {
        return;
    };
    let target = |name: &str| v1::FileTarget {
        name: name.to_owned(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: 0o444,
    };
    for secret in view.all::<Secret>() {
        if random.happens(400) {
            let name = secret.spec.annotations.clone().unwrap_or_default().name;
            container.secrets.push(v1::SecretReference {
                secret_id: secret.id.to_string(),
                target: Some(v1::secret_reference::Target::File(target(&name))),
                secret_name: name,
            });
        }
    }
    for config in view.all::<Config>() {
        if random.happens(400) {
            let name = config.spec.annotations.clone().unwrap_or_default().name;
            container.configs.push(v1::ConfigReference {
                config_id: config.id.to_string(),
                target: Some(v1::config_reference::Target::File(target(&name))),
                config_name: name,
            });
        }
    }
}
