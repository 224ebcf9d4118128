//! What the service counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::HandOver;
use crate::index::Held;

/// Counters since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Records brought to a quorum of their owners.
    pub puts_stored: u64,
    /// Records that were not.
    pub puts_refused: u64,
    /// Records that another super-node stored here.
    pub local_puts: u64,
    /// Reads that found something. A leaf that asks two owners reads twice.
    pub gets_found: u64,
    /// Reads that found nothing.
    pub gets_none: u64,
    /// Reads and searches that another super-node asked of this node's store.
    pub local_reads: u64,
    /// Searches answered.
    pub searches: u64,
    /// Requests refused as a whole.
    pub refused: u64,
    /// Requests for which another owner was asked past the 95th percentile.
    pub hedged: u64,
    /// Records sent to an owner that lacked them, after a read or a change.
    pub repaired: u64,
    /// Passes of repair at whose end all owners had confirmed their copies.
    pub repairs_complete: u64,
    /// Passes of repair at whose end some had not.
    pub repairs_incomplete: u64,
    /// Records whose owners had not all confirmed at the end of the last pass.
    pub unconfirmed: u64,
    /// What is held now.
    pub held: Held,
    /// Whether this node may still lack records of ranges it newly owns.
    pub settling: bool,
    /// How full the index is in its fullest dimension, thousandths.
    pub utilisation_milli: u32,
}

impl IndexStats {
    /// Operations of any kind: what this node's work is measured by.
    pub fn operations(&self) -> u64 {
        self.puts_stored
            + self.puts_refused
            + self.local_puts
            + self.gets_found
            + self.gets_none
            + self.local_reads
            + self.searches
            + self.refused
    }

    /// With the counts of an `earlier` service of this peer added; what is held
    /// now stays.
    #[must_use]
    pub fn after(self, earlier: &IndexStats) -> IndexStats {
        IndexStats {
            puts_stored: self.puts_stored + earlier.puts_stored,
            puts_refused: self.puts_refused + earlier.puts_refused,
            local_puts: self.local_puts + earlier.local_puts,
            gets_found: self.gets_found + earlier.gets_found,
            gets_none: self.gets_none + earlier.gets_none,
            local_reads: self.local_reads + earlier.local_reads,
            searches: self.searches + earlier.searches,
            refused: self.refused + earlier.refused,
            hedged: self.hedged + earlier.hedged,
            repaired: self.repaired + earlier.repaired,
            repairs_complete: self.repairs_complete + earlier.repairs_complete,
            repairs_incomplete: self.repairs_incomplete + earlier.repairs_incomplete,
            ..self
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) puts_stored: AtomicU64,
    pub(super) puts_refused: AtomicU64,
    pub(super) local_puts: AtomicU64,
    pub(super) gets_found: AtomicU64,
    pub(super) gets_none: AtomicU64,
    pub(super) local_reads: AtomicU64,
    pub(super) searches: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) hedged: AtomicU64,
    pub(super) repaired: AtomicU64,
    repairs_complete: AtomicU64,
    repairs_incomplete: AtomicU64,
    unconfirmed: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn refused(&self) {
        add(&self.refused, 1);
    }

    pub(super) fn got(&self, found: bool) {
        match found {
            true => add(&self.gets_found, 1),
            false => add(&self.gets_none, 1),
        }
    }

    /// A pass of repair ended.
    pub(super) fn repair_pass(&self, done: &HandOver) {
        match done.is_complete() {
            true => add(&self.repairs_complete, 1),
            false => add(&self.repairs_incomplete, 1),
        }
        let left = done.records.saturating_sub(done.confirmed);
        self.unconfirmed.store(left, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> IndexStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IndexStats {
            puts_stored: get(&self.puts_stored),
            puts_refused: get(&self.puts_refused),
            local_puts: get(&self.local_puts),
            gets_found: get(&self.gets_found),
            gets_none: get(&self.gets_none),
            local_reads: get(&self.local_reads),
            searches: get(&self.searches),
            refused: get(&self.refused),
            hedged: get(&self.hedged),
            repaired: get(&self.repaired),
            repairs_complete: get(&self.repairs_complete),
            repairs_incomplete: get(&self.repairs_incomplete),
            unconfirmed: get(&self.unconfirmed),
            ..IndexStats::default()
        }
    }
}
