//! A super-node's side of the bargain: leaves attached to it, what it knows of
//! the others' load, and taking up and laying down the role.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::handover::{Moved, Shares};
use super::homes::LARGE;
use super::news::Waiting;
use super::returning::Turns;
use super::sponsors::Sponsors;
use super::sync::MANY;
use super::timers::Timer;
use super::{Core, Event, Load, Output, Role};
use crate::contact::Contact;
use crate::election::jury::Standings;
use crate::election::law::Hysteresis;
use crate::election::mandate::{Basis, Mandate};
use crate::election::release::Release;
use crate::keyspace::NodeId;
use crate::swim::{Change, Swim};
use crate::time::{Now, Time};

/// Where others are no more than so many, a new super-node says hello to each, and
/// counts as dead who does not answer. Among more it takes all as alive whose
/// contact it knows, and asks some who is not: 2 500 greetings, each answered with
/// some of all names, would not tell it of the rest within minutes.
pub(super) const GREETED: usize = 64;
/// Others that a new super-node says hello to among many.
const GREETED_AMONG_MANY: usize = 8;
/// Others that it asks who is dead.
pub(super) const ASKED: usize = 3;
/// Voters remembered whose ballots were far off.
const MAX_STANDINGS: usize = 4096;

/// A leaf whose home this super-node is.
pub(super) struct Hosted {
    pub(super) contact: Contact,
    pub(super) candidacy: wire::Candidacy,
    pub(super) other_home: Option<NodeId>,
    /// This is the first of its homes.
    pub(super) first: bool,
}

/// How the elections of one lane stand, as one who may run them sees it.
pub(super) struct Lane {
    pub(super) hysteresis: Hysteresis,
    /// When the law was last asked.
    pub(super) sampled: Time,
    /// Since when an officer has something to do and does not show itself.
    pub(super) owed: Option<Time>,
}

/// The role's own state.
pub(super) struct State {
    pub(super) swim: Swim,
    pub(super) leaves: BTreeMap<NodeId, Hosted>,
    /// Leaves that newcomers are due.
    pub(super) shares: Shares,
    /// Leaves that were handed over lately.
    pub(super) moved: Moved,
    /// Of whom there is news to pass on.
    pub(super) news: Waiting,
    pub(super) load: Load,
    /// Super-nodes that have not answered the failure detector yet.
    pub(super) joining: BTreeMap<NodeId, Time>,
    /// What others reported, while this super-node is or may become officer.
    pub(super) reports: BTreeMap<NodeId, (wire::LoadReport, Time)>,
    /// Which lanes' next terms it may run.
    pub(super) turns: Turns,
    /// By lane: where elections stand for which it is or may become officer.
    pub(super) lanes: BTreeMap<u64, Lane>,
    /// Incumbents raced anew lately, so that one who fails is not raced at once.
    pub(super) renewed: BTreeMap<NodeId, Time>,
    /// What voters' ballots were worth in the races that this peer ran.
    pub(super) standings: Standings,
    /// Who tells a newcomer whom to believe, until it has caught up.
    pub(super) sponsors: Sponsors,
    /// Whom it asked who is dead, and who has not answered; `None`: nobody yet.
    pub(super) asked: Option<Vec<NodeId>>,
    /// Whom one of those who answered takes for dead.
    pub(super) named_dead: BTreeSet<NodeId>,
    /// When the others last heard that it is not dead.
    pub(super) came_back: Option<Time>,
    /// When one believed dead was last asked whether it is.
    pub(super) called: Time,
    /// Since when no other super-node has answered, if none does.
    pub(super) alone_since: Option<Time>,
}

