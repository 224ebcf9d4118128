//! The state machine of one peer: leaf and super-node alike.
//!
//! A driver feeds it [`Input`]s, calls [`Core::timeout`] when
//! [`Core::next_timeout`] is due, and carries out the [`Output`]s that
//! [`Core::poll`] hands over. All state changes in [`Core::handle`] and
//! [`Core::timeout`]; nothing here blocks, and no input panics.
//!
//! | file | what it decides |
//! |---|---|
//! | `candidacy` | does this peer pass the criteria |
//! | `addresses` | where others reach this peer |
//! | `homes` | which super-nodes this leaf leans on |
//! | `muster`, `assembly` | what peers do while nobody serves |
//! | `roster` | taking in mandates, contacts and releases |
//! | `alive` | which of those super-nodes answer |
//! | `sync`, `news` | passing them on |
//! | `sponsors` | how a newcomer among many catches up |
//! | `decrees` | what the operator decreed: spread and obeyed |
//! | `host` | leaves attached to this super-node |
//! | `leaves` | what is known of these, for operators |
//! | `handover` | which of them go to those who are elected later |
//! | `annals` | what is remembered of elections, for operators |
//! | `lanes` | who may run which election |
//! | `returning` | when the returning officer opens an election |
//! | `moved` | leaves that an operator has moved |
//! | `called` | elections that an operator calls |
//! | `running`, `papers` | elections: the races, and the mandates that follow |
//! | `race`, `levels` | one race: beacon and voters, then jury by jury |
//! | `jury` | serving as juror and candidate |
//! | `audit` | what is checked before another's paper is signed |
//! | `merge` | meeting another assembly's super-nodes |

mod addresses;
mod alive;
mod annals;
mod assembly;
mod audit;
mod called;
mod candidacy;
mod config;
mod decrees;
mod handover;
mod homes;
mod host;
mod io;
mod jury;
mod lanes;
mod leaves;
mod levels;
mod merge;
mod moved;
mod muster;
mod news;
mod papers;
mod race;
mod returning;
mod roster;
mod running;
mod sponsors;
mod sync;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use canopy_proto::wire::{self, core_message::Kind};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::contact::Contact;
use crate::decree::Register;
use crate::election::criteria::Verdict;
use crate::identity::Identity;
use crate::keyspace::NodeId;
use crate::placement::Placement;
use crate::roster::Roster;
use crate::swim::{self, Swim};
use crate::time::{Now, Time};

pub use annals::{ElectionRecord, RaceRecord};
pub use called::{CallRefused, Callable, MAX_CALLED};
pub use config::{Config, Stand};
pub use io::{Event, Input, Load, Measured, Output, Role, Status, SuperNodeStatus};
pub use lanes::{OFFICERS, lanes};
pub use leaves::LeafStatus;
pub use sync::Saved;

use timers::{Timer, Timers};

/// An open session, as the core sees it.
#[derive(Clone, Debug)]
struct Link {
    contact: Contact,
    inbound: bool,
    /// It is one of those that this peer was told to join by.
    named: bool,
    round_trip: Duration,
}

/// Sessions kept in mind besides those of leaves: super-nodes, jurors, passers-by.
const SPARE_LINKS: usize = 4096;

/// Outputs whose room is kept for the next ones.
const OUTPUTS_KEPT: usize = 16;

/// One peer.
pub struct Core {
    config: Config,
    identity: Identity,
    contact: Contact,
    rng: SmallRng,
    started: Time,
    outputs: VecDeque<Output>,
    /// Messages of this peer to itself: an officer that sits on its own jury.
    loopback: VecDeque<Box<wire::CoreMessage>>,
    timers: Timers,
    links: BTreeMap<NodeId, Link>,
    roster: Roster,
    placement: Placement,
    role: Role,
    candidacy: candidacy::State,
    addresses: addresses::State,
    /// The operator wants this peer to take on nothing new.
    cordoned: bool,
    decrees: Register,
    homes: homes::State,
    muster: Option<Box<assembly::State>>,
    jury: jury::State,
    host: Option<Box<host::State>>,
    election: Option<Box<running::Election>>,
    annals: annals::Annals,
    merge: merge::State,
    /// Founding assemblies whose mandates this peer accepts.
    assemblies: Vec<Vec<NodeId>>,
    /// Who gives this newcomer its first roster, and until when.
    bootstrapping: Option<(NodeId, Time)>,
    /// A peer that dialled us and claims an address that we were told to join
    /// by, and the token of the dial that will show whether it answers there.
    claiming: Option<(u64, NodeId)>,
    /// Entries of one message are being taken in, and whether any changed
    /// something.
    within: Option<bool>,
}

