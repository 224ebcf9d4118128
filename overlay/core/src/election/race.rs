//! One candidate's race: which jury measures at which share next, and what the
//! candidate proved in the end. Sends nothing and waits for nothing.
//!
//! Shares double from level to level until the candidate stops keeping up.
//! - A level is passed when two juries find it carried. Two that agree make
//!   the third superfluous.
//! - A share too large for the voters proves nothing either way: less is asked for.
//! - The level that is *not* carried tells more than the one before: what got
//!   through is the capacity itself, where the level before only gives it to a
//!   factor of two. All three juries measure there, and the middle one counts,
//!   so that one corrupt jury moves nothing either way.
//! - The score is the better of the two levels, discounted (see [`tally`]).
//!
//! The same three juries serve all levels of a race, so that a candidate with
//! many levels before it does not get many draws. Where the electorate is no
//! larger than one jury, one run stands for all three.

use super::ballot::Ballot;
use super::{JURIES, K, MAX_LEVELS, MIN_JURY, tally};
use crate::keyspace::NodeId;

/// The smallest share that is worth measuring, bits a second: about one full
/// packet every 100 ms.
pub const MIN_SHARE_BPS: u64 = 100_000;
/// The largest first share, bits a second, whatever the candidate claims: 63
/// jurors lose 63 Mbit/s for one level's time to someone who boasts.
pub const MAX_FIRST_SHARE_BPS: u64 = 1_000_000;
/// A race starts this far below the claim: four doublings to reach it.
const CLAIM_LEAD: u64 = 16;
/// Steps towards a share too large for the electorate are at least this part
/// of the share passed: an eighth.
const SMALLEST_STEP: u64 = 8;

/// What a race is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaceConfig {
    /// Who runs.
    pub candidate: NodeId,
    /// What the candidate offers, bits a second; it is not measured beyond.
    /// 0: as much as it can carry.
    pub claim_bps: u64,
    /// What a super-node must carry at least, bits a second.
    pub floor_bps: u64,
    /// Voters of a full jury; [`K`] outside of tests.
    pub k: usize,
    /// Levels at most, up to [`MAX_LEVELS`].
    pub max_levels: u32,
}

impl RaceConfig {
    /// A race by the ordinary rules.
    pub fn new(candidate: NodeId, claim_bps: u64, floor_bps: u64) -> Self {
        Self {
            candidate,
            claim_bps,
            floor_bps,
            k: K,
            max_levels: MAX_LEVELS,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let this jury measure, then call [`Race::ballots`].
    Measure(Measure),
    /// The race is over; see [`Race::finish`].
    Done,
}

/// One jury at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Which level.
    pub level: u32,
    /// Which jury to draw; jurors stay the same from level to level, except
    /// for those who sit out.
    pub jury: u32,
    /// What each juror sends and asks for, bits a second.
    pub share_bps: u64,
    /// How many jurors to find.
    pub k: usize,
}

/// Why a race ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The candidate stopped keeping up.
    Limit,
    /// It carried all it offered.
    Claim,
    /// Too few voters can carry a larger share; the candidate may be better.
    Electorate,
    /// The last level allowed was passed.
    Levels,
}

/// One jury's result at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which jury.
    pub jury: u32,
    /// Ballots that counted.
    pub ballots: usize,
    /// Jurors who sat out or did not answer.
    pub sat_out: usize,
    /// Median goodput, bits a second.
    pub median_bps: u64,
    /// Whether it found the share carried.
    pub carried: bool,
}

/// What happened at one level, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSummary {
    /// Which level.
    pub level: u32,
    /// Its share, bits a second.
    pub share_bps: u64,
    /// What each jury found, in the order they measured.
    pub findings: Vec<Finding>,
    /// Whether two juries found it carried; `None` where it could not be told.
    pub passed: Option<bool>,
}

