//! All seats of all super-nodes, in an order that makes "the closest to this
//! key" a matter of nanoseconds and a changed copy cheap.
//!
//! Seats lie in a power-of-two number of buckets, by their top bits; within a
//! bucket they are sorted. XOR distance makes that a trie: bucket `b ^ 1` is
//! the closest to bucket `b`, then come `b ^ 2`, `b ^ 3` and so on, and within a
//! sorted slice the half that agrees with the key in the first differing bit
//! comes before the other. A changed copy shares every bucket that did not
//! change.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::keyspace::Key;

/// Seats a bucket has on average after a resize, one KiB of them; twice as many
/// at most.
const AIM: usize = 64;
/// Above this average the number of buckets grows.
const CROWDED: usize = 2 * AIM;
/// Below this average it shrinks; far enough from [`AIM`] that a join and a
/// leave cannot alternate between two sizes.
const SPARSE: usize = AIM / 4;

/// A seat: who sits where. The order is that of positions, as far as 64 bits
/// tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    /// First 64 bits of the position.
    pub(super) prefix: u64,
    /// The holder.
    pub(super) slot: u32,
    /// Which of the holder's seats.
    pub(super) index: u16,
}

/// A seat that comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edit {
    pub(super) seat: Seat,
    pub(super) add: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Seats {
    /// 2^bits of them.
    buckets: Vec<Arc<[Seat]>>,
    bits: u32,
    total: usize,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            buckets: vec![Arc::default()],
            bits: 0,
            total: 0,
        }
    }
}

impl Seats {
    /// A copy with `edits` made. A removal of a seat that is not there does
    /// nothing.
    pub(super) fn edited(&self, mut edits: Vec<Edit>) -> Self {
        edits.sort_unstable();
        let added = edits.iter().filter(|edit| edit.add).count();
        let total = (self.total + added).saturating_sub(edits.len() - added);
        let mut out = self.resized(total);
        let bits = out.bits;
        let mut scratch = Vec::new();
        for edits in edits.chunk_by(|a, b| top(bits, a.seat.prefix) == top(bits, b.seat.prefix)) {
            let bucket = top(bits, edits[0].seat.prefix);
            let before = out.buckets[bucket].len();
            scratch.clear();
            merge(&out.buckets[bucket], edits, &mut scratch);
            out.buckets[bucket] = Arc::from(scratch.as_slice());
            out.total = out.total - before + scratch.len();
        }
        out
    }

    /// A copy with as many buckets as suit `total` seats.
    fn resized(&self, total: usize) -> Self {
        let mean = total >> self.bits;
        let fits = mean <= CROWDED && (mean >= SPARSE || self.bits == 0);
        if fits {
            return self.clone();
        }
        let bits = (total / AIM).max(1).ilog2();
        let mut out = Self {
            buckets: vec![Arc::default(); 1 << bits],
            bits,
            total: self.total,
        };
        let all: Vec<Seat> = self
            .buckets
            .iter()
            .flat_map(|b| b.iter().copied())
            .collect();
        for seats in all.chunk_by(|a, b| top(bits, a.prefix) == top(bits, b.prefix)) {
            out.buckets[top(bits, seats[0].prefix)] = Arc::from(seats);
        }
        out
    }

