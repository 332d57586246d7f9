//! The user: creates, scales and removes services, and changes nodes, through the Control API.

mod payloads;
mod specs;

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_ca::change::NewRoot;
use swarm_control_api as control;
use swarm_reconcile::Ctx;
use swarm_store::{Root, Transaction};
use swarm_types::{
    Cluster, IdSource, Node, NodeState, Service, Task, Timestamp, convert, spec, time,
};
use v1::node_spec::Availability;

use crate::identity::RootIx;
use crate::manager::replica::Author;
use crate::manager::{Io, Manager};
use crate::random::{Purpose, Random};
use crate::settings::{Actions, Settings};
use crate::trace::Weight;

pub(crate) use payloads::is_for_one_task;
pub(crate) use specs::is_fragile;

/// One action.
#[derive(Clone, Debug)]
enum Action {
    Create(Box<v1::ServiceSpec>),
    Remove(Arc<Service>),
    Scale(Arc<Service>, u64),
    Node(&'static str, Arc<Node>, Box<v1::NodeSpec>),
    RemoveNode(Arc<Node>, bool),
    RemoveTask(Arc<Task>),
    Cluster(Arc<Cluster>, i64),
    RotateRoot(Arc<Cluster>, RootIx),
    RotateToken(Arc<Cluster>),
    Payload(payloads::Wish),
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "user create",
            Self::Remove(_) => "user remove",
            Self::Scale(..) => "user scale",
            Self::Node(name, ..) => name,
            Self::RemoveNode(..) => "user remove node",
            Self::RemoveTask(_) => "user remove task",
            Self::Cluster(..) => "user cluster",
            Self::RotateRoot(..) => "user rotate root",
            Self::RotateToken(_) => "user rotate token",
            Self::Payload(wish) => wish.name(),
        }
    }

    fn object(&self) -> String {
        match self {
            Self::Create(spec) => {
                let name = spec.annotations.as_ref().map(|own| own.name.clone());
                format!("{} {:?}", name.unwrap_or_default(), spec.mode)
            }
            Self::Remove(service) => service.spec.name().to_owned(),
            Self::Scale(service, replicas) => format!("{} to {replicas}", service.spec.name()),
            Self::Node(_, node, spec) => format!(
                "{} {:?} {:?}",
                node.hostname(),
                Availability::try_from(spec.availability),
                spec.annotations.as_ref().map(|own| &own.labels)
            ),
            Self::RemoveNode(node, force) => format!("{} force={force}", node.hostname()),
            Self::RemoveTask(task) => task.id.to_string(),
            Self::Cluster(_, limit) => format!("history limit {limit}, heartbeats to fit"),
            Self::RotateRoot(_, root) => format!("to root {}", root.0),
            Self::RotateToken(_) => String::new(),
            Self::Payload(wish) => wish.object(),
        }
    }
}