/// The result of a race.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<B> {
    /// What a mandate may state, bits a second: [`tally::capacity_bps`] of the
    /// decisive ballots; 0 where nothing was measured.
    pub score_bps: u64,
    /// Whether the candidate carried the floor.
    pub elected: bool,
    /// Why the race ended.
    pub end: End,
    /// The level that the score comes from.
    pub level: u32,
    /// The jury that the score comes from.
    pub jury: u32,
    /// Its ballots: what the mandate carries.
    pub decisive: Vec<B>,
    /// Every level.
    pub levels: Vec<LevelSummary>,
    /// Every ballot of a decided level against what the race settled on there:
    /// (voter, near it). Feed [`Standings::note`](super::jury::Standings::note).
    pub grades: Vec<(NodeId, bool)>,
}

/// What one jury handed in.
#[derive(Clone, Debug)]
struct Return<B> {
    jury: u32,
    ballots: Vec<B>,
    sat_out: usize,
    median_bps: u64,
    carried: bool,
}

/// A race under way. `B` is [`VerifiedBallot`](super::ballot::VerifiedBallot)
/// wherever ballots come from outside.
#[derive(Clone, Debug)]
pub struct Race<B> {
    config: RaceConfig,
    juries: u32,
    /// Jurors that a full jury of this electorate has.
    seats: u64,
    level: u32,
    share_bps: u64,
    /// The largest share passed; 0 before the first.
    passed_bps: u64,
    /// The smallest share that the electorate could not measure.
    ceiling_bps: u64,
    returns: Vec<Return<B>>,
    /// The best level so far: (measured, level, jury, ballots).
    best: Option<(u64, u32, u32, Vec<B>)>,
    levels: Vec<LevelSummary>,
    grades: Vec<(NodeId, bool)>,
    end: Option<End>,
}

impl<B: AsRef<Ballot> + Clone> Race<B> {
    /// Starts a race. `electorate` is the largest jury that could be drawn
    /// ([`jury::networks`](super::jury::networks)): where it is no more than
    /// `k`, three draws would be one set, and one run stands for all.
    pub fn new(mut config: RaceConfig, electorate: usize) -> Self {
        config.k = config.k.clamp(MIN_JURY, K);
        config.max_levels = config.max_levels.clamp(1, MAX_LEVELS);
        let juries = if electorate <= config.k { 1 } else { JURIES };
        let seats = electorate.clamp(MIN_JURY, config.k) as u64;
        let lead = (config.claim_bps / CLAIM_LEAD).max(config.floor_bps);
        let mut race = Self {
            juries,
            seats,
            level: 0,
            share_bps: (lead / seats).clamp(MIN_SHARE_BPS, MAX_FIRST_SHARE_BPS),
            passed_bps: 0,
            ceiling_bps: u64::MAX,
            returns: Vec::new(),
            best: None,
            levels: Vec::new(),
            grades: Vec::new(),
            end: None,
            config,
        };
        race.share_bps = race.share_bps.min(race.offered_share());
        race
    }

    /// What to do next. Asking twice gives the same answer.
    pub fn next(&self) -> Step {
        if self.end.is_some() {
            return Step::Done;
        }
        Step::Measure(Measure {
            level: self.level,
            jury: self.returns.len() as u32,
            share_bps: self.share_bps,
            k: self.config.k,
        })
    }

    /// Takes what the jury of the last [`Race::next`] handed in. `sat_out` is
    /// how many drawn jurors gave no ballot, replaced or not. Ballots of
    /// another jury, level, share or candidate, and second ballots of a voter,
    /// are dropped; so is everything when no jury was asked.
    pub fn ballots(&mut self, level: u32, jury: u32, ballots: Vec<B>, sat_out: usize) {
        let Step::Measure(asked) = self.next() else {
            return;
        };
        if (level, jury) != (asked.level, asked.jury) {
            return;
        }
        let ballots = self.valid(&asked, ballots);
        let median_bps = tally::median_bps(&ballots);
        self.returns.push(Return {
            jury,
            sat_out,
            median_bps,
            carried: tally::carried(median_bps, asked.share_bps),
            ballots,
        });
        self.advance();
    }

