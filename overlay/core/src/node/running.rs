//! Running an election: the races, then the papers that follow
//! from them (mandates, recalls), signed by auditors or the assembly.
//!
//! The chair of an assembly and the returning officer of an overlay run the
//! same code; they differ in who votes and who signs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::race::{Raced, Run};
use super::timers::Timer;
use super::{Core, Event};
use crate::contact::Contact;
use crate::election::K;
use crate::election::mandate::{self, Basis, Mandate};
use crate::election::release::{self, Release};
use crate::identity::{Domain, verify_bytes};
use crate::keyspace::{Key, NodeId};
use crate::time::{Now, Time};

/// Auditors asked at once; two have to sign.
const AUDITORS: usize = 4;
/// Races of one election at most.
const MAX_RACES: usize = 16;
/// Leaves for each race that is under way: four juries' worth.
const ELECTORS_A_RACE: usize = 4 * K;
/// A candidate that scores less than one part in this many of its claim does
/// not count as measured in turn: others may be stronger.
const CLAIM_MISSED: u64 = 2;

/// Someone to be measured, up to what it claims.
#[derive(Clone)]
pub(super) struct Entrant {
    pub(super) contact: Contact,
    /// Bits a second.
    pub(super) claim_bps: u64,
}

/// In which capacity this peer runs the election.
pub(super) enum Runner {
    /// Of an assembly, whose members vote and sign.
    Chair {
        /// The members.
        electorate: Vec<Contact>,
    },
    /// As returning officer.
    Officer {
        /// Deputies to call into office.
        activate: Vec<NodeId>,
        /// How many to elect in reserve.
        deputies: usize,
    },
}

/// A body that others have to sign.
pub(super) struct Paper {
    body: Bytes,
    candidate: NodeId,
    contact: Option<wire::Signed>,
    is_release: bool,
    endorsements: Vec<wire::Endorsement>,
    done: bool,
}

impl Paper {
    pub(super) fn mandate(mandate: Mandate, contact: Option<wire::Signed>) -> Self {
        Self {
            body: mandate.encode(),
            candidate: mandate.candidate,
            contact,
            is_release: false,
            endorsements: Vec::new(),
            done: false,
        }
    }

    fn release(release: &Release) -> Self {
        Self {
            body: release.encode(),
            candidate: release.candidate,
            contact: None,
            is_release: true,
            endorsements: Vec::new(),
            done: false,
        }
    }

    fn domain(&self) -> Domain {
        if self.is_release {
            Domain::Release
        } else {
            Domain::Mandate
        }
    }
}

/// An election under way.
pub(super) struct Election {
    pub(super) term: u64,
    pub(super) runner: Runner,
    queue: VecDeque<Entrant>,
    wanted: usize,
    /// Races under way, by candidate.
    pub(super) runs: BTreeMap<NodeId, Run>,
    /// How many may be.
    at_once: usize,
    pub(super) raced: Vec<Raced>,
    races: usize,
    papers: Vec<Paper>,
    /// All papers are drawn up; only signatures are missing.
    drawn_up: bool,
    elected: Vec<NodeId>,
    /// When it goes on, whatever the races do.
    next: Option<Time>,
}

impl Election {
    pub(super) fn addrs_of(&self, node: &NodeId) -> Option<Vec<SocketAddr>> {
        if let Some(run) = self.runs.get(node) {
            return Some(run.candidate.addrs.clone());
        }
        let mut voters = self.runs.values().filter_map(|run| run.voters.get(node));
        voters.next().map(|voter| voter.contact.addrs.clone())
    }

    fn founding(&self) -> bool {
        matches!(self.runner, Runner::Chair { .. })
    }

    /// How many of an assembly have to sign; none: it is no founding.
    fn signers_needed(&self) -> Option<usize> {
        match &self.runner {
            Runner::Chair { electorate } => Some(electorate.len() / 2 + 1),
            Runner::Officer { .. } => None,
        }
    }

