//! How the requests of a client fared.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Counts since the client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientStats {
    /// Requests that were answered.
    pub ok: u64,
    /// Requests that were given up or refused.
    pub failed: u64,
    /// Second super-nodes asked because the first was slow.
    pub hedged: u64,
    /// Of these, how many answered before the first.
    pub overtaken: u64,
    /// Further attempts after a failed or refused one.
    pub retried: u64,
    /// Records that are kept published now: refreshed before they end.
    pub kept: u64,
    /// Refreshes of such records.
    pub refreshed: u64,
}

/// The counters behind [`ClientStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    ok: AtomicU64,
    failed: AtomicU64,
    hedged: AtomicU64,
    overtaken: AtomicU64,
    retried: AtomicU64,
    refreshed: AtomicU64,
}

impl Counters {
    pub(super) fn ok(&self) {
        self.ok.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn hedged(&self) {
        self.hedged.fetch_add(1, Relaxed);
    }

    pub(super) fn overtaken(&self) {
        self.overtaken.fetch_add(1, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(super) fn refreshed(&self) {
        self.refreshed.fetch_add(1, Relaxed);
    }

    /// With `kept` records kept published.
    pub(super) fn snapshot(&self, kept: u64) -> ClientStats {
        ClientStats {
            ok: self.ok.load(Relaxed),
            failed: self.failed.load(Relaxed),
            hedged: self.hedged.load(Relaxed),
            overtaken: self.overtaken.load(Relaxed),
            retried: self.retried.load(Relaxed),
            kept,
            refreshed: self.refreshed.load(Relaxed),
        }
    }
}
