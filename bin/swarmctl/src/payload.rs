//! `swarmctl secret` and `swarmctl config`: the same verbs for both, since only their payloads
//! differ.
//!
//! Refuses to own: where data may come from (`payload/input.rs`). It never comes from the command
//! line, which other users of the machine can read.

mod input;

use clap::{Args, Subcommand};
use swarm_api::v1;
use swarm_types::printable;

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArg, ObjectArgs, pair};
use crate::connect::Manager;
use crate::failure::Failure;
use crate::lookup::{Named, find};
use crate::output::{Context, emit, emit_json, emit_line, remove_each};
use crate::view::{ConfigView, LogDriverView, SecretView};
use crate::{table, units};

/// The verbs of a secret.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    /// Store a secret, with the data of a file or of the standard input.
    Create {
        #[command(flatten)]
        create: NewPayload,
        /// Ask this driver for the data whenever a task needs it.
        #[arg(short, long, conflicts_with = "file")]
        driver: Option<String>,
    },
    #[command(flatten)]
    Other(Verb),
}

/// The verbs of a config.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Store a config, with the data of a file or of the standard input.
    Create(NewPayload),
    #[command(flatten)]
    Other(Verb),
}

/// Flags of `create`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NewPayload {
    /// The name.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// The file with the data; `-` or nothing for the standard input.
    #[arg(short, long)]
    file: Option<std::path::PathBuf>,
    /// A label, as key=value.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// The language of templates in the data: `golang`.
    #[arg(long)]
    template_driver: Option<String>,
}

/// The verbs that secrets and configs have in common.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List them, newest first.
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Show one.
    Inspect(InspectFlags),
    /// Replace the labels; nothing else can change.
    Update {
        #[command(flatten)]
        object: ObjectArg,
        /// A label, as key=value; all labels are replaced by those given.
        #[arg(long, value_parser = pair, required = true)]
        label: Vec<(String, String)>,
    },
    /// Remove one that no service uses.
    #[command(visible_alias = "remove")]
    Rm(ObjectArgs),
}

/// A secret or a config.
trait Payload: Named {
    /// The columns of a list.
    const COLUMNS: &'static [&'static str];

    fn meta(&self) -> Option<&v1::Meta>;
    fn annotations(&self) -> Option<&v1::Annotations>;
    fn drivers(&self) -> [Option<&v1::Driver>; 2];
    fn data(&self) -> Option<&[u8]>;
    fn document(&self) -> serde_json::Result<serde_json::Value>;
    async fn all(manager: &Manager) -> Result<Vec<Self>, Failure>;
    async fn relabel(self, manager: &Manager, labels: Labels) -> Result<(), Failure>;
    async fn remove(&self, manager: &Manager) -> Result<(), Failure>;
}

type Labels = std::collections::BTreeMap<String, String>;

/// Runs a verb of secrets.
///
/// # Errors
/// What the manager refused; data that cannot be read.
pub(crate) async fn run_secret(context: &Context, verb: SecretVerb) -> Result<(), Failure> {
    let (create, driver) = match verb {
        SecretVerb::Create { create, driver } => (create, driver),
        SecretVerb::Other(verb) => return run::<v1::Secret>(context, verb).await,
    };
    let data = match driver {
        Some(_) => Vec::new(),
        None => input::read(create.file.as_deref())?,
    };
    input::refuse_line_end(&data)?;
    let spec = v1::SecretSpec {
        annotations: Some(create.annotations()),
        data: data.into(),
        templating: create.template_driver.map(driver_named),
        driver: driver.map(driver_named),
    };
    let request = v1::CreateSecretRequest { spec: Some(spec) };
    let manager = &context.manager;
    let answer = manager
        .call(manager.control().create_secret(request))
        .await?;
    emit_line(&answer.secret.unwrap_or_default().id)
}

/// Runs a verb of configs.
///
/// # Errors
/// What the manager refused; data that cannot be read.
pub(crate) async fn run_config(context: &Context, verb: ConfigVerb) -> Result<(), Failure> {
    let create = match verb {
        ConfigVerb::Create(create) => create,
        ConfigVerb::Other(verb) => return run::<v1::Config>(context, verb).await,
    };
    let spec = v1::ConfigSpec {
        annotations: Some(create.annotations()),
        data: input::read(create.file.as_deref())?.into(),
        templating: create.template_driver.map(driver_named),
    };
    let request = v1::CreateConfigRequest { spec: Some(spec) };
    let manager = &context.manager;
    let answer = manager
        .call(manager.control().create_config(request))
        .await?;
    emit_line(&answer.config.unwrap_or_default().id)
}

