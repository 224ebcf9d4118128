//! Placement against a naive solver, and how evenly and stably it places.

mod balance;
mod naive;
mod solver;

use std::sync::Arc;

use crate::keyspace::{Key, NodeId};

use super::Member;

fn node(number: u64) -> NodeId {
    NodeId(Key::hash("test node", &[&number.to_le_bytes()]).0)
}

fn key(number: u64) -> Key {
    Key::hash("test key", &[&number.to_le_bytes()])
}

fn member(number: u64, seats: u32, domain: &str) -> Member {
    Member {
        node: node(number),
        seats,
        domain: Arc::from(domain),
    }
}
