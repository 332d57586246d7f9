//! `swarmctl cluster unlock-key`, and the key that an update of the cluster made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Args;
use serde::Serialize;
use swarm_api::v1;

use crate::cli::Format;
use crate::cluster;
use crate::failure::Failure;
use crate::lookup::find;
use crate::output::{Context, emit, emit_json, emit_line};

/// What the form that people copy begins with.
const PREFIX: &str = "SWMKEY-1-";

/// Flags of `cluster unlock-key`.
#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Id or name of the cluster; there is one.
    object: Option<String>,
    /// Replace the key first; the one before is worthless from then on.
    #[arg(long)]
    rotate: bool,
    /// Print the key only.
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// A key as JSON.
#[derive(Serialize)]
struct KeyView<'a> {
    unlock_key: &'a str,
}

/// Runs `cluster unlock-key`.
///
/// # Errors
/// What the manager refused, or that managers are not locked.
pub(crate) async fn run(context: &Context, flags: &UnlockKey) -> Result<(), Failure> {
    if let Some(object) = &flags.object {
        let _: v1::Cluster = find(&context.manager, object).await?;
    }
    if flags.rotate {
        let cluster = cluster::only(context).await?;
        let rotation = v1::KeyRotation {
            manager_unlock_key: true,
            ..Default::default()
        };
        cluster::send(context, &cluster, cluster.spec.clone(), rotation).await?;
    }
    let Some(key) = get(context).await? else {
        return Err(
            Failure::refused("managers are not locked, so there is no unlock key")
                .hint("`swarmctl cluster update default --autolock=true` locks them"),
        );
    };
    match flags.format {
        _ if flags.quiet => emit_line(&key),
        Format::Json => emit_json(&KeyView { unlock_key: &key }),
        Format::Table => show(&key, flags.rotate),
    }
}

/// The key, if managers are locked.
///
/// # Errors
/// Those of the call.
pub(crate) async fn get(context: &Context) -> Result<Option<String>, Failure> {
    let manager = &context.manager;
    let mut ca = manager.ca();
    let answer = manager.call(ca.get_unlock_key(v1::GetUnlockKeyRequest {}));
    Ok(human(&answer.await?.unlock_key))
}

fn human(key: &[u8]) -> Option<String> {
    (!key.is_empty()).then(|| format!("{PREFIX}{}", STANDARD_NO_PAD.encode(key)))
}

/// Prints a key with what it is for.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(key: &str, is_new: bool) -> Result<(), Failure> {
    let mut text = format!(
        "A manager that starts again is locked. To unlock it, start it with the key in a file:\n\
         \n    swarmd --unlock-key-file FILE ...\n\nThe key is\n\n    {key}\n\nKeep it in a place \
         that does not depend on this cluster: without it a manager that stopped cannot be \
         started.\n"
    );
    if is_new {
        text.push_str(
            "A key of before stays good for a manager that stops before its log says that it is \
             sealed under the new one.\n",
        );
    }
    emit(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_form_of_swarmkit_and_none_is_none() {
        assert_eq!(human(&[]), None);
        let key = human(&[0xff; 32]).unwrap();
        assert_eq!(key.len(), 52);
        assert_eq!(key, format!("SWMKEY-1-{}8", "/".repeat(42)));
    }
}
