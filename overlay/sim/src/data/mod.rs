//! The data plane of the modelled world: the production index service of every
//! super-node, and the production client of every user, on tokio with its clock
//! in the world's hands.
//!
//! Tasks run on one thread, in one order. Time passes for them only when none
//! has anything to do, and stops when one of them asks the network for
//! something: the world carries it.

mod calls;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_core::placement::Placement;
use canopy_leaf::client::{Client, ClientStats};
use canopy_proto::wire::{request, response};
use canopy_supernode::index::{Index, Limits};
use canopy_supernode::service::{IndexService, IndexStats, ServiceConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::users::Done;
use crate::world::{PeerId, micros};
pub(crate) use calls::counted;
use calls::{Shared, SimCalls, View, followed};

/// How long a user waits for an answer; as the SDK.
const PATIENCE: Duration = Duration::from_secs(10);
/// What has expired is never served; dropping it happens on another thread,
/// whose moment would not be the same in every run.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What tasks want of the world.
#[derive(Debug)]
pub(crate) enum Work {
    /// A request to another peer.
    Ask {
        call: u64,
        from: PeerId,
        to: NodeId,
        request: request::Kind,
    },
    /// Whoever sent a request waits for its answer no longer.
    Cancel { call: u64, from: PeerId, to: NodeId },
    /// The answer to one.
    Answer {
        call: u64,
        from: PeerId,
        to: PeerId,
        response: response::Kind,
    },
    /// What a user wanted is done.
    Done(Done),
    /// A peer that is no super-node any more has offered all it holds; whether
    /// all of it was confirmed.
    HandedOver(PeerId, bool),
}

/// What a peer's data plane starts from: who it is, who serves as far as it
/// knows, and its wall clock minus the true time, milliseconds.
pub(crate) type Known = (NodeId, Placement, i64);

/// What one peer has of the data plane.
struct Node {
    view: Arc<View>,
    service: Option<IndexService<SimCalls>>,
    client: Option<Client<SimCalls>>,
}

/// All of it.
pub(crate) struct Data {
    nodes: BTreeMap<PeerId, Node>,
    shared: Arc<Shared>,
    /// Of clients that are gone.
    past: ClientStats,
    /// Entered before anything of a service or client is called: elsewhere
    /// `Instant::now` is this machine's time. Last, so that what lives on it goes
    /// first.
    runtime: Runtime,
}

impl Data {
    /// Nobody has anything.
    ///
    /// # Errors
    /// The system gives no runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build()?;
        let begun = runtime.block_on(async { Instant::now() });
        Ok(Self {
            nodes: BTreeMap::new(),
            shared: Arc::new(Shared::new(begun)),
            past: ClientStats::default(),
            runtime,
        })
    }

    /// Lets tasks run, and time pass for them up to `until`, microseconds since
    /// the start, or to the moment at which one wants something of the world.
    /// Returns what time it is then; tokio counts whole milliseconds.
    pub(crate) fn advance(&self, until: u64) -> u64 {
        let shared = &self.shared;
        let until = shared.begun + Duration::from_micros(until);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = shared.wanted.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            micros(shared.begun.elapsed())
        })
    }

    /// What tasks want of the world, in the order in which they said so.
    pub(crate) fn take_work(&self) -> Vec<Work> {
        self.shared.take_work()
    }

    fn node(&mut self, id: PeerId, known: Known) -> &mut Node {
        self.nodes.entry(id).or_insert_with(|| Node {
            view: Arc::new(View::new(id, known)),
            service: None,
            client: None,
        })
    }

    /// The client of a user, made when it is first needed.
    pub(crate) fn client(
        &mut self,
        id: PeerId,
        identity: impl FnOnce() -> Identity,
        known: Known,
    ) -> Client<SimCalls> {
        let shared = self.shared.clone();
        let runtime = self.runtime.handle().clone();
        let _inside = runtime.enter();
        let node = self.node(id, known);
        let calls = SimCalls::new(node.view.clone(), shared);
        let make = || Client::new(calls, identity(), PATIENCE);
        node.client.get_or_insert_with(make).clone()
    }

    /// A peer serves from now on, with what it `held` before.
    pub(crate) fn serve(&mut self, id: PeerId, held: Option<Arc<Index>>, known: Known) {
        let shared = self.shared.clone();
        let runtime = self.runtime.handle().clone();
        let node = self.node(id, known);
        let service = node.service.get_or_insert_with(|| {
            let calls = SimCalls::new(node.view.clone(), shared);
            let index = held.unwrap_or_else(|| Arc::new(Index::in_memory(Limits::default())));
            let config = ServiceConfig {
                sweep_every: NEVER,
                ..ServiceConfig::default()
            };
            let _inside = runtime.enter();
            IndexService::start(calls, index, config)
        });
        service.stay();
    }

    /// A peer has another placement.
    pub(crate) fn placed(&self, id: PeerId, placement: &Placement) {
        let _inside = self.runtime.enter();
        if let Some(node) = self.nodes.get(&id) {
            node.view.place(placement.clone());
            if let Some(service) = &node.service {
                service.placement_changed();
            }
        }
    }

    /// A peer's wall clock was set.
    pub(crate) fn set_clock(&self, id: PeerId, clock_ms: i64) {
        if let Some(node) = self.nodes.get(&id) {
            node.view.set_clock(clock_ms);
        }
    }

    /// What a peer that serves, or has served and still holds records, holds.
    pub(crate) fn index(&self, id: PeerId) -> Option<&Arc<Index>> {
        self.service(id).map(IndexService::index)
    }

    fn service(&self, id: PeerId) -> Option<&IndexService<SimCalls>> {
        self.nodes.get(&id)?.service.as_ref()
    }

    /// What the index of a peer did since it began, and holds.
    pub(crate) fn index_stats(&self, id: PeerId) -> Option<IndexStats> {
        self.service(id).map(IndexService::stats)
    }

    /// The peer serves no more.
    pub(crate) fn retire(&mut self, id: PeerId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.service = None;
        }
    }

    /// The peer's process ends; what it held is on its disk.
    pub(crate) fn end(&mut self, id: PeerId) -> Option<Arc<Index>> {
        let node = self.nodes.remove(&id)?;
        if let Some(client) = &node.client {
            self.past = sum(self.past, client.stats());
        }
        let _inside = self.runtime.enter();
        node.service.map(|service| service.index().clone())
    }

    /// How the requests of all users fared.
    pub(crate) fn stats(&self) -> ClientStats {
        let clients = self.nodes.values().filter_map(|node| node.client.as_ref());
        clients.fold(self.past, |all, client| sum(all, client.stats()))
    }

    /// A request arrives. Answers at once where that can be; otherwise the
    /// answer is work to come. None of both: this peer does not serve.
    pub(crate) fn handle(
        &self,
        call: u64,
        from: (PeerId, NodeId),
        to: PeerId,
        request: request::Kind,
    ) -> Handled {
        let Some(service) = self.service(to) else {
            return Handled::NotServing;
        };
        let (from, node) = from;
        let _inside = self.runtime.enter();
        if let Some(response) = service.try_now(node, &request) {
            return Handled::Now(response);
        }
        let (service, shared) = (service.clone(), self.shared.clone());
        let trail = shared.trail(call);
        let task = self.runtime.spawn(async move {
            let response = followed(trail, service.handle(node, request)).await;
            shared.served(call);
            shared.want(Work::Answer {
                call,
                from: to,
                to: from,
                response,
            });
        });
        self.shared.serves(call, task.abort_handle());
        Handled::Later
    }

    /// Nobody waits for the answer to a request any more.
    pub(crate) fn cancelled(&self, call: u64) {
        self.shared.cancelled(call);
    }

    /// Brings what a peer holds to those who own it.
    pub(crate) fn hand_over(&self, id: PeerId) {
        let Some(service) = self.service(id).cloned() else {
            return;
        };
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            service.placement_changed();
            let step = service.hand_over(|_| ()).await;
            shared.want(Work::HandedOver(id, step.is_complete()));
        });
    }

    /// Begins what a user wants.
    pub(crate) fn begin(&self, wish: impl Future<Output = Done> + Send + 'static) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let done = wish.await;
            shared.want(Work::Done(done));
        });
    }

    /// The answer to a call is there.
    pub(crate) fn answered(&self, call: u64, response: response::Kind) {
        self.shared.answered(call, response);
    }

    /// Nothing can be sent to whom the call is for.
    pub(crate) fn unreachable(&self, call: u64) {
        self.shared.unreachable(call);
    }

    /// Whether `from` waits for an answer of `to`.
    pub(crate) fn waits(&self, from: PeerId, to: &NodeId) -> bool {
        self.shared.waits(from, to)
    }

    /// A session ended: what waits for an answer over it will get none.
    pub(crate) fn lost(&self, from: PeerId, to: &NodeId) {
        self.shared.lost(from, to);
    }
}

