use super::*;

fn check(accepted: &[&str], refused: &[&str]) {
    for text in accepted {
        assert!(is_reference(text), "{text} is a reference");
    }
    for text in refused {
        assert!(!is_reference(text), "{text} is no reference");
    }
}

#[test]
fn names_with_and_without_domain_and_tag() {
    check(
        &[
            "host",
            "nginx",
            "nginx:1.25-alpine",
            "library/nginx",
            "localhost/x",
            "localhost:5000",
            "localhost:5000/x",
            "registry.example.com/team/app:v1",
            "Registry/app",
            "[::1]:5000/app",
            "[2001:db8::1]/app",
            "a_b.com/x",
            "docker.io/library/nginx",
            "index.docker.io/nginx",
        ],
        &[
            "",
            " ",
            ":",
            ":tag",
            "/x",
            "x/",
            "a//b",
            "Nginx",
            "team/App",
            "https://example.com/x",
            "-foo/bar",
            "foo/bar-",
            "nginx:",
            "nginx:-x",
            "nginx:a:b",
            "test.com:/foo",
            "test.com:port/foo",
            "-a.com/foo",
            "[::1:5000/app",
            "[xyz:]/app",
            "a b",
            "ä",
            "x\n",
            "x\0",
            "a/b/../c",
        ],
    );
}

#[test]
fn separators_inside_a_path_component() {
    check(
        &["a.b", "a_b", "a__b", "a-b", "a----b", "1a/2b"],
        &["a..b", "a___b", "a._b", "a-_b", ".a", "a.", "_a", "a_"],
    );
}

#[test]
fn a_bare_image_id_is_not_a_name() {
    let id = "a".repeat(64);
    assert!(!is_reference(&id));
    assert!(is_reference(&id[1..]));
    assert!(is_reference(&format!("x/{id}")));
    assert!(is_reference(&format!("{}g", &id[1..])));
}

#[test]
fn digests_have_a_known_algorithm_and_its_length() {
    let hex = |count: usize| "0".repeat(count);
    for (algorithm, count) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
        assert!(is_reference(&format!("x@{algorithm}:{}", hex(count))));
        assert!(!is_reference(&format!("x@{algorithm}:{}", hex(count - 1))));
        assert!(!is_reference(&format!("x@{algorithm}:{}", hex(count + 1))));
    }
    assert!(is_reference(&format!("x:tag@sha256:{}", hex(64))));
    assert!(!is_reference(&format!("x@sha256:{}", "A".repeat(64))));
    assert!(!is_reference(&format!("x@md5:{}", hex(32))));
    assert!(!is_reference("x@"));
    assert!(!is_reference("x@sha256"));
}

#[test]
fn name_and_tag_have_a_longest_length() {
    // Docker Hub adds `docker.io/library/`, 18 characters, to a short name.
    assert!(is_reference(&"a".repeat(255 - 18)));
    assert!(!is_reference(&"a".repeat(255 - 17)));
    assert!(is_reference(&format!("a.b/{}", "a".repeat(251))));
    assert!(!is_reference(&format!("a.b/{}", "a".repeat(252))));
    assert!(is_reference(&format!("x:{}", "a".repeat(128))));
    assert!(!is_reference(&format!("x:{}", "a".repeat(129))));
}
