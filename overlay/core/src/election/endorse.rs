//! Who may sign a mandate or a release, as far as the one who asks knows.

use std::collections::BTreeSet;

use bytes::Bytes;
use canopy_proto::wire;

use super::ballot::BallotError;
use super::mandate::{Basis, MAX_ASSEMBLY, Mandate};
use crate::identity::{Domain, SignatureError, verify};
use crate::keyspace::{NodeId, keys};
use crate::placement::Placement;

/// Officer and two auditors, where there are that many super-nodes.
pub const ENDORSEMENTS: usize = 3;
/// The officer's seat must be among this many closest to the term's position:
/// the first, and stand-ins for silent ones and for differing rosters.
pub const OFFICER_RANKS: usize = 8;
/// The officer's rank is checked by those who know more super-nodes than this;
/// whoever knows few may not know the closest.
pub const RANK_KNOWN: usize = 16;

/// The super-nodes that a verifier holds mandates of.
pub trait Authorities {
    /// How many there are.
    fn count(&self) -> usize;
    /// Whether `node` is one.
    fn contains(&self, node: &NodeId) -> bool;
    /// The verifier, where it is itself one of those counted.
    fn verifier(&self) -> Option<NodeId> {
        None
    }
    /// How many have a seat closer to the position of (`network`, `term`) than
    /// `node`; `None` if it is no super-node, or not among the
    /// [`OFFICER_RANKS`] closest. Asked once a mandate: worth caching by term.
    fn rank(&self, network: &str, term: u64, node: &NodeId) -> Option<usize>;
}

impl Authorities for Placement {
    fn count(&self) -> usize {
        self.len()
    }

    fn contains(&self, node: &NodeId) -> bool {
        self.get(node).is_some()
    }

    fn rank(&self, network: &str, term: u64, node: &NodeId) -> Option<usize> {
        let nearest = self.nearest(&keys::election(network, term), OFFICER_RANKS);
        nearest.iter().position(|(_, closest)| closest == node)
    }
}

/// Terms that a verifier knows of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of the latest mandate.
    pub mandate: Option<u64>,
    /// Of the latest release: this term and earlier ones are over.
    pub released: Option<u64>,
}

/// What a verifier knows.
#[derive(Clone, Copy)]
pub struct VerifyContext<'a> {
    /// The overlay's name.
    pub network: &'a str,
    /// The verifier's wall clock, milliseconds since 1970.
    pub now_ms: u64,
    /// The network's operator key, where it has one.
    pub operator: Option<NodeId>,
    /// Super-nodes known by mandates already verified.
    pub authorities: &'a dyn Authorities,
    /// Assemblies that the verifier trusts: the one that it musters with, and
    /// those of founded mandates that it accepted before. Members may be in
    /// any order.
    pub assemblies: &'a [&'a [NodeId]],
    /// A newcomer that knows no super-node takes its first roster from the
    /// peers that it was told of: everything is checked but the authority of
    /// those who signed. Ignored as soon as a super-node is known.
    pub bootstrap: bool,
    /// Ballots may be left out: a leaf checks who signed, not what for.
    pub brief: bool,
    /// What is known of a candidate's terms.
    pub held: &'a dyn Fn(&NodeId) -> Held,
}