impl Core {
    /// Our own mandate came in.
    pub(super) fn mandated(&mut self, now: Now, mandate: &Mandate) {
        self.candidacy.measured_bps = mandate.capacity_bps;
        let measured = matches!(mandate.basis, Basis::Elected | Basis::Founded);
        if measured && self.host.is_none() {
            self.candidacy.stood = Some((now.unix_ms, self.verdict(now)));
        }
        if mandate.deputy {
            // Elections that cross may name one both ways: the later term holds.
            match self.role {
                Role::SuperNode => self.retire(now),
                Role::Retiring => {}
                _ => self.set_role(Role::Deputy),
            }
            return;
        }
        if self.follows() {
            let serving = self.roster.serving_count();
            let sponsors = Sponsors::new(now.at, serving, self.homes.nodes());
            self.leave_homes();
            self.muster_over();
            let swim = self.new_swim();
            self.host = Some(Box::new(State {
                swim,
                leaves: BTreeMap::new(),
                shares: Shares::new(),
                moved: Moved::new(),
                news: Waiting::new(),
                load: Load::default(),
                joining: BTreeMap::new(),
                reports: BTreeMap::new(),
                turns: Turns::default(),
                lanes: BTreeMap::new(),
                renewed: BTreeMap::new(),
                standings: Standings::new(MAX_STANDINGS),
                sponsors,
                asked: None,
                named_dead: BTreeSet::new(),
                came_back: None,
                called: now.at,
                alone_since: None,
            }));
            self.greet_members(now);
            self.begin_catching_up();
            self.ask_for_decrees();
        }
        let contact = self.contact.clone();
        self.roster.contact(contact);
        self.set_role(Role::SuperNode);
        let report = self.jitter(self.config.timing.election.report_interval);
        self.timers.set(Timer::Report, now.at + report);
        let compare = if self.is_catching_up() {
            report / 4
        } else {
            report
        };
        self.timers.set(Timer::Sync, now.at + compare);
    }

    /// The operator's word that this peer serves: checked like anybody's, and
    /// passed on.
    pub(super) fn designated(&mut self, now: Now, mandate: wire::SignedMandate) {
        let entry = wire::RosterEntry {
            mandate: Some(mandate),
            contact: Some(self.contact.signed.clone()),
            release: None,
        };
        let own = self.node_id();
        match self.admit(now, &entry, false) {
            Ok(Some(_)) => self.spread_node(&own),
            Ok(None) => {}
            Err(error) => self.event(Event::MandateRefused {
                candidate: Some(own),
                reason: error.to_string(),
            }),
        }
    }

    fn greet_members(&mut self, now: Now) {
        let own = self.node_id();
        let others: Vec<NodeId> = self
            .roster
            .entries()
            .filter(|entry| entry.in_office() && entry.node() != own)
            .map(|entry| entry.node())
            .collect();
        let many = others.len() > GREETED;
        for node in &others {
            self.watch(now, node, many);
        }
        let greeted = if many { GREETED_AMONG_MANY } else { 0 };
        for node in self.pick(others, greeted) {
            self.greet(now, node);
        }
    }

    fn greet(&mut self, now: Now, node: NodeId) {
        if let Some(host) = &mut self.host {
            let effects = host.swim.announce(now.at, node);
            self.swim_effects(now, effects);
        }
    }

    /// The failure detector has an eye on `node` from now on: among `many` it takes
    /// it as alive, where it knows how to reach it; among few it says hello.
    pub(super) fn watch(&mut self, now: Now, node: &NodeId, many: bool) {
        if many && self.swim_learn(now, node) {
            return;
        }
        let Some(host) = &mut self.host else { return };
        // It may have answered before its mandate got here.
        if !host.swim.is_up(node) {
            let grace = now.at + self.config.timing.gossip.join_grace();
            host.joining.insert(*node, grace);
            self.timers.at_latest(Timer::Expiry, grace);
        }
        if !many {
            self.greet(now, *node);
        }
    }

    /// Tells the failure detector which contact `node` has; whether it took it as
    /// alive because of that.
    pub(super) fn swim_learn(&mut self, now: Now, node: &NodeId) -> bool {
        let epoch = self.epoch_of(node);
        let (Some(host), Some(epoch)) = (&mut self.host, epoch) else {
            return false;
        };
        let effects = host.swim.learn(now.at, *node, epoch);
        let up = effects.changes.contains(&Change::Up(*node));
        self.swim_effects(now, effects);
        up
    }

