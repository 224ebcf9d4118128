//! The returning officer: who runs the next term, what it knows of the others'
//! load, and when it opens an election or recalls a super-node.
//!
//! Every super-node reports to the three whose seats are closest to the next
//! term. The first of them acts; the others only when it stays silent.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use canopy_proto::wire::{self, core_message::Kind};

use super::host::Lane;
use super::running::{Entrant, Runner};
use super::timers::Timer;
use super::{Core, Role};
use crate::contact::Contact;
use crate::election::law::{
    self, Hysteresis, LawConfig, Need, Overview, SuperNode, deputies_wanted,
};
use crate::keyspace::NodeId;
use crate::roster::Entry;
use crate::time::Now;

/// Mandates renewed in one election: what is measured serves others less well.
const RENEWED_AT_ONCE: usize = 2;
/// How often the renewal of a mandate is tried before it ends.
const RENEWAL_TRIES: u32 = 8;
/// Candidates that one report names.
const CANDIDATES: usize = 8;

/// Which lanes' next terms this peer may run. A change of the roster concerns one
/// lane most often; the others need not be looked at again.
#[derive(Default)]
pub(super) struct Turns {
    /// The versions of placement and roster that it follows from.
    of: Option<(u64, u64)>,
    /// By lane: its next term, and this peer's rank there.
    lanes: Vec<(u64, Option<u32>)>,
    /// Who belongs to those lanes where it has a rank.
    members: BTreeMap<u64, Vec<NodeId>>,
}

impl Turns {
    /// The lanes whose next term it may run, with its rank there.
    fn ranks(&self) -> impl Iterator<Item = (u64, u32)> {
        let lanes = (0..).zip(&self.lanes);
        lanes.filter_map(|(lane, (_, rank))| Some((lane, (*rank)?)))
    }

    /// Who belongs to `lane`, if that is kept and is of these versions of placement
    /// and roster.
    pub(super) fn members(&self, of: (u64, u64), lane: u64) -> Option<&[NodeId]> {
        self.of.filter(|own| *own == of)?;
        self.members.get(&lane).map(Vec::as_slice)
    }
}

impl Core {
    pub(super) fn report_tick(&mut self, now: Now) {
        if self.role != Role::SuperNode {
            return;
        }
        let own = self.node_id();
        let alone = self.placement.len() <= 1;
        if let Some(host) = &mut self.host {
            let since = host.alone_since.unwrap_or(now.at);
            host.alone_since = alone.then_some(since);
        }
        let report = self.own_report(now);
        let mut officers = self.own_officers();
        if let Some(term) = self.election.as_ref().map(|election| election.term) {
            // It may be another lane's: its stand-ins wait for a sign of life.
            for node in self.officers(term) {
                if !officers.contains(&node) {
                    officers.push(node);
                }
            }
        }
        for officer in officers.iter().filter(|node| **node != own) {
            self.send(*officer, Kind::LoadReport(report.clone()));
        }
        if let Some(host) = self.host.as_mut().filter(|_| officers.contains(&own)) {
            host.reports.insert(own, (report, now.at));
        }
        if !self.is_catching_up() {
            self.officiate(now);
        }
        self.hand_leaves_over(now);
        let wait = self.jitter(self.config.timing.election.report_interval);
        self.timers.set(Timer::Report, now.at + wait);
    }

    /// Looks after each lane whose next term this peer may run.
    fn officiate(&mut self, now: Now) {
        let turns = self.turns();
        if let Some(host) = &mut self.host {
            host.lanes.retain(|lane, _| turns.contains_key(lane));
            for lane in turns.keys() {
                host.lanes.entry(*lane).or_insert_with(|| Lane {
                    hysteresis: Hysteresis::default(),
                    sampled: now.at,
                    owed: None,
                });
            }
        }
        for (lane, rank) in turns {
            self.consider(now, lane, rank);
        }
    }

