//! Who may have how much carried: so much a second of each sender, and so much
//! under way of each and for each, so that nobody's haste or silence costs
//! others their turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// Senders remembered before those are forgotten that have been quiet.
const REMEMBERED: usize = 4096;

/// What one sender may have carried, and all together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Requests a second of one sender.
    pub(super) per_s: f64,
    /// Bytes a second of one sender.
    pub(super) bytes_per_s: f64,
    /// Requests of one sender under way.
    pub(super) of_sender: usize,
    /// Requests under way for one receiver.
    pub(super) for_receiver: usize,
    /// Requests under way in all.
    pub(super) in_all: usize,
    /// Seconds that a sender who was quiet may use at once.
    pub(super) burst_s: f64,
}

/// Sender or receiver: a node id or a key.
type Name = [u8; 32];

#[derive(Debug)]
pub(super) struct Fair {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    senders: HashMap<Name, Sender>,
    receivers: HashMap<Name, usize>,
    under_way: usize,
}

#[derive(Debug)]
struct Sender {
    under_way: usize,
    requests: f64,
    bytes: f64,
    at: Instant,
}

/// A request under way; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    fair: Arc<Fair>,
    sender: Name,
    receiver: Name,
}

impl Fair {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// Begins a request of `bytes`.
    ///
    /// # Errors
    /// Which limit it is over, for people.
    pub(super) fn enter(
        self: &Arc<Self>,
        sender: Name,
        receiver: Name,
        bytes: usize,
        now: Instant,
    ) -> Result<Turn, &'static str> {
        let limits = &self.limits;
        let mut state = self.state.lock();
        if state.under_way >= limits.in_all {
            return Err("this super-node carries as much as it may; try another, or later");
        }
        let waiting = state.receivers.get(&receiver).copied().unwrap_or(0);
        if waiting >= limits.for_receiver {
            return Err("too much is under way to this receiver; try again later");
        }
        if state.senders.len() >= REMEMBERED {
            state.senders.retain(|_, sender| {
                sender.refill(limits, now);
                sender.under_way > 0 || !sender.is_full(limits)
            });
        }
        let entry = state.senders.entry(sender).or_insert_with(|| Sender {
            under_way: 0,
            requests: limits.per_s * limits.burst_s,
            bytes: limits.bytes_per_s * limits.burst_s,
            at: now,
        });
        entry.refill(limits, now);
        if entry.under_way >= limits.of_sender {
            return Err("too much of this sender is under way; wait for answers");
        }
        if entry.requests < 1.0 || entry.bytes < bytes as f64 {
            return Err("this sender is over its rate; slow down");
        }
        entry.requests -= 1.0;
        entry.bytes -= bytes as f64;
        entry.under_way += 1;
        state.under_way += 1;
        *state.receivers.entry(receiver).or_default() += 1;
        Ok(Turn {
            fair: Arc::clone(self),
            sender,
            receiver,
        })
    }
}

impl Sender {
    fn refill(&mut self, limits: &Limits, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let more = |has: f64, per_s: f64| (has + passed * per_s).min(per_s * limits.burst_s);
        self.requests = more(self.requests, limits.per_s);
        self.bytes = more(self.bytes, limits.bytes_per_s);
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.requests >= limits.per_s * limits.burst_s
            && self.bytes >= limits.bytes_per_s * limits.burst_s
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.fair.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if let Some(sender) = state.senders.get_mut(&self.sender) {
            sender.under_way = sender.under_way.saturating_sub(1);
        }
        if let Some(waiting) = state.receivers.get_mut(&self.receiver) {
            *waiting -= 1;
            if *waiting == 0 {
                state.receivers.remove(&self.receiver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        per_s: 2.0,
        bytes_per_s: 1000.0,
        of_sender: 3,
        for_receiver: 4,
        in_all: 6,
        burst_s: 2.0,
    };

    #[test]
    fn a_sender_over_its_rate_waits_and_others_do_not() {
        let fair = Fair::new(LIMITS);
        let now = Instant::now();
        for _ in 0..4 {
            fair.enter([1; 32], [9; 32], 10, now).unwrap();
        }
        assert!(fair.enter([1; 32], [9; 32], 10, now).is_err());
        assert!(fair.enter([2; 32], [9; 32], 2001, now).is_err());
        assert!(fair.enter([2; 32], [9; 32], 2000, now).is_ok());
        let later = now + Duration::from_millis(500);
        assert!(fair.enter([1; 32], [9; 32], 10, later).is_ok());
        assert!(fair.enter([1; 32], [9; 32], 10, later).is_err());
    }

    #[test]
    fn what_is_under_way_is_bounded_for_each_and_all() {
        let fair = Fair::new(Limits {
            per_s: 100.0,
            ..LIMITS
        });
        let now = Instant::now();
        let enter = |sender, receiver| fair.enter([sender; 32], [receiver; 32], 1, now);
        let mut turns: Vec<Turn> = (0..3).map(|_| enter(1, 8).unwrap()).collect();
        assert!(enter(1, 9).is_err(), "of one sender");
        turns.push(enter(2, 8).unwrap());
        assert!(enter(2, 8).is_err(), "for one receiver");
        turns.push(enter(2, 9).unwrap());
        turns.push(enter(3, 9).unwrap());
        assert!(enter(4, 7).is_err(), "in all");
        turns.clear();
        assert!(enter(1, 8).is_ok());
        assert!(fair.state.lock().receivers.is_empty());
    }
}
