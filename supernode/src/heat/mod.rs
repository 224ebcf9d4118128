//! What is busy at this node: operations by shard of the keyspace, and the keys,
//! terms and publishers that gave most work of late.
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
//! | `word` | a term in a fixed room |

mod shards;
mod sketch;
mod stripes;
#[cfg(test)]
mod tests;
mod word;

use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use tokio::time::Instant;

pub use shards::{SHARDS, ShardRates, shard_of};
pub use stripes::{Heavy, Top};
pub use word::Word;

use shards::Operations;
use stripes::Stripes;

/// Counts of what is hot halve in this time: long enough that a hundred
/// operations tell one key from another, short enough that "hot" means now.
pub const HALF_LIFE: Duration = Duration::from_secs(15);

/// A kind of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Operations on a key of the index.
    Key,
    /// Searches answered under a word.
    Term,
    /// Records that a peer had written.
    Publisher,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 3] = [Kind::Key, Kind::Term, Kind::Publisher];

    /// Its name in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::Term => "term",
            Kind::Publisher => "publisher",
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
