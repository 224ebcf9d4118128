//! What this leaf keeps published: every record that it wrote without choosing
//! a lifetime, kept on disk until it is removed, so that it can be refreshed
//! before it ends.
//!
//! A change is on disk when its future resolves. Memory holds when each record
//! is due; the records themselves are read when they are.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_proto::{Message, wire};
use canopy_supernode::store::{Change, Done, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, oneshot};

use super::error::Error;

/// Most records that a leaf keeps published: what a super-node takes of one
/// publisher.
pub const MAX_PUBLICATIONS: usize = 100_000;
/// Most bytes of them on disk; what a super-node takes of one publisher.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Most bytes of them in memory, for a leaf without a data directory.
const MAX_BYTES_IN_MEMORY: usize = 32 * 1024 * 1024;
/// Part of its lifetime after which a record is due: early enough that a
/// publisher may be away for half of it (Kubo: 22 of 48 hours), and at random,
/// so that what was published together is not refreshed together.
const DUE: std::ops::Range<f64> = 0.4..0.5;
/// First pause before a failed refresh is tried again; doubles...
const RETRY: Duration = Duration::from_secs(60);
/// ...up to this.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// The list. Thread-safe; no two of one directory at a time.
#[derive(Debug)]
pub(crate) struct Publications {
    /// Absent until there is something to keep: most leaves only read.
    store: OnceCell<Store>,
    /// Where the store is made then.
    path: PathBuf,
    /// Records of another network or publisher in the same directory are left
    /// alone.
    network: String,
    publisher: NodeId,
    max_bytes: usize,
    /// Held while a change is queued, so that the disk sees changes in the
    /// order of memory.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<Key, Entry>,
    due: BTreeSet<(u64, Key)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: u64,
    bytes: usize,
    due_ms: u64,
    /// Refreshes that failed since the last that did not.
    failures: u32,
}

impl Publications {
    /// Reads the list in directory `path`; where there is none, it is made when
    /// there is something to keep. Call it where that may block.
    pub(crate) fn open(path: &Path, network: &str, publisher: NodeId) -> Result<Self, StoreError> {
        let store = match path.exists() {
            true => Some(Store::open(path)?),
            false => None,
        };
        let list = Self {
            path: path.to_owned(),
            ..Self::empty(store, network, publisher, MAX_BYTES)
        };
        list.load()?;
        Ok(list)
    }

    /// A list that ends with this process.
    pub(crate) fn in_memory(network: &str, publisher: NodeId) -> Self {
        let store = Some(Store::in_memory());
        Self::empty(store, network, publisher, MAX_BYTES_IN_MEMORY)
    }

    fn empty(store: Option<Store>, network: &str, publisher: NodeId, max_bytes: usize) -> Self {
        Self {
            store: OnceCell::new_with(store),
            path: PathBuf::new(),
            network: network.to_owned(),
            publisher,
            max_bytes,
            entries: Mutex::default(),
        }
    }

    fn load(&self) -> Result<(), StoreError> {
        let Some(store) = self.store.get() else {
            return Ok(());
        };
        let mut entries = self.entries.lock();
        store.scan(|place, bytes| {
            let size = bytes.len();
            let Some(record) = decode(bytes) else {
                return tracing::warn!(%place, "publications: a record cannot be read");
            };
            if self.place(&record.id()) == place {
                entries.insert(record.id(), entry(&record, size));
            }
        })
    }

    /// Makes the store where there is none yet.
    async fn make(&self) -> Result<&Store, StoreError> {
        let open = async || {
            let path = self.path.clone();
            let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
            opened.unwrap_or(Err(StoreError::Closed))
        };
        self.store.get_or_try_init(open).await
    }

    /// Where a record is in the store: a directory may serve several networks
    /// and identities in turn.
    fn place(&self, id: &Key) -> Key {
        let parts = [self.network.as_bytes(), &self.publisher.0, &id.0];
        Key::hash("publication", &parts)
    }

    /// How many records are kept published.
    pub(crate) fn count(&self) -> usize {
        self.entries.lock().by_id.len()
    }

    /// Whether records of these ids and encoded sizes can be taken in, and be
    /// written to disk.
    pub(super) async fn check_room(&self, records: &[(Key, usize)]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(error) = self.make().await?.failure() {
            return Err(Error::Publications(error));
        }
        let entries = self.entries.lock();
        let (mut count, mut bytes) = (entries.by_id.len(), entries.bytes);
        for (id, size) in records {
            match entries.by_id.get(id) {
                Some(old) => bytes = bytes.saturating_sub(old.bytes),
                None => count += 1,
            }
            bytes += size;
        }
        match count > MAX_PUBLICATIONS || bytes > self.max_bytes {
            true => Err(Error::PublicationsFull {
                records: entries.by_id.len(),
                bytes: entries.bytes,
            }),
            false => Ok(()),
        }
    }

    /// Takes records in, or their later versions.
    pub(super) async fn remember(&self, records: &[Record]) -> Result<(), StoreError> {
        self.enter(records, |known, record| {
            known.is_none_or(|known| known.sequence < record.body.sequence)
        })
        .await
    }

