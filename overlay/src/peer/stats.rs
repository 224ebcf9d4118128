//! What the driver counts: how much the core asked for and heard, and what its
//! elections came to. Nothing here is read by the protocol.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use canopy_core::node::Event;

/// Counts since the start of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Sessions that others opened.
    pub sessions_inbound: u64,
    /// Sessions that this peer opened.
    pub sessions_outbound: u64,
    /// Peers whose last session ended.
    pub sessions_closed: u64,
    /// Peers that the core wanted to reach and could not.
    pub dials_failed: u64,
    /// Messages of other peers to the core.
    pub messages: u64,
    /// Messages that were dropped because too many waited for the core.
    pub messages_dropped: u64,
    /// Messages that wait for the core now.
    pub messages_waiting: u64,
    /// Lines that this peer measured as a juror.
    pub measured: u64,
    /// Measurements of this peer that failed, so that it cast no ballot.
    pub measurements_failed: u64,
    /// Peers that were dialled back and answered.
    pub dial_backs_reached: u64,
    /// Peers that were dialled back and did not answer.
    pub dial_backs_failed: u64,
    /// Elections that this peer opened, as returning officer or chair.
    pub elections_opened: u64,
    /// Elections of this peer that ended.
    pub elections_closed: u64,
    /// Levels of races that this peer ran.
    pub levels: u64,
    /// Ballots that came in for them.
    pub ballots: u64,
    /// Races of this peer whose candidate carried enough.
    pub races_carried: u64,
    /// Races of this peer whose candidate did not.
    pub races_failed: u64,
    /// Mandates that its elections gave out.
    pub mandates_given: u64,
    /// Mandates from outside that were not valid.
    pub mandates_refused: u64,
    /// Times that a super-node came into service, as far as known here.
    pub super_nodes_up: u64,
    /// Times that one left it.
    pub super_nodes_down: u64,
    /// Changes of the own role.
    pub role_changes: u64,
}

/// The counters behind [`PeerStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sessions_inbound: Counter,
    pub(super) sessions_outbound: Counter,
    pub(super) sessions_closed: Counter,
    pub(super) dials_failed: Counter,
    pub(super) messages: Counter,
    pub(super) messages_dropped: Counter,
    pub(super) measured: Counter,
    pub(super) measurements_failed: Counter,
    pub(super) dial_backs_reached: Counter,
    pub(super) dial_backs_failed: Counter,
    elections_opened: Counter,
    elections_closed: Counter,
    levels: Counter,
    ballots: Counter,
    races_carried: Counter,
    races_failed: Counter,
    mandates_given: Counter,
    mandates_refused: Counter,
    super_nodes_up: Counter,
    super_nodes_down: Counter,
    role_changes: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, by: usize) {
        self.0.fetch_add(by as u64, Relaxed);
    }

    pub(super) fn one(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    /// Here and not from the events that observers read: those are dropped
    /// where an observer is slow.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Role(_) => self.role_changes.one(),
            Event::SuperNodeUp { .. } => self.super_nodes_up.one(),
            Event::SuperNodeDown { .. } => self.super_nodes_down.one(),
            Event::Homes(_) | Event::Decreed { .. } => {}
            Event::ElectionOpened { .. } => self.elections_opened.one(),
            Event::Level { ballots, .. } => {
                self.levels.one();
                self.ballots.add(*ballots);
            }
            Event::Raced { score_bps: 0, .. } => self.races_failed.one(),
            Event::Raced { .. } => self.races_carried.one(),
            Event::ElectionClosed { elected, .. } => {
                self.elections_closed.one();
                self.mandates_given.add(elected.len());
            }
            Event::MandateRefused { .. } => self.mandates_refused.one(),
        }
    }

    /// With `messages_waiting` messages in the queue now.
    pub(super) fn read(&self, messages_waiting: u64) -> PeerStats {
        PeerStats {
            sessions_inbound: self.sessions_inbound.get(),
            sessions_outbound: self.sessions_outbound.get(),
            sessions_closed: self.sessions_closed.get(),
            dials_failed: self.dials_failed.get(),
            messages: self.messages.get(),
            messages_dropped: self.messages_dropped.get(),
            messages_waiting,
            measured: self.measured.get(),
            measurements_failed: self.measurements_failed.get(),
            dial_backs_reached: self.dial_backs_reached.get(),
            dial_backs_failed: self.dial_backs_failed.get(),
            elections_opened: self.elections_opened.get(),
            elections_closed: self.elections_closed.get(),
            levels: self.levels.get(),
            ballots: self.ballots.get(),
            races_carried: self.races_carried.get(),
            races_failed: self.races_failed.get(),
            mandates_given: self.mandates_given.get(),
            mandates_refused: self.mandates_refused.get(),
            super_nodes_up: self.super_nodes_up.get(),
            super_nodes_down: self.super_nodes_down.get(),
            role_changes: self.role_changes.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use canopy_core::keyspace::NodeId;

    use super::*;

    #[test]
    fn an_election_is_counted_from_its_opening_to_its_mandates() {
        let counters = Counters::default();
        let (term, candidate) = (7, NodeId([1; 32]));
        let raced = |score_bps| Event::Raced {
            term,
            candidate,
            score_bps,
        };
        let level = |level, ballots| Event::Level {
            term,
            candidate,
            level,
            share_bps: 1_000,
            ballots,
            median_bps: 1_000,
        };
        let events = [
            Event::ElectionOpened {
                term,
                wanted: 1,
                candidates: vec![candidate],
                reason: "too few".into(),
            },
            level(0, 3),
            level(1, 2),
            raced(0),
            raced(5_000_000),
            Event::ElectionClosed {
                term,
                elected: vec![candidate],
            },
        ];
        events.iter().for_each(|event| counters.event(event));
        let wanted = PeerStats {
            elections_opened: 1,
            elections_closed: 1,
            levels: 2,
            ballots: 5,
            races_failed: 1,
            races_carried: 1,
            mandates_given: 1,
            messages_waiting: 9,
            ..PeerStats::default()
        };
        assert_eq!(counters.read(9), wanted);
    }
}
