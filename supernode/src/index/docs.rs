//! The searchable items: what ranking and filters need of each, by number.
//!
//! Numbers are given out once and never again, in the order of arrival, which
//! keeps posting lists sorted by appending. Reading needs no lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_core::text;
use canopy_proto::wire;
use parking_lot::Mutex;

use super::dictionary::{Dictionary, posting};
use super::{Limits, Refused};

const CHUNK: u32 = 1024;
/// Numbers are 31 bits, beside the bit of a posting. A restart begins anew.
const MAX_DOCS: u32 = u32::MAX >> 1;
/// Removed items that are worth a compaction, if a fifth of all are.
const MIN_DEAD: u64 = 4096;

type Chunk = Vec<OnceLock<Doc>>;
/// A chunk whose items are all gone is `None`.
type Chunks = Vec<Option<Arc<Chunk>>>;

/// What a search needs to know of an item.
#[derive(Debug)]
pub(super) struct Doc {
    pub(super) id: Key,
    /// [`name_hash`] of its name.
    pub(super) name: u64,
    pub(super) fields: Fields,
    /// Hash of everything but sequence and lifetime.
    content: u64,
    alive: AtomicBool,
    issued_ms: AtomicU64,
    expires_ms: AtomicU64,
}

/// What filters look at.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) name: Box<str>,
    pub(super) media_type: Box<str>,
    pub(super) publisher: NodeId,
    pub(super) size: u64,
    /// Sorted by name.
    pub(super) attributes: Box<[(Box<str>, Box<str>)]>,
}

impl Doc {
    pub(super) fn is_alive(&self, now_ms: u64) -> bool {
        self.alive.load(Ordering::Acquire) && self.expires_ms.load(Ordering::Relaxed) > now_ms
    }

    pub(super) fn issued_ms(&self) -> u64 {
        self.issued_ms.load(Ordering::Relaxed)
    }

    fn new(id: Key, item: &wire::Item, record: &Record, content: u64) -> Self {
        let attributes = item.attributes.iter();
        Self {
            id,
            name: name_hash(&text::query(&item.name).terms),
            fields: Fields {
                name: item.name.as_str().into(),
                media_type: item.media_type.as_str().into(),
                publisher: record.publisher,
                size: item.size,
                attributes: attributes
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect(),
            },
            content,
            alive: AtomicBool::new(true),
            issued_ms: AtomicU64::new(record.body.issued_ms),
            expires_ms: AtomicU64::new(record.expires_ms()),
        }
    }
}

/// All items, and the dictionary that finds them.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) dictionary: Dictionary,
    chunks: ArcSwap<Chunks>,
    /// The next number; held while an item is entered, so that numbers reach
    /// every posting list in order.
    next: Mutex<u32>,
    live: AtomicU64,
    dead: AtomicU64,
    full_terms: AtomicU64,
}

/// A view of all items that stays as it is while it is read.
pub(super) struct View(arc_swap::Guard<Arc<Chunks>>);

impl View {
    pub(super) fn get(&self, doc: u32) -> Option<&Doc> {
        let chunk = self.0.get((doc / CHUNK) as usize)?.as_ref()?;
        chunk.get((doc % CHUNK) as usize)?.get()
    }
}

impl Items {
    pub(super) fn view(&self) -> View {
        View(self.chunks.load())
    }

    /// Enters an item in place of `old`. A refresh that changes nothing
    /// searchable keeps its number and is never refused.
    pub(super) fn put(
        &self,
        old: Option<u32>,
        id: Key,
        item: &wire::Item,
        record: &Record,
        limits: &Limits,
    ) -> Result<u32, Refused> {
        let content = content_hash(item);
        if let Some(number) = old
            && let Some(doc) = self.view().get(number)
            && doc.content == content
        {
            doc.issued_ms
                .store(record.body.issued_ms, Ordering::Relaxed);
            doc.expires_ms.store(record.expires_ms(), Ordering::Relaxed);
            return Ok(number);
        }
        let mut next = self.next.lock();
        let open = |term: &&String| self.dictionary.count(term) < limits.postings_per_term;
        let terms: Vec<&String> = item.terms.iter().filter(open).collect();
        if terms.is_empty() {
            let term = item.terms.first().cloned().unwrap_or_default();
            return Err(Refused::TermsFull(term));
        }
        if *next >= MAX_DOCS {
            return Err(Refused::Full);
        }
        let full = item.terms.len() - terms.len();
        self.full_terms.fetch_add(full as u64, Ordering::Relaxed);
        let number = *next;
        *next += 1;
        self.set(number, Doc::new(id, item, record, content));
        let names = text::terms(&item.name);
        let mut entered = std::collections::BTreeSet::new();
        for term in terms {
            // A publisher may have listed a term twice.
            if entered.insert(term) {
                let in_name = names.contains(term);
                self.dictionary.push(term, posting(number, in_name));
            }
        }
        drop(next);
        self.remove(old);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(number)
    }

    fn set(&self, number: u32, doc: Doc) {
        let at = (number / CHUNK) as usize;
        if self.chunks.load().len() <= at {
            let mut chunks = Chunks::clone(&self.chunks.load());
            chunks.push(Some(Arc::new(
                (0..CHUNK).map(|_| OnceLock::new()).collect(),
            )));
            self.chunks.store(Arc::new(chunks));
        }
        if let Some(Some(chunk)) = self.chunks.load().get(at)
            && let Some(slot) = chunk.get((number % CHUNK) as usize)
        {
            // The number is new, so the slot is empty.
            let _ = slot.set(doc);
        }
    }

    /// Marks an item as gone.
    pub(super) fn remove(&self, doc: Option<u32>) {
        let Some(number) = doc else { return };
        if let Some(doc) = self.view().get(number)
            && doc.alive.swap(false, Ordering::Release)
        {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.dead.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Clears removed items out of the posting lists, when there are many.
    pub(super) fn compact(&self) {
        let dead = self.dead.load(Ordering::Relaxed);
        if dead < MIN_DEAD || dead < self.live() / 4 {
            return;
        }
        let next = self.next.lock();
        self.dead.store(0, Ordering::Relaxed);
        let view = self.view();
        // Items removed from here on stay in the lists until the next time.
        let alive: Vec<bool> = (0..*next)
            .map(|n| {
                view.get(n)
                    .is_some_and(|doc| doc.alive.load(Ordering::Acquire))
            })
            .collect();
        let is_alive = |doc: u32| alive.get(doc as usize).copied().unwrap_or(true);
        self.dictionary.compact(is_alive);
        let mut chunks = Chunks::clone(&view.0);
        // The last chunk may still be filling.
        let filled = (*next / CHUNK) as usize;
        for (chunk, alive) in chunks
            .iter_mut()
            .take(filled)
            .zip(alive.chunks(CHUNK as usize))
        {
            if !alive.contains(&true) {
                *chunk = None;
            }
        }
        self.chunks.store(Arc::new(chunks));
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn full_terms(&self) -> u64 {
        self.full_terms.load(Ordering::Relaxed)
    }
}

/// Names the set of `terms`, whatever their order.
pub(super) fn name_hash(terms: &[String]) -> u64 {
    let mut sorted: Vec<&[u8]> = terms.iter().map(String::as_bytes).collect();
    sorted.sort_unstable();
    sorted.dedup();
    Key::hash("name terms", &sorted).prefix()
}

fn content_hash(item: &wire::Item) -> u64 {
    Key::hash("item", &[&prost::Message::encode_to_vec(item)]).prefix()
}
