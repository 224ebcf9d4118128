//! How fast each owner answers: when to ask a second one, and whom first.

use std::collections::HashMap;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ServiceConfig;

/// Peers remembered; past it all are forgotten and learned again.
const MAX_PEERS: usize = 20_000;
/// A peer that failed is asked last for this long.
const SHUN: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Running estimate of the 95th percentile, microseconds.
    p95: f64,
    failed: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Latencies {
    peers: [Mutex<HashMap<NodeId, Peer>>; SHARDS],
    min: Duration,
    max: Duration,
}

impl Latencies {
    pub(super) fn new(config: &ServiceConfig) -> Self {
        Self {
            peers: Default::default(),
            min: config.hedge_min,
            max: config.hedge_max.max(config.hedge_min),
        }
    }

    /// Notes an answer that took `took`.
    pub(super) fn answered(&self, peer: NodeId, took: Duration) {
        let took = took.as_micros() as f64;
        self.update(peer, |known| {
            known.failed = None;
            // Steps up are 19 times steps down, so that the estimate rests where
            // one answer in twenty is slower.
            let step = known.p95.max(100.0) * 0.2;
            match took > known.p95 {
                true => known.p95 = (known.p95 + step * 0.95).min(took),
                false => known.p95 = (known.p95 - step * 0.05).max(took),
            }
        });
    }

    /// Notes that a peer did not answer.
    pub(super) fn failed(&self, peer: NodeId) {
        self.update(peer, |known| known.failed = Some(Instant::now()));
    }

    /// How long to wait for `peer` before another owner is asked as well.
    pub(super) fn hedge_after(&self, peer: &NodeId) -> Duration {
        let known = self.shard(peer).lock().get(peer).map(|known| known.p95);
        let p95 = known.map_or(self.max, |p95| Duration::from_micros(p95 as u64));
        p95.clamp(self.min, self.max)
    }

    /// Puts peers that failed lately behind the others.
    pub(super) fn healthy_first(&self, peers: &mut [NodeId]) {
        peers.sort_by_cached_key(|peer| {
            let failed = self
                .shard(peer)
                .lock()
                .get(peer)
                .and_then(|known| known.failed);
            failed.is_some_and(|at| at.elapsed() < SHUN)
        });
    }

    fn update(&self, peer: NodeId, change: impl FnOnce(&mut Peer)) {
        let mut peers = self.shard(&peer).lock();
        if peers.len() > MAX_PEERS / SHARDS {
            peers.clear();
        }
        change(peers.entry(peer).or_insert(Peer {
            p95: self.max.as_micros() as f64,
            failed: None,
        }));
    }

    fn shard(&self, peer: &NodeId) -> &Mutex<HashMap<NodeId, Peer>> {
        &self.peers[usize::from(peer.0[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([1; 32]);

    #[test]
    fn the_estimate_finds_the_95th_percentile() {
        let latencies = Latencies::new(&ServiceConfig::default());
        // 1 to 100 ms in an order that repeats only after 100 answers.
        for i in 0..20_000u64 {
            latencies.answered(PEER, Duration::from_millis(i * 37 % 100 + 1));
        }
        let hedge = latencies.hedge_after(&PEER).as_millis();
        assert!((80..=100).contains(&hedge), "{hedge}");
    }

    #[test]
    fn peers_that_failed_are_asked_last() {
        let latencies = Latencies::new(&ServiceConfig::default());
        latencies.failed(PEER);
        let other = NodeId([2; 32]);
        let mut peers = [PEER, other];
        latencies.healthy_first(&mut peers);
        assert_eq!(peers, [other, PEER]);
        latencies.answered(PEER, Duration::from_millis(1));
        let mut peers = [PEER, other];
        latencies.healthy_first(&mut peers);
        assert_eq!(peers, [PEER, other]);
    }
}
