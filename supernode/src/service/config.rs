//! The service's time limits and rates.

use std::time::Duration;

/// How long the service waits, and how fast it repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// How long one owner may take to answer a read.
    pub read_deadline: Duration,
    /// How long one owner may take to write a batch to disk.
    pub write_deadline: Duration,
    /// A second owner is asked no earlier than this.
    pub hedge_min: Duration,
    /// A second owner is asked no later than this.
    pub hedge_max: Duration,
    /// How long a node that newly owns ranges warns that it may lack records.
    pub settle: Duration,
    /// How long repair waits for further changes before it starts.
    pub repair_after: Duration,
    /// Owners are compared this often even if nothing changed.
    pub repair_every: Duration,
    /// Most bytes a second that repair sends.
    pub repair_bytes_per_s: u64,
    /// How often what has expired is dropped.
    pub sweep_every: Duration,
    /// Owners that repair talks to at a time.
    pub repair_in_flight: usize,
}

impl Default for ServiceConfig {
    /// For the open internet: hedging between a fast LAN answer and twice the
    /// target of a lookup's median; repair within a tenth of a 100 Mbit/s line.
    fn default() -> Self {
        Self {
            read_deadline: Duration::from_secs(2),
            write_deadline: Duration::from_secs(5),
            hedge_min: Duration::from_millis(2),
            hedge_max: Duration::from_millis(400),
            settle: Duration::from_secs(30),
            repair_after: Duration::from_secs(1),
            repair_every: Duration::from_secs(600),
            repair_bytes_per_s: 1_250_000,
            sweep_every: Duration::from_secs(5),
            repair_in_flight: 4,
        }
    }
}
