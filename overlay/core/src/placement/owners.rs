//! The choice of owners among the closest super-nodes.

use std::fmt;
use std::ops::{ControlFlow, Deref, DerefMut};

use crate::keyspace::{Key, NodeId};

use super::R;
use super::members::Members;
use super::shared::Laid;

/// How many distinct super-nodes are looked at, closest first, for owners of
/// distinct failure domains. A domain with a tenth of all seats is missed once
/// in 850 keys.
pub const SPREAD_SEARCH: usize = 64;

/// The owners of a key, at most [`R`]; a slice on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    nodes: [NodeId; R],
    len: usize,
}

impl Owners {
    /// Room for more is the caller's business: past `R` nothing happens.
    pub(super) fn push(&mut self, node: NodeId) {
        if let Some(free) = self.nodes.get_mut(self.len) {
            *free = node;
            self.len += 1;
        }
    }
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            nodes: [NodeId([0; 32]); R],
            len: 0,
        }
    }
}

impl Deref for Owners {
    type Target = [NodeId];

    fn deref(&self) -> &[NodeId] {
        &self.nodes[..self.len]
    }
}

impl DerefMut for Owners {
    fn deref_mut(&mut self) -> &mut [NodeId] {
        &mut self.nodes[..self.len]
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Gives the owners of `key` to `out`: those of distinct domains first, then,
/// where they are too few, the closest of the rest.
pub(super) fn pick(
    members: &Members,
    seats: &Laid,
    key: &Key,
    count: usize,
    mut out: impl FnMut(NodeId),
) {
    let search = SPREAD_SEARCH.min(members.serving());
    let count = count.min(search);
    if count == 0 {
        return;
    }
    let spread = members.domains_for(count);
    let mut seen = Seen::default();
    // The break only says that the search is over.
    let _ = seats.visit(key, members, &mut |seat| {
        if seen.add(seat.slot) && !seen.shares_domain(members, seat.slot) {
            seen.chosen |= seen.last_bit();
        }
        let enough = seen.len >= count && seen.chosen.count_ones() as usize >= spread;
        match enough || seen.len >= search {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let chosen = (0..seen.len).filter(|i| seen.chosen >> i & 1 == 1);
    let rest = (0..seen.len).filter(|i| seen.chosen >> i & 1 == 0);
    for i in chosen.chain(rest).take(count) {
        out(members.member(seen.slots[i]).node);
    }
}

/// The distinct super-nodes met so far, closest first.
struct Seen {
    slots: [u32; SPREAD_SEARCH],
    len: usize,
    /// Bit `i`: `slots[i]` is the first of its domain.
    chosen: u64,
}

const _: () = assert!(SPREAD_SEARCH <= u64::BITS as usize);

impl Default for Seen {
    fn default() -> Self {
        Self {
            slots: [0; SPREAD_SEARCH],
            len: 0,
            chosen: 0,
        }
    }
}

impl Seen {
    /// Whether `slot` is new.
    fn add(&mut self, slot: u32) -> bool {
        let new = !self.slots[..self.len].contains(&slot);
        if new {
            self.slots[self.len] = slot;
            self.len += 1;
        }
        new
    }

    fn last_bit(&self) -> u64 {
        1 << (self.len - 1)
    }

    fn shares_domain(&self, members: &Members, slot: u32) -> bool {
        let Some(domain) = members.domain(slot) else {
            return false;
        };
        let mut chosen = (0..self.len).filter(|i| self.chosen >> i & 1 == 1);
        chosen.any(|i| members.domain(self.slots[i]) == Some(domain))
    }
}
