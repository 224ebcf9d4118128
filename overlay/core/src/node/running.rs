//! Running an election: the races, one after the other or several at once, and
//! what follows from them.
//!
//! The chair of an assembly and the returning officer of an overlay run the
//! same code; they differ in who votes and who signs.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use super::annals::ElectionRecord;
use super::papers::Paper;
use super::race::{Raced, Run};
use super::timers::Timer;
use super::{Core, Event};
use crate::contact::Contact;
use crate::election::K;
use crate::election::race::End;
use crate::election::release::Release;
use crate::election::tally::DISCOUNT_PERMILLE;
use crate::keyspace::{Key, NodeId};
use crate::time::{Now, Time};

/// Races of one election at most, and of those at once: what an officer's line
/// carries of summonses and ballots.
const MAX_RACES: usize = 32;
const RACES_AT_ONCE: usize = 16;
/// Leaves for each race that is under way: four juries' worth.
const ELECTORS_A_RACE: usize = 4 * K;
/// A candidate that scores less than one part in this many of its claim does
/// not count as measured in turn: others may be stronger.
const CLAIM_MISSED: u64 = 2;

/// Someone to be measured, up to what it claims.
#[derive(Clone)]
pub(super) struct Entrant {
    pub(super) contact: Contact,
    /// A home of it.
    pub(super) via: Option<NodeId>,
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

/// An election under way.
pub(super) struct Election {
    pub(super) term: u64,
    pub(super) runner: Runner,
    queue: VecDeque<Entrant>,
    pub(super) wanted: usize,
    /// Races under way, by candidate.
    pub(super) runs: BTreeMap<NodeId, Run>,
    /// How many may be.
    at_once: usize,
    pub(super) raced: Vec<Raced>,
    races: usize,
    pub(super) papers: Vec<Paper>,
    /// All papers are drawn up; only signatures are missing.
    pub(super) drawn_up: bool,
    pub(super) elected: Vec<NodeId>,
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

    pub(super) fn founding(&self) -> bool {
        matches!(self.runner, Runner::Chair { .. })
    }

    /// How many of an assembly have to sign; none: it is no founding.
    pub(super) fn signers_needed(&self) -> Option<usize> {
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
    /// Nor can others show that they are stronger where it was the voters' lines
    /// that ended the race.
    fn kept_its_claim(&self) -> bool {
        // Claims are of lines, scores are discounted.
        let carried = self.outcome.score_bps / DISCOUNT_PERMILLE * 1000;
        let kept = carried >= self.claim_bps / CLAIM_MISSED;
        self.outcome.elected && (kept || self.outcome.end == End::Electorate)
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
        let activated = match &election.runner {
            Runner::Chair { .. } => Vec::new(),
            Runner::Officer { activate, .. } => activate.clone(),
        };
        let standing = election.queue.iter();
        self.annals.open(ElectionRecord {
            term,
            founding: election.founding(),
            reason: reason.clone(),
            opened_ms: now.unix_ms,
            closed_ms: None,
            places,
            candidates: standing.map(|entrant| entrant.contact.node_id).collect(),
            activated,
            races: Vec::new(),
            elected: Vec::new(),
            refusals: Vec::new(),
        });
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
            return self.close_election(now);
        }
        if let Some(needed) = election.signers_needed()
            && !self.found_on(now, needed)
        {
            // Most of the assembly follows another chair.
            return self.close_election(now);
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
        (leaves / ELECTORS_A_RACE).clamp(1, RACES_AT_ONCE)
    }

    /// Of a founding: has the assembly sign for who has just kept its claim,
    /// while the next race goes on. False: it did not sign what was asked before.
    fn found_on(&mut self, now: Now, needed: usize) -> bool {
        let Some(election) = &mut self.election else {
            return true;
        };
        let mut papers = election.papers.iter();
        if papers.any(|paper| paper.signed.endorsements.len() < needed) {
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

    pub(super) fn close_election(&mut self, now: Now) {
        if let Some(election) = self.election.take() {
            self.timers.clear(Timer::Election);
            let founding = election.founding();
            self.annals
                .close(election.term, now.unix_ms, &election.elected);
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
