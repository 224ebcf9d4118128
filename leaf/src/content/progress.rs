//! How far a fetch is, and how fast.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The rate is that of so long.
const OVER: Duration = Duration::from_secs(5);
/// Readings of it.
const READINGS: usize = 32;

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here and proved, those of earlier runs too.
    pub bytes: u64,
    /// Bytes in all, as far as is known: of a folder those of its files are once
    /// its list is here. 0: nobody told yet.
    pub total: u64,
    /// Leaves that are linked to for it now.
    pub providers: usize,
    /// Bytes a second, of the last five seconds.
    pub rate: u64,
    /// Leaves that sent what is wrong, and are asked no more.
    pub refused: usize,
}

/// Readings of a count that grows.
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// Takes a reading; the rate, units a second.
    pub(super) fn take(&mut self, now: Instant, count: u64) -> u64 {
        let last = self.0.back();
        if last.is_none_or(|(at, _)| now - *at >= OVER / READINGS as u32) {
            self.0.push_back((now, count));
        }
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > OVER) {
            self.0.pop_front();
        }
        let Some((at, before)) = self.0.front() else {
            return 0;
        };
        let took = (now - *at).as_secs_f64();
        match took > 0.0 {
            true => (count.saturating_sub(*before) as f64 / took) as u64,
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut rate, begun) = (Rate::default(), Instant::now());
        let second = Duration::from_secs(1);
        for tick in 0..10 {
            rate.take(begun + second * tick, 1000 * u64::from(tick));
        }
        assert_eq!(rate.take(begun + second * 10, 10_000), 1000);
        assert!(rate.0.len() < 8);
        assert_eq!(rate.take(begun + second * 20, 10_000), 0);
        for tick in 0..1000 {
            rate.take(begun + second * 20 + Duration::from_millis(tick), 10_000);
        }
        assert!(rate.0.len() <= READINGS + 2);
    }
}