impl VerifyContext<'_> {
    /// How many known super-nodes, other than the candidate, have to sign.
    pub fn required(&self, candidate: &NodeId) -> usize {
        let itself = usize::from(self.authorities.contains(candidate));
        ENDORSEMENTS.min(self.authorities.count().saturating_sub(itself))
    }

    fn newcomer(&self) -> bool {
        self.bootstrap && self.authorities.count() == 0
    }

    /// Whether `endorsers`, distinct and of valid signatures, may give this
    /// mandate.
    pub(super) fn check_endorsers(
        &self,
        mandate: &Mandate,
        endorsers: &[NodeId],
    ) -> Result<(), MandateError> {
        if mandate.basis == Basis::Designated {
            return match endorsers == [mandate.officer] {
                true => Ok(()),
                false => Err(MandateError::Operator),
            };
        }
        if endorsers.contains(&mandate.candidate) {
            return Err(MandateError::OwnEndorsement);
        }
        // A chair may be the only one who can serve; the assembly signs for it.
        let own = mandate.basis == Basis::Founded && mandate.officer == mandate.candidate;
        if !own && !endorsers.contains(&mandate.officer) {
            return Err(MandateError::Officer(mandate.officer));
        }
        match mandate.basis {
            Basis::Founded => self.check_founders(mandate, endorsers),
            _ if self.newcomer() => Ok(()),
            _ => {
                self.check_authorities(&mandate.candidate, endorsers)?;
                self.check_officer(mandate)
            }
        }
    }

    /// A strict majority of the mandate's assembly, and of one that the
    /// verifier trusts: an assembly of somebody's inventions is neither.
    fn check_founders(&self, mandate: &Mandate, endorsers: &[NodeId]) -> Result<(), MandateError> {
        let assembly = &mandate.assembly;
        if assembly.is_empty() {
            // Left out for a leaf, who cannot tell then.
            return match self.newcomer() {
                true => Ok(()),
                false => Err(MandateError::ForeignAssembly),
            };
        }
        if let Some(outsider) = endorsers
            .iter()
            .find(|n| assembly.binary_search(n).is_err())
        {
            return Err(MandateError::Outsider(*outsider));
        }
        majority(endorsers, assembly)?;
        if self.newcomer() {
            return Ok(());
        }
        match self
            .assemblies
            .iter()
            .any(|own| majority(endorsers, own).is_ok())
        {
            true => Ok(()),
            false => Err(MandateError::ForeignAssembly),
        }
    }

    /// Enough of `endorsers` are known super-nodes. Signatures of others do
    /// no harm: rosters differ for a while after each election.
    pub(super) fn check_authorities(
        &self,
        candidate: &NodeId,
        endorsers: &[NodeId],
    ) -> Result<(), MandateError> {
        let required = self.required(candidate);
        // Who was away could not sign, and is not to be left behind by what the
        // others did meanwhile.
        let away = self
            .authorities
            .verifier()
            .is_some_and(|own| own != *candidate && !endorsers.contains(&own));
        let others = self.authorities.count().saturating_sub(usize::from(away));
        let itself = usize::from(self.authorities.contains(candidate));
        let required = required.min(others.saturating_sub(itself));
        if required == 0 {
            return Err(MandateError::NoAuthority);
        }
        let known = endorsers
            .iter()
            .filter(|n| self.authorities.contains(n))
            .count();
        if known < required {
            return Err(MandateError::Endorsements {
                valid: known,
                required,
            });
        }
        Ok(())
    }

    fn check_officer(&self, mandate: &Mandate) -> Result<(), MandateError> {
        let officer = &mandate.officer;
        if !self.authorities.contains(officer) {
            return Err(MandateError::Officer(*officer));
        }
        if self.authorities.count() <= RANK_KNOWN {
            return Ok(());
        }
        match self.authorities.rank(self.network, mandate.term, officer) {
            Some(rank) if rank < OFFICER_RANKS => Ok(()),
            _ => Err(MandateError::Officer(*officer)),
        }
    }
}

fn majority(endorsers: &[NodeId], assembly: &[NodeId]) -> Result<(), MandateError> {
    let members: BTreeSet<&NodeId> = assembly.iter().collect();
    let valid = endorsers.iter().filter(|n| members.contains(n)).count();
    let required = members.len() / 2 + 1;
    match valid >= required {
        true => Ok(()),
        false => Err(MandateError::Endorsements { valid, required }),
    }
}

/// Checks every signature of `body`; returns the distinct signers, in order.
pub(super) fn signers(
    domain: Domain,
    body: &Bytes,
    endorsements: &[wire::Endorsement],
) -> Result<Vec<NodeId>, MandateError> {
    if endorsements.is_empty() || endorsements.len() > MAX_ASSEMBLY {
        return Err(MandateError::EndorsementCount(endorsements.len()));
    }
    let mut signers = Vec::with_capacity(endorsements.len());
    let mut seen = BTreeSet::new();
    for endorsement in endorsements {
        let signer = NodeId::from_slice(&endorsement.signer).ok_or(SignatureError::Signer)?;
        if !seen.insert(signer) {
            return Err(MandateError::EndorserTwice(signer));
        }
        signers.push(signer);
    }
    for (signer, endorsement) in signers.iter().zip(endorsements) {
        verify(domain, signer, body, &endorsement.signature)?;
    }
    Ok(signers)
}

