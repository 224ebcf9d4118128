//! The inverted index: each term with the numbers of the items that have it.
//!
//! A posting is an item number with one bit more: whether the term is one of
//! the item's name. Numbers grow, so new postings are appended. Readers take
//! two reference counts under a read lock and then run without it; a writer
//! copies the short tail at most, never the sealed part.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

/// Stripes of the dictionary, by first character: a prefix lies within one.
const STRIPES: usize = 64;
/// A tail this long, and a fourth of the sealed part, is sealed.
const MIN_SEAL: usize = 256;

/// An item number, and whether the term is in the item's name.
pub(super) fn posting(doc: u32, in_name: bool) -> u32 {
    doc << 1 | u32::from(in_name)
}

/// The items of one term as a reader sees them: both parts ascend, and the
/// second continues the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Postings {
    pub(super) sealed: Arc<Vec<u32>>,
    pub(super) tail: Arc<Vec<u32>>,
}

impl Postings {
    pub(super) fn from_sorted(sealed: Vec<u32>) -> Self {
        Self {
            sealed: Arc::new(sealed),
            tail: Arc::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sealed.len() + self.tail.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.sealed.iter().chain(self.tail.iter()).copied()
    }

    fn push(&mut self, posting: u32) {
        Arc::make_mut(&mut self.tail).push(posting);
        if self.tail.len() >= MIN_SEAL.max(self.sealed.len() / 4) {
            let mut all = Vec::with_capacity(self.len());
            all.extend(self.iter());
            *self = Self::from_sorted(all);
        }
    }
}

fn as_str(bound: &Bound<Box<str>>) -> Bound<&str> {
    match bound {
        Bound::Excluded(term) => Bound::Excluded(term),
        Bound::Included(term) => Bound::Included(term),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// All terms, sorted within their stripe.
#[derive(Debug)]
pub(super) struct Dictionary(Vec<RwLock<BTreeMap<Box<str>, Postings>>>);

impl Default for Dictionary {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| RwLock::default()).collect())
    }
}

impl Dictionary {
    fn stripe(&self, term: &str) -> &RwLock<BTreeMap<Box<str>, Postings>> {
        let first = term.chars().next().map_or(0, u32::from);
        &self.0[first as usize % STRIPES]
    }

    /// Appends a posting; postings of one term must come in ascending order.
    pub(super) fn push(&self, term: &str, posting: u32) {
        let mut stripe = self.stripe(term).write();
        match stripe.get_mut(term) {
            Some(postings) => postings.push(posting),
            None => {
                stripe.insert(term.into(), Postings::from_sorted(vec![posting]));
            }
        }
    }

    /// The items of `term`.
    pub(super) fn get(&self, term: &str) -> Postings {
        self.stripe(term)
            .read()
            .get(term)
            .cloned()
            .unwrap_or_default()
    }

    /// How many items `term` has, removed ones included.
    pub(super) fn count(&self, term: &str) -> usize {
        self.stripe(term).read().get(term).map_or(0, Postings::len)
    }

    /// The items of the first `limit` terms that begin with `prefix`.
    pub(super) fn begins(&self, prefix: &str, limit: usize) -> Vec<Postings> {
        let stripe = self.stripe(prefix).read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        stripe
            .range::<str, _>(from)
            .take_while(|(term, _)| term.starts_with(prefix))
            .take(limit)
            .map(|(_, postings)| postings.clone())
            .collect()
    }

    /// Shows every term to `see`, those of one beginning one after the other;
    /// takes a lock for `at_once` terms at a time.
    pub(super) fn scan(&self, at_once: usize, mut see: impl FnMut(&str, &Postings)) {
        for stripe in &self.0 {
            let mut from = Bound::Unbounded;
            loop {
                let some: Vec<(Box<str>, Postings)> = {
                    let stripe = stripe.read();
                    let range = stripe.range::<str, _>((as_str(&from), Bound::Unbounded));
                    let some = range.take(at_once);
                    some.map(|(term, postings)| (term.clone(), postings.clone()))
                        .collect()
                };
                for (term, postings) in &some {
                    see(term, postings);
                }
                match some.into_iter().last() {
                    Some((last, _)) => from = Bound::Excluded(last),
                    None => break,
                }
            }
        }
    }

    /// Drops the postings of items that are gone.
    pub(super) fn compact(&self, alive: impl Fn(u32) -> bool) {
        for stripe in &self.0 {
            let mut stripe = stripe.write();
            stripe.retain(|_, postings| {
                if postings.iter().any(|posting| !alive(posting >> 1)) {
                    let kept = postings.iter().filter(|posting| alive(posting >> 1));
                    *postings = Postings::from_sorted(kept.collect());
                }
                postings.len() > 0
            });
        }
    }
}
