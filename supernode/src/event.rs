//! What happens to a leaf and its overlay, as it happens.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use canopy_core::keyspace::NodeId;
use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use crate::settings::Bandwidth;
use crate::status::{Role, as_text};

/// Events kept for a reader that is behind; older ones are dropped and counted.
pub const BACKLOG: usize = 1024;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What. Serialised beside `at_ms`, its name under `event`.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// This peer took up or laid down a role.
    RoleChanged {
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
    },
    /// This peer opened an election, as returning officer or as chair.
    ElectionOpened {
        /// Its term.
        term: u64,
        /// Places to fill, in office and in reserve.
        wanted: u32,
        /// Who will be measured first, in order.
        #[serde(serialize_with = "all_as_text")]
        candidates: Vec<NodeId>,
        /// Why.
        reason: String,
    },
    /// A level of a race that this peer runs was measured.
    Measured {
        /// The term.
        term: u64,
        /// Who was measured.
        #[serde(serialize_with = "as_text")]
        candidate: NodeId,
        /// Shares double from level to level.
        level: u32,
        /// What each juror sent and asked for, bits a second.
        share_bps: u64,
        /// Ballots that came in.
        ballots: u32,
        /// Their median, bits a second.
        median_bps: u64,
    },
    /// A race that this peer runs ended.
    Raced {
        /// The term.
        term: u64,
        /// Who was measured.
        #[serde(serialize_with = "as_text")]
        candidate: NodeId,
        /// Bits a second; 0: below what a super-node must carry.
        score_bps: u64,
    },
    /// The election that this peer ran ended.
    ElectionClosed {
        /// Its term.
        term: u64,
        /// Who got a mandate.
        #[serde(serialize_with = "all_as_text")]
        elected: Vec<NodeId>,
    },
    /// A super-node serves that did not before.
    SuperNodeUp {
        /// Who.
        #[serde(serialize_with = "as_text")]
        node_id: NodeId,
        /// Elected capacity, bits a second.
        capacity_bps: u64,
        /// Seats in the keyspace.
        seats: u32,
        /// Term of its mandate.
        term: u64,
    },
    /// A super-node serves no more.
    SuperNodeDown {
        /// Who.
        #[serde(serialize_with = "as_text")]
        node_id: NodeId,
        /// Why.
        reason: String,
    },
    /// A super-node became a home of this leaf.
    HomeAttached {
        /// Who.
        #[serde(serialize_with = "as_text")]
        node_id: NodeId,
        /// First (0) or second (1) home.
        slot: u32,
    },
    /// A home of this leaf is gone.
    HomeLost {
        /// Who.
        #[serde(serialize_with = "as_text")]
        node_id: NodeId,
    },
    /// An operator did something here.
    Operated {
        /// What: `cordon`, `uncordon`, `drain`, `step-down`, `elect`, `apply`, or what
        /// was decreed through this peer.
        action: String,
        /// Who, as far as it is known.
        caller: String,
    },
    /// The network's operator decreed something, which this peer obeys from now on.
    Decreed {
        /// What it says: `ban`, `unban`, `designate`, `undesignate` or `policy`.
        says: String,
        /// What it is about.
        subject: String,
        /// Of decrees about one subject the highest counts.
        sequence: u64,
    },
    /// Something an operator should look at.
    Warning {
        /// What it is, and what to do.
        message: String,
    },
    /// The reader fell behind.
    Lagged {
        /// How many events it will not see.
        missed: u64,
    },
}

/// In words, on one line.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoleChanged { from, to } => {
                write!(f, "role: {} -> {}", from.as_str(), to.as_str())
            }
            Self::ElectionOpened {
                term,
                wanted,
                candidates,
                reason,
            } => write!(
                f,
                "election {term}: opened for {wanted} ({reason}), {} to measure",
                candidates.len()
            ),
            Self::Measured {
                term,
                candidate,
                level,
                share_bps,
                ballots,
                median_bps,
            } => write!(
                f,
                "election {term}: {} level {level}: asked {} a juror, got {} ({ballots} ballots)",
                candidate.short(),
                Bandwidth(*share_bps),
                Bandwidth(*median_bps)
            ),
            Self::Raced {
                term,
                candidate,
                score_bps: 0,
            } => write!(
                f,
                "election {term}: {} carries too little",
                candidate.short()
            ),
            Self::Raced {
                term,
                candidate,
                score_bps,
            } => write!(
                f,
                "election {term}: {} scored {}",
                candidate.short(),
                Bandwidth(*score_bps)
            ),
            Self::ElectionClosed { term, elected } => {
                let names: Vec<String> = elected.iter().map(|node| node.short()).collect();
                write!(f, "election {term}: elected {}", names.join(", "))
            }
            Self::SuperNodeUp {
                node_id,
                capacity_bps,
                seats,
                term,
            } => write!(
                f,
                "super-node up: {}, {}, {seats} seats, term {term}",
                node_id.short(),
                Bandwidth(*capacity_bps)
            ),
            Self::SuperNodeDown { node_id, reason } => {
                write!(f, "super-node down: {} ({reason})", node_id.short())
            }
            Self::HomeAttached { node_id, slot } => {
                write!(f, "home {}: {}", slot + 1, node_id.short())
            }
            Self::HomeLost { node_id } => write!(f, "home lost: {}", node_id.short()),
            Self::Operated { action, caller } => write!(f, "{action} by {caller}"),
            Self::Decreed { says, subject, .. } if says == subject => {
                write!(f, "decreed: a new {subject}")
            }
            Self::Decreed { says, subject, .. } => write!(f, "decreed: {says} {subject}"),
            Self::Warning { message } => write!(f, "warning: {message}"),
            Self::Lagged { missed } => write!(f, "{missed} events were too fast to be shown"),
        }
    }
}

/// The wall clock, milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn all_as_text<S: Serializer>(ids: &[NodeId], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(NodeId::to_string))
}

/// A reader of events. Each reader sees every event from when it was made; one
/// that falls behind is told so and goes on.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    now_ms: fn() -> u64,
}

impl Events {
    /// Reads from a channel of [`BACKLOG`] events.
    pub fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self {
            receiver,
            now_ms: unix_ms,
        }
    }

    /// The next event; `None` after the leaf was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event {
                at_ms: (self.now_ms)(),
                kind: EventKind::Lagged { missed },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(at_ms: u64) -> Event {
        Event {
            at_ms,
            kind: EventKind::SuperNodeDown {
                node_id: NodeId([1; 32]),
                reason: "silent".into(),
            },
        }
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let json = serde_json::to_value(up(7)).unwrap();
        assert_eq!(json["event"], "super_node_down");
        assert_eq!(json["at_ms"], 7);
        assert_eq!(json["node_id"], "01".repeat(32));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed_and_goes_on() {
        let (sender, receiver) = broadcast::channel(2);
        let mut events = Events::new(receiver);
        (1..=5).for_each(|at| drop(sender.send(up(at))));
        let first = events.next().await.unwrap();
        assert_eq!(first.kind, EventKind::Lagged { missed: 3 });
        assert_eq!(events.next().await, Some(up(4)));
        assert_eq!(events.next().await, Some(up(5)));
        drop(sender);
        assert_eq!(events.next().await, None);
    }
}
