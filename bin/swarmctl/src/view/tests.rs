use super::*;

fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn a_cluster_shows_join_tokens_on_request_and_keys_never() {
    let cluster = v1::Cluster {
        id: "c".to_owned(),
        root_ca: Some(v1::RootCa {
            ca_key: b"key-of-the-ca".to_vec().into(),
            ca_cert: b"cert-of-the-ca".to_vec().into(),
            join_tokens: Some(v1::JoinTokens {
                worker: "SWMTKN-w".to_owned(),
                manager: "SWMTKN-m".to_owned(),
            }),
            ..Default::default()
        }),
        unlock_keys: vec![v1::EncryptionKey {
            key: b"unlock".to_vec().into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let list = json(&ClusterView::new(&cluster, false));
    assert_eq!(list["join_tokens"], serde_json::Value::Null);
    let one = json(&ClusterView::new(&cluster, true));
    assert_eq!(one["join_tokens"]["worker"], "SWMTKN-w");
    let keys: Vec<&String> = one.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "join_tokens", "meta", "spec"]);
}

#[test]
fn enums_are_names_and_unknown_numbers_stay_numbers() {
    let task = v1::Task {
        id: "t".to_owned(),
        desired_state: v1::TaskState::Running as i32,
        status: Some(v1::TaskStatus {
            state: 77,
            ..Default::default()
        }),
        ..Default::default()
    };
    let task = json(&TaskView::from(&task));
    assert_eq!(task["desired_state"], "RUNNING");
    assert_eq!(task["status"]["state"], "77");
}

#[test]
fn a_service_keeps_the_names_of_the_wire() {
    let spec = v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: "web".to_owned(),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas: 3,
        })),
        task: Some(v1::TaskSpec {
            restart: Some(v1::RestartPolicy {
                condition: v1::restart_policy::RestartCondition::OnFailure as i32,
                delay: Some(prost_types::Duration {
                    seconds: 5,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let service = v1::Service {
        id: "s".to_owned(),
        spec: Some(spec),
        ..Default::default()
    };
    let view = json(&ServiceView::new(&service, 2, 3));
    assert_eq!(view["spec"]["annotations"]["name"], "web");
    assert_eq!(view["spec"]["mode"], "replicated");
    assert_eq!(view["spec"]["replicas"], 3);
    assert_eq!(view["spec"]["task"]["restart"]["condition"], "ON_FAILURE");
    assert_eq!(
        view["spec"]["task"]["restart"]["delay_nanos"],
        5_000_000_000i64
    );
    assert_eq!(view["status"]["running_tasks"], 2);
}

#[test]
fn times_are_rfc_3339_and_malformed_ones_absent() {
    let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    assert_eq!(
        time(Some(&wire(0, 0))).as_deref(),
        Some("1970-01-01T00:00:00Z")
    );
    assert_eq!(time(Some(&wire(0, -1))), None);
    assert_eq!(time(None), None);
    let huge = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    };
    assert_eq!(nanos(Some(&huge)), None);
}
