//! What can go wrong with the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not be opened, read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made, read or written.
    #[error("{path}: {reason}; give this user write access, or choose another data directory")]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process has the store open.
    #[error("{0} is in use by another process; stop it, or choose another data directory")]
    Locked(PathBuf),
    /// A file does not hold what was written.
    #[error(
        "{path} is damaged ({reason}); move the directory away and start again: \
         the other owners send the records back"
    )]
    Corrupt {
        /// The damaged file, or the directory where no file can be told.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by another version.
    #[error("{path} has format {found}, this version reads {known}; use the version that wrote it")]
    Version {
        /// The directory.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Format that this version reads and writes.
        known: u32,
    },
    /// No space left. Reads go on.
    #[error("{0}: the disk is full; free space and restart, reads go on")]
    Full(PathBuf),
    /// An earlier write failed, so that no later one can be trusted. Reads go on.
    #[error("{0}: an earlier write failed; check the disk and restart, reads go on")]
    Failed(PathBuf),
    /// Too much is waiting to be written.
    #[error("the disk is too slow for the writes that wait; try again later")]
    Busy,
    /// The store is closing; nothing was written.
    #[error("the store is closing")]
    Closed,
    /// Any other failure of the system.
    #[error("{path}: {reason}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl StoreError {
    pub(super) fn from_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        let reason = error.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => Self::Unwritable { path, reason },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { path, reason }
            }
            _ => Self::Io { path, reason },
        }
    }

    pub(super) fn from_fjall(path: &Path, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                Self::from_io(path, &error)
            }
            fjall::Error::Locked => Self::Locked(path.to_owned()),
            fjall::Error::Poisoned => Self::Failed(path.to_owned()),
            other => Self::Corrupt {
                path: path.to_owned(),
                reason: other.to_string(),
            },
        }
    }
}
