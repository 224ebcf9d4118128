//! Why something cannot be shared or fetched.

use std::io;
use std::path::{Path, PathBuf};

use blake3::Hash;
use canopy_overlay::fabric::link::LinkError;

use super::manifest::MAX_FILES;
use crate::client::Error;

/// Why a path is not shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}; check the path, its owner and mode", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is neither a file nor a folder.
    #[error("{path} is neither a file nor a folder; share one of these", path = .0.display())]
    Kind(PathBuf),
    /// A name that not every system takes.
    #[error("not every system takes the name {path}; rename it, and share the folder again", path = .0.display())]
    Name(PathBuf),
    /// More files than one folder may have, or too deep.
    #[error("{path} has over {MAX_FILES} files, or too long a list of them; share its folders one by one", path = .0.display())]
    TooMany(PathBuf),
    /// Over 256 GiB.
    #[error("{path} is over 256 GiB, or has too many files; share parts of it", path = .0.display())]
    TooLarge(PathBuf),
    /// A file that others would take for a folder.
    #[error("{path} begins like the list of files of a shared folder; pack it into an archive and share that", path = .0.display())]
    Manifest(PathBuf),
    /// A file changed while it was hashed.
    #[error("{path} changed while it was read; share it again when it is finished", path = .0.display())]
    Changed(PathBuf),
    /// This leaf shares as much as it may.
    #[error("this leaf shares {0} contents, the most it may; unshare some first")]
    Full(usize),
    /// The operator banned it.
    #[error("the network's operator banned the content {0}")]
    Banned(Hash),
    /// Others cannot come to this leaf.
    #[error("this leaf takes no links: {0}")]
    Links(#[from] LinkError),
    /// It cannot be announced.
    #[error("it cannot be announced: {0}")]
    Overlay(#[from] Error),
    /// What is shared could not be noted.
    #[error("cannot note in {path} what is shared: {source}; free space, or check its owner and mode", path = .path.display())]
    Note {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a content was not fetched. What has come is kept: a fetch to the same path
/// goes on from there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// This leaf has it.
    #[error("this leaf shares that itself, from {path}; copy it from there", path = .0.display())]
    Own(PathBuf),
    /// It is fetched already.
    #[error("{0} is being fetched already; wait for that")]
    Twice(Hash),
    /// Something is there already.
    #[error("{path} exists; move it away, or fetch to another path", path = .0.display())]
    Exists(PathBuf),
    /// A path without a name at its end.
    #[error("{path} names no file or folder to make; give the path of a new one", path = .0.display())]
    Name(PathBuf),
    /// Another fetch writes there.
    #[error("another fetch writes to {path}; wait for it, or fetch to another path", path = .0.display())]
    Running(PathBuf),
    /// An unfinished fetch of something else is there.
    #[error("{path} holds an unfinished fetch of another content; remove it, or fetch to another path", path = .0.display())]
    Other(PathBuf),
    /// The disk is full.
    #[error("no space is left for {path}; free some and fetch again: what has come is kept", path = .0.display())]
    Full(PathBuf),
    /// The disk failed otherwise.
    #[error("cannot write {path}: {reason}; check the path, its owner and mode, and fetch again: what has come is kept", path = .path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Over 256 GiB, or too many files.
    #[error("the content is over 256 GiB, or has too many files, and cannot be fetched")]
    TooLarge,
    /// A folder whose list of files is refused.
    #[error("the list of files of this folder is refused: {0}; ask who shared it")]
    Manifest(String),
    /// The operator banned it.
    #[error("the network's operator banned the content {0}")]
    Banned(Hash),
    /// Nobody announced it.
    #[error("nobody shares {0} now; check the hash, and that a leaf that shares it runs")]
    NoProvider(Hash),
    /// Providers are announced, and none of them sends anything.
    #[error(
        "{providers} leaves announced {content} and none of them sends it ({last}); fetch again later: what has come is kept"
    )]
    Stalled {
        /// What was fetched.
        content: Hash,
        /// How many leaves were tried.
        providers: usize,
        /// What the last one said.
        last: String,
    },
    /// Too many fetches.
    #[error("{0} fetches are under way, the most a leaf does at once; wait for one to end")]
    TooMany(usize),
    /// The leaf has no links.
    #[error("this leaf opens no links: {0}")]
    Links(#[from] LinkError),
    /// The index does not answer.
    #[error("cannot find out who shares it: {0}")]
    Overlay(#[from] Error),
    /// The leaf closes, or the task was lost.
    #[error("the fetch broke off because this leaf is closing; fetch again: what has come is kept")]
    Closed,
}

impl FetchError {
    pub(super) fn disk(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            io::ErrorKind::AlreadyExists => Self::Exists(path),
            _ => Self::Disk {
                path,
                reason: error.to_string(),
            },
        }
    }
}
