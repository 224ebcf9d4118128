//! Who may send how much: token buckets, and the level that shares a line
//! fairly.
//!
//! The relay keeps no queue. What is over a limit is dropped, which QUIC at the
//! ends takes as congestion. So that nobody profits from sending more than it
//! can get, each peer is held to the same level: the highest at which all that
//! is wanted below it fits the line (max-min fairness).

use std::time::{Duration, Instant};

/// Traffic saved up while nothing is sent: bridges the pauses of senders and
/// of a busy machine.
const DEPTH: Duration = Duration::from_millis(40);
/// Never less than what a QUIC sender sends at once, bytes.
const MIN_DEPTH: f64 = 16_000.0;
/// What is left after each period of a demand that is not repeated: several
/// periods, because who is held back pauses.
const DECAY: f64 = 0.9;

/// A bucket of bytes; the rate is given with each use, because it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    bytes: f64,
    at: Instant,
}

impl Tokens {
    /// As full as it gets with its first use.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bytes: f64::INFINITY,
            at: now,
        }
    }

    /// How many of `count` datagrams of `size` bytes pass at `rate` bytes a
    /// second; infinity: all.
    pub(super) fn grant(&mut self, now: Instant, rate: f64, size: usize, count: usize) -> usize {
        if rate.is_infinite() {
            return count;
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let depth = (rate * DEPTH.as_secs_f64()).max(MIN_DEPTH);
        self.at = self.at.max(now);
        self.bytes = (self.bytes + rate * passed).min(depth);
        let fits = (self.bytes / size as f64).max(0.0) as usize;
        let granted = fits.min(count);
        self.bytes -= (granted * size) as f64;
        granted
    }

    /// Gives back what another bucket did not let pass.
    pub(super) fn give_back(&mut self, size: usize, count: usize) {
        self.bytes += (size * count) as f64;
    }
}

/// What somebody wants to send, bytes a second, as it was seen lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    offered: u64,
    rate: f64,
}

impl Demand {
    /// That much came, whether it passed or not.
    pub(super) fn add(&mut self, bytes: usize) {
        self.offered += bytes as u64;
    }

    /// At the end of a period.
    pub(super) fn end(&mut self, period: Duration) -> f64 {
        let rate = self.offered as f64 / period.as_secs_f64();
        self.offered = 0;
        self.rate = rate.max(self.rate * DECAY);
        if self.rate < 1.0 {
            self.rate = 0.0;
        }
        self.rate
    }
}

/// The level at which `demands` share `total`: nobody gets more than it, and
/// who wants less gets all. Where everything fits, there is none but the line.
pub(super) fn fair_level(total: f64, demands: &mut [f64]) -> f64 {
    demands.sort_unstable_by(f64::total_cmp);
    let mut left = total;
    for (place, demand) in demands.iter().enumerate() {
        let share = left / (demands.len() - place) as f64;
        if *demand > share {
            return share;
        }
        left -= demand;
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn at_the_level_the_line_is_full_and_nobody_is_held_back_for_less(
            total in 1.0..1e9f64,
            mut demands in proptest::collection::vec(0.0..1e8f64, 0..50),
        ) {
            let level = fair_level(total, &mut demands);
            let used: f64 = demands.iter().map(|demand| demand.min(level)).sum();
            let wanted: f64 = demands.iter().sum();
            prop_assert!(used <= total * 1.000_001);
            // All is carried, or the line is full.
            let full = (used - total).abs() < total * 1e-6;
            prop_assert!(full || (used - wanted).abs() <= wanted * 1e-6, "{used} of {wanted}, {total}");
        }

        #[test]
        fn the_rate_holds_whatever_the_batches(
            rate in 1e5..1e9f64,
            (size, count) in (64..1_500usize, 1..45usize),
        ) {
            let start = Instant::now();
            let mut tokens = Tokens::new(start);
            let mut passed = 0;
            for step in 0..5_000u32 {
                let now = start + Duration::from_micros(200) * step;
                passed += size * tokens.grant(now, rate, size, count);
            }
            let (offered, depth) = (5_000 * size * count, (rate * 0.04).max(16_000.0));
            prop_assert!(passed as f64 <= rate + depth + 1.0);
            let wanted = (offered as f64).min(rate) - (size + 1) as f64;
            prop_assert!(passed as f64 >= wanted * 0.99, "{passed} of {wanted}");
        }
    }

    #[test]
    fn a_demand_outlives_a_pause_and_ends() {
        let (mut demand, period) = (Demand::default(), Duration::from_millis(20));
        demand.add(20_000);
        assert_eq!(demand.end(period), 1e6);
        assert_eq!(demand.end(period), 9e5);
        assert_eq!((0..200).map(|_| demand.end(period)).last(), Some(0.0));
    }
}
