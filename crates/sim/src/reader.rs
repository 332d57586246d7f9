//! Clients that read logs: of services, tasks and nodes, followed or not, until they have enough.

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{Node, Service, Task};

use crate::manager::{Io, Manager};
use crate::random::{Purpose, Random};
use crate::settings::Settings;
use crate::trace::Weight;

/// Clients at a time, beyond which one goes before the next one comes.
const CLIENTS_MAX: usize = 12;
/// In so many of a thousand cases a client goes.
const GOES_PER_MILLE: u32 = 300;

/// All clients. What they read is kept with the term of the manager that serves them.
pub(crate) struct Reader {
    pub(crate) random: Random,
}

impl Reader {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            random: Random::new(settings.options.seed, Purpose::Reader),
        }
    }

    /// Somebody comes or goes.
    pub(crate) fn act(&mut self, io: &mut Io<'_>, manager: &mut Manager) {
        let Some(view) = manager.view() else {
            return;
        };
        let clients = manager.lines().map_or(0, |lines| lines.clients());
        if clients > 0 && (clients >= CLIENTS_MAX || self.random.happens(GOES_PER_MILLE)) {
            let place = self.random.below(clients as u64);
            return manager.stop_reading(io, usize::try_from(place).unwrap_or(0));
        }
        let request = v1::SubscribeLogsRequest {
            selector: Some(self.selector(&view)),
            options: Some(v1::LogSubscriptionOptions {
                follow: self.random.happens(500),
                ..Default::default()
            }),
        };
        let told = format!("{:?}", request.selector);
        let begun = manager.read_lines(io, request);
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            "reader",
            format_args!("{told}: {begun:?}"),
        );
    }

    fn selector(&mut self, view: &Root) -> v1::LogSelector {
        let one = |ids: Vec<String>, random: &mut Random| {
            random.pick(&ids).cloned().into_iter().collect::<Vec<_>>()
        };
        let services = view.all::<Service>().map(|own| own.id.to_string());
        let tasks = view.all::<Task>().map(|own| own.id.to_string());
        let nodes = view.all::<Node>().map(|own| own.id.to_string());
        let random = &mut self.random;
        let mut selector = v1::LogSelector::default();
        match random.below(4) {
            0 => selector.task_ids = one(tasks.collect(), random),
            1 => selector.node_ids = one(nodes.collect(), random),
            _ => selector.service_ids = one(services.collect(), random),
        }
        selector
    }

    /// Nobody follows any more; `false` while somebody reads what has to end by itself.
    pub(crate) fn close_book(&mut self, io: &mut Io<'_>, manager: &mut Manager) -> bool {
        while let Some(place) = manager.lines().and_then(|lines| lines.following()) {
            manager.stop_reading(io, place);
        }
        manager.lines().is_none_or(|lines| lines.clients() == 0)
    }
}
