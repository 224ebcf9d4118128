//! What peers do while nobody serves: they find each other, form an assembly,
//! and its chair runs the founding election.
//!
//! The chair is the member with the lowest hash; nobody chooses it. If it does
//! nothing for a while the next one acts.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_proto::wire::{self, Topology, core_message::Kind};
use rand::Rng;

use super::assembly::{Member, State, TOLD, lot};
use super::running::{Entrant, Runner};
use super::timers::Timer;
use super::{Core, Link, Output};
use crate::contact::Contact;
use crate::keyspace::{Key, NodeId};
use crate::placement::R;
use crate::time::Now;

/// Peers dialled at once while joining.
const DIALS: usize = 8;
/// Linked peers that are asked at once whether they know a super-node.
const MAX_ASKED: usize = 32;
/// Members that one message tells of.
const GOSSIP: usize = 48;
/// Peers that one who stays outside asks now and then whether somebody serves.
const ASKED_OUTSIDE: usize = 2;
/// Members who may take the chair that every other keeps a session to.
const CHAIRS: usize = 2;
/// A candidate and the smallest jury.
pub(super) const MIN_ASSEMBLY: usize = 4;

impl Core {
    /// Joins by the configured peers while no super-node is known.
    pub(super) fn bootstrap_tick(&mut self, now: Now) {
        if self.roster.serving().next().is_some() {
            if !self.links.is_empty() {
                return;
            }
            // Those whom it knew when it ran before are tried first: everybody is
            // told of the same few to join by.
            let first = self.started + self.config.timing.home.attach_timeout / 2;
            if self.host.is_none() && now.at < first {
                return self.timers.set(Timer::Bootstrap, first);
            }
        }
        // Dead super-nodes may be back; and a long list must not be dialled at once.
        let dead: Vec<NodeId> = self
            .roster
            .entries()
            .filter(|entry| entry.in_office())
            .map(|entry| entry.node())
            .collect();
        for node in self.pick(dead, DIALS) {
            let addrs = self.addrs_of(&node);
            let node = Some(node);
            self.outputs.push_back(Output::Connect { node, addrs });
        }
        let outside = self.muster.as_ref().is_some_and(|state| state.outside());
        // A peer that everybody was told of has thousands of links. One that
        // stays outside an assembly can use the word of those only that it was
        // told of itself.
        let linked = self.links.iter().filter(|(_, link)| link.named || !outside);
        let linked: Vec<NodeId> = linked.map(|(node, _)| *node).collect();
        let (dials, most) = match outside {
            true => (ASKED_OUTSIDE.saturating_sub(linked.len()), ASKED_OUTSIDE),
            false => (DIALS, MAX_ASKED),
        };
        for (node, addr) in self.pick(self.config.peers.clone(), dials) {
            self.join_by(node, addr);
        }
        let asked = match linked.len() {
            count if count <= most => linked,
            _ => self.pick(linked, most),
        };
        for node in asked {
            let digest = self.digest(true);
            self.send(node, digest);
        }
        let wait = self.jitter(self.config.timing.muster.roster_interval);
        self.timers.set(Timer::Bootstrap, now.at + wait);
    }

    /// Dials a peer that this one was told of, unless there is a session to it.
    /// Who dialled us from there has to show that it answers there.
    fn join_by(&mut self, node: Option<NodeId>, addr: SocketAddr) {
        let claims = |link: &&Link| link.contact.addrs.contains(&addr);
        let linked = match node {
            Some(node) => self.links.get(&node),
            None => self.links.values().find(claims),
        };
        match linked.map(|link| (link.contact.node_id, link.named)) {
            Some((_, true)) => {}
            Some((node, false)) => {
                let token = self.rng.next_u64();
                self.claiming = Some((token, node));
                self.outputs
                    .push_back(Output::DialBack { token, node, addr });
            }
            None => {
                let addrs = vec![addr];
                self.outputs.push_back(Output::Connect { node, addrs });
            }
        }
    }

