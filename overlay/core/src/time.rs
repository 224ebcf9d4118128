//! Time as the core sees it: an argument, never a call.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the peer's monotonic clock, microseconds since an epoch of the
/// driver's choice. Only differences mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// Time since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, by: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, by: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// What a driver tells the core with every call: its two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic; timers and durations.
    pub at: Time,
    /// Wall clock, milliseconds since 1970; what signed messages carry. It may
    /// be wrong and may jump.
    pub unix_ms: u64,
}

impl Now {
    /// Both clocks, the monotonic one `since` its epoch.
    pub fn new(since: Duration, unix_ms: u64) -> Self {
        Self {
            at: Time::default() + since,
            unix_ms,
        }
    }
}
