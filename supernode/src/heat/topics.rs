//! What topics gave this node to do.

use std::time::Instant;

use super::stripes::{Stripes, Top};
use super::word::TopicName;

/// Counts posts by their topic.
#[derive(Debug)]
pub struct TopicHeat {
    since: Instant,
    posts: Stripes<TopicName>,
}

impl Default for TopicHeat {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            posts: Stripes::default(),
        }
    }
}

impl TopicHeat {
    /// So many posts of `topic` were taken from their publisher, or by leaves.
    pub fn posts(&self, topic: &str, count: u64) {
        if count > 0 {
            let topic = TopicName::whole(topic);
            self.posts.add(topic, count as f64, self.now_ms());
        }
    }

    /// The topics that gave most to do, at most `limit`.
    pub fn top(&self, limit: usize) -> Top<TopicName> {
        self.posts.top(self.now_ms(), limit)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
