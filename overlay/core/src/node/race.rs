//! One race as its officer runs it: draw the beacon, gather the voters, then
//! call juries level by level until the rules say it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::running::{Entrant, Runner};
use super::{Core, Event};
use crate::contact::{self, Contact};
use crate::election::ballot::VerifiedBallot;
use crate::election::jury::{self, Standing, Voter};
use crate::election::race::{Measure, Outcome, Race, RaceConfig, Step};
use crate::election::{JURIES, K, tally};
use crate::identity::{Domain, verify_bytes};
use crate::keyspace::{Key, NodeId};
use crate::time::{Now, Time};

/// Super-nodes whose leaves are called to vote.
const DISTRICTS: usize = 16;

/// Someone who may be drawn, and how to reach it.
pub(super) struct Elector {
    pub(super) contact: Contact,
    via: Option<NodeId>,
    prefix: Arc<str>,
}

impl Elector {
    fn new(contact: Contact, via: Option<NodeId>) -> Self {
        let prefix = contact.addrs.first().map(contact::prefix);
        // Without an address of its own a leaf counts as in its home's network.
        let prefix = prefix.unwrap_or_else(|| format!("{via:?}")).into();
        Self {
            contact,
            via,
            prefix,
        }
    }
}

/// The jury that is measuring.
struct Sitting {
    measure: Measure,
    start: Time,
    awaited: BTreeSet<NodeId>,
    ballots: Vec<VerifiedBallot>,
    sat_out: usize,
}

/// What a race is waiting for.
enum Phase {
    Beacon {
        shares: BTreeMap<NodeId, Bytes>,
        awaited: BTreeSet<NodeId>,
    },
    Voters {
        beacon: Key,
        awaited: BTreeSet<NodeId>,
    },
    Levels {
        beacon: Key,
        race: Box<Race<VerifiedBallot>>,
        sitting: Option<Sitting>,
    },
}

/// A race under way.
pub(super) struct Run {
    pub(super) candidate: Contact,
    pub(super) voters: BTreeMap<NodeId, Elector>,
    claim_bps: u64,
    excluded: BTreeSet<NodeId>,
    phase: Phase,
}

/// A race that is over.
pub(super) struct Raced {
    pub(super) candidate: Contact,
    pub(super) claim_bps: u64,
    pub(super) beacon: Key,
    pub(super) outcome: Outcome<VerifiedBallot>,
}

impl Core {
    pub(super) fn start_race(&mut self, now: Now, entrant: Entrant) {
        let Entrant {
            contact: candidate,
            claim_bps,
        } = entrant;
        let Some(election) = &self.election else {
            return;
        };
        let (term, node) = (election.term, candidate.node_id);
        let mut partners: Vec<NodeId> = match &election.runner {
            Runner::Chair { electorate } => electorate.iter().map(|c| c.node_id).collect(),
            Runner::Officer { .. } => self.auditors(term),
        };
        let own = self.node_id();
        partners.retain(|partner| *partner != node && *partner != own);
        let position = crate::keyspace::keys::election(&self.config.network, term);
        partners.sort_by_key(|partner| position.distance(&Key(partner.0)));
        partners.truncate(2);
        let shares = BTreeMap::from([(own, self.beacon_share(term, &node))]);
        for partner in &partners {
            let ask = wire::BeaconAsk {
                term,
                candidate: node.to_bytes(),
            };
            self.send(*partner, Kind::BeaconAsk(ask));
        }
        let awaited: BTreeSet<NodeId> = partners.into_iter().collect();
        let alone = awaited.is_empty();
        let run = Run {
            claim_bps,
            candidate,
            voters: BTreeMap::new(),
            excluded: BTreeSet::new(),
            phase: Phase::Beacon { shares, awaited },
        };
        if let Some(election) = &mut self.election {
            election.run = Some(Box::new(run));
        }
        let patience = self.config.timing.election.reply_timeout;
        self.step_until(if alone { now.at } else { now.at + patience });
    }

    pub(super) fn on_beacon_share(&mut self, now: Now, from: NodeId, share: wire::BeaconShare) {
        let network = self.config.network.clone();
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let Phase::Beacon { shares, awaited } = &mut run.phase else {
            return;
        };
        let subject = Key::hash(
            "beacon",
            &[
                network.as_bytes(),
                &term.to_le_bytes(),
                &run.candidate.node_id.0,
            ],
        );
        let genuine = verify_bytes(Domain::Beacon, &from, &subject.0, &share.share).is_ok();
        if share.term == term && genuine && awaited.remove(&from) {
            shares.insert(from, share.share);
            if awaited.is_empty() {
                self.call_voters(now);
            }
        }
    }

