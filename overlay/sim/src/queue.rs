//! What will happen, in order of time: a timing wheel of short slots for the
//! near future, whole epochs of it for the far one.
//!
//! Two entries of one moment come out in the order they went in, so that a run
//! is the same run everywhere.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// Microseconds of a slot, as a power of two: 256 us.
const SLOT_BITS: u32 = 8;
/// Slots of an epoch, as a power of two: 65 536 of them are 16.8 s.
const EPOCH_BITS: u32 = 16;
const SLOTS: usize = 1 << EPOCH_BITS;

struct Entry<T> {
    at: u64,
    sequence: u64,
    item: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.sequence)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: a heap gives the greatest first, and we want the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// A queue of things to come; times are microseconds.
pub struct Queue<T> {
    /// The slot being emptied.
    present: BinaryHeap<Entry<T>>,
    /// The rest of this epoch, by slot.
    slots: Vec<Vec<Entry<T>>>,
    /// A bit for each slot that is not empty.
    filled: Vec<u64>,
    /// Later epochs.
    far: BTreeMap<u64, Vec<Entry<T>>>,
    /// The present slot, counted from time 0.
    slot: u64,
    sequence: u64,
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            present: BinaryHeap::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            filled: vec![0; SLOTS / 64],
            far: BTreeMap::new(),
            slot: 0,
            sequence: 0,
            len: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds something that happens at `at`, or at once if that is past.
    pub fn push(&mut self, at: u64, item: T) {
        self.sequence += 1;
        self.len += 1;
        let entry = Entry {
            at,
            sequence: self.sequence,
            item,
        };
        self.place(entry);
    }

    fn place(&mut self, entry: Entry<T>) {
        let slot = entry.at >> SLOT_BITS;
        if slot <= self.slot {
            self.present.push(entry);
        } else if slot >> EPOCH_BITS == self.slot >> EPOCH_BITS {
            let index = slot as usize & (SLOTS - 1);
            self.filled[index / 64] |= 1 << (index % 64);
            self.slots[index].push(entry);
        } else {
            let epoch = slot >> EPOCH_BITS;
            self.far.entry(epoch).or_default().push(entry);
        }
    }

    /// When the next entry is due.
    pub fn next_at(&mut self) -> Option<u64> {
        self.advance();
        self.present.peek().map(|entry| entry.at)
    }

    /// Takes the next entry, if it is due at `until` or before.
    pub fn pop_until(&mut self, until: u64) -> Option<(u64, T)> {
        self.advance();
        if self.present.peek()?.at > until {
            return None;
        }
        let entry = self.present.pop()?;
        self.len -= 1;
        Some((entry.at, entry.item))
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the next slot that holds anything the present one.
    fn advance(&mut self) {
        while self.present.is_empty() {
            if let Some(index) = self.next_filled() {
                self.filled[index / 64] &= !(1 << (index % 64));
                self.slot = (self.slot >> EPOCH_BITS << EPOCH_BITS) | index as u64;
                self.present = std::mem::take(&mut self.slots[index]).into();
            } else if let Some((epoch, entries)) = self.far.pop_first() {
                self.slot = epoch << EPOCH_BITS;
                for entry in entries {
                    self.place(entry);
                }
            } else {
                return;
            }
        }
    }

    fn next_filled(&self) -> Option<usize> {
        let from = self.slot as usize & (SLOTS - 1);
        let mut word = from / 64;
        let mut bits = self.filled[word] & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            bits = *self.filled.get(word)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn entries_come_out_in_order_of_time_and_then_of_arrival() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut queue = Queue::default();
        let mut sorted: Vec<(u64, u64)> = Vec::new();
        let mut now = 0;
        let mut count = 0;
        for _ in 0..200 {
            for _ in 0..50 {
                let far = [10, 1_000, 1_000_000, 100_000_000][rng.random_range(0..4)];
                let at = now + rng.random_range(0..far);
                queue.push(at, count);
                sorted.push((at, count));
                count += 1;
            }
            sorted.sort_unstable();
            for _ in 0..40 {
                let (at, item) = queue.pop_until(u64::MAX).expect("more was put in");
                assert_eq!((at, item), sorted.remove(0));
                now = at;
            }
        }
        assert_eq!(queue.len(), sorted.len());
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop_until(u64::MAX)).collect();
        assert_eq!(rest, sorted);
        assert!(queue.is_empty());
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut queue = Queue::default();
        queue.push(5_000_000_000, 'a');
        assert_eq!(queue.next_at(), Some(5_000_000_000));
        assert_eq!(queue.pop_until(4_999_999_999), None);
        // Looking ahead must not make what comes earlier come too late.
        queue.push(1_000, 'b');
        assert_eq!(queue.pop_until(u64::MAX), Some((1_000, 'b')));
        assert_eq!(queue.pop_until(u64::MAX), Some((5_000_000_000, 'a')));
    }
}
