//! What a demo came to.

use serde::Serialize;

/// The last line of `leaf demo --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// From the start of the first peer until a super-node answered, seconds.
    pub first_election_s: f64,
    /// Everybody who served, strongest line first.
    pub elected: Vec<Elected>,
    /// Work for its capacity of the busiest super-node, over that of all
    /// together, from the start of the reads to the first kill.
    pub load_max_over_mean: f64,
    /// The same for the first owners of 100 000 random keys.
    pub load_max_over_mean_keys: f64,
    /// Files that were given to the overlay.
    pub items_total: u64,
    /// Files that a quorum of owners acknowledged.
    pub items_published: u64,
    /// Published files that every living peer found in the end.
    pub items_found: u64,
    /// Requests answered rightly while super-nodes were killed.
    pub requests_ok: u64,
    /// Requests that came back with an error, or without what must be there.
    pub requests_failed: u64,
    /// Requests for which a second super-node was asked.
    pub requests_hedged: u64,
    /// From a kill until another peer served in the place of the dead one,
    /// seconds; the longest of several, absent when nobody did.
    pub successor_s: Option<f64>,
    /// From a kill until every living peer had dropped the dead one from its
    /// placement, seconds; the longest of several.
    pub noticed_s: Option<f64>,
    /// Super-nodes killed.
    pub killed: u64,
    /// Peers started.
    pub leaves: u64,
    /// Who serves.
    pub topology: &'static str,
    /// Draws the same lines, keys and requests again.
    pub seed: u64,
    /// What was lost, in words; nothing, if all is well.
    pub lost: Vec<String>,
}

/// A peer that served.
#[derive(Clone, Debug, Serialize)]
pub struct Elected {
    /// Who.
    pub node_id: String,
    /// What its line carries, bits a second.
    pub uplink_bps: u64,
    /// What it was elected with, bits a second: seven tenths of what the
    /// jurors measured together.
    pub measured_bps: u64,
    /// 1: the strongest line of all.
    pub uplink_rank: u64,
    /// Seats in the keyspace.
    pub seats: u64,
    /// Index operations from the start of the reads to their end, or to its
    /// death.
    pub load: u64,
    /// Whether it was killed.
    pub killed: bool,
}

impl Summary {
    /// Whether nothing was lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

/// Seconds with milliseconds.
pub(super) fn seconds(of: std::time::Duration) -> f64 {
    (of.as_secs_f64() * 1_000.0).round() / 1_000.0
}
