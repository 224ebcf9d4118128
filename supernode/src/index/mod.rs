//! One node's share of the index: what it holds, what supersedes what, and who
//! may store how much. Thread-safe; takes the time as an argument.
//!
//! Records reach it verified. A higher sequence replaces a lower one; of two
//! bodies with one sequence the larger hash wins, so that replicas agree
//! whatever the order of arrival. A removal is a record too: it stays, hidden,
//! until it expires. What has expired is never served.
//!
//! Reads take the lock of one of many stripes, never a lock of the whole.

mod cursor;
mod dictionary;
mod docs;
mod filter;
mod limits;
mod mailbox;
mod outcome;
mod pending;
mod quota;
mod search;
mod table;
mod tally;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::record::Record;
use canopy_proto::wire::record::Payload;
use canopy_proto::{limits as wire_limits, wire};
use parking_lot::{Mutex, RwLock};
use prost::Message;

use crate::store::{Change, Store, StoreError};
use docs::Items;
use mailbox::Mailboxes;
use pending::Pending;
use quota::Quotas;
use table::{Entry, Kind, STRIPES, Stripe};

pub use limits::Limits;
pub use outcome::{Outcome, Refused, Version};
pub use pending::Ack;
pub use search::{MAX_PAGE, MAX_QUERY_TERMS, Page, SearchError};
pub use tally::Tally;

/// Bytes of hits after which a page ends early, so that two fit a frame.
const MAX_PAGE_BYTES: usize = wire_limits::FRAME / 2 - 4096;
/// What a message adds to a hit's record.
const HIT_OVERHEAD: usize = 16;

/// What a node's index holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Records, removals included.
    pub records: u64,
    /// Their encoded size, bytes.
    pub bytes: u64,
    /// Searchable items.
    pub items: u64,
    /// Times that an item was not entered under a term because the term was full.
    pub full_terms: u64,
    /// Messages kept for peers that were not there.
    pub letters: u64,
}

/// The records and items of one node.
#[derive(Debug)]
pub struct Index {
    store: Store,
    limits: Limits,
    stripes: Vec<RwLock<Stripe>>,
    providers: Vec<RwLock<table::Providers>>,
    mailboxes: Mailboxes,
    quotas: Quotas,
    items: Items,
    /// Held by every change, from memory to the store's queue, so that the
    /// disk sees the versions of an id in the order of memory. Readers never
    /// take it.
    writes: Mutex<()>,
}

impl Index {
    /// Reads the whole store: about 10 us a record.
    ///
    /// # Errors
    /// What the store says; a single record that cannot be decoded is dropped
    /// with a warning, the other owners send it back.
    pub fn open(store: Store, limits: Limits, now_ms: u64) -> Result<Self, StoreError> {
        let index = Self::empty(store, limits);
        let mut dropped = Vec::new();
        index.store.scan(|id, bytes| {
            if !index.load(id, bytes, now_ms) {
                dropped.push(Change::Remove(id));
            }
        })?;
        if !dropped.is_empty() {
            tracing::info!(
                records = dropped.len(),
                "dropped expired or unreadable records"
            );
            index.store.write(dropped, Box::new(|_| ()));
        }
        Ok(index)
    }

    /// An empty index that forgets, for tests and simulations.
    pub fn in_memory(limits: Limits) -> Self {
        Self::empty(Store::in_memory(), limits)
    }

    fn empty(store: Store, limits: Limits) -> Self {
        Self {
            store,
            limits,
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
            providers: (0..STRIPES).map(|_| RwLock::default()).collect(),
            mailboxes: Mailboxes::default(),
            quotas: Quotas::default(),
            items: Items::default(),
            writes: Mutex::default(),
        }
    }

    /// Why no write can succeed any more, if one has failed. Reads go on.
    pub fn failure(&self) -> Option<StoreError> {
        self.store.failure()
    }

