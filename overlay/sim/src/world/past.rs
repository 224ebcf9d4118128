//! An overlay that has run before: the papers that its elections gave are on the
//! disks of its peers, who start as they do when everybody restarts at once. For
//! scenarios that ask what an overlay costs while it runs, not how it comes to be.
//!
//! The papers are those of honest elections among the same peers: the strongest of
//! those who can be dialled serve, for what their lines carry, and voters, officers
//! and auditors have signed. The cores check them like any others.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use canopy_core::contact::{Contact, prefix};
use canopy_core::election::ballot::{Ballot, VerifiedBallot};
use canopy_core::election::law::deputies_wanted;
use canopy_core::election::mandate::{Basis, Mandate, endorse, seats_for};
use canopy_core::election::{K, tally};
use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::node::{OFFICERS, Saved, Stand, lanes};
use canopy_core::placement::{Member, Placement, R};
use canopy_proto::wire;

use super::{NETWORK, PeerId, START_MS, World, peer};
use crate::draw::Draw;
use crate::net::Nat;

/// What voters with lines of homes can show of a line, bits a second.
const MOST_SHOWN_BPS: u64 = 500_000_000;
/// Super-nodes that a leaf in a large overlay has heard of from its homes.
const KNOWN: usize = 32;

/// What is on the disks.
#[derive(Default)]
pub(super) struct Past {
    /// Those elected, in order...
    elected: Vec<NodeId>,
    /// ...and what each of them has.
    papers: Arc<Saved>,
    /// Of those who serve, what leaves have.
    brief: Vec<(NodeId, wire::RosterEntry)>,
    /// Those who have started, and since then have what they saved themselves.
    begun: BTreeSet<PeerId>,
}

impl Past {
    /// What a peer had saved before it starts for the first time.
    pub(super) fn saved(&mut self, id: PeerId, node: &NodeId) -> Option<Arc<Saved>> {
        if self.elected.is_empty() || !self.begun.insert(id) {
            return None;
        }
        if self.elected.binary_search(node).is_ok() {
            return Some(self.papers.clone());
        }
        // Those whose keys come next after its own, as its homes told it.
        let first = self.brief.partition_point(|(other, _)| other < node);
        let around = self.brief[first..].iter().chain(&self.brief[..first]);
        let around = around.take(KNOWN).map(|(_, entry)| entry.clone());
        Some(Arc::new(saved(around.collect())))
    }
}

fn saved(entries: Vec<wire::RosterEntry>) -> Saved {
    let decrees = Vec::new();
    Saved(wire::Saved { entries, decrees })
}

/// One who was elected.
struct Elected {
    id: PeerId,
    contact: Contact,
    /// What each voter measured, bits a second.
    share_bps: u64,
    term: u64,
    deputy: bool,
}

impl World {
    /// Puts the papers of earlier elections on everybody's disk; who was elected.
    pub(crate) fn elect_before(&mut self, draw: &mut Draw) -> Vec<NodeId> {
        let elected = self.those_elected();
        let serving = elected.iter().filter(|one| !one.deputy);
        let members = serving.map(|one| Member {
            node: one.contact.node_id,
            seats: seats_for(tally::discounted(one.share_bps * K as u64)),
            domain: one.contact.domain().into(),
        });
        let placement = Placement::empty().updated([], members.collect::<Vec<_>>());
        let mut past = Past::default();
        let mut papers = Vec::with_capacity(elected.len());
        for one in &elected {
            let entry = wire::RosterEntry {
                mandate: Some(self.mandate_before(one, &placement, draw)),
                contact: Some(one.contact.signed.clone()),
                release: None,
            };
            if !one.deputy {
                let mut brief = entry.clone();
                if let Some(mandate) = &mut brief.mandate {
                    mandate.ballots = Bytes::new();
                }
                past.brief.push((one.contact.node_id, brief));
            }
            papers.push((one.contact.node_id, entry));
        }
        papers.sort_by_key(|(node, _)| *node);
        past.elected = papers.iter().map(|(node, _)| *node).collect();
        past.papers = Arc::new(saved(papers.into_iter().map(|(_, entry)| entry).collect()));
        past.brief.sort_by_key(|(node, _)| *node);
        self.past = past;
        elected.iter().map(|one| one.contact.node_id).collect()
    }

