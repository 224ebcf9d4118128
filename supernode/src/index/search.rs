//! Answers a query from the inverted index.
//!
//! All terms and prefixes must match. Rank: the sum over the terms of
//! `ln(1 + items / items with the term)`, times 2 for a term of the item's
//! name; half as much again if the query is exactly the name. Equal scores are
//! ordered by freshness, then id.

use std::collections::BinaryHeap;

use bytes::Bytes;
use canopy_core::record::MAX_TERM;
use canopy_proto::wire;

use super::cursor::{Cursor, Place};
use super::dictionary::Postings;
use super::docs::{Items, View, name_hash};
use super::filter::{Filter, MAX_FILTERS};

/// Most terms and prefixes of a query.
pub const MAX_QUERY_TERMS: usize = 16;
/// Most hits on a page, and as many as a query without a limit gets.
pub const MAX_PAGE: usize = 100;
/// Most terms that one prefix stands for.
const MAX_EXPANSION: usize = 1024;
/// Most postings gathered for one prefix.
const MAX_GATHERED: usize = 1_000_000;
/// A list this many times as long as another is leapt through, not stepped.
const MERGE_RATIO: usize = 8;
const NAME_BOOST: f32 = 2.0;
const EXACT_BOOST: f32 = 1.5;

/// One page of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Best first.
    pub hits: Vec<wire::Hit>,
    /// Where the next page begins; empty if there is none.
    pub next: Bytes,
    /// Items that match in all; items removed lately may still be counted.
    pub total: u64,
}

/// Why a query was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// Nothing to look for.
    #[error("the query has no searchable word")]
    Empty,
    /// Too many words.
    #[error("the query has {0} words, at most {MAX_QUERY_TERMS} are allowed")]
    TooMany(usize),
    /// A term is empty or too long.
    #[error("a word of the query is empty or over {MAX_TERM} bytes")]
    Term,
    /// Too many filters, or one that makes no sense.
    #[error(
        "at most {MAX_FILTERS} filters are allowed, each with an operator and at most 1024 bytes"
    )]
    Filter,
    /// The cursor belongs to no page of this query.
    #[error("the cursor belongs to another query; start from the first page")]
    Cursor,
}

/// The best matches, and what a cursor behind any of them is made of.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) places: Vec<Place>,
    pub(super) weights: Vec<f32>,
    /// There are further ones.
    pub(super) more: bool,
    pub(super) total: u64,
}

impl Matches {
    /// Where a page that ends with the match `last` is continued.
    pub(super) fn after(self, last: Place) -> Bytes {
        let weights = self.weights;
        Cursor { weights, last }.encode()
    }
}

pub(super) fn run(
    items: &Items,
    query: &wire::Search,
    now_ms: u64,
) -> Result<Matches, SearchError> {
    let filters = check(query)?;
    let words = query.terms.len() + query.prefixes.len();
    let cursor = match query.after.is_empty() {
        true => None,
        false => Some(Cursor::decode(&query.after, words).ok_or(SearchError::Cursor)?),
    };
    let mut lists: Vec<Postings> = Vec::with_capacity(words);
    lists.extend(query.terms.iter().map(|term| items.dictionary.get(term)));
    lists.extend(query.prefixes.iter().map(|prefix| gather(items, prefix)));
    if lists.iter().any(|list| list.len() == 0) {
        return Ok(Matches::default());
    }
    let weights = match &cursor {
        Some(cursor) => cursor.weights.clone(),
        None => lists
            .iter()
            .map(|list| (1.0 + items.live() as f32 / list.len() as f32).ln())
            .collect(),
    };
    let limit = match query.limit as usize {
        0 => MAX_PAGE,
        limit => limit.min(MAX_PAGE),
    };
    let mut top = Top {
        view: items.view(),
        filters,
        exact: query.prefixes.is_empty().then(|| name_hash(&query.terms)),
        after: cursor.map(|cursor| cursor.last),
        now_ms,
        limit,
        best: BinaryHeap::with_capacity(limit + 1),
        total: 0,
        more: false,
    };
    intersect(&lists, |doc, in_name| {
        let score = weights
            .iter()
            .enumerate()
            .map(|(i, weight)| match in_name & 1 << i {
                0 => *weight,
                _ => weight * NAME_BOOST,
            });
        // Summed in the order of the query, so that every replica rounds alike.
        top.offer(doc, score.sum(), in_name.count_ones() as usize == words);
    });
    Ok(top.finish(weights))
}

