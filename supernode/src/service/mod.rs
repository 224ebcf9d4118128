//! The index as the whole overlay sees it: brings records to their owners,
//! reads from enough of them, and answers for what this node holds.
//!
//! Written against [`Calls`], so it names no socket. It must never acknowledge
//! a write that fewer than two owners (or all, where there are fewer) have on
//! disk, and never answer "none" while an owner that may know was not asked.

mod ban;
mod config;
mod gather;
mod get;
mod latency;
mod local;
mod places;
mod put;
mod refuse;
mod repair;
mod search;
mod shards;
mod stats;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use canopy_core::decree::Bans;
use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::placement::{Placement, Spread};
use canopy_overlay::budget::RetryBudget;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::{request, response};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::heat::Heat;
use crate::index::Index;
use latency::Latencies;
use places::Places;
use search::Totals;
use shards::Shards;
use stats::Counters;

pub use config::ServiceConfig;
pub(crate) use refuse::of_store;
pub use repair::HandOver;
pub use shards::{Counted, ShardParts};
pub use stats::IndexStats;

/// Owners that must have a record on disk before it counts as stored.
pub const WRITE_QUORUM: usize = 2;
/// Most records of one put.
pub const MAX_PUT: usize = 4096;
/// Most records in the answer to a get.
pub const MAX_GET: usize = 256;
/// Most entries of an offer.
pub const MAX_OFFER: usize = 4096;

type Answer = Result<response::Kind, wire::Refusal>;

/// Serves the index of one peer. Clones share it.
#[derive(Debug)]
pub struct IndexService<C: Calls> {
    inner: Arc<Inner<C>>,
}

impl<C: Calls> Clone for IndexService<C> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

#[derive(Debug)]
struct Inner<C: Calls> {
    calls: C,
    index: Arc<Index>,
    config: ServiceConfig,
    places: Places,
    /// What the operator banned.
    bans: ArcSwap<Bans>,
    latencies: Latencies,
    /// Whom this node asked how often.
    spread: Spread,
    /// Pays for hedges.
    budget: RetryBudget,
    totals: Totals,
    counters: Counters,
    heat: Heat,
    shards: Shards,
    pace: repair::Pace,
    wake_repair: Arc<Notify>,
    /// This node hands over what it holds: nobody may count on it any more.
    leaving: AtomicBool,
    /// Super-nodes that have just started and may lack records.
    returned: parking_lot::Mutex<BTreeSet<NodeId>>,
    /// The background tasks; they end with the service.
    tasks: parking_lot::Mutex<Vec<AbortHandle>>,
}

impl<C: Calls> Drop for Inner<C> {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl<C: Calls> IndexService<C> {
    /// Starts the service and its background repair on the current tokio
    /// runtime. Both end when the last clone is dropped.
    pub fn start(calls: C, index: Arc<Index>, config: ServiceConfig) -> Self {
        let places = Places::new(calls.placement(), calls.node_id(), &config);
        let service = Self {
            inner: Arc::new(Inner {
                places,
                bans: ArcSwap::new(calls.bans()),
                latencies: Latencies::new(&config),
                spread: Spread::default(),
                budget: RetryBudget::default(),
                totals: Totals::default(),
                counters: Counters::default(),
                heat: Heat::default(),
                shards: Shards::default(),
                pace: repair::Pace::default(),
                wake_repair: Arc::new(Notify::new()),
                leaving: AtomicBool::new(false),
                returned: parking_lot::Mutex::default(),
                tasks: parking_lot::Mutex::default(),
                calls,
                index,
                config,
            }),
        };
        let weak = Arc::downgrade(&service.inner);
        let repair = tokio::spawn(repair::run(weak.clone())).abort_handle();
        let sweep = tokio::spawn(sweep(weak, config.sweep_every)).abort_handle();
        service.inner.tasks.lock().extend([repair, sweep]);
        service
    }

    /// What this node holds.
    pub fn index(&self) -> &Arc<Index> {
        &self.inner.index
    }

    /// To be called when the placement has changed; returns at once. Records
    /// move in the background.
    pub fn placement_changed(&self) {
        let inner = &self.inner;
        if inner.places.update(inner.calls.placement()) {
            inner.wake_repair.notify_one();
        }
    }

    /// Answers a request of peer `from`. Kinds that are not the index's are
    /// refused as malformed.
    pub async fn handle(&self, from: NodeId, kind: request::Kind) -> response::Kind {
        if let Some(answer) = self.try_now(from, &kind) {
            return answer;
        }
        let inner = &self.inner;
        let answer = match kind {
            request::Kind::Put(put) if put.local => inner.put_local(from, put).await,
            request::Kind::Put(put) => Inner::put(inner, put).await,
            request::Kind::Get(get) => Inner::get(inner, get).await,
            request::Kind::Search(search) => Inner::search(inner, search).await,
            _ => Err(refuse::malformed("this request is not the index's")),
        };
        answer.unwrap_or_else(|refusal| {
            inner.counters.refused();
            response::Kind::Refusal(refusal)
        })
    }