    /// Places to fill, in office and in reserve.
    fn places(&self) -> usize {
        match self.runner {
            Runner::Chair { .. } => self.wanted,
            Runner::Officer { deputies, .. } => self.wanted + deputies,
        }
    }

    /// Whether enough candidates kept what they claimed, or may do so yet.
    fn enough(&self) -> bool {
        let kept = self.raced.iter().filter(|raced| raced.kept_its_claim());
        self.papers.len() + kept.count() + self.runs.len() >= self.places()
            || self.races >= MAX_RACES
    }
}

impl Raced {
    fn kept_its_claim(&self) -> bool {
        self.outcome.elected && self.outcome.score_bps >= self.claim_bps / CLAIM_MISSED
    }
}

impl Core {
    pub(super) fn open_election(
        &mut self,
        now: Now,
        runner: Runner,
        term: u64,
        queue: Vec<Entrant>,
        wanted: usize,
        reason: String,
    ) {
        let at_once = match runner {
            Runner::Chair { .. } => 1,
            Runner::Officer { .. } => self.races_at_once(),
        };
        let election = Election {
            term,
            runner,
            queue: queue.into(),
            wanted,
            runs: BTreeMap::new(),
            at_once,
            raced: Vec::new(),
            races: 0,
            papers: Vec::new(),
            drawn_up: false,
            elected: Vec::new(),
            next: Some(now.at),
        };
        let places = election.places();
        let candidates = election
            .queue
            .iter()
            .take(places.min(MAX_RACES))
            .map(|entrant| entrant.contact.node_id)
            .collect();
        self.event(Event::ElectionOpened {
            term,
            wanted: places,
            candidates,
            reason,
        });
        self.election = Some(Box::new(election));
        self.set_election_timer();
    }

    /// What of the election is due: races that take too long, and what comes
    /// after those that are over.
    pub(super) fn election_tick(&mut self, now: Now) {
        let Some(election) = &mut self.election else {
            return;
        };
        let overdue = election
            .runs
            .iter()
            .filter(|(_, run)| run.deadline <= now.at);
        let overdue: Vec<NodeId> = overdue.map(|(candidate, _)| *candidate).collect();
        let next = election.next.take_if(|at| *at <= now.at);
        for candidate in overdue {
            self.race_overdue(now, candidate);
        }
        if next.is_some() {
            self.go_on(now);
        }
        self.set_election_timer();
    }

    /// Starts the next races, or draws up the papers when all are over.
    fn go_on(&mut self, now: Now) {
        let Some(election) = &self.election else {
            return;
        };
        if election.drawn_up {
            self.issue(now, true);
            return self.close_election();
        }
        if let Some(needed) = election.signers_needed()
            && !self.found_on(now, needed)
        {
            // Most of the assembly follows another chair.
            return self.close_election();
        }
        while let Some(election) = &mut self.election
            && election.runs.len() < election.at_once
            && election.places() > 0
            && !election.enough()
            && let Some(entrant) = election.queue.pop_front()
        {
            election.races += 1;
            self.start_race(now, entrant);
        }
        if self.election.as_ref().is_some_and(|e| e.runs.is_empty()) {
            self.draw_up(now);
        }
    }

    /// Says when the election goes on by itself.
    pub(super) fn step_at(&mut self, at: Time) {
        if let Some(election) = &mut self.election {
            election.next = Some(at);
            self.set_election_timer();
        }
    }

    /// Sets the timer to what is due first.
    pub(super) fn set_election_timer(&mut self) {
        let Some(election) = &self.election else {
            return;
        };
        let races = election.runs.values().map(|run| run.deadline);
        if let Some(at) = races.chain(election.next).min() {
            self.timers.set(Timer::Election, at);
        }
    }

    /// Juries of races that are under way together should seldom want the same
    /// jurors, whose lines have to carry all their shares.
    fn races_at_once(&self) -> usize {
        let reports = self.host.iter().flat_map(|host| host.reports.values());
        let leaves: usize = reports.map(|(report, _)| report.leaves as usize).sum();
        (leaves / ELECTORS_A_RACE).clamp(1, MAX_RACES)
    }

