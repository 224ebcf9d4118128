//! Taking in mandates, contacts and releases, and acting on what they change.
//! Nothing gets past [`Core::admit`] unverified, and what is refused is said.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use canopy_proto::wire;
use prost::Message;

use super::host::GREETED;
use super::sync::BATCH;
use super::timers::Timer;
use super::{Core, Event, Output, Role};
use crate::contact::Contact;
use crate::election::endorse::{MandateError, VerifyContext};
use crate::election::mandate::{self, Basis, VerifiedMandate};
use crate::election::release;
use crate::keyspace::NodeId;
use crate::placement::Member;
use crate::roster::{Known, Nobody};
use crate::time::Now;

/// Peers to join by, told or referred to.
const MAX_PEERS: usize = 512;
/// Founding assemblies remembered.
const MAX_ASSEMBLIES: usize = 8;
/// How far a term may lie ahead of the highest one known. Terms grow by one an
/// election, so that whoever sees more has been away for long, or is lied to.
const MAX_TERM_AHEAD: u64 = 1 << 20;
/// How late an expiry may be noticed after the wall clock jumped, milliseconds: by
/// those who serve...
const CLOCK_CHECK_MS: u64 = 60_000;
/// ...and by those who follow them.
const LEAF_CLOCK_CHECK_MS: u64 = 300_000;

