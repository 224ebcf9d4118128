//! How far this peer's wall clock is off, by what others' clocks show.
//!
//! Holders refuse a record that was issued in the future, or whose lifetime is
//! over by their clock, so that a publisher whose own clock is wrong could
//! write nothing, or nothing that lasts. It issues its records by the clocks of
//! those who hold them instead: by the median of them, so that one that lies or
//! is wrong itself moves nothing.

use crate::keyspace::NodeId;
use crate::record::MAX_CLOCK_AHEAD_MS;
use crate::time::Now;

/// Readings kept, of the super-nodes that were heard last.
const READINGS: usize = 9;
/// A clock that is off by less is left alone: half of what holders tolerate;
/// the other half is for theirs.
const OFF_MS: u64 = MAX_CLOCK_AHEAD_MS / 2;
/// A wall clock that moved so much against the monotonic one was set, or the
/// machine slept: what was read before says nothing of it now.
const SET_MS: u64 = 1_000;

/// What the clocks of others showed.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// Who, and its wall clock minus ours, milliseconds; the latest last.
    readings: Vec<(NodeId, i64)>,
    /// Both of our clocks when they were last looked at.
    last: Option<Now>,
}

impl Clocks {
    /// `node` has just said that its wall clock shows `theirs_ms`, milliseconds
    /// since 1970. Zero is no reading: it did not say.
    pub fn read(&mut self, now: Now, node: NodeId, theirs_ms: u64) {
        self.look(now);
        if theirs_ms == 0 {
            return;
        }
        self.readings.retain(|(other, _)| *other != node);
        if self.readings.len() == READINGS {
            self.readings.remove(0);
        }
        let offset = i128::from(theirs_ms) - i128::from(now.unix_ms);
        let offset = offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        self.readings.push((node, offset));
    }

    /// How far others' clocks are ahead of ours, milliseconds; zero where that
    /// is little, or fewer than `enough` have said what theirs show. Of an even
    /// number, the one of the middle two that is closer to ours.
    pub fn offset_ms(&mut self, now: Now, enough: usize) -> i64 {
        self.look(now);
        if self.readings.len() < enough.max(1) {
            return 0;
        }
        let mut sorted: Vec<i64> = self.readings.iter().map(|(_, offset)| *offset).collect();
        sorted.sort_unstable();
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        match (low.signum() * high.signum(), low.unsigned_abs()) {
            // They do not agree on which side we are.
            (..=0, _) => 0,
            (_, near) if near.min(high.unsigned_abs()) < OFF_MS => 0,
            (_, near) if near < high.unsigned_abs() => low,
            _ => high,
        }
    }

    /// Forgets the readings if our wall clock was set since the last look.
    fn look(&mut self, now: Now) {
        if let Some(last) = self.last.replace(now) {
            let passed = now.at.since(last.at).as_millis();
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            let expected = last.unix_ms.saturating_add(passed);
            if now.unix_ms.abs_diff(expected) > SET_MS {
                self.readings.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn at(seconds: u64) -> Now {
        Now::new(Duration::from_secs(seconds), NOW_MS + seconds * 1000)
    }

    fn clocks(offsets: &[i64]) -> Clocks {
        let mut clocks = Clocks::default();
        for (index, offset) in (1..).zip(offsets) {
            let theirs = NOW_MS.saturating_add_signed(*offset);
            clocks.read(at(0), NodeId([index; 32]), theirs);
        }
        clocks
    }

    #[test]
    fn one_that_lies_moves_nothing() {
        let year = 365 * 24 * 3_600_000;
        assert_eq!(clocks(&[year]).offset_ms(at(0), 2), 0);
        assert_eq!(clocks(&[year, 100]).offset_ms(at(0), 2), 0);
        assert_eq!(clocks(&[-100, 20, year]).offset_ms(at(0), 2), 0);
        assert_eq!(
            clocks(&[-60_000, -61_000, year]).offset_ms(at(0), 2),
            -60_000
        );
        assert_eq!(clocks(&[60_000, year]).offset_ms(at(0), 2), 60_000);
    }

    #[test]
    fn a_little_is_left_alone_and_more_is_not() {
        let off = OFF_MS as i64;
        assert_eq!(clocks(&[off - 1, off + 5]).offset_ms(at(0), 2), 0);
        assert_eq!(clocks(&[-off, -off - 5]).offset_ms(at(0), 2), -off);
        // Some say ahead, some say behind.
        assert_eq!(clocks(&[-9_000, 9_000]).offset_ms(at(0), 2), 0);
        assert_eq!(clocks(&[-9_000, -9_000, 9_000]).offset_ms(at(0), 2), -9_000);
        // The only super-node that there is.
        assert_eq!(clocks(&[-9_000]).offset_ms(at(0), 1), -9_000);
        assert_eq!(Clocks::default().offset_ms(at(0), 0), 0);
    }

    #[test]
    fn who_says_it_again_counts_once_and_the_oldest_goes() {
        let mut clocks = clocks(&[-60_000, -60_000]);
        for node in [1, 2] {
            clocks.read(at(0), NodeId([node; 32]), NOW_MS);
        }
        assert_eq!(clocks.offset_ms(at(0), 2), 0);
        for node in 10..10 + READINGS as u8 {
            clocks.read(at(0), NodeId([node; 32]), NOW_MS + 60_000);
        }
        assert_eq!(clocks.readings.len(), READINGS);
        assert_eq!(clocks.offset_ms(at(0), READINGS), 60_000);
    }

    #[test]
    fn what_was_read_is_forgotten_when_our_clock_is_set() {
        let mut kept = clocks(&[-60_000, -60_000]);
        assert_eq!(kept.offset_ms(at(3_600), 2), -60_000);
        let set = Now::new(Duration::from_secs(3_601), NOW_MS + 3_541_000);
        assert_eq!(kept.offset_ms(set, 2), 0);
        // Who says nothing, or anything at all, does no harm.
        kept.read(set, NodeId([1; 32]), 0);
        kept.read(set, NodeId([2; 32]), u64::MAX);
        assert_eq!(kept.readings.len(), 1);
    }
}
