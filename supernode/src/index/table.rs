//! The records of one stripe by id: what is known of each without reading the
//! disk, a bounded cache of their bytes, and the order in which they expire.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_proto::wire;

use super::Version;

/// Stripes of an index, each with a lock of its own: enough that readers on any number of cores seldom meet.
pub(super) const STRIPES: usize = 64;

/// Which stripe an id is in. Ids are hashes.
pub(super) fn stripe_of(id: &Key) -> usize {
    usize::from(id.0[31]) % STRIPES
}

/// What a record is to the rest of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Listed under this provider key.
    Provider(Key),
    /// In this mailbox.
    Letter(Key),
    /// Searchable under this item number.
    Item(u32),
}

/// What is known of a record.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) version: Version,
    pub(super) expires_ms: u64,
    pub(super) publisher: NodeId,
    pub(super) size: usize,
    pub(super) removed: bool,
    kind: Kind,
    durable: Arc<AtomicBool>,
    cached: Option<wire::Signed>,
    /// Read since the cache's hand passed last.
    read: AtomicBool,
}

impl Entry {
    pub(super) fn new(record: &Record, size: usize, kind: Kind, durable: bool) -> Self {
        Self {
            version: Version::of(record),
            expires_ms: record.expires_ms(),
            publisher: record.publisher,
            size,
            removed: record.body.removed,
            kind,
            durable: Arc::new(AtomicBool::new(durable)),
            cached: None,
            read: AtomicBool::new(false),
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    pub(super) fn durable(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.durable)
    }

    /// The bytes, where they are in memory; marks them as read.
    pub(super) fn touch(&self) -> Option<wire::Signed> {
        let cached = self.cached.clone()?;
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        Some(cached)
    }

    pub(super) fn doc(&self) -> Option<u32> {
        match self.kind {
            Kind::Item(doc) => Some(doc),
            _ => None,
        }
    }

    pub(super) fn provider(&self) -> Option<Key> {
        match self.kind {
            Kind::Provider(key) => Some(key),
            _ => None,
        }
    }

    pub(super) fn letter(&self) -> Option<Key> {
        match self.kind {
            Kind::Letter(key) => Some(key),
            _ => None,
        }
    }

    pub(super) fn is_provider(&self) -> bool {
        self.provider().is_some()
    }
}

/// A live record, as a count by key sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    /// The key that it is under; an item is under those of its terms.
    pub(super) key: Key,
    pub(super) doc: Option<u32>,
    /// Bytes.
    pub(super) size: usize,
}

/// One stripe of the records.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    entries: HashMap<Key, Entry>,
    /// May name ids that are gone or now expire later; checked when popped.
    expiry: BinaryHeap<Reverse<(u64, Key)>>,
    /// Ids with cached bytes, oldest first: second-chance eviction.
    hand: VecDeque<Key>,
    cached_bytes: usize,
}

impl Stripe {
    pub(super) fn get(&self, id: &Key) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Adds, or replaces, an entry with its bytes in the cache.
    pub(super) fn insert(&mut self, id: Key, entry: Entry, signed: wire::Signed, cache: usize) {
        self.expiry.push(Reverse((entry.expires_ms, id)));
        if let Some(old) = self.entries.insert(id, entry)
            && old.cached.is_some()
        {
            // Its place in the hand's round serves the new one.
            self.cached_bytes -= old.size;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.cached = Some(signed);
                self.cached_bytes += entry.size;
            }
            return self.evict(cache);
        }
        self.cache(&id, signed, cache);
    }

    pub(super) fn remove(&mut self, id: &Key) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if entry.cached.is_some() {
            self.cached_bytes -= entry.size;
        }
        Some(entry)
    }

    /// Keeps the bytes of a held record in memory, and drops those not read for
    /// longest past `limit` bytes.
    pub(super) fn cache(&mut self, id: &Key, signed: wire::Signed, limit: usize) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.cached.replace(signed).is_none() {
            self.cached_bytes += entry.size;
            self.hand.push_back(*id);
        }
        self.evict(limit);
    }

    fn evict(&mut self, limit: usize) {
        // Twice round: once to take second chances away, once to evict.
        for _ in 0..self.hand.len() * 2 {
            if self.cached_bytes <= limit {
                break;
            }
            self.turn();
        }
        if self.hand.len() > 2 * self.entries.len() + 64 {
            let cached = self.entries.iter().filter(|(_, e)| e.cached.is_some());
            self.hand = cached.map(|(id, _)| *id).collect();
        }
    }

    fn turn(&mut self) {
        let Some(id) = self.hand.pop_front() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id).filter(|e| e.cached.is_some()) else {
            return;
        };
        // What is not on disk yet can be read from memory only.
        if entry.read.swap(false, Ordering::Relaxed) || !entry.is_durable() {
            self.hand.push_back(id);
        } else {
            entry.cached = None;
            self.cached_bytes -= entry.size;
        }
    }

    /// Takes out of the expiry queue what has expired by `now_ms`.
    pub(super) fn expired(&mut self, now_ms: u64) -> Vec<Key> {
        let mut out = Vec::new();
        while let Some(Reverse((at, _))) = self.expiry.peek()
            && *at <= now_ms
            && let Some(Reverse((_, id))) = self.expiry.pop()
        {
            if self
                .get(&id)
                .is_some_and(|entry| entry.expires_ms <= now_ms)
            {
                out.push(id);
            }
        }
        out.dedup();
        out
    }

    /// What is neither removed nor over.
    pub(super) fn live(&self, now_ms: u64) -> Vec<Live> {
        let entries = self.entries.iter();
        let live = entries.filter(|(_, entry)| !entry.removed && entry.expires_ms > now_ms);
        live.map(|(id, entry)| Live {
            key: entry.provider().or(entry.letter()).unwrap_or(*id),
            doc: entry.doc(),
            size: entry.size,
        })
        .collect()
    }

    pub(super) fn ids(&self) -> Vec<Key> {
        self.entries.keys().copied().collect()
    }
}

/// Which records say who provides a content.
#[derive(Debug, Default)]
pub(super) struct Providers(HashMap<Key, Vec<Key>>);

impl Providers {
    pub(super) fn count(&self, key: &Key) -> usize {
        self.0.get(key).map_or(0, Vec::len)
    }

    pub(super) fn insert(&mut self, key: Key, id: Key) {
        let ids = self.0.entry(key).or_default();
        if let Err(at) = ids.binary_search(&id) {
            ids.insert(at, id);
        }
    }

    pub(super) fn remove(&mut self, key: &Key, id: &Key) {
        if let Some(ids) = self.0.get_mut(key) {
            if let Ok(at) = ids.binary_search(id) {
                ids.remove(at);
            }
            if ids.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn list(&self, key: &Key, limit: usize) -> Vec<Key> {
        let ids = self.0.get(key).map_or(&[][..], Vec::as_slice);
        ids.iter().copied().take(limit).collect()
    }
}
