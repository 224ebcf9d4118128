//! What a relay did, in numbers that only grow, and how many flows it has.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why datagrams were not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No frame.
    Malformed,
    /// No flow of that name.
    Unknown,
    /// From another address than the end is bound to.
    Stray,
    /// The end across is not bound.
    Unbound,
    /// Over a limit.
    Limited,
    /// A bind or close that proves nothing, or is older than one before.
    Forged,
    /// The system did not take it.
    Failed,
}

impl Dropped {
    /// The reasons, as metrics name them.
    pub const NAMES: [&str; 7] = [
        "malformed",
        "unknown",
        "stray",
        "unbound",
        "limited",
        "forged",
        "failed",
    ];
}

/// Why a flow was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The relay has as many as it may.
    #[error("this relay has no room for another flow; try another super-node")]
    Full,
    /// The asker has as many as it may.
    #[error("you have {0} flows here, the most there may be; close one first")]
    Yours(usize),
    /// The relay carries as much as it should.
    #[error("this relay is busy; try another super-node")]
    Busy,
    /// The peer relays nothing at all.
    #[error("this super-node relays nothing; try another one")]
    Closed,
}

impl Refused {
    /// The reasons, as metrics name them.
    pub const NAMES: [&str; 4] = ["full", "yours", "busy", "closed"];

    fn index(self) -> usize {
        match self {
            Self::Full => 0,
            Self::Yours(_) => 1,
            Self::Busy => 2,
            Self::Closed => 3,
        }
    }
}

/// Counters, shared by the relays that one peer has one after the other.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) flows: AtomicU64,
    pub(super) opened: AtomicU64,
    refused: [AtomicU64; Refused::NAMES.len()],
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; Dropped::NAMES.len()],
    sent: AtomicU64,
}

/// [`Counts`] at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Flows there are.
    pub flows: u64,
    /// Flows opened.
    pub opened: u64,
    /// Flows refused, in the order of [`Refused::NAMES`].
    pub refused: [u64; Refused::NAMES.len()],
    /// Datagrams forwarded.
    pub packets: u64,
    /// Bytes forwarded, as the ends sent them: without headers.
    pub bytes: u64,
    /// Datagrams not forwarded, in the order of [`Dropped::NAMES`].
    pub dropped: [u64; Dropped::NAMES.len()],
    /// Bytes sent, headers of IP and UDP included: what a line feels.
    pub sent: u64,
}

impl RelayStats {
    /// Datagrams that were not forwarded for that reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize]
    }
}

impl Counts {
    /// All of them, now.
    pub fn read(&self) -> RelayStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayStats {
            flows: read(&self.flows),
            opened: read(&self.opened),
            refused: std::array::from_fn(|place| read(&self.refused[place])),
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            dropped: std::array::from_fn(|place| read(&self.dropped[place])),
            sent: read(&self.sent),
        }
    }

    /// A flow was not opened.
    pub fn refuse(&self, why: Refused) {
        self.refused[why.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn discard(&self, why: Dropped, datagrams: usize) {
        self.dropped[why as usize].fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    pub(super) fn forward(&self, datagrams: usize, bytes: usize) {
        self.packets.fetch_add(datagrams as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn send(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