    /// The lanes whose next term this peer may run, and its rank there.
    fn turns(&mut self) -> BTreeMap<u64, u32> {
        let (placement, roster) = self.versions();
        let Some(host) = &mut self.host else {
            return BTreeMap::new();
        };
        let mut turns = std::mem::take(&mut host.turns);
        if turns.of != Some((placement, roster)) {
            if turns.of.is_none_or(|(of, _)| of != placement) {
                turns.lanes.clear();
            }
            turns.of = Some((placement, roster));
            turns.lanes = (0..self.lanes())
                .map(|lane| {
                    let term = self.next_term(lane);
                    let known = turns.lanes.get(lane as usize);
                    let known = known.filter(|(of, _)| *of == term);
                    known.copied().unwrap_or_else(|| (term, self.rank(term)))
                })
                .collect();
            turns.members = turns.ranks().map(|(lane, _)| (lane, Vec::new())).collect();
            let lanes = self.lanes();
            for entry in self.roster.entries() {
                if let Some(members) = turns.members.get_mut(&(entry.term % lanes)) {
                    members.push(entry.node());
                }
            }
        }
        let ranks = turns.ranks().collect();
        if let Some(host) = &mut self.host {
            host.turns = turns;
        }
        ranks
    }

    /// This peer's rank among those who may run `term`.
    fn rank(&self, term: u64) -> Option<u32> {
        let own = self.node_id();
        let rank = self.officers(term).iter().position(|node| *node == own)?;
        Some(rank as u32)
    }

    fn own_report(&self, now: Now) -> wire::LoadReport {
        let Some(host) = &self.host else {
            return wire::LoadReport::default();
        };
        // A leaf counts at its first home only.
        let first_homes = host
            .leaves
            .values()
            .filter(|leaf| leaf.first || leaf.other_home.is_none())
            .count();
        let mut best: Vec<_> = host
            .leaves
            .values()
            .filter(|leaf| leaf.candidacy.eligible)
            .collect();
        best.sort_by_key(|leaf| (Reverse(leaf.candidacy.claim_bps), leaf.contact.node_id));
        let candidates = best.iter().take(CANDIDATES).map(|leaf| wire::MusterEntry {
            contact: Some(leaf.contact.signed.clone()),
            candidacy: Some(leaf.candidacy),
            age_ms: 0,
        });
        wire::LoadReport {
            at_ms: now.unix_ms,
            leaves: first_homes as u32,
            connections_milli: host.load.connections,
            operations_milli: host.load.operations,
            bytes_milli: host.load.bytes,
            memory_milli: host.load.memory,
            cpu_milli: host.load.cpu,
            candidates: candidates.collect(),
            term: self.election.as_ref().map_or(0, |election| election.term),
        }
    }

    pub(super) fn on_load_report(&mut self, now: Now, from: NodeId, report: wire::LoadReport) {
        if !self.roster.serves(&from) || report.candidates.len() > CANDIDATES {
            return;
        }
        let lane = report.term % self.lanes();
        let Some(host) = &mut self.host else { return };
        if let Some(lane) = host.lanes.get_mut(&lane).filter(|_| report.term > 0) {
            lane.owed = None;
        }
        host.reports.insert(from, (report, now.at));
    }