    /// True if the dial was to see whether a peer answers where it says.
    pub(super) fn claim_dialled(&mut self, token: u64, reached: bool) -> bool {
        let Some((_, node)) = self.claiming.take_if(|(sent, _)| *sent == token) else {
            return false;
        };
        if let Some(link) = self.links.get_mut(&node).filter(|_| reached) {
            link.named = true;
            let digest = self.digest(true);
            self.send(node, digest);
        }
        true
    }

    fn muster_state(&mut self, now: Now) -> Option<&mut State> {
        let nobody = self.roster.serving().next().is_none();
        if !nobody || self.config.topology == Topology::Hybrid {
            return None;
        }
        if self.muster.is_none() {
            let own = Member {
                lot: lot(&self.config.network, &self.node_id()),
                contact: self.contact.clone(),
                candidacy: self.own_candidacy(now),
                heard: now.at,
            };
            let mut state = State::new(now.at);
            state.insert(own);
            self.muster = Some(Box::new(state));
            self.timers.set(Timer::Muster, now.at);
        }
        self.muster.as_deref_mut()
    }

    /// A peer that knows no super-node either.
    pub(super) fn muster_with(&mut self, now: Now, node: NodeId) {
        if self.muster_state(now).is_some() {
            let muster = self.muster_message(now, GOSSIP);
            self.send(node, Kind::Muster(muster));
        }
    }

    fn muster_message(&mut self, now: Now, others_told: usize) -> wire::Muster {
        let own = self.node_id();
        let others: Vec<NodeId> = match &self.muster {
            Some(state) => state
                .members
                .keys()
                .copied()
                .filter(|node| *node != own)
                .collect(),
            None => Vec::new(),
        };
        // Those who may take the chair are told of first, so that all agree.
        let mut chosen: Vec<NodeId> = match &self.muster {
            Some(state) => state.chairs().take(others_told.min(TOLD)).collect(),
            None => Vec::new(),
        };
        let others = others.into_iter().filter(|node| !chosen.contains(node));
        let room = others_told.saturating_sub(chosen.len());
        let picked = self.pick(others.collect(), room);
        chosen.extend(picked);
        chosen.retain(|node| *node != own);
        let mut members = vec![wire::MusterEntry {
            contact: Some(self.contact.signed.clone()),
            candidacy: Some(self.own_candidacy(now)),
            age_ms: 0,
        }];
        if let Some(state) = &self.muster {
            members.extend(
                chosen
                    .iter()
                    .filter_map(|node| state.members.get(node))
                    .map(|member| wire::MusterEntry {
                        contact: Some(member.contact.signed.clone()),
                        candidacy: Some(member.candidacy),
                        age_ms: u32::try_from(now.at.since(member.heard).as_millis())
                            .unwrap_or(u32::MAX),
                    }),
            );
        }
        let limit = self.muster.as_ref().and_then(|state| state.limit());
        let limit = limit.map(|limit| limit.to_bytes()).unwrap_or_default();
        wire::Muster {
            members,
            limit,
            electing: self.election.is_some(),
        }
    }

