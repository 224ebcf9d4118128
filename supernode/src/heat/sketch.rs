//! The heaviest of a stream in a fixed room: Space-Saving (Metwally, Agrawal and
//! El Abbadi, 2005) within small sets, with counts that fade.
//!
//! Ids are thrown into sets by a keyed hash, so that nobody can aim at a set. A
//! set keeps a few ids with their counts; a new one takes the place of the least,
//! and its count with it, as its `error`. So the true count of an id lies between
//! `count - error` and `count`, and what is not kept counts no more than the
//! least of its set. An id with more than one part in [`WAYS`] of what its set
//! sees is always kept. A set is two or three lines of the cache, and there is no
//! order to maintain.
//!
//! Counts fade by growing weights (forward decay; Cormode et al., 2009): what
//! comes later weighs more, and a count is read over the weight of the moment.
//! That leaves the bounds as they are.

use std::hash::{BuildHasher, Hash};

use super::HALF_LIFE;

/// Sets of a sketch; a power of two.
const SETS: usize = 128;
/// Ids that a set keeps.
const WAYS: usize = 8;
/// Half-lives after which all weights are scaled back, far from the end of `f64`.
const SCALE_AFTER: f64 = 256.0;

/// What can be counted.
pub(super) trait Id: Copy + Eq + Hash + Default {}

impl<I: Copy + Eq + Hash + Default> Id for I {}

/// An id with its count, in the weights of the sketch. Nothing is kept where the
/// count is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry<I> {
    pub(super) id: I,
    pub(super) count: f64,
    pub(super) error: f64,
}

/// Counts one stream.
#[derive(Clone, Debug)]
pub(super) struct Sketch<I> {
    sets: Box<[[Entry<I>; WAYS]]>,
    total: f64,
    /// The last moment, milliseconds, and how many half-lives have passed since
    /// weights were scaled.
    at_ms: u64,
    aged: f64,
}

impl<I: Id> Sketch<I> {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            sets: vec![[Entry::default(); WAYS]; SETS].into(),
            total: 0.0,
            at_ms: now_ms,
            aged: 0.0,
        }
    }

    /// Which set an id is in.
    pub(super) fn set_of(hasher: &impl BuildHasher, id: &I) -> usize {
        hasher.hash_one(id) as usize % SETS
    }

    /// Counts `id` as `times` of it.
    pub(super) fn add(&mut self, set: usize, id: I, times: f64, now_ms: u64) {
        self.pass(now_ms);
        let weight = self.aged.exp2() * times;
        self.total += weight;
        let set = &mut self.sets[set];
        let mut least = 0;
        for way in 0..WAYS {
            let entry = &mut set[way];
            if entry.id == id && entry.count > 0.0 {
                entry.count += weight;
                return;
            }
            if entry.count < set[least].count {
                least = way;
            }
        }
        let error = set[least].count;
        set[least] = Entry {
            id,
            count: error + weight,
            error,
        };
    }

    /// Time passes. Where the clock was set back, none does.
    fn pass(&mut self, now_ms: u64) {
        if now_ms == self.at_ms {
            return;
        }
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms;
        self.aged += passed as f64 / HALF_LIFE.as_millis() as f64;
        if self.aged > SCALE_AFTER {
            self.scale((-self.aged).exp2());
            self.aged = 0.0;
        }
    }

    fn scale(&mut self, by: f64) {
        self.total *= by;
        for entry in self.sets.iter_mut().flatten() {
            entry.count *= by;
            entry.error *= by;
        }
    }

    /// This sketch as of `now_ms`, every count as it is read.
    pub(super) fn read(&self, now_ms: u64) -> Self {
        let mut read = self.clone();
        read.pass(now_ms);
        read.scale((-read.aged).exp2());
        read.aged = 0.0;
        read
    }

    pub(super) fn total(&self) -> f64 {
        self.total
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<I>> {
        self.sets.iter().flatten().filter(|entry| entry.count > 0.0)
    }

    pub(super) fn find(&self, set: usize, id: &I) -> Option<&Entry<I>> {
        let mut set = self.sets[set].iter();
        set.find(|entry| entry.count > 0.0 && entry.id == *id)
    }

    /// What an id of this set that is not kept counts at most.
    pub(super) fn unkept(&self, set: usize) -> f64 {
        let counts = self.sets[set].iter().map(|entry| entry.count);
        counts.fold(f64::INFINITY, f64::min)
    }

    /// The same of any set.
    pub(super) fn unkept_anywhere(&self) -> f64 {
        (0..SETS).map(|set| self.unkept(set)).fold(0.0, f64::max)
    }
}