/// The user and what was asked for so far.
pub(crate) struct User {
    pub(crate) random: Random,
    actions: Actions,
    services: crate::settings::Services,
    created: u64,
    /// Apart, so that runs without secrets and configs stay the same.
    payloads: Random,
    /// Apart for the same reason.
    oversize: Random,
    payloads_created: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

impl User {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            random: Random::new(settings.options.seed, Purpose::User),
            actions: settings.actions.clone(),
            services: settings.services.clone(),
            created: 0,
            payloads: Random::new(!settings.options.seed, Purpose::User),
            oversize: Random::new(!settings.options.seed, Purpose::Oversize),
            payloads_created: 0,
            accepted: 0,
            refused: 0,
        }
    }

    /// Creates the first services; `false` while nobody leads.
    pub(crate) fn begin(&mut self, io: &mut Io<'_>, manager: &mut Manager) -> bool {
        let Some(view) = manager.view() else {
            return false;
        };
        if self.services.payloads_per_mille > 0 && self.payloads_created == 0 {
            for wish in payloads::first() {
                self.ask(io, manager, Action::Payload(wish));
            }
            self.payloads_created = 1;
            return false;
        }
        for _ in 0..self.services.initial {
            let action = self.create(&view);
            self.ask(io, manager, action);
        }
        true
    }

    /// Does one thing, if the manager leads and there is something to do it to.
    pub(crate) fn act(&mut self, io: &mut Io<'_>, manager: &mut Manager) {
        let Some(view) = manager.view() else {
            return;
        };
        if let Some(action) = self.choose(&view) {
            self.ask(io, manager, action);
        }
    }

    /// Removes the services that never come to rest; `false` while some are left.
    pub(crate) fn tidy_up(&mut self, io: &mut Io<'_>, manager: &mut Manager) -> bool {
        let Some(view) = manager.view() else {
            return false;
        };
        let fragile = view.all::<Service>().find(|service| is_fragile(service));
        match fragile.cloned() {
            Some(service) => {
                self.ask(io, manager, Action::Remove(service));
                false
            }
            None => true,
        }
    }

    /// Removes nodes that asked for a certificate and never got the answer: no machine is one of
    /// them, and a rotation would wait an hour for each. `false` while some are left.
    pub(crate) fn remove_ghosts(
        &mut self,
        io: &mut Io<'_>,
        manager: &mut Manager,
        machines: &[crate::node::Node],
    ) -> bool {
        let Some(view) = manager.view() else {
            return false;
        };
        let is_machine = |node: &Node| machines.iter().any(|machine| machine.id == node.id);
        let is_joining = machines
            .iter()
            .any(|machine| machine.identity.ask.is_some());
        let ghost = view.all::<Node>().find(|node| !is_machine(node));
        match ghost.cloned().filter(|_| !is_joining) {
            Some(ghost) => {
                self.ask(io, manager, Action::RemoveNode(ghost, true));
                false
            }
            None => !is_joining,
        }
    }

    fn choose(&mut self, view: &Root) -> Option<Action> {
        let Actions {
            create,
            remove,
            scale,
            availability,
            label,
            remove_node,
            remove_task,
            cluster,
            rotate_root,
            rotate_token,
            payloads,
            interval: _,
        } = self.actions;
        let weights = [
            create,
            remove,
            scale,
            availability,
            label,
            remove_node,
            remove_task,
            cluster,
            rotate_root,
            rotate_token,
            payloads,
        ];
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = self.random.below(total);
        let place = weights.iter().position(|weight| {
            let weight = u64::from(*weight);
            let is_it = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_it
        });
        match place? {
            0 => (view.count::<Service>() as u64 <= self.services.max).then(|| self.create(view)),
            1 => self.one_of::<Service>(view).map(Action::Remove),
            2 => self.scale(view),
            3 => self.availability(view),
            4 => self.label(view),
            5 => self.remove_node(view),
            6 => self.one_of::<Task>(view).map(Action::RemoveTask),
            8 => {
                let cluster = Arc::clone(view.cluster()?);
                let root = next_root(&cluster)?;
                Some(Action::RotateRoot(cluster, root))
            }
            9 => view.cluster().cloned().map(Action::RotateToken),
            10 => {
                self.payloads_created += 1;
                let number = self.payloads_created;
                payloads::draw(view, number, &mut self.payloads).map(Action::Payload)
            }
            _ => {
                let limit = i64::try_from(self.random.below(6)).unwrap_or(0);
                view.cluster()
                    .map(|cluster| Action::Cluster(Arc::clone(cluster), limit))
            }
        }
    }

    fn remove_node(&mut self, view: &Root) -> Option<Action> {
        let node = self.one_of::<Node>(view)?;
        let force = self.random.happens(300);
        let is_worker = node.role == v1::NodeRole::Worker;
        let can = force || node.status.state == NodeState::Down;
        (is_worker && can).then_some(Action::RemoveNode(node, force))
    }

    fn create(&mut self, view: &Root) -> Action {
        self.created += 1;
        let mut spec = specs::draw(&self.services, self.created, &mut self.random);
        if self.payloads.happens(self.services.payloads_per_mille) {
            payloads::refer(&mut spec, view, &mut self.payloads);
        }
        if self.oversize.happens(self.services.large_per_mille) {
            specs::enlarge(&mut spec, &mut self.oversize);
        }
        Action::Create(Box::new(spec))
    }

    fn scale(&mut self, view: &Root) -> Option<Action> {
        let service = self.one_of::<Service>(view)?;
        spec::replicas(&service.spec)?;
        let replicas = self.random.below(self.services.replicas_max + 1);
        Some(Action::Scale(service, replicas))
    }

    fn availability(&mut self, view: &Root) -> Option<Action> {
        let node = self.one_of::<Node>(view)?;
        let choices = [
            Availability::Active,
            Availability::Active,
            Availability::Pause,
            Availability::Drain,
        ];
        let availability = *self.random.pick(&choices)?;
        let mut spec = (*node.spec).clone();
        spec.availability = availability as i32;
        Some(Action::Node("user availability", node, Box::new(spec)))
    }

    fn label(&mut self, view: &Root) -> Option<Action> {
        let node = self.one_of::<Node>(view)?;
        let mut spec = (*node.spec).clone();
        let labels = &mut spec.annotations.get_or_insert_default().labels;
        let zone = *self.random.pick(&["a", "b", ""])?;
        if zone.is_empty() {
            labels.remove("zone");
        } else {
            labels.insert("zone".to_owned(), zone.to_owned());
        }
        Some(Action::Node("user label", node, Box::new(spec)))
    }

    fn one_of<O: Choosable>(&mut self, view: &Root) -> Option<Arc<O>> {
        let all = O::list(view);
        self.random.pick(&all).cloned()
    }

    fn ask(&mut self, io: &mut Io<'_>, manager: &mut Manager, action: Action) {
        let (name, object) = (action.name(), action.object());
        let written = manager.write(io, Author::User(name), |transaction, now, ids| {
            perform(action, transaction, now, ids)
        });
        let answer = match written {
            None => return,
            Some(Ok(())) => {
                self.accepted += 1;
                "taken".to_owned()
            }
            Some(Err(refusal)) => {
                self.refused += 1;
                format!("refused: {}", refusal.message())
            }
        };
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            "user",
            format_args!("{name} {object}: {answer}"),
        );
    }
}

