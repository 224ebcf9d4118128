//! One deadline for each thing a peer does from time to time.

use crate::time::Time;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Bootstrap,
    Muster,
    Homes,
    Candidacy,
    Report,
    Election,
    Jury,
    Sync,
    Merge,
    Expiry,
    News,
}

const ALL: [Timer; 11] = [
    Timer::Bootstrap,
    Timer::Muster,
    Timer::Homes,
    Timer::Candidacy,
    Timer::Report,
    Timer::Election,
    Timer::Jury,
    Timer::Sync,
    Timer::Merge,
    Timer::Expiry,
    Timer::News,
];

/// A fixed set of deadlines; a timer that is off costs nothing.
#[derive(Default)]
pub(super) struct Timers {
    at: [Option<Time>; ALL.len()],
}

impl Timers {
    /// Sets or moves the deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.at[timer as usize] = Some(at);
    }

    /// Sets the deadline unless an earlier one stands.
    pub(super) fn at_latest(&mut self, timer: Timer, at: Time) {
        let slot = &mut self.at[timer as usize];
        *slot = Some(slot.map_or(at, |old| old.min(at)));
    }

    /// Turns the timer off.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    /// Takes a timer whose deadline has come; it is off then.
    pub(super) fn due(&mut self, now: Time) -> Option<Timer> {
        let timer = ALL
            .into_iter()
            .find(|t| self.at[*t as usize].is_some_and(|at| at <= now))?;
        self.at[timer as usize] = None;
        Some(timer)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Time> {
        self.at.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_timer_fires_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Homes, Time(5));
        timers.at_latest(Timer::Homes, Time(9));
        assert_eq!(timers.next(), Some(Time(5)));
        assert_eq!(timers.due(Time(4)), None);
        assert_eq!(timers.due(Time(5)), Some(Timer::Homes));
        assert_eq!(timers.due(Time(5)), None);
        assert_eq!(timers.next(), None);
    }
}