    /// Answers what needs no other node and no wait for the disk's writes:
    /// pings, offers, local reads, and reads that this node's own copy settles.
    /// `None`: call [`IndexService::handle`].
    pub fn try_now(&self, from: NodeId, kind: &request::Kind) -> Option<response::Kind> {
        let inner = &self.inner;
        if let Err(refusal) = inner.admits(&from) {
            return Some(response::Kind::Refusal(refusal));
        }
        let answer = match kind {
            request::Kind::Ping(ping) => Ok(response::Kind::Pong(wire::Pong {
                payload: ping.payload.clone(),
            })),
            request::Kind::Offer(offer) => inner.offered(from, offer),
            request::Kind::Get(get) if get.mailbox && !inner.may_see(&from, get) => {
                Err(refuse::not_yours())
            }
            request::Kind::Get(get) if get.local => inner.get_local(get),
            request::Kind::Get(get) if get.copy => inner.get_copy(get)?,
            request::Kind::Get(get) => inner.get_own(get)?,
            request::Kind::Search(search) if search.local => inner.search_local(search),
            request::Kind::Search(search) => inner.search_own(search)?,
            _ => return None,
        };
        Some(answer.unwrap_or_else(|refusal| {
            inner.counters.refused();
            response::Kind::Refusal(refusal)
        }))
    }

    /// This node serves, whatever it did before.
    pub fn stay(&self) {
        self.inner.leaving.store(false, Relaxed);
    }

    /// Brings every record held here to those who own it without this node:
    /// the last duty of a super-node that leaves, and of a peer that finds
    /// records in its store and is no super-node any more. Calls `progress`
    /// after each step. Records whose owners all confirmed are dropped here
    /// once this node is no super-node. From now on this node takes nothing in
    /// and confirms nothing, or two who leave at once would each rely on the
    /// other.
    pub async fn hand_over(&self, progress: impl FnMut(HandOver) + Send) -> HandOver {
        self.inner.leaving.store(true, Relaxed);
        repair::hand_over(&self.inner, progress).await
    }

    /// What is busy here.
    pub fn heat(&self) -> &Heat {
        &self.inner.heat
    }

    /// This node's part of each shard of the keyspace. Its records are counted
    /// now, unless they were a moment ago.
    pub async fn shard_parts(&self) -> ShardParts {
        Shards::parts(&self.inner).await
    }

    /// What was done since the start, and what is held.
    pub fn stats(&self) -> IndexStats {
        let inner = &self.inner;
        let mut stats = inner.counters.read();
        stats.held = inner.index.held();
        stats.settling = inner.places.settling();
        stats.utilisation_milli = inner.index.utilisation_milli();
        stats
    }
}

/// Drops what has expired, now and then.
async fn sweep<C: Calls>(service: Weak<Inner<C>>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = service.upgrade() else {
            return;
        };
        let (index, now_ms) = (Arc::clone(&inner.index), inner.calls.now_ms());
        drop(inner);
        // Clearing long lists up takes longer than a task should.
        if let Err(error) = tokio::task::spawn_blocking(move || index.sweep(now_ms)).await {
            tracing::error!(%error, "dropping expired records failed");
        }
    }
}

impl<C: Calls> Inner<C> {
    fn me(&self) -> NodeId {
        self.calls.node_id()
    }

    /// Whether `from` may read a mailbox: its own, or for another super-node.
    fn may_see(&self, from: &NodeId, get: &wire::Get) -> bool {
        match get.local {
            true => *from == self.me() || self.places.knows(from),
            false => get.key == keys::mailbox(from).0.as_slice(),
        }
    }

    /// An operation on a key was done, or a record's write decided.
    fn did(&self, key: &Key) {
        self.heat.operation(key, self.calls.now_ms());
    }

    /// Puts owners in the order in which to ask them: this node first, whose own
    /// copy costs nothing; then the one that is due; who is new, and may have
    /// nothing yet, and who failed lately last.
    fn rank(&self, placement: &Placement, owners: &mut [NodeId]) {
        owners.sort_by_key(|owner| *owner != self.me());
        let others = usize::from(owners.first() == Some(&self.me()));
        self.spread.order(placement, &mut owners[others..]);
        owners[others..].sort_by_cached_key(|owner| self.places.is_new(owner));
        self.latencies.healthy_first(owners);
    }
}
