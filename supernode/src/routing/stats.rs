//! What was carried.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::heat::{Top, TopicHeat, TopicName};

/// What a router counts by, shared with whoever tells the load.
#[derive(Clone, Debug, Default)]
pub struct Carried(pub(super) std::sync::Arc<Counters>);

impl Carried {
    /// What was carried since the start.
    pub fn read(&self) -> RoutingStats {
        self.0.read()
    }

    /// The topics that gave most to do of late, at most `limit`.
    pub fn topics(&self, limit: usize) -> Top<TopicName> {
        self.0.topics.top(limit)
    }
}

/// Counts since the peer started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) messages_delivered: AtomicU64,
    pub(super) messages_absent: AtomicU64,
    pub(super) messages_refused: AtomicU64,
    pub(super) posts_taken: AtomicU64,
    pub(super) posts_pushed: AtomicU64,
    pub(super) posts_given_up: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) topics: TopicHeat,
}

/// What this peer carried for others since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingStats {
    /// Messages that their addressees took.
    pub messages_delivered: u64,
    /// Messages whose addressee was not there, or took none.
    pub messages_absent: u64,
    /// Messages refused: forged, over a limit, or not taken in time.
    pub messages_refused: u64,
    /// Posts that publishers brought here.
    pub posts_taken: u64,
    /// Posts that leaves took from here, each time that one did.
    pub posts_pushed: u64,
    /// Leaves given up on because they did not take their posts.
    pub posts_given_up: u64,
    /// Bytes of messages delivered and of posts brought to a peer, each time
    /// that they were.
    pub bytes: u64,
}

impl RoutingStats {
    /// Requests that were work, for the load.
    pub fn operations(&self) -> u64 {
        let messages = self.messages_delivered + self.messages_absent + self.messages_refused;
        messages + self.posts_taken + self.posts_pushed + self.posts_given_up
    }
}

/// What a super-node holds in memory for topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicsHeld {
    /// Topics that it looks after.
    pub topics: u64,
    /// Bytes of their last posts.
    pub history_bytes: u64,
    /// Subscriptions of leaves at it.
    pub subscriptions: u64,
}

impl Counters {
    pub(super) fn read(&self) -> RoutingStats {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        RoutingStats {
            messages_delivered: of(&self.messages_delivered),
            messages_absent: of(&self.messages_absent),
            messages_refused: of(&self.messages_refused),
            posts_taken: of(&self.posts_taken),
            posts_pushed: of(&self.posts_pushed),
            posts_given_up: of(&self.posts_given_up),
            bytes: of(&self.bytes),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
