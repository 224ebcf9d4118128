//! The store on disk: one fjall database with the records and a format number.
//!
//! fjall was chosen over redb by measurement (300-byte records, every batch
//! synced): 75-91 k/s against 24 k/s in batches of 16, 300-360 k/s against 50 k/s
//! in batches of 256; its slower random read (3-6 us against 1) is behind the
//! cache of the index.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use canopy_core::keyspace::Key;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Change, StoreError};

/// Version of what is written; a store of another one is not opened.
const FORMAT: u32 = 1;

pub(super) struct Disk {
    path: PathBuf,
    db: Database,
    records: Keyspace,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |error| StoreError::from_fjall(path, error);
        fs::create_dir_all(path).map_err(|error| StoreError::from_io(path, &error))?;
        let db = Database::builder(path)
            .worker_threads(1)
            .open()
            .map_err(fail)?;
        let meta = db
            .keyspace("meta", KeyspaceCreateOptions::default)
            .map_err(fail)?;
        match meta.get("format").map_err(fail)? {
            Some(found) => check_format(path, &found)?,
            None => {
                meta.insert("format", FORMAT.to_le_bytes()).map_err(fail)?;
                db.persist(PersistMode::SyncAll).map_err(fail)?;
            }
        }
        let records = db
            .keyspace("records", KeyspaceCreateOptions::default)
            .map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            db,
            records,
        })
    }

    /// Writes all of `changes` or none, and syncs.
    pub(super) fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), StoreError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for change in changes {
            match change {
                Change::Put(id, bytes) => batch.insert(&self.records, id.0, bytes),
                Change::Remove(id) => batch.remove(&self.records, id.0),
            }
        }
        batch.commit().map_err(|error| self.fail(error))
    }

    pub(super) fn get(&self, id: &Key) -> Result<Option<Bytes>, StoreError> {
        let found = self.records.get(id.0).map_err(|error| self.fail(error))?;
        Ok(found.map(Bytes::from))
    }

    pub(super) fn scan(&self, mut each: impl FnMut(Key, Bytes)) -> Result<(), StoreError> {
        for entry in self.records.iter() {
            let (id, bytes) = entry.into_inner().map_err(|error| self.fail(error))?;
            let id = Key::from_slice(&id).ok_or_else(|| StoreError::Corrupt {
                path: self.path.clone(),
                reason: "a record has no 32-byte id".into(),
            })?;
            // A copy, so that a small record does not keep its whole block.
            each(id, Bytes::copy_from_slice(&bytes));
        }
        Ok(())
    }

    /// Bytes on disk, as far as it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.db.disk_space().ok()
    }

    fn fail(&self, error: fjall::Error) -> StoreError {
        StoreError::from_fjall(&self.path, error)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).finish()
    }
}

fn check_format(path: &Path, found: &[u8]) -> Result<(), StoreError> {
    let found = found.try_into().map(u32::from_le_bytes).unwrap_or(0);
    if found != FORMAT {
        return Err(StoreError::Version {
            path: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    Ok(())
}
