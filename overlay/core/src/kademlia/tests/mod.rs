//! The routing table and the lookup, alone and over whole networks of tables.

mod lookup;
mod network;
mod table;

use std::sync::Arc;

use crate::keyspace::{Key, NodeId};
use crate::placement::Member;

use super::Peer;

fn key(number: u64) -> Key {
    Key::hash("test key", &[&number.to_le_bytes()])
}

fn peer(number: u64, seats: u32) -> Peer {
    Peer {
        node: NodeId(Key::hash("test node", &[&number.to_le_bytes()]).0),
        seats,
    }
}

fn member(peer: Peer) -> Member {
    Member {
        node: peer.node,
        seats: peer.seats,
        domain: Arc::from(""),
    }
}

/// The `count` of `peers` closest to `target`, by sorting them all.
fn true_closest(peers: &[Peer], target: &Key, count: usize) -> Vec<Peer> {
    let distance = |p: &Peer| p.closest_seat(target).map(|seat| seat.distance(target));
    let mut order: Vec<_> = peers.iter().filter(|p| p.seats > 0).copied().collect();
    order.sort_by_cached_key(distance);
    order.truncate(count);
    order
}
