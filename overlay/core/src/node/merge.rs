//! Meeting the super-nodes of another assembly of the same network: union by
//! election.
//!
//! A foreign mandate may hold in itself (ballots, tally, signatures), but
//! nobody here knows its signers, and whoever can make keys can make such a
//! mandate. So it proves nothing: it is a reason to measure its holder like
//! any other candidate. Whoever meets one tells the returning officer, who
//! dials its holder and races it. The other side does the same, so both end
//! up with the union; the law then lets the surplus go.

use std::collections::BTreeMap;

use canopy_proto::wire::{self, core_message::Kind};
use rand::Rng;

use super::candidacy::host_of;
use super::running::{Entrant, Runner};
use super::sync::BATCH;
use super::timers::Timer;
use super::{Core, Output};
use crate::contact::{self, Contact};
use crate::election::endorse::VerifyContext;
use crate::election::mandate::{self, Basis};
use crate::keyspace::NodeId;
use crate::time::{Now, Time};

/// Foreign super-nodes looked at at once.
const MAX_FOREIGN: usize = 64;
/// Strangers remembered, so that they are told of once.
const MAX_TOLD: usize = 256;
/// Raced in one election.
const AT_ONCE: usize = 4;

struct Foreign {
    contact: Contact,
    claim_bps: u64,
    token: u64,
    reached: bool,
    /// Not raced before this.
    due: Time,
    /// Forgotten after this.
    until: Time,
}

/// Foreign super-nodes that this peer has met.
#[derive(Default)]
pub(super) struct State {
    met: BTreeMap<NodeId, Foreign>,
    /// When a foreign super-node last answered.
    last: Option<Time>,
    /// Met lately, and passed on to others.
    told: BTreeMap<NodeId, Time>,
    /// Met while this leaf had no home to tell.
    untold: Vec<wire::RosterEntry>,
    /// Gone to see lately, because a leaf pointed there.
    visited: BTreeMap<NodeId, Time>,
}

#[cfg(test)]
impl State {
    pub(super) fn check_bounds(&self) {
        assert!(self.met.len() <= MAX_FOREIGN);
        assert!(self.told.len() <= MAX_TOLD);
        assert!(self.visited.len() <= MAX_FOREIGN);
        assert!(self.untold.len() <= MAX_FOREIGN);
    }
}

impl Core {
    /// Entries that were refused for who signed them, and nothing else.
    pub(super) fn met_foreign(&mut self, now: Now, from: NodeId, entries: Vec<wire::RosterEntry>) {
        if self.host.is_none() && self.homes.nodes().is_empty() {
            // Nobody to tell yet: the first home hears of it.
            let room = MAX_FOREIGN.saturating_sub(self.merge.untold.len());
            self.merge.untold.extend(entries.into_iter().take(room));
            return;
        }
        let wait = self.config.timing.muster.roster_interval * 3;
        self.merge.told.retain(|_, at| now.at.since(*at) < wait);
        let mut fresh = Vec::new();
        for entry in entries {
            let signer = entry.contact.as_ref().map(|contact| &contact.signer);
            let node = signer.and_then(|signer| NodeId::from_slice(signer));
            let room = self.merge.told.len() < MAX_TOLD;
            if let Some(node) = node.filter(|_| room)
                && self.merge.told.insert(node, now.at).is_none()
            {
                fresh.push(entry);
            }
        }
        if fresh.is_empty() {
            return;
        }
        let to = match self.host.is_some() {
            true => self.own_officers(),
            false => self.homes.nodes(),
        };
        // Whoever may act as officer looks for itself: the first of them may
        // come from the other side and see nothing foreign here.
        if self.host.is_some() && to.contains(&self.node_id()) {
            for entry in fresh {
                self.examine(now, entry);
            }
            return;
        }
        for node in to.into_iter().filter(|node| *node != from) {
            self.send(
                node,
                Kind::Roster(wire::RosterEntries {
                    entries: fresh.clone(),
                    dead: Vec::new(),
                }),
            );
        }
    }