/// What became of a request.
pub(crate) enum Handled {
    Now(response::Kind),
    Later,
    NotServing,
}

fn sum(a: ClientStats, b: ClientStats) -> ClientStats {
    ClientStats {
        ok: a.ok + b.ok,
        failed: a.failed + b.failed,
        hedged: a.hedged + b.hedged,
        overtaken: a.overtaken + b.overtaken,
        retried: a.retried + b.retried,
        ..a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopy_core::placement::Member;
    use canopy_proto::wire;

    #[test]
    fn services_read_the_time_of_the_world_wherever_they_are_called() {
        let mut data = Data::new().expect("a runtime");
        let node = |n: u8| NodeId([n; 32]);
        let member = |n| Member {
            node: node(n),
            seats: 1,
            domain: "".into(),
        };
        let both = [member(1), member(2)].into_iter().collect();
        data.serve(1, None, (node(1), both, 0));
        let get = || {
            let get = wire::Get {
                key: vec![7; 32].into(),
                local: true,
                ..Default::default()
            };
            match data.handle(1, (2, node(2)), 1, request::Kind::Get(get)) {
                Handled::Now(response::Kind::Get(reply)) => reply.settling,
                _ => panic!("a local read is answered at once"),
            }
        };
        assert!(get(), "it has just come and may lack something");
        let minute = 60_000_000;
        while data.advance(minute) < minute {
            data.take_work();
        }
        assert!(!get(), "by now it has what there is");
    }
}
