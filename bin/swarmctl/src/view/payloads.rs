//! Secrets and configs. A secret has no data here: the manager sends none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use swarm_api::v1;

use super::{AnnotationsView, LogDriverView, MetaView};

/// A secret.
#[derive(Debug, Serialize)]
pub(crate) struct SecretView {
    id: String,
    meta: MetaView,
    spec: SecretSpecView,
    internal: bool,
}

#[derive(Debug, Serialize)]
struct SecretSpecView {
    annotations: AnnotationsView,
    driver: Option<LogDriverView>,
    templating: Option<LogDriverView>,
}

impl From<&v1::Secret> for SecretView {
    fn from(wire: &v1::Secret) -> Self {
        let spec = wire.spec.as_ref();
        let driver = spec.and_then(|spec| spec.driver.as_ref());
        let templating = spec.and_then(|spec| spec.templating.as_ref());
        Self {
            id: wire.id.clone(),
            meta: MetaView::of(wire.meta.as_ref()),
            spec: SecretSpecView {
                annotations: AnnotationsView::of(spec.and_then(|spec| spec.annotations.as_ref())),
                driver: driver.map(LogDriverView::of),
                templating: templating.map(LogDriverView::of),
            },
            internal: wire.internal,
        }
    }
}

/// A config.
#[derive(Debug, Serialize)]
pub(crate) struct ConfigView {
    id: String,
    meta: MetaView,
    spec: ConfigSpecView,
}

#[derive(Debug, Serialize)]
struct ConfigSpecView {
    annotations: AnnotationsView,
    /// In base64.
    data: String,
    templating: Option<LogDriverView>,
}

impl From<&v1::Config> for ConfigView {
    fn from(wire: &v1::Config) -> Self {
        let spec = wire.spec.as_ref();
        let templating = spec.and_then(|spec| spec.templating.as_ref());
        Self {
            id: wire.id.clone(),
            meta: MetaView::of(wire.meta.as_ref()),
            spec: ConfigSpecView {
                annotations: AnnotationsView::of(spec.and_then(|spec| spec.annotations.as_ref())),
                data: spec.map_or_else(String::new, |spec| STANDARD.encode(&spec.data)),
                templating: templating.map(LogDriverView::of),
            },
        }
    }
}

/// `SecretReference` and `ConfigReference`.
#[derive(Debug, Serialize)]
pub(super) struct ReferenceView {
    id: String,
    name: String,
    /// `None` for a config that is for the runtime.
    file: Option<FileView>,
}

#[derive(Debug, Serialize)]
struct FileView {
    name: String,
    uid: String,
    gid: String,
    /// Permissions in octal, as in 0444.
    mode: String,
}

impl ReferenceView {
    pub(super) fn of_secret(wire: &v1::SecretReference) -> Self {
        let v1::SecretReference { target, .. } = wire;
        Self {
            id: wire.secret_id.clone(),
            name: wire.secret_name.clone(),
            file: target
                .as_ref()
                .map(|v1::secret_reference::Target::File(file)| FileView::of(file)),
        }
    }

    pub(super) fn of_config(wire: &v1::ConfigReference) -> Self {
        use v1::config_reference::Target;
        Self {
            id: wire.config_id.clone(),
            name: wire.config_name.clone(),
            file: match &wire.target {
                Some(Target::File(file)) => Some(FileView::of(file)),
                Some(Target::Runtime(_)) | None => None,
            },
        }
    }
}

impl FileView {
    fn of(wire: &v1::FileTarget) -> Self {
        Self {
            name: wire.name.clone(),
            uid: wire.uid.clone(),
            gid: wire.gid.clone(),
            mode: format!("{:04o}", wire.mode),
        }
    }
}
