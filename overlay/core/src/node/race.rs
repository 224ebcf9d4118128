//! How a race begins, as its officer runs it: draw the beacon, then gather the
//! voters. Several may be under way, each of another candidate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::Core;
use super::running::{Entrant, Runner};
use crate::contact::{self, Contact};
use crate::election::ballot::VerifiedBallot;
use crate::election::jury;
use crate::election::race::{Measure, Outcome, Race};
use crate::election::{JURIES, K};
use crate::identity::{Domain, verify_bytes};
use crate::keyspace::{Key, NodeId};
use crate::time::{Now, Time};

/// Super-nodes whose leaves are called to vote.
const DISTRICTS: usize = 16;

/// Someone who may be drawn, and how to reach it.
pub(super) struct Elector {
    pub(super) contact: Contact,
    pub(super) via: Option<NodeId>,
    pub(super) prefix: Arc<str>,
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
pub(super) struct Sitting {
    pub(super) measure: Measure,
    pub(super) start: Time,
    /// Everybody who was called to it.
    pub(super) called: BTreeSet<NodeId>,
    pub(super) awaited: BTreeSet<NodeId>,
    pub(super) ballots: Vec<VerifiedBallot>,
}

/// What a race is waiting for.
pub(super) enum Phase {
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
    /// A home of the candidate.
    pub(super) via: Option<NodeId>,
    pub(super) claim_bps: u64,
    /// Who ran itself meanwhile, and is drawn no more.
    pub(super) excluded: BTreeSet<NodeId>,
    /// Who sat out, and the smallest share at which; 0 for those who were silent.
    pub(super) absent: BTreeMap<NodeId, u64>,
    pub(super) phase: Phase,
    /// When the present phase has taken too long.
    pub(super) deadline: Time,
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
            via,
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
            via,
            candidate,
            voters: BTreeMap::new(),
            excluded: BTreeSet::new(),
            absent: BTreeMap::new(),
            phase: Phase::Beacon { shares, awaited },
            deadline: now.at,
        };
        if let Some(election) = &mut self.election {
            election.runs.insert(node, run);
        }
        let patience = self.config.timing.election.reply_timeout;
        self.race_until(&node, if alone { now.at } else { now.at + patience });
    }

    /// A race under way, and its term.
    pub(super) fn run_of(&mut self, candidate: &NodeId) -> Option<(u64, &mut Run)> {
        let election = self.election.as_deref_mut()?;
        Some((election.term, election.runs.get_mut(candidate)?))
    }

    /// Sets how long the present phase of a race may take.
    pub(super) fn race_until(&mut self, candidate: &NodeId, at: Time) {
        if let Some((_, run)) = self.run_of(candidate) {
            run.deadline = at;
        }
        self.set_election_timer();
    }

    pub(super) fn on_beacon_share(&mut self, now: Now, from: NodeId, share: wire::BeaconShare) {
        let network = self.config.network.clone();
        let Some(candidate) = NodeId::from_slice(&share.candidate) else {
            return;
        };
        let Some((term, run)) = self.run_of(&candidate) else {
            return;
        };
        let Phase::Beacon { shares, awaited } = &mut run.phase else {
            return;
        };
        let subject = Key::hash(
            "beacon",
            &[network.as_bytes(), &term.to_le_bytes(), &candidate.0],
        );
        let genuine = verify_bytes(Domain::Beacon, &from, &subject.0, &share.share).is_ok();
        if share.term == term && genuine && awaited.remove(&from) {
            shares.insert(from, share.share);
            if awaited.is_empty() {
                self.call_voters(now, candidate);
            }
        }
    }

    /// The beacon is drawn: who may vote?
    pub(super) fn call_voters(&mut self, now: Now, candidate: NodeId) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.runs.get_mut(&candidate) else {
            return;
        };
        let Phase::Beacon { shares, .. } = &run.phase else {
            return;
        };
        let beacon = Self::beacon_of(shares);
        let mut awaited = BTreeSet::new();
        if let Runner::Chair { electorate } = &election.runner {
            for contact in electorate {
                run.voters
                    .insert(contact.node_id, Elector::new(contact.clone(), None));
            }
            run.phase = Phase::Voters { beacon, awaited };
            return self.start_levels(now, candidate);
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
        let Some((_, run)) = self.run_of(&candidate) else {
            return;
        };
        for voter in local {
            run.voters
                .insert(voter.node_id, Elector::new(voter, Some(own)));
        }
        run.voters.insert(own, Elector::new(contact, None));
        run.phase = Phase::Voters { beacon, awaited };
        let patience = self.config.timing.election.reply_timeout;
        self.race_until(&candidate, if alone { now.at } else { now.at + patience });
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
            voters: voters
                .into_iter()
                .map(|contact| contact.signed.clone())
                .collect(),
            total,
        };
        self.send(from, Kind::Voters(reply));
    }

    pub(super) fn on_voters(&mut self, now: Now, from: NodeId, voters: wire::Voters) {
        let Some(candidate) = NodeId::from_slice(&voters.candidate) else {
            return;
        };
        let bans = self.decrees.bans().clone();
        let Some((term, run)) = self.run_of(&candidate) else {
            return;
        };
        let Phase::Voters { awaited, .. } = &mut run.phase else {
            return;
        };
        if voters.term != term || !awaited.remove(&from) {
            return;
        }
        for signed in voters.voters.iter().take(JURIES as usize * K + 1) {
            if let Ok(contact) = Contact::open(signed)
                && !bans.peer(&contact.node_id)
            {
                let via = (contact.node_id != from).then_some(from);
                run.voters
                    .entry(contact.node_id)
                    .or_insert_with(|| Elector::new(contact, via));
            }
        }
        if awaited.is_empty() {
            self.start_levels(now, candidate);
        }
    }
}
