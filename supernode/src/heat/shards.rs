//! Operations by shard. A shard is a 256th of the keyspace: the keys of the same
//! first 8 bits. Owners are found key by key, so the cut decides nothing; it is
//! fine enough to show a busy region and coarse enough to be told in one answer,
//! the same for every peer and after every change of who serves.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use canopy_core::keyspace::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::HALF_LIFE;

/// Shards of the keyspace.
pub const SHARDS: usize = 256;

/// The shard that `key` lies in.
pub fn shard_of(key: &Key) -> usize {
    usize::from(key.0[0])
}

/// Operations by shard at a moment.
#[derive(Clone, Debug)]
pub struct ShardRates {
    /// Since the start.
    pub operations: [u64; SHARDS],
    /// A second, of late.
    pub per_s: [f64; SHARDS],
}

/// Counts operations by shard.
#[derive(Debug)]
pub(super) struct Operations {
    done: [AtomicU64; SHARDS],
    rates: Mutex<Rates>,
}

#[derive(Debug)]
struct Rates {
    /// When `before` was read.
    at: Option<Instant>,
    before: [u64; SHARDS],
    per_s: [f64; SHARDS],
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            done: [const { AtomicU64::new(0) }; SHARDS],
            rates: Mutex::new(Rates {
                at: None,
                before: [0; SHARDS],
                per_s: [0.0; SHARDS],
            }),
        }
    }
}

impl Operations {
    pub(super) fn one(&self, key: &Key) {
        self.done[shard_of(key)].fetch_add(1, Relaxed);
    }

    /// Moves each rate towards what was done since the last tick: the older, the
    /// less it counts, half for each [`HALF_LIFE`].
    pub(super) fn tick(&self, now: Instant) {
        let mut rates = self.rates.lock();
        let at = rates.at.replace(now);
        let passed = at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let kept = (-passed / HALF_LIFE.as_secs_f64()).exp2();
        for (shard, done) in self.done.iter().enumerate() {
            let done = done.load(Relaxed);
            let more = done - std::mem::replace(&mut rates.before[shard], done);
            if passed > 0.0 {
                let now = more as f64 / passed;
                rates.per_s[shard] = now + (rates.per_s[shard] - now) * kept;
            }
        }
    }

    pub(super) fn read(&self) -> ShardRates {
        ShardRates {
            operations: std::array::from_fn(|shard| self.done[shard].load(Relaxed)),
            per_s: self.rates.lock().per_s,
        }
    }
}