    /// Where the records are kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Stores verified records. They are visible at once; what the outcomes say
    /// holds across a crash as soon as the [`Ack`] resolves.
    pub fn put(&self, records: Vec<Record>, now_ms: u64) -> (Vec<Outcome>, Ack) {
        if let Some(error) = self.failure() {
            // Memory must not fill with what will never be on disk.
            let refused = Outcome::Refused(Refused::Store(error));
            return (
                vec![refused; records.len()],
                Pending::default().write(&self.store),
            );
        }
        let mut pending = Pending::default();
        let order = self.writes.lock();
        let outcomes = records
            .into_iter()
            .map(|record| self.put_one(record, now_ms, &mut pending))
            .collect();
        let ack = pending.write(&self.store);
        drop(order);
        (outcomes, ack)
    }

    fn put_one(&self, record: Record, now_ms: u64, pending: &mut Pending) -> Outcome {
        let id = record.id();
        let version = Version::of(&record);
        if record.expires_ms() <= now_ms {
            return Outcome::Refused(Refused::Expired);
        }
        if outcome::removes_shared(&record) {
            return Outcome::Refused(Refused::SharedRemoval);
        }
        let mut stripe = self.stripes[table::stripe_of(&id)].write();
        if let Some(held) = stripe.get(&id).filter(|held| held.expires_ms > now_ms) {
            if version < held.version {
                return Outcome::Superseded(held.version.sequence);
            }
            if version == held.version {
                if !held.is_durable() {
                    // Its first write failed or is under way: only a write of
                    // our own can vouch for it.
                    let bytes = Bytes::from(record.signed.encode_to_vec());
                    pending.push(id, bytes, held.durable());
                }
                return Outcome::AlreadyHave;
            }
        }
        match self.admit(&mut stripe, id, record, false, &self.limits) {
            Ok((bytes, durable)) => {
                pending.push(id, bytes, durable);
                Outcome::Stored
            }
            Err(refused) => Outcome::Refused(refused),
        }
    }

    /// Takes a record in, replacing what is there; touches memory only.
    fn admit(
        &self,
        stripe: &mut Stripe,
        id: Key,
        record: Record,
        durable: bool,
        limits: &Limits,
    ) -> Result<(Bytes, Arc<AtomicBool>), Refused> {
        let bytes = Bytes::from(record.signed.encode_to_vec());
        let old = stripe.get(&id);
        let provider = provider_key(&record).filter(|_| !record.body.removed);
        if let (Some(key), false) = (provider, old.is_some_and(Entry::is_provider)) {
            let providers = self.providers[table::stripe_of(&key)].read();
            if providers.count(&key) >= limits.providers_per_key {
                return Err(Refused::ProvidersFull);
            }
        }
        let letter = mailbox_key(&record).filter(|_| !record.body.removed);
        let old_letter = old.and_then(Entry::letter);
        if let (Some(key), None) = (letter, old_letter) {
            self.mailboxes.room(&key, &record.publisher, limits)?;
        }
        let old_use = old.map(|old| (old.publisher, old.size));
        self.quotas
            .replace(old_use, (record.publisher, bytes.len()), limits)?;
        let old_doc = old.and_then(Entry::doc);
        let kind = match &record.body.payload {
            Some(Payload::Item(item)) if !record.body.removed => {
                match self.items.put(old_doc, id, item, &record, limits) {
                    Ok(doc) => Kind::Item(doc),
                    Err(refused) => {
                        self.quotas
                            .restore((record.publisher, bytes.len()), old_use);
                        return Err(refused);
                    }
                }
            }
            _ => {
                self.items.remove(old_doc);
                match letter {
                    Some(key) => Kind::Letter(key),
                    None => provider.map_or(Kind::Plain, Kind::Provider),
                }
            }
        };
        let old_provider = old.and_then(Entry::provider);
        if old_provider != provider {
            self.move_provider(id, old_provider, provider);
        }
        match (old_letter, letter) {
            (Some(key), None) => self.mailboxes.remove(&key, &id),
            (_, Some(key)) => self.mailboxes.insert(key, id, record.publisher),
            (None, None) => {}
        }
        let entry = Entry::new(&record, bytes.len(), kind, durable);
        let flag = entry.durable();
        stripe.insert(id, entry, record.signed, self.limits.cache_bytes / STRIPES);
        Ok((bytes, flag))
    }