    /// Asks the law, and acts on what it says when that has lasted.
    fn consider(&mut self, now: Now, lane: u64, rank: u32) {
        if self.election.is_some() {
            return;
        }
        if self.renew(now, lane, rank) {
            return;
        }
        let (settle, sample) = (
            self.config.timing.election.settle,
            self.config.timing.election.sample_interval,
        );
        let state = self.host.as_ref().and_then(|host| host.lanes.get(&lane));
        if state.is_none_or(|state| now.at.since(state.sampled) < sample) {
            return;
        }
        let overview = self.overview(now, lane);
        let law = self.law();
        let need = self.need(now, lane, &overview);
        let urgent = law::is_urgent(&overview, &law);
        let patience = self.config.timing.election.officer_timeout * rank;
        let lanes = self.host.as_mut().map(|host| &mut host.lanes);
        let Some(state) = lanes.and_then(|lanes| lanes.get_mut(&lane)) else {
            return;
        };
        let quiet = need == Need::Hold;
        if quiet && overview.deputies >= deputies_wanted(overview.super_nodes.len()) {
            // Nothing to do: no officer owes anything.
            state.owed = None;
        }
        state.sampled = now.at;
        let need = state.hysteresis.sample(need, urgent);
        if need == Need::Hold && !quiet {
            return;
        }
        let owed = *state.owed.get_or_insert(now.at);
        let silent = rank == 0 || now.at.since(owed) >= patience;
        if !silent || now.at.since(self.started) < settle {
            return;
        }
        match need {
            Need::Grow { count, reasons } => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.grow(now, lane, count, reasons.join(", "));
            }
            Need::Shrink { .. } if self.merging(now) => {}
            Need::Shrink { node, reason } => self.recall(now, &node, &reason.to_string()),
            Need::Hold if quiet => self.appoint_deputies(now, lane, &overview),
            Need::Hold => {}
        }
    }

    /// The law; several lanes each keep a part of what has to be there at least.
    fn law(&self) -> LawConfig {
        let law = self.overlay_law();
        match self.lanes() {
            1 => law,
            _ => LawConfig { fewest: 1, ..law },
        }
    }

    /// What a lane needs, as far as this peer hears.
    fn need(&self, now: Now, lane: u64, overview: &Overview) -> Need {
        let need = law::need(overview, &self.law());
        let mut serving = self.in_lane(lane).filter(|entry| entry.serves());
        match need {
            // Who does not report may be at its limit, for all we know.
            Need::Shrink { .. } if serving.any(|e| self.report_of(now, &e.node()).is_none()) => {
                Need::Hold
            }
            need => need,
        }
    }

    fn report_of(&self, now: Now, node: &NodeId) -> Option<&wire::LoadReport> {
        let fresh = self.config.timing.election.report_interval * 8;
        let (report, at) = self.host.as_ref()?.reports.get(node)?;
        (now.at.since(*at) < fresh).then_some(report)
    }

    fn overview(&self, now: Now, lane: u64) -> Overview {
        let super_nodes: Vec<SuperNode> = self
            .in_lane(lane)
            .filter(|entry| entry.serves())
            .map(|entry| {
                let report = self.report_of(now, &entry.node());
                SuperNode {
                    node: entry.node(),
                    capacity_bps: entry.capacity_bps,
                    utilisation_milli: report.map_or(0, worst),
                    domain: entry.domain.clone(),
                    leaves: report.map_or(0, |r| r.leaves),
                    since_ms: entry.issued_ms,
                    designated: entry.designated(),
                }
            })
            .collect();
        let standing = super_nodes
            .iter()
            .filter_map(|s| self.report_of(now, &s.node))
            .map(|r| r.candidates.len());
        let deputies = self.deputies(lane).count();
        Overview {
            // Deputies come first when places are to be filled.
            candidates: standing.sum::<usize>() + deputies,
            leaves: super_nodes.iter().map(|s| s.leaves as usize).sum(),
            topology: self.config.topology,
            super_nodes,
            deputies,
            in_flight: 0,
        }
    }

    pub(super) fn deputies(&self, lane: u64) -> impl Iterator<Item = &Entry> {
        self.in_lane(lane)
            .filter(|entry| entry.in_reserve() && !entry.down)
    }

    /// Candidates for `term` of its lane's reports, the largest claims first.
    pub(super) fn candidates(&self, term: u64) -> Vec<Entrant> {
        let Some(host) = &self.host else {
            return Vec::new();
        };
        let mut all: BTreeMap<NodeId, Entrant> = BTreeMap::new();
        let lane = term % self.lanes();
        let reports = host.reports.iter();
        let reports = reports.filter(|(node, _)| self.lane_of(node) == lane);
        for (home, (report, _)) in reports {
            for entry in &report.candidates {
                let claim = entry.candidacy.filter(|c| c.eligible).map(|c| c.claim_bps);
                let contact = Contact::given(&entry.contact);
                let (Some(claim_bps), Some(contact)) = (claim, contact) else {
                    continue;
                };
                if self.decrees.bans().peer(&contact.node_id) {
                    continue;
                }
                let known = self.roster.get(&contact.node_id);
                // Who served before needs a later term.
                if known.is_none_or(|e| e.release.is_some() && e.term < term) {
                    let entrant = Entrant {
                        contact,
                        via: Some(*home),
                        claim_bps,
                    };
                    all.entry(entrant.contact.node_id).or_insert(entrant);
                }
            }
        }
        let mut all: Vec<Entrant> = all.into_values().collect();
        all.sort_by_key(|entrant| (Reverse(entrant.claim_bps), entrant.contact.node_id));
        all
    }

    /// Races incumbents anew whose mandates end soon, those that end first
    /// before the others, a few at a time; true if it did. An officer cannot
    /// sign its own mandate, so that its first stand-in renews that.
    fn renew(&mut self, now: Now, lane: u64, rank: u32) -> bool {
        let timing = self.config.timing.election;
        let term = self.next_term(lane);
        let first = self.officers(term).first().copied();
        let window = u64::try_from(timing.mandate_renewal.as_millis()).unwrap_or(u64::MAX);
        let again = timing.mandate_renewal / RENEWAL_TRIES;
        let Some(host) = &mut self.host else {
            return false;
        };
        host.renewed.retain(|_, at| now.at.since(*at) < again);
        let renewed = |node| {
            let host = self.host.as_ref();
            host.is_some_and(|host| host.renewed.contains_key(&node))
        };
        let mut ending: Vec<&Entry> = self
            .in_lane(lane)
            .filter(|entry| entry.serves() && !entry.designated())
            .filter(|entry| entry.expires_ms.saturating_sub(now.unix_ms) < window)
            .filter(|entry| !renewed(entry.node()))
            .filter(|entry| match rank {
                0 => Some(entry.node()) != first,
                1 => Some(entry.node()) == first,
                _ => false,
            })
            .collect();
        ending.sort_by_key(|entry| (entry.expires_ms, entry.node()));
        let entrants: Vec<Entrant> = ending
            .into_iter()
            .take(RENEWED_AT_ONCE)
            .filter_map(|entry| {
                Some(Entrant {
                    contact: entry.contact()?.clone(),
                    via: None,
                    // Room for one that was measured on a bad day.
                    claim_bps: entry.capacity_bps.saturating_mul(2),
                })
            })
            .collect();
        if entrants.is_empty() {
            return false;
        }
        let nodes = entrants.iter().map(|entrant| entrant.contact.node_id);
        if let Some(host) = &mut self.host {
            host.renewed.extend(nodes.map(|node| (node, now.at)));
        }
        let runner = Runner::Officer {
            activate: Vec::new(),
            deputies: 0,
        };
        let count = entrants.len();
        self.open_election(
            now,
            runner,
            term,
            entrants,
            count,
            format!("{count} mandates end soon"),
        );
        true
    }

    /// Deputies first: they were measured already and serve at once.
    pub(super) fn grow(&mut self, now: Now, lane: u64, by: usize, reason: String) {
        let term = self.next_term(lane);
        let mut deputies: Vec<(u64, NodeId)> = self
            .deputies(lane)
            .map(|entry| (entry.capacity_bps, entry.node()))
            .collect();
        deputies.sort_by_key(|(capacity, node)| (Reverse(*capacity), *node));
        let chosen: Vec<NodeId> = deputies
            .into_iter()
            .take(by)
            .map(|(_, node)| node)
            .collect();
        let wanted = by - chosen.len();
        let queue = if wanted > 0 {
            self.candidates(term)
        } else {
            Vec::new()
        };
        if chosen.is_empty() && queue.is_empty() {
            return;
        }
        self.open_election(
            now,
            Runner::Officer {
                activate: chosen,
                deputies: 0,
            },
            term,
            queue,
            wanted,
            reason,
        );
    }

    /// Keeps a few measured peers in reserve when there is nothing else to do.
    fn appoint_deputies(&mut self, now: Now, lane: u64, overview: &Overview) {
        let term = self.next_term(lane);
        let elects = self.config.topology == wire::Topology::Elected;
        let wanted = deputies_wanted(overview.super_nodes.len());
        let lacking = wanted.saturating_sub(overview.deputies);
        let queue = if elects && lacking > 0 {
            self.candidates(term)
        } else {
            Vec::new()
        };
        if !queue.is_empty() {
            let reason = format!("{} of {wanted} deputies", overview.deputies);
            self.open_election(
                now,
                Runner::Officer {
                    activate: Vec::new(),
                    deputies: lacking,
                },
                term,
                queue,
                0,
                reason,
            );
        }
    }
}

fn worst(report: &wire::LoadReport) -> u32 {
    report
        .connections_milli
        .max(report.operations_milli)
        .max(report.bytes_milli)
        .max(report.memory_milli)
        .max(report.cpu_milli)
}
