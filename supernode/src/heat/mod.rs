//! What is busy at this node: operations by shard of the keyspace, and the keys,
//! terms, publishers and topics that gave most work of late.
//!
//! It is told of every operation, so it allocates nothing for one and waits for
//! nobody else's: shards are counters in a fixed array, and every thread has a
//! sketch of its own. It must never decide anything: it is for operators.
//!
//! | file | idea |
//! |---|---|
//! | `shards` | operations by shard, and how many a second |
//! | `sketch` | the heaviest of a stream, in a fixed room |
//! | `stripes` | a sketch for each thread, read as one |
//! | `topics` | the same for topics |
//! | `word` | a word or a name in a fixed room |

mod shards;
mod sketch;
mod stripes;
#[cfg(test)]
mod tests;
mod topics;
mod word;

use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use tokio::time::Instant;

pub use shards::{SHARDS, ShardRates, shard_of};
pub use stripes::{Heavy, Top};
pub use topics::TopicHeat;
pub use word::{TopicName, Word};

use shards::Operations;
use stripes::Stripes;

/// Counts of what is hot halve in this time: long enough that a hundred
/// operations tell one key from another, short enough that "hot" means now.
pub const HALF_LIFE: Duration = Duration::from_secs(15);

/// What is left of a count after this time.
pub fn faded(passed: Duration) -> f64 {
    (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// A kind of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Operations on a key of the index.
    Key,
    /// Searches answered under a word.
    Term,
    /// Records that a peer had written.
    Publisher,
    /// Posts of a topic that were taken from who posted them or by a leaf.
    Topic,
    /// Bytes that were relayed between two leaves.
    Flow,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 5] = [
        Kind::Key,
        Kind::Term,
        Kind::Publisher,
        Kind::Topic,
        Kind::Flow,
    ];

    /// Its name in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::Term => "term",
            Kind::Publisher => "publisher",
            Kind::Topic => "topic",
            Kind::Flow => "flow",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Counts what this node does.
#[derive(Debug, Default)]
pub struct Heat {
    operations: Operations,
    keys: Stripes<[u8; 32]>,
    terms: Stripes<Word>,
    publishers: Stripes<[u8; 32]>,
}

impl Heat {
    /// An operation on `key`.
    pub fn operation(&self, key: &Key, now_ms: u64) {
        self.operations.one(key);
        self.keys.one(key.0, now_ms);
    }

    /// A search was answered under `word`.
    pub fn search(&self, word: Word, now_ms: u64) {
        self.terms.one(word, now_ms);
    }

    /// A record of `publisher` was brought to its owners.
    pub fn wrote(&self, publisher: &NodeId, now_ms: u64) {
        self.publishers.one(publisher.0, now_ms);
    }

    /// To be called about once a second: rates are of what was done since.
    pub fn tick(&self, now: Instant) {
        self.operations.tick(now);
    }

    /// Operations by shard.
    pub fn shards(&self) -> ShardRates {
        self.operations.read()
    }

    /// The keys with most operations, at most `limit`.
    pub fn keys(&self, now_ms: u64, limit: usize) -> Top<[u8; 32]> {
        self.keys.top(now_ms, limit)
    }

    /// The words searched for most, at most `limit`.
    pub fn terms(&self, now_ms: u64, limit: usize) -> Top<Word> {
        self.terms.top(now_ms, limit)
    }

    /// The publishers that wrote most, at most `limit`.
    pub fn publishers(&self, now_ms: u64, limit: usize) -> Top<[u8; 32]> {
        self.publishers.top(now_ms, limit)
    }
}