    fn move_provider(&self, id: Key, from: Option<Key>, to: Option<Key>) {
        if let Some(key) = from {
            self.providers[table::stripe_of(&key)]
                .write()
                .remove(&key, &id);
        }
        if let Some(key) = to {
            self.providers[table::stripe_of(&key)]
                .write()
                .insert(key, id);
        }
    }

    fn load(&self, id: Key, bytes: Bytes, now_ms: u64) -> bool {
        let record = wire::Signed::decode(bytes)
            .ok()
            .and_then(|signed| Record::trusted(&signed).ok())
            .filter(|record| record.id() == id);
        let Some(record) = record else {
            tracing::warn!(%id, "a stored record cannot be read; dropping it");
            return false;
        };
        if record.expires_ms() <= now_ms {
            return false;
        }
        let mut stripe = self.stripes[table::stripe_of(&id)].write();
        // It was acknowledged: no limit of today takes it away.
        self.admit(&mut stripe, id, record, true, &Limits::NONE)
            .is_ok()
    }

    /// The records under `key`, at most `limit`: one for a value or location,
    /// one a publisher for a provider key. Removals only if `removed`.
    pub fn get(&self, key: &Key, now_ms: u64, limit: usize, removed: bool) -> Vec<wire::Signed> {
        if let Some(found) = self.one(key, now_ms, removed) {
            return vec![found];
        }
        let ids = self.providers[table::stripe_of(key)]
            .read()
            .list(key, limit);
        ids.iter()
            .filter_map(|id| self.one(id, now_ms, removed))
            .collect()
    }

    /// The letters in a mailbox, oldest first, as many as two answers of their
    /// size fit a frame.
    pub fn mailbox(&self, key: &Key, now_ms: u64) -> Vec<wire::Signed> {
        let mut size = 0;
        let letters = self.mailboxes.list(key).into_iter();
        let letters = letters.filter_map(|id| self.one(&id, now_ms, false));
        letters
            .take_while(|letter| {
                size += letter.encoded_len() + HIT_OVERHEAD;
                size <= MAX_PAGE_BYTES
            })
            .collect()
    }

