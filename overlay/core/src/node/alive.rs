//! Who answers: what the failure detector says, and what leaves are told of it.

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::sync::MANY;
use super::timers::Timer;
use super::{Core, Event};
use crate::keyspace::NodeId;
use crate::time::Now;

impl Core {
    /// A home says who is dead; a leaf has no failure detector of its own.
    pub(super) fn advice(&mut self, now: Now, dead: &[Bytes]) {
        let mut changed = false;
        for node in dead.iter().filter_map(|bytes| NodeId::from_slice(bytes)) {
            let served = self.roster.serves(&node) && node != self.node_id();
            if self.host.is_none() && served && self.roster.set_down(&node, true) {
                self.event(Event::SuperNodeDown {
                    node,
                    reason: "reported dead by a home",
                });
                changed = true;
            }
        }
        if changed {
            self.roster_changed(now);
        }
    }

    pub(super) fn member_up(&mut self, now: Now, node: NodeId) {
        if let Some(host) = &mut self.host {
            host.joining.remove(&node);
        }
        if self.roster.set_down(&node, false) && self.roster.serves(&node) {
            if let Some(entry) = self.roster.get(&node) {
                let (capacity_bps, seats, term) = (entry.capacity_bps, entry.seats, entry.term);
                self.event(Event::SuperNodeUp {
                    node,
                    capacity_bps,
                    seats,
                    term,
                });
            }
            self.roster_changed(now);
            self.spread_node(&node);
        }
    }

    pub(super) fn member_down(&mut self, now: Now, node: NodeId) {
        let served = self.roster.serves(&node);
        if !self.roster.set_down(&node, true) || !served {
            return;
        }
        self.event(Event::SuperNodeDown {
            node,
            reason: "stopped answering",
        });
        self.roster_changed(now);
        let Some(host) = &mut self.host else { return };
        host.reports.remove(&node);
        // In a large overlay each leaf knows a few, and hears of those when it
        // compares.
        let leaves: Vec<NodeId> = match self.roster.serving_count() <= MANY {
            true => host.leaves.keys().copied().collect(),
            false => Vec::new(),
        };
        let homeless: Vec<NodeId> = host
            .leaves
            .iter()
            .filter(|(_, l)| l.other_home == Some(node))
            .map(|(id, _)| *id)
            .collect();
        for leaf in homeless {
            self.send(
                leaf,
                Kind::HomeLost(wire::HomeLost {
                    node_id: node.to_bytes(),
                }),
            );
        }
        for leaf in leaves {
            let dead = vec![node.to_bytes()];
            self.send(
                leaf,
                Kind::Roster(wire::RosterEntries {
                    entries: Vec::new(),
                    dead,
                }),
            );
        }
        self.timers.at_latest(Timer::Report, now.at);
    }
}