    /// Tells the failure detector that `node`, with the contact that is known, is dead.
    pub(super) fn swim_bury(&mut self, now: Now, node: &NodeId) {
        let epoch = self.epoch_of(node);
        if let (Some(host), Some(epoch)) = (&mut self.host, epoch) {
            let effects = host.swim.bury(now.at, *node, epoch);
            self.swim_effects(now, effects);
        }
    }

    /// What the failure detector knows `node` by.
    fn epoch_of(&self, node: &NodeId) -> Option<u64> {
        let contact = self.roster.get(node)?.contact()?;
        Some(contact.issued_ms)
    }

    pub(super) fn on_gossip(&mut self, now: Now, from: NodeId, packet: &Bytes) {
        let may = self
            .roster
            .get(&from)
            .is_some_and(|entry| entry.in_office());
        let heard = may && !self.follows();
        if let (true, Some(host)) = (heard, &mut self.host) {
            let effects = host.swim.packet(now.at, packet);
            self.swim_effects(now, effects);
        }
    }

    pub(super) fn on_attach(&mut self, now: Now, from: NodeId, attach: wire::Attach) {
        let serves = self.role == Role::SuperNode;
        let Some(host) = self.host.as_mut().filter(|_| serves) else {
            return self.redirect(from);
        };
        let utilisation_milli = host.load.worst();
        let leaves = host.leaves.len() as u32;
        let reply = |probe| {
            Kind::Attached(wire::Attached {
                utilisation_milli,
                leaves,
                probe,
            })
        };
        let known = host.leaves.contains_key(&from);
        let full = self.cordoned || host.leaves.len() >= self.config.max_leaves;
        if !known && full {
            return self.redirect(from);
        }
        if attach.probe {
            return self.send(from, reply(true));
        }
        let Some(contact) = Contact::given(&attach.contact) else {
            return;
        };
        if contact.node_id != from {
            return;
        }
        let hosted = Hosted {
            contact,
            candidacy: attach.candidacy.unwrap_or_default(),
            other_home: NodeId::from_slice(&attach.other_home),
            first: attach.slot == 0,
        };
        host.leaves.insert(from, hosted);
        self.send(from, reply(false));
        self.timers.at_latest(
            Timer::Report,
            now.at + self.config.timing.election.report_interval,
        );
    }

    pub(super) fn redirect(&mut self, from: NodeId) {
        let own = self.node_id();
        let others: Vec<NodeId> = self
            .roster
            .serving()
            .map(|e| e.node())
            .filter(|n| *n != own)
            .collect();
        let chosen = self.pick(others, 4);
        let to = chosen
            .iter()
            .filter_map(|node| self.roster.get(node))
            .map(|e| e.brief())
            .collect();
        let not_serving = self.role != Role::SuperNode;
        self.send(from, Kind::Redirect(wire::Redirect { to, not_serving }));
    }

    pub(super) fn on_standing(&mut self, from: NodeId, standing: wire::Standing) {
        let hosted = self
            .host
            .as_mut()
            .and_then(|host| host.leaves.get_mut(&from));
        if let (Some(hosted), Some(candidacy)) = (hosted, standing.candidacy) {
            hosted.candidacy = candidacy;
        }
    }

    pub(super) fn on_forward(&mut self, now: Now, from: NodeId, forward: wire::Forward) {
        let Some(to) = NodeId::from_slice(&forward.to) else {
            return;
        };
        if to == self.node_id() {
            // Only what a home may bring: calls to measure, and to be measured.
            if !self.homes.nodes().contains(&from) {
                return;
            }
            let Ok(message) = <wire::CoreMessage as prost::Message>::decode(forward.message) else {
                return;
            };
            if let Some(kind @ (Kind::Summons(_) | Kind::JuryNotice(_))) = message.kind {
                self.message(now, from, kind);
            }
            return;
        }
        let Some(host) = &self.host else { return };
        let firsthand = forward.from == from.0.as_slice();
        let moved = host.moved.get(&to).filter(|_| firsthand);
        let next = match host.leaves.contains_key(&to) {
            true => Some(to),
            false => moved.map(|(other_home, _)| *other_home),
        };
        let of_ours = NodeId::from_slice(&forward.from).is_some_and(|n| self.roster.serves(&n));
        if let Some(next) = next.filter(|_| of_ours && self.roster.serves(&from)) {
            self.send(next, Kind::Forward(forward));
        }
    }

