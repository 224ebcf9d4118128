//! Which super-nodes this leaf leans on: two homes, each the better of two
//! drawn at random (the power of two choices over utilisation and round trip).

use std::collections::BTreeMap;

use canopy_proto::wire::{self, core_message::Kind};

use super::roster::{is_deputys, named_in};
use super::timers::Timer;
use super::{Core, Event, Output, Role};
use crate::keyspace::{NodeId, keys};
use crate::roster::Entry;
use crate::time::{Now, Time};

/// Homes of a leaf.
pub(super) const HOMES: usize = 2;

/// A leaf compares its roster with its first home's after this many times the
/// jitter of attaching: news that missed it, and super-nodes that it believes
/// dead and are not.
const COMPARE: u32 = 15;
/// Whoever knows so many super-nodes is in a large overlay: there those by whom
/// everybody joins would fill up with sessions that serve for nothing else, and
/// its homes tell a leaf enough.
pub(super) const LARGE: usize = 24;
/// Super-nodes kept away from at once.
const MAX_AVOIDED: usize = 64;
/// Candidates that one home has vouched for.
const MAX_VOUCHED: usize = 64;

/// A try to fill one slot.
enum Attempt {
    /// Two candidates were asked how they fare.
    Probing {
        asked: Vec<NodeId>,
        answered: Vec<(NodeId, u64)>,
        until: Time,
    },
    /// The better one was asked to be our home, and told of the other one that
    /// there was then.
    Attaching {
        node: NodeId,
        other: Option<NodeId>,
        until: Time,
    },
}

/// The homes of this leaf.
#[derive(Default)]
pub(super) struct State {
    slots: [Option<NodeId>; HOMES],
    attempts: [Option<Attempt>; HOMES],
    /// Whom a home named in its place.
    offered: [Option<NodeId>; HOMES],
    /// Super-nodes that refused or failed us; not before this time.
    avoid: BTreeMap<NodeId, Time>,
    /// When the roster was last compared with a home's.
    compared: Time,
    /// Whose mandates are signed by strangers, and which home passed them on
    /// first, and when.
    vouched: BTreeMap<NodeId, (NodeId, Time)>,
}

impl State {
    /// The homes, first slot first.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.slots.iter().flatten().copied().collect()
    }

    /// From now on `node` is tried first for this slot.
    pub(super) fn offer(&mut self, slot: usize, node: NodeId) {
        self.offered[slot] = Some(node);
    }

    #[cfg(test)]
    pub(super) fn check_bounds(&self) {
        // Only super-nodes that were asked or served as homes.
        assert!(self.avoid.len() <= MAX_AVOIDED);
        assert!(self.vouched.len() <= MAX_VOUCHED + 1);
        for attempt in self.attempts.iter().flatten() {
            if let Attempt::Probing {
                asked, answered, ..
            } = attempt
            {
                assert!(asked.len() <= 2 && answered.len() <= asked.len());
            }
        }
    }

    fn engaged(&self, node: &NodeId) -> bool {
        self.slots.contains(&Some(*node))
            || self.attempts.iter().flatten().any(|attempt| match attempt {
                Attempt::Probing { asked, .. } => asked.contains(node),
                Attempt::Attaching { node: n, .. } => n == node,
            })
    }
}

impl Core {
    pub(super) fn homes_tick(&mut self, now: Now) {
        if self.host.is_some() {
            return;
        }
        self.homes.avoid.retain(|_, until| *until > now.at);
        // Whatever happens below, this peer looks again.
        let again = self.jitter(self.config.timing.home.attach_jitter * 20);
        self.timers.set(Timer::Homes, now.at + again);
        if self.roster.serving().next().is_none() {
            self.timers.at_latest(Timer::Bootstrap, now.at);
            return;
        }
        let compare = self.config.timing.home.attach_jitter * COMPARE;
        for node in self.homes.nodes() {
            if !self.roster.serves(&node) {
                self.lose_home(now, node);
            }
        }
        for slot in 0..HOMES {
            if self.homes.slots[slot].is_none() {
                self.fill(now, slot);
            }
        }
        let due = now.at.since(self.homes.compared) >= compare;
        if let Some(home) = self.homes.nodes().first().copied().filter(|_| due) {
            self.homes.compared = now.at;
            let digest = self.digest(true);
            self.send(home, digest);
        }
        self.leave_those_joined_by();
        if self.homes.slots.iter().any(Option::is_none) {
            let soon = self.jitter(self.config.timing.home.attach_jitter);
            self.timers.at_latest(Timer::Homes, now.at + soon);
        }
    }

