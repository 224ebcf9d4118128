//! Secret keys in files: 64 hexadecimal digits, mode 600.
//!
//! A key that exists is never replaced, whatever is wrong with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;

use crate::data_dir::read_bounded;

/// No file that is read here is longer, bytes.
const MAX_FILE: u64 = 4096;

/// Why an operator's key file cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read or written.
    #[error("cannot use the key file {path}: {source}; check the path, its owner and mode", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is there already.
    #[error("{path} exists and is not replaced: a lost operator key cannot be made again; choose another name", path = .0.display())]
    Exists(PathBuf),
    /// It holds no key.
    #[error("{path} is no key of 64 hexadecimal digits; restore it from a backup, or make one with `supernode operator-key`", path = .0.display())]
    NotAKey(PathBuf),
    /// Other users may read it.
    #[error("the key file {path} can be read by other users (mode {mode:o}); run `chmod 600 {path}`, and make a new key if somebody may have seen it", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Makes a new key and writes it to `path`, which must not exist.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn create(path: &Path) -> Result<Identity, SecretError> {
    let identity = Identity::from_secret(rand::random());
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretError::Exists(path.to_owned()),
        _ => SecretError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let mut file = private_file(path).map_err(failed)?;
    let write = file.write_all(format(&identity).as_bytes());
    write.and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(identity)
}

/// Reads the key in `path`, which nobody but its owner may read.
///
/// # Errors
/// The file cannot be read, is open to others, or holds no key.
pub fn read(path: &Path) -> Result<Identity, SecretError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidData => SecretError::NotAKey(path.to_owned()),
        _ => SecretError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let mode = open_to_others(path).map_err(failed)?;
    if let Some(mode) = mode {
        return Err(SecretError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let text = read_small(path).map_err(failed)?;
    parse(text.trim()).ok_or_else(|| SecretError::NotAKey(path.to_owned()))
}

/// As a key file holds it.
pub(crate) fn format(identity: &Identity) -> String {
    // Keys are written as node ids are: 64 hexadecimal digits.
    format!("{}\n", NodeId(identity.secret()))
}

pub(crate) fn parse(text: &str) -> Option<Identity> {
    let secret: NodeId = text.parse().ok()?;
    Some(Identity::from_secret(secret.0))
}

/// Reads a text file that ought to be short; one that is not, or is no text,
/// is [`io::ErrorKind::InvalidData`].
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    read_text(path, MAX_FILE)
}

/// The same of up to `most` bytes.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let bytes = read_bounded(path, most)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A new file that only its owner may read.
#[cfg(unix)]
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// A new file.
#[cfg(not(unix))]
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// The permission bits of a file that others than its owner may use.
#[cfg(unix)]
pub(crate) fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Not known on this system.
#[cfg(not(unix))]
pub(crate) fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    fs::metadata(path).map(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.key");
        let made = create(&path).unwrap();
        assert_eq!(read(&path).unwrap().node_id(), made.node_id());
        assert!(matches!(create(&path), Err(SecretError::Exists(_))));
        assert_eq!(read(&path).unwrap().node_id(), made.node_id());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.key");
        create(&path).unwrap();
        assert_eq!(open_to_others(&path).unwrap(), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for damage in ["", "12", &"a".repeat(10_000)] {
            let path = dir.path().join(format!("{}.key", damage.len()));
            private_file(&path)
                .and_then(|mut file| file.write_all(damage.as_bytes()))
                .unwrap();
            assert!(matches!(read(&path), Err(SecretError::NotAKey(_))));
        }
        let missing = read(&dir.path().join("missing"));
        assert!(matches!(missing, Err(SecretError::Io { .. })));
    }
}
