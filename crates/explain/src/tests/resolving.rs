use super::world::{at, explained, refused, world};
use crate::{Subject, Unanswered, why};

#[test]
fn objects_are_found_by_id_name_replica_and_unique_beginning() {
    let world = "
        node n1
        service web
        task t1 web.1 failed/shutdown on=n1 created=1
        task t2 web.1 running/running on=n1 created=2
        service agent global
        task u1 agent.0 running/running on=n1";
    for (object, beginning) in [
        ("id-web", "Service web"),
        ("web", "Service web"),
        ("WEB", "Service web"),
        ("id-w", "Service web"),
        ("n1", "Node host-n1"),
        ("host-n1", "Node host-n1"),
        ("t1", "Task web.1 is failed"),
        ("web.1", "Task web.1 is running"),
        ("web.1.t1", "Task web.1 is failed"),
        ("agent.host-n1", "Task agent.host-n1 is running"),
        ("u", "Task agent.host-n1"),
    ] {
        let text = explained(world, 9, object);
        assert!(text.starts_with(beginning), "{object}: {text}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let world = "node n1";
    assert_eq!(
        refused(world, "nope").to_string(),
        "no service, task or node has the id or name \"nope\""
    );
    assert_eq!(refused(world, ""), Unanswered::NoObject);
    for odd in [
        ".",
        "web.",
        ".1",
        "web.18446744073709551616",
        "ü.ü",
        &"x".repeat(300),
    ] {
        assert!(
            matches!(refused(world, odd), Unanswered::NotFound { .. }),
            "{odd}"
        );
    }
}

#[test]
fn several_candidates_are_listed_and_a_kind_decides() {
    let text = "
        node web
        service web
        task t1 web.1 running/running on=web";
    let root = world(text);
    let of = |subject| why(&root, at(0), None, subject, "web").map(|answer| answer.object_kind);
    // The node's id goes before the service's name.
    assert_eq!(of(None).unwrap(), "node");
    assert_eq!(of(Some(Subject::Service)).unwrap(), "service");
    assert!(matches!(
        of(Some(Subject::Task)),
        Err(Unanswered::NotFound { .. })
    ));
    let text = "
        service web
        service web2";
    assert_eq!(
        refused(text, "id").to_string(),
        "\"id\" is ambiguous: it fits service id-web (web), service id-web2 (web2)"
    );
}

#[test]
fn candidates_are_limited() {
    let nodes: String = (10..22).map(|number| format!("node n{number}\n")).collect();
    assert!(
        refused(&nodes, "n")
            .to_string()
            .ends_with("(host-n19) and 2 more")
    );
}

#[test]
fn kinds_are_read_by_name() {
    assert_eq!(Subject::parse(""), Ok(None));
    assert_eq!(Subject::parse("task"), Ok(Some(Subject::Task)));
    let refused = Subject::parse("cluster").unwrap_err().to_string();
    assert_eq!(
        refused,
        "kind \"cluster\" cannot be explained; use service, task or node"
    );
}