    /// Ends the sessions to those whom this peer was told to join by, once it has
    /// its homes.
    fn leave_those_joined_by(&mut self) {
        let homes = self.homes.nodes();
        if homes.len() < HOMES || self.placement.len() < LARGE {
            return;
        }
        let joined_by = self.links.iter();
        let joined_by =
            joined_by.filter(|(node, link)| link.named && !link.inbound && !homes.contains(node));
        let nodes = joined_by.map(|(node, _)| Output::Disconnect { node: *node });
        self.outputs.extend(nodes);
    }

    fn fill(&mut self, now: Now, slot: usize) {
        match self.homes.attempts[slot].take() {
            None => match self.homes.offered[slot].take() {
                Some(node) if self.roster.serves(&node) && !self.homes.engaged(&node) => {
                    self.attach(now, slot, node);
                }
                _ => self.probe(now, slot),
            },
            Some(Attempt::Probing {
                answered, until, ..
            }) if until <= now.at && !answered.is_empty() => {
                self.attach_best(now, slot, answered);
            }
            Some(Attempt::Probing { asked, until, .. }) if until <= now.at => {
                self.shun(now, &asked)
            }
            Some(Attempt::Attaching { node, until, .. }) if until <= now.at => {
                self.shun(now, &[node])
            }
            waiting => self.homes.attempts[slot] = waiting,
        }
    }

    fn shun(&mut self, now: Now, nodes: &[NodeId]) {
        let until = now.at + self.config.timing.home.attach_jitter * 5;
        let avoid = &mut self.homes.avoid;
        avoid.retain(|_, until| *until > now.at);
        let room = MAX_AVOIDED.saturating_sub(avoid.len());
        avoid.extend(nodes.iter().take(room).map(|node| (*node, until)));
    }

    fn probe(&mut self, now: Now, slot: usize) {
        let free: Vec<NodeId> = self
            .roster
            .serving()
            .map(|entry| entry.node())
            .filter(|node| !self.homes.engaged(node) && !self.homes.avoid.contains_key(node))
            .collect();
        let asked = self.pick(free, 2);
        if asked.is_empty() {
            return;
        }
        for node in &asked {
            let attach = wire::Attach {
                probe: true,
                slot: slot as u32,
                ..Default::default()
            };
            self.send(*node, Kind::Attach(attach));
        }
        let until = now.at + self.config.timing.home.attach_timeout;
        self.homes.attempts[slot] = Some(Attempt::Probing {
            asked,
            answered: Vec::new(),
            until,
        });
        self.timers.at_latest(Timer::Homes, until);
    }

    fn attach_best(&mut self, now: Now, slot: usize, answered: Vec<(NodeId, u64)>) {
        let Some((node, _)) = answered.into_iter().min_by_key(|(_, cost)| *cost) else {
            return;
        };
        self.attach(now, slot, node);
    }

    pub(super) fn attach(&mut self, now: Now, slot: usize, node: NodeId) {
        let other = self.homes.slots[1 - slot];
        self.send_attach(now, slot, node, other);
        let until = now.at + self.config.timing.home.attach_timeout;
        self.homes.attempts[slot] = Some(Attempt::Attaching { node, other, until });
        self.timers.at_latest(Timer::Homes, until);
    }

    pub(super) fn on_attached(&mut self, now: Now, from: NodeId, attached: &wire::Attached) {
        let round_trip = self
            .links
            .get(&from)
            .map_or(0, |link| link.round_trip.as_micros() as u64)
            .min(u64::from(u32::MAX));
        // As many leaves as it should have, each at two homes, is full use too.
        let due = self.leaves_due().max(1) as u64;
        let crowd_milli = u64::from(attached.leaves) * 1000 / due;
        let milli = u64::from(attached.utilisation_milli).max(crowd_milli);
        // A thousandth of utilisation weighs as much as a tenth of a millisecond:
        // load decides among near ones, distance among idle ones. What is over the
        // full use weighs five times as much, or the nearest would get twice that.
        let over = milli.saturating_sub(1000);
        let cost = (milli + 4 * over) * 100 + round_trip;
        for slot in 0..HOMES {
            match &mut self.homes.attempts[slot] {
                Some(Attempt::Probing {
                    asked,
                    answered,
                    until,
                }) if attached.probe
                    && asked.contains(&from)
                    && answered.iter().all(|(node, _)| *node != from) =>
                {
                    answered.push((from, cost));
                    if answered.len() == asked.len() {
                        *until = now.at;
                        self.timers.at_latest(Timer::Homes, now.at);
                    }
                }
                Some(Attempt::Attaching { node, other, .. })
                    if !attached.probe && *node == from =>
                {
                    let told = *other;
                    self.homes.attempts[slot] = None;
                    self.homes.slots[slot] = Some(from);
                    self.event(Event::Homes(self.homes.nodes()));
                    self.tell_untold(now);
                    self.tell_other_home(now, slot, from);
                    // Both slots may have been filled at once.
                    let other = self.homes.slots[1 - slot];
                    if other != told {
                        self.send_attach(now, slot, from, other);
                    }
                    let digest = self.digest(true);
                    self.send(from, digest);
                }
                _ => {}
            }
        }
    }

