//! A race of an election, ballot by ballot, beside the truth that only the
//! simulator knows.

use std::collections::BTreeMap;

use canopy_core::election::tally;
use canopy_core::keyspace::NodeId;
use canopy_core::node::Event;

use crate::world::{Cast, Noticed, PeerId, World};

/// What one juror measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BallotCast {
    /// Its number.
    pub juror: PeerId,
    /// What its ballot counts for, bits a second.
    pub goodput_bps: u64,
    /// It is one of a conspiracy, and made this up.
    pub colludes: bool,
}

/// One jury at one level.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sitting {
    /// The level, from 0.
    pub level: u32,
    /// The jury, from 0.
    pub jury: u32,
    /// What each juror asked for, bits a second.
    pub share_bps: u64,
    /// Ballots that reached the officer in time.
    pub counted: u64,
    /// Their median as the officer found it, bits a second.
    pub median_bps: u64,
    /// What was measured, in the order of the jurors' numbers.
    pub ballots: Vec<BallotCast>,
}

impl Sitting {
    /// What the jury saw the candidate carry in all, bits a second.
    pub fn measured_bps(&self) -> u64 {
        self.counted.saturating_mul(self.median_bps)
    }
}

/// A race.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RaceCourse {
    /// When it was decided, seconds since the start.
    pub at_s: f64,
    /// The number of who was measured.
    pub candidate: PeerId,
    /// Whether that one is of the conspiracy.
    pub colludes: bool,
    /// What its uplink truly carries, bits a second.
    pub true_bps: u64,
    /// What it said that it lends, bits a second.
    pub claim_bps: u64,
    /// What came out, bits a second; 0: not elected.
    pub score_bps: u64,
    /// Every jury at every level, in order.
    pub sittings: Vec<Sitting>,
}

impl RaceCourse {
    /// The sitting that the score comes from.
    pub fn decisive(&self) -> Option<&Sitting> {
        let of = |sitting: &&Sitting| tally::discounted(sitting.measured_bps()) == self.score_bps;
        self.sittings.iter().rev().find(of)
    }

    /// What makes one race more worth showing than another: that the candidate
    /// was elected, and that it lies.
    fn worth(&self) -> (bool, bool) {
        (self.score_bps > 0, self.colludes)
    }
}

/// A race under way.
#[derive(Default)]
struct Open {
    sittings: Vec<Sitting>,
    /// When the last jury was done.
    since: u64,
}

/// Follows all races, and keeps one of them.
#[derive(Default)]
pub(crate) struct Ballots {
    /// Whose race to keep; none: the one that shows most.
    pub(crate) candidate: Option<PeerId>,
    /// By officer, term and candidate.
    open: BTreeMap<(PeerId, u64, NodeId), Open>,
    /// What was measured of each candidate whose race is not over.
    casts: BTreeMap<PeerId, Vec<Cast>>,
    kept: Option<RaceCourse>,
}

impl Ballots {
    /// Takes in what jurors measured, then what officers made of it.
    pub(crate) fn take(&mut self, world: &World, casts: Vec<Cast>, noticed: &[Noticed]) {
        for cast in casts {
            self.casts.entry(cast.candidate).or_default().push(cast);
        }
        for Noticed { at, peer, event } in noticed {
            match event {
                Event::Level {
                    term,
                    candidate,
                    level,
                    share_bps,
                    ballots,
                    median_bps,
                } => {
                    let race = (*peer, *term, *candidate);
                    let open = self.open.entry(race).or_default();
                    let juries = open.sittings.iter().filter(|s| s.level == *level);
                    let mut sitting = Sitting {
                        level: *level,
                        jury: juries.count() as u32,
                        share_bps: *share_bps,
                        counted: *ballots as u64,
                        median_bps: *median_bps,
                        ballots: Vec::new(),
                    };
                    if let Some(id) = world.find(candidate) {
                        let during = (open.since, *at);
                        sitting.ballots = self.take_ballots(world, id, *share_bps, during);
                    }
                    let open = self.open.entry(race).or_default();
                    open.since = *at;
                    open.sittings.push(sitting);
                }
                Event::Raced {
                    term,
                    candidate,
                    score_bps,
                } => {
                    let open = self.open.remove(&(*peer, *term, *candidate));
                    if let (Some(open), Some(id)) = (open, world.find(candidate)) {
                        if !self.open.keys().any(|(.., other)| other == candidate) {
                            self.casts.remove(&id);
                        }
                        self.keep(world, id, *at, *score_bps, open.sittings);
                    }
                }
                _ => {}
            }
        }
    }

    /// The ballots of one jury: a measurement of each juror. Where two officers
    /// have the same candidate measured at once, the other has the next one.
    fn take_ballots(
        &mut self,
        world: &World,
        candidate: PeerId,
        share_bps: u64,
        (since, at): (u64, u64),
    ) -> Vec<BallotCast> {
        let Some(casts) = self.casts.get_mut(&candidate) else {
            return Vec::new();
        };
        let mut taken: BTreeMap<PeerId, BallotCast> = BTreeMap::new();
        casts.retain(|cast| {
            let of = cast.share_bps == share_bps && cast.from >= since && cast.at <= at;
            if !of || taken.contains_key(&cast.juror) {
                return true;
            }
            let ballot = BallotCast {
                juror: cast.juror,
                goodput_bps: cast.goodput_bps,
                colludes: world.peer(cast.juror).spec.colludes,
            };
            taken.insert(cast.juror, ballot);
            false
        });
        taken.into_values().collect()
    }

    fn keep(&mut self, world: &World, id: PeerId, at: u64, score_bps: u64, sittings: Vec<Sitting>) {
        if self.candidate.is_some_and(|candidate| candidate != id) {
            return;
        }
        let spec = &world.peer(id).spec;
        let race = RaceCourse {
            at_s: at as f64 / 1e6,
            candidate: id,
            colludes: spec.colludes,
            true_bps: spec.up_bps,
            claim_bps: spec.claim_bps,
            score_bps,
            sittings,
        };
        if self
            .kept
            .as_ref()
            .is_none_or(|kept| race.worth() > kept.worth())
        {
            self.kept = Some(race);
        }
    }

    /// The first of the races that show most.
    pub(crate) fn finish(self) -> Option<RaceCourse> {
        self.kept
    }
}