    fn valid(&self, asked: &Measure, ballots: Vec<B>) -> Vec<B> {
        let mut seen = std::collections::BTreeSet::new();
        let belongs = |b: &Ballot| {
            b.level == asked.level
                && b.jury == asked.jury
                && b.share_bps == asked.share_bps
                && b.candidate == self.config.candidate
                && b.voter != b.candidate
        };
        let mut valid: Vec<B> = ballots
            .into_iter()
            .filter(|b| belongs(b.as_ref()) && seen.insert(b.as_ref().voter))
            .collect();
        valid.truncate(asked.k);
        valid
    }

    /// Decides the level once enough juries have measured.
    fn advance(&mut self) {
        let Some(last) = self.returns.last() else {
            return;
        };
        if !measurable(last.ballots.len(), last.sat_out, self.juries) {
            self.ceiling_bps = self.share_bps;
            return self.close(None);
        }
        let asked = self.returns.len() as u32;
        let carried = self.returns.iter().filter(|r| r.carried).count() as u32;
        let majority = self.juries / 2 + 1;
        if carried >= majority {
            self.passed_bps = self.share_bps;
            self.close(Some(true));
        } else if asked == self.juries {
            self.close(Some(false));
        }
    }

    /// Books the level, and goes to the next or ends the race.
    fn close(&mut self, passed: Option<bool>) {
        if let Some(passed) = passed {
            self.settle(passed);
        }
        let findings = self.returns.iter().map(finding).collect();
        self.levels.push(LevelSummary {
            level: self.level,
            share_bps: self.share_bps,
            findings,
            passed,
        });
        self.returns.clear();
        match self.following(passed) {
            Ok(share_bps) => {
                self.level += 1;
                self.share_bps = share_bps;
            }
            Err(end) => self.end = Some(end),
        }
    }

    /// The next share, or why there is none: twice the last one; once a share
    /// proved too large for the electorate, half way to it, while that is a
    /// step worth taking; half of it where none was measured yet, down to what
    /// the floor takes.
    fn following(&self, passed: Option<bool>) -> Result<u64, End> {
        if passed == Some(false) {
            return Err(End::Limit);
        }
        if self.passed_bps == 0 {
            let half = self.share_bps / 2;
            let enough = half.saturating_mul(self.seats) >= self.config.floor_bps;
            return match half >= MIN_SHARE_BPS && enough {
                true => Ok(half),
                false => Err(End::Electorate),
            };
        }
        if self.passed_bps >= self.offered_share() {
            return Err(End::Claim);
        }
        if self.level + 1 >= self.config.max_levels {
            return Err(End::Levels);
        }
        let doubled = (self.passed_bps * 2).min(self.offered_share());
        if doubled < self.ceiling_bps {
            return Ok(doubled);
        }
        let step = self.ceiling_bps.saturating_sub(self.passed_bps) / 2;
        match step >= self.passed_bps / SMALLEST_STEP {
            true => Ok(self.passed_bps + step),
            false => Err(End::Electorate),
        }
    }

    /// Picks the decisive jury of the level: of those that found it carried the
    /// one that saw least, of all three at a level not carried the middle one.
    fn settle(&mut self, passed: bool) {
        let mut juries: Vec<&Return<B>> = self
            .returns
            .iter()
            .filter(|r| r.carried || !passed)
            .collect();
        juries.sort_by_key(|r| (tally::measured_bps(&r.ballots), r.jury));
        let at = if passed { 0 } else { juries.len() / 2 };
        let Some(decisive) = juries.get(at) else {
            return;
        };
        for jury in &self.returns {
            let graded = tally::grade(&jury.ballots, decisive.median_bps);
            self.grades.extend(graded);
        }
        let measured = tally::measured_bps(&decisive.ballots);
        if self.best.as_ref().is_none_or(|best| measured > best.0) {
            self.best = Some((
                measured,
                self.level,
                decisive.jury,
                decisive.ballots.clone(),
            ));
        }
    }

    /// The share at which a full jury asks for all that the candidate offers.
    fn offered_share(&self) -> u64 {
        match self.config.claim_bps {
            0 => super::ballot::MAX_BPS,
            claim => claim
                .div_ceil(self.seats)
                .clamp(MIN_SHARE_BPS, super::ballot::MAX_BPS),
        }
    }

