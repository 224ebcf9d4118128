//! Ballots: what one juror measured of one candidate at one level.
//!
//! A [`Ballot`] is plain data and proves nothing. A [`VerifiedBallot`] was
//! signed by the voter that it names, and there is no other way to make one.

use canopy_proto::wire;

use super::{JURIES, MAX_LEVELS};
use crate::identity::{Domain, Identity, SignatureError, open};
use crate::keyspace::{Key, NodeId};

/// Longest network name, bytes.
pub const MAX_NETWORK: usize = 64;
/// Longest address prefix, bytes: a bracketed IPv6 address with scope and port
/// needs 58.
pub const MAX_PREFIX: usize = 64;
/// The largest share, goodput or capacity that anyone may state: 1 Tbit/s.
pub const MAX_BPS: u64 = 1_000_000_000_000;

/// One measurement, as the tally sees it. Times and rates as in [`wire::Ballot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// The overlay it was cast in.
    pub network: String,
    /// The term of the race.
    pub term: u64,
    /// The beacon that drew the jury.
    pub beacon: Key,
    /// Which jury, below [`JURIES`].
    pub jury: u32,
    /// Which level, below [`MAX_LEVELS`].
    pub level: u32,
    /// Who measured.
    pub voter: NodeId,
    /// Who was measured.
    pub candidate: NodeId,
    /// What each juror of the level sent and asked for, bits a second.
    pub share_bps: u64,
    /// Goodput from the candidate to the juror, bits a second.
    pub up_bps: u64,
    /// Goodput from the juror to the candidate, bits a second.
    pub down_bps: u64,
    /// Round trip under this load, microseconds.
    pub round_trip_us: u32,
    /// Lost packets a million.
    pub loss_ppm: u32,
    /// When it was signed, by the voter's clock, milliseconds since 1970.
    pub issued_ms: u64,
    /// Address prefix of the voter as the officer saw it drawn.
    pub voter_prefix: String,
}

impl Ballot {
    /// What the ballot counts for, bits a second: the worse direction, and no
    /// more than the share, so that no juror can lift a median past it.
    pub fn goodput_bps(&self) -> u64 {
        self.up_bps.min(self.down_bps).min(self.share_bps)
    }

    fn check(&self) -> Result<(), BallotError> {
        let twice = self.share_bps.saturating_mul(2);
        let plausible = [
            ("the share", self.share_bps > 0 && self.share_bps <= MAX_BPS),
            ("the goodput up", self.up_bps <= twice),
            ("the goodput down", self.down_bps <= twice),
            ("the loss", self.loss_ppm <= 1_000_000),
            ("the jury", self.jury < JURIES),
            ("the level", self.level < MAX_LEVELS),
            ("the network name", self.network.len() <= MAX_NETWORK),
            ("the address prefix", self.voter_prefix.len() <= MAX_PREFIX),
        ];
        match plausible.iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(BallotError::Implausible(what)),
            None if self.voter == self.candidate => Err(BallotError::OwnRace),
            None => Ok(()),
        }
    }

    fn to_wire(&self) -> wire::Ballot {
        wire::Ballot {
            network: self.network.clone(),
            term: self.term,
            beacon: self.beacon.to_bytes(),
            jury: self.jury,
            level: self.level,
            voter: self.voter.to_bytes(),
            candidate: self.candidate.to_bytes(),
            share_bps: self.share_bps,
            up_bps: self.up_bps,
            down_bps: self.down_bps,
            round_trip_us: self.round_trip_us,
            loss_ppm: self.loss_ppm,
            issued_ms: self.issued_ms,
            voter_prefix: self.voter_prefix.clone(),
        }
    }

    fn from_wire(body: wire::Ballot) -> Result<Self, BallotError> {
        let node = |bytes: &[u8], what| NodeId::from_slice(bytes).ok_or(BallotError::Shape(what));
        Ok(Self {
            term: body.term,
            beacon: Key::from_slice(&body.beacon).ok_or(BallotError::Shape("the beacon"))?,
            jury: body.jury,
            level: body.level,
            voter: node(&body.voter, "the voter")?,
            candidate: node(&body.candidate, "the candidate")?,
            share_bps: body.share_bps,
            up_bps: body.up_bps,
            down_bps: body.down_bps,
            round_trip_us: body.round_trip_us,
            loss_ppm: body.loss_ppm,
            issued_ms: body.issued_ms,
            network: body.network,
            voter_prefix: body.voter_prefix,
        })
    }
}

impl AsRef<Ballot> for Ballot {
    fn as_ref(&self) -> &Ballot {
        self
    }
}