    /// The home in the other slot learns who the new one is, so that it can
    /// tell us when that one dies.
    fn tell_other_home(&mut self, now: Now, slot: usize, new: NodeId) {
        if let Some(other) = self.homes.slots[1 - slot] {
            self.send_attach(now, 1 - slot, other, Some(new));
        }
    }

    /// The homes, and who is asked to be one, learn where this leaf is now.
    pub(super) fn attach_anew(&mut self, now: Now) {
        for slot in 0..HOMES {
            let home = match &self.homes.attempts[slot] {
                Some(Attempt::Attaching { node, .. }) => Some(*node),
                _ => self.homes.slots[slot],
            };
            if let Some(home) = home {
                self.send_attach(now, slot, home, self.homes.slots[1 - slot]);
            }
        }
    }

    fn send_attach(&mut self, now: Now, slot: usize, home: NodeId, other: Option<NodeId>) {
        let attach = wire::Attach {
            contact: Some(self.contact.signed.clone()),
            candidacy: Some(self.own_candidacy(now)),
            slot: slot as u32,
            other_home: other.map(NodeId::to_bytes).unwrap_or_default(),
            probe: false,
        };
        self.send(home, Kind::Attach(attach));
    }

    pub(super) fn on_redirect(&mut self, now: Now, from: NodeId, redirect: wire::Redirect) {
        // Anybody can send this; only those asked have an answer.
        let engaged = self.homes.engaged(&from);
        if engaged {
            self.shun(now, &[from]);
        }
        for slot in 0..HOMES {
            let ours = match &self.homes.attempts[slot] {
                Some(Attempt::Probing { asked, .. }) => asked.contains(&from),
                Some(Attempt::Attaching { node, .. }) => *node == from,
                None => false,
            };
            if ours {
                self.homes.attempts[slot] = None;
            }
        }
        let listens = engaged || self.role == Role::Retiring;
        // It knows best what it is.
        if listens && redirect.not_serving && self.roster.set_down(&from, true) {
            self.roster_changed(now);
        }
        if engaged {
            let slot = self.homes.slots.iter().position(|home| *home == Some(from));
            let contact = redirect.to.first().and_then(|entry| entry.contact.as_ref());
            let to = contact.and_then(|contact| NodeId::from_slice(&contact.signer));
            self.on_roster(
                now,
                from,
                wire::RosterEntries {
                    entries: redirect.to,
                    dead: Vec::new(),
                },
            );
            self.lose_home(now, from);
            match (slot, to) {
                (Some(slot), Some(to)) if !redirect.not_serving => {
                    self.handed_over_to(now, from, slot, to);
                }
                _ => self.timers.at_latest(Timer::Homes, now.at),
            }
        }
    }

    pub(super) fn on_home_lost(&mut self, now: Now, from: NodeId, lost: &wire::HomeLost) {
        let Some(node) = NodeId::from_slice(&lost.node_id) else {
            return;
        };
        if self.homes.slots.contains(&Some(from)) && node != from {
            self.roster.set_down(&node, true);
            self.roster_changed(now);
            self.lose_home(now, node);
        }
    }

    /// Forgets `node` as a home; the other slot serves until a new one is found.
    pub(super) fn lose_home(&mut self, now: Now, node: NodeId) {
        let mut lost = false;
        for slot in 0..HOMES {
            if self.homes.slots[slot] == Some(node) {
                self.homes.slots[slot] = None;
                lost = true;
            }
        }
        if lost {
            self.event(Event::Homes(self.homes.nodes()));
            self.shun(now, &[node]);
            let wait = self.jitter(self.config.timing.home.attach_jitter / 4);
            self.timers.at_latest(Timer::Homes, now.at + wait);
        }
    }

