//! The messages that an external certificate authority is asked with (CFSSL).
//!
//! Owns the JSON of request and answer, and which failures may be tried again. Owns no connection.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::issue::{Subject, role_name};
use crate::{CA_NAME, MANAGER_ROLE};

/// Most bytes of an answer that are read.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024;
/// The profile for cross-signing (`ExternalCrossSignProfile`).
pub const CROSS_SIGN_PROFILE: &str = "CA";

/// Go's zero time, which means that the authority decides.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// The extension basicConstraints. CFSSL takes a dotted text, and no list of numbers.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
/// `CA:TRUE` as its value, in hexadecimal.
const IS_CA: &str = "30030101ff";

/// What is sent.
#[derive(Serialize)]
struct SignRequest<'a> {
    hosts: Vec<String>,
    certificate_request: &'a str,
    subject: Option<SignSubject>,
    profile: &'static str,
    crl_override: &'static str,
    label: &'static str,
    serial: Option<u64>,
    extensions: Option<Vec<SignExtension>>,
    #[serde(rename = "NotBefore")]
    not_before: &'static str,
    #[serde(rename = "NotAfter")]
    not_after: &'static str,
    #[serde(rename = "ReturnPrecert")]
    return_precert: bool,
    metadata: Option<Value>,
}

#[derive(Serialize)]
struct SignSubject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<SignName>,
    #[serde(rename = "SerialNumber")]
    serial_number: &'static str,
}

#[derive(Serialize)]
struct SignName {
    #[serde(rename = "O")]
    organization: String,
    #[serde(rename = "OU")]
    organizational_unit: &'static str,
}

#[derive(Serialize)]
struct SignExtension {
    id: &'static str,
    critical: bool,
    value: &'static str,
}

/// What comes back.
#[derive(Deserialize)]
struct SignResponse {
    #[serde(default)]
    success: bool,
    result: Option<SignResult>,
    #[serde(default)]
    errors: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct SignResult {
    certificate: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CfsslError {
    /// May work later: the authority is not well, or something between is not.
    #[error("recoverable: {0}")]
    Recoverable(String),
    /// The authority understood and refused.
    #[error("the external certificate authority refused: {0}")]
    Refused(String),
}

impl CfsslError {
    /// Whether to try again.
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Recoverable(_))
    }
}

/// The body of a request for the certificate of a node.
pub fn request(csr_pem: &str, subject: &Subject) -> String {
    let role = role_name(subject.role);
    let node = subject.node.to_string();
    let mut hosts = vec![role.to_owned(), node.clone()];
    if role == MANAGER_ROLE {
        hosts.push(CA_NAME.to_owned());
    }
    let name = SignName {
        organization: subject.cluster.to_string(),
        organizational_unit: role,
    };
    body(&SignRequest {
        hosts,
        certificate_request: csr_pem,
        subject: Some(SignSubject {
            common_name: node,
            names: vec![name],
            serial_number: "",
        }),
        profile: "",
        crl_override: "",
        label: "",
        serial: None,
        extensions: None,
        not_before: NO_TIME,
        not_after: NO_TIME,
        return_precert: false,
        metadata: None,
    })
}

/// The body of a request to cross-sign another root, whose request is given.
pub fn cross_sign_request(csr_pem: &str, common_name: &str) -> String {
    body(&SignRequest {
        hosts: Vec::new(),
        certificate_request: csr_pem,
        subject: Some(SignSubject {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            serial_number: "",
        }),
        profile: CROSS_SIGN_PROFILE,
        crl_override: "",
        label: "",
        serial: None,
        extensions: Some(vec![SignExtension {
            id: BASIC_CONSTRAINTS,
            critical: true,
            value: IS_CA,
        }]),
        not_before: NO_TIME,
        not_after: NO_TIME,
        return_precert: false,
        metadata: None,
    })
}

fn body(request: &SignRequest<'_>) -> String {
    serde_json::to_string(request).expect("strings and numbers are always JSON")
}

