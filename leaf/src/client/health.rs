//! What the client remembers of each super-node: how fast it answers, and
//! whether it lately did not.
//!
//! Estimates steer the order of attempts and the moment of a hedge, nothing
//! else; a wrong one costs time, never an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

/// Buckets of a [`Latencies`]: four to an octave from 64 us to 4 s.
const BUCKETS: usize = 64;
/// Past this many samples all counts are halved, so that old ones fade.
const WINDOW: u32 = 256;
/// Fewer samples than this have no 95th percentile.
const MIN_SAMPLES: u32 = 16;
/// Hedge after this while nothing is known: most answers on the open internet
/// are there by then.
const UNKNOWN: Duration = Duration::from_millis(300);
/// Hedging earlier would double the load of a healthy overlay.
const HEDGE_MIN: Duration = Duration::from_millis(5);
/// Waiting longer would make one dead peer felt by every request.
pub(super) const HEDGE_MAX: Duration = Duration::from_secs(1);
/// A peer that failed goes last for this long, doubling with each failure...
const PENALTY: Duration = Duration::from_millis(500);
/// ...up to this.
const PENALTY_MAX: Duration = Duration::from_secs(30);
/// A peer that was asked and said nothing goes last for this long, doubling as
/// well: what refuses costs a round trip, what is silent the wait for a hedge.
const SILENCE: Duration = Duration::from_secs(10);
/// ...up to this.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// A peer that may lack records goes last among those asked for copies, this long.
const UNSURE: Duration = Duration::from_secs(10);
/// So many hedges in a row that overtook a silent peer count as a failure.
const SILENT: u32 = 3;
/// Most peers remembered; past it those no longer serving are forgotten.
const MAX_PEERS: usize = 4096;

/// What kind of work a request is; each has latencies of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// One record read from memory or disk.
    Read,
    /// A search.
    Search,
    /// A few records made durable by a quorum.
    Write,
    /// A batch of records made durable.
    Bulk,
}

const CLASSES: usize = 4;

/// A fading histogram of latencies, four buckets to an octave: an estimate is
/// at most a fifth too high.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: [AtomicU32; BUCKETS],
    total: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            total: AtomicU32::new(0),
        }
    }
}

impl Latencies {
    /// Adds one answer's latency.
    pub(super) fn record(&self, latency: Duration) {
        self.counts[bucket(latency)].fetch_add(1, Relaxed);
        if self.total.fetch_add(1, Relaxed) + 1 >= WINDOW {
            // Two threads may halve at once: then the past fades faster.
            let mut kept = 0;
            for count in &self.counts {
                let half = count.load(Relaxed) / 2;
                count.store(half, Relaxed);
                kept += half;
            }
            self.total.store(kept, Relaxed);
        }
    }

    /// The latency that 95 of 100 recent answers kept under; of a few answers,
    /// twice the slowest.
    pub(super) fn p95(&self) -> Option<Duration> {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        let total: u32 = counts.iter().sum();
        if total < MIN_SAMPLES {
            let slowest = counts.iter().rposition(|count| *count > 0)?;
            return Some(upper_bound(slowest) * 2);
        }
        let mut above = total / 20;
        for (index, count) in counts.iter().enumerate().rev() {
            if *count > above {
                return Some(upper_bound(index));
            }
            above -= count;
        }
        None
    }
}

