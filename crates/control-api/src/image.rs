//! Whether a text is an image reference: `[domain/]path[:tag][@digest]`, with the rules for names
//! of Docker Hub that may leave parts out.
//!
//! Nothing here resolves a reference. The reference `host`, which the native executor reads as the
//! node's own file system, is one like any other.

/// Characters of domain and path together at most, with what Docker adds to a short name.
const NAME_BYTES_MAX: usize = 255;
/// Characters of a tag at most.
const TAG_BYTES_MAX: usize = 128;
/// What a name without a domain gets.
const DEFAULT_DOMAIN: &str = "docker.io";
/// What a name on Docker Hub without a slash gets.
const OFFICIAL_PREFIX: &str = "library/";
/// Hexadecimal digits of a bare image id, which is not a name.
const ID_DIGITS: usize = 64;
/// Digest algorithms, with the number of hexadecimal digits.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// Whether the text is a reference that Docker accepts as an image name.
pub(crate) fn is_reference(text: &str) -> bool {
    if text.len() == ID_DIGITS && text.bytes().all(is_lower_hex) {
        return false;
    }
    let (domain, rest) = split_domain(text);
    let (named, digest) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    name_bytes(domain, path) <= NAME_BYTES_MAX
        && (is_domain(domain) || is_path_component(domain))
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// The part before the first slash is a domain if it looks like one; a path has neither dots with
/// ports nor capitals there.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) | None => (DEFAULT_DOMAIN, text),
    }
}

fn name_bytes(domain: &str, path: &str) -> usize {
    let is_hub = domain == DEFAULT_DOMAIN || domain == "index.docker.io";
    let prefix = if is_hub && !path.contains('/') {
        OFFICIAL_PREFIX.len()
    } else {
        0
    };
    let domain = if is_hub { DEFAULT_DOMAIN } else { domain };
    domain.len() + 1 + prefix + path.len()
}

/// A host name or a bracketed IPv6 address, with or without a port.
fn is_domain(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        return !address.is_empty()
            && address.bytes().all(is_address)
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

fn is_host(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, with single dots, one or two underscores, or any number of
/// hyphens between them.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let has_ends = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    has_ends
        && bytes
            .split(is_word)
            .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || is_hyphens(between))
}

fn is_hyphens(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'-')
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else {
        return false;
    };
    DIGESTS
        .iter()
        .any(|(name, count)| *name == algorithm && *count == digits.len())
        && digits.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests;