/// Reads an answer: status code and body. Returns the certificate as PEM.
///
/// # Errors
/// [`CfsslError`].
pub fn response(status: u16, body: &[u8]) -> Result<String, CfsslError> {
    let again = CfsslError::Recoverable;
    if body.len() > RESPONSE_BYTES_MAX {
        return Err(again(format!(
            "the answer has more than {RESPONSE_BYTES_MAX} bytes"
        )));
    }
    if status != 200 {
        return Err(again(format!(
            "unexpected status code in CA response: {status}"
        )));
    }
    let answer: SignResponse = serde_json::from_slice(body)
        .map_err(|error| again(format!("the answer is not the JSON of CFSSL: {error}")))?;
    let certificate = answer.result.and_then(|result| result.certificate);
    match certificate {
        Some(certificate) if answer.success && !certificate.is_empty() => Ok(certificate),
        Some(_) | None => Err(CfsslError::Refused(reasons(answer.errors.as_deref()))),
    }
}

/// The errors of an answer in words, cut to what a status message holds.
fn reasons(errors: Option<&[Value]>) -> String {
    const CHARACTERS_MAX: usize = 500;
    let errors = errors.unwrap_or_default();
    let texts: Vec<String> = errors
        .iter()
        .map(|error| match error.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => error.to_string(),
        })
        .collect();
    if texts.is_empty() {
        return "it gave no reason".to_owned();
    }
    texts.join("; ").chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use swarm_api::v1::NodeRole;

    use super::*;

    fn subject(role: NodeRole) -> Subject {
        Subject {
            node: "node".parse().unwrap(),
            cluster: "cluster".parse().unwrap(),
            role,
        }
    }

    #[test]
    fn a_request_has_the_form_of_cfssl() {
        let body: Value =
            serde_json::from_str(&request("CSR", &subject(NodeRole::Manager))).unwrap();
        let expected = serde_json::json!({
            "hosts": ["swarm-manager", "node", "swarm-ca"],
            "certificate_request": "CSR",
            "subject": {
                "CN": "node",
                "names": [{"O": "cluster", "OU": "swarm-manager"}],
                "SerialNumber": "",
            },
            "profile": "", "crl_override": "", "label": "",
            "serial": null, "extensions": null,
            "NotBefore": "0001-01-01T00:00:00Z", "NotAfter": "0001-01-01T00:00:00Z",
            "ReturnPrecert": false, "metadata": null,
        });
        assert_eq!(body, expected);
        let worker = request("CSR", &subject(NodeRole::Worker));
        assert!(worker.contains(r#""hosts":["swarm-worker","node"]"#));
        let cross: Value = serde_json::from_str(&cross_sign_request("CSR", "swarm-ca")).unwrap();
        assert_eq!(cross["profile"], "CA");
        let is_ca =
            serde_json::json!([{"id": "2.5.29.19", "critical": true, "value": "30030101ff"}]);
        assert_eq!(cross["extensions"], is_ca);
    }

    #[test]
    fn answers_are_certificates_refusals_or_worth_another_try() {
        let good = br#"{"success":true,"result":{"certificate":"PEM"},"errors":[]}"#;
        assert_eq!(response(200, good), Ok("PEM".to_owned()));
        let again =
            |status, body: &[u8]| assert!(response(status, body).unwrap_err().is_recoverable());
        again(500, good);
        again(200, b"<html>");
        again(200, &vec![b' '; RESPONSE_BYTES_MAX + 1]);
        let refused = |body: &[u8], words: &str| {
            let error = response(200, body).unwrap_err();
            assert!(
                !error.is_recoverable() && error.to_string().contains(words),
                "{error}"
            );
        };
        refused(
            br#"{"success":false,"errors":[{"code":1,"message":"no"}]}"#,
            "no",
        );
        refused(br#"{"success":true,"result":{}}"#, "no reason");
        refused(
            br#"{"success":false,"result":{"certificate":"PEM"}}"#,
            "no reason",
        );
    }
}
