//! What the metadata of a call says about an earlier hop (spec 1.6).

use http::HeaderMap;
use swarm_ca::authorization::Hop;

const FORWARDED: &str = "forwarded_cert";
const NODE: &str = "forwarded_cert_cn";
const ORGANIZATION: &str = "forwarded_cert_org";
const ROLE: &str = "forwarded_cert_ou";
const REMOTE: &str = "remote_addr";
const REDIRECT: &str = "redirect";
/// Roles that are read; there are two.
const ROLES_MAX: usize = 8;

/// Whether the metadata may say anything of that.
pub(super) fn is_told(headers: &HeaderMap) -> bool {
    headers.contains_key(REDIRECT) || headers.contains_key(FORWARDED)
}

/// Reads the metadata. Values that are no text count as empty, which is refused later.
pub(super) fn read(headers: &HeaderMap) -> Hop {
    let is_redirected = headers.contains_key(REDIRECT);
    // As in SwarmKit, only a single value counts.
    let mut forwarded = headers.get_all(FORWARDED).iter();
    let is_forwarded =
        forwarded.next().is_some_and(|value| value == "true") && forwarded.next().is_none();
    if !is_forwarded {
        return Hop {
            is_redirected,
            ..Hop::default()
        };
    }
    let roles = headers.get_all(ROLE).iter().take(ROLES_MAX);
    let roles = roles.map(|value| value.to_str().unwrap_or_default().to_owned());
    Hop {
        is_forwarded,
        is_redirected,
        node: text(headers, NODE),
        organization: text(headers, ORGANIZATION),
        roles: roles.filter(|role| !role.is_empty()).collect(),
    }
}

/// The host that the first manager saw the call come from; empty if it does not say.
pub(super) fn remote_host(headers: &HeaderMap) -> String {
    let address = text(headers, REMOTE);
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        Err(_) => String::new(),
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(text: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in text {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_call_is_forwarded_if_it_says_so_once() {
        assert_eq!(read(&HeaderMap::new()), Hop::default());
        let direct = [
            &[("forwarded_cert", "false")][..],
            &[("forwarded_cert", "true"), ("forwarded_cert", "true")],
            &[
                ("forwarded_cert_cn", "n"),
                ("forwarded_cert_ou", "swarm-manager"),
            ],
        ];
        for text in direct {
            assert_eq!(read(&headers(text)), Hop::default(), "{text:?}");
        }
        let redirected = read(&headers(&[("redirect", "10.0.0.1:4242")]));
        assert!(redirected.is_redirected && !redirected.is_forwarded);
    }

    #[test]
    fn all_parts_of_a_forwarded_call_are_read() {
        let headers = headers(&[
            ("forwarded_cert", "true"),
            ("forwarded_cert_cn", "n"),
            ("forwarded_cert_org", "c"),
            ("forwarded_cert_ou", "swarm-worker"),
            ("forwarded_cert_ou", "swarm-manager"),
            ("remote_addr", "[2001:db8::1]:99"),
        ]);
        let hop = read(&headers);
        assert!(hop.is_forwarded && !hop.is_redirected);
        assert_eq!((&*hop.node, &*hop.organization), ("n", "c"));
        assert_eq!(hop.roles, ["swarm-worker", "swarm-manager"]);
        assert_eq!(remote_host(&headers), "2001:db8::1");
        assert_eq!(remote_host(&HeaderMap::new()), "");
    }
}
