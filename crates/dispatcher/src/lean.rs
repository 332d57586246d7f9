//! Descriptions of nodes as they are kept: thousands of them, for as long as there are nodes.
//!
//! What comes out of a request may hold the buffer of the whole request, and a vector room for as
//! much again. And all nodes of a cluster say the same of their trust.

use bytes::Bytes;
use swarm_api::v1;

/// Makes descriptions small. Nothing of what they say changes.
#[derive(Debug, Default)]
pub(crate) struct Lean {
    /// What the last node said that said something else than the one before.
    trust: v1::NodeTlsInfo,
}

impl Lean {
    pub(crate) fn keep(&mut self, mut description: v1::NodeDescription) -> v1::NodeDescription {
        if let Some(trust) = &mut description.tls_info {
            if *trust != self.trust {
                self.trust = copy(trust);
            }
            trust.clone_from(&self.trust);
        }
        if let Some(engine) = &mut description.engine {
            engine.plugins.shrink_to_fit();
        }
        description
    }
}

fn copy(trust: &v1::NodeTlsInfo) -> v1::NodeTlsInfo {
    v1::NodeTlsInfo {
        trust_root: Bytes::copy_from_slice(&trust.trust_root),
        cert_issuer_subject: Bytes::copy_from_slice(&trust.cert_issuer_subject),
        cert_issuer_public_key: Bytes::copy_from_slice(&trust.cert_issuer_public_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(root: &'static str) -> v1::NodeDescription {
        let request = Bytes::from(format!("much else {root}"));
        let mut plugins = Vec::with_capacity(32);
        plugins.push(v1::PluginDescription::default());
        v1::NodeDescription {
            hostname: "host".to_owned(),
            tls_info: Some(v1::NodeTlsInfo {
                trust_root: request.slice(10..),
                cert_issuer_subject: request.slice(10..11),
                cert_issuer_public_key: request.slice(11..),
            }),
            engine: Some(v1::EngineDescription {
                plugins,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn nodes_that_trust_alike_share_what_they_say() {
        let mut lean = Lean::default();
        let mut kept = Vec::new();
        for root in ["one", "one", "two", "one"] {
            let said = description(root);
            let small = lean.keep(said.clone());
            assert_eq!(small, said, "nothing else than what was said");
            let plugins = &small.engine.as_ref().unwrap().plugins;
            assert_eq!(plugins.capacity(), 1);
            let root = &said.tls_info.as_ref().unwrap().trust_root;
            let own = small.tls_info.unwrap().trust_root;
            assert_ne!(own.as_ptr(), root.as_ptr(), "the request is not kept");
            kept.push(own);
        }
        assert_eq!(kept[0].as_ptr(), kept[1].as_ptr());
        assert_ne!(kept[1].as_ptr(), kept[2].as_ptr());
    }
}
