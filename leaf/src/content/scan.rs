//! Reads what is to be shared: finds the files of a folder and hashes them.
//!
//! All of it blocks; call it where that may be.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::error::ShareError;
use super::layout::Layout;
use super::manifest::{self, Entry, MAX_DEPTH, MAX_FILES, ManifestError};
use super::source::{Paths, Source};
use super::tree::Tree;

/// What a file looked like when it was hashed: it is hashed again when it does not
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) size: u64,
    /// Milliseconds since 1970.
    pub(super) modified_ms: u64,
}

impl Look {
    pub(super) fn of(about: &Metadata) -> Self {
        let since = about.modified().ok();
        let since = since.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
        Self {
            size: about.len(),
            modified_ms: since.map_or(0, |since| since.as_millis() as u64),
        }
    }
}

/// What was read, and what each file looked like, in order.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) source: Source,
    pub(super) looks: Vec<Look>,
}

/// Hashes a file, or all files of a folder; `hashed` hears of bytes.
pub(super) fn scan(path: &Path, hashed: impl FnMut(u64)) -> Result<Scanned, ShareError> {
    let about = fs::metadata(path).map_err(|error| unread(path, error))?;
    if about.is_dir() {
        return folder(path, hashed);
    }
    if !about.is_file() {
        return Err(ShareError::Kind(path.into()));
    }
    let (tree, look) = hash(path, hashed)?;
    let (size, root) = (tree.size(), tree.root());
    if size <= manifest::MAX_MANIFEST {
        let mut head = Vec::new();
        let file = File::open(path).map_err(|error| unread(path, error))?;
        let read = file.take(64).read_to_end(&mut head);
        read.map_err(|error| unread(path, error))?;
        if manifest::is_manifest(&head) {
            return Err(ShareError::Manifest(path.into()));
        }
    }
    let layout = Layout::of(root, size).ok_or_else(|| ShareError::TooLarge(path.into()))?;
    let paths = Paths {
        root: path.into(),
        files: PathBuf::new(),
    };
    let source = Source::whole(layout, vec![tree], None, paths);
    Ok(Scanned {
        source: source.map_err(|error| changed(path, error))?,
        looks: vec![look],
    })
}

fn folder(path: &Path, mut hashed: impl FnMut(u64)) -> Result<Scanned, ShareError> {
    let mut found = Vec::new();
    walk(path, path, &mut found, 0)?;
    found.sort_by(|a, b| manifest::in_order(a, b));
    let (mut entries, mut trees, mut looks) = (Vec::new(), Vec::new(), Vec::new());
    for name in found {
        let at = within(path, &name);
        let (tree, look) = hash(&at, &mut hashed)?;
        entries.push(Entry {
            path: name,
            size: tree.size(),
            hash: tree.root(),
        });
        trees.push(tree);
        looks.push(look);
    }
    let list = manifest::encode(&entries).map_err(|error| match error {
        ManifestError::Path(name) | ManifestError::Order(name) => {
            ShareError::Name(within(path, &name))
        }
        _ => ShareError::TooMany(path.into()),
    })?;
    assemble(path, Bytes::from(list), &entries, trees, looks)
}

/// A folder of which everything is known.
pub(super) fn assemble(
    path: &Path,
    list: Bytes,
    entries: &[Entry],
    trees: Vec<Tree>,
    looks: Vec<Look>,
) -> Result<Scanned, ShareError> {
    let too_large = || ShareError::TooLarge(path.into());
    let size = list.len() as u64;
    let own = Tree::hash(&list[..], size).map_err(|error| unread(path, error))?;
    let layout = Layout::of(own.root(), size).and_then(|layout| layout.with(entries));
    let layout = layout.ok_or_else(too_large)?;
    let trees = std::iter::once(own).chain(trees).collect();
    let paths = Paths {
        root: PathBuf::new(),
        files: path.into(),
    };
    let source = Source::whole(layout, trees, Some(list), paths);
    Ok(Scanned {
        source: source.map_err(|error| changed(path, error))?,
        looks,
    })
}

/// All files below a folder, hidden ones too; no link is followed.
fn walk(top: &Path, at: &Path, found: &mut Vec<String>, depth: usize) -> Result<(), ShareError> {
    if depth >= MAX_DEPTH {
        return Err(ShareError::TooMany(at.into()));
    }
    for entry in fs::read_dir(at).map_err(|error| unread(at, error))? {
        let entry = entry.map_err(|error| unread(at, error))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| unread(&path, error))?;
        if kind.is_dir() {
            walk(top, &path, found, depth + 1)?;
        } else if kind.is_file() {
            if found.len() >= MAX_FILES {
                return Err(ShareError::TooMany(top.into()));
            }
            let name = name_within(top, &path).filter(|name| manifest::is_safe(name));
            found.push(name.ok_or(ShareError::Name(path))?);
        }
    }
    Ok(())
}

fn name_within(top: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(top).ok()?.iter();
    let parts: Option<Vec<&str>> = parts.map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

pub(super) fn within(top: &Path, name: &str) -> PathBuf {
    name.split('/')
        .fold(top.to_owned(), |at, part| at.join(part))
}

fn hash(path: &Path, mut hashed: impl FnMut(u64)) -> Result<(Tree, Look), ShareError> {
    let failed = |error| unread(path, error);
    let file = File::open(path).map_err(failed)?;
    let look = Look::of(&file.metadata().map_err(failed)?);
    if Layout::of(blake3::hash(b""), look.size).is_none() {
        return Err(ShareError::TooLarge(path.into()));
    }
    let counted = Counted(&file, &mut hashed);
    let tree = Tree::hash(counted, look.size).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ShareError::Changed(path.into()),
        _ => failed(error),
    })?;
    match Look::of(&file.metadata().map_err(failed)?) == look {
        true => Ok((tree, look)),
        false => Err(ShareError::Changed(path.into())),
    }
}

struct Counted<'a, F>(&'a File, &'a mut F);

impl<F: FnMut(u64)> Read for Counted<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(into)?;
        (self.1)(count as u64);
        Ok(count)
    }
}

fn unread(path: &Path, source: io::Error) -> ShareError {
    ShareError::Read {
        path: path.into(),
        source,
    }
}

fn changed(path: &Path, error: io::Error) -> ShareError {
    match error.kind() {
        io::ErrorKind::InvalidData => ShareError::Changed(path.into()),
        _ => unread(path, error),
    }
}