    /// Enters refreshed versions. What was removed or written anew meanwhile
    /// stays as it is.
    pub(super) async fn refreshed(&self, records: &[Record]) -> Result<(), StoreError> {
        self.enter(records, |known, record| {
            known.is_some_and(|known| known.sequence < record.body.sequence)
        })
        .await
    }

    async fn enter(
        &self,
        records: &[Record],
        takes: impl Fn(Option<&Entry>, &Record) -> bool,
    ) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let store = self.make().await?;
        let written = {
            let mut entries = self.entries.lock();
            let mut changes = Vec::new();
            for record in records {
                let id = record.id();
                if !takes(entries.by_id.get(&id), record) {
                    continue;
                }
                let bytes = Bytes::from(record.signed.encode_to_vec());
                entries.insert(id, entry(record, bytes.len()));
                changes.push(Change::Put(self.place(&id), bytes));
            }
            write(store, changes)
        };
        on_disk(written).await
    }

    /// Forgets records: they end with their lifetime. True: one of them was
    /// kept.
    pub(super) async fn forget(&self, ids: &[Key]) -> Result<bool, StoreError> {
        let Some(store) = self.store.get() else {
            return Ok(false);
        };
        let written = {
            let mut entries = self.entries.lock();
            let known = ids.iter().filter(|id| entries.remove(id));
            let changes: Vec<Change> = known.map(|id| Change::Remove(self.place(id))).collect();
            if changes.is_empty() {
                return Ok(false);
            }
            write(store, changes)
        };
        on_disk(written).await.map(|()| true)
    }

    /// The record with this id, where it is kept.
    pub(super) fn get(&self, id: &Key) -> Option<Record> {
        if !self.entries.lock().by_id.contains_key(id) {
            return None;
        }
        match self.store.get()?.get(&self.place(id)) {
            Ok(bytes) => decode(bytes?),
            Err(error) => {
                tracing::error!(%error, "publications: a record cannot be read");
                None
            }
        }
    }

    /// When the next record is due, milliseconds since 1970.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.entries.lock().due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Up to `most` records that are due at `now_ms`, those first that were due
    /// first.
    pub(super) fn due(&self, now_ms: u64, most: usize) -> Vec<Record> {
        let ids: Vec<Key> = {
            let entries = self.entries.lock();
            let due = entries
                .due
                .iter()
                .take_while(|(due_ms, _)| *due_ms <= now_ms);
            due.take(most).map(|(_, id)| *id).collect()
        };
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            match self.get(&id) {
                Some(record) => records.push(record),
                // Another try later does not stand in the way of the rest.
                None => self.postpone(&id, now_ms),
            }
        }
        records
    }

    /// A refresh failed: tries again after a pause that doubles each time.
    pub(super) fn postpone(&self, id: &Key, now_ms: u64) {
        let mut entries = self.entries.lock();
        let Some(mut entry) = entries.by_id.get(id).copied() else {
            return;
        };
        let pause = RETRY
            .saturating_mul(1 << entry.failures.min(16))
            .min(RETRY_MAX);
        let pause = pause.mul_f64(rand::random_range(0.5..1.0));
        entry.failures += 1;
        entry.due_ms = now_ms.saturating_add(pause.as_millis() as u64);
        entries.insert(*id, entry);
    }
}

impl Entries {
    fn insert(&mut self, id: Key, entry: Entry) {
        self.remove(&id);
        self.bytes += entry.bytes;
        self.due.insert((entry.due_ms, id));
        self.by_id.insert(id, entry);
    }

    fn remove(&mut self, id: &Key) -> bool {
        let Some(old) = self.by_id.remove(id) else {
            return false;
        };
        self.bytes -= old.bytes;
        self.due.remove(&(old.due_ms, *id));
        true
    }
}

fn entry(record: &Record, bytes: usize) -> Entry {
    let lifetime_ms = f64::from(record.body.ttl_s) * 1000.0;
    let after = (lifetime_ms * rand::random_range(DUE)) as u64;
    Entry {
        sequence: record.body.sequence,
        bytes,
        due_ms: record.body.issued_ms.saturating_add(after),
        failures: 0,
    }
}

fn decode(bytes: Bytes) -> Option<Record> {
    let signed = wire::Signed::decode(bytes).ok()?;
    // It was signed here; super-nodes check what is sent to them.
    Record::trusted(&signed).ok()
}

#[cfg(test)]
impl Publications {
    /// In memory, with less room.
    pub(super) fn bounded(network: &str, publisher: NodeId, max_bytes: usize) -> Self {
        Self::empty(Some(Store::in_memory()), network, publisher, max_bytes)
    }
}

type Written = oneshot::Receiver<Result<(), StoreError>>;

fn write(store: &Store, changes: Vec<Change>) -> Written {
    let (tell, written) = oneshot::channel();
    // The caller may have stopped waiting.
    let done: Done = Box::new(move |result| drop(tell.send(result)));
    match changes.is_empty() {
        true => done(Ok(())),
        false => store.write(changes, done),
    }
    written
}

async fn on_disk(written: Written) -> Result<(), StoreError> {
    written.await.unwrap_or(Err(StoreError::Closed))
}

#[cfg(test)]
mod tests;
