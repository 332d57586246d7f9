//! What a scraper sees of calls and tasks, over a real connection.

use swarm_api::v1;
use swarm_rt::metrics::{self, Metrics};
use swarm_rt::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use v1::dispatcher_client::DispatcherClient;

use super::world::{World, begin};
use super::{DEADLINE, message, within};

/// An endpoint for scrapers.
struct Endpoint {
    address: std::net::SocketAddr,
    tasks: Tasks,
}

impl Endpoint {
    async fn open(figures: Metrics) -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        metrics::serve(&tasks, listener, figures);
        Self { address, tasks }
    }

    async fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        text
    }

    /// Scrapes until a line is there.
    async fn shows(&self, line: &str) -> String {
        within(async {
            loop {
                let text = self.scrape().await;
                if text.lines().any(|it| it == line) {
                    return text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

fn service() -> v1::ServiceSpec {
    v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: "web".into(),
            ..Default::default()
        }),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(v1::ContainerSpec {
                image: "host".into(),
                command: vec!["sleep".into()],
                ..Default::default()
            })),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas: 1,
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_scraper_sees_how_long_calls_and_the_starts_of_tasks_take() {
    let world = World::start().await;
    let endpoint = Endpoint::open(world.metrics.clone()).await;
    let (_, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let session_id = first.session_id;
    let labels = "grpc_type=\"unary\",grpc_service=\"Dispatcher\",grpc_method=\"Heartbeat\"";
    let none = format!("grpc_server_handling_seconds_count{{{labels}}} 0");
    let text = endpoint.shows(&none).await;
    assert!(
        text.contains("\nswarm_dispatcher_scheduling_delay_seconds_count 0\n"),
        "{text}"
    );
    let beat = |session_id: &str| v1::HeartbeatRequest {
        session_id: session_id.to_owned(),
    };
    within(client.heartbeat(beat(&session_id))).await.unwrap();
    within(client.heartbeat(beat("other"))).await.unwrap_err();
    let both = format!("grpc_server_handling_seconds_count{{{labels}}} 2");
    let text = endpoint.shows(&both).await;
    for line in [
        format!("grpc_server_handling_seconds_bucket{{le=\"10.0\",{labels}}} 2"),
        format!("grpc_server_handling_seconds_bucket{{le=\"+Inf\",{labels}}} 2"),
        format!("grpc_server_started_total{{{labels}}} 2"),
        format!("grpc_server_handled_total{{{labels},grpc_code=\"OK\"}} 1"),
        format!("grpc_server_handled_total{{{labels},grpc_code=\"InvalidArgument\"}} 1"),
    ] {
        assert!(
            text.lines().any(|it| it == line),
            "{line} is not in\n{text}"
        );
    }

    let request = v1::AssignmentsRequest {
        session_id: session_id.clone(),
    };
    let assignments = within(client.assignments(request)).await;
    let mut assignments = assignments.unwrap().into_inner();
    message(&mut assignments).await;
    let create = v1::CreateServiceRequest {
        spec: Some(service()),
    };
    let mut control = world.control();
    let created = Box::pin(control.create_service(create));
    let created = within(created).await;
    created.unwrap();
    let told = message(&mut assignments).await;
    let mut tasks = told.changes.into_iter().filter_map(|change| {
        match change.assignment.and_then(|it| it.item) {
            Some(v1::assignment::Item::Task(task)) => Some(task.id),
            _ => None,
        }
    });
    let report = v1::UpdateTaskStatusRequest {
        session_id,
        updates: vec![v1::update_task_status_request::TaskStatusUpdate {
            task_id: tasks.next().unwrap(),
            status: Some(v1::TaskStatus {
                state: v1::TaskState::Running as i32,
                ..Default::default()
            }),
        }],
    };
    within(client.update_task_status(report)).await.unwrap();
    let text = endpoint
        .shows("swarm_dispatcher_scheduling_delay_seconds_count 1")
        .await;
    assert!(
        text.contains("swarm_dispatcher_scheduling_delay_seconds_bucket{le=\"+Inf\"} 1\n"),
        "{text}"
    );
    drop((stream, assignments, client));
    endpoint.tasks.finish(DEADLINE).await.unwrap();
    world.finish().await;
}
