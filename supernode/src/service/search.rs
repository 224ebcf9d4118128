//! Sends a search to the owners of its rarest term, as far as that is known,
//! where it is answered in one hop.
//!
//! Hits are passed on as the owner gave them: who searches checks the
//! signatures of what it uses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use canopy_core::keyspace::{Key, keys};
use canopy_core::placement::R;
use canopy_core::record::{MAX_TERM, prefix_of};
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::{request, response};
use parking_lot::Mutex;

use super::gather::{Verdict, gather};
use super::stats::add;
use super::{Answer, Inner, refuse};
use crate::heat::Word;
use crate::index::{MAX_PAGE, MAX_QUERY_TERMS, SearchError};

/// Terms whose totals are remembered; past it all are forgotten.
const MAX_TOTALS: usize = 10_000;

/// How many items each term had when it was last searched for alone.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<HashMap<String, u64>>);

impl Totals {
    fn get(&self, term: &str) -> Option<u64> {
        self.0.lock().get(term).copied()
    }

    fn learn(&self, search: &wire::Search, total: u64) {
        if let ([term], [], [], true) = (
            search.terms.as_slice(),
            search.prefixes.as_slice(),
            search.filters.as_slice(),
            search.after.is_empty(),
        ) {
            let mut totals = self.0.lock();
            if totals.len() >= MAX_TOTALS {
                totals.clear();
            }
            totals.insert(term.clone(), total);
        }
    }
}

impl<C: Calls> Inner<C> {
    /// Answers from this node's own items, where it owns the rarest term and
    /// lacks nothing.
    pub(super) fn search_own(&self, search: &wire::Search) -> Option<Answer> {
        let under = match self.searched(search) {
            Ok(under) => under,
            Err(refusal) => return Some(Err(refusal)),
        };
        let owned = self.calls.placement().owns(&self.me(), &under.key());
        if !owned || self.places.settling() || self.places.merging() {
            return None;
        }
        add(&self.counters.searches, 1);
        Some(self.search_here(search, under))
    }

    pub(super) async fn search(inner: &Arc<Self>, search: wire::Search) -> Answer {
        let key = inner.searched(&search)?.key();
        let placement = inner.calls.placement();
        let mut owners = placement.owners(&key, R);
        if owners.is_empty() {
            return Err(refuse::unavailable(
                "no super-node serves yet; try again later",
            ));
        }
        inner.rank(&placement, &mut owners);
        // While two overlays grow together, no owner has everything.
        let merging = inner.places.merging();
        if merging {
            owners.extend(inner.places.other_holders(&key, &owners));
        }
        let first = if merging { owners.len() } else { 1 };
        let request = request::Kind::Search(wire::Search {
            local: true,
            ..search.clone()
        });
        let mut replies: Vec<wire::SearchReply> = Vec::new();
        let mut refusal = None;
        let (mut peers, mut hedged) = (owners.clone(), false);
        let mut at_once = first;
        loop {
            let take = |_, answer| match answer {
                Ok(response::Kind::Search(reply)) => {
                    let settling = reply.settling;
                    replies.push(reply);
                    match merging || settling {
                        true => Verdict::More,
                        false => Verdict::Done,
                    }
                }
                Ok(_) => Verdict::More,
                Err(error) => {
                    refusal = Some(refuse::of_call(&error));
                    Verdict::More
                }
            };
            hedged |= gather(inner, &peers, at_once, &request, take).await;
            if peers != owners || replies.iter().any(|reply| !reply.settling) {
                break;
            }
            // All of them are new, or may lack something: others had it before.
            (peers, at_once) = (inner.places.next_closest(&key, &owners), 1);
        }
        let failed = || refuse::unavailable("no owner of the rarest term answered; try again");
        let mut reply =
            merge(replies, page_size(&search)).ok_or_else(|| refusal.unwrap_or_else(failed))?;
        inner.totals.learn(&search, reply.total);
        inner.sift(&mut reply);
        reply.hedged = hedged;
        add(&inner.counters.searches, 1);
        inner.did(&key);
        Ok(response::Kind::Search(reply))
    }

    /// What the search is answered under: its rarest term.
    pub(super) fn searched<'a>(
        &self,
        search: &'a wire::Search,
    ) -> Result<Searched<'a>, wire::Refusal> {
        let words = search.terms.len() + search.prefixes.len();
        if words > MAX_QUERY_TERMS {
            return Err(refuse::of_search(&SearchError::TooMany(words)));
        }
        let mut all = search.terms.iter().chain(&search.prefixes);
        if all.any(|word| word.is_empty() || word.len() > MAX_TERM) {
            return Err(refuse::of_search(&SearchError::Term));
        }
        match search.terms.iter().min_by_key(|term| self.rarity(term)) {
            Some(term) => Ok(Searched::Term(term)),
            None => longest(&search.prefixes),
        }
    }

    /// About how many items have `term`.
    fn rarity(&self, term: &str) -> u64 {
        if let Some(total) = self.totals.get(term) {
            return total;
        }
        // Not known: long words are rarer. What is held here by chance is a
        // lower bound only.
        let chars = term.chars().count() as u64;
        let guess = 100_000 / (chars * chars).max(1);
        guess.max(self.index.term_count(term) as u64)
    }
}

/// What a search is answered under.
#[derive(Clone, Copy, Debug)]
pub(super) enum Searched<'a> {
    Term(&'a str),
    /// As much of a word's beginning as makes a key.
    Prefix(&'a str),
}

impl Searched<'_> {
    pub(super) fn key(&self) -> Key {
        match self {
            Searched::Term(term) => keys::term(term),
            Searched::Prefix(part) => keys::term_prefix(part),
        }
    }

    pub(super) fn word(&self) -> Word {
        match self {
            Searched::Term(term) => Word::whole(term),
            Searched::Prefix(part) => Word::beginning(part),
        }
    }
}

fn longest(prefixes: &[String]) -> Result<Searched<'_>, wire::Refusal> {
    if prefixes.is_empty() {
        return Err(refuse::of_search(&SearchError::Empty));
    }
    let long = prefixes.iter().filter(|prefix| prefix_of(prefix).is_some());
    let longest = long.max_by_key(|prefix| prefix.len());
    let part = longest.and_then(|prefix| prefix_of(prefix));
    let part = part.ok_or_else(|| refuse::malformed("a beginning needs three letters at least"))?;
    Ok(Searched::Prefix(part))
}

fn page_size(search: &wire::Search) -> usize {
    match search.limit as usize {
        0 => MAX_PAGE,
        limit => limit.min(MAX_PAGE),
    }
}

/// Joins the pages of owners that may each lack something; `None` of none.
fn merge(mut replies: Vec<wire::SearchReply>, limit: usize) -> Option<wire::SearchReply> {
    if replies.len() < 2 {
        return replies.pop();
    }
    let settling = replies.iter().all(|reply| reply.settling);
    let total = replies.iter().map(|reply| reply.total).max()?;
    // The cursor of the owner that knows most.
    let next = replies.iter().max_by_key(|reply| reply.total)?.next.clone();
    let hits = replies.into_iter().flat_map(|reply| reply.hits);
    let mut best: BTreeMap<Vec<u8>, wire::Hit> = BTreeMap::new();
    for hit in hits {
        let name = hit.record.as_ref().map(|record| record.signature.to_vec());
        best.insert(name.unwrap_or_default(), hit);
    }
    let mut hits: Vec<wire::Hit> = best.into_values().collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score));
    hits.truncate(limit);
    Some(wire::SearchReply {
        hits,
        next,
        total,
        hedged: false,
        settling,
    })
}
