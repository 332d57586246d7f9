//! Parsing and planning; the real tree is used by the tests with real processes.

use super::*;

const LIMITS: Limits = Limits {
    nano_cpus: Some(1_500_000_000),
    memory_bytes: Some(64),
    pids: Some(9),
};

fn dirs(groups: &[Group]) -> Vec<&str> {
    groups
        .iter()
        .map(|group| group.dir.to_str().unwrap())
        .collect()
}

#[test]
fn hybrid_tree_gives_limits_to_version_1_and_killing_to_version_2() {
    let tree = Tree::parse(
        "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
         31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
         32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
         33 25 0:29 / /proc rw - proc proc rw\n",
        "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n",
    );
    let (groups, warnings) = tree.plan("t", &LIMITS);
    assert_eq!(
        dirs(&groups),
        [
            "/sys/fs/cgroup/cpu,cpuacct/t",
            "/sys/fs/cgroup/memory/a/b/t",
            "/sys/fs/cgroup/unified/t",
        ]
    );
    assert_eq!(
        groups[0].settings(&LIMITS)[1],
        ("cpu.cfs_quota_us", "150000".to_owned())
    );
    assert_eq!(
        groups[1].settings(&LIMITS),
        [("memory.limit_in_bytes", "64".to_owned())]
    );
    assert!(groups[2].settings(&LIMITS).is_empty());
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("limit of 9 processes not applied"),
        "{warnings:?}"
    );
}

#[test]
fn limits_without_a_home_are_missing_with_the_reason() {
    let missing = missing(&Tree::default(), "swarm-probe-test");
    let kinds: Vec<Kind> = missing.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::LimitCpu, Kind::LimitMemory, Kind::LimitPids]);
    for (_, reason) in &missing {
        assert!(reason.starts_with("no cgroup controller"), "{reason}");
        assert!(reason.contains("run swarmd as root"), "{reason}");
    }
}

#[test]
fn version_2_alone_takes_all_limits_in_one_group() {
    // A directory stands in for the tree: the parent hands out, our own group does not.
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    fs::create_dir(own.join("cgroup.subtree_control")).unwrap();
    let tree = Tree {
        v2: Some(own),
        v1: BTreeMap::new(),
    };
    let (groups, warnings) = tree.plan("t", &LIMITS);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].dir, root.path().join("t"));
    let handed = fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(handed, "+cpu +memory +pids");
    assert_eq!(
        groups[0].settings(&LIMITS),
        [
            ("cpu.max", "150000 100000".to_owned()),
            ("memory.max", "64".to_owned()),
            ("pids.max", "9".to_owned()),
        ]
    );
}

#[test]
fn a_group_that_cannot_be_made_leaves_a_warning_and_no_group() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("no/such");
    let v1 = BTreeMap::from([("memory".to_owned(), missing)]);
    let limits = Limits {
        memory_bytes: Some(64),
        ..Limits::default()
    };
    let (mut groups, warnings) = Tree { v2: None, v1 }.plan("t", &limits);
    assert!(warnings.is_empty());
    let warnings = create(&mut groups, &limits);
    assert!(groups.is_empty());
    assert!(
        warnings[0].starts_with("memory limit of 64 bytes not applied: "),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("no/such/t"), "{warnings:?}");
}

#[test]
fn no_limits_need_no_controllers_and_tiny_quotas_are_raised() {
    let (groups, warnings) = Tree::default().plan("t", &Limits::default());
    assert!(groups.is_empty() && warnings.is_empty());
    let controllers = BTreeSet::from([Controller::Cpu]);
    let group = Group {
        dir: PathBuf::new(),
        controllers,
        version: Version::V2,
    };
    let limits = Limits {
        nano_cpus: Some(1),
        ..Limits::default()
    };
    assert_eq!(
        group.settings(&limits),
        [("cpu.max", "1000 100000".to_owned())]
    );
}

#[test]
fn mounts_that_show_a_part_of_the_hierarchy_are_followed() {
    assert_eq!(below("/m", "/docker/x", "/docker/x/y"), Path::new("/m/y"));
    assert_eq!(below("/m", "/docker/x", "/"), Path::new("/m"));
    assert_eq!(Tree::parse("garbage\n - \n", "garbage"), Tree::default());
}
