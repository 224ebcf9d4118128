//! What ballots are worth. Whole numbers throughout, so that whoever checks a
//! mandate gets the officer's figures to the bit.

use super::ballot::Ballot;
use crate::keyspace::NodeId;

/// The part of what a jury measured that a mandate is worth, thousandths.
/// A candidate that serves only the jurors that it does not own shows them
/// 1/(1-f) of its capacity; 0.7 takes that back for f = 30 %.
pub const DISCOUNT_PERMILLE: u64 = 700;
/// A level is passed when the median ballot shows this part of the share in
/// both directions, thousandths. Below it, queues have already eaten a fifth of
/// what was sent; above it lies what framing, pacing and a few losses cost.
pub const CARRIED_PERMILLE: u64 = 800;
/// A ballot that differs from the jury's median by more than this part of it,
/// thousandths, was far off. Honest jurors of equal shares agree far better.
pub const FAR_OFF_PERMILLE: u64 = 400;

/// The median goodput of the ballots, bits a second: the lower of the two in
/// the middle where their number is even; 0 without ballots.
pub fn median_bps<B: AsRef<Ballot>>(ballots: &[B]) -> u64 {
    let mut goodputs: Vec<u64> = ballots.iter().map(|b| b.as_ref().goodput_bps()).collect();
    goodputs.sort_unstable();
    let middle = goodputs.len().saturating_sub(1) / 2;
    goodputs.get(middle).copied().unwrap_or(0)
}

/// Whether a jury whose ballots have this median found `share_bps` carried.
pub fn carried(median_bps: u64, share_bps: u64) -> bool {
    u128::from(median_bps) * 1000 >= u128::from(share_bps) * u128::from(CARRIED_PERMILLE)
}

/// What the jury saw the candidate carry in all: ballots x median, bits a second.
pub fn measured_bps<B: AsRef<Ballot>>(ballots: &[B]) -> u64 {
    (ballots.len() as u64).saturating_mul(median_bps(ballots))
}

/// The capacity that a mandate with these ballots states: 0.7 x ballots x
/// median, rounded down, bits a second.
pub fn capacity_bps<B: AsRef<Ballot>>(ballots: &[B]) -> u64 {
    discounted(measured_bps(ballots))
}

/// `measured_bps` as a mandate counts it.
pub fn discounted(measured_bps: u64) -> u64 {
    let worth = u128::from(measured_bps) * u128::from(DISCOUNT_PERMILLE) / 1000;
    u64::try_from(worth).unwrap_or(u64::MAX)
}

/// Compares every ballot of one jury at one level with `agreed_bps`, the
/// median that the race settled on: (voter, near it).
pub fn grade<B: AsRef<Ballot>>(ballots: &[B], agreed_bps: u64) -> Vec<(NodeId, bool)> {
    let allowed = u128::from(agreed_bps) * u128::from(FAR_OFF_PERMILLE);
    ballots
        .iter()
        .map(|ballot| {
            let ballot = ballot.as_ref();
            let off = ballot.goodput_bps().abs_diff(agreed_bps);
            (ballot.voter, u128::from(off) * 1000 <= allowed)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::keyspace::Key;
    use proptest::prelude::*;

    /// A ballot of voter number `voter` that saw `goodput` both ways.
    pub(in super::super) fn ballot(voter: u8, share_bps: u64, goodput: u64) -> Ballot {
        Ballot {
            network: "net".into(),
            term: 1,
            beacon: Key([1; 32]),
            jury: 0,
            level: 0,
            voter: NodeId([voter; 32]),
            candidate: NodeId([255; 32]),
            share_bps,
            up_bps: goodput,
            down_bps: goodput,
            round_trip_us: 1,
            loss_ppm: 0,
            issued_ms: 0,
            voter_prefix: format!("net-{voter}"),
        }
    }

    #[test]
    fn liars_below_half_cannot_move_the_median_past_honest_ballots() {
        let of = |values: &[u64]| {
            let ballots: Vec<_> = values.iter().map(|v| ballot(1, 1_000, *v)).collect();
            median_bps(&ballots)
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[500, 0, 0, 510, 505]), 500);
        assert_eq!(of(&[500, 1_000, 1_000, 510, 505]), 510);
        assert_eq!(of(&[400, 500]), 400, "the lower of two");
    }

    #[test]
    fn capacity_is_discounted_and_rounded_down() {
        let ballots: Vec<_> = (0..3).map(|v| ballot(v, 1_000, 333)).collect();
        assert_eq!(capacity_bps(&ballots), 699);
        assert!(carried(800, 1_000));
        assert!(!carried(799, 1_000));
    }

    #[test]
    fn grades_name_who_was_far_off() {
        let ballots = [
            ballot(1, 1_000, 600),
            ballot(2, 1_000, 599),
            ballot(3, 2_000, 1_401),
        ];
        let near: Vec<bool> = grade(&ballots, 1_000).into_iter().map(|(_, n)| n).collect();
        assert_eq!(near, [true, false, false]);
    }

    proptest! {
        #[test]
        fn the_median_is_what_sorting_says(values in prop::collection::vec(0u64..10_000, 1..40)) {
            let ballots: Vec<_> = values.iter().map(|v| ballot(1, 20_000, *v)).collect();
            let median = median_bps(&ballots);
            let below = values.iter().filter(|v| **v < median).count();
            let above = values.iter().filter(|v| **v > median).count();
            prop_assert!(values.contains(&median));
            prop_assert!(2 * below < values.len() && 2 * above <= values.len());
            prop_assert!(capacity_bps(&ballots) <= measured_bps(&ballots));
        }
    }
}
