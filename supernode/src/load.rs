//! How busy a super-node is: from counters that only grow to thousandths of
//! each limit.
//!
//! What cannot be measured counts as idle; it must never be guessed.

use std::time::{Duration, Instant};

use canopy_core::node::Load;

/// Shortest time between two readings that rates are computed over: over less,
/// one batch of packets looks like a flood.
const SHORTEST: Duration = Duration::from_millis(50);
/// No dimension is told as more than this many thousandths.
const MOST_MILLI: f64 = 1e6;

/// Counters at a moment, all since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Index operations done.
    pub operations: u64,
    /// Bytes sent, without those that only measured a line.
    pub bytes: u64,
    /// Processor time used; `None` where it is not this peer's alone, or the
    /// system does not tell.
    pub cpu: Option<Duration>,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Operations a second.
    pub operations_per_s: f64,
    /// Bits a second.
    pub bps: f64,
    /// Busy processors, e.g. 1.5; 0 where it is not told.
    pub processors: f64,
}

/// Turns counters into rates.
#[derive(Debug)]
pub struct Meter {
    at: Instant,
    before: Counters,
    rates: Rates,
}

impl Meter {
    /// Counts from `at` on.
    pub fn new(at: Instant, counters: Counters) -> Self {
        Self {
            at,
            before: counters,
            rates: Rates::default(),
        }
    }

    /// The rates since the reading before; the same as then where that was a
    /// moment ago.
    pub fn tick(&mut self, at: Instant, now: Counters) -> Rates {
        let passed = at.saturating_duration_since(self.at);
        if passed < SHORTEST {
            return self.rates;
        }
        let seconds = passed.as_secs_f64();
        let cpu = match (self.before.cpu, now.cpu) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => Duration::ZERO,
        };
        // A counter that went back (a store opened anew) started from zero.
        let per_s = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        self.rates = Rates {
            operations_per_s: per_s(self.before.operations, now.operations),
            bps: per_s(self.before.bytes, now.bytes) * 8.0,
            processors: cpu.as_secs_f64() / seconds,
        };
        (self.at, self.before) = (at, now);
        self.rates
    }
}

/// What counts as full use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions.
    pub sessions: usize,
    /// Index operations a second.
    pub operations_per_s: u64,
    /// Bits a second; 0: not known, so that bytes do not count.
    pub bps: u64,
}

impl Limits {
    /// The load to tell the election; `memory_milli` comes from the index.
    pub fn load(&self, sessions: usize, memory_milli: u32, rates: &Rates) -> Load {
        let milli = |used: f64, limit: f64| match limit > 0.0 {
            true => (used / limit * 1000.0).min(MOST_MILLI) as u32,
            false => 0,
        };
        Load {
            connections: milli(sessions as f64, self.sessions as f64),
            operations: milli(rates.operations_per_s, self.operations_per_s as f64),
            bytes: milli(rates.bps, self.bps as f64),
            memory: memory_milli,
            cpu: milli(rates.processors, processors() as f64),
        }
    }
}

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time that this process used, in its own code and in the kernel.
#[cfg(unix)]
pub fn process_cpu() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(used.tv_sec), u32::try_from(used.tv_nsec));
    Some(Duration::new(seconds.ok()?, nanos.ok()?))
}

/// Not told by this system.
#[cfg(not(unix))]
pub fn process_cpu() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        sessions: 100,
        operations_per_s: 1_000,
        bps: 80_000,
    };

    #[test]
    fn each_dimension_is_used_over_its_limit() {
        let start = Instant::now();
        let before = Counters {
            operations: 10,
            bytes: 1_000,
            cpu: Some(Duration::from_secs(7)),
        };
        let mut meter = Meter::new(start, before);
        let now = Counters {
            operations: 1_010,
            bytes: 11_000,
            cpu: Some(Duration::from_secs(9)),
        };
        let rates = meter.tick(start + Duration::from_secs(2), now);
        assert_eq!((rates.operations_per_s, rates.bps), (500.0, 40_000.0));
        assert_eq!(rates.processors, 1.0);
        let load = LIMITS.load(25, 123, &rates);
        assert_eq!(
            (load.connections, load.operations, load.bytes, load.memory),
            (250, 500, 500, 123)
        );
        assert!((1..=1000).contains(&load.cpu), "{load:?}");
    }

    #[test]
    fn what_is_not_told_counts_as_idle() {
        let start = Instant::now();
        let mut meter = Meter::new(start, Counters::default());
        let now = Counters {
            bytes: 1_000_000,
            ..Counters::default()
        };
        let rates = meter.tick(start + Duration::from_secs(1), now);
        let load = Limits { bps: 0, ..LIMITS }.load(0, 0, &rates);
        assert_eq!(load, Load::default());
    }

    #[test]
    fn a_moment_is_too_short_for_a_rate_and_a_counter_may_start_again() {
        let start = Instant::now();
        let mut meter = Meter::new(start, Counters::default());
        let sent = |bytes| Counters {
            bytes,
            ..Counters::default()
        };
        let first = meter.tick(start + Duration::from_secs(1), sent(1_000));
        let again = meter.tick(start + Duration::from_millis(1_001), sent(900_000));
        assert_eq!((first, first.bps), (again, 8_000.0));
        let less = meter.tick(start + Duration::from_secs(2), sent(500));
        assert_eq!(less.bps, 0.0);
    }

    #[cfg(unix)]
    #[test]
    fn the_processor_time_of_this_process_grows_with_its_work() {
        let before = process_cpu().unwrap();
        let mut hash = blake3::hash(b"work");
        // Bounded by the work itself: each round takes some time.
        for _ in 0..100_000_000 {
            hash = blake3::hash(hash.as_bytes());
            if process_cpu().unwrap() >= before + Duration::from_millis(5) {
                return;
            }
        }
        panic!("{hash} cost no processor time");
    }
}
