//! What a leaf with a data directory shares, kept over restarts: for each content
//! a file with its path, what its files looked like, and all hashes, so that
//! nothing is hashed again.
//!
//! All of it blocks; call it where that may be.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use blake3::Hash;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::manifest::{self, Entry};
use super::scan::{self, Look, Scanned};
use super::source::{Paths, Source};
use super::tree::Tree;

/// What a file begins with.
const MAGIC: &[u8] = b"canopy share 1\n";

/// The directory of what is kept.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    all: Mutex<HashSet<Hash>>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    /// The file or folder.
    path: PathBuf,
    folder: bool,
    files: Vec<Known>,
}

#[derive(Serialize, Deserialize)]
struct Known {
    name: String,
    size: u64,
    modified_ms: u64,
    hash: String,
}

impl Kept {
    /// Of the directory `path`, which is made when there is something to keep.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            all: Mutex::default(),
        }
    }

    pub(super) fn has(&self, content: &Hash) -> bool {
        self.all.lock().contains(content)
    }

    fn file(&self, content: &Hash) -> PathBuf {
        self.path.join(content.to_hex().as_str())
    }

    /// Keeps what was read.
    pub(super) fn keep(&self, scanned: &Scanned) -> io::Result<()> {
        let source = &scanned.source;
        let (layout, folder) = (source.layout(), source.manifest().is_some());
        let blobs = layout.blobs()[usize::from(folder)..].iter();
        let files = blobs.zip(&scanned.looks).map(|(blob, look)| Known {
            name: blob.path.clone(),
            size: blob.size,
            modified_ms: look.modified_ms,
            hash: blob.hash.to_string(),
        });
        let paths = source.paths();
        let head = Head {
            path: if folder { paths.files } else { paths.root },
            folder,
            files: files.collect(),
        };
        let head = serde_json::to_vec(&head).map_err(io::Error::other)?;
        let content = source.root();
        let (to, new) = (self.file(&content), self.path.join("new"));
        fs::create_dir_all(&self.path)?;
        let mut file = fs::File::create(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&(head.len() as u32).to_be_bytes())?;
        file.write_all(&head)?;
        file.write_all(&source.pairs())?;
        file.sync_all()?;
        fs::rename(&new, &to)?;
        self.all.lock().insert(content);
        Ok(())
    }

    /// Keeps it no more. False: it was not kept.
    pub(super) fn drop(&self, content: &Hash) -> io::Result<bool> {
        self.all.lock().remove(content);
        match fs::remove_file(self.file(content)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether anything is kept.
    pub(super) fn any(&self) -> bool {
        fs::read_dir(&self.path).is_ok_and(|mut files| files.next().is_some())
    }

    /// All that is kept and still as it was. The rest is told of and left alone: a
    /// disk may be away for a while.
    pub(super) fn load(&self) -> Vec<Source> {
        let Ok(files) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let mut sources = Vec::new();
        for file in files.flatten() {
            let name = file.file_name();
            let Some(content) = name.to_str().and_then(|name| Hash::from_hex(name).ok()) else {
                continue;
            };
            self.all.lock().insert(content);
            match read(&file.path()) {
                Ok(source) if source.root() == content => sources.push(source),
                Ok(_) => tracing::warn!(%content, "share: what is kept of it is another's"),
                Err(error) => {
                    tracing::warn!(%content, %error, "share: not offered; share it again, or unshare it");
                }
            }
        }
        sources
    }
}

fn read(path: &Path) -> io::Result<Source> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "what is kept of it is damaged");
    let data = fs::read(path)?;
    let rest = data.strip_prefix(MAGIC).ok_or_else(bad)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(bad)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (head, pairs) = rest.split_at_checked(length).ok_or_else(bad)?;
    let head: Head = serde_json::from_slice(head).map_err(|_| bad())?;
    let mut entries = Vec::new();
    for file in &head.files {
        entries.push(Entry {
            path: file.name.clone(),
            size: file.size,
            hash: Hash::from_hex(&file.hash).map_err(|_| bad())?,
        });
    }
    let mut looks = Vec::new();
    for file in &head.files {
        let at = match head.folder {
            true => scan::within(&head.path, &file.name),
            false => head.path.clone(),
        };
        let look = Look {
            size: file.size,
            modified_ms: file.modified_ms,
        };
        let now = fs::metadata(&at).map(|about| Look::of(&about));
        if !now.is_ok_and(|now| now == look) {
            return Err(io::Error::other(format!("{} has changed", at.display())));
        }
        looks.push(look);
    }
    // A manifest's own hashes come first, and are made anew.
    let list = match head.folder {
        true => Some(Bytes::from(
            manifest::encode(&entries).map_err(io::Error::other)?,
        )),
        false => None,
    };
    let own = list
        .as_ref()
        .map(|list| Tree::hash(&list[..], list.len() as u64));
    let own = own.transpose()?.map_or(0, |own| own.pairs().len());
    let mut pairs = pairs.get(own..).ok_or_else(bad)?;
    let mut trees = Vec::new();
    for entry in &entries {
        let length = Tree::empty(entry.hash, entry.size).pairs().len();
        let (these, rest) = pairs.split_at_checked(length).ok_or_else(bad)?;
        let tree = Tree::of_pairs(entry.hash, entry.size, these);
        trees.push(tree.ok_or_else(bad)?);
        pairs = rest;
    }
    match list {
        Some(list) => {
            let scanned = scan::assemble(&head.path, list, &entries, trees, looks);
            Ok(scanned.map_err(io::Error::other)?.source)
        }
        None => {
            let [entry] = &entries[..] else {
                return Err(bad());
            };
            let layout = Layout::of(entry.hash, entry.size).ok_or_else(bad)?;
            let paths = Paths {
                root: head.path,
                files: PathBuf::new(),
            };
            Source::whole(layout, trees, None, paths)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_offered_again_without_hashing_unless_it_changed() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("folder");
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/a"), vec![7; 3 << 20]).unwrap();
        fs::write(folder.join("b"), b"").unwrap();
        let file = base.path().join("file");
        fs::write(&file, vec![3; (2 << 20) + 1]).unwrap();

        let shares = base.path().join("shares");
        let kept = Kept::new(shares.clone());
        assert!(!kept.any());
        let mut all = Vec::new();
        for path in [&folder, &file] {
            let scanned = scan::scan(path, |_| {}).unwrap();
            kept.keep(&scanned).unwrap();
            all.push((scanned.source.root(), scanned.source.pairs()));
        }
        let kept = Kept::new(shares);
        assert!(kept.any());
        let mut again: Vec<_> = kept.load().iter().map(|s| (s.root(), s.pairs())).collect();
        all.sort_by_key(|(root, _)| *root.as_bytes());
        again.sort_by_key(|(root, _)| *root.as_bytes());
        assert_eq!(again, all);

        fs::write(&file, b"another").unwrap();
        let left = kept.load();
        assert_eq!(left.len(), 1);
        assert!(left[0].prove(1).is_ok());
        let root = left[0].root();
        assert!(kept.has(&root) && kept.drop(&root).unwrap());
        assert!(!kept.drop(&root).unwrap());
    }
}
