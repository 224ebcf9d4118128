//! A sketch for each thread, so that threads that count the same never meet; all
//! are read as one.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::sketch::{Id, Sketch};

/// Most sketches of one stream; more threads share them.
const MOST: usize = 16;

/// Gives each thread a number of its own.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Relaxed);
    }
    OWN.with(|own| *own)
}

/// One of the heaviest. Counts are faded: see [`HALF_LIFE`](super::HALF_LIFE).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heavy<I> {
    /// What it is.
    pub id: I,
    /// What it was surely counted for: the true count is no less...
    pub count: f64,
    /// ...and no more than this.
    pub at_most: f64,
}

/// The heaviest of a stream, and what is known of the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Top<I> {
    /// The heaviest first.
    pub heavy: Vec<Heavy<I>>,
    /// All of the stream together.
    pub total: f64,
    /// What is not listed counts no more than this.
    pub unlisted: f64,
}

impl<I> Default for Top<I> {
    fn default() -> Self {
        Self {
            heavy: Vec::new(),
            total: 0.0,
            unlisted: 0.0,
        }
    }
}

/// One stream, counted by many threads.
#[derive(Debug)]
pub(super) struct Stripes<I> {
    hasher: RandomState,
    /// Made when they are first needed.
    stripes: Box<[Mutex<Option<Sketch<I>>>]>,
}

impl<I> Default for Stripes<I> {
    fn default() -> Self {
        let stripes = crate::load::processors().next_power_of_two().min(MOST);
        Self {
            hasher: RandomState::new(),
            stripes: (0..stripes).map(|_| Mutex::new(None)).collect(),
        }
    }
}

impl<I: Id> Stripes<I> {
    pub(super) fn one(&self, id: I, now_ms: u64) {
        self.add(id, 1.0, now_ms);
    }

    pub(super) fn add(&self, id: I, times: f64, now_ms: u64) {
        let set = Sketch::set_of(&self.hasher, &id);
        // As many as there are processors: nobody else holds it but a reader.
        let mut stripe = self.stripes[thread() % self.stripes.len()].lock();
        let sketch = stripe.get_or_insert_with(|| Sketch::new(now_ms));
        sketch.add(set, id, times, now_ms);
    }

    /// The heaviest, at most `limit`.
    pub(super) fn top(&self, now_ms: u64, limit: usize) -> Top<I> {
        let sketches: Vec<Sketch<I>> = self
            .stripes
            .iter()
            .filter_map(|stripe| Some(stripe.lock().as_ref()?.read(now_ms)))
            .collect();
        let entries = sketches.iter().flat_map(Sketch::entries);
        let mut sure: HashMap<I, f64> = HashMap::new();
        for entry in entries {
            *sure.entry(entry.id).or_default() += entry.count - entry.error;
        }
        let mut heavy: Vec<Heavy<I>> = sure
            .into_iter()
            .map(|(id, count)| {
                let set = Sketch::set_of(&self.hasher, &id);
                let most = |sketch: &Sketch<I>| match sketch.find(set, &id) {
                    Some(entry) => entry.count,
                    None => sketch.unkept(set),
                };
                let at_most = sketches.iter().map(most).sum();
                Heavy { id, count, at_most }
            })
            .collect();
        heavy.sort_by(|a, b| b.count.total_cmp(&a.count));
        let cut = heavy.iter().skip(limit).map(|heavy| heavy.at_most);
        let unkept = sketches.iter().map(Sketch::unkept_anywhere).sum();
        let unlisted = cut.fold(unkept, f64::max);
        heavy.truncate(limit);
        Top {
            heavy,
            total: sketches.iter().map(Sketch::total).sum(),
            unlisted,
        }
    }
}