    /// The beacon is drawn: who may vote?
    fn call_voters(&mut self, now: Now) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let Phase::Beacon { shares, .. } = &run.phase else {
            return;
        };
        let beacon = Self::beacon_of(shares);
        let candidate = run.candidate.node_id;
        let mut awaited = BTreeSet::new();
        if let Runner::Chair { electorate } = &election.runner {
            for contact in electorate {
                run.voters
                    .insert(contact.node_id, Elector::new(contact.clone(), None));
            }
            run.phase = Phase::Voters { beacon, awaited };
            return self.start_levels(now);
        }
        let own = self.node_id();
        let districts = self.placement.closest(&beacon, DISTRICTS);
        for node in districts
            .into_iter()
            .map(|(_, node)| node)
            .filter(|node| *node != own)
        {
            let ask = wire::VotersAsk {
                term,
                candidate: candidate.to_bytes(),
                beacon: beacon.to_bytes(),
                count: K as u32,
            };
            awaited.insert(node);
            self.send(node, Kind::VotersAsk(ask));
        }
        let local = self.voters_for(&beacon, &candidate, K);
        let alone = awaited.is_empty();
        let contact = self.contact.clone();
        let Some(run) = self.election.as_mut().and_then(|e| e.run.as_deref_mut()) else {
            return;
        };
        for voter in local {
            run.voters
                .insert(voter.node_id, Elector::new(voter, Some(own)));
        }
        run.voters.insert(own, Elector::new(contact, None));
        run.phase = Phase::Voters { beacon, awaited };
        let patience = self.config.timing.election.reply_timeout;
        self.step_until(if alone { now.at } else { now.at + patience });
    }

    /// Own leaves with the lowest lots of each of the three juries.
    fn voters_for(&self, beacon: &Key, candidate: &NodeId, count: usize) -> Vec<Contact> {
        let Some(host) = &self.host else {
            return Vec::new();
        };
        let mut chosen: BTreeMap<NodeId, &Contact> = BTreeMap::new();
        for jury in 0..JURIES {
            let mut lots: Vec<(Key, &Contact)> = host
                .leaves
                .values()
                .map(|leaf| {
                    (
                        jury::lot(beacon, jury, &leaf.contact.node_id, candidate),
                        &leaf.contact,
                    )
                })
                .collect();
            lots.sort_by_key(|(lot, _)| *lot);
            chosen.extend(
                lots.into_iter()
                    .take(count)
                    .map(|(_, contact)| (contact.node_id, contact)),
            );
        }
        chosen.into_values().cloned().collect()
    }

    pub(super) fn on_voters_ask(&mut self, from: NodeId, ask: &wire::VotersAsk) {
        let (Some(beacon), Some(candidate)) = (
            Key::from_slice(&ask.beacon),
            NodeId::from_slice(&ask.candidate),
        ) else {
            return;
        };
        if !self.roster.serves(&from) {
            return;
        }
        let mut voters = self.voters_for(&beacon, &candidate, (ask.count as usize).min(K));
        voters.push(self.contact.clone());
        let total = self.host.as_ref().map_or(0, |host| host.leaves.len()) as u32;
        let reply = wire::Voters {
            term: ask.term,
            candidate: ask.candidate.clone(),
            voters: voters.into_iter().map(|contact| contact.signed).collect(),
            total,
        };
        self.send(from, Kind::Voters(reply));
    }

    pub(super) fn on_voters(&mut self, now: Now, from: NodeId, voters: wire::Voters) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let Phase::Voters { awaited, .. } = &mut run.phase else {
            return;
        };
        if voters.term != term || !awaited.remove(&from) {
            return;
        }
        for signed in voters.voters.iter().take(JURIES as usize * K + 1) {
            if let Ok(contact) = Contact::open(signed) {
                let via = (contact.node_id != from).then_some(from);
                run.voters
                    .entry(contact.node_id)
                    .or_insert_with(|| Elector::new(contact, via));
            }
        }
        if awaited.is_empty() {
            self.start_levels(now);
        }
    }

    fn start_levels(&mut self, now: Now) {
        let floor_bps = self.config.floor_bps;
        let Some(run) = self.election.as_mut().and_then(|e| e.run.as_deref_mut()) else {
            return;
        };
        let Phase::Voters { beacon, .. } = run.phase else {
            return;
        };
        let config = RaceConfig::new(run.candidate.node_id, run.claim_bps, floor_bps);
        let networks: BTreeSet<&Arc<str>> = run
            .voters
            .iter()
            .filter(|(node, _)| **node != run.candidate.node_id)
            .map(|(_, elector)| &elector.prefix)
            .collect();
        let race = Box::new(Race::new(config, networks.len()));
        run.phase = Phase::Levels {
            beacon,
            race,
            sitting: None,
        };
        self.next_level(now);
    }

    /// Calls the jury that the rules ask for, or ends the race.
    fn next_level(&mut self, now: Now) {
        let Some(run) = self.election.as_mut().and_then(|e| e.run.as_deref_mut()) else {
            return;
        };
        let Phase::Levels { race, sitting, .. } = &mut run.phase else {
            return;
        };
        match race.next() {
            Step::Done => self.end_race(now),
            Step::Measure(measure) => {
                // All start together, once the slowest summons has arrived.
                let start = now.at + self.config.timing.election.reply_timeout / 6;
                *sitting = Some(Sitting {
                    measure,
                    start,
                    awaited: BTreeSet::new(),
                    ballots: Vec::new(),
                    sat_out: 0,
                });
                self.summon(now);
            }
        }
    }

    /// Calls whoever the lots fall on and was not called to this level yet.
    fn summon(&mut self, now: Now) {
        let timing = self.config.timing.election;
        let officer = self.contact.signed.clone();
        let standings = self.host.as_ref().map(|host| &host.standings);
        let standing = |node: &NodeId| standings.map_or(Standing::FULL, |s| s.of(node));
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let Phase::Levels {
            beacon,
            sitting: Some(sitting),
            ..
        } = &mut run.phase
        else {
            return;
        };
        let electorate = run.voters.iter().map(|(node, elector)| Voter {
            node: *node,
            prefix: elector.prefix.clone(),
            standing: standing(node),
        });
        let measure = sitting.measure;
        let candidate = run.candidate.node_id;
        let drawn = jury::draw(
            electorate,
            beacon,
            measure.jury,
            &candidate,
            measure.k,
            &run.excluded,
        );
        let voted: BTreeSet<NodeId> = sitting.ballots.iter().map(|b| b.ballot().voter).collect();
        let called: Vec<NodeId> = drawn
            .iter()
            .copied()
            .filter(|n| !sitting.awaited.contains(n) && !voted.contains(n))
            .collect();
        sitting.awaited.extend(called.iter().copied());
        let start_in = sitting.start.since(now.at);
        let notice = wire::JuryNotice {
            term,
            beacon: beacon.to_bytes(),
            voters: drawn.iter().map(|node| node.to_bytes()).collect(),
            share_bps: measure.share_bps,
            duration_ms: (timing.level_duration + timing.reply_timeout * 2).as_millis() as u32,
        };
        let mut letters = vec![(candidate, None, Kind::JuryNotice(notice))];
        for node in called {
            let Some(elector) = run.voters.get(&node) else {
                continue;
            };
            let summons = wire::Summons {
                term,
                beacon: beacon.to_bytes(),
                candidate: Some(run.candidate.signed.clone()),
                jury: measure.jury,
                level: measure.level,
                share_bps: measure.share_bps,
                duration_ms: timing.level_duration.as_millis() as u32,
                officer: Some(officer.clone()),
                voter_prefix: elector.prefix.to_string(),
                start_in_ms: start_in.as_millis() as u32,
            };
            letters.push((node, elector.via, Kind::Summons(summons)));
        }
        let until = sitting.start.max(now.at) + timing.level_duration + timing.reply_timeout;
        let own = self.node_id();
        for (node, via, kind) in letters {
            match node == own {
                true => self
                    .loopback
                    .push_back(Box::new(wire::CoreMessage { kind: Some(kind) })),
                false => self.send_via(node, via, kind),
            }
        }
        self.step_until(until);
    }

    pub(super) fn on_summons_reply(&mut self, now: Now, from: NodeId, reply: wire::SummonsReply) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let candidate = run.candidate.node_id;
        let Phase::Levels {
            beacon,
            sitting: Some(sitting),
            ..
        } = &mut run.phase
        else {
            return;
        };
        let current = (sitting.measure.jury, sitting.measure.level);
        let Some(voter) = NodeId::from_slice(&reply.voter) else {
            return;
        };
        // Nobody excuses or speaks for another juror.
        if reply.term != term
            || voter != from
            || (reply.jury, reply.level) != current
            || !sitting.awaited.contains(&voter)
        {
            return;
        }
        if reply.sits_out {
            sitting.awaited.remove(&voter);
            sitting.sat_out += 1;
            run.excluded.insert(voter);
            return self.replace_juror(now);
        }
        let ballot = reply
            .ballot
            .as_ref()
            .and_then(|signed| VerifiedBallot::open(signed).ok());
        let Some(ballot) = ballot else { return };
        let b = ballot.ballot();
        let prefix = run
            .voters
            .get(&voter)
            .map(|elector| elector.prefix.as_ref());
        let fits = b.voter == voter
            && b.term == term
            && b.beacon == *beacon
            && b.candidate == candidate
            && (b.jury, b.level) == current
            && b.network == self.config.network
            && Some(b.voter_prefix.as_str()) == prefix;
        if fits {
            sitting.awaited.remove(&voter);
            sitting.ballots.push(ballot);
            if sitting.awaited.is_empty() {
                self.close_level(now);
            }
        }
    }

    /// Draws another juror while the level has not started.
    fn replace_juror(&mut self, now: Now) {
        let Some(run) = self.election.as_ref().and_then(|e| e.run.as_deref()) else {
            return;
        };
        let Phase::Levels {
            sitting: Some(sitting),
            ..
        } = &run.phase
        else {
            return;
        };
        let (started, nobody) = (sitting.start <= now.at, sitting.awaited.is_empty());
        if !started {
            self.summon(now);
        }
        let Some(run) = self.election.as_ref().and_then(|e| e.run.as_deref()) else {
            return;
        };
        if let Phase::Levels {
            sitting: Some(sitting),
            ..
        } = &run.phase
            && sitting.awaited.is_empty()
            && nobody
        {
            self.close_level(now);
        }
    }

    /// Hands the ballots to the rules.
    fn close_level(&mut self, now: Now) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.as_deref_mut() else {
            return;
        };
        let candidate = run.candidate.node_id;
        let Phase::Levels { race, sitting, .. } = &mut run.phase else {
            return;
        };
        let Some(sitting) = sitting.take() else {
            return;
        };
        let silent = sitting.awaited.len();
        run.excluded.extend(sitting.awaited);
        let Measure {
            level,
            jury,
            share_bps,
            ..
        } = sitting.measure;
        let event = Event::Level {
            term,
            candidate,
            level,
            share_bps,
            ballots: sitting.ballots.len(),
            median_bps: tally::median_bps(&sitting.ballots),
        };
        race.ballots(level, jury, sitting.ballots, sitting.sat_out + silent);
        self.event(event);
        self.next_level(now);
    }

    fn end_race(&mut self, now: Now) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.run.take() else {
            return;
        };
        if let Phase::Levels { beacon, race, .. } = run.phase
            && let Some(outcome) = race.finish()
        {
            if let Some(host) = &mut self.host {
                for (voter, near) in &outcome.grades {
                    host.standings.note(*voter, *near);
                }
            }
            let score_bps = if outcome.elected {
                outcome.score_bps
            } else {
                0
            };
            let candidate = run.candidate.node_id;
            let raced = Raced {
                candidate: run.candidate,
                claim_bps: run.claim_bps,
                beacon,
                outcome,
            };
            election.raced.push(raced);
            self.event(Event::Raced {
                term,
                candidate,
                score_bps,
            });
        }
        self.step_until(now.at);
    }

    /// The present phase took too long: go on with what there is.
    pub(super) fn race_overdue(&mut self, now: Now) {
        let Some(run) = self.election.as_ref().and_then(|e| e.run.as_deref()) else {
            return;
        };
        match run.phase {
            Phase::Beacon { .. } => self.call_voters(now),
            Phase::Voters { .. } => self.start_levels(now),
            Phase::Levels { .. } => self.close_level(now),
        }
    }
}
