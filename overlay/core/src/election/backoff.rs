//! How long a demoted peer waits before it stands again: twice as long each
//! time, so that nobody flaps in and out of office.

use std::time::Duration;

use crate::time::Time;

/// The demotions of one peer, by its own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    demotions: u32,
    until: Time,
}

impl Backoff {
    /// No demotion yet. `first` and `longest` come from the preset
    /// ([`Election`](crate::preset::Election)).
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest: longest.max(first),
            demotions: 0,
            until: Time::default(),
        }
    }

    /// The role was lost at `now`, for whatever reason but the operator's or
    /// the peer's own wish. Returns how long to wait.
    pub fn demoted(&mut self, now: Time) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.demotions.min(16));
        let wait = doubled.min(self.longest);
        self.demotions = self.demotions.saturating_add(1);
        self.until = now + wait;
        wait
    }

    /// The role was held well for the longest wait: earlier demotions are
    /// forgotten.
    pub fn proved(&mut self, served: Duration) {
        if served >= self.longest {
            *self = Self::new(self.first, self.longest);
        }
    }

    /// How much longer to wait; zero: the peer may stand.
    pub fn remaining(&self, now: Time) -> Duration {
        self.until.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;

    #[test]
    fn waits_double_from_half_an_hour_to_seventeen() {
        let t = Preset::Wan.timings().election;
        let mut backoff = Backoff::new(t.backoff_first, t.backoff_longest);
        let now = Time(1_000_000);
        assert_eq!(backoff.remaining(now), Duration::ZERO);
        let minutes: Vec<u64> = (0..7)
            .map(|_| backoff.demoted(now).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [30, 60, 120, 240, 480, 960, 1020]);
        assert_eq!(backoff.remaining(now + t.backoff_longest), Duration::ZERO);
        assert_eq!(backoff.remaining(now), t.backoff_longest);
    }

    #[test]
    fn serving_well_for_long_wipes_the_slate() {
        let mut backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(100));
        backoff.demoted(Time(0));
        backoff.demoted(Time(0));
        backoff.proved(Duration::from_secs(99));
        assert_eq!(backoff.demoted(Time(0)), Duration::from_secs(12));
        backoff.proved(Duration::from_secs(100));
        assert_eq!(backoff.demoted(Time(0)), Duration::from_secs(3));
    }
}