    /// Of a founding: has the assembly sign for who has just kept its claim,
    /// while the next race goes on. False: it did not sign what was asked before.
    fn found_on(&mut self, now: Now, needed: usize) -> bool {
        let Some(election) = &mut self.election else {
            return true;
        };
        let mut papers = election.papers.iter();
        if papers.any(|paper| paper.endorsements.len() < needed) {
            return false;
        }
        let room = election.places().saturating_sub(election.papers.len());
        let kept = election
            .raced
            .extract_if(.., |raced| raced.kept_its_claim());
        let kept: Vec<Raced> = kept.take(room).collect();
        let papers = self.papers_for(now, kept);
        self.ask_to_sign(papers);
        true
    }

    /// Draws up the papers that follow from the races.
    fn draw_up(&mut self, now: Now) {
        let Some(election) = &mut self.election else {
            return;
        };
        let mut raced: Vec<Raced> = election.raced.drain(..).collect();
        raced.retain(|raced| raced.outcome.elected);
        raced.sort_by_key(|raced| {
            (
                std::cmp::Reverse(raced.outcome.score_bps),
                raced.candidate.node_id,
            )
        });
        let room = election.places().saturating_sub(election.papers.len());
        raced.truncate(room);
        let activate = match &mut election.runner {
            Runner::Chair { .. } => Vec::new(),
            Runner::Officer { activate, .. } => std::mem::take(activate),
        };
        let mut papers = self.papers_for(now, raced);
        let activated = activate.iter();
        papers.extend(activated.filter_map(|node| self.activation(now, node)));
        self.file(now, papers);
    }

    /// A mandate for each of `raced`: for office, and then for the reserve.
    fn papers_for(&self, now: Now, raced: Vec<Raced>) -> Vec<Paper> {
        let Some(election) = &self.election else {
            return Vec::new();
        };
        let (wanted, term) = (election.wanted, election.term);
        let (basis, assembly) = match &election.runner {
            Runner::Chair { electorate } => {
                let mut members: Vec<NodeId> = electorate.iter().map(|c| c.node_id).collect();
                members.sort_unstable();
                (Basis::Founded, members)
            }
            Runner::Officer { .. } => (Basis::Elected, Vec::new()),
        };
        let lifetime = self.config.timing.election.mandate_lifetime.as_millis() as u64;
        raced
            .into_iter()
            .zip(election.papers.len()..)
            // Another officer may have called it into office meanwhile.
            .filter(|(raced, place)| {
                let known = self.roster.get(&raced.candidate.node_id);
                *place < wanted || known.is_none_or(|entry| !entry.in_office())
            })
            .map(|(raced, place)| {
                let mandate = Mandate {
                    network: self.config.network.clone(),
                    term,
                    candidate: raced.candidate.node_id,
                    basis,
                    capacity_bps: raced.outcome.score_bps,
                    issued_ms: now.unix_ms,
                    expires_ms: now.unix_ms.saturating_add(lifetime),
                    beacon: raced.beacon,
                    ballots: raced.outcome.decisive,
                    officer: self.node_id(),
                    assembly: assembly.clone(),
                    domain: raced.candidate.domain(),
                    deputy: place >= wanted,
                };
                Paper::mandate(mandate, Some(raced.candidate.signed))
            })
            .collect()
    }

    /// A deputy's mandate without the reserve: the same ballots, signed anew in
    /// this term.
    fn activation(&self, now: Now, node: &NodeId) -> Option<Paper> {
        let term = self.election.as_ref()?.term;
        let entry = self.roster.get(node)?;
        let body = &entry.mandate()?.body;
        let deputy = self
            .judge(now, false, |context| mandate::audit(body, context))
            .ok()?;
        let mandate = Mandate {
            term,
            basis: Basis::Elected,
            officer: self.node_id(),
            assembly: Vec::new(),
            deputy: false,
            issued_ms: now.unix_ms,
            ..deputy
        };
        Some(Paper::mandate(
            mandate,
            entry.contact().map(|contact| contact.signed.clone()),
        ))
    }

