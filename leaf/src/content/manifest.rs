//! What a folder holds, as a content of its own: a line that says so, then the
//! list of its files. The same files give the same bytes and so the same hash.
//!
//! A manifest comes from others: a path may only lead to a place within the
//! folder, whatever the system.

use blake3::Hash;
use canopy_proto::{Message, wire};

/// What a manifest begins with.
const MAGIC: &[u8] = b"canopy folder 1\n";
/// Largest manifest, bytes.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Most files of one folder.
pub const MAX_FILES: usize = 32_768;
/// Longest path within a folder, bytes.
const MAX_PATH: usize = 1024;
/// Longest part of a path, bytes: what file systems take.
const MAX_NAME: usize = 255;
/// Deepest folder within the folder.
pub(super) const MAX_DEPTH: usize = 64;

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Within the folder, parts divided by `/`.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) hash: Hash,
}

/// Why a list of files is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("{0:?} is no path that every system takes within a folder")]
    Path(String),
    #[error("{0:?} is there twice, or both a file and a folder, or out of order")]
    Order(String),
    #[error("it has over {MAX_FILES} files")]
    Files,
    #[error("its list of files is over 4 MiB")]
    Size,
    #[error("it cannot be read")]
    Shape,
}

/// Whether data may be a manifest: then it is to be read as one.
pub(super) fn is_manifest(data: &[u8]) -> bool {
    data.starts_with(MAGIC)
}

/// The manifest of these files, in the order of their paths.
pub(super) fn encode(entries: &[Entry]) -> Result<Vec<u8>, ManifestError> {
    check(entries)?;
    let files = entries.iter().map(|entry| wire::ContentFile {
        path: entry.path.clone(),
        size: entry.size,
        hash: entry.hash.as_bytes().to_vec().into(),
    });
    let manifest = wire::ContentManifest {
        files: files.collect(),
    };
    let mut data = MAGIC.to_vec();
    // A vector grows; this cannot fail.
    manifest
        .encode(&mut data)
        .map_err(|_| ManifestError::Shape)?;
    match data.len() as u64 > MAX_MANIFEST {
        true => Err(ManifestError::Size),
        false => Ok(data),
    }
}

/// Reads a manifest, which may come from anybody.
pub(super) fn decode(data: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if data.len() as u64 > MAX_MANIFEST {
        return Err(ManifestError::Size);
    }
    let list = data.strip_prefix(MAGIC).ok_or(ManifestError::Shape)?;
    let manifest = wire::ContentManifest::decode(list).map_err(|_| ManifestError::Shape)?;
    let entry = |file: wire::ContentFile| {
        let hash: [u8; 32] = file.hash.as_ref().try_into().ok()?;
        Some(Entry {
            path: file.path,
            size: file.size,
            hash: hash.into(),
        })
    };
    let entries: Option<Vec<Entry>> = manifest.files.into_iter().map(entry).collect();
    let entries = entries.ok_or(ManifestError::Shape)?;
    check(&entries)?;
    Ok(entries)
}

/// Paths are compared part by part, so that what is in a folder stands together.
pub(super) fn in_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

fn check(entries: &[Entry]) -> Result<(), ManifestError> {
    if entries.len() > MAX_FILES {
        return Err(ManifestError::Files);
    }
    for entry in entries {
        if !is_safe(&entry.path) {
            return Err(ManifestError::Path(entry.path.clone()));
        }
    }
    for pair in entries.windows(2) {
        let [a, b] = [&pair[0].path, &pair[1].path];
        // In this order a folder's content comes right after its name.
        let within = b.strip_prefix(a.as_str());
        let within = within.is_some_and(|rest| rest.starts_with('/'));
        if in_order(a, b) != std::cmp::Ordering::Less || within {
            return Err(ManifestError::Order(b.clone()));
        }
    }
    Ok(())
}

/// Whether a path leads to a place within the folder it is in, on every system.
pub(super) fn is_safe(path: &str) -> bool {
    let part = |part: &str| {
        let odd = |c: char| c.is_control() || c == '\\' || c == ':';
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= MAX_NAME
            && !part.chars().any(odd)
    };
    path.len() <= MAX_PATH && path.split('/').count() <= MAX_DEPTH && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.into(),
            size: 3,
            hash: blake3::hash(path.as_bytes()),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let entries = ["a b.txt", "folder/deep/x", "folder/y", "ä"].map(entry);
        let data = encode(&entries).unwrap();
        assert!(is_manifest(&data));
        assert_eq!(decode(&data).unwrap(), entries);
        assert_eq!(decode(&encode(&[]).unwrap()).unwrap(), []);
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for path in [
            "",
            "/etc/passwd",
            "..",
            "a/../../b",
            "a//b",
            "a/",
            "./a",
            "a\\..\\b",
            "C:evil",
            "a\0b",
            "a\nb",
        ] {
            assert!(!is_safe(path), "{path:?}");
            assert!(encode(&[entry(path)]).is_err());
        }
        assert!(!is_safe(&"a".repeat(256)));
        assert!(!is_safe(&vec!["a"; 65].join("/")));
        assert!(is_safe("..a/b..c/.hidden"));
    }

    #[test]
    fn a_path_is_there_once_and_is_a_file_or_a_folder() {
        for paths in [["a", "a"], ["b", "a"], ["a", "a/b"]] {
            let entries = paths.map(entry);
            assert!(matches!(encode(&entries), Err(ManifestError::Order(_))));
        }
        // "a.b" sorts between "a" and "a/b" by bytes, not by parts.
        let entries = ["a", "a.b", "a.c/d"].map(entry);
        assert!(encode(&entries).is_ok());
        let entries = ["a", "a.b", "a/b"].map(entry);
        assert!(encode(&entries).is_err());
    }

    proptest! {
        #[test]
        fn no_input_is_a_panic(data: Vec<u8>) {
            let _ = decode(&data);
            let _ = decode(&[MAGIC, &data[..]].concat());
        }
    }
}