fn check(query: &wire::Search) -> Result<Vec<Filter<'_>>, SearchError> {
    let words = query.terms.len() + query.prefixes.len();
    if words == 0 {
        return Err(SearchError::Empty);
    }
    if words > MAX_QUERY_TERMS {
        return Err(SearchError::TooMany(words));
    }
    let mut all = query.terms.iter().chain(&query.prefixes);
    if all.any(|word| word.is_empty() || word.len() > MAX_TERM) {
        return Err(SearchError::Term);
    }
    if query.filters.len() > MAX_FILTERS {
        return Err(SearchError::Filter);
    }
    let filters = query.filters.iter().map(Filter::new);
    filters.collect::<Option<_>>().ok_or(SearchError::Filter)
}

/// The items of all terms that begin with `prefix`, as one list.
fn gather(items: &Items, prefix: &str) -> Postings {
    let mut lists = items.dictionary.begins(prefix, MAX_EXPANSION);
    if lists.len() == 1
        && let Some(list) = lists.pop()
    {
        return list;
    }
    let mut all: Vec<u32> = lists
        .iter()
        .flat_map(Postings::iter)
        .take(MAX_GATHERED)
        .collect();
    // Of one item's postings the one in its name comes first, and stays.
    all.sort_unstable_by_key(|posting| posting ^ 1);
    all.dedup_by_key(|posting| *posting >> 1);
    Postings::from_sorted(all)
}

/// Calls `found(doc, bits)` for every item in all lists, in ascending order;
/// bit `i` tells whether list `i`'s term is in the item's name.
fn intersect(lists: &[Postings], mut found: impl FnMut(u32, u32)) {
    let mut order: Vec<usize> = (0..lists.len()).collect();
    order.sort_by_key(|&i| lists[i].len());
    match order.as_slice() {
        [] => {}
        &[one] => lists[one]
            .iter()
            .for_each(|posting| found(posting >> 1, (posting & 1) << one)),
        &[first, second, ref others @ ..] => {
            let mut others: Vec<(usize, Walk<'_>)> =
                others.iter().map(|&i| (i, Walk::new(&lists[i]))).collect();
            pair(&lists[first], &lists[second], |a, b| {
                let doc = a >> 1;
                let mut in_name = (a & 1) << first | (b & 1) << second;
                for (i, walk) in &mut others {
                    match walk.seek(doc) {
                        Some(at) if at >> 1 == doc => in_name |= (at & 1) << *i,
                        _ => return,
                    }
                }
                found(doc, in_name);
            });
        }
    }
}

/// Calls `found` with both postings of every item in both lists, ascending.
fn pair(a: &Postings, b: &Postings, mut found: impl FnMut(u32, u32)) {
    for a in [&a.sealed, &a.tail] {
        for b in [&b.sealed, &b.tail] {
            let (Some(first), Some(last)) = (a.first(), a.last()) else {
                continue;
            };
            // Only where the two overlap.
            let b = skip(b, first & !1);
            let b = &b[..b.partition_point(|posting| *posting <= last | 1)];
            match b.len() / MERGE_RATIO > a.len() {
                true => leap(a, b, &mut found),
                false => merge(a, b, &mut found),
            }
        }
    }
}

/// For lists of like length: step through both, without a branch to mispredict.
fn merge(a: &[u32], b: &[u32], found: &mut impl FnMut(u32, u32)) {
    let (mut i, mut j) = (0, 0);
    while let (Some(&x), Some(&y)) = (a.get(i), b.get(j)) {
        if x >> 1 == y >> 1 {
            found(x, y);
        }
        i += usize::from(x >> 1 <= y >> 1);
        j += usize::from(y >> 1 <= x >> 1);
    }
}

/// For a short list and a long one: look each of the short one up.
fn leap(a: &[u32], mut b: &[u32], found: &mut impl FnMut(u32, u32)) {
    for &x in a {
        b = skip(b, x & !1);
        match b.first() {
            Some(&y) if y >> 1 == x >> 1 => found(x, y),
            Some(_) => {}
            None => return,
        }
    }
}

/// A forward walk over a posting list, in growing strides.
struct Walk<'a> {
    now: &'a [u32],
    then: &'a [u32],
}

