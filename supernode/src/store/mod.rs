//! Where records are kept: encoded bytes under a 32-byte id, on disk or in
//! memory.
//!
//! A write is acknowledged only when it is on disk; many waiting writes share
//! one sync. Knows nothing of what the bytes mean.

mod counted;
mod disk;
mod error;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use canopy_core::keyspace::Key;
use parking_lot::RwLock;

pub use counted::Counted;
pub use error::StoreError;
use writer::Writer;

/// Bytes that may wait to be written; past it writes are refused as
/// [`StoreError::Busy`]. Four seconds of a slow disk at 16 MiB/s.
pub const MAX_WAITING: usize = 64 * 1024 * 1024;

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes, or replaces, the bytes under an id.
    Put(Key, Bytes),
    /// Removes an id; nothing happens if it is not there.
    Remove(Key),
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Change::Put(_, bytes) => 32 + bytes.len(),
            Change::Remove(_) => 32,
        }
    }
}

/// What is told when a batch is on disk, or will never be.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The record store. Dropping it writes what waits and closes it.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Disk {
        disk: Arc<disk::Disk>,
        writer: Writer,
    },
    Memory(RwLock<BTreeMap<Key, Bytes>>),
}

impl Store {
    /// Opens the store in directory `path`, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`], [`StoreError::Locked`],
    /// [`StoreError::Corrupt`] or [`StoreError::Version`], each saying what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_counted(path, Counted::default())
    }

    /// The same; what is written is counted by `counted`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_counted(path: &Path, counted: Counted) -> Result<Self, StoreError> {
        let disk = Arc::new(disk::Disk::open(path)?);
        let writer = Writer::start(Arc::clone(&disk), counted)?;
        Ok(Self {
            backend: Backend::Disk { disk, writer },
        })
    }

    /// A store that forgets when it is dropped, for tests and simulations.
    /// Writes are done, and acknowledged, before [`Store::write`] returns.
    pub fn in_memory() -> Self {
        Self {
            backend: Backend::Memory(RwLock::default()),
        }
    }

    /// Queues `changes` as one atomic batch. `done` is called once, from the
    /// writer's thread, when they are on disk or have failed. Batches are
    /// applied in the order of these calls.
    pub fn write(&self, changes: Vec<Change>, done: Done) {
        match &self.backend {
            Backend::Disk { writer, .. } => writer.queue(changes, done),
            Backend::Memory(records) => {
                let mut records = records.write();
                for change in changes {
                    match change {
                        Change::Put(id, bytes) => records.insert(id, bytes),
                        Change::Remove(id) => records.remove(&id),
                    };
                }
                drop(records);
                done(Ok(()));
            }
        }
    }

    /// Why no write can succeed any more, if one has failed. Reads go on.
    pub fn failure(&self) -> Option<StoreError> {
        match &self.backend {
            Backend::Disk { writer, .. } => writer.failure(),
            Backend::Memory(_) => None,
        }
    }

    /// Bytes that wait to be written; at most [`MAX_WAITING`].
    pub fn waiting_bytes(&self) -> u64 {
        match &self.backend {
            Backend::Disk { writer, .. } => writer.waiting(),
            Backend::Memory(_) => 0,
        }
    }

    /// Bytes that the store takes on disk; `None` where the system does not
    /// tell. Looks at the files.
    pub fn disk_bytes(&self) -> Option<u64> {
        match &self.backend {
            Backend::Disk { disk, .. } => disk.size(),
            Backend::Memory(_) => Some(0),
        }
    }

    /// The bytes under `id`. May read the disk.
    pub fn get(&self, id: &Key) -> Result<Option<Bytes>, StoreError> {
        match &self.backend {
            Backend::Disk { disk, .. } => disk.get(id),
            Backend::Memory(records) => Ok(records.read().get(id).cloned()),
        }
    }

    /// Hands every record to `each`, in order of id.
    pub fn scan(&self, mut each: impl FnMut(Key, Bytes)) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Disk { disk, .. } => disk.scan(each),
            Backend::Memory(records) => {
                for (id, bytes) in records.read().iter() {
                    each(*id, bytes.clone());
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
