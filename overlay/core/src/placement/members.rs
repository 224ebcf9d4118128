//! Who serves: members in numbered slots, so that a seat names its holder in
//! four bytes.
//!
//! The slot of a member stays the same while it serves; a slot that was left is
//! used again.

use std::collections::BTreeMap;

use crate::keyspace::{Key, NodeId, keys};

use super::Member;
use super::seats::{Edit, Seat};

/// Domains are counted up to here; who wants more owners than this many domains
/// has a bounded search anyway.
const COUNTED_DOMAINS: usize = 8;

/// Below this many slots, empty ones are not worth a rebuild.
const FEW_SLOTS: usize = 64;

#[derive(Clone, Debug)]
struct Slot {
    member: Member,
    /// 128 bits of the domain's hash, or 0 for none: compared on the hot path
    /// in place of the text.
    domain: u128,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// A slot that is in `free` still holds its last member.
    slots: Vec<Slot>,
    /// The slots in use, by node id.
    order: Vec<u32>,
    free: Vec<u32>,
    /// Members with a seat at least.
    serving: usize,
    /// Their seats.
    seats: u64,
    /// Distinct domains of these, up to [`COUNTED_DOMAINS`].
    domains: usize,
}

impl Members {
    /// These members after `changes` (`None`: leaves), and the seats that come
    /// and go with that, if they are `wanted`.
    pub(super) fn changed(
        &self,
        changes: BTreeMap<NodeId, Option<Member>>,
        wanted: bool,
    ) -> (Self, Vec<Edit>) {
        let edit_seats = |node: &NodeId, slot, from, to, edits: &mut Vec<Edit>| {
            if wanted {
                seat_edits(node, slot, from, to, edits);
            }
        };
        let mut out = self.clone();
        let mut edits = Vec::new();
        let mut left = Vec::new();
        let mut joined = Vec::new();
        for (node, member) in changes {
            match (self.find(&node).ok(), member) {
                (Some(at), Some(member)) => {
                    let slot = self.order[at];
                    edit_seats(
                        &node,
                        slot,
                        self.member(slot).seats,
                        member.seats,
                        &mut edits,
                    );
                    out.slots[slot as usize] = Slot::new(member);
                }
                (Some(at), None) => {
                    let slot = self.order[at];
                    edit_seats(&node, slot, self.member(slot).seats, 0, &mut edits);
                    left.push(slot);
                }
                (None, Some(member)) => {
                    let seats = member.seats;
                    let slot = out.take_slot(member);
                    edit_seats(&node, slot, 0, seats, &mut edits);
                    joined.push(slot);
                }
                (None, None) => {}
            }
        }
        out.reorder(&left, &joined);
        // Only now, so that no slot has two holders within one change.
        out.free.extend(left);
        out.count();
        (out, edits)
    }

    /// Every seat of every member, as if it came now.
    pub(super) fn all_seats(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for &slot in &self.order {
            let member = self.member(slot);
            seat_edits(&member.node, slot, 0, member.seats, &mut edits);
        }
        edits
    }

    fn take_slot(&mut self, member: Member) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Slot::new(member);
                slot
            }
            None => {
                self.slots.push(Slot::new(member));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Takes `left` out of the order and merges `joined` in; both are sorted by
    /// node id.
    fn reorder(&mut self, left: &[u32], joined: &[u32]) {
        let mut old = std::mem::take(&mut self.order);
        let mut gone = left.iter().peekable();
        old.retain(|slot| gone.next_if_eq(&slot).is_none());
        let mut order = Vec::with_capacity(old.len() + joined.len());
        let mut rest = old.as_slice();
        for &slot in joined {
            let node = self.member(slot).node;
            let (before, after) =
                rest.split_at(rest.partition_point(|&s| self.member(s).node < node));
            order.extend_from_slice(before);
            order.push(slot);
            rest = after;
        }
        order.extend_from_slice(rest);
        self.order = order;
    }

    fn count(&mut self) {
        let mut named: Vec<u128> = Vec::new();
        let (mut serving, mut unnamed, mut seats) = (0, 0, 0);
        for &slot in &self.order {
            let Slot { member, domain } = &self.slots[slot as usize];
            if member.seats == 0 {
                continue;
            }
            serving += 1;
            seats += u64::from(member.seats);
            match *domain {
                0 => unnamed += 1,
                _ if named.len() >= COUNTED_DOMAINS || named.contains(domain) => {}
                new => named.push(new),
            }
        }
        (self.serving, self.seats) = (serving, seats);
        self.domains = (named.len() + unnamed).min(COUNTED_DOMAINS);
    }

    /// Whether most slots stand empty.
    pub(super) fn wasteful(&self) -> bool {
        self.slots.len() > FEW_SLOTS && self.free.len() > self.slots.len() / 2
    }

    pub(super) fn slot_of(&self, node: &NodeId) -> Option<u32> {
        self.find(node).ok().map(|at| self.order[at])
    }

    fn find(&self, node: &NodeId) -> Result<usize, usize> {
        self.order
            .binary_search_by(|&slot| self.member(slot).node.cmp(node))
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.find(node).ok().map(|at| self.member(self.order[at]))
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.order.iter().map(|&slot| self.member(slot))
    }

    pub(super) fn nth(&self, number: usize) -> Option<&Member> {
        self.order.get(number).map(|&slot| self.member(slot))
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    pub(super) fn seats(&self) -> u64 {
        self.seats
    }

    /// How many of `wanted` domains there can be.
    pub(super) fn domains_for(&self, wanted: usize) -> usize {
        match self.domains {
            COUNTED_DOMAINS => wanted,
            domains => wanted.min(domains),
        }
    }

    pub(super) fn member(&self, slot: u32) -> &Member {
        &self.slots[slot as usize].member
    }

    /// The domain's tag; `None` is shared with nobody.
    pub(super) fn domain(&self, slot: u32) -> Option<u128> {
        match self.slots[slot as usize].domain {
            0 => None,
            tag => Some(tag),
        }
    }

    /// The seat's position, all 256 bits of it.
    pub(super) fn position(&self, seat: &Seat) -> Key {
        keys::seat(&self.member(seat.slot).node, u32::from(seat.index))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + (self.order.capacity() + self.free.capacity()) * size_of::<u32>()
    }
}

impl Slot {
    fn new(member: Member) -> Self {
        let mut tag = [0; 16];
        if !member.domain.is_empty() {
            let hash = Key::hash("domain", &[member.domain.as_bytes()]);
            tag.copy_from_slice(&hash.0[..16]);
        }
        Self {
            member,
            domain: u128::from_be_bytes(tag),
        }
    }
}

/// Seats come in a fixed order, so a change of their number adds or takes the
/// last ones only.
pub(super) fn seat_edits(node: &NodeId, slot: u32, from: u32, to: u32, edits: &mut Vec<Edit>) {
    edits.extend((from.min(to)..from.max(to)).map(|index| Edit {
        seat: Seat {
            prefix: keys::seat(node, index).prefix(),
            slot,
            // At most MAX_SEATS = 4096.
            index: index as u16,
        },
        add: to > from,
    }));
}
