//! Passing rumours on among many: what came within a moment goes out together.
//!
//! While a large overlay doubles, a super-node hears of dozens of newcomers a
//! second, each from several sides. One message for each of them would cost more
//! than what is in it.

use std::collections::BTreeSet;

use super::sync::MANY;
use super::timers::Timer;
use super::{Core, Role};
use crate::keyspace::NodeId;
use crate::time::Now;

/// Rumours that wait at most; they go out at once then.
const MAX_WAITING: usize = 256;
/// They wait so many rounds of gossip.
const ROUNDS: u32 = 2;

/// Of whom there is news that waits to be passed on.
pub(super) type Waiting = BTreeSet<NodeId>;

impl Core {
    /// Passes on what `from` told of `node`: at once, or among many in a moment.
    pub(super) fn pass_on(&mut self, now: Now, node: NodeId, from: NodeId) {
        let many = self.roster.serving_count() > MANY && self.role == Role::SuperNode;
        let wait = self.config.timing.gossip.gossip_period * ROUNDS;
        match &mut self.host {
            Some(host) if many => {
                host.news.insert(node);
                let full = host.news.len() >= MAX_WAITING;
                let wait = self.jitter(wait);
                let at = if full { now.at } else { now.at + wait };
                self.timers.at_latest(Timer::News, at);
            }
            _ => self.spread_news(&node, from),
        }
    }

    pub(super) fn news_tick(&mut self) {
        let Some(host) = &mut self.host else { return };
        let news = std::mem::take(&mut host.news);
        let entries = news.iter().filter_map(|node| self.roster.get(node));
        let entries = entries.map(|entry| entry.to_wire()).collect();
        self.spread(entries, None);
    }
}
