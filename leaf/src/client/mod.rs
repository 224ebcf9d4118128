//! The data plane of a leaf: signed writes, checked reads, search.
//!
//! | module | what it does |
//! |---|---|
//! | `ask` | finds an answer among super-nodes: attempts, hedges, back-off |
//! | `copies` | reads that ask the owners themselves, where they are known |
//! | `health` | remembers how fast and how well each super-node answers |
//! | `draft` | records before they are signed |
//! | `write` | signs records and stores them, singly or in batches |
//! | `read` | reads and searches, and checks whatever comes back |
//! | `publications`, `refresh` | what is kept published, and refreshed before it ends |
//! | `locate` | where a peer is found |
//! | `send`, `seal` | messages to one peer, sealed end to end |
//! | `letters` | messages kept for peers that are not there |
//! | `query`, `item` | what people search for, and what they find |
//!
//! Nothing here decides who serves: it reads the placement snapshot anew for
//! every round. Nothing that a super-node answers is believed unchecked.

mod ask;
mod checked;
mod copies;
mod draft;
mod error;
mod health;
mod item;
mod letters;
mod locate;
pub(crate) mod publications;
mod query;
mod read;
mod refresh;
mod seal;
mod send;
mod stats;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use canopy_core::clock::Clocks;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_core::placement::Spread;
use canopy_core::time::Now;
use canopy_overlay::budget::RetryBudget;
use canopy_overlay::calls::Calls;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use blake3::Hash;
pub use draft::{PROVIDER_TTL, VALUE_TTL};
pub use error::Error;
pub(crate) use error::is_verdict;
pub use item::{Hit, Item, Page};
pub use letters::LETTER_TTL;
pub use locate::{Located, Location};
use publications::Publications;

pub use publications::MAX_PUBLICATIONS;
pub use query::{
    DEFAULT_LIMIT, MAX_FILTER, MAX_FILTERS, MAX_LIMIT, MAX_QUERY, MAX_QUERY_TERMS, Query,
    QueryError,
};
pub use read::{Consistency, Provider, Value};
#[cfg(test)]
pub(crate) use seal::seal;
pub(crate) use seal::unseal;
pub use send::{MAX_MESSAGE, SendError, Sent};
pub use stats::ClientStats;
pub use write::Stored;

/// How long a request may take where nothing else is set.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes, reads and searches on behalf of one identity. Cheap to clone.
///
/// Every future is `Send` and cancel-safe: dropped, it sends nothing more. A
/// write that was dropped may or may not have been stored; doing it again is
/// harmless.
pub struct Client<C> {
    inner: Arc<Inner<C>>,
}

impl<C> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<C> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.inner.identity)
    }
}

struct Inner<C> {
    calls: C,
    identity: Identity,
    timeout: Duration,
    /// When it was made: the epoch of its monotonic clock.
    begun: Instant,
    /// What super-nodes' clocks show.
    clocks: Mutex<Clocks>,
    /// The sequence given last; the next one is higher.
    sequence: AtomicU64,
    /// Numbers the pauses, from a start that no other client has.
    pauses: AtomicU64,
    health: health::Health,
    /// Whom this client asked how often.
    spread: Spread,
    /// Pays for hedges and retries.
    budget: RetryBudget,
    /// Whether this client knows the owners.
    aim: copies::Aim,
    counters: stats::Counters,
    checked: checked::Checked,
    /// Where others were found lately.
    whereabouts: send::Whereabouts,
    /// What is kept published. Absent: nothing is.
    publications: Option<Publications>,
    /// Refreshes them.
    refresher: OnceLock<AbortHandle>,
}

impl<C> Drop for Inner<C> {
    fn drop(&mut self) {
        if let Some(refresher) = self.refresher.get() {
            refresher.abort();
        }
    }
}

impl<C: Calls> Client<C> {
    /// A client that asks through `calls`, signs with `identity` and gives up
    /// after `timeout`. It keeps nothing published: what it writes ends with its
    /// lifetime.
    pub fn new(calls: C, identity: Identity, timeout: Duration) -> Self {
        Self::make(calls, identity, timeout, None)
    }

    /// The same, and keeps published what is in the list, and what is written
    /// without a lifetime. Call within a tokio runtime.
    pub(crate) fn keeping(
        calls: C,
        identity: Identity,
        timeout: Duration,
        publications: Publications,
    ) -> Self {
        let client = Self::make(calls, identity, timeout, Some(publications));
        let refresh = refresh::run(Arc::downgrade(&client.inner));
        let refresher = tokio::spawn(refresh).abort_handle();
        client.inner.refresher.get_or_init(|| refresher);
        client
    }

    fn make(
        calls: C,
        identity: Identity,
        timeout: Duration,
        publications: Option<Publications>,
    ) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = identity.node_id().0;
        Self {
            inner: Arc::new(Inner {
                calls,
                pauses: AtomicU64::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
                identity,
                timeout,
                begun: Instant::now(),
                clocks: Mutex::default(),
                sequence: AtomicU64::new(0),
                health: health::Health::new(),
                spread: Spread::default(),
                budget: RetryBudget::default(),
                aim: copies::Aim::default(),
                counters: stats::Counters::default(),
                checked: checked::Checked::default(),
                whereabouts: send::Whereabouts::default(),
                publications,
                refresher: OnceLock::new(),
            }),
        }
    }

    /// Who publishes what this client writes.
    pub fn node_id(&self) -> NodeId {
        self.inner.identity.node_id()
    }

    /// How the requests fared so far.
    pub fn stats(&self) -> ClientStats {
        let kept = self.inner.publications.as_ref();
        let kept = kept.map_or(0, Publications::count);
        self.inner.counters.snapshot(kept as u64)
    }

    /// Refreshes nothing more: the leaf closes.
    pub(crate) fn stop_refreshing(&self) {
        if let Some(refresher) = self.inner.refresher.get() {
            refresher.abort();
        }
    }

    /// The key that this client signs with.
    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The peer that this client asks through.
    pub(crate) fn calls(&self) -> &C {
        &self.inner.calls
    }

    /// The network's name.
    pub(crate) fn network(&self) -> &str {
        self.inner.calls.network()
    }

    fn now(&self) -> Now {
        Now::new(self.inner.begun.elapsed(), self.inner.calls.now_ms())
    }

    /// How far the clocks of those who hold records are ahead of ours,
    /// milliseconds; zero unless two of them say that it is much.
    fn clock_offset_ms(&self) -> i64 {
        let enough = self.inner.calls.placement().len().min(2);
        self.inner.clocks.lock().offset_ms(self.now(), enough)
    }

    /// The time by which records are issued, milliseconds since 1970: that of the
    /// super-nodes where this machine's clock is off.
    pub(crate) fn common_ms(&self) -> u64 {
        let offset_ms = self.clock_offset_ms();
        self.inner.calls.now_ms().saturating_add_signed(offset_ms)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.inner.timeout
    }
}
