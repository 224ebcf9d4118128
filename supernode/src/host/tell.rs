//! From what happens in a peer to the events that people and programs are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use canopy_core::keyspace::NodeId;
use canopy_core::node as core;
use canopy_overlay::peer::PeerEvent;
use tokio::sync::broadcast;

use crate::event::{Event, EventKind, unix_ms};
use crate::status::Role;

/// Addresses whose last failure is remembered.
const MAX_JOINS: usize = 64;

/// Turns what happens in the peer into what an app is told.
pub(super) async fn tell(mut from: broadcast::Receiver<PeerEvent>, to: broadcast::Sender<Event>) {
    let mut before = Told::default();
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

/// What was told last, where an event is a difference.
#[derive(Default)]
struct Told {
    role: Role,
    homes: Vec<NodeId>,
    /// What was said last of an address that cannot be joined by: it is tried
    /// again and again, and fails the same way.
    joins: BTreeMap<SocketAddr, String>,
}

impl Told {
    fn news(&mut self, addr: SocketAddr, message: &str) -> bool {
        if self.joins.len() >= MAX_JOINS {
            self.joins.clear();
        }
        let old = self.joins.insert(addr, message.to_owned());
        old.as_deref() != Some(message)
    }

    fn translate(&mut self, event: PeerEvent) -> Vec<EventKind> {
        match event {
            PeerEvent::JoinFailed { addr, error } => {
                let message = format!("{addr}: {error}");
                let news = self.news(addr, &message);
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
            E::MandateRefused { candidate, reason } => {
                let whose =
                    candidate.map_or_else(String::new, |node| format!(" of {}", node.short()));
                vec![EventKind::Warning {
                    message: format!("a mandate{whose} was refused: {reason}"),
                }]
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
}