/// Why a ballot was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BallotError {
    /// Not signed by anyone.
    #[error("ballot: {0}")]
    Signature(#[from] SignatureError),
    /// Signed by another peer than its voter.
    #[error("ballot: signed by another peer than the voter it names")]
    Signer,
    /// A part does not have 32 bytes.
    #[error("ballot: {0} is not 32 bytes")]
    Shape(&'static str),
    /// A part that no measurement can have.
    #[error("ballot: {0} is out of range")]
    Implausible(&'static str),
    /// The voter measured itself.
    #[error("ballot: nobody votes in its own race")]
    OwnRace,
}

/// A ballot signed by the voter that it names, within the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedBallot {
    ballot: Ballot,
    signed: wire::Signed,
}

impl VerifiedBallot {
    /// Checks a ballot from outside: signature, voter, limits. Whether it
    /// belongs to a race is the race's question.
    pub fn open(signed: &wire::Signed) -> Result<Self, BallotError> {
        let (signer, body) = open::<wire::Ballot>(Domain::Ballot, signed)?;
        let ballot = Ballot::from_wire(body)?;
        if ballot.voter != signer {
            return Err(BallotError::Signer);
        }
        ballot.check()?;
        Ok(Self {
            ballot,
            signed: signed.clone(),
        })
    }

    /// Signs the ballot of `identity`; `ballot.voter` is set to it. Fails where
    /// [`VerifiedBallot::open`] would.
    pub fn cast(identity: &Identity, mut ballot: Ballot) -> Result<Self, BallotError> {
        ballot.voter = identity.node_id();
        ballot.check()?;
        let signed = identity.sign(Domain::Ballot, &ballot.to_wire());
        Ok(Self { ballot, signed })
    }

    /// What was measured.
    pub fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// What the voter signed.
    pub fn signed(&self) -> &wire::Signed {
        &self.signed
    }
}

impl AsRef<Ballot> for VerifiedBallot {
    fn as_ref(&self) -> &Ballot {
        &self.ballot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot() -> Ballot {
        Ballot {
            network: "net".into(),
            term: 4,
            beacon: Key([9; 32]),
            jury: 1,
            level: 2,
            voter: Identity::from_secret([1; 32]).node_id(),
            candidate: Identity::from_secret([2; 32]).node_id(),
            share_bps: 1_000_000,
            up_bps: 900_000,
            down_bps: 1_050_000,
            round_trip_us: 1_000,
            loss_ppm: 10,
            issued_ms: 77,
            voter_prefix: "203.0.0.0/16".into(),
        }
    }

    #[test]
    fn a_ballot_opens_as_cast_and_counts_its_worse_direction() {
        let cast = VerifiedBallot::cast(&Identity::from_secret([1; 32]), ballot()).unwrap();
        let opened = VerifiedBallot::open(cast.signed()).unwrap();
        assert_eq!(opened, cast);
        assert_eq!(opened.ballot(), &ballot());
        assert_eq!(ballot().goodput_bps(), 900_000);
        let above = Ballot {
            up_bps: 1_200_000,
            ..ballot()
        };
        assert_eq!(above.goodput_bps(), 1_000_000);
    }

    #[test]
    fn a_ballot_signed_by_another_is_refused() {
        let signed = Identity::from_secret([3; 32]).sign(Domain::Ballot, &ballot().to_wire());
        assert_eq!(VerifiedBallot::open(&signed), Err(BallotError::Signer));
        let voter = Identity::from_secret([1; 32]);
        let wrong_domain = voter.sign(Domain::Record, &ballot().to_wire());
        assert_eq!(
            VerifiedBallot::open(&wrong_domain),
            Err(SignatureError::Mismatch.into())
        );
    }

    #[test]
    fn implausible_ballots_are_refused() {
        let voter = Identity::from_secret([1; 32]);
        let refused = |change: fn(&mut Ballot)| {
            let mut ballot = ballot();
            change(&mut ballot);
            let signed = voter.sign(Domain::Ballot, &ballot.to_wire());
            VerifiedBallot::open(&signed).unwrap_err()
        };
        let of = BallotError::Implausible;
        assert_eq!(refused(|b| b.share_bps = 0), of("the share"));
        assert_eq!(refused(|b| b.share_bps = u64::MAX), of("the share"));
        assert_eq!(refused(|b| b.up_bps = u64::MAX), of("the goodput up"));
        assert_eq!(refused(|b| b.down_bps = 2_000_001), of("the goodput down"));
        assert_eq!(refused(|b| b.loss_ppm = 1_000_001), of("the loss"));
        assert_eq!(refused(|b| b.jury = JURIES), of("the jury"));
        assert_eq!(refused(|b| b.level = MAX_LEVELS), of("the level"));
        assert_eq!(
            refused(|b| b.voter_prefix = "x".repeat(65)),
            of("the address prefix")
        );
        assert_eq!(refused(|b| b.candidate = b.voter), BallotError::OwnRace);
    }
}
