//! Files and folders as items: what `leaf publish` and the demo make
//! searchable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use canopy_core::text;
use ignore::WalkBuilder;

use crate::client::Item;

/// Most files of one scan; the list of them is kept in memory.
pub const MAX_FILES: usize = 100_000;
/// So much of a text is searchable, bytes.
const TEXT: usize = 64 * 1024;
/// So much of a text's beginning is kept with the item, characters.
const EXCERPT: usize = 120;
/// Words of one file; the item is stored once for each.
const MAX_WORDS: usize = 32;

/// Why a scan gave no list of files.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// What was given cannot be read.
    #[error("cannot read {path}: {reason}", path = .path.display())]
    Unreadable {
        /// What was given.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There are too many files.
    #[error("more than {MAX_FILES} files; publish the folders one by one")]
    TooMany,
    /// Two files would have one name.
    #[error("{first} and {second} would both be published as {name:?}; publish them one by one from another folder", first = .first.display(), second = .second.display())]
    Twice {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

/// A file to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it will be called: its path below the folder that was given, with
    /// `/` between the parts.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Lists all files below `paths`, by name. `.git` and symbolic links are left
/// out; hidden and ignored files as well, unless `all` is set.
pub fn scan(paths: &[PathBuf], all: bool) -> Result<Vec<Found>, ScanError> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for root in paths {
        if let Err(error) = std::fs::metadata(root) {
            return Err(ScanError::Unreadable {
                path: root.clone(),
                reason: error.to_string(),
            });
        }
        for path in files(root, all) {
            let name = name_of(root, &path);
            if let Some(first) = found.insert(name.clone(), path.clone())
                && first != path
            {
                return Err(ScanError::Twice {
                    name,
                    first,
                    second: path,
                });
            }
            if found.len() > MAX_FILES {
                return Err(ScanError::TooMany);
            }
        }
    }
    let found = found.into_iter().map(|(name, path)| Found { name, path });
    Ok(found.collect())
}

fn files(root: &Path, all: bool) -> impl Iterator<Item = PathBuf> {
    let walk = WalkBuilder::new(root)
        .standard_filters(!all)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    walk.filter_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
            Some(entry.into_path())
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "left out");
            None
        }
    })
}

fn name_of(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let below = match below.as_os_str().is_empty() {
        true => path.file_name().map(Path::new).unwrap_or(path),
        false => below,
    };
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// Reads one file: size, type, BLAKE3 of the content, and the words of its name
/// and, for a text, of its beginning. Blocks.
pub fn describe(found: &Found) -> io::Result<Item> {
    let mut file = File::open(&found.path)?;
    let mut head = Vec::new();
    (&mut file).take(TEXT as u64).read_to_end(&mut head)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    let rest = io::copy(&mut file, &mut hasher)?;
    let text = as_text(&head);
    let guess = mime_guess::from_path(&found.path).first_raw();
    let media_type = match (guess, text) {
        // Program text is often taken for a film: `.ts`.
        (Some(guess), Some(_)) if guess.starts_with("video/") || guess.starts_with("audio/") => {
            "text/plain"
        }
        (Some(guess), _) => guess,
        (None, Some(_)) => "text/plain",
        (None, None) => "application/octet-stream",
    };
    let mut item = Item::new(&found.name)
        .size(head.len() as u64 + rest)
        .media_type(media_type)
        .content(hasher.finalize());
    if let Some(text) = text {
        item = item.text(excerpt(text)).words(first_words(text));
    }
    Ok(item)
}

/// The head of a file as text, if it is one. A character may be cut at the end.
fn as_text(head: &[u8]) -> Option<&str> {
    if head.contains(&0) {
        return None;
    }
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// The parts of `text` that bring its first [`MAX_WORDS`] distinct words.
fn first_words(text: &str) -> String {
    let (mut known, mut out) = (BTreeSet::new(), String::new());
    for part in text.split_whitespace() {
        if known.len() >= MAX_WORDS {
            break;
        }
        // Scripts without spaces make long parts; their beginning will do.
        let part = part
            .char_indices()
            .nth(MAX_WORDS)
            .map_or(part, |(end, _)| &part[..end]);
        let before = known.len();
        known.extend(text::terms(part));
        if known.len() > before {
            out.push_str(part);
            out.push(' ');
        }
    }
    out
}

fn excerpt(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(base: &Path, name: &str, data: impl AsRef<[u8]>) {
        let path = base.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    fn names(paths: &[PathBuf], all: bool) -> Vec<String> {
        scan(paths, all)
            .unwrap()
            .into_iter()
            .map(|found| found.name)
            .collect()
    }

    #[test]
    fn files_are_named_by_their_path_and_private_ones_are_left_out() {
        let base = tempfile::tempdir().unwrap();
        for name in [
            ".git/config",
            ".env",
            "b/c.txt",
            "a.rs",
            "target/x",
            ".gitignore",
        ] {
            write(base.path(), name, "target\n");
        }
        let paths = [base.path().to_owned()];
        assert_eq!(names(&paths, false), ["a.rs", "b/c.txt"]);
        assert_eq!(
            names(&paths, true),
            [".env", ".gitignore", "a.rs", "b/c.txt", "target/x"]
        );
        assert_eq!(names(&[base.path().join("b/c.txt")], false), ["c.txt"]);
    }

    #[test]
    fn two_files_of_one_name_are_an_error() {
        let base = tempfile::tempdir().unwrap();
        write(base.path(), "one/a.txt", "1");
        write(base.path(), "two/a.txt", "2");
        let paths = [base.path().join("one"), base.path().join("two")];
        assert!(matches!(scan(&paths, false), Err(ScanError::Twice { .. })));
        let twice = [base.path().join("one"), base.path().join("one")];
        assert_eq!(names(&twice, false), ["a.txt"]);
        let missing = [base.path().join("none")];
        assert!(matches!(
            scan(&missing, false),
            Err(ScanError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_file_is_described_by_name_text_and_hash() {
        let base = tempfile::tempdir().unwrap();
        write(base.path(), "red-panda.txt", "A  panda eats\nbamboo 竹");
        write(base.path(), "data.bin", [0, 1, 2]);
        let large = "é".repeat(TEXT);
        write(base.path(), "large", &large);
        let found = scan(&[base.path().to_owned()], false).unwrap();
        let item =
            |name: &str| describe(found.iter().find(|found| found.name == name).unwrap()).unwrap();
        let panda = item("red-panda.txt");
        assert_eq!(panda.media_type, "text/plain");
        assert_eq!(panda.text, "A panda eats bamboo 竹");
        assert_eq!(
            panda.content,
            Some(blake3::hash("A  panda eats\nbamboo 竹".as_bytes()))
        );
        for word in ["red", "panda", "bamboo", "竹"] {
            assert!(panda.terms().iter().any(|term| term == word), "{word}");
        }
        let many: Vec<String> = (0..1_000).map(|i| format!("w{i} w0")).collect();
        assert_eq!(text::terms(&first_words(&many.join(" "))).len(), MAX_WORDS);
        let binary = item("data.bin");
        assert_eq!((binary.size, binary.text.as_str()), (3, ""));
        let large_item = item("large");
        assert_eq!(large_item.size, 2 * TEXT as u64);
        assert_eq!(large_item.content, Some(blake3::hash(large.as_bytes())));
        assert_eq!(large_item.media_type, "text/plain");
    }
}
