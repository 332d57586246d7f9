use super::*;
use crate::tests::world::{NOW, id, node};
use crate::transaction::Action;

fn commit(version: u64, names: &[&str]) -> Arc<Commit> {
    let change = |name: &&str| Change {
        action: Action::Create,
        object: node(id(name), "").into(),
        old: None,
    };
    Arc::new(Commit {
        version: Version(version),
        at: NOW,
        changes: names.iter().map(change).collect(),
    })
}

fn history(changes_max: usize, commits: &[(u64, &[&str])]) -> History {
    let mut history = History::new(HistoryLimits { changes_max }, Version(0));
    for (version, names) in commits {
        history.push(commit(*version, names));
    }
    history
}

fn versions(history: &History, since: u64) -> Result<Vec<u64>, Compacted> {
    let commits = history.since(Version(since))?;
    Ok(commits.iter().map(|commit| commit.version.0).collect())
}

#[test]
fn the_window_holds_its_limit_of_changes_and_drops_whole_commits_beyond() {
    let full = history(4, &[(1, &["a"]), (2, &["b", "c"]), (3, &["d"])]);
    assert_eq!(versions(&full, 0), Ok(vec![1, 2, 3]));
    assert_eq!(versions(&full, 2), Ok(vec![3]));
    assert_eq!(versions(&full, 3), Ok(vec![]));
    let mut over = full;
    over.push(commit(4, &["e", "f"]));
    assert_eq!(over.floor(), Version(2));
    assert_eq!(versions(&over, 2), Ok(vec![3, 4]));
    let refusal = versions(&over, 1).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "version 1 is no longer in the history, which begins after version 2"
    );
}

#[test]
fn a_commit_larger_than_the_window_empties_it() {
    let mut history = history(2, &[(1, &["a"])]);
    history.push(commit(2, &["b", "c", "d"]));
    assert_eq!(history.floor(), Version(2));
    assert!(history.since(Version(1)).is_err());
    history.push(commit(3, &["e"]));
    assert_eq!(versions(&history, 2), Ok(vec![3]));
    // Its changes were never counted: two more fit.
    history.push(commit(4, &["f"]));
    assert_eq!(versions(&history, 2), Ok(vec![3, 4]));
}

#[test]
fn large_objects_leave_the_window_sooner() {
    let large = |version: u64| {
        let description = swarm_api::v1::NodeDescription {
            hostname: "x".repeat(50_000),
            ..Default::default()
        };
        let mut node = node(id("a"), "");
        node.description = Some(Arc::new(description));
        Arc::new(Commit {
            version: Version(version),
            at: NOW,
            changes: vec![Change {
                action: Action::Create,
                object: node.into(),
                old: None,
            }],
        })
    };
    let mut history = history(200, &[]);
    for version in 1..=20 {
        history.push(large(version));
    }
    let kept = versions(&history, history.floor().0).unwrap().len();
    assert_eq!(kept, 4, "of 50 KB each, where 200 changes may be kept");
}

#[test]
fn commits_without_changes_are_bounded_too() {
    let mut history = history(3, &[]);
    for version in 1..=10 {
        history.push(commit(version, &[]));
    }
    assert_eq!(versions(&history, 7), Ok(vec![8, 9, 10]));
}

#[test]
fn the_story_of_an_object_has_what_is_still_in_the_window() {
    let history = history(4, &[(1, &["a"]), (2, &["a", "b", "a"]), (3, &["a"])]);
    let story: Vec<u64> = history
        .of(Kind::Node, &id("a"))
        .iter()
        .map(|(commit, _)| commit.version.0)
        .collect();
    assert_eq!(story, [2, 2, 3]);
    assert!(history.of(Kind::Task, &id("a")).is_empty());
    assert!(history.of(Kind::Node, &id("z")).is_empty());
}
