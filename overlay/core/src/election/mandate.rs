//! Mandates: the right to serve as a super-node, and every check of it.
//!
//! Nobody is treated as a super-node on anything but a [`VerifiedMandate`],
//! and only [`open`] makes one. What is checked does not depend on who sent it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use canopy_proto::{limits, wire};
use prost::Message;

use super::ballot::{Ballot, MAX_BPS, MAX_NETWORK, VerifiedBallot};
use super::endorse::{self, VerifyContext};
use super::{K, MIN_JURY, tally};
use crate::identity::{Domain, Identity};
use crate::keyspace::{Key, NodeId};
use crate::memory;

pub use super::endorse::MandateError;

/// Seats a super-node has at least: with fewer, the share of keys that a node
/// gets strays too far from its capacity.
pub const MIN_SEATS: u32 = 16;
/// Seats a super-node has at most: each costs every peer a hash and 32 bytes.
pub const MAX_SEATS: u32 = 1024;
/// Capacity that buys one seat, bits a second: 256 seats, which bring
/// max/mean load to 1.13, at 64 Mbit/s.
pub const BPS_PER_SEAT: u64 = 250_000;
/// Longest life of a mandate, milliseconds (7 days).
pub const MAX_LIFETIME_MS: u64 = 7 * 24 * 3600 * 1000;
/// Longest life of a designated mandate, milliseconds (400 days: an operator
/// signs once a year).
pub const MAX_DESIGNATED_MS: u64 = 400 * 24 * 3600 * 1000;
/// How far ahead of ours an officer's clock may be, milliseconds.
pub const MAX_CLOCK_AHEAD_MS: u64 = 10_000;
/// Smallest founding assembly: a candidate and a jury.
pub const MIN_ASSEMBLY: usize = MIN_JURY + 1;
/// Largest founding assembly.
pub const MAX_ASSEMBLY: usize = 256;
/// Longest failure domain, bytes.
pub const MAX_DOMAIN: usize = 64;

/// Seats for this capacity: linear, so that load follows capacity, between
/// [`MIN_SEATS`] and [`MAX_SEATS`].
pub fn seats_for(capacity_bps: u64) -> u32 {
    let seats = u32::try_from(capacity_bps / BPS_PER_SEAT).unwrap_or(MAX_SEATS);
    seats.clamp(MIN_SEATS, MAX_SEATS)
}

/// How a mandate came about; see [`wire::Basis`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A majority of a founding assembly signed.
    Founded,
    /// Officer and auditors signed a tally of their own term.
    Elected,
    /// Officer and auditors took over the tally of another assembly.
    Recognised,
    /// The network's operator signed.
    Designated,
}

impl Basis {
    fn to_wire(self) -> i32 {
        match self {
            Basis::Founded => wire::Basis::Founded as i32,
            Basis::Elected => wire::Basis::Elected as i32,
            Basis::Recognised => wire::Basis::Recognised as i32,
            Basis::Designated => wire::Basis::Designated as i32,
        }
    }

    fn from_wire(value: i32) -> Option<Self> {
        match wire::Basis::try_from(value).ok()? {
            wire::Basis::Unspecified => None,
            wire::Basis::Founded => Some(Basis::Founded),
            wire::Basis::Elected => Some(Basis::Elected),
            wire::Basis::Recognised => Some(Basis::Recognised),
            wire::Basis::Designated => Some(Basis::Designated),
        }
    }
}

/// What a mandate says. Plain data; proves nothing by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Mandate {
    /// The overlay it is for.
    pub network: String,
    /// Later terms replace earlier ones.
    pub term: u64,
    /// Who may serve.
    pub candidate: NodeId,
    /// How it came about.
    pub basis: Basis,
    /// Capacity, bits a second: [`tally::capacity_bps`] of the ballots, or as
    /// the operator states it.
    pub capacity_bps: u64,
    /// When it was made, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// The beacon that drew the jury; all zero for a designated one.
    pub beacon: Key,
    /// The ballots of the decisive jury; none for a designated one.
    pub ballots: Vec<VerifiedBallot>,
    /// Who ran the term: the returning officer, the member of the assembly
    /// that collected the signatures, or the operator.
    pub officer: NodeId,
    /// The founding assembly, ascending; empty unless founded.
    pub assembly: Vec<NodeId>,
    /// Failure domain of the candidate.
    pub domain: String,
    /// Held in reserve: the candidate does not serve yet.
    pub deputy: bool,
}

