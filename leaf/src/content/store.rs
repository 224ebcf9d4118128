//! The disk of one fetch: a folder beside the target, `TARGET.part`, that holds
//! what has come and notes of it, until all is there and takes the target's name.
//!
//! All of it blocks; call it where that may be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bao_tree::io::sync::WriteAt;
use blake3::Hash;
use bytes::Bytes;
use parking_lot::Mutex;

use super::error::FetchError;
use super::journal::{self, Head, Note};
use super::layout::{Layout, MAX_PIECES};
use super::manifest;
use super::source::{Paths, Source};
use super::tree::{self, Proved};

/// Longest file of notes that is read: a note of each piece, and some twice.
const MAX_NOTES: u64 = MAX_PIECES as u64 * 256;

/// What a fetch has on disk.
#[derive(Debug)]
pub(super) struct Store {
    root: Hash,
    to: PathBuf,
    part: PathBuf,
    /// Locked for as long as the fetch runs. Notes are appended in turn.
    notes: Mutex<File>,
}

impl Store {
    /// Opens what is there of `root`, or begins anew. What is there is hashed
    /// again before it counts.
    pub(super) fn open(root: Hash, to: &Path) -> Result<(Self, Option<Arc<Source>>), FetchError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| FetchError::disk(&path, error)
        };
        let name = to.file_name().ok_or_else(|| FetchError::Name(to.into()))?;
        if to.symlink_metadata().is_ok() {
            return Err(FetchError::Exists(to.into()));
        }
        let mut part = name.to_owned();
        part.push(".part");
        let part = to.with_file_name(part);
        fs::create_dir_all(&part).map_err(failed(&part))?;
        let path = part.join("notes");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut notes = options.open(&path).map_err(failed(&path))?;
        if notes.try_lock().is_err() {
            return Err(FetchError::Running(part));
        }
        let mut data = Vec::new();
        let read = (&mut notes).take(MAX_NOTES).read_to_end(&mut data);
        read.map_err(failed(&path))?;
        let this = Self {
            root,
            to: to.to_owned(),
            part,
            notes: Mutex::new(notes),
        };
        let source = match journal::decode(&data) {
            Some((head, ..)) if head.root != root => return Err(FetchError::Other(this.part)),
            Some((head, notes, whole)) => {
                let file = this.notes.lock();
                file.set_len(whole as u64).map_err(failed(&path))?;
                drop(file);
                this.resume(&head, notes)?
            }
            // Cut off before it was said what is fetched.
            None => {
                this.notes.lock().set_len(0).map_err(failed(&path))?;
                None
            }
        };
        Ok((this, source))
    }

    fn paths(&self) -> Paths {
        Paths {
            root: self.part.join("data"),
            files: self.part.join("files"),
        }
    }

    /// Takes in the notes of an earlier run.
    fn resume(&self, head: &Head, notes: Vec<Note>) -> Result<Option<Arc<Source>>, FetchError> {
        if !tree::is_size(head.root, head.size, &head.proof) {
            self.write(|notes| notes.set_len(0))?;
            return Ok(None);
        }
        let source = self.source(head)?;
        self.unfold(&source)?;
        for note in notes {
            source.learn(note.piece, note.pairs);
            if !source.has(note.piece) && source.is_there(note.piece) {
                source.gained(note.piece);
                self.unfold(&source)?;
            }
        }
        Ok(Some(source))
    }

    fn source(&self, head: &Head) -> Result<Arc<Source>, FetchError> {
        let layout = Layout::of(head.root, head.size).ok_or(FetchError::TooLarge)?;
        let source = Source::nothing_of(layout, head.proof.clone(), self.paths());
        Ok(Arc::new(source))
    }

    fn write(&self, what: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FetchError> {
        let mut notes = self.notes.lock();
        let done = io::Seek::seek(&mut *notes, io::SeekFrom::End(0)).and_then(|_| what(&mut notes));
        done.map_err(|error| FetchError::disk(&self.part, error))
    }

    /// The size is known: notes it, with its proof.
    pub(super) fn begin(&self, size: u64, proof: &[u8]) -> Result<Arc<Source>, FetchError> {
        let head = Head {
            root: self.root,
            size,
            proof: proof.to_vec(),
        };
        let source = self.source(&head)?;
        self.write(|notes| notes.write_all(&head.encode()))?;
        self.unfold(&source)?;
        Ok(source)
    }

    /// Writes a piece whose proof holds, then notes it, then tells of it.
    pub(super) fn put(
        &self,
        source: &Source,
        piece: u32,
        proved: Proved,
    ) -> Result<(), FetchError> {
        let Some((path, at)) = source.target(piece) else {
            return Ok(());
        };
        let failed = |error| FetchError::disk(&path, error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        file.write_all_at(at, &proved.data).map_err(failed)?;
        let pairs = source.learn(piece, proved.pairs);
        self.write(|notes| notes.write_all(&Note { piece, pairs }.encode()))?;
        source.gained(piece);
        self.unfold(source)
    }

    /// Reads the manifest once it is whole, if it is one.
    fn unfold(&self, source: &Source) -> Result<(), FetchError> {
        let Some(path) = source.unread() else {
            return Ok(());
        };
        let data = fs::read(&path).map_err(|error| FetchError::disk(&path, error))?;
        if !manifest::is_manifest(&data) {
            return Ok(());
        }
        let bad = |error: manifest::ManifestError| FetchError::Manifest(error.to_string());
        let entries = manifest::decode(&data).map_err(bad)?;
        let layout = source.layout().with(&entries).ok_or(FetchError::TooLarge)?;
        source.unfold(Bytes::from(data), layout);
        Ok(())
    }

    /// All is there: gives it its name.
    pub(super) fn finish(&self, source: &Source) -> Result<(), FetchError> {
        let failed = |error| FetchError::disk(&self.to, error);
        let paths = source.paths();
        let folder = source.manifest().is_some();
        for blob in &source.layout().blobs()[usize::from(folder)..] {
            if blob.size == 0 {
                let path = paths.of(&blob.path);
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
                File::create(&path).map_err(failed)?;
            }
        }
        if folder {
            fs::create_dir_all(&paths.files).map_err(failed)?;
        }
        let to = Paths {
            root: self.to.clone(),
            files: self.to.clone(),
        };
        let moved = source.relocate(to, |paths| {
            let from = if folder { &paths.files } else { &paths.root };
            if self.to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, &self.to)
        });
        moved.map_err(failed)?;
        if let Err(error) = fs::remove_dir_all(&self.part) {
            tracing::warn!(part = %self.part.display(), %error, "fetch: what is left cannot be removed");
        }
        Ok(())
    }
}
