//! One layout of seats for all peers of a process, where [`crate::memory`] is on.
//!
//! A seat follows from its holder alone, so that one table can serve everybody:
//! each peer only keeps which of the holders are members of its placement. Without
//! it, thousands of super-nodes whose rosters differ for a moment would each lay
//! out millions of seats of their own.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use super::members::{Members, seat_edits};
use super::seats::{Seat, Seats};
use crate::keyspace::{Key, NodeId, keys};

/// The place of a holder that is no member.
const NOBODY: u32 = u32::MAX;

/// Every seat that anybody has asked for.
#[derive(Debug, Default)]
pub(crate) struct Table {
    places: HashMap<NodeId, u32>,
    /// Holders by place, and how many of their seats are in the table.
    holders: Vec<(NodeId, u32)>,
    seats: Seats,
}

impl Table {
    /// The place of `node`, which has so many seats at least.
    fn place(&mut self, node: &NodeId, seats: u32) -> u32 {
        let next = self.holders.len() as u32;
        let place = *self.places.entry(*node).or_insert(next);
        if place == next {
            self.holders.push((*node, 0));
        }
        let (_, laid) = &mut self.holders[place as usize];
        if *laid < seats {
            let mut edits = Vec::new();
            seat_edits(node, place, *laid, seats, &mut edits);
            *laid = seats;
            self.seats = self.seats.edited(edits);
        }
        place
    }
}

/// The table as one placement sees it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    table: Arc<RwLock<Table>>,
    /// Slots of the members, by their places in the table.
    slots: Vec<u32>,
}

impl Shared {
    pub(super) fn new(table: Arc<RwLock<Table>>, members: &Members) -> Self {
        let slots = Vec::new();
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        Self { table, slots }.edited(&nodes, members)
    }

    /// The same of `members`, who differ in `nodes` from those before.
    pub(super) fn edited(&self, nodes: &[NodeId], members: &Members) -> Self {
        let mut slots = self.slots.clone();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for node in nodes {
            let slot = members.slot_of(node);
            let seats = slot.map_or(0, |slot| members.member(slot).seats);
            let place = table.place(node, seats) as usize;
            if slots.len() <= place {
                slots.resize(place + 1, NOBODY);
            }
            slots[place] = slot.unwrap_or(NOBODY);
        }
        drop(table);
        let table = self.table.clone();
        Self { table, slots }
    }

    /// As [`Seats::visit`], of the members' seats.
    pub(super) fn visit<S>(&self, key: &Key, members: &Members, see: &mut S) -> ControlFlow<()>
    where
        S: FnMut(&Seat) -> ControlFlow<()>,
    {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let position = |seat: &Seat| {
            let (node, _) = &table.holders[seat.slot as usize];
            keys::seat(node, u32::from(seat.index))
        };
        table.seats.visit(key, &position, &mut |seat| {
            let slot = self.slots.get(seat.slot as usize).copied();
            let Some(slot) = slot.filter(|slot| *slot != NOBODY) else {
                return ControlFlow::Continue(());
            };
            match u32::from(seat.index) < members.member(slot).seats {
                true => see(&Seat { slot, ..*seat }),
                false => ControlFlow::Continue(()),
            }
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }
}

/// The seats of a placement, laid out.
#[derive(Clone, Debug)]
pub(super) enum Laid {
    /// For this one alone.
    Own(Seats),
    /// In the table of the process.
    Shared(Shared),
}

impl Laid {
    /// Shows all seats to `see`, closest to `key` first, until it breaks.
    pub(super) fn visit<S>(&self, key: &Key, members: &Members, see: &mut S) -> ControlFlow<()>
    where
        S: FnMut(&Seat) -> ControlFlow<()>,
    {
        match self {
            Self::Own(seats) => seats.visit(key, &|seat| members.position(seat), see),
            Self::Shared(shared) => shared.visit(key, members, see),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Own(seats) => seats.memory_bytes(),
            Self::Shared(shared) => shared.memory_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use crate::placement::{Member, Placement};

    fn member(i: u8, seats: u32) -> Member {
        Member {
            node: NodeId([i; 32]),
            seats,
            domain: "".into(),
        }
    }

    #[test]
    fn a_placement_in_the_table_answers_like_one_of_its_own() {
        // Members that come, go, and change their number of seats.
        let course = || {
            let all = (1..20).map(|i| member(i, 16 * u32::from(i)));
            let first: Placement = all.collect();
            let _ = first.closest(&Key([3; 32]), 1);
            let fewer = first.without(&NodeId([7; 32])).with(member(9, 20));
            let _ = fewer.closest(&Key([3; 32]), 1);
            let more = fewer.with(member(40, 300)).with(member(9, 200));
            [first, fewer, more]
        };
        let alone = course();
        memory::remember_work(1000);
        let shared = course();
        for (one, other) in alone.iter().zip(&shared) {
            for i in 0..100u8 {
                let key = Key::hash("test", &[&[i]]);
                assert_eq!(one.closest(&key, 5), other.closest(&key, 5));
                assert_eq!(one.owners(&key, 3), other.owners(&key, 3));
            }
        }
        assert!(matches!(shared[2].laid(), Some(Laid::Shared(_))));
        memory::remember_work(0);
    }
}