    /// A home was found: it hears of whom this leaf met before.
    pub(super) fn tell_untold(&mut self, now: Now) {
        let untold = std::mem::take(&mut self.merge.untold);
        if !untold.is_empty() {
            let own = self.node_id();
            self.met_foreign(now, own, untold);
        }
    }

    /// Whether this super-node has seen no other for a while, although others
    /// serve: what they decided meanwhile was signed by nobody it knows, so it
    /// joins again as a newcomer. It hands over what it holds.
    pub(super) fn is_left_behind(&self, now: Now) -> bool {
        let patience = self.config.timing.election.officer_timeout * 5;
        let own = self.roster.get(&self.node_id());
        let elected = own.is_some_and(|entry| entry.in_office() && !entry.designated());
        let alone = self.host.as_ref().and_then(|host| host.alone_since);
        elected && alone.is_some_and(|since| now.at.since(since) >= patience)
    }

    /// A leaf says where a super-node is that this peer does not know: a leaf
    /// passes it on to its homes, and a super-node goes and sees.
    pub(super) fn pointed_at(&mut self, now: Now, from: NodeId, entry: &wire::RosterEntry) {
        let contact = Contact::given(&entry.contact);
        let Some(contact) = contact else { return };
        let node = contact.node_id;
        if node == self.node_id() || self.roster.get(&node).is_some() {
            return;
        }
        let ours = match &self.host {
            Some(host) => host.leaves.contains_key(&from) || self.roster.serves(&from),
            None => self.links.contains_key(&from),
        };
        if !ours {
            return;
        }
        if self.host.is_none() {
            return self.met_foreign(now, from, vec![entry.clone()]);
        }
        let wait = self.config.timing.muster.roster_interval * 3;
        self.merge.visited.retain(|_, at| now.at.since(*at) < wait);
        let room = self.merge.visited.len() < MAX_FOREIGN;
        if room && self.merge.visited.insert(node, now.at).is_none() {
            self.outputs.push_back(Output::Connect {
                node: Some(node),
                addrs: contact.addrs.clone(),
            });
        }
    }

    /// Whether two assemblies are still growing together: no time to let
    /// anybody go.
    pub(super) fn merging(&self, now: Now) -> bool {
        let wait = self.config.timing.election.officer_timeout * 10;
        self.merge.last.is_some_and(|at| now.at.since(at) < wait)
    }

    /// A stranger was elected here: the other side is still at it.
    pub(super) fn stranger_elected(&mut self, now: Now, node: &NodeId) {
        if self.merge.told.remove(node).is_some() || self.merge.met.contains_key(node) {
            self.merge.last = Some(now.at);
        }
    }

    /// Whether `node` said lately that it is a super-node elsewhere. A
    /// super-node lets such officers have it measured: it costs a moment's
    /// traffic, and is how two assemblies become one.
    pub(super) fn is_stranger(&self, node: &NodeId) -> bool {
        self.host.is_some()
            && (self.merge.told.contains_key(node) || self.merge.met.contains_key(node))
    }

    /// Checks a foreign mandate as a newcomer would, and sees whether its
    /// holder answers.
    fn examine(&mut self, now: Now, entry: wire::RosterEntry) {
        let contact = Contact::given(&entry.contact);
        let (Some(contact), Some(signed)) = (contact, entry.mandate.as_ref()) else {
            return;
        };
        let node = contact.node_id;
        let known = self.roster.get(&node).is_some_and(|e| e.in_office());
        if known || self.merge.met.contains_key(&node) || self.merge.met.len() >= MAX_FOREIGN {
            return;
        }
        // A leaf passed it on without the ballots; juries of our own decide.
        let checked = self.judge(now, true, |context| {
            let brief = true;
            mandate::open(signed, &VerifyContext { brief, ..*context })
        });
        let verified = match checked {
            Ok(verified) => verified,
            Err(error) => return self.refused(&entry, &error),
        };
        let mandate = verified.mandate();
        let Some(addr) = contact.addrs.first().copied() else {
            return;
        };
        let useless = mandate.deputy || mandate.basis == Basis::Designated;
        if useless || mandate.candidate != node || !self.has_place(&contact) {
            return;
        }
        let token = self.rng.next_u64();
        self.outputs
            .push_back(Output::DialBack { token, node, addr });
        let foreign = Foreign {
            // It may have been measured a little low.
            claim_bps: mandate.capacity_bps.saturating_mul(2),
            contact,
            token,
            reached: false,
            due: now.at,
            until: now.at + self.config.timing.election.reply_timeout * 10,
        };
        self.merge.met.insert(node, foreign);
        let soon = self.config.timing.election.reply_timeout;
        self.timers.at_latest(Timer::Merge, now.at + soon);
    }

