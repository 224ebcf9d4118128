//! Leaves that an operator has moved to other super-nodes.

use canopy_proto::wire::{self, core_message::Kind};

use super::timers::Timer;
use super::{Core, Role};
use crate::keyspace::NodeId;
use crate::time::Now;

impl Core {
    /// Sends that many leaves to each of these, as far as they serve; a leaf
    /// whose other home that is stays.
    pub(super) fn move_leaves(&mut self, now: Now, moves: &[(NodeId, usize)]) {
        if self.role != Role::SuperNode {
            return;
        }
        for (to, count) in moves {
            let entry = self.roster.get(to).filter(|entry| entry.serves());
            let Some(entry) = entry.map(|entry| entry.brief()) else {
                continue;
            };
            let hosted = self.host.iter().flat_map(|host| &host.leaves);
            let free = hosted.filter(|(leaf, one)| *leaf != to && one.other_home != Some(*to));
            let free: Vec<NodeId> = free.map(|(leaf, _)| *leaf).collect();
            for leaf in self.pick(free, *count) {
                if let Some(host) = &mut self.host {
                    host.leaves.remove(&leaf);
                }
                let redirect = wire::Redirect {
                    to: vec![entry.clone()],
                    not_serving: false,
                };
                self.send(leaf, Kind::Redirect(redirect));
            }
        }
        let soon = self.config.timing.election.report_interval;
        self.timers.at_latest(Timer::Report, now.at + soon);
    }
}