    /// A leaf keeps no history: those who signed a mandate may have laid their
    /// role down before it joined. Then the word of both homes counts, who
    /// pass on only what they verified: that this candidate serves, for they may
    /// hold the papers of elections that crossed. True once both have said so.
    pub(super) fn vouched_by_homes(
        &mut self,
        now: Now,
        from: NodeId,
        mandate: &wire::SignedMandate,
    ) -> bool {
        let homes = self.homes.nodes();
        if self.host.is_some() || !homes.contains(&from) {
            return false;
        }
        if self.roster.serving().take(HOMES).count() < HOMES {
            return true;
        }
        let Some((candidate, _)) = named_in(mandate) else {
            return false;
        };
        let own = self.identity.node_id();
        let interval = self.config.timing.muster.roster_interval;
        let vouched = &mut self.homes.vouched;
        let before = vouched.get(&candidate).copied();
        match before.filter(|(_, at)| now.at.since(*at) < interval) {
            Some((first, _)) => return first != from && homes.contains(&first),
            None if vouched.len() >= MAX_VOUCHED && candidate != own => {
                // Forgetting what was asked just now would ask without end.
                vouched.retain(|_, (_, at)| now.at.since(*at) < interval);
                if vouched.len() >= MAX_VOUCHED {
                    return false;
                }
            }
            None => {}
        }
        self.homes.vouched.insert(candidate, (from, now.at));
        // The other one is asked for this one paper; deputies have no seats.
        let known = self.roster.get(&candidate);
        let serves = known.is_none_or(Entry::serves) && !is_deputys(mandate);
        for other in homes.into_iter().filter(|home| *home != from) {
            let ask = match serves {
                true => Kind::SeatsAsk(wire::SeatsAsk {
                    position: keys::seat(&candidate, 0).to_bytes(),
                    count: 1,
                }),
                false => self.digest(true),
            };
            self.send(other, ask);
        }
        false
    }

    /// A super-node needs no home.
    pub(super) fn leave_homes(&mut self) {
        self.homes = State::default();
        self.timers.clear(Timer::Homes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{contact_of, core, designation, identity, now_at};
    use super::*;

    /// One home of `core` names many; of how many the other one is asked.
    fn asked(core: &mut Core, ms: u64) -> usize {
        let home = core.homes.nodes()[0];
        for i in 3..=90 {
            let mandate = designation(i, &identity(99));
            assert!(!core.vouched_by_homes(now_at(ms), home, &mandate));
        }
        let outputs = std::iter::from_fn(|| core.poll());
        let asks = |output: &Output| match output {
            Output::Send { message, .. } => matches!(message.kind, Some(Kind::SeatsAsk(_))),
            _ => false,
        };
        outputs.filter(asks).count()
    }

    /// What a leaf last told each home of the other one.
    fn told(core: &mut Core) -> BTreeMap<NodeId, Option<NodeId>> {
        let outputs = std::iter::from_fn(|| core.poll());
        let told = outputs.filter_map(|output| match output {
            Output::Send { node, message, .. } => match message.kind {
                Some(Kind::Attach(attach)) => Some((node, NodeId::from_slice(&attach.other_home))),
                _ => None,
            },
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn homes_that_are_taken_at_once_learn_of_each_other() {
        let mut core = core(200, false, None);
        let [one, other] = [1, 2].map(|i| contact_of(i).node_id);
        core.attach(now_at(0), 0, one);
        core.attach(now_at(0), 1, other);
        assert_eq!(told(&mut core), [(one, None), (other, None)].into());
        for home in [one, other] {
            core.on_attached(now_at(1), home, &wire::Attached::default());
        }
        let both = [(one, Some(other)), (other, Some(one))];
        assert_eq!(told(&mut core), both.into());
    }

    #[test]
    fn a_leaf_asks_its_other_home_about_a_few_and_about_none_twice_in_a_while() {
        let mut core = core(200, false, None);
        let homes = [1, 2].map(|i| contact_of(i).node_id);
        let entries = [1, 2].map(|i| wire::RosterEntry {
            mandate: Some(designation(i, &identity(99))),
            contact: Some(contact_of(i).signed.clone()),
            release: None,
        });
        let entries = wire::RosterEntries {
            entries: entries.into(),
            dead: Vec::new(),
        };
        core.on_roster(now_at(0), homes[0], entries);
        core.homes.slots = homes.map(Some);
        assert_eq!(asked(&mut core, 0), MAX_VOUCHED);
        assert_eq!(asked(&mut core, 1), 0);
        let mandate = designation(3, &identity(99));
        assert!(core.vouched_by_homes(now_at(2), homes[1], &mandate));
        let while_ms = core.config.timing.muster.roster_interval.as_millis() as u64;
        assert_eq!(asked(&mut core, while_ms), MAX_VOUCHED);
    }
}