    /// As many as the ratio asks for, with deputies, in the order in which an
    /// officer measures: who claims most comes first.
    fn those_elected(&self) -> Vec<Elected> {
        let able = |id: &PeerId| {
            let spec = &self.peers[*id as usize].spec;
            spec.nat == Nat::Open
                && spec.stand != Stand::Never
                && spec.up_bps >= self.config.floor_bps
        };
        let mut able: Vec<PeerId> = (0..self.peers.len() as PeerId).filter(able).collect();
        let claim = |id: &PeerId| self.peers[*id as usize].spec.claim_bps;
        able.sort_by_key(|id| (std::cmp::Reverse(claim(id)), *id));
        let serve = (self.peers.len() / (self.config.ratio + 1)).max(R);
        let lanes = lanes(serve) as usize;
        let deputies = lanes * deputies_wanted(serve.div_ceil(lanes));
        let able = able.into_iter().take(serve + deputies).enumerate();
        let elected = able.map(|(place, id)| {
            let spec = &self.peers[id as usize].spec;
            let line = spec.up_bps.min(spec.down_bps).min(MOST_SHOWN_BPS);
            Elected {
                id,
                contact: self.contact_before(id),
                share_bps: line / K as u64,
                // Each lane has as many, and deputies of its own.
                term: 1 + place as u64,
                deputy: place >= serve,
            }
        });
        elected.collect()
    }

    fn contact_before(&self, id: PeerId) -> Contact {
        let peer = &self.peers[id as usize];
        let addr = self.addr_of(id, peer);
        let zone = peer.zone();
        Contact::sign(&peer::identity(self.seed, id), &[addr], &zone, START_MS - 1)
    }

    /// The mandate, signed by those whose seats are closest to its term, and with
    /// the ballots of a jury drawn by lot.
    fn mandate_before(
        &self,
        one: &Elected,
        placement: &Placement,
        draw: &mut Draw,
    ) -> wire::SignedMandate {
        let timing = &self.config.timing.election;
        let lifetime = timing.mandate_lifetime.as_millis() as u64;
        let age = draw.below(lifetime - timing.mandate_renewal.as_millis() as u64);
        let issued_ms = START_MS - age;
        let beacon = Key::hash("sim beacon", &[&draw.seed().to_le_bytes()]);
        let candidate = one.contact.node_id;
        let voters = self.jury_before(one.id, draw);
        let ballots = voters.into_iter().filter_map(|(voter, voter_prefix)| {
            let identity = peer::identity(self.seed, voter);
            let ballot = Ballot {
                network: NETWORK.into(),
                term: one.term,
                beacon,
                jury: 0,
                level: 0,
                voter: identity.node_id(),
                candidate,
                share_bps: one.share_bps,
                up_bps: one.share_bps,
                down_bps: one.share_bps,
                round_trip_us: 50_000,
                loss_ppm: 0,
                issued_ms,
                voter_prefix,
            };
            VerifiedBallot::cast(&identity, ballot).ok()
        });
        let ballots: Vec<VerifiedBallot> = ballots.collect();
        let near = placement.closest(&keys::election(NETWORK, one.term), OFFICERS + 1);
        let near = near.iter().filter_map(|(_, node)| self.find(node));
        let signers: Vec<PeerId> = near.filter(|id| *id != one.id).take(OFFICERS).collect();
        let officer = signers.first().copied().unwrap_or(one.id);
        let mandate = Mandate {
            network: NETWORK.into(),
            term: one.term,
            candidate,
            basis: Basis::Elected,
            capacity_bps: tally::capacity_bps(&ballots),
            issued_ms,
            expires_ms: issued_ms + lifetime,
            beacon,
            ballots,
            officer: self.peers[officer as usize].node,
            assembly: Vec::new(),
            domain: one.contact.domain(),
            deputy: one.deputy,
        };
        let mut signed = mandate.draft();
        for signer in signers {
            let signer = peer::identity(self.seed, signer);
            signed.endorsements.push(endorse(&signer, &signed.body));
        }
        signed
    }

    /// Voters, each of another network.
    fn jury_before(&self, candidate: PeerId, draw: &mut Draw) -> Vec<(PeerId, String)> {
        let most = K.min(self.peers.len() - 1);
        let mut networks = BTreeSet::new();
        let mut voters = Vec::with_capacity(most);
        for _ in 0..most * 8 {
            let voter = draw.index(self.peers.len()) as PeerId;
            let network = prefix(&self.addr_of(voter, &self.peers[voter as usize]));
            if voter != candidate && voters.len() < most && networks.insert(network.clone()) {
                voters.push((voter, network));
            }
        }
        voters
    }
}