impl<'a> Walk<'a> {
    fn new(list: &'a Postings) -> Self {
        Self {
            now: &list.sealed,
            then: &list.tail,
        }
    }

    /// The first posting of item `doc` or a later one.
    fn seek(&mut self, doc: u32) -> Option<u32> {
        loop {
            self.now = skip(self.now, doc << 1);
            match self.now.first() {
                Some(posting) => return Some(*posting),
                None if self.then.is_empty() => return None,
                None => self.now = std::mem::take(&mut self.then),
            }
        }
    }
}

/// `list` without what is below `bound`.
fn skip(list: &[u32], bound: u32) -> &[u32] {
    let mut stride = 1;
    while stride < list.len() && list[stride] < bound {
        stride *= 2;
    }
    let from = stride / 2;
    let to = list.len().min(stride + 1);
    let within = list[from..to].partition_point(|&posting| posting < bound);
    &list[from + within..]
}

/// The best hits so far; the worst of them on top of the heap.
struct Top<'a> {
    view: View,
    filters: Vec<Filter<'a>>,
    exact: Option<u64>,
    after: Option<Place>,
    now_ms: u64,
    limit: usize,
    best: BinaryHeap<Worst>,
    total: u64,
    more: bool,
}

struct Worst(Place);

impl Top<'_> {
    fn offer(&mut self, number: u32, mut score: f32, all_in_name: bool) {
        let worst = self.best.peek().map(|worst| worst.0.score);
        if self.best.len() == self.limit
            && self.filters.is_empty()
            && !all_in_name
            && worst.is_some_and(|worst| score < worst)
        {
            // Not worth a look; counted alive.
            self.total += 1;
            self.more = true;
            return;
        }
        let Some(doc) = self
            .view
            .get(number)
            .filter(|doc| doc.is_alive(self.now_ms))
        else {
            return;
        };
        if !self.filters.iter().all(|filter| filter.passes(&doc.fields)) {
            return;
        }
        self.total += 1;
        if all_in_name && self.exact == Some(doc.name) {
            score *= EXACT_BOOST;
        }
        let place = Place {
            score,
            issued_ms: doc.issued_ms(),
            id: doc.id,
        };
        if self.after.is_some_and(|after| !after.is_before(&place)) {
            return;
        }
        if self.best.len() < self.limit {
            self.best.push(Worst(place));
            return;
        }
        self.more = true;
        if let Some(mut worst) = self.best.peek_mut()
            && place.is_before(&worst.0)
        {
            worst.0 = place;
        }
    }

    fn finish(self, weights: Vec<f32>) -> Matches {
        let places = self.best.into_sorted_vec();
        Matches {
            places: places.into_iter().map(|Worst(place)| place).collect(),
            weights,
            more: self.more,
            total: self.total,
        }
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.0.is_before(&other.0), other.0.is_before(&self.0)) {
            (true, _) => std::cmp::Ordering::Less,
            (_, true) => std::cmp::Ordering::Greater,
            _ => std::cmp::Ordering::Equal,
        }
    }
}