    /// Shows all seats to `see`, closest to `key` first, until it breaks. `position`
    /// is all of a seat's, where its first bits do not tell.
    pub(super) fn visit<S>(
        &self,
        key: &Key,
        position: &dyn Fn(&Seat) -> Key,
        see: &mut S,
    ) -> ControlFlow<()>
    where
        S: FnMut(&Seat) -> ControlFlow<()>,
    {
        let prefix = key.prefix();
        let nearest = top(self.bits, prefix);
        for step in 0..self.buckets.len() {
            descend(&self.buckets[nearest ^ step], prefix, see, &|ties| {
                by_full_distance(ties, key, position)
            })?;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        self.buckets.capacity() * (size_of::<Arc<[Seat]>>() + COUNTS)
            + self.total * size_of::<Seat>()
    }
}

/// The bucket of a position, of 2^`bits` buckets.
fn top(bits: u32, prefix: u64) -> usize {
    prefix.checked_shr(u64::BITS - bits).unwrap_or(0) as usize
}

/// Writes `old` with `edits` made to `out`; all are in order.
fn merge(old: &[Seat], edits: &[Edit], out: &mut Vec<Seat>) {
    let mut rest = old;
    for Edit { seat, add } in edits {
        let (before, after) = rest.split_at(rest.partition_point(|s| s < seat));
        out.extend_from_slice(before);
        rest = match (add, after.first() == Some(seat)) {
            (false, true) => &after[1..],
            _ => after,
        };
        if *add {
            out.push(*seat);
        }
    }
    out.extend_from_slice(rest);
}

/// Shows a sorted slice in XOR order. The recursion takes a bit a level, so it
/// is 64 deep at most.
fn descend<S, T>(seats: &[Seat], prefix: u64, see: &mut S, order: &T) -> ControlFlow<()>
where
    S: FnMut(&Seat) -> ControlFlow<()>,
    T: Fn(&[Seat]) -> Vec<Seat>,
{
    let (Some(first), Some(last)) = (seats.first(), seats.last()) else {
        return ControlFlow::Continue(());
    };
    if seats.len() == 1 {
        return see(first);
    }
    let differing = first.prefix ^ last.prefix;
    if differing == 0 {
        return order(seats).iter().try_for_each(see);
    }
    let bit = 1 << differing.ilog2();
    let (zeros, ones) = seats.split_at(seats.partition_point(|seat| seat.prefix & bit == 0));
    let (near, far) = match prefix & bit {
        0 => (zeros, ones),
        _ => (ones, zeros),
    };
    descend(near, prefix, see, order)?;
    descend(far, prefix, see, order)
}

/// Seats that 64 bits cannot tell apart, by all 256 bits. Rare enough (a pair in
/// one of five million networks of 10 000 super-nodes) to afford the allocation.
fn by_full_distance(ties: &[Seat], key: &Key, position: &dyn Fn(&Seat) -> Key) -> Vec<Seat> {
    let mut out = ties.to_vec();
    out.sort_by_cached_key(|seat| position(seat).distance(key));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::NodeId;
    use crate::placement::Member;
    use crate::placement::members::Members;

    fn seat(prefix: u64, index: u16) -> Seat {
        Seat {
            prefix,
            slot: 0,
            index,
        }
    }

    fn shown(seats: &[Seat], prefix: u64) -> Vec<u16> {
        let mut out = Vec::new();
        let reversed = |ties: &[Seat]| ties.iter().rev().copied().collect();
        let mut see = |seat: &Seat| {
            out.push(seat.index);
            ControlFlow::Continue(())
        };
        assert!(descend(seats, prefix, &mut see, &reversed).is_continue());
        out
    }

    #[test]
    fn a_slice_is_shown_in_xor_order_and_ties_by_the_tie_order() {
        let seats = [
            seat(1, 0),
            seat(4, 1),
            seat(4, 2),
            seat(6, 3),
            seat(1 << 63, 4),
        ];
        assert_eq!(shown(&seats, 0), [0, 2, 1, 3, 4]);
        assert_eq!(shown(&seats, 6), [3, 2, 1, 0, 4]);
        assert_eq!(shown(&seats, u64::MAX), [4, 3, 2, 1, 0]);
        assert!(shown(&[], 7).is_empty());
    }

    #[test]
    fn ties_are_ordered_by_all_bits() {
        let nodes = [NodeId([1; 32]), NodeId([2; 32])];
        let member = |node| Member {
            node,
            seats: 4,
            domain: Arc::from(""),
        };
        let changes = nodes.map(|node| (node, Some(member(node)))).into();
        let (members, edits) = Members::default().changed(changes, true);
        let mut ties: Vec<Seat> = edits.iter().map(|edit| edit.seat).collect();
        ties.iter_mut().for_each(|seat| seat.prefix = 7);
        for key in [Key([0; 32]), Key([0x5a; 32])] {
            let order = by_full_distance(&ties, &key, &|seat| members.position(seat));
            let distance = |seat: &Seat| members.position(seat).distance(&key);
            assert_eq!(order.len(), 8);
            assert!(order.is_sorted_by_key(distance));
        }
    }

    #[test]
    fn the_number_of_buckets_follows_the_number_of_seats() {
        let edits = |add| {
            (0..10_000)
                .map(|i| Edit {
                    seat: seat(u64::from(i) << 50 | 1, i),
                    add,
                })
                .collect::<Vec<_>>()
        };
        let full = Seats::default().edited(edits(true));
        assert_eq!((full.total, full.bits), (10_000, 7));
        let one_less = full.edited(edits(false).split_off(9_999));
        assert_eq!((one_less.total, one_less.bits), (9_999, 7));
        let empty = full.edited(edits(false));
        assert_eq!((empty.total, empty.bits), (0, 0));
        assert!(empty.buckets[0].is_empty());
    }

    #[test]
    fn a_copy_shares_the_buckets_that_did_not_change() {
        let edits = (0..1000).map(|i| Edit {
            seat: seat(u64::from(i) << 54, i),
            add: true,
        });
        let before = Seats::default().edited(edits.collect());
        let after = before.edited(vec![Edit {
            seat: seat(0, 1001),
            add: true,
        }]);
        let same = |(a, b): &(&Arc<[Seat]>, &Arc<[Seat]>)| Arc::ptr_eq(a, b);
        let shared = before.buckets.iter().zip(&after.buckets).filter(same);
        assert_eq!(shared.count(), before.buckets.len() - 1);
    }
}