    pub(super) fn on_muster(&mut self, now: Now, from: NodeId, muster: wire::Muster) {
        if self.roster.serving().next().is_some() {
            // The sender has not heard that somebody serves.
            let digest = wire::RosterDigest::default();
            self.on_roster_digest(now, from, digest);
            return;
        }
        let (own, network) = (self.node_id(), self.config.network.clone());
        let horizon = self.config.timing.muster.quiet * 10;
        if self.muster_state(now).is_none() {
            return;
        }
        let Some(state) = &mut self.muster else {
            return;
        };
        let (own_lot, was_outside) = (lot(&network, &own), state.outside());
        let limit = Key::from_slice(&muster.limit);
        state.full.remove(&from);
        let lower = limit.filter(|limit| *limit < own_lot);
        if let Some(limit) = lower.filter(|_| state.full.len() < TOLD) {
            state.full.insert(from, limit);
        }
        let (mut news, chair) = (false, state.chair());
        for entry in muster.members.into_iter().take(GOSSIP + 1) {
            let age = Duration::from_millis(u64::from(entry.age_ms));
            let Some(signed) = entry.contact.filter(|_| age < horizon) else {
                continue;
            };
            let signer = NodeId::from_slice(&signed.signer);
            let known = signer.and_then(|signer| state.members.get(&signer));
            let heard = now.at - age;
            if let Some(member) = known.filter(|member| member.contact.signed == signed) {
                let node = member.contact.node_id;
                if node != own {
                    state.hear(&node, heard, entry.candidacy.unwrap_or_default());
                }
                continue;
            }
            let old = signer.and_then(|signer| state.members.get(&signer));
            let old = old.map(|member| member.contact.issued_ms);
            let leaves = match (old, &signer) {
                (None, Some(node)) => state.room(&lot(&network, node), &own),
                _ => Ok(None),
            };
            // Who stays outside is not worth checking.
            let Ok(leaves) = leaves else { continue };
            let Ok(contact) = Contact::open(&signed) else {
                continue;
            };
            let node = contact.node_id;
            if node == own || old.is_some_and(|issued| issued >= contact.issued_ms) {
                continue;
            }
            news |= old.is_none();
            let last = leaves.and_then(|last| state.remove(&last));
            if let Some(last) = last.filter(|last| last.lot < own_lot) {
                // There are lower lots enough without ours.
                state.full.extend([(own, last.lot), (node, last.lot)]);
            }
            let candidacy = entry.candidacy.unwrap_or_default();
            state.insert(Member {
                lot: lot(&network, &node),
                contact,
                candidacy,
                heard,
            });
        }
        let electing = muster.electing && state.comes_before(&from, &own);
        if news || electing || state.chair() != chair {
            state.settled = now.at;
        }
        let (limit, inside) = (state.limit(), !state.outside());
        let stays_outside = limit.is_some_and(|limit| lot(&network, &from) > limit);
        if !inside && !was_outside {
            self.stay_outside(now);
        }
        let told = !muster.limit.is_empty();
        let reply = match inside {
            true if stays_outside => (!told).then_some(TOLD),
            true => news.then_some(GOSSIP),
            false => (!told).then_some(TOLD),
        };
        if let Some(others) = reply {
            let message = self.muster_message(now, others);
            self.send(from, Kind::Muster(message));
        }
    }

    /// There is no place for this peer in the assembly: it keeps a few names.
    fn stay_outside(&mut self, now: Now) {
        let own = self.node_id();
        let again = now.at + self.jitter(self.config.timing.muster.quiet * 10);
        let Some(state) = &mut self.muster else {
            return;
        };
        state.again = again;
        let limit = state.limit();
        let others = state.members.iter();
        let inside = others.filter(|(_, member)| limit.is_some_and(|limit| member.lot <= limit));
        let inside: Vec<NodeId> = inside.map(|(node, _)| *node).collect();
        let mut kept = self.pick(inside, TOLD);
        // One of them that can be dialled counts as told of: all whom this peer
        // was told to join by may stay outside too.
        let known = kept
            .iter()
            .filter_map(|node| self.muster.as_ref()?.members.get(node));
        let asked = known.filter(|member| member.candidacy.eligible);
        let asked = asked.map(|member| member.contact.clone()).next();
        if let Some(contact) = asked {
            self.name(contact, true);
        }
        kept.push(own);
        if let Some(state) = &mut self.muster {
            state.keep(|node, _| kept.contains(node));
        }
    }

    /// A member says that another was elected. That one is asked for its mandate,
    /// which tells by itself whether this assembly signed it.
    pub(super) fn founded(&mut self, now: Now, from: NodeId, entry: &wire::RosterEntry) {
        let interval = self.config.timing.muster.interval;
        let contact = Contact::given(&entry.contact);
        let (Some(contact), Some(state)) = (contact, &mut self.muster) else {
            return;
        };
        let node = contact.node_id;
        let asked = state.asked.get(&node);
        let just_asked = asked.is_some_and(|at| now.at.since(*at) < interval);
        if just_asked || !state.knows(&from) || !state.knows(&node) {
            return;
        }
        state.asked.insert(node, now.at);
        let message = self.muster_message(now, GOSSIP);
        self.send_to(node, contact.addrs.clone(), Kind::Muster(message));
    }