impl Core {
    /// A peer that knows nobody but the configured peers and what it `saved`
    /// in an earlier run. `seed` drives every random choice that it makes.
    pub fn new(
        config: Config,
        identity: Identity,
        seed: u64,
        now: Now,
        saved: Option<&Saved>,
    ) -> Self {
        let before = saved.and_then(|saved| saved.contact(&identity.node_id()));
        let holds =
            |contact: &Contact| contact.addrs == config.addrs && contact.zone == config.zone;
        // A new contact is news to everybody, and nobody believes an older one.
        let contact = match before {
            Some(contact) if holds(&contact) => contact,
            before => {
                let later = before.map_or(0, |contact| contact.issued_ms.saturating_add(1));
                let issued_ms = now.unix_ms.max(later);
                Contact::sign(&identity, &config.addrs, &config.zone, issued_ms)
            }
        };
        let mut core = Self {
            candidacy: candidacy::State::new(&config),
            addresses: addresses::State::default(),
            contact,
            rng: SmallRng::seed_from_u64(seed),
            started: now.at,
            outputs: VecDeque::new(),
            loopback: VecDeque::new(),
            timers: Timers::default(),
            links: BTreeMap::new(),
            roster: Roster::new(identity.node_id()),
            placement: Placement::empty(),
            role: Role::Leaf,
            cordoned: false,
            decrees: Register::default(),
            homes: homes::State::default(),
            muster: None,
            jury: jury::State::new(now.at, config.uplink_bps),
            host: None,
            election: None,
            annals: annals::Annals::default(),
            merge: merge::State::default(),
            assemblies: Vec::new(),
            bootstrapping: None,
            claiming: None,
            within: None,
            config,
            identity,
        };
        core.outputs
            .push_back(Output::Contact(core.contact.clone()));
        if let Some(saved) = saved {
            core.restore(now, saved);
        }
        if let Some(mandate) = core.config.designation.clone() {
            core.designated(now, mandate);
        }
        core.designated_before(now);
        core.timers.set(Timer::Bootstrap, now.at);
        core.timers.set(Timer::Candidacy, now.at);
        core
    }

    /// Who this peer is.
    pub fn node_id(&self) -> NodeId {
        self.contact.node_id
    }

    /// Where this peer is reached, as it tells others.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// What this peer is now.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who owns what, as far as this peer knows.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Who holds which mandate, as far as this peer knows.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Leaves attached to this super-node.
    pub fn hosted(&self) -> usize {
        self.host.as_ref().map_or(0, |host| host.leaves.len())
    }

    /// The last elections that this peer ran, oldest first; the last of them may
    /// be under way.
    pub fn elections(&self) -> &[ElectionRecord] {
        self.annals.all()
    }

    /// The term of the election that this peer runs now.
    pub fn election(&self) -> Option<u64> {
        self.election.as_ref().map(|election| election.term)
    }

    /// Every criterion as this peer met it when it was elected last, and when
    /// that was, milliseconds since 1970; `None`: it never was since its start.
    pub fn stood(&self) -> Option<&(u64, Verdict)> {
        self.candidacy.stood.as_ref()
    }

    /// The next thing to do outside, in order.
    pub fn poll(&mut self) -> Option<Output> {
        let next = self.outputs.pop_front();
        // A burst must not hold its memory for ever.
        if self.outputs.is_empty() && self.outputs.capacity() > OUTPUTS_KEPT {
            self.outputs = VecDeque::new();
        }
        next
    }

