//! What a manager asks for, as it is on the wire, and what it is answered.
//!
//! The names are CFSSL's. Fields that this server does not follow are read, so that one that asks
//! for something is refused instead of ignored.

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// The profile for signing another root.
const CROSS_SIGN: &str = "CA";
/// Go's zero time: the authority decides.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A request.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) certificate_request: String,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    subject: Option<Subject>,
    #[serde(default)]
    profile: String,
    #[serde(default)]
    label: String,
    #[serde(default, rename = "NotBefore")]
    not_before: Option<String>,
    #[serde(default, rename = "NotAfter")]
    not_after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    #[serde(default)]
    names: Vec<Name>,
}

#[derive(Debug, Deserialize)]
struct Name {
    #[serde(default, rename = "O")]
    organization: String,
    #[serde(default, rename = "OU")]
    unit: String,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The certificate of a node.
    Node {
        /// Common name.
        node: String,
        /// Organization.
        cluster: String,
        /// Unit.
        role: String,
    },
    /// The certificate of another root, signed by this one.
    Root {
        /// Common name.
        name: String,
    },
}

impl Request {
    /// # Errors
    /// What is missing, or asked for and not done.
    pub(crate) fn wish(&self) -> anyhow::Result<Wish> {
        let is_open = |time: &Option<String>| time.as_deref().is_none_or(|it| it == NO_TIME);
        ensure!(
            is_open(&self.not_before) && is_open(&self.not_after),
            "this authority decides how long a certificate is valid"
        );
        ensure!(self.label.is_empty(), "label {:?} is not known", self.label);
        let subject = self.subject.as_ref().context("the subject is missing")?;
        match self.profile.as_str() {
            CROSS_SIGN => Ok(Wish::Root {
                name: subject.common_name.clone(),
            }),
            "" => {
                let [name] = subject.names.as_slice() else {
                    anyhow::bail!("the subject has {} names, not one", subject.names.len());
                };
                Ok(Wish::Node {
                    node: subject.common_name.clone(),
                    cluster: name.organization.clone(),
                    role: name.unit.clone(),
                })
            }
            other => anyhow::bail!("profile {other:?} is not known"),
        }
    }
}

/// An answer.
#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    result: Option<Issued<'a>>,
    errors: Vec<Reason<'a>>,
    messages: [(); 0],
}

#[derive(Serialize)]
struct Issued<'a> {
    certificate: &'a str,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: u32,
    message: &'a str,
}

/// CFSSL's number for a request that is refused.
const REFUSED: u32 = 1200;

pub(crate) fn issued(certificate: &str) -> String {
    body(&Answer {
        success: true,
        result: Some(Issued { certificate }),
        errors: Vec::new(),
        messages: [],
    })
}

pub(crate) fn refused(message: &str) -> String {
    let code = REFUSED;
    body(&Answer {
        success: false,
        result: None,
        errors: vec![Reason { code, message }],
        messages: [],
    })
}

fn body(answer: &Answer<'_>) -> String {
    serde_json::to_string(answer).expect("texts and numbers are always JSON")
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.subject.as_ref().map(|it| it.common_name.as_str());
        let name = name.unwrap_or_default();
        match self.profile.as_str() {
            CROSS_SIGN => write!(f, "the root {name:?}"),
            _ => write!(f, "node {name:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> anyhow::Result<Wish> {
        serde_json::from_str::<Request>(text)?.wish()
    }

    #[test]
    fn requests_of_swarmkit_are_understood_and_others_are_refused_by_name() {
        let node = r#"{"hosts":["swarm-worker","n"],"certificate_request":"C","subject":{"CN":"n",
            "names":[{"O":"c","OU":"swarm-worker"}],"SerialNumber":""},"profile":"",
            "crl_override":"","label":"","NotBefore":"0001-01-01T00:00:00Z",
            "NotAfter":"0001-01-01T00:00:00Z","ReturnPrecert":false,"metadata":null}"#;
        let expected = Wish::Node {
            node: "n".to_owned(),
            cluster: "c".to_owned(),
            role: "swarm-worker".to_owned(),
        };
        assert_eq!(wish(node).unwrap(), expected);
        let root = node.replace(r#""profile":"""#, r#""profile":"CA""#);
        let name = "n".to_owned();
        assert_eq!(wish(&root).unwrap(), Wish::Root { name });
        for (from, to, words) in [
            (r#""profile":"""#, r#""profile":"x""#, "profile \"x\""),
            (r#""label":"""#, r#""label":"x""#, "label \"x\""),
            (
                r#""NotAfter":"0001"#,
                r#""NotAfter":"2030"#,
                "decides how long",
            ),
            (r#"{"O":"c","OU":"swarm-worker"}"#, "", "0 names"),
        ] {
            let error = wish(&node.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(wish("{}").is_err() && wish(r#"{"certificate_request":"C"}"#).is_err());
    }
}
