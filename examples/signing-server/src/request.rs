//! What a manager asks for, as it is on the wire, and what it is answered.
//!
//! The names are CFSSL's. Fields that this server does not follow are read as well, so that one
//! which asks for something is refused instead of ignored.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The profile for signing another root.
const CROSS_SIGN: &str = "CA";
/// What a request for another root names besides: that it is one.
const EXTENSIONS: &str = "extensions";
/// `basicConstraints` and `CA:TRUE`, as CFSSL writes them.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const IS_CA: &str = "30030101ff";
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
    /// Whatever else there is.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    #[serde(default)]
    names: Vec<Name>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Name {
    #[serde(default, rename = "O")]
    organization: String,
    #[serde(default, rename = "OU")]
    unit: String,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
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
        let is_cross_sign = self.profile == CROSS_SIGN;
        let is_followed =
            |name: &str, value: &Value| is_cross_sign && name == EXTENSIONS && is_authority(value);
        check_others(&self.others, is_followed)?;
        check_others(&subject.others, |_, _| false)?;
        match self.profile.as_str() {
            CROSS_SIGN => {
                let names = self.hosts.len();
                ensure!(names == 0, "a root has no names, and {names} are asked for");
                Ok(Wish::Root {
                    name: subject.common_name.clone(),
                })
            }
            "" => {
                let [name] = subject.names.as_slice() else {
                    anyhow::bail!("the subject has {} names, not one", subject.names.len());
                };
                check_others(&name.others, |_, _| false)?;
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

/// Refuses fields that ask for something, unless they are followed.
fn check_others(
    others: &BTreeMap<String, Value>,
    is_followed: impl Fn(&str, &Value) -> bool,
) -> anyhow::Result<()> {
    let mut others = others.iter();
    match others.find(|(name, value)| asks(value) && !is_followed(name, value)) {
        Some((name, _)) => anyhow::bail!("this authority does not follow {name:?}; leave it out"),
        None => Ok(()),
    }
}

/// Whether a value is more than Go's way of saying nothing.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(value) => !value.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn is_authority(extensions: &Value) -> bool {
    *extensions
        == serde_json::json!([{ "id": BASIC_CONSTRAINTS, "critical": true, "value": IS_CA }])
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
        let root = swarm_ca::cfssl::cross_sign_request("C", "n");
        let name = "n".to_owned();
        assert_eq!(wish(&root).unwrap(), Wish::Root { name });
        for (from, to, words) in [
            (r#""hosts":[]"#, r#""hosts":["x"]"#, "no names"),
            ("30030101ff", "30060101ff020101", "\"extensions\""),
        ] {
            let error = wish(&root.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for (from, to, words) in [
            (r#""profile":"""#, r#""profile":"x""#, "profile \"x\""),
            (r#""label":"""#, r#""label":"x""#, "label \"x\""),
            (
                r#""NotAfter":"0001"#,
                r#""NotAfter":"2030"#,
                "decides how long",
            ),
            (r#"{"O":"c","OU":"swarm-worker"}"#, "", "0 names"),
            (r#""O":"c""#, r#""O":"c","L":"x""#, "follow \"L\""),
            (
                r#""SerialNumber":"""#,
                r#""SerialNumber":"1""#,
                "\"SerialNumber\"",
            ),
            (
                r#""ReturnPrecert":false"#,
                r#""ReturnPrecert":true"#,
                "\"ReturnPrecert\"",
            ),
            (
                r#""metadata":null"#,
                r#""serial":5,"metadata":null"#,
                "\"serial\"",
            ),
            (
                r#""metadata":null"#,
                r#""extensions":[{"id":"2.5.29.19","critical":true,"value":"30030101ff"}]"#,
                "\"extensions\"",
            ),
        ] {
            let error = wish(&node.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(wish("{}").is_err() && wish(r#"{"certificate_request":"C"}"#).is_err());
    }
}