    /// The result; `None` while the race is under way.
    pub fn finish(self) -> Option<Outcome<B>> {
        let end = self.end?;
        let (measured, level, jury, decisive) = self.best.unwrap_or((0, 0, 0, Vec::new()));
        Some(Outcome {
            score_bps: tally::discounted(measured),
            elected: measured > 0 && measured >= self.config.floor_bps,
            end,
            level,
            jury,
            decisive,
            levels: self.levels,
            grades: self.grades,
        })
    }
}

/// Whether a jury's return says anything: enough ballots, and not too many
/// sitting out. Liars never sit out, so each honest juror who does makes the
/// rest more corrupt. Three for every ten who vote keep the bar of
/// `tests/liars.rs` with room on both sides; five let 0.75 % of mandates past
/// 1.33x the truth, two and a half keep 2.4 % of strong honest
/// candidates out. Where the electorate is one jury, nobody can be replaced,
/// and as many may sit out as vote.
fn measurable(ballots: usize, sat_out: usize, juries: u32) -> bool {
    let tenths = if juries > 1 { 3 } else { 10 };
    ballots >= MIN_JURY && sat_out.saturating_mul(10) <= ballots.saturating_mul(tenths)
}

fn finding<B>(jury: &Return<B>) -> Finding {
    Finding {
        jury: jury.jury,
        ballots: jury.ballots.len(),
        sat_out: jury.sat_out,
        median_bps: jury.median_bps,
        carried: jury.carried,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::ballot;
    use super::*;

    const CANDIDATE: NodeId = NodeId([255; 32]);

    /// Runs a race in which `seen(jury, share)` is what each of a jury's
    /// voters sees; `sat_out(share)` of them sit out.
    fn run(
        config: RaceConfig,
        electorate: usize,
        seen: impl Fn(u32, u64) -> u64,
        sat_out: impl Fn(u64) -> usize,
    ) -> Outcome<Ballot> {
        let mut race = Race::new(config, electorate);
        while let Step::Measure(step) = race.next() {
            let cast = |voter| Ballot {
                jury: step.jury,
                level: step.level,
                ..ballot(voter, step.share_bps, seen(step.jury, step.share_bps))
            };
            let voters = step.k.min(electorate) as u8;
            let ballots = (0..voters).map(cast).collect();
            race.ballots(step.level, step.jury, ballots, sat_out(step.share_bps));
        }
        race.finish().unwrap()
    }

    fn config(claim_bps: u64) -> RaceConfig {
        RaceConfig::new(CANDIDATE, claim_bps, 5_000_000)
    }

    #[test]
    fn the_level_not_carried_tells_the_capacity() {
        let per_juror = 3_000_000;
        let outcome = run(config(0), 500, |_, share| share.min(per_juror), |_| 0);
        assert_eq!(outcome.end, End::Limit);
        assert_eq!(outcome.score_bps, 63 * per_juror * 7 / 10);
        assert_eq!(outcome.decisive.len(), 63);
        assert_eq!(tally::capacity_bps(&outcome.decisive), outcome.score_bps);
        assert!(outcome.elected);
        let (last, passed) = outcome.levels.split_last().unwrap();
        assert_eq!((last.passed, last.findings.len()), (Some(false), 3));
        assert!(
            passed
                .iter()
                .all(|l| l.passed == Some(true) && l.findings.len() == 2)
        );
        assert!(
            passed
                .windows(2)
                .all(|w| w[1].share_bps == 2 * w[0].share_bps)
        );
    }

    #[test]
    fn one_corrupt_jury_moves_nothing_either_way() {
        let honest = |share: u64| share.min(3_000_000);
        let fair = run(config(0), 500, |_, share| honest(share), |_| 0).score_bps;
        for corrupt in 0..JURIES {
            let lie = |lie: u64| {
                move |jury, share: u64| {
                    if jury == corrupt {
                        lie.min(share)
                    } else {
                        honest(share)
                    }
                }
            };
            assert_eq!(run(config(0), 500, lie(u64::MAX), |_| 0).score_bps, fair);
            assert_eq!(run(config(0), 500, lie(0), |_| 0).score_bps, fair);
        }
    }

    #[test]
    fn nothing_is_measured_beyond_the_claim() {
        let outcome = run(config(63_000_000), 500, |_, share| share, |_| 0);
        assert_eq!(outcome.end, End::Claim);
        assert_eq!(outcome.score_bps, 44_100_000);
        assert_eq!(outcome.levels.last().map(|l| l.share_bps), Some(1_000_000));
    }

    #[test]
    fn a_small_electorate_runs_once_with_whoever_can_vote() {
        let outcome = run(config(30_000_000), 3, |_, share| share, |_| 0);
        assert_eq!(outcome.score_bps, 21_000_000);
        assert!(outcome.levels.iter().all(|l| l.findings.len() == 1));
        let alone = run(config(30_000_000), 2, |_, share| share, |_| 0);
        assert_eq!((alone.end, alone.elected), (End::Electorate, false));
        assert_eq!(alone.score_bps, 0);
    }

    #[test]
    fn where_too_many_sit_out_the_race_closes_in_on_the_largest_share() {
        let weak = |share| if share > 3_300_000 { 30 } else { 10 };
        let outcome = run(config(0), 500, |_, share| share, weak);
        assert_eq!(outcome.end, End::Electorate);
        let best = outcome.levels.iter().filter(|l| l.passed == Some(true));
        let best = best.map(|l| l.share_bps).max().unwrap();
        assert!((2_800_000..=3_300_000).contains(&best), "{best}");
        assert_eq!(outcome.score_bps, tally::discounted(63 * best));
    }

    #[test]
    fn where_the_first_share_is_too_large_for_the_voters_a_smaller_one_is_measured() {
        let weak = |share| if share > 400_000 { 30 } else { 10 };
        let outcome = run(config(0), 500, |_, share| share, weak);
        assert!(outcome.elected);
        let passed = outcome.levels.iter().filter(|l| l.passed == Some(true));
        let passed: Vec<u64> = passed.map(|l| l.share_bps).collect();
        assert!(
            (350_000..=400_000).contains(passed.last().unwrap()),
            "{passed:?}"
        );
        // Below the floor it is not worth measuring.
        let outcome = run(config(0), 500, |_, share| share, |_| 30);
        assert_eq!((outcome.end, outcome.elected), (End::Electorate, false));
        let last = outcome.levels.last().unwrap();
        assert!(last.share_bps >= MIN_SHARE_BPS && last.share_bps * 63 >= 5_000_000);
    }

    #[test]
    fn a_weak_candidate_is_not_elected() {
        let outcome = run(config(0), 500, |_, share| share.min(70_000), |_| 0);
        assert!(!outcome.elected);
        assert_eq!(outcome.levels.len(), 1);
    }

    #[test]
    fn ballots_that_were_not_asked_for_do_not_count() {
        let mut race = Race::new(config(0), 500);
        let Step::Measure(step) = race.next() else {
            panic!("a race starts by measuring");
        };
        let good = |voter| ballot(voter, step.share_bps, step.share_bps);
        race.ballots(step.level, 2, vec![good(1)], 0);
        assert_eq!(race.next(), Step::Measure(step), "another jury's return");
        let mut stray: Vec<Ballot> = (0..7).map(good).collect();
        stray[0].level = 1;
        stray[1].share_bps += 1;
        stray[2].candidate = NodeId([9; 32]);
        stray[3].voter = stray[4].voter;
        race.ballots(step.level, step.jury, stray, 0);
        let Step::Measure(next) = race.next() else {
            panic!("two juries have to agree");
        };
        race.ballots(next.level, next.jury, vec![], 0);
        while let Step::Measure(next) = race.next() {
            race.ballots(next.level, next.jury, vec![], 0);
        }
        let outcome = race.finish().unwrap();
        assert_eq!(outcome.end, End::Electorate);
        let counted: Vec<_> = outcome.levels[0]
            .findings
            .iter()
            .map(|f| f.ballots)
            .collect();
        assert_eq!(counted, [3, 0]);
    }
}