trait Choosable: Sized {
    fn list(view: &Root) -> Vec<Arc<Self>>;
}

macro_rules! choosable {
    ($($kind:ty),*) => {$(
        impl Choosable for $kind {
            fn list(view: &Root) -> Vec<Arc<Self>> {
                view.all::<Self>().cloned().collect()
            }
        }
    )*};
}
choosable!(Service, Node, Task);

fn scale(
    transaction: &mut Transaction,
    service: &Service,
    replicas: u64,
) -> Result<(), control::Refusal> {
    let request = control::check_changed_service(scaled(service, replicas))?;
    let plan = control::update_service(transaction, request)?;
    plan.apply(transaction).map(drop)
}

fn perform(
    action: Action,
    transaction: &mut Transaction,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Result<(), control::Refusal> {
    let mut ctx = Ctx { now, ids };
    match action {
        Action::Create(spec) => {
            let request = v1::CreateServiceRequest { spec: Some(*spec) };
            let checked = control::check_new_service(request)?;
            let plan = control::create_service(transaction, &mut ctx, checked)?;
            plan.apply(transaction).map(drop)
        }
        Action::Remove(service) => {
            let service_id = service.id.to_string();
            let request = v1::RemoveServiceRequest { service_id };
            let plan = control::remove_service(transaction, request)?;
            plan.apply(transaction).map(drop)
        }
        Action::Scale(service, replicas) => scale(transaction, &service, replicas),
        Action::Node(_, node, spec) => {
            let request = v1::UpdateNodeRequest {
                node_id: node.id.to_string(),
                node_version: convert::node_to_wire(&node)
                    .meta
                    .and_then(|meta| meta.version),
                spec: Some(*spec),
            };
            let plan = control::update_node(transaction, &control::Members::new(), request)?;
            plan.apply(transaction).map(drop)
        }
        Action::RemoveNode(node, force) => {
            let node_id = node.id.to_string();
            let request = v1::RemoveNodeRequest { node_id, force };
            let members = control::Members::default();
            let plan = control::remove_node(transaction, Some(&members), &mut ctx, request)?;
            plan.apply(transaction).map(drop)
        }
        Action::RemoveTask(task) => {
            let task_id = task.id.to_string();
            let request = v1::RemoveTaskRequest { task_id };
            let plan = control::remove_task(transaction, request)?;
            plan.apply(transaction).map(drop)
        }
        Action::Cluster(cluster, limit) => {
            let mut request = unchanged(&cluster);
            let spec = request.spec.get_or_insert_default();
            let orchestration = spec.orchestration.get_or_insert_default();
            orchestration.task_history_retention_limit = limit;
            // One draw for both, so that what a seed draws later stays as it was.
            let seconds = Duration::from_secs(1 + limit.unsigned_abs());
            let dispatcher = spec.dispatcher.get_or_insert_default();
            dispatcher.heartbeat_period = Some(time::duration_to_wire(seconds));
            update_cluster(transaction, &mut ctx, request, None)
        }
        Action::RotateRoot(cluster, root) => {
            let request = forced(&cluster);
            update_cluster(transaction, &mut ctx, request, Some(root))
        }
        Action::Payload(wish) => wish.perform(transaction, &mut ctx),
        Action::RotateToken(cluster) => {
            let request = with_new_token(&cluster);
            update_cluster(transaction, &mut ctx, request, None)
        }
    }
}

/// The request that begins to rotate the root.
fn forced(cluster: &Cluster) -> v1::UpdateClusterRequest {
    let mut request = unchanged(cluster);
    let spec = request.spec.get_or_insert_default();
    spec.ca_config.get_or_insert_default().force_rotate += 1;
    request
}

/// The request that replaces the join token of workers.
fn with_new_token(cluster: &Cluster) -> v1::UpdateClusterRequest {
    let rotation = v1::KeyRotation {
        worker_join_token: true,
        ..Default::default()
    };
    v1::UpdateClusterRequest {
        rotation: Some(rotation),
        ..unchanged(cluster)
    }
}

/// A request that changes nothing.
fn unchanged(cluster: &Cluster) -> v1::UpdateClusterRequest {
    v1::UpdateClusterRequest {
        cluster_id: cluster.id.to_string(),
        cluster_version: Some(convert::version_to_wire(cluster.meta.version)),
        spec: Some((*cluster.spec).clone()),
        ..Default::default()
    }
}

/// The root after the newest one that the cluster knows.
fn next_root(cluster: &Cluster) -> Option<RootIx> {
    let root_ca = cluster.root_ca.as_deref()?;
    let target = root_ca
        .root_rotation
        .as_ref()
        .map(|rotation| &rotation.ca_cert);
    RootIx::of(target.unwrap_or(&root_ca.ca_cert))?.next()
}

/// Updates the cluster as `swarm-manager` does, with what a rotation to `root` needs.
fn update_cluster(
    transaction: &mut Transaction,
    ctx: &mut Ctx<'_>,
    request: v1::UpdateClusterRequest,
    root: Option<RootIx>,
) -> Result<(), control::Refusal> {
    let decision = control::decide_root(transaction, &request, ctx.now)?;
    let root_ca = transaction
        .cluster()
        .and_then(|cluster| cluster.root_ca.clone());
    let current = root_ca.and_then(|root_ca| RootIx::of(&root_ca.ca_cert));
    let new_root = root.zip(current).map(|(root, current)| NewRoot {
        cert_pem: root.pem(),
        key_pem: root.key(),
        cross_signed_pem: root.cross_signed(current),
    });
    let material = control::CaMaterial { decision, new_root };
    let plan = control::update_cluster(transaction, ctx, request, &material)?;
    plan.apply(transaction).map(drop)
}

/// The request that gives a service another number of replicas.
fn scaled(service: &Service, replicas: u64) -> v1::UpdateServiceRequest {
    let mut spec = service.spec.wire().clone();
    let replicated = v1::ReplicatedService { replicas };
    spec.mode = Some(v1::service_spec::Mode::Replicated(replicated));
    v1::UpdateServiceRequest {
        service_id: service.id.to_string(),
        service_version: Some(convert::version_to_wire(service.meta.version)),
        spec: Some(spec),
        ..Default::default()
    }
}
