//! This node's part of each shard of the keyspace: what it holds, counted when
//! somebody asks and not more often than it may cost, and what its last
//! comparison with the other owners left open.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use canopy_core::keyspace::Key;
use canopy_overlay::calls::Calls;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Inner;
use crate::heat::{SHARDS, ShardRates};
use crate::index::Tally;

/// A count is good for so long...
const KEPT: Duration = Duration::from_secs(1);
/// ...and for so many times as long as it took, so that counting takes no more
/// than a fiftieth of one processor, however much is held.
const REST: u32 = 50;
/// Longest wait for a count; then the one before has to do.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is held, and when that was counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// By shard.
    pub tally: Tally,
    /// When.
    pub at: Instant,
    /// It could still lack records then, of ranges that it newly owned.
    pub settling: bool,
    /// By shard, records of which some owner had not confirmed its copy when they
    /// compared last before that.
    pub unconfirmed: [u32; SHARDS],
    /// How long it is good.
    keep: Duration,
}

impl Counted {
    fn is_good(&self) -> bool {
        self.at.elapsed() < self.keep
    }
}

/// This node's part of each shard.
#[derive(Clone, Debug)]
pub struct ShardParts {
    /// What it holds; `None`: it has not counted yet, ask again.
    pub held: Option<Arc<Counted>>,
    /// What it did, since it took its role up.
    pub done: ShardRates,
}

/// Counts by shard that were made for somebody.
#[derive(Debug)]
pub(super) struct Shards {
    counted: watch::Sender<Option<Arc<Counted>>>,
    counting: Mutex<bool>,
    unconfirmed: [AtomicU32; SHARDS],
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            counted: watch::Sender::new(None),
            counting: Mutex::new(false),
            unconfirmed: [const { AtomicU32::new(0) }; SHARDS],
        }
    }
}

impl Shards {
    /// Owners were compared; so many records of each shard are left.
    pub(super) fn compared(&self, left: &[u32; SHARDS]) {
        for (shard, left) in self.unconfirmed.iter().zip(left) {
            shard.store(*left, Relaxed);
        }
    }

    pub(super) async fn parts<C: Calls>(inner: &Arc<Inner<C>>) -> ShardParts {
        let shards = &inner.shards;
        let mut counted = shards.counted.subscribe();
        let good = |counted: &Option<Arc<Counted>>| counted.as_ref().is_some_and(|c| c.is_good());
        if !good(&counted.borrow()) {
            if !std::mem::replace(&mut *shards.counting.lock(), true) {
                tokio::spawn(count(Arc::downgrade(inner)));
            }
            // What is there already has to do then.
            let _ = timeout(PATIENCE, counted.wait_for(good)).await;
        }
        ShardParts {
            held: counted.borrow().clone(),
            done: inner.heat.shards(),
        }
    }
}

async fn count<C: Calls>(service: Weak<Inner<C>>) {
    let Some(inner) = service.upgrade() else {
        return;
    };
    let (index, now_ms) = (Arc::clone(&inner.index), inner.calls.now_ms());
    let (placement, me) = (inner.calls.placement(), inner.me());
    // What is lacking now must not be said to be complete by what comes meanwhile.
    let settling = inner.places.settling();
    let unconfirmed = std::array::from_fn(|shard| inner.shards.unconfirmed[shard].load(Relaxed));
    drop(inner);
    let at = Instant::now();
    let owned = move |key: &Key| {
        let owners = placement.owner_set(key);
        let place = owners.iter().position(|owner| *owner == me)?;
        Some(place == 0)
    };
    let tally = tokio::task::spawn_blocking(move || index.tally(now_ms, owned)).await;
    let Some(inner) = service.upgrade() else {
        return;
    };
    *inner.shards.counting.lock() = false;
    match tally {
        Ok(tally) => {
            let keep = KEPT.max(at.elapsed() * REST);
            let counted = Counted {
                tally,
                at,
                settling,
                unconfirmed,
                keep,
            };
            inner.shards.counted.send_replace(Some(Arc::new(counted)));
        }
        Err(error) => tracing::error!(%error, "counting what is held failed"),
    }
}