    /// Whether the caps on super-nodes of one address and one network leave
    /// room for this candidate, as far as this peer knows.
    pub(super) fn has_place(&self, candidate: &Contact) -> bool {
        let Some(addr) = candidate.addrs.first() else {
            return false;
        };
        let caps = self.overlay_criteria();
        let (host, network) = (host_of(addr), contact::prefix(addr));
        let (mut same_host, mut same_network) = (0, 0);
        let others = self
            .roster
            .serving()
            .filter(|entry| entry.node() != candidate.node_id);
        for other in others.filter_map(|entry| entry.addrs().first()) {
            same_host += usize::from(host_of(other) == host);
            same_network += usize::from(contact::prefix(other) == network);
        }
        same_host < caps.per_address && same_network < caps.per_prefix
    }

    /// True if the dial-back was for a foreign super-node.
    pub(super) fn merge_dialed_back(&mut self, now: Now, token: u64, reached: bool) -> bool {
        let patience = self.config.timing.election.officer_timeout;
        let met = &mut self.merge.met;
        let Some(foreign) = met.values_mut().find(|foreign| foreign.token == token) else {
            return false;
        };
        foreign.reached = reached;
        foreign.until = now.at;
        if reached {
            foreign.until = now.at + patience * 30;
            self.merge.last = Some(now.at);
        }
        true
    }

    /// Races those who answered, and shows them our own roster.
    pub(super) fn merge_tick(&mut self, now: Now) {
        let timing = self.config.timing.election;
        let known = |node: &NodeId| self.roster.get(node).is_some_and(|e| e.in_office());
        self.merge
            .met
            .retain(|node, foreign| foreign.until > now.at && !known(node));
        let officers = self.own_officers();
        let rank = officers.iter().position(|node| *node == self.node_id());
        if self.merge.met.is_empty() || self.host.is_none() {
            return;
        }
        self.timers.set(Timer::Merge, now.at + timing.reply_timeout);
        let Some(rank) = rank.filter(|_| self.election.is_none()) else {
            return;
        };
        // Stand-ins give the officer time; two juries at once would halve
        // what each of them sees.
        let wait = timing.officer_timeout * u32::try_from(rank).unwrap_or(u32::MAX);
        let mut entrants = Vec::new();
        for foreign in self.merge.met.values_mut() {
            let due = foreign.reached && foreign.due + wait <= now.at;
            if due && entrants.len() < AT_ONCE {
                foreign.due = now.at + timing.officer_timeout * 5;
                entrants.push(Entrant {
                    contact: foreign.contact.clone(),
                    via: None,
                    claim_bps: foreign.claim_bps,
                });
            }
        }
        if entrants.is_empty() {
            return;
        }
        self.merge.last = Some(now.at);
        for entrant in &entrants {
            self.introduce_ourselves(&entrant.contact);
        }
        let runner = Runner::Officer {
            activate: Vec::new(),
            deputies: 0,
        };
        let count = entrants.len();
        let reason = format!("{count} super-nodes of another assembly");
        let term = self.next_term(self.lane_of(&self.node_id()));
        self.open_election(now, runner, term, entrants, count, reason);
    }

    fn introduce_ourselves(&mut self, to: &Contact) {
        let own: Vec<wire::RosterEntry> = self.roster.serving().map(|e| e.to_wire()).collect();
        for entries in own.chunks(BATCH).take(MAX_TOLD / BATCH) {
            let message = wire::RosterEntries {
                entries: entries.to_vec(),
                dead: Vec::new(),
            };
            self.send_to(to.node_id, to.addrs.clone(), Kind::Roster(message));
        }
    }
}