/// The bucket of a latency: octave above 64 us times four, plus the quarter.
fn bucket(latency: Duration) -> usize {
    let units = u64::try_from(latency.as_micros() / 16)
        .unwrap_or(u64::MAX)
        .max(4);
    let octave = units.ilog2();
    let quarter = (units >> (octave - 2)) & 3;
    (((octave - 2) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The longest latency that falls into bucket `index`.
fn upper_bound(index: usize) -> Duration {
    let (octave, quarter) = (index / 4, index as u64 % 4);
    Duration::from_micros(((4 + quarter + 1) << octave) * 16)
}

/// One super-node, as this client experienced it.
#[derive(Debug, Default)]
pub(super) struct PeerHealth {
    latencies: [Latencies; CLASSES],
    /// Milliseconds after the table's epoch until which the peer goes last.
    penalised_until: AtomicU64,
    /// The same of a peer that may lack records.
    unsure_until: AtomicU64,
    failures: AtomicU32,
    overtaken: AtomicU32,
}

/// All super-nodes that were asked.
#[derive(Debug)]
pub(super) struct Health {
    peers: RwLock<HashMap<NodeId, Arc<PeerHealth>>>,
    all: [Latencies; CLASSES],
    /// Of reads that asked several owners at once, until they were settled.
    copies: Latencies,
    /// Who said last that it may lack records...
    unsure: Mutex<Option<NodeId>>,
    /// ...and until when many may, milliseconds after the epoch.
    many_unsure_until: AtomicU64,
    epoch: Instant,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            peers: RwLock::default(),
            all: Default::default(),
            copies: Latencies::default(),
            unsure: Mutex::default(),
            many_unsure_until: AtomicU64::default(),
            epoch: Instant::now(),
        }
    }

    fn peer(&self, node: &NodeId) -> Arc<PeerHealth> {
        if let Some(peer) = self.peers.read().get(node) {
            return peer.clone();
        }
        let mut peers = self.peers.write();
        if peers.len() >= MAX_PEERS {
            // What is forgotten is learnt again within a few answers.
            peers.clear();
        }
        peers.entry(*node).or_default().clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The peer answered: it is well.
    pub(super) fn answered(&self, node: &NodeId, class: Class, latency: Duration) {
        let peer = self.peer(node);
        peer.latencies[class as usize].record(latency);
        self.all[class as usize].record(latency);
        peer.failures.store(0, Relaxed);
        peer.overtaken.store(0, Relaxed);
        peer.penalised_until.store(0, Relaxed);
    }

    /// The peer failed, refused work or answered nonsense: it goes last for a
    /// while, longer each time.
    pub(super) fn failed(&self, node: &NodeId) {
        self.penalise(node, PENALTY, PENALTY_MAX);
    }

    /// The peer said nothing in time: it goes last for longer.
    pub(super) fn silent(&self, node: &NodeId) {
        self.penalise(node, SILENCE, SILENCE_MAX);
    }

    fn penalise(&self, node: &NodeId, first: Duration, longest: Duration) {
        let peer = self.peer(node);
        let failures = peer.failures.fetch_add(1, Relaxed).min(16);
        let penalty = first.saturating_mul(1 << failures).min(longest);
        let until = self.now_ms().saturating_add(penalty.as_millis() as u64);
        peer.penalised_until.fetch_max(until, Relaxed);
    }

    /// A hedge answered while the peer stayed silent.
    pub(super) fn overtaken(&self, node: &NodeId) {
        if self.peer(node).overtaken.fetch_add(1, Relaxed) + 1 >= SILENT {
            self.peer(node).overtaken.store(0, Relaxed);
            self.silent(node);
        }
    }

    /// Whether the peer goes last at present.
    pub(super) fn penalised(&self, node: &NodeId) -> bool {
        self.holds(node, |peer| &peer.penalised_until)
    }

    /// The peer is well, but may lack records of ranges that it took over.
    pub(super) fn unsure(&self, node: &NodeId) {
        let until = self.now_ms().saturating_add(UNSURE.as_millis() as u64);
        self.peer(node).unsure_until.store(until, Relaxed);
        let before = self.unsure.lock().replace(*node);
        if before.is_some_and(|other| other != *node && self.is_unsure(&other)) {
            self.many_unsure_until.store(until, Relaxed);
        }
    }

    /// Whether several said so lately: somebody is lost, and most took over ranges.
    pub(super) fn many_unsure(&self) -> bool {
        self.many_unsure_until.load(Relaxed) > self.now_ms()
    }

    /// Whether the peer said so lately.
    pub(super) fn is_unsure(&self, node: &NodeId) -> bool {
        self.holds(node, |peer| &peer.unsure_until)
    }

    fn holds(&self, node: &NodeId, until: impl Fn(&PeerHealth) -> &AtomicU64) -> bool {
        let now = self.now_ms();
        let peers = self.peers.read();
        let peer = peers.get(node);
        peer.is_some_and(|peer| until(peer).load(Relaxed) > now)
    }

    /// A read that asked several owners at once was settled by their copies.
    pub(super) fn copied(&self, took: Duration) {
        self.copies.record(took);
    }

    /// How long to wait for the first two of them before another one is asked: each
    /// on its own would be slower than most every twentieth time.
    pub(super) fn hedge_copies_after(&self) -> Duration {
        let known = self.copies.p95();
        known.unwrap_or(UNKNOWN).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    /// How long to wait for the peer before another is asked as well: to its own
    /// 95th percentile, or that of all if it is slower than others.
    pub(super) fn hedge_after(&self, node: &NodeId, class: Class) -> Duration {
        let of_peer = self
            .peers
            .read()
            .get(node)
            .and_then(|peer| peer.latencies[class as usize].p95());
        let of_all = self.all[class as usize].p95();
        let known = match (of_peer, of_all) {
            (Some(peer), Some(all)) => Some(peer.min(all)),
            (peer, all) => peer.or(all),
        };
        match class {
            // A batch's latency follows its size; its p95 says little.
            Class::Bulk => HEDGE_MAX,
            _ => known.unwrap_or(UNKNOWN).clamp(HEDGE_MIN, HEDGE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_latency_with_at_most_a_quarter_to_spare() {
        for us in [64, 65, 100, 127, 128, 1_000, 5_000, 99_999, 1_000_000] {
            let latency = Duration::from_micros(us);
            let bound = upper_bound(bucket(latency));
            assert!(bound >= latency, "{us} us is over {bound:?}");
            assert!(
                bound <= latency.mul_f64(1.27) + Duration::from_micros(16),
                "{us} {bound:?}"
            );
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_estimate_follows_the_slow_twentieth_and_forgets() {
        let latencies = Latencies::default();
        assert_eq!(latencies.p95(), None);
        for i in 0..100 {
            let ms = if i % 10 == 0 { 200 } else { 2 };
            latencies.record(Duration::from_millis(ms));
        }
        assert!(latencies.p95().unwrap() >= Duration::from_millis(200));
        for _ in 0..2_000 {
            latencies.record(Duration::from_millis(2));
        }
        assert!(latencies.p95().unwrap() < Duration::from_millis(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_peer_goes_last_until_it_answers_or_time_passes() {
        let health = Health::new();
        let node = NodeId([1; 32]);
        health.failed(&node);
        assert!(health.penalised(&node));
        health.answered(&node, Class::Read, Duration::from_millis(1));
        assert!(!health.penalised(&node));
        health.failed(&node);
        tokio::time::advance(PENALTY * 2).await;
        assert!(!health.penalised(&node));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_remembered_for_longer_than_a_refusal() {
        let (health, node) = (Health::new(), NodeId([1; 32]));
        for _ in 0..SILENT {
            assert!(!health.penalised(&node));
            health.overtaken(&node);
        }
        tokio::time::advance(SILENCE / 2).await;
        assert!(health.penalised(&node));
        tokio::time::advance(SILENCE).await;
        assert!(!health.penalised(&node));
        (0..20).for_each(|_| health.silent(&node));
        tokio::time::advance(SILENCE_MAX).await;
        assert!(!health.penalised(&node), "never for good");
    }
}