/// Why a mandate or a release was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MandateError {
    /// Over the size limit.
    #[error("mandate: {0} bytes, the limit is {max}", max = canopy_proto::limits::MANDATE)]
    Size(usize),
    /// Cannot be decoded, or an id is not 32 bytes.
    #[error("mandate: cannot be decoded")]
    Body,
    /// No known basis.
    #[error("mandate: says neither founded, elected, recognised nor designated")]
    Basis,
    /// Made for another network.
    #[error("mandate: made for network {0:?}")]
    Network(String),
    /// The failure domain is too long.
    #[error("mandate: failure domain too long")]
    Domain,
    /// Issued in the future.
    #[error("mandate: issued {0} ms in the future; check the clocks")]
    Future(u64),
    /// Over.
    #[error("mandate: expired; the super-node has to be confirmed in office")]
    Expired,
    /// Lives longer than allowed.
    #[error("mandate: its lifetime is longer than allowed")]
    Lifetime,
    /// A later mandate of the candidate is known.
    #[error("mandate: of term {term}, but one of term {held} is known")]
    Superseded {
        /// Its term.
        term: u64,
        /// The latest known.
        held: u64,
    },
    /// The candidate laid the role down, or was recalled.
    #[error("mandate: term {0} was released")]
    Released(u64),
    /// A ballot does not hold.
    #[error("mandate: {0}")]
    Ballot(#[from] BallotError),
    /// Too few or too many ballots.
    #[error("mandate: {0} ballots; a jury has {min} to {max}", min = super::MIN_JURY, max = super::K)]
    JurySize(usize),
    /// The ballots are not those that the mandate was signed with.
    #[error("mandate: made with other ballots")]
    OtherBallots,
    /// A ballot of another network, term, beacon or candidate.
    #[error("mandate: the ballot of {0:?} belongs to another race")]
    OtherRace(NodeId),
    /// A ballot of another jury, level or share than the first.
    #[error("mandate: the ballot of {0:?} belongs to another jury or level")]
    OtherJury(NodeId),
    /// Two ballots of one voter.
    #[error("mandate: {0:?} voted twice")]
    VoterTwice(NodeId),
    /// Two ballots from one network.
    #[error("mandate: {0:?} is the second voter of its network")]
    NetworkTwice(NodeId),
    /// Another capacity than the ballots add up to.
    #[error("mandate: states {stated} bit/s, the ballots give {due}")]
    Capacity {
        /// What it says.
        stated: u64,
        /// What the ballots give.
        due: u64,
    },
    /// Another number of seats than the capacity buys.
    #[error("mandate: states {stated} seats, its capacity buys {due}")]
    Seats {
        /// What it says.
        stated: u32,
        /// What the capacity buys.
        due: u32,
    },
    /// The assembly is too small, too large, out of order, or out of place.
    #[error("mandate: not a founding assembly of 4 to 256 members in ascending order")]
    Assembly,
    /// A juror, the officer, the candidate or an endorser is not of the assembly.
    #[error("mandate: {0:?} is not a member of the founding assembly")]
    Outsider(NodeId),
    /// An assembly that the verifier has no part in.
    #[error("mandate: founded by strangers; ask a known super-node to recognise it")]
    ForeignAssembly,
    /// A signature does not hold.
    #[error("mandate: {0}")]
    Signature(#[from] SignatureError),
    /// No or too many endorsements.
    #[error("mandate: {0} endorsements; there have to be 1 to 256")]
    EndorsementCount(usize),
    /// One peer endorsed twice.
    #[error("mandate: {0:?} endorsed twice")]
    EndorserTwice(NodeId),
    /// The candidate endorsed itself.
    #[error("mandate: endorsed by its own candidate")]
    OwnEndorsement,
    /// Too few of those who signed have the right to.
    #[error("mandate: {valid} valid endorsements of {required} required")]
    Endorsements {
        /// Endorsements of known super-nodes, or members.
        valid: usize,
        /// How many it takes.
        required: usize,
    },
    /// The officer did not sign, is unknown, or was not due to run this term.
    #[error("mandate: {0:?} was not this term's returning officer")]
    Officer(NodeId),
    /// The verifier knows nobody who could have given it.
    #[error("mandate: no super-node is known that could have signed; fetch the roster first")]
    NoAuthority,
    /// Not signed by the network's operator alone.
    #[error("mandate: not signed by this network's operator key")]
    Operator,
    /// A designated mandate with ballots or assembly, or beyond any capacity.
    #[error("mandate: a designated mandate carries neither ballots nor assembly")]
    DesignatedShape,
}
