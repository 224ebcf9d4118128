//! What the store counts as it writes.

use metrics::{Counter, Histogram};

/// Handles that the writer's thread counts by. Those of the default count
/// nothing. They outlive the store: one that is opened anew goes on with them.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Bytes of changes written.
    pub written: Counter,
    /// Group commits that failed.
    pub failures: Counter,
    /// Seconds of each group commit: its writes, and one sync to disk.
    pub commits: Histogram,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            written: Counter::noop(),
            failures: Counter::noop(),
            commits: Histogram::noop(),
        }
    }
}
