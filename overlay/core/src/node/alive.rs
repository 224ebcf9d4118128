//! Who answers: what the failure detector says, and what leaves are told of it.

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::host::{ASKED, GREETED};
use super::sync::{MANY, MAX_KEYS};
use super::timers::Timer;
use super::{Core, Event, Role};
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

    /// Whether this super-node has not asked yet who is dead, and is about to: among
    /// many it takes all for alive at first.
    pub(super) fn asks_for_the_dead(&mut self, others: &[NodeId]) -> bool {
        let many = self.roster.serving_count() > GREETED && !self.is_catching_up();
        let Some(host) = self.host.as_mut().filter(|_| many) else {
            return false;
        };
        let first = match &host.asked {
            // Nobody has answered.
            Some(asked) => asked.len() == ASKED,
            None => true,
        };
        if first {
            host.asked = Some(others.to_vec());
        }
        first
    }

    /// Tells one who has just begun to serve who does not answer.
    pub(super) fn tell_of_the_dead(&mut self, to: NodeId) {
        let asker = self.roster.get(&to);
        if self.role != Role::SuperNode || !asker.is_some_and(|entry| entry.in_office()) {
            return;
        }
        let dead = self.roster.entries().filter(|e| e.in_office() && e.down);
        let dead = dead.map(|entry| entry.node().to_bytes()).take(MAX_KEYS);
        let (entries, dead) = (Vec::new(), dead.collect());
        self.send(to, Kind::Roster(wire::RosterEntries { entries, dead }));
    }

    /// One whom this super-node has asked says who is dead; whom two name is.
    pub(super) fn told_of_the_dead(&mut self, now: Now, from: &NodeId, dead: &[Bytes]) {
        let Some(host) = self.host.as_mut() else {
            return;
        };
        let asked = host.asked.as_mut();
        let place = asked
            .as_ref()
            .and_then(|a| a.iter().position(|node| node == from));
        let (Some(asked), Some(place)) = (asked, place) else {
            return;
        };
        asked.swap_remove(place);
        let dead = dead.iter().take(MAX_KEYS);
        self.within = Some(false);
        for node in dead.filter_map(|bytes| NodeId::from_slice(bytes)) {
            let known = node != self.node_id() && self.roster.get(&node).is_some();
            let host = self.host.as_mut().filter(|_| known);
            if host.is_some_and(|host| !host.named_dead.insert(node)) {
                self.swim_bury(now, &node);
            }
        }
        if self.within.take() == Some(true) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Output;
    use super::super::tests::{contact_of, core, designation, identity, now_at};
    use super::*;
    use crate::time::Time;

    const ALL: u8 = 90;

    /// A super-node that ran before, with many others.
    fn among_many() -> Core {
        let before = core(1, true, None);
        let others = (2..=ALL).filter(|i| *i != 99).map(|i| wire::RosterEntry {
            mandate: Some(designation(i, &identity(99))),
            contact: Some(contact_of(i).signed.clone()),
            release: None,
        });
        let mut saved = before.save();
        saved.0.entries.extend(others);
        Core::new(
            before.config.clone(),
            identity(1),
            2,
            now_at(0),
            Some(&saved),
        )
    }

    fn down(core: &Core) -> usize {
        core.roster.entries().filter(|entry| entry.down).count()
    }

    /// Lets time pass up to `until`; whom it asked who is dead.
    fn pass(core: &mut Core, until: Duration) -> Vec<NodeId> {
        let end = Time(until.as_micros() as u64);
        let mut asked = Vec::new();
        while let Some(at) = core.next_timeout().filter(|at| *at <= end) {
            core.timeout(now_at(at.0.div_ceil(1000)));
            while let Some(output) = core.poll() {
                if let Output::Send { node, message, .. } = output
                    && let Some(Kind::RosterDigest(digest)) = message.kind
                    && digest.asks_dead
                {
                    asked.push(node);
                }
            }
        }
        asked
    }

    #[test]
    fn among_many_those_who_were_not_heard_of_yet_are_not_dead() {
        let mut core = among_many();
        let gossip = core.config.timing.gossip;
        let grace = gossip.join_grace() + gossip.probe_period;
        pass(&mut core, grace);
        // Nobody answers: those who were asked so far are.
        let probed = grace.as_micros() / gossip.probe_period.as_micros();
        assert!(
            down(&core) > 0 && down(&core) <= probed as usize,
            "{}",
            down(&core)
        );
    }

    #[test]
    fn among_many_who_begins_asks_some_who_is_dead_and_believes_two_of_those() {
        let mut core = among_many();
        let asked = pass(&mut core, Duration::from_millis(600));
        assert_eq!(asked.len(), super::super::host::ASKED);
        let before = down(&core);
        let mut strangers = (2..=ALL).map(|i| contact_of(i).node_id);
        let stranger = strangers.find(|node| !asked.contains(node));
        let serving = core.roster.serving().map(|entry| entry.node());
        let alive = serving.into_iter().find(|node| *node != core.node_id());
        let alive = alive.expect("one of many");
        let mut tell = |from: NodeId| {
            let entries = wire::RosterEntries {
                entries: Vec::new(),
                dead: vec![alive.to_bytes()],
            };
            core.on_roster(now_at(601), from, entries);
            down(&core)
        };
        assert_eq!(tell(asked[0]), before);
        // Not one who was not asked, nor the same one again.
        assert_eq!(tell(stranger.expect("one of many")), before);
        assert_eq!(tell(asked[0]), before);
        assert_eq!(tell(asked[1]), before + 1);
        assert!(!core.roster.serves(&alive));
    }

    #[test]
    fn one_who_has_just_begun_is_told_of_the_dead() {
        let mut core = among_many();
        while core.poll().is_some() {}
        let [dead, asker] = [2, 3].map(|i| contact_of(i).node_id);
        core.member_down(now_at(1), dead);
        while core.poll().is_some() {}
        let mut ask = core.summary();
        ask.asks_dead = true;
        core.on_roster_digest(now_at(2), asker, ask);
        let answers = std::iter::from_fn(|| core.poll()).filter_map(|output| match output {
            Output::Send { node, message, .. } => match message.kind {
                Some(Kind::Roster(entries)) => Some((node, entries.dead)),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(
            answers.collect::<Vec<_>>(),
            [(asker, vec![dead.to_bytes()])]
        );
    }
}