fn driver_named(name: String) -> v1::Driver {
    v1::Driver {
        name,
        ..Default::default()
    }
}

impl NewPayload {
    fn annotations(&self) -> v1::Annotations {
        v1::Annotations {
            name: self.name.clone(),
            labels: self.label.iter().cloned().collect(),
            ..Default::default()
        }
    }
}

async fn run<T: Payload>(context: &Context, verb: Verb) -> Result<(), Failure> {
    let manager = &context.manager;
    match verb {
        Verb::Ls(flags) => ls::<T>(context, flags).await,
        Verb::Inspect(flags) => inspect::<T>(context, &flags).await,
        Verb::Update { object, label } => {
            let object: T = find(manager, &object.object).await?;
            let id = object.id().to_owned();
            object.relabel(manager, label.into_iter().collect()).await?;
            emit_line(&id)
        }
        Verb::Rm(args) => {
            remove_each(&args.objects, async |object| {
                let object: T = find(manager, object).await?;
                let id = object.id().to_owned();
                object.remove(manager).await?;
                Ok(id)
            })
            .await
        }
    }
}

async fn ls<T: Payload>(context: &Context, flags: ListFlags) -> Result<(), Failure> {
    let mut objects = T::all(&context.manager).await?;
    objects.sort_by_key(|object| {
        let created = object.meta().and_then(|meta| meta.created_at);
        let created = created.map(|at| (at.seconds, at.nanos));
        (std::cmp::Reverse(created), object.id().to_owned())
    });
    if flags.quiet {
        let ids = objects.iter().map(|object| format!("{}\n", object.id()));
        return emit(&ids.collect::<String>());
    }
    match flags.format {
        Format::Json => {
            let documents = objects
                .iter()
                .map(document)
                .collect::<Result<Vec<_>, _>>()?;
            emit_json(&documents)
        }
        Format::Table => {
            let rows = objects.iter().map(|object| row(context, object));
            emit(&table::render(T::COLUMNS, rows.collect()))
        }
    }
}

fn document(object: &impl Payload) -> Result<serde_json::Value, Failure> {
    let document = object.document();
    document.map_err(|error| Failure::refused(format!("the answer is not JSON: {error}")))
}

fn row<T: Payload>(context: &Context, object: &T) -> Vec<String> {
    let created = object.meta().and_then(|meta| meta.created_at);
    let created = units::time(created.as_ref());
    let mut row = vec![object.id().to_owned(), object.name()];
    if T::COLUMNS.contains(&"Driver") {
        let [driver, _] = object.drivers();
        row.push(driver.map_or_else(String::new, |driver| driver.name.clone()));
    }
    row.push(created.map_or_else(String::new, |at| units::ago(at, context.now())));
    row
}

async fn inspect<T: Payload>(context: &Context, flags: &InspectFlags) -> Result<(), Failure> {
    let object: T = find(&context.manager, &flags.object).await?;
    if flags.format == Format::Json {
        return emit_json(&document(&object)?);
    }
    let mut fields = Vec::new();
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    push("ID", object.id().to_owned());
    push("Name", object.name());
    for (key, value) in object.annotations().iter().flat_map(|own| &own.labels) {
        push("Label", format!("{key}={value}"));
    }
    let [driver, templating] = object.drivers();
    if let Some(driver) = driver {
        push("Driver", LogDriverView::of(driver).text());
    }
    if let Some(templating) = templating {
        push("Template driver", templating.name.clone());
    }
    let created = object.meta().and_then(|meta| meta.created_at);
    push(
        "Created",
        units::time_and_age(created.as_ref(), context.now()),
    );
    if let Some(data) = object.data() {
        push("Size", format!("{} bytes", data.len()));
    }
    let mut text = table::fields(&fields);
    if let Some(data) = object.data() {
        text.push('\n');
        text.push_str(&shown(data));
    }
    emit(&text)
}

