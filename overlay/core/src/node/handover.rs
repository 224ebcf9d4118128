//! How leaves come to those who were elected after them: a super-node that has
//! more leaves than it should hands each newcomer its share of them.
//!
//! Of so many who serve the newcomer is one, so that everybody's share for it is
//! that part of what they have. Nobody needs to know how the others fare, no more
//! leaves move than have to, and none moves twice for one newcomer.

use std::collections::BTreeMap;
use std::time::Duration;

use canopy_proto::wire::{self, core_message::Kind};

use super::homes::HOMES;
use super::timers::Timer;
use super::{Core, Output, Role};
use crate::keyspace::NodeId;
use crate::time::{Now, Time};

/// Newcomers with a share outstanding.
const MAX_NEWCOMERS: usize = 256;
/// Leaves that all super-nodes together send to one newcomer in a second: half of
/// the handshakes that a core accepts, of a millisecond each.
const ARRIVALS_A_SECOND: u64 = 500;

/// Leaves that are still called through the home that handed them over, and how
/// many report intervals long: a race that knows it by that home is over by then.
const MAX_MOVED: usize = 16_384;
const MOVED_FOR: u32 = 12;

/// The other home of each leaf that was handed over, and when it was: juries are
/// called through homes, and half of the leaves move when as many are elected as
/// serve.
pub(super) type Moved = BTreeMap<NodeId, (NodeId, Time)>;

/// Leaves that each newcomer is still due from this super-node.
pub(super) type Shares = BTreeMap<NodeId, usize>;

impl Core {
    /// Leaves that a super-node should have, each at all of its homes.
    pub(super) fn leaves_due(&self) -> usize {
        self.overlay_law().ratio.saturating_mul(HOMES)
    }

    /// Another one serves: what of our leaves is its share.
    pub(super) fn share_leaves_with(&mut self, newcomer: NodeId) {
        let due = self.leaves_due();
        let serving = self.roster.serving_count().max(1);
        let Some(host) = self.host.as_mut().filter(|_| self.role == Role::SuperNode) else {
            return;
        };
        let promised: usize = host.shares.values().sum();
        let left = host.leaves.len().saturating_sub(promised);
        let share = (left / serving).min(left.saturating_sub(due));
        if share > 0 && host.shares.len() < MAX_NEWCOMERS {
            host.shares.insert(newcomer, share);
        }
    }

    /// Sends some of our leaves to the newcomers that they are due to, not faster
    /// than those can take them.
    pub(super) fn hand_leaves_over(&mut self, now: Now) {
        let serving = self.roster.serving_count().max(1) as u64;
        let interval = self.config.timing.election.report_interval;
        let arrivals = ARRIVALS_A_SECOND * u64::try_from(interval.as_millis()).unwrap_or(1) / 1000;
        let most = (arrivals / serving).max(1) as usize;
        let Some(host) = &mut self.host else { return };
        host.moved
            .retain(|_, (_, at)| now.at.since(*at) < interval * MOVED_FOR);
        let roster = &self.roster;
        host.shares
            .retain(|node, share| *share > 0 && roster.serves(node));
        let mut now_due: Vec<(NodeId, usize)> = Vec::new();
        for (node, share) in &mut host.shares {
            let count = most.min(*share);
            *share -= count;
            now_due.push((*node, count));
        }
        let total: usize = now_due.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return;
        }
        let leaves: Vec<NodeId> = host.leaves.keys().copied().collect();
        let mut chosen = self.pick(leaves, total).into_iter();
        for (newcomer, count) in now_due {
            let Some(entry) = self.roster.get(&newcomer).map(|entry| entry.brief()) else {
                continue;
            };
            for leaf in chosen.by_ref().take(count) {
                self.hand_over_leaf(now, leaf, newcomer, &entry);
            }
        }
    }

    fn hand_over_leaf(
        &mut self,
        now: Now,
        leaf: NodeId,
        newcomer: NodeId,
        entry: &wire::RosterEntry,
    ) {
        let Some(host) = &mut self.host else { return };
        // Nobody is left without a home on the way.
        let other = host.leaves.get(&leaf).and_then(|hosted| hosted.other_home);
        let Some(other) = other.filter(|other| *other != newcomer && leaf != newcomer) else {
            return;
        };
        host.leaves.remove(&leaf);
        if host.moved.len() < MAX_MOVED {
            host.moved.insert(leaf, (other, now.at));
        }
        let to = vec![entry.clone()];
        let redirect = wire::Redirect {
            to,
            not_serving: false,
        };
        self.send(leaf, Kind::Redirect(redirect));
    }

    /// A home hands this leaf over to another one: it goes there within the time
    /// that spreads the leaves of one super-node thin enough.
    pub(super) fn handed_over_to(&mut self, now: Now, from: NodeId, slot: usize, to: NodeId) {
        self.homes.offer(slot, to);
        let wait = match self.homes.nodes().is_empty() {
            true => Duration::ZERO,
            false => self.jitter(self.config.timing.home.attach_jitter / 2),
        };
        self.timers.at_latest(Timer::Homes, now.at + wait);
        self.outputs.push_back(Output::Disconnect { node: from });
    }
}