    /// Calls a super-node back: the overlay does not need it any more.
    pub(super) fn recall(&mut self, now: Now, who: &NodeId, reason: &str) {
        let Some(served) = self.roster.get(who).map(|entry| entry.term) else {
            return;
        };
        let release = Release {
            network: self.config.network.clone(),
            candidate: *who,
            term: served,
            issued_ms: now.unix_ms,
            reason: reason.to_owned(),
        };
        let runner = Runner::Officer {
            activate: Vec::new(),
            deputies: 0,
        };
        self.open_election(
            now,
            runner,
            self.next_term(self.lane_of(who)),
            Vec::new(),
            0,
            format!("recall of {who:?}: {reason}"),
        );
        self.file(now, vec![Paper::release(&release)]);
    }

    /// The last papers: when all are signed, they are published.
    pub(super) fn file(&mut self, now: Now, papers: Vec<Paper>) {
        self.ask_to_sign(papers);
        let Some(election) = &mut self.election else {
            return;
        };
        if election.papers.is_empty() {
            return self.close_election();
        }
        election.drawn_up = true;
        let patience = self.config.timing.election.reply_timeout * 4;
        self.step_at(now.at + patience);
        self.issue(now, false);
    }

    /// Signs papers and asks the others to.
    fn ask_to_sign(&mut self, mut papers: Vec<Paper>) {
        let own = self.node_id();
        for paper in &mut papers {
            // Who runs may be a candidate itself; then it signs nothing here.
            if paper.candidate != own {
                paper.endorsements.push(match paper.is_release {
                    true => release::endorse(&self.identity, &paper.body),
                    false => mandate::endorse(&self.identity, &paper.body),
                });
            }
        }
        let Some(election) = &self.election else {
            return;
        };
        let auditors: Vec<NodeId> = match &election.runner {
            Runner::Chair { electorate } => electorate
                .iter()
                .map(|c| c.node_id)
                .filter(|node| *node != own)
                .collect(),
            Runner::Officer { .. } => self.auditors(election.term),
        };
        for paper in &papers {
            for auditor in auditors.iter().filter(|node| **node != paper.candidate) {
                let mut ask = wire::AuditAsk::default();
                match paper.is_release {
                    true => ask.release = paper.body.clone(),
                    false => ask.mandate = paper.body.clone(),
                }
                self.send(*auditor, Kind::AuditAsk(ask));
            }
        }
        if let Some(election) = &mut self.election {
            election.papers.extend(papers);
        }
    }

    /// The super-nodes that audit this officer's papers.
    pub(super) fn auditors(&self, term: u64) -> Vec<NodeId> {
        let position = crate::keyspace::keys::election(&self.config.network, term);
        let own = self.node_id();
        let ranked = self.placement.closest(&position, AUDITORS + 1);
        ranked
            .into_iter()
            .map(|(_, node)| node)
            .filter(|node| *node != own)
            .take(AUDITORS)
            .collect()
    }

    pub(super) fn on_audit_reply(&mut self, now: Now, from: NodeId, reply: wire::AuditReply) {
        let Some(election) = &mut self.election else {
            return;
        };
        let subject =
            |paper: &&mut Paper| mandate::subject(&paper.body).to_bytes() == reply.subject;
        let Some(paper) = election.papers.iter_mut().find(subject) else {
            return;
        };
        let Some(endorsement) = reply.endorsement else {
            let reason = format!(
                "{from:?} did not sign: {}",
                reply.refusal.chars().take(200).collect::<String>()
            );
            let candidate = Some(paper.candidate);
            return self.event(Event::MandateRefused { candidate, reason });
        };
        let signed_before = paper
            .endorsements
            .iter()
            .any(|e| e.signer == endorsement.signer);
        let genuine = endorsement.signer == from.0.as_slice()
            && verify_bytes(paper.domain(), &from, &paper.body, &endorsement.signature).is_ok();
        if genuine && !signed_before {
            paper.endorsements.push(endorsement);
            self.issue(now, false);
        }
    }