impl Core {
    /// Judges a paper with what this peer knows; as a newcomer who knows
    /// nobody, if so asked.
    pub(super) fn judge<T>(
        &self,
        now: Now,
        newcomer: bool,
        check: impl FnOnce(&VerifyContext<'_>) -> T,
    ) -> T {
        let inside = self.muster.as_ref().filter(|muster| !muster.outside());
        let mustered: Vec<NodeId> = match inside {
            Some(muster) => muster.contacts().map(|contact| contact.node_id).collect(),
            None => Vec::new(),
        };
        let mut assemblies: Vec<&[NodeId]> = self.assemblies.iter().map(Vec::as_slice).collect();
        assemblies.push(&mustered);
        let known = Known {
            roster: &self.roster,
            placement: &self.placement,
        };
        check(&VerifyContext {
            network: &self.config.network,
            operator: self.config.operator,
            now_ms: now.unix_ms,
            authorities: if newcomer { &Nobody } else { &known },
            assemblies: &assemblies,
            bootstrap: newcomer,
            brief: self.host.is_none(),
            held: &|node| self.roster.held(node),
        })
    }

    /// Whether a peer that knows nobody alive may take its roster from `from`:
    /// from those it was told to join by and dialled itself, from a super-node
    /// that it knew before; from anybody if it was told of nobody. The first to
    /// answer gives it all.
    fn may_bootstrap_from(&self, now: Now, from: &NodeId) -> bool {
        if let Some((giver, until)) = self.bootstrapping
            && now.at < until
        {
            return giver == *from;
        }
        let nobody = self.roster.serving().next().is_none();
        let named = self.links.get(from).is_some_and(|link| link.named);
        let known = self.roster.get(from).is_some_and(|entry| entry.in_office());
        nobody && (named || known || self.config.peers.is_empty())
    }

    /// A leaf that we were told to join by has no papers to give, and names
    /// super-nodes instead: they count as told of. True if one was dialled,
    /// which it is if we `may`.
    fn referred(&mut self, entry: &wire::RosterEntry, may: bool) -> bool {
        let contact = Contact::given(&entry.contact);
        let Some(contact) = contact.filter(|c| c.node_id != self.node_id()) else {
            return false;
        };
        self.name(contact, may)
    }

    pub(super) fn has_room_for_peers(&self) -> bool {
        self.config.peers.len() < MAX_PEERS
    }

    /// From now on `contact` is one of those to join by, and dialled if we `may`.
    pub(super) fn name(&mut self, contact: Contact, may: bool) -> bool {
        let node = Some(contact.node_id);
        if self.roster.get(&contact.node_id).is_some() {
            return false;
        }
        let known = self.config.peers.iter().any(|(peer, _)| *peer == node);
        if let (false, Some(addr)) = (known, contact.addrs.first()) {
            if self.has_room_for_peers() {
                self.config.peers.push((node, *addr));
            }
            let addrs = contact.addrs.clone();
            if may {
                self.outputs.push_back(Output::Connect { node, addrs });
                return true;
            }
        }
        false
    }

    /// Checks one entry and takes in what is new in it; says about whom. A
    /// mandate that has ended tells a newcomer of nobody who serves, and its
    /// release would be signed by people it does not know.
    pub(super) fn admit(
        &mut self,
        now: Now,
        entry: &wire::RosterEntry,
        bootstrap: bool,
    ) -> Result<Option<NodeId>, MandateError> {
        let contact = Contact::given(&entry.contact);
        self.admit_of(now, entry, contact, bootstrap)
    }

    /// The same, where the `contact` that the entry gives is opened already.
    pub(super) fn admit_of(
        &mut self,
        now: Now,
        entry: &wire::RosterEntry,
        contact: Option<Contact>,
        bootstrap: bool,
    ) -> Result<Option<NodeId>, MandateError> {
        if let Some(release) = &entry.release {
            return Ok(match bootstrap {
                true => None,
                false => self.admit_release(now, entry.mandate.as_ref(), release),
            });
        }
        let opened = match &entry.mandate {
            Some(signed) if !self.holds(signed, contact.as_ref()) => {
                Some(self.judge(now, bootstrap, |context| mandate::open(signed, context))?)
            }
            _ => None,
        };
        let mut about = None;
        let mut news = false;
        if let Some(mandate) = opened {
            let candidate = mandate.mandate().candidate;
            let measured = mandate.mandate().basis != Basis::Designated;
            if measured && mandate.signed().ballots.is_empty() && candidate == self.node_id() {
                // Whoever serves has to show its mandate whole.
                return Err(MandateError::JurySize(0));
            }
            about = Some(candidate);
            if self.has_room(&mandate, bootstrap) {
                let before = self.roster.serves(&candidate);
                let its = contact.as_ref().filter(|c| c.node_id == candidate);
                if self.roster.insert(&mandate, its) {
                    news = true;
                    self.mandate_taken(now, &mandate, before);
                }
            }
        }
        if let Some(contact) = contact.filter(|c| about.is_none_or(|node| node == c.node_id)) {
            about = Some(contact.node_id);
            news |= self.contact_taken(now, contact);
        }
        Ok(about.filter(|_| news))
    }

    /// Puts back a mandate that had ended by a release when this peer saved it.
    /// Both were checked when they came; who signed the release may be long
    /// gone.
    pub(super) fn remember_ended(
        &mut self,
        now: Now,
        entry: &wire::RosterEntry,
        release: &wire::SignedRelease,
    ) {
        let Some(signed) = &entry.mandate else { return };
        let mandate = self.judge(now, true, |context| mandate::open(signed, context));
        let ended = self.judge(now, true, |context| release::audit(&release.body, context));
        if let (Ok(mandate), Ok(ended)) = (mandate, ended)
            && mandate.mandate().candidate == ended.candidate
            && self.roster.insert(&mandate, None)
        {
            self.roster
                .release(&ended.candidate, ended.term, release.clone());
        }
    }

    /// A roster has its limit, and a term that nobody can have reached would
    /// leave no number for the next one.
    fn has_room(&self, mandate: &VerifiedMandate, bootstrap: bool) -> bool {
        let mandate = mandate.mandate();
        let ahead = mandate.term.saturating_sub(self.roster.max_term());
        let designated = mandate.basis == Basis::Designated;
        let plausible = ahead <= MAX_TERM_AHEAD || (bootstrap && mandate.term < u64::MAX / 2);
        let known = self.roster.get(&mandate.candidate).is_some();
        let own = mandate.candidate == self.node_id();
        let room = known || own || self.roster.len() < self.config.most_super_nodes();
        room && (plausible || designated)
    }

    /// Whether `mandate`, which came with this contact, is known already.
    fn holds(&self, mandate: &wire::SignedMandate, contact: Option<&Contact>) -> bool {
        // Comparing bodies needs no signature check. The body names the candidate,
        // whose contact comes with it most often.
        let candidate = match contact {
            Some(contact) => Some(contact.node_id),
            None => named_in(mandate).map(|(candidate, _)| candidate),
        };
        let entry = candidate.and_then(|candidate| self.roster.get(&candidate));
        let held = entry.and_then(|entry| entry.mandate());
        held.is_some_and(|held| held.body == mandate.body)
    }

    /// Whether this peer knows already that what `release` ends has ended.
    fn has_ended(&self, release: &wire::SignedRelease) -> bool {
        let ended = wire::Release::decode(release.body.clone()).ok();
        let node = ended.and_then(|ended| NodeId::from_slice(&ended.candidate));
        let entry = node.and_then(|node| self.roster.get(&node));
        entry.is_some_and(|entry| entry.release.as_ref() == Some(release))
    }

    /// Takes in a release, and the mandate that it ends where it came with
    /// that: such a mandate counts for nothing else. Says whose, if it ended
    /// something.
    pub(super) fn admit_release(
        &mut self,
        now: Now,
        mandate: Option<&wire::SignedMandate>,
        release: &wire::SignedRelease,
    ) -> Option<NodeId> {
        if self.has_ended(release) {
            return None;
        }
        let checked = self.judge(now, false, |context| release::open(release, context));
        let checked = checked.ok()?;
        let (candidate, term) = (checked.release().candidate, checked.release().term);
        let served = self.roster.serves(&candidate);
        if let Some(signed) = mandate.filter(|mandate| !self.holds(mandate, None))
            && let Ok(mandate) = self.judge(now, false, |context| mandate::open(signed, context))
            && mandate.mandate().candidate == candidate
            && mandate.mandate().term == term
            && self.has_room(&mandate, false)
        {
            self.roster.insert(&mandate, None);
        }
        if !self.roster.release(&candidate, term, release.clone()) {
            return None;
        }
        if candidate == self.node_id() {
            self.retire(now);
        } else if served {
            self.event(Event::SuperNodeDown {
                node: candidate,
                reason: "released",
            });
            if let Some(host) = &mut self.host {
                host.reports.remove(&candidate);
            }
        }
        self.roster_changed(now);
        Some(candidate)
    }

    fn mandate_taken(&mut self, now: Now, mandate: &VerifiedMandate, served: bool) {
        let mandate = mandate.mandate();
        if self.decrees.voids(mandate) {
            // It is kept like one that was ended: others need not send it again.
            self.roster.set_barred(&mandate.candidate, true);
            return self.roster_changed(now);
        }
        let founded = mandate.basis == Basis::Founded && !mandate.assembly.is_empty();
        if founded && !self.assemblies.contains(&mandate.assembly) {
            if self.assemblies.len() == MAX_ASSEMBLIES {
                self.assemblies.remove(0);
            }
            self.assemblies.push(mandate.assembly.clone());
        }
        let own = mandate.candidate == self.node_id();
        if own {
            self.mandated(now, mandate);
        }
        self.stranger_elected(now, &mandate.candidate);
        self.tell_elected_leaf(&mandate.candidate);
        if !mandate.deputy && !served {
            self.event(Event::SuperNodeUp {
                node: mandate.candidate,
                capacity_bps: mandate.capacity_bps,
                seats: mandate.seats(),
                term: mandate.term,
            });
        }
        // Who retires has left the failure detector, and takes others at their word.
        if !own && !mandate.deputy && self.role == Role::SuperNode {
            let many = self.roster.serving_count() > GREETED;
            self.watch(now, &mandate.candidate, many);
            if !served {
                self.share_leaves_with(mandate.candidate);
            }
        }
        self.roster_changed(now);
    }

    /// Recomputes what follows from the roster; within a message of many entries,
    /// at its end.
    pub(super) fn roster_changed(&mut self, now: Now) {
        if let Some(changed) = &mut self.within {
            *changed = true;
            return;
        }
        if self.host.is_none() {
            let keep = self.homes.nodes();
            self.roster.trim(self.config.cache, &keep);
        }
        let changed = self.roster.take_changed();
        let entries = changed.iter().filter_map(|node| self.roster.get(node));
        let next = entries.map(|entry| entry.expires_ms).min();
        let entries = changed.iter().filter_map(|node| self.roster.get(node));
        let serving = entries.filter(|entry| entry.serves());
        let joiners: Vec<Member> = serving.map(|entry| entry.member()).collect();
        let leavers = changed.iter().copied();
        let leavers = leavers.filter(|node| !self.roster.serves(node));
        let placement = self.placement.updated(leavers, joiners);
        if self.placement.is_empty() && !placement.is_empty() {
            self.compare_with_some();
        }
        if placement.version() != self.placement.version() {
            self.placement = placement.clone();
            self.outputs.push_back(Output::Placement(placement));
        }
        self.outputs.push_back(Output::Save);
        if self.roster.serving().next().is_some() {
            self.muster_over();
        }
        self.expiry_due(now, next);
        self.timers.at_latest(Timer::Homes, now.at);
        let soon = self.config.timing.election.sample_interval;
        self.timers.at_latest(Timer::Candidacy, now.at + soon);
    }

    fn clock_check_ms(&self) -> u64 {
        match self.host.is_some() {
            true => CLOCK_CHECK_MS,
            false => LEAF_CLOCK_CHECK_MS,
        }
    }

    /// Sees to it that the mandate that ends `next` is looked at then.
    fn expiry_due(&mut self, now: Now, next: Option<u64>) {
        let Some(next) = next else {
            return;
        };
        let left = next.saturating_sub(now.unix_ms);
        let left = left.clamp(1, self.clock_check_ms());
        let at = now.at + Duration::from_millis(left);
        self.timers.at_latest(Timer::Expiry, at);
    }

    pub(super) fn roster_contact(&mut self, now: Now, contact: Contact) {
        if self.contact_taken(now, contact) {
            self.outputs.push_back(Output::Save);
        }
    }

    /// Notes a contact, by which the failure detector knows its holder, too. True if
    /// it is newer than the one known.
    fn contact_taken(&mut self, now: Now, contact: Contact) -> bool {
        let (node, issued_ms) = (contact.node_id, contact.issued_ms);
        if node == self.node_id() && issued_ms > self.contact.issued_ms {
            self.outdated(now, issued_ms);
            return false;
        }
        let newer = self.roster.contact(contact);
        let in_office = self.roster.get(&node).is_some_and(|e| e.in_office());
        if newer && in_office && !self.follows() && node != self.node_id() {
            self.swim_learn(now, &node);
        }
        newer
    }

    pub(super) fn on_roster(&mut self, now: Now, from: NodeId, entries: wire::RosterEntries) {
        let trust = self.may_bootstrap_from(now, &from);
        // Of a crowd that waits for the first who serve, each asks one of them.
        let crowd = self.muster.as_ref().is_some_and(|muster| muster.outside());
        let mut dials = if crowd { 1 } else { BATCH };
        let alone = entries.entries.is_empty();
        let mut news = Vec::new();
        let mut foreign = Vec::new();
        self.within = Some(false);
        for entry in entries.entries.into_iter().take(BATCH) {
            let mut verdict = self.admit(now, &entry, false);
            if trust && verdict.as_ref().is_err_and(of_strangers) {
                verdict = self.admit(now, &entry, true);
                // One who knows nobody who serves gives no roster.
                let serves = self.roster.serving().next().is_some();
                if serves && matches!(verdict, Ok(Some(_))) {
                    let lasts = self.config.timing.muster.roster_interval;
                    self.bootstrapping = Some((from, now.at + lasts));
                }
            }
            if verdict.as_ref().is_err_and(of_strangers)
                && let Some(mandate) = &entry.mandate
                && (self.lacks_papers(mandate)
                    || self.is_sponsored(&from, mandate)
                    || self.vouched_by_homes(now, from, mandate))
            {
                verdict = self.admit(now, &entry, true);
            }
            if entry.mandate.is_none() && entry.release.is_none() {
                // Where an operator's key vouches for the super-nodes, a wrong
                // referral costs a dial and nothing else.
                match trust || self.config.operator.is_some() {
                    true => dials -= usize::from(self.referred(&entry, dials > 0)),
                    false if self.muster.is_some() => self.founded(now, from, &entry),
                    false => self.pointed_at(now, from, &entry),
                }
            }
            match verdict {
                Ok(about) => {
                    news.extend(about);
                    self.vouched(now, &from, &entry, &entries.dead);
                }
                Err(error) => {
                    self.refused(&entry, &error);
                    if of_strangers(&error) {
                        foreign.push(entry);
                    }
                }
            }
        }
        if self.within.take() == Some(true) {
            self.roster_changed(now);
        }
        // A newcomer among many takes most of them for strangers at first.
        if !foreign.is_empty() && !self.is_catching_up() {
            if self.is_left_behind(now) {
                self.step_down(now, "alone, while others serve");
            }
            self.met_foreign(now, from, foreign);
        }
        for node in news {
            match self.host.is_some() {
                true => self.pass_on(now, node, from),
                false => self.tell_homes(&node, from),
            }
        }
        if self.homes.nodes().contains(&from) {
            self.advice(now, &entries.dead);
        }
        if alone {
            self.told_of_the_dead(now, &from, &entries.dead);
        }
    }

    /// A leaf that is elected knows who serves and has nobody's papers. Those of
    /// them whose signers it does not know it takes all the same: it follows
    /// their holders already.
    fn lacks_papers(&self, mandate: &wire::SignedMandate) -> bool {
        let entry = named_in(mandate).and_then(|(candidate, term)| {
            let entry = self.roster.get(&candidate)?;
            (entry.term == term).then_some(entry)
        });
        self.host.is_some() && entry.is_some_and(|e| e.serves() && e.mandate().is_none())
    }

    /// Who follows learns that a super-node which did not answer is alive: by its
    /// home, or, while it knows nobody alive, by anyone who has its papers.
    /// Another leaf has not, and may only not have noticed yet.
    fn vouched(&mut self, now: Now, from: &NodeId, entry: &wire::RosterEntry, dead: &[Bytes]) {
        let signer = entry.contact.as_ref().map(|contact| &contact.signer);
        let Some(node) = signer.and_then(|signer| NodeId::from_slice(signer)) else {
            return;
        };
        let may = self.homes.nodes().contains(from) || self.roster.serving().next().is_none();
        let serves = entry.mandate.is_some() && entry.release.is_none();
        let alive = serves && !dead.iter().any(|other| other.as_ref() == node.0);
        if self.follows() && may && alive && self.roster.set_down(&node, false) {
            self.roster_changed(now);
        }
    }

    pub(super) fn refused(&mut self, entry: &wire::RosterEntry, error: &MandateError) {
        let named = entry.mandate.as_ref().and_then(named_in);
        self.event(Event::MandateRefused {
            candidate: named.map(|(candidate, _)| candidate),
            reason: error.to_string(),
        });
    }

    pub(super) fn expiry_tick(&mut self, now: Now) {
        self.expire_decrees(now);
        let over = self.roster.expire(now.unix_ms);
        for node in &over {
            self.event(Event::SuperNodeDown {
                node: *node,
                reason: "its mandate expired",
            });
        }
        if over.contains(&self.node_id()) {
            self.retire(now);
        }
        if !over.is_empty() {
            self.roster_changed(now);
        }
        if self.role == Role::Deputy && self.roster.get(&self.node_id()).is_none() {
            self.set_role(Role::Leaf);
        }
        self.timers.set(
            Timer::Expiry,
            now.at + Duration::from_millis(self.clock_check_ms()),
        );
        self.expiry_due(now, self.roster.next_expiry());
        let mut silent = Vec::new();
        if let Some(host) = &mut self.host {
            silent.extend(
                host.joining
                    .iter()
                    .filter(|(_, at)| **at <= now.at)
                    .map(|(node, _)| *node),
            );
            host.joining.retain(|_, at| *at > now.at);
            if let Some(next) = host.joining.values().min() {
                self.timers.at_latest(Timer::Expiry, *next);
            }
        }
        for node in silent {
            // The failure detector may hear of it by its contact later.
            self.swim_bury(now, &node);
            self.member_down(now, node);
        }
    }

    /// Where `node` can be reached without a session: from the roster, the
    /// assembly, the leaves of this super-node, or an election under way.
    pub(super) fn addrs_of(&self, node: &NodeId) -> Vec<SocketAddr> {
        if let Some(entry) = self.roster.get(node)
            && !entry.addrs().is_empty()
        {
            return entry.addrs().to_vec();
        }
        let in_muster = self
            .muster
            .as_ref()
            .and_then(|muster| muster.addrs_of(node));
        let in_election = || {
            self.election
                .as_ref()
                .and_then(|election| election.addrs_of(node))
        };
        in_muster.or_else(in_election).unwrap_or_default()
    }
}

/// Refused for who signed it, and for nothing else.
fn of_strangers(error: &MandateError) -> bool {
    matches!(
        error,
        MandateError::NoAuthority
            | MandateError::Endorsements { .. }
            | MandateError::Officer(_)
            | MandateError::ForeignAssembly
    )
}

/// Whom a mandate names, and the term; nothing of it is checked.
pub(super) fn named_in(mandate: &wire::SignedMandate) -> Option<(NodeId, u64)> {
    let body = wire::Mandate::decode(mandate.body.clone()).ok()?;
    Some((NodeId::from_slice(&body.candidate)?, body.term))
}

/// Whether a mandate is held in reserve; nothing of it is checked.
pub(super) fn is_deputys(mandate: &wire::SignedMandate) -> bool {
    wire::Mandate::decode(mandate.body.clone()).is_ok_and(|body| body.deputy)
}