impl Mandate {
    /// Seats that the capacity buys.
    pub fn seats(&self) -> u32 {
        seats_for(self.capacity_bps)
    }

    /// The form that is passed on, without signatures. Keep these bytes:
    /// signatures hold for no other encoding.
    pub fn draft(&self) -> wire::SignedMandate {
        let ballots = wire::Ballots {
            ballots: self.ballots.iter().map(|b| b.signed().clone()).collect(),
        };
        let ballots = Bytes::from(ballots.encode_to_vec());
        let assembly = self.assembly.iter().flat_map(|node| node.0);
        let assembly: Bytes = assembly.collect();
        let body = wire::Mandate {
            network: self.network.clone(),
            term: self.term,
            candidate: self.candidate.to_bytes(),
            basis: self.basis.to_wire(),
            capacity_bps: self.capacity_bps,
            seats: self.seats(),
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
            beacon: self.beacon.to_bytes(),
            ballots_hash: hash_of("ballots", &ballots),
            officer: self.officer.to_bytes(),
            assembly_hash: hash_of("assembly", &assembly),
            domain: self.domain.clone(),
            deputy: self.deputy,
        };
        wire::SignedMandate {
            body: body.encode_to_vec().into(),
            endorsements: Vec::new(),
            ballots,
            assembly,
        }
    }

    /// Signs the mandate with the operator key, which needs nobody else.
    /// `officer` and `basis` are set accordingly, ballots and assembly dropped.
    pub fn designate(mut self, operator: &Identity) -> wire::SignedMandate {
        self.basis = Basis::Designated;
        self.officer = operator.node_id();
        self.ballots.clear();
        self.assembly.clear();
        let mut signed = self.draft();
        signed.endorsements.push(endorse(operator, &signed.body));
        signed
    }

    fn decode(draft: &wire::SignedMandate) -> Result<Self, MandateError> {
        let wire = wire::Mandate::decode(draft.body.clone()).map_err(|_| MandateError::Body)?;
        let node = |bytes: &[u8]| NodeId::from_slice(bytes).ok_or(MandateError::Body);
        let (ballots, assembly) = (&draft.ballots, &draft.assembly);
        if !ballots.is_empty() && wire.ballots_hash != hash_of("ballots", ballots) {
            return Err(MandateError::OtherBallots);
        }
        let known = assembly.is_empty() || wire.assembly_hash == hash_of("assembly", assembly);
        if !known || assembly.len() > MAX_ASSEMBLY * 32 {
            return Err(MandateError::Assembly);
        }
        let mandate = Self {
            basis: Basis::from_wire(wire.basis).ok_or(MandateError::Basis)?,
            term: wire.term,
            candidate: node(&wire.candidate)?,
            capacity_bps: wire.capacity_bps,
            issued_ms: wire.issued_ms,
            expires_ms: wire.expires_ms,
            beacon: Key::from_slice(&wire.beacon).ok_or(MandateError::Body)?,
            ballots: Vec::new(),
            officer: node(&wire.officer)?,
            assembly: assembly.chunks(32).map(node).collect::<Result<_, _>>()?,
            network: wire.network,
            domain: wire.domain,
            deputy: wire.deputy,
        };
        if wire.seats != mandate.seats() {
            return Err(MandateError::Seats {
                stated: wire.seats,
                due: mandate.seats(),
            });
        }
        let ballots = wire::Ballots::decode(ballots.clone()).map_err(|_| MandateError::Body)?;
        let ballots = ballots.ballots;
        if ballots.len() > K {
            return Err(MandateError::JurySize(ballots.len()));
        }
        let ballots = ballots.iter().map(VerifiedBallot::open);
        let ballots: Vec<VerifiedBallot> = ballots.collect::<Result<_, _>>()?;
        Ok(Self { ballots, ..mandate })
    }
}

/// What a mandate says of its ballots, or its assembly.
fn hash_of(what: &str, bytes: &Bytes) -> Bytes {
    match bytes.is_empty() {
        true => Bytes::new(),
        false => Key::hash(what, &[bytes]).to_bytes(),
    }
}

/// The hash of an encoded mandate or release: what an audit is about.
pub fn subject(body: &[u8]) -> Key {
    Key::hash("audit subject", &[body])
}

