//! From what happens in a peer to the events that people and programs are told.

use std::collections::BTreeMap;

use canopy_core::keyspace::NodeId;
use canopy_core::node as core;
use canopy_overlay::peer::PeerEvent;
use tokio::sync::{broadcast, watch};

use crate::event::{Event, EventKind, unix_ms};
use crate::status::Role;
use crate::store::StoreError;

use super::trouble::Trouble;

/// Subjects whose last failure is remembered.
const MAX_FAILURES: usize = 64;

/// Turns what happens in the peer into what an app is told.
pub(super) async fn tell(
    mut from: broadcast::Receiver<PeerEvent>,
    to: broadcast::Sender<Event>,
    trouble: Trouble,
) {
    let mut before = Told {
        trouble,
        ..Told::default()
    };
    loop {
        match from.recv().await {
            Ok(event) => {
                for kind in before.translate(event) {
                    let _ = to.send(Event {
                        at_ms: unix_ms(),
                        kind,
                    });
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Tells an app why the store fails.
pub(super) async fn tell_failure(
    mut failure: watch::Receiver<Option<StoreError>>,
    to: broadcast::Sender<Event>,
) {
    while failure.changed().await.is_ok() {
        let error = failure.borrow_and_update().clone();
        if let Some(error) = error {
            let message = error.to_string();
            let _ = to.send(Event {
                at_ms: unix_ms(),
                kind: EventKind::Warning { message },
            });
        }
    }
}

/// What was told last, where an event is a difference.
#[derive(Default)]
struct Told {
    role: Role,
    homes: Vec<NodeId>,
    /// What was said last of an address that cannot be joined by, and of a
    /// super-node whose mandate is refused: both come again and again, and fail
    /// the same way.
    failures: BTreeMap<String, String>,
    trouble: Trouble,
}

impl Told {
    fn news(&mut self, subject: String, message: String) -> bool {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
        }
        let old = self.failures.insert(subject, message.clone());
        old != Some(message)
    }

    fn translate(&mut self, event: PeerEvent) -> Vec<EventKind> {
        match event {
            PeerEvent::JoinFailed { addr, error } => {
                let message = format!("{addr}: {error}");
                self.trouble.join_failed(&message);
                let news = self.news(addr.to_string(), message.clone());
                let warning = news.then_some(EventKind::Warning { message });
                warning.into_iter().collect()
            }
            PeerEvent::Core(event) => self.core(event),
        }
    }

    fn core(&mut self, event: core::Event) -> Vec<EventKind> {
        use core::Event as E;
        match event {
            E::Role(role) => {
                let to = as_role(role);
                let from = std::mem::replace(&mut self.role, to);
                vec![EventKind::RoleChanged { from, to }]
            }
            E::Homes(homes) => {
                if !homes.is_empty() {
                    self.trouble.over();
                }
                let old = std::mem::replace(&mut self.homes, homes.clone());
                let lost = old.iter().filter(|node| !homes.contains(node));
                let lost = lost.map(|node| EventKind::HomeLost { node_id: *node });
                let found = homes
                    .iter()
                    .enumerate()
                    .filter(|(_, node)| !old.contains(node));
                let found = found.map(|(slot, node)| EventKind::HomeAttached {
                    node_id: *node,
                    slot: slot as u32,
                });
                lost.chain(found).collect()
            }
            E::SuperNodeUp {
                node,
                capacity_bps,
                seats,
                term,
            } => {
                vec![EventKind::SuperNodeUp {
                    node_id: node,
                    capacity_bps,
                    seats,
                    term,
                }]
            }
            E::SuperNodeDown { node, reason } => {
                vec![EventKind::SuperNodeDown {
                    node_id: node,
                    reason: reason.into(),
                }]
            }
            E::ElectionOpened {
                term,
                wanted,
                candidates,
                reason,
            } => {
                vec![EventKind::ElectionOpened {
                    term,
                    wanted: wanted as u32,
                    candidates,
                    reason,
                }]
            }
            E::Level {
                term,
                candidate,
                level,
                share_bps,
                ballots,
                median_bps,
            } => {
                let ballots = ballots as u32;
                vec![EventKind::Measured {
                    term,
                    candidate,
                    level,
                    share_bps,
                    ballots,
                    median_bps,
                }]
            }
            E::Raced {
                term,
                candidate,
                score_bps,
            } => vec![EventKind::Raced {
                term,
                candidate,
                score_bps,
            }],
            E::ElectionClosed { term, elected } => {
                vec![EventKind::ElectionClosed { term, elected }]
            }
            E::Decreed {
                subject,
                says,
                sequence,
            } => vec![EventKind::Decreed {
                says: says.to_owned(),
                subject: subject.to_string(),
                sequence,
            }],
            E::MandateRefused { candidate, reason } => {
                let whose =
                    candidate.map_or_else(String::new, |node| format!(" of {}", node.short()));
                // How late or early it was differs from time to time.
                let kind = reason.replace(|c: char| c.is_ascii_digit(), "");
                let news = self.news(format!("mandate{whose}"), kind);
                let message = format!("a mandate{whose} was refused: {reason}");
                let warning = news.then_some(EventKind::Warning { message });
                warning.into_iter().collect()
            }
        }
    }
}

pub(super) fn as_role(role: core::Role) -> Role {
    match role {
        core::Role::Leaf => Role::Leaf,
        core::Role::Candidate => Role::Candidate,
        core::Role::Deputy => Role::Deputy,
        core::Role::SuperNode => Role::SuperNode,
        core::Role::Retiring => Role::Retiring,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use canopy_overlay::fabric::DialError;

    use super::*;

    #[test]
    fn the_same_failure_of_an_address_is_told_once() {
        let mut told = Told::default();
        let mut failed = |port: u16, error| {
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            told.translate(PeerEvent::JoinFailed { addr, error }).len()
        };
        assert_eq!(failed(1, DialError::Timeout), 1);
        assert_eq!(failed(1, DialError::Timeout), 0);
        assert_eq!(failed(2, DialError::Timeout), 1);
        assert_eq!(failed(1, DialError::Network("other".into())), 1);
        assert_eq!(failed(1, DialError::Timeout), 1);
    }

    #[test]
    fn the_same_refusal_of_a_mandate_is_told_once() {
        let mut told = Told::default();
        let mut refused = |node: u8, reason: &str| {
            let event = core::Event::MandateRefused {
                candidate: Some(NodeId([node; 32])),
                reason: reason.into(),
            };
            told.translate(PeerEvent::Core(event)).len()
        };
        assert_eq!(refused(1, "issued 60000 ms in the future"), 1);
        assert_eq!(refused(1, "issued 59000 ms in the future"), 0);
        assert_eq!(refused(2, "issued 59000 ms in the future"), 1);
        assert_eq!(refused(1, "expired"), 1);
    }
}
