//! The load: every living peer searches, reads and writes at a steady pace, and
//! every answer is checked against what must be there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::draw::Draw;
use super::fleet::{Fleet, Mate};
use super::publish::Published;
use crate::client::Consistency;

/// Requests a second of one peer...
const PER_PEER: f64 = 20.0;
/// ...and of all of them: one machine does their work and that of the
/// super-nodes.
const PER_FLEET: f64 = 1_000.0;
/// Requests of one peer under way at once. A peer at this bound waits, as a
/// program would.
const AT_ONCE: usize = 16;
/// The value that each peer writes again and again.
const NAME: &str = "counter";
/// Of a hundred requests so many are searches...
const SEARCHES: u32 = 60;
/// ...and so many are reads; the rest are writes.
const READS: u32 = 35;
/// Failures told one by one.
const TOLD: usize = 20;
/// Pages turned in search of an item.
const MAX_PAGES: usize = 20;

/// What came of the requests.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) ok: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) hedged: AtomicU64,
    /// The first few failures, in words.
    pub(super) reasons: Mutex<Vec<String>>,
}

impl Outcome {
    fn count(&self, who: &Mate, result: Result<bool, String>) {
        match result {
            Ok(hedged) => {
                self.ok.fetch_add(1, Relaxed);
                self.hedged.fetch_add(u64::from(hedged), Relaxed);
            }
            // It died with its peer.
            Err(_) if !who.alive() => {}
            Err(reason) => {
                self.failed.fetch_add(1, Relaxed);
                let mut reasons = self.reasons.lock();
                if reasons.len() < TOLD {
                    reasons.push(format!("#{:02}: {reason}", who.index));
                }
            }
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Load {
    fleet: Arc<Fleet>,
    items: Vec<Published>,
    /// The latest acknowledged counter of each peer.
    acknowledged: Vec<AtomicU64>,
    /// One write of a peer at a time, so that the latest is well defined.
    writing: Vec<tokio::sync::Mutex<u64>>,
    pub(super) outcome: Outcome,
}

impl Load {
    pub(super) fn new(fleet: Arc<Fleet>, items: Vec<Published>) -> Arc<Self> {
        let each = 0..fleet.mates.len();
        Arc::new(Self {
            acknowledged: each.clone().map(|_| AtomicU64::new(0)).collect(),
            writing: each.map(|_| tokio::sync::Mutex::new(0)).collect(),
            fleet,
            items,
            outcome: Outcome::default(),
        })
    }

    /// Every peer writes its value once. Returns how many could not.
    pub(super) async fn seed(&self) -> usize {
        let writes = self.fleet.alive().map(|mate| self.write(mate));
        let results = join_all(writes).await;
        results.iter().filter(|result| result.is_err()).count()
    }

    /// All peers at work until `until`; returns when the last answer is in.
    pub(super) async fn run(self: &Arc<Self>, draw: Draw, until: Instant) {
        let peers = self.fleet.alive().count().max(1);
        let rate = PER_PEER.min(PER_FLEET / peers as f64);
        let mut tasks = JoinSet::new();
        for index in self.fleet.alive().map(|mate| mate.index) {
            let random = draw.stream("load", index);
            tasks.spawn(self.clone().peer(index, rate, random, until));
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn peer(self: Arc<Self>, index: usize, rate: f64, mut random: StdRng, until: Instant) {
        let pace = Duration::from_secs_f64(1.0 / rate);
        // Not all in step.
        let mut ticks =
            tokio::time::interval_at(Instant::now() + pace.mul_f64(random.random()), pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        while Instant::now() < until && self.fleet.mates[index].alive() {
            ticks.tick().await;
            let Ok(permit) = room.clone().acquire_owned().await else {
                break;
            };
            let (kind, which) = (random.random_range(0..100), random.random::<u64>());
            let load = self.clone();
            under_way.spawn(async move {
                load.request(index, kind, which).await;
                drop(permit);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn request(&self, index: usize, kind: u32, which: u64) {
        let mate = &self.fleet.mates[index];
        let result = match kind {
            kind if kind < SEARCHES && !self.items.is_empty() => {
                let item = &self.items[which as usize % self.items.len()];
                find(&self.fleet, mate, item).await
            }
            kind if kind < SEARCHES + READS => {
                self.read(mate, which as usize % self.fleet.mates.len())
                    .await
            }
            _ => self.write(mate).await,
        };
        self.outcome.count(mate, result);
    }

    async fn write(&self, mate: &Mate) -> Result<bool, String> {
        let mut count = self.writing[mate.index].lock().await;
        *count += 1;
        let stored = mate.leaf.put(NAME, count.to_string()).await;
        let stored = stored.map_err(|error| format!("write: {error}"))?;
        self.acknowledged[mate.index].store(*count, SeqCst);
        Ok(stored.hedged)
    }

    /// Reads another peer's counter: at least what was acknowledged before.
    async fn read(&self, mate: &Mate, of: usize) -> Result<bool, String> {
        let least = self.acknowledged[of].load(SeqCst);
        let publisher = self.fleet.mates[of].id();
        let client = mate.leaf.client();
        let value = client.get(publisher, NAME, Consistency::Quorum).await;
        let value = value.map_err(|error| format!("read: {error}"))?;
        let Some(value) = value else {
            return match least {
                0 => Ok(false),
                least => Err(format!(
                    "read of #{of:02}: nothing, {least} was acknowledged"
                )),
            };
        };
        let text = String::from_utf8_lossy(&value.data);
        match text.parse::<u64>() {
            Ok(found) if found >= least => Ok(value.hedged),
            _ => Err(format!(
                "read of #{of:02}: {text}, {least} was acknowledged"
            )),
        }
    }
}

/// Searches for an item by the words of its name, page by page. Returns
/// whether a second super-node was asked.
pub(super) async fn find(fleet: &Fleet, mate: &Mate, item: &Published) -> Result<bool, String> {
    let publisher = fleet.mates[item.publisher].id();
    let mut query = Some(item.query.clone());
    let (mut hedged, mut total) = (false, 0);
    for _ in 0..MAX_PAGES {
        let Some(now) = query else { break };
        let page = mate.leaf.search(&now).await;
        let page = page.map_err(|error| format!("search: {error}"))?;
        hedged |= page.hedged;
        total = page.total;
        let mut hits = page.hits.iter();
        if hits.any(|hit| hit.publisher == publisher && hit.item.name == item.name) {
            return Ok(hedged);
        }
        query = page.next;
    }
    Err(format!(
        "search: {} is not among {total} that match",
        item.name
    ))
}