/// The payload as a terminal may show it.
fn shown(data: &[u8]) -> String {
    let is_plain = |c: char| printable::is_printable(c) || c == '\n' || c == '\t';
    match std::str::from_utf8(data) {
        Ok(text) if text.chars().all(is_plain) => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}")
        }
        Ok(_) | Err(_) => "(not plain text; --format json has it in base64)\n".to_owned(),
    }
}

impl Payload for v1::Secret {
    const COLUMNS: &'static [&'static str] = &["ID", "Name", "Driver", "Created"];

    fn meta(&self) -> Option<&v1::Meta> {
        self.meta.as_ref()
    }

    fn annotations(&self) -> Option<&v1::Annotations> {
        self.spec.as_ref()?.annotations.as_ref()
    }

    fn drivers(&self) -> [Option<&v1::Driver>; 2] {
        let spec = self.spec.as_ref();
        [
            spec.and_then(|spec| spec.driver.as_ref()),
            spec.and_then(|spec| spec.templating.as_ref()),
        ]
    }

    fn data(&self) -> Option<&[u8]> {
        None
    }

    fn document(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(SecretView::from(self))
    }

    async fn all(manager: &Manager) -> Result<Vec<Self>, Failure> {
        let request = v1::ListSecretsRequest::default();
        let answer = manager
            .call(manager.control().list_secrets(request))
            .await?;
        Ok(answer.secrets)
    }

    async fn relabel(self, manager: &Manager, labels: Labels) -> Result<(), Failure> {
        let mut spec = self.spec.unwrap_or_default();
        spec.annotations.get_or_insert_default().labels = labels;
        let request = v1::UpdateSecretRequest {
            secret_id: self.id,
            secret_version: self.meta.and_then(|meta| meta.version),
            spec: Some(spec),
        };
        manager
            .call(manager.control().update_secret(request))
            .await?;
        Ok(())
    }

    async fn remove(&self, manager: &Manager) -> Result<(), Failure> {
        let secret_id = self.id.clone();
        let request = v1::RemoveSecretRequest { secret_id };
        manager
            .call(manager.control().remove_secret(request))
            .await?;
        Ok(())
    }
}

impl Payload for v1::Config {
    const COLUMNS: &'static [&'static str] = &["ID", "Name", "Created"];

    fn meta(&self) -> Option<&v1::Meta> {
        self.meta.as_ref()
    }

    fn annotations(&self) -> Option<&v1::Annotations> {
        self.spec.as_ref()?.annotations.as_ref()
    }

    fn drivers(&self) -> [Option<&v1::Driver>; 2] {
        [
            None,
            self.spec.as_ref().and_then(|spec| spec.templating.as_ref()),
        ]
    }

    fn data(&self) -> Option<&[u8]> {
        Some(self.spec.as_ref().map_or(&[][..], |spec| &spec.data))
    }

    fn document(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(ConfigView::from(self))
    }

    async fn all(manager: &Manager) -> Result<Vec<Self>, Failure> {
        let request = v1::ListConfigsRequest::default();
        let answer = manager
            .call(manager.control().list_configs(request))
            .await?;
        Ok(answer.configs)
    }

    async fn relabel(self, manager: &Manager, labels: Labels) -> Result<(), Failure> {
        let mut spec = self.spec.unwrap_or_default();
        spec.annotations.get_or_insert_default().labels = labels;
        let request = v1::UpdateConfigRequest {
            config_id: self.id,
            config_version: self.meta.and_then(|meta| meta.version),
            spec: Some(spec),
        };
        manager
            .call(manager.control().update_config(request))
            .await?;
        Ok(())
    }

    async fn remove(&self, manager: &Manager) -> Result<(), Failure> {
        let config_id = self.id.clone();
        let request = v1::RemoveConfigRequest { config_id };
        manager
            .call(manager.control().remove_config(request))
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_text_reaches_the_terminal() {
        assert_eq!(shown("a = ü\n\tb".as_bytes()), "a = ü\n\tb\n");
        assert_eq!(shown(b"a\n"), "a\n");
        for data in [&b"\x1b[2J"[..], b"\xff", b"a\0"] {
            assert!(shown(data).starts_with("(not plain text"), "{data:?}");
        }
    }
}
