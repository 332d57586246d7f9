use super::*;
use crate::world::{World, at};

fn wanted(role: &str) -> ext::CreateJoinTokenRequest {
    ext::CreateJoinTokenRequest {
        role: role.to_owned(),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn make(
    world: &mut World,
    request: ext::CreateJoinTokenRequest,
) -> Result<ext::CreateJoinTokenResponse, Refusal> {
    let view = world.root.clone();
    let (writes, made) = create(&view, request, &mut world.ctx())?;
    world.commit(&writes);
    Ok(made)
}

/// Lets a node join, as `requests::issue` does.
fn use_up(world: &mut World, token: &str, node: &str) -> Result<(), Refusal> {
    let admission = admit(&world.root, token, world.now)?;
    let node = crate::world::node_id(node);
    let writes = admission.counted.iter().map(|stored| stored.count(&node));
    let writes = WriteSet(writes.collect());
    world.commit(&writes);
    Ok(())
}

fn state_of(world: &World, id: &str) -> String {
    let tokens = list(&world.root, world.now).tokens;
    tokens
        .into_iter()
        .find(|token| token.id == id)
        .unwrap()
        .state
}

#[test]
fn a_token_expires_at_its_time_and_not_before() {
    let mut world = World::new();
    let request = ext::CreateJoinTokenRequest {
        ttl: seconds(60),
        ..wanted("worker")
    };
    let made = make(&mut world, request).unwrap();
    let info = made.info.unwrap();
    assert_eq!(info.expires_at, Some(at(60).to_wire()));
    world.now = at(60).saturating_sub(Duration::from_nanos(1));
    use_up(&mut world, &made.token, "a").unwrap();
    world.now = at(60);
    let refusal = use_up(&mut world, &made.token, "b").unwrap_err();
    assert!(
        refusal
            .message
            .contains("this one expired at 2023-11-14T22:14:20Z"),
        "{refusal}"
    );
    assert_eq!(state_of(&world, &info.id), "expired");
}

#[test]
fn a_token_is_used_so_often_and_tells_by_whom() {
    let mut world = World::new();
    let request = ext::CreateJoinTokenRequest {
        uses: 2,
        ..wanted("worker")
    };
    let made = make(&mut world, request).unwrap();
    let id = made.info.unwrap().id;
    for node in ["a", "b"] {
        let admission = admit(&world.root, &made.token, world.now).unwrap();
        assert_eq!(admission.role, v1::NodeRole::Worker);
        use_up(&mut world, &made.token, node).unwrap();
    }
    let refusal = use_up(&mut world, &made.token, "c").unwrap_err();
    assert!(
        refusal.message.contains("used up, it was made for 2 uses"),
        "{refusal}"
    );
    let tokens = list(&world.root, world.now).tokens;
    assert_eq!(tokens[0].used_by, ["a", "b"]);
    assert_eq!((tokens[0].uses, tokens[0].uses_allowed), (2, 2));
    assert_eq!(state_of(&world, &id), "used up");
}

#[test]
fn two_uses_at_once_count_once_each() {
    let mut world = World::new();
    let request = ext::CreateJoinTokenRequest {
        uses: 1,
        ..wanted("worker")
    };
    let made = make(&mut world, request).unwrap();
    let admission = admit(&world.root, &made.token, world.now).unwrap();
    let stored = admission.counted.unwrap();
    let (first, second) = ("a".parse().unwrap(), "b".parse().unwrap());
    let (first, second) = (stored.count(&first), stored.count(&second));
    let mut transaction = world.root.begin(world.now);
    transaction.apply_set(&WriteSet(vec![first])).unwrap();
    // The second writer saw the token before the first use, so the store refuses it.
    transaction.apply_set(&WriteSet(vec![second])).unwrap_err();
}

#[test]
fn the_cluster_stores_no_secret_and_shows_none() {
    let mut world = World::new();
    let made = make(&mut world, wanted("worker")).unwrap();
    let secret = made.token.rsplit('-').next().unwrap().to_owned();
    let resource = world.root.all::<Resource>().next().unwrap();
    assert!(!format!("{resource:?}").contains(&secret));
    let payload = &resource.payload.as_ref().unwrap().value;
    assert!(
        !payload
            .windows(secret.len())
            .any(|part| part == secret.as_bytes())
    );
    assert!(!format!("{:?}", list(&world.root, world.now)).contains(&secret));
    assert!(!format!("{made:?}").contains(&secret));
}

#[test]
fn a_new_root_makes_old_tokens_worthless() {
    let mut world = World::new();
    let made = make(&mut world, wanted("worker")).unwrap();
    let id = made.info.unwrap().id;
    let next = crate::world::root_ca(world.now);
    world.cluster(|cluster| cluster.root_ca = Some(Box::new(next)));
    let refusal = use_up(&mut world, &made.token, "a").unwrap_err();
    assert!(refusal.message.contains("an earlier root CA"), "{refusal}");
    assert_eq!(state_of(&world, &id), "made for another root CA");
}

#[test]
fn tokens_are_revoked_by_id_or_by_its_beginning() {
    let mut world = World::new();
    let made = make(&mut world, wanted("worker")).unwrap();
    let ids: Vec<String> = (0..40)
        .map(|_| make(&mut world, wanted("worker")).unwrap().info.unwrap().id)
        .collect();
    let mut revoke = |id: &str| {
        let request = ext::RemoveJoinTokenRequest { id: id.to_owned() };
        let (writes, reply) = remove(&world.root, &request)?;
        world.commit(&writes);
        Ok::<_, Refusal>(reply.id)
    };
    assert_eq!(revoke("").unwrap_err().code, Code::InvalidArgument);
    assert_eq!(
        revoke("nothing").unwrap_err().message,
        "join token nothing not found"
    );
    let shared = ids
        .iter()
        .find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1);
    let text = revoke(&shared.unwrap()[..1]).unwrap_err().message;
    assert!(text.starts_with("several join tokens"), "{text}");
    let id = made.info.unwrap().id;
    assert_eq!(revoke(&id[..24]).unwrap(), id);
    assert_eq!(revoke(&id).unwrap_err().code, Code::NotFound);
    let refusal = use_up(&mut world, &made.token, "a").unwrap_err();
    assert!(refusal.message.contains("not known here"), "{refusal}");
}

#[test]
fn malformed_wishes_are_refused_by_name() {
    let mut world = World::new();
    world.node("w", |_| {});
    let base = wanted("worker");
    for (request, text) in [
        (wanted("boss"), "the role is `boss`"),
        (wanted(""), "the role is ``"),
        (
            ext::CreateJoinTokenRequest {
                node_id: "w".to_owned(),
                ..base.clone()
            },
            "leave the role empty",
        ),
        (
            ext::CreateJoinTokenRequest {
                node_id: "w".to_owned(),
                ..wanted("")
            },
            "node w is READY",
        ),
        (
            ext::CreateJoinTokenRequest {
                node_id: "x".to_owned(),
                ..wanted("")
            },
            "node x not found",
        ),
        (
            ext::CreateJoinTokenRequest {
                ttl: seconds(0),
                ..base.clone()
            },
            "the ttl is 0s",
        ),
        (
            ext::CreateJoinTokenRequest {
                ttl: seconds(-1),
                ..base.clone()
            },
            "the ttl is -1s",
        ),
        (
            ext::CreateJoinTokenRequest {
                ttl: seconds(i64::from(u32::MAX)),
                ..base.clone()
            },
            "at most 315360000s",
        ),
        (
            ext::CreateJoinTokenRequest {
                description: "x".repeat(DESCRIPTION_BYTES_MAX + 1),
                ..base
            },
            "has 257 bytes",
        ),
    ] {
        let refusal = make(&mut world, request).unwrap_err();
        assert!(refusal.message.contains(text), "{refusal}");
    }
}

#[test]
fn the_number_of_tokens_is_bounded_and_dead_ones_make_room_after_a_week() {
    let mut world = World::new();
    let request = ext::CreateJoinTokenRequest {
        ttl: seconds(60),
        ..wanted("worker")
    };
    let view = world.root.clone();
    let mut writes = Vec::new();
    for number in 0..TOKENS_MAX {
        let (made, _) = create(&view, request.clone(), &mut world.ctx()).unwrap();
        for write in made.0 {
            let Write::Create(swarm_types::AnyObject::Resource(resource)) = write else {
                panic!("{write:?}");
            };
            let mut resource = (*resource).clone();
            resource.id = format!("token {number}").parse().unwrap();
            let name = format!("{NAME_PREFIX}{number}");
            Arc::make_mut(&mut resource.spec).name = name;
            writes.push(Write::create(resource));
        }
    }
    world.commit(&WriteSet(writes));
    let refusal = make(&mut world, request.clone()).unwrap_err();
    assert_eq!(refusal.code, Code::ResourceExhausted);
    assert!(refusal.message.contains("1000 join tokens"), "{refusal}");
    world.now = at(60).saturating_add(DEAD_TOKENS_KEPT);
    make(&mut world, request.clone()).unwrap_err();
    world.now = world.now.saturating_add(Duration::from_nanos(1));
    make(&mut world, request).unwrap();
    assert_eq!(world.root.count::<Resource>(), TOKENS_MAX - PURGED_MAX + 1);
}

#[test]
fn a_check_tells_what_a_token_allows_and_uses_nothing_up() {
    let mut world = World::new();
    let request = ext::CreateJoinTokenRequest {
        ttl: seconds(60),
        uses: 1,
        ..wanted("worker")
    };
    let made = make(&mut world, request).unwrap();
    let ask = |world: &World, token: &str| {
        let token = token.to_owned();
        check(
            &world.root,
            &ext::CheckJoinTokenRequest { token },
            world.now,
        )
    };
    for _ in 0..2 {
        let answer = ask(&world, &made.token);
        assert!(answer.valid);
        assert_eq!(
            (answer.role.as_str(), answer.uses_left),
            ("worker", Some(1))
        );
        assert_eq!(answer.expires_at, Some(at(60).to_wire()));
        assert_eq!(answer.manager_time, Some(at(0).to_wire()));
    }
    let tokens = world.tokens();
    let answer = ask(&world, &tokens.worker);
    assert_eq!((answer.role.as_str(), answer.uses_left), ("worker", None));
    let answer = ask(&world, &tokens.manager);
    assert!(!answer.valid && answer.reason.contains("a second manager cannot run yet"));
    let refusal = make(&mut world, wanted("manager")).unwrap_err();
    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert!(refusal.message.contains("a second manager"), "{refusal}");
    let answer = ask(&world, "SWMTKN-1-x-y");
    assert!(!answer.valid && answer.role.is_empty());
    assert!(
        answer.reason.contains("invalid join token"),
        "{}",
        answer.reason
    );
}