    /// The record with this id, if it is held and has not expired.
    pub fn one(&self, id: &Key, now_ms: u64, removed: bool) -> Option<wire::Signed> {
        let lock = &self.stripes[table::stripe_of(id)];
        {
            let stripe = lock.read();
            let held = stripe.get(id)?;
            if held.expires_ms <= now_ms || (held.removed && !removed) {
                return None;
            }
            if let Some(cached) = held.touch() {
                return Some(cached);
            }
        }
        let bytes = match self.store.get(id) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::error!(%error, %id, "reading a record failed");
                return None;
            }
        };
        let signed = wire::Signed::decode(Bytes::copy_from_slice(&bytes)).ok()?;
        let cache = self.limits.cache_bytes / STRIPES;
        lock.write().cache(id, signed.clone(), cache);
        Some(signed)
    }

    /// Answers a search from the items held here.
    ///
    /// # Errors
    /// [`SearchError`]: the query breaks a limit, or its cursor is not ours.
    pub fn search(&self, query: &wire::Search, now_ms: u64) -> Result<Page, SearchError> {
        let found = search::run(&self.items, query, now_ms)?;
        let mut page = Page {
            total: found.total,
            ..Page::default()
        };
        let (mut size, mut last, mut more) = (0, None, found.more);
        for place in &found.places {
            let Some(record) = self.one(&place.id, now_ms, false) else {
                continue;
            };
            size += record.encoded_len() + HIT_OVERHEAD;
            if size > MAX_PAGE_BYTES && last.is_some() {
                more = true;
                break;
            }
            last = Some(*place);
            page.hits.push(wire::Hit {
                record: Some(record),
                score: place.score,
            });
        }
        if let (true, Some(last)) = (more, last) {
            page.next = found.after(last);
        }
        Ok(page)
    }

    /// How many items are held under `term`.
    pub fn term_count(&self, term: &str) -> usize {
        self.items.dictionary.count(term)
    }

    /// Whether a copy of `id` at `sequence` or later is held on disk.
    pub fn holds(&self, id: &Key, sequence: u64, now_ms: u64) -> bool {
        let stripe = self.stripes[table::stripe_of(id)].read();
        stripe.get(id).is_some_and(|held| {
            held.version.sequence >= sequence && held.is_durable() && held.expires_ms > now_ms
        })
    }

    /// The version held of `id`.
    pub fn version(&self, id: &Key) -> Option<Version> {
        let stripe = self.stripes[table::stripe_of(id)].read();
        stripe.get(id).map(|held| held.version)
    }

    /// Into how many parts [`Index::ids`] cuts what is held.
    pub const PARTS: usize = STRIPES;

    /// The ids held in one part, ascending.
    pub fn ids(&self, part: usize) -> Vec<Key> {
        let mut ids = match self.stripes.get(part) {
            Some(stripe) => stripe.read().ids(),
            None => Vec::new(),
        };
        ids.sort_unstable();
        ids
    }

    /// Drops `id` if it is still held at `version`; for records that others own.
    pub fn forget(&self, id: &Key, version: Version) {
        let _order = self.writes.lock();
        let mut stripe = self.stripes[table::stripe_of(id)].write();
        if stripe.get(id).is_some_and(|held| held.version == version) {
            self.drop_entry(&mut stripe, id);
        }
    }

    /// Drops what has expired and clears up after removed items. To be called
    /// every few seconds. Returns how many records it dropped.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let mut dropped = 0;
        for lock in &self.stripes {
            let _order = self.writes.lock();
            let mut stripe = lock.write();
            for id in stripe.expired(now_ms) {
                self.drop_entry(&mut stripe, &id);
                dropped += 1;
            }
        }
        self.items.compact();
        dropped
    }

    fn drop_entry(&self, stripe: &mut Stripe, id: &Key) {
        let Some(entry) = stripe.remove(id) else {
            return;
        };
        self.quotas.release(entry.publisher, entry.size);
        self.items.remove(entry.doc());
        self.move_provider(*id, entry.provider(), None);
        if let Some(key) = entry.letter() {
            self.mailboxes.remove(&key, id);
        }
        self.store.write(
            vec![Change::Remove(*id)],
            Box::new(|result| {
                if let Err(error) = result {
                    tracing::warn!(%error, "dropping a record failed; the next start drops it");
                }
            }),
        );
    }

    /// How full the index is in its fullest dimension, thousandths.
    pub fn utilisation_milli(&self) -> u32 {
        let (records, bytes) = self.quotas.total();
        let share = |used: u64, limit: u64| used as f64 / limit.max(1) as f64;
        let fullest = share(records, self.limits.records).max(share(bytes, self.limits.bytes));
        (fullest * 1000.0) as u32
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        let (records, bytes) = self.quotas.total();
        Held {
            records,
            bytes,
            items: self.items.live(),
            full_terms: self.items.full_terms(),
            letters: self.mailboxes.count() as u64,
        }
    }
}

fn mailbox_key(record: &Record) -> Option<Key> {
    match &record.body.payload {
        Some(Payload::Letter(letter)) => Some(keys::mailbox(&NodeId::from_slice(&letter.to)?)),
        _ => None,
    }
}

fn provider_key(record: &Record) -> Option<Key> {
    match &record.body.payload {
        Some(Payload::Provider(provider)) => {
            let content = provider.content.as_ref().try_into().ok()?;
            Some(keys::provider(content))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
