//! How fast each owner answers: when to ask a second one, and whom first.

use std::collections::HashMap;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ServiceConfig;

/// Peers remembered; past it all are forgotten and learned again.
const MAX_PEERS: usize = 20_000;
/// A peer that failed is asked last for this long, doubling with each failure...
const SHUN: Duration = Duration::from_secs(5);
/// ...up to this.
const SHUN_MAX: Duration = Duration::from_secs(120);
/// So many hedges in a row that overtook a silent peer count as a failure.
const SILENT: u32 = 3;
const SHARDS: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Running estimate of the 95th percentile, microseconds.
    p95: f64,
    /// When it failed last, and how often in a row.
    failed: Option<Instant>,
    failures: u32,
    overtaken: u32,
}

impl Peer {
    fn fail(&mut self) {
        self.failed = Some(Instant::now());
        self.failures = self.failures.saturating_add(1);
        self.overtaken = 0;
    }

    fn shunned(&self) -> bool {
        let times = 1 << self.failures.saturating_sub(1).min(16);
        let shun = SHUN.saturating_mul(times).min(SHUN_MAX);
        self.failed.is_some_and(|at| at.elapsed() < shun)
    }
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
            (known.failed, known.failures, known.overtaken) = (None, 0, 0);
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
        self.update(peer, Peer::fail);
    }

    /// Notes that a hedge settled the matter while a peer was silent: one that
    /// never answers would be waited for each time.
    pub(super) fn overtaken(&self, peer: NodeId) {
        self.update(peer, |known| {
            known.overtaken += 1;
            if known.overtaken >= SILENT {
                known.fail();
            }
        });
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
            self.shard(peer).lock().get(peer).is_some_and(Peer::shunned)
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
            failures: 0,
            overtaken: 0,
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

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_always_overtaken_is_asked_last_for_longer_each_time() {
        let latencies = Latencies::new(&ServiceConfig::default());
        let first = |latencies: &Latencies| {
            let mut peers = [PEER, NodeId([2; 32])];
            latencies.healthy_first(&mut peers);
            peers[0] == PEER
        };
        for times in [1, 2, 4] {
            for _ in 0..SILENT {
                assert!(first(&latencies));
                latencies.overtaken(PEER);
            }
            tokio::time::advance(SHUN * times - Duration::from_millis(1)).await;
            assert!(!first(&latencies), "{times}");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        // An answer in between, and it counts from the beginning.
        latencies.overtaken(PEER);
        latencies.answered(PEER, Duration::from_millis(1));
        (1..SILENT).for_each(|_| latencies.overtaken(PEER));
        assert!(first(&latencies));
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
