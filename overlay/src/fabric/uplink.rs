//! A token bucket of bytes: what keeps an endpoint below its uplink, and a
//! measurement at its share.
//!
//! It never waits itself; it says how long. A take may overdraw it by one
//! batch, which the next takes wait for, so that large batches pass a small
//! bucket and the rate still holds.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The bucket holds what the line carries in this time: it must bridge a
/// timer's granularity (1 ms) and a busy machine's delays.
const DEPTH: Duration = Duration::from_millis(10);
/// Never less than two full packets.
const MIN_DEPTH: f64 = 3_000.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second.
    rate: f64,
    /// Most bytes saved up.
    depth: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    bytes: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket for `bits` a second, at least 8 000.
    pub(super) fn new(bits: u64, now: Instant) -> Self {
        let rate = bits.max(8_000) as f64 / 8.0;
        let depth = (rate * DEPTH.as_secs_f64()).max(MIN_DEPTH);
        let level = Level {
            bytes: depth,
            at: now,
        };
        Self {
            rate,
            depth,
            level: Mutex::new(level),
        }
    }

    /// Takes `bytes` if anything is left, else says how long until there is.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let mut level = self.level.lock();
        self.fill(&mut level, now);
        if level.bytes <= 0.0 {
            return Err(self.wait(&level));
        }
        level.bytes -= bytes as f64;
        Ok(())
    }

    /// How long until something is left; `None`: now.
    pub(super) fn wait_for(&self, now: Instant) -> Option<Duration> {
        let mut level = self.level.lock();
        self.fill(&mut level, now);
        (level.bytes <= 0.0).then(|| self.wait(&level))
    }

    /// Gives back what could not be sent.
    pub(super) fn give_back(&self, bytes: usize) {
        self.level.lock().bytes += bytes as f64;
    }

    /// Bytes that should go at a time: half of the depth.
    pub(super) fn batch(&self) -> usize {
        (self.depth / 2.0) as usize
    }

    fn fill(&self, level: &mut Level, now: Instant) {
        let passed = now.saturating_duration_since(level.at);
        level.at = level.at.max(now);
        level.bytes = (level.bytes + self.rate * passed.as_secs_f64()).min(self.depth);
    }

    fn wait(&self, level: &Level) -> Duration {
        // One byte more than the debt, so that the wait is never zero.
        Duration::from_secs_f64((1.0 - level.bytes) / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that pass in `seconds` when whoever sends waits as it is told.
    fn passed(bits: u64, batch: usize, seconds: u64) -> usize {
        let start = Instant::now();
        let bucket = Bucket::new(bits, start);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(seconds) {
            match bucket.take(batch, now) {
                Ok(()) => sent += batch,
                Err(wait) => now += wait,
            }
        }
        sent
    }

    #[test]
    fn the_rate_holds_for_small_and_large_batches() {
        for batch in [100, 1_200, 12_000, 60_000] {
            for bits in [1_000_000, 20_000_000, 1_000_000_000] {
                let sent = passed(bits, batch, 10) as f64 * 8.0 / 10.0;
                // A full bucket at the start, a debt at the end.
                let slack = bits as f64 * 0.002 + 2_500.0 + batch as f64;
                assert!((sent - bits as f64).abs() < slack, "{sent} of {bits}");
            }
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_depth() {
        let start = Instant::now();
        let bucket = Bucket::new(8_000_000, start);
        let later = start + Duration::from_secs(60);
        let mut sent = 0;
        while bucket.take(1_000, later).is_ok() {
            sent += 1_000;
        }
        assert_eq!(sent, 10_000);
        assert!(bucket.wait_for(later).is_some());
        bucket.give_back(1_000);
        assert_eq!(bucket.wait_for(later), None);
    }
}