    /// When [`Core::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        let swim = self.host.as_ref().and_then(|host| host.swim.next_timeout());
        [self.timers.next(), swim].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.due(now.at) {
            match timer {
                Timer::Bootstrap => self.bootstrap_tick(now),
                Timer::Muster => self.muster_tick(now),
                Timer::Homes => self.homes_tick(now),
                Timer::Candidacy => self.candidacy_tick(now),
                Timer::Report => self.report_tick(now),
                Timer::Election => self.election_tick(now),
                Timer::Jury => self.jury_tick(now),
                Timer::Sync => self.sync_tick(now),
                Timer::Merge => self.merge_tick(now),
                Timer::Expiry => self.expiry_tick(now),
                Timer::News => self.news_tick(),
            }
        }
        if let Some(host) = &mut self.host {
            let effects = host.swim.timeout(now.at);
            self.swim_effects(now, effects);
        }
        self.hear_oneself(now);
    }

    fn hear_oneself(&mut self, now: Now) {
        let own = self.node_id();
        while let Some(message) = self.loopback.pop_front() {
            if let Some(kind) = message.kind {
                self.message(now, own, kind);
            }
        }
    }

    /// Takes in what happened outside.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::SessionUp {
                contact,
                inbound,
                observed,
                round_trip,
                clock_offset_ms,
            } => {
                self.linked(now, contact, inbound, round_trip, clock_offset_ms);
                if let Some(observed) = observed {
                    self.observed(now, observed);
                }
            }
            Input::SessionDown(node) => {
                self.links.remove(&node);
                self.session_down(now, node);
            }
            Input::Unreachable(node) => self.unreachable(now, node),
            Input::Message { from, message } => {
                if let Some(kind) = message.kind {
                    self.message(now, from, kind);
                }
            }
            Input::DialedBack { token, reached } => self.dialed_back(now, token, reached),
            Input::Measured { token, result } => self.measured(now, token, result),
            Input::Mapped(addr) => self.mapped(now, addr),
            Input::Load(load) => {
                if let Some(host) = &mut self.host {
                    host.load = load;
                }
            }
            Input::HandedOver => self.handed_over(now),
            Input::StepDown => self.step_down(now, "asked to step down"),
            Input::Designated(mandate) => self.designated(now, mandate),
            Input::Cordon(on) => {
                self.cordoned = on;
                if on && self.role == Role::Deputy {
                    // It could be called into office any time.
                    self.step_down(now, "cordoned by its operator");
                }
                self.timers.at_latest(Timer::Candidacy, now.at);
            }
            Input::Decree(signed) => self.decreed_here(now, signed),
            Input::MoveLeaves(moves) => self.move_leaves(now, &moves),
            Input::CallElection(places) => self.call_election(now, places),
        }
        self.hear_oneself(now);
    }

    fn linked(
        &mut self,
        now: Now,
        contact: Contact,
        inbound: bool,
        round_trip: Duration,
        clock_offset_ms: i64,
    ) {
        let node = contact.node_id;
        self.candidacy.clock_sample(clock_offset_ms);
        let known = self.links.contains_key(&node);
        if known || self.links.len() < self.config.max_leaves.saturating_add(SPARE_LINKS) {
            let named = self.was_named(&contact, inbound);
            let link = Link {
                contact: contact.clone(),
                inbound,
                named,
                round_trip,
            };
            self.links.insert(node, link);
        }
        self.roster_contact(now, contact);
        self.session_up(now, node);
    }

    /// Whether this peer was told of `contact`. An address may be anybody's
    /// claim, so that it counts only for one who answers there, and whom nobody
    /// else told us of.
    fn was_named(&self, contact: &Contact, inbound: bool) -> bool {
        let told = self.muster.as_ref();
        let told = told.is_some_and(|muster| muster.knows(&contact.node_id));
        self.config.peers.iter().any(|(node, addr)| match node {
            Some(node) => *node == contact.node_id,
            None => !inbound && !told && contact.addrs.contains(addr),
        })
    }

    fn message(&mut self, now: Now, from: NodeId, kind: Kind) {
        if self.turns_away(from, &kind) {
            return;
        }
        match kind {
            Kind::Gossip(packet) => self.on_gossip(now, from, &packet),
            Kind::RosterDigest(digest) => self.on_roster_digest(now, from, digest),
            Kind::Roster(entries) => self.on_roster(now, from, entries),
            Kind::SeatsAsk(ask) => self.on_seats_ask(from, &ask),
            Kind::Muster(muster) => self.on_muster(now, from, muster),
            Kind::Attach(attach) => self.on_attach(now, from, attach),
            Kind::Attached(attached) => self.on_attached(now, from, &attached),
            Kind::Redirect(redirect) => self.on_redirect(now, from, redirect),
            Kind::Standing(standing) => self.on_standing(from, standing),
            Kind::HomeLost(lost) => self.on_home_lost(now, from, &lost),
            Kind::LoadReport(report) => self.on_load_report(now, from, report),
            Kind::DialBackAsk(ask) => self.on_dial_back_ask(now, from, &ask),
            Kind::DialBackResult(result) => self.on_dial_back_result(now, from, &result),
            Kind::BeaconAsk(ask) => self.on_beacon_ask(from, &ask),
            Kind::BeaconShare(share) => self.on_beacon_share(now, from, share),
            Kind::VotersAsk(ask) => self.on_voters_ask(from, &ask),
            Kind::Voters(voters) => self.on_voters(now, from, voters),
            Kind::Summons(summons) => self.on_summons(now, from, summons),
            Kind::SummonsReply(reply) => self.on_summons_reply(now, from, reply),
            Kind::JuryNotice(notice) => self.on_jury_notice(now, from, &notice),
            Kind::AuditAsk(ask) => self.on_audit_ask(now, from, &ask),
            Kind::AuditReply(reply) => self.on_audit_reply(now, from, reply),
            Kind::Forward(forward) => self.on_forward(now, from, forward),
            Kind::Decrees(decrees) => self.on_decrees(now, from, decrees),
            Kind::DecreeKeys(keys) => self.on_decree_keys(from, &keys),
        }
    }

    /// Sends to `node`, through its home `via` where that is known: it may not
    /// have heard yet that this peer serves, but its home has.
    fn send_via(&mut self, node: NodeId, via: Option<NodeId>, kind: Kind) {
        match via {
            Some(home) if home != self.node_id() => {
                let message =
                    prost::Message::encode_to_vec(&wire::CoreMessage { kind: Some(kind) });
                let forward = wire::Forward {
                    from: self.node_id().to_bytes(),
                    to: node.to_bytes(),
                    message: message.into(),
                };
                self.send(home, Kind::Forward(forward));
            }
            _ => self.send(node, kind),
        }
    }

    fn send(&mut self, node: NodeId, kind: Kind) {
        let addrs = match self.links.get(&node) {
            Some(link) => link.contact.addrs.clone(),
            None => self.addrs_of(&node),
        };
        self.send_to(node, addrs, kind);
    }

    fn send_to(&mut self, node: NodeId, addrs: Vec<SocketAddr>, kind: Kind) {
        let message = Box::new(wire::CoreMessage { kind: Some(kind) });
        self.outputs.push_back(Output::Send {
            node,
            addrs,
            message,
        });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// `base` give or take a quarter, so that peers do not act in step.
    fn jitter(&mut self, base: Duration) -> Duration {
        let micros = u64::try_from(base.as_micros()).map_or(u64::MAX / 4, |m| m.min(u64::MAX / 4));
        Duration::from_micros(
            self.rng
                .random_range(micros - micros / 4..=micros + micros / 4),
        )
    }

    /// Up to `count` distinct picks of `from`, in random order.
    fn pick<T: Copy>(&mut self, mut from: Vec<T>, count: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(count.min(from.len()));
        while out.len() < count && !from.is_empty() {
            let index = self.rng.random_range(0..from.len());
            out.push(from.swap_remove(index));
        }
        out
    }

    fn swim_effects(&mut self, now: Now, effects: swim::Effects) {
        for (node, packet) in effects.packets {
            self.send(node, Kind::Gossip(packet));
        }
        for change in effects.changes {
            match change {
                swim::Change::Up(node) => self.member_up(now, node),
                swim::Change::Down(node) => self.member_down(now, node),
            }
        }
        self.back_from_the_dead(now);
    }

    fn set_role(&mut self, role: Role) {
        if self.role != role {
            self.role = role;
            self.outputs.push_back(Output::Role(role));
            self.event(Event::Role(role));
        }
    }

    fn new_swim(&mut self) -> Swim {
        let config = swim::config(&self.config.timing.gossip);
        let epoch = self.contact.issued_ms;
        Swim::new(self.node_id(), epoch, config, self.rng.next_u64())
    }

    /// What this peer knows of itself and the overlay.
    pub fn status(&self, now: Now) -> Status {
        let super_nodes = self
            .roster
            .serving()
            .map(|entry| SuperNodeStatus {
                node: entry.node(),
                addrs: entry.addrs().to_vec(),
                capacity_bps: entry.capacity_bps,
                seats: entry.seats,
                term: entry.term,
                domain: entry.domain.to_string(),
            })
            .collect();
        let own = self.roster.get(&self.node_id());
        Status {
            node: self.node_id(),
            role: self.role,
            homes: self.homes.nodes(),
            super_nodes,
            capacity_bps: own.map_or(self.candidacy.measured_bps, |entry| entry.capacity_bps),
            verdict: self.verdict(now),
            leaves: self.hosted(),
            assembly: self.muster.as_ref().map_or(0, |muster| muster.len()),
            term: self.roster.max_term(),
            election: self.election(),
            cordoned: self.cordoned,
        }
    }
}