    /// Publishes every paper that has all the signatures it needs; those of a
    /// founding together, for nobody signs one who knows a super-node already.
    /// `overdue`: no more signatures are waited for.
    fn issue(&mut self, now: Now, overdue: bool) {
        let Some(election) = &self.election else {
            return;
        };
        let mut ready = Vec::new();
        for (index, paper) in election.papers.iter().enumerate() {
            let needed = election.signers_needed().unwrap_or_else(|| {
                self.judge(now, false, |context| context.required(&paper.candidate))
            });
            if !paper.done && paper.endorsements.len() >= needed.max(1) {
                ready.push(index);
            }
        }
        let all = election.drawn_up && ready.len() == election.papers.len();
        if election.founding() && !all && !overdue {
            return;
        }
        for index in ready {
            self.publish(now, index);
        }
        let done = self
            .election
            .as_ref()
            .is_some_and(|e| e.papers.iter().all(|paper| paper.done));
        if done {
            self.close_election();
        }
    }

    fn publish(&mut self, now: Now, index: usize) {
        let Some(paper) = self.election.as_mut().and_then(|e| e.papers.get_mut(index)) else {
            return;
        };
        paper.done = true;
        let (body, endorsements) = (paper.body.clone(), paper.endorsements.clone());
        let (candidate, is_release, contact) =
            (paper.candidate, paper.is_release, paper.contact.clone());
        if is_release {
            let release = release::sealed(body, endorsements);
            if self.admit_release(now, None, &release).is_some() {
                self.spread_node(&candidate);
                if let Some(entry) = self.roster.get(&candidate).map(|entry| entry.to_wire()) {
                    let entries = wire::RosterEntries {
                        entries: vec![entry],
                        dead: Vec::new(),
                    };
                    self.send(candidate, Kind::Roster(entries));
                }
            }
            return;
        }
        let signed = mandate::sealed(body, endorsements);
        let entry = wire::RosterEntry {
            mandate: Some(signed),
            contact,
            release: None,
        };
        if let Err(error) = self.admit(now, &entry, false) {
            let reason = format!("our own officer's paper: {error}");
            return self.event(Event::MandateRefused {
                candidate: Some(candidate),
                reason,
            });
        }
        let Some(election) = &mut self.election else {
            return;
        };
        election.elected.push(candidate);
        let elected: BTreeSet<NodeId> = election.papers.iter().map(|p| p.candidate).collect();
        // A mandate is large and an assembly may be: its members are told whom to
        // ask for it, or the chair's line would carry it hundreds of times.
        let told: Vec<(NodeId, Vec<SocketAddr>)> = match &election.runner {
            Runner::Chair { electorate } => electorate
                .iter()
                .map(|member| (member.node_id, member.addrs.clone()))
                .collect(),
            Runner::Officer { .. } => vec![(candidate, self.addrs_of(&candidate))],
        };
        let own = self.node_id();
        let name = wire::RosterEntry {
            contact: entry.contact.clone(),
            ..Default::default()
        };
        for (node, addrs) in told.into_iter().filter(|(node, _)| *node != own) {
            let entry = match elected.contains(&node) {
                true => &entry,
                false => &name,
            };
            let message = wire::RosterEntries {
                entries: vec![entry.clone()],
                dead: Vec::new(),
            };
            self.send_to(node, addrs, Kind::Roster(message));
        }
        self.spread(vec![entry], Some(candidate));
    }

    fn close_election(&mut self) {
        if let Some(election) = self.election.take() {
            self.timers.clear(Timer::Election);
            let founding = election.founding();
            self.event(Event::ElectionClosed {
                term: election.term,
                elected: election.elected,
            });
            if let (true, Some(muster)) = (founding, &mut self.muster) {
                muster.endorsed = None;
            }
        }
    }

    /// A hash that no single one of those who signed could choose.
    pub(super) fn beacon_of(shares: &BTreeMap<NodeId, Bytes>) -> Key {
        let parts: Vec<&[u8]> = shares.values().map(|share| share.as_ref()).collect();
        Key::hash("race beacon", &parts)
    }
}