    pub(super) fn session_up(&mut self, now: Now, node: NodeId) {
        let link = self.links.get(&node);
        let (inbound, named) = link.map_or((false, false), |link| (link.inbound, link.named));
        let serving = self.roster.serving_count();
        let compares = match self.host.is_some() {
            // Who dialled begins.
            _ if inbound => None,
            // Among many, those who serve compare in turn: each would send a newcomer
            // all that it lacks. And a list of them all is too long for others.
            true if serving > MANY && self.roster.serves(&node) => None,
            true if serving > MANY => Some(Kind::RosterDigest(self.summary())),
            // A leaf in a large overlay compares with its homes, unless those that it
            // knows are all gone.
            false if serving >= LARGE && !named => None,
            _ => Some(self.digest(true)),
        };
        if let Some(digest) = compares {
            self.send(node, digest);
        }
        if self.follows() && self.roster.set_down(&node, false) {
            self.roster_changed(now);
        }
        self.candidacy.linked();
        if self.links.len() <= 3 {
            self.timers.at_latest(Timer::Candidacy, now.at);
        }
    }

    /// Whether this peer takes no part in finding out who answers, and hears it
    /// from others: a leaf, or one that has laid its role down and hands over.
    pub(super) fn follows(&self) -> bool {
        self.host.is_none() || self.role == Role::Retiring
    }

    pub(super) fn session_down(&mut self, now: Now, node: NodeId) {
        self.candidacy.unlinked(&node);
        if let Some(host) = &mut self.host {
            host.leaves.remove(&node);
        } else {
            self.lose_home(now, node);
        }
    }

    /// A super-node could not be dialled: a leaf looks elsewhere, a super-node
    /// leaves the verdict to the failure detector.
    pub(super) fn unreachable(&mut self, now: Now, node: NodeId) {
        if self.follows() && self.roster.set_down(&node, true) {
            self.roster_changed(now);
        }
        self.session_down(now, node);
    }

    /// Lays the role down of our own will.
    pub(super) fn step_down(&mut self, now: Now, reason: &str) {
        let Some(term) = self
            .roster
            .get(&self.node_id())
            .filter(|e| e.release.is_none())
            .map(|e| e.term)
        else {
            return;
        };
        let release = Release {
            network: self.config.network.clone(),
            candidate: self.node_id(),
            term,
            issued_ms: now.unix_ms,
            reason: reason.to_owned(),
        };
        let release = release.lay_down(&self.identity);
        if self.admit_release(now, None, &release).is_some() {
            let own = self.node_id();
            self.spread_node(&own);
        }
    }

    /// The mandate is over: hand over what is held, then be a leaf again.
    pub(super) fn retire(&mut self, now: Now) {
        let Some(host) = &mut self.host else {
            if self.role == Role::Deputy {
                self.set_role(Role::Leaf);
            }
            return;
        };
        let leaves: Vec<NodeId> = host.leaves.keys().copied().collect();
        host.leaves.clear();
        host.joining.clear();
        let effects = host.swim.leave(now.at);
        self.swim_effects(now, effects);
        let _ = self.candidacy.backoff.demoted(now.at);
        self.election = None;
        self.timers.clear(Timer::Report);
        self.timers.clear(Timer::Election);
        self.set_role(Role::Retiring);
        for leaf in leaves {
            self.redirect(leaf);
        }
    }

    pub(super) fn handed_over(&mut self, now: Now) {
        if self.role == Role::Retiring {
            self.host = None;
            self.timers.clear(Timer::Sync);
            let own = self.roster.get(&self.node_id());
            let reserve = own.is_some_and(|entry| entry.in_reserve());
            self.set_role(if reserve { Role::Deputy } else { Role::Leaf });
            self.roster_changed(now);
            self.outputs.push_back(Output::Save);
        }
    }
}