    /// Our own candidacy changed: the assembly must know.
    pub(super) fn muster_standing(&mut self, now: Now, candidacy: wire::Candidacy) {
        let (own, contact) = (self.node_id(), self.contact.clone());
        if let Some(state) = &mut self.muster {
            let chair = state.chair();
            state.insert(Member {
                lot: lot(&self.config.network, &own),
                contact,
                candidacy,
                heard: now.at,
            });
            if state.chair() != chair {
                state.settled = now.at;
            }
            self.timers.at_latest(Timer::Muster, now.at);
        }
    }

    /// The chair, or an officer in its place, is at work.
    pub(super) fn muster_active(&mut self, now: Now) {
        if let Some(state) = &mut self.muster {
            state.settled = now.at;
        }
    }

    pub(super) fn muster_over(&mut self) {
        self.muster = None;
        self.timers.clear(Timer::Muster);
    }

    pub(super) fn muster_tick(&mut self, now: Now) {
        let own = self.node_id();
        let (interval, quiet) = (
            self.config.timing.muster.interval,
            self.config.timing.muster.quiet,
        );
        let Some(state) = &mut self.muster else {
            return;
        };
        let before = state.members.len();
        state.keep(|node, member| *node == own || now.at.since(member.heard) < quiet * 10);
        if state.members.len() != before {
            state.settled = now.at;
        }
        if state.outside() {
            if now.at < state.again {
                let again = state.again;
                return self.timers.at_latest(Timer::Muster, again);
            }
            // Whoever comes back waits like one who has just come.
            state.full.clear();
            state.settled = now.at;
        }
        let others: Vec<NodeId> = state
            .members
            .keys()
            .copied()
            .filter(|node| *node != own)
            .collect();
        // Whoever may take the chair must be able to call this peer.
        let chairs = state.chairs().filter(|node| *node != own).take(CHAIRS);
        // ...and who may take it next must know that this one is at work.
        let electing = self.election.is_some();
        let apart = chairs.filter(|chair| electing || !self.links.contains_key(chair));
        let apart: Vec<NodeId> = apart.collect();
        for node in self.pick(others, 3).into_iter().chain(apart) {
            let message = self.muster_message(now, GOSSIP);
            self.send(node, Kind::Muster(message));
        }
        self.take_chair(now);
        let wait = self.jitter(interval);
        self.timers.at_latest(Timer::Muster, now.at + wait);
    }

    /// Opens the founding election when the assembly has settled and it is
    /// this peer's turn.
    fn take_chair(&mut self, now: Now) {
        let timing = &self.config.timing;
        let (quiet, patience) = (timing.muster.quiet, timing.election.officer_timeout);
        let state = self.muster.as_ref().filter(|_| self.election.is_none());
        let Some(state) = state.filter(|state| !state.outside()) else {
            return;
        };
        let waited = now.at.since(state.settled);
        if waited < quiet || state.members.len() < MIN_ASSEMBLY {
            return;
        }
        let own = self.node_id();
        let Some(rank) = state.chairs().position(|node| node == own) else {
            return;
        };
        if waited < quiet + patience * u32::try_from(rank).unwrap_or(u32::MAX) {
            return;
        }
        let mut candidates: Vec<&Member> = state
            .members
            .values()
            .filter(|m| m.candidacy.eligible)
            .collect();
        candidates.sort_by_key(|m| (std::cmp::Reverse(m.candidacy.claim_bps), m.contact.node_id));
        let leaves = state.members.len();
        // The first few elect the others: the sooner they serve the better.
        let wanted = R;
        // Fewer candidates than wanted may just not have been dialled back yet.
        if candidates.is_empty() || (candidates.len() < wanted && waited < quiet * 3) {
            return;
        }
        let queue: Vec<Entrant> = candidates
            .iter()
            .map(|member| Entrant {
                contact: member.contact.clone(),
                via: None,
                claim_bps: member.candidacy.claim_bps,
            })
            .collect();
        let electorate: Vec<Contact> = state.contacts().cloned().collect();
        let reason = format!("{leaves} peers and no super-node");
        let (runner, term) = (Runner::Chair { electorate }, self.next_term(0));
        self.open_election(now, runner, term, queue, wanted, reason);
    }
}