/// Signs an encoded mandate. Call [`audit`] first, unless it is one's own.
pub fn endorse(identity: &Identity, body: &[u8]) -> wire::Endorsement {
    wire::Endorsement {
        signer: identity.node_id().to_bytes(),
        signature: identity.sign_bytes(Domain::Mandate, body),
    }
}

/// A mandate that passed every check, with the form that is passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedMandate(Arc<Examined>);

/// A mandate that is sound in itself, whoever may have given it.
#[derive(Debug, PartialEq)]
pub(crate) struct Examined {
    mandate: Mandate,
    endorsers: Vec<NodeId>,
    signed: Arc<wire::SignedMandate>,
}

impl Examined {
    pub(crate) fn signed(&self) -> &wire::SignedMandate {
        &self.signed
    }
}

impl VerifiedMandate {
    /// What it says.
    pub fn mandate(&self) -> &Mandate {
        &self.0.mandate
    }

    /// Who signed it.
    pub fn endorsers(&self) -> &[NodeId] {
        &self.0.endorsers
    }

    /// What was signed, to be stored and passed on.
    pub fn signed(&self) -> &Arc<wire::SignedMandate> {
        &self.0.signed
    }

    /// Whether it still holds.
    pub fn valid_at(&self, now_ms: u64) -> bool {
        now_ms < self.0.mandate.expires_ms
    }
}

/// Checks a mandate from outside: size, network, times, term, ballots, tally,
/// seats, and that those who signed it have the right to.
pub fn open(
    signed: &wire::SignedMandate,
    context: &VerifyContext<'_>,
) -> Result<VerifiedMandate, MandateError> {
    // Cheap refusals first; signatures cost 40 microseconds each.
    let size = signed.encoded_len();
    if size > limits::MANDATE {
        return Err(MandateError::Size(size));
    }
    let examined = match memory::examined(signed) {
        Some(examined) => examined,
        None => {
            let mandate = Mandate::decode(signed)?;
            check_frame(&mandate, context)?;
            check_shape(&mandate, signed.ballots.is_empty())?;
            let examined = Arc::new(Examined {
                mandate,
                endorsers: endorse::signers(Domain::Mandate, &signed.body, &signed.endorsements)?,
                signed: Arc::new(signed.clone()),
            });
            memory::remember(&examined);
            examined
        }
    };
    let Examined {
        mandate, endorsers, ..
    } = &*examined;
    check_frame(mandate, context)?;
    if mandate.basis == Basis::Designated {
        check_operator(mandate, context)?;
    }
    context.check_endorsers(mandate, endorsers)?;
    let whole = mandate.basis == Basis::Designated || !mandate.ballots.is_empty();
    if !whole && !context.brief {
        return Err(MandateError::JurySize(0));
    }
    Ok(VerifiedMandate(examined))
}

/// What a mandate says, for people: that its ballots are signed by those whom they
/// name is checked, and nothing else.
///
/// # Errors
/// It cannot be read, or a ballot is not its voter's.
pub fn read(signed: &wire::SignedMandate) -> Result<Mandate, MandateError> {
    let size = signed.encoded_len();
    match size > limits::MANDATE {
        true => Err(MandateError::Size(size)),
        false => Mandate::decode(signed),
    }
}

/// Checks everything about a mandate but who signed it: what an auditor, or a
/// member of an assembly, does before it signs.
pub fn audit(
    draft: &wire::SignedMandate,
    context: &VerifyContext<'_>,
) -> Result<Mandate, MandateError> {
    let size = draft.encoded_len();
    match size > limits::MANDATE {
        true => Err(MandateError::Size(size)),
        false => {
            let mandate = Mandate::decode(draft)?;
            check_frame(&mandate, context)?;
            check_shape(&mandate, false)?;
            Ok(mandate)
        }
    }
}

/// What belongs into a mandate of its basis; of a `brief` one without what is
/// left out for leaves.
fn check_shape(mandate: &Mandate, brief: bool) -> Result<(), MandateError> {
    let founded = mandate.basis == Basis::Founded;
    if mandate.basis == Basis::Designated {
        let bare = mandate.ballots.is_empty() && mandate.assembly.is_empty();
        return match bare && mandate.capacity_bps <= MAX_BPS {
            true => Ok(()),
            false => Err(MandateError::DesignatedShape),
        };
    }
    match mandate.assembly.is_empty() {
        true if founded && !brief => return Err(MandateError::Assembly),
        false if !founded => return Err(MandateError::Assembly),
        false => check_assembly(mandate)?,
        true => {}
    }
    match brief {
        true => Ok(()),
        false => check_ballots(mandate),
    }
}

fn check_frame(mandate: &Mandate, context: &VerifyContext<'_>) -> Result<(), MandateError> {
    if mandate.network != context.network {
        let name = mandate.network.chars().take(MAX_NETWORK).collect();
        return Err(MandateError::Network(name));
    }
    if mandate.domain.len() > MAX_DOMAIN {
        return Err(MandateError::Domain);
    }
    if mandate.issued_ms > context.now_ms.saturating_add(MAX_CLOCK_AHEAD_MS) {
        return Err(MandateError::Future(mandate.issued_ms - context.now_ms));
    }
    if mandate.expires_ms <= context.now_ms {
        return Err(MandateError::Expired);
    }
    let longest = match mandate.basis {
        Basis::Designated => MAX_DESIGNATED_MS,
        _ => MAX_LIFETIME_MS,
    };
    if mandate.expires_ms.saturating_sub(mandate.issued_ms) > longest {
        return Err(MandateError::Lifetime);
    }
    let held = (context.held)(&mandate.candidate);
    if held.released.is_some_and(|term| mandate.term <= term) {
        return Err(MandateError::Released(mandate.term));
    }
    match held.mandate {
        Some(term) if mandate.term < term => Err(MandateError::Superseded {
            term: mandate.term,
            held: term,
        }),
        _ => Ok(()),
    }
}

fn check_operator(mandate: &Mandate, context: &VerifyContext<'_>) -> Result<(), MandateError> {
    match context.operator == Some(mandate.officer) {
        true => Ok(()),
        false => Err(MandateError::Operator),
    }
}

fn check_assembly(mandate: &Mandate) -> Result<(), MandateError> {
    let assembly = &mandate.assembly;
    let ascending = assembly.windows(2).all(|pair| pair[0] < pair[1]);
    let sized = (MIN_ASSEMBLY..=MAX_ASSEMBLY).contains(&assembly.len());
    if !ascending || !sized {
        return Err(MandateError::Assembly);
    }
    let jurors = mandate.ballots.iter().map(|b| b.ballot().voter);
    match jurors
        .chain([mandate.candidate, mandate.officer])
        .find(|node| assembly.binary_search(node).is_err())
    {
        Some(outsider) => Err(MandateError::Outsider(outsider)),
        None => Ok(()),
    }
}

/// One jury of this race at one level, each voter and network once, and the
/// capacity that the ballots add up to.
fn check_ballots(mandate: &Mandate) -> Result<(), MandateError> {
    let ballots: Vec<&Ballot> = mandate.ballots.iter().map(|b| b.ballot()).collect();
    let first = match ballots.first() {
        Some(first) if (MIN_JURY..=K).contains(&ballots.len()) => *first,
        _ => return Err(MandateError::JurySize(ballots.len())),
    };
    // A deputy is called into office by a later term than it was measured in.
    let raced = match mandate.basis {
        Basis::Elected if !mandate.deputy => first.term <= mandate.term,
        _ => first.term == mandate.term,
    };
    if !raced {
        return Err(MandateError::OtherRace(first.voter));
    }
    let (mut voters, mut networks) = (BTreeSet::new(), BTreeSet::new());
    for ballot in &ballots {
        let same_race = ballot.network == mandate.network
            && ballot.term == first.term
            && ballot.beacon == mandate.beacon
            && ballot.candidate == mandate.candidate;
        if !same_race {
            return Err(MandateError::OtherRace(ballot.voter));
        }
        let jury = |b: &Ballot| (b.jury, b.level, b.share_bps);
        if jury(ballot) != jury(first) {
            return Err(MandateError::OtherJury(ballot.voter));
        }
        if !voters.insert(ballot.voter) {
            return Err(MandateError::VoterTwice(ballot.voter));
        }
        if !networks.insert(ballot.voter_prefix.as_str()) {
            return Err(MandateError::NetworkTwice(ballot.voter));
        }
    }
    let due = tally::capacity_bps(&mandate.ballots);
    if mandate.capacity_bps != due {
        return Err(MandateError::Capacity {
            stated: mandate.capacity_bps,
            due,
        });
    }
    Ok(())
}
