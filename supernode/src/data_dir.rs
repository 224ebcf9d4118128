//! What a peer keeps on disk: its key, the port it listened on, where its API
//! is, and the lock that keeps a second process out.
//!
//! | file | what |
//! |---|---|
//! | `key` | the secret key, 64 hexadecimal digits, mode 600 |
//! | `port` | the port listened on last, so that a restart comes back there |
//! | `api` | the API's address, while a daemon runs |
//! | `control` | the control plane's address, while a host runs |
//! | `designation` | the operator's word that this peer serves, where there is one |
//! | `cordoned` | there while the operator wants the peer to take on nothing new |
//! | `lock` | held by the process that uses the directory |
//!
//! It must never replace a key that it cannot read.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use canopy_core::identity::Identity;
use canopy_proto::limits;

use crate::secret::{self, read_small};

/// Numbered directories tried beside the default one.
const MAX_SIBLINGS: u32 = 64;

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made, read or written.
    #[error("cannot use the data directory {path}: {source}; check its owner, mode and free space, or give another with --data-dir", path = .path.display())]
    Io {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the data directory {path} is in use by another process; stop it, or give another with --data-dir", path = .0.display())]
    Locked(PathBuf),
    /// The key file is damaged.
    #[error("{path} is no key of 64 hexadecimal digits; restore it from a backup, or move it away to start as a new peer that cannot change what the old one wrote", path = .0.display())]
    CorruptKey(PathBuf),
    /// There is no home directory to put the default into.
    #[error("no home directory is known; give --data-dir")]
    NoHome,
}

/// An open data directory. The lock lasts as long as this value.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where needed (mode 700) and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_private(path).map_err(io_error(path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io_error(&lock_path)(source)),
        }
    }

    /// Opens the first of `path`, `path-2`, `path-3`... that is not in use, so
    /// that several leaves of one user need not be told apart by hand.
    pub fn open_free(path: &Path) -> Result<Self, DataDirError> {
        for sibling in siblings(path) {
            match Self::open(&sibling) {
                Err(DataDirError::Locked(_)) => {}
                outcome => return outcome,
            }
        }
        Err(DataDirError::Locked(path.to_owned()))
    }

    /// Where leaves keep their data if nothing is said: `canopy/leaf` below
    /// `$XDG_DATA_HOME`, else below `~/.local/share`.
    pub fn default_path() -> Result<PathBuf, DataDirError> {
        Self::default_path_of("leaf")
    }

    /// The same for another program.
    pub fn default_path_of(program: &str) -> Result<PathBuf, DataDirError> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let base = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        Ok(base
            .ok_or(DataDirError::NoHome)?
            .join("canopy")
            .join(program))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity kept here; made at the first call.
    pub fn identity(&self) -> Result<Identity, DataDirError> {
        let path = self.path.join("key");
        match read_small(&path) {
            Ok(text) => {
                let identity = secret::parse(text.trim());
                let identity = identity.ok_or_else(|| DataDirError::CorruptKey(path.clone()))?;
                keep_private(&path).map_err(io_error(&path))?;
                Ok(identity)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::from_secret(rand::random());
                self.write("key", secret::format(&identity).as_bytes())?;
                Ok(identity)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(DataDirError::CorruptKey(path))
            }
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// The port listened on last.
    pub fn port(&self) -> Option<u16> {
        // Damaged or absent: any port will do.
        read_small(&self.path.join("port"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Remembers the port for the next start.
    pub fn remember_port(&self, port: u16) -> Result<(), DataDirError> {
        match self.port() == Some(port) {
            true => Ok(()),
            false => self.write("port", format!("{port}\n").as_bytes()),
        }
    }

    /// The designation kept here, as it was given; `None`: there is none.
    pub fn designation(&self) -> Result<Option<Vec<u8>>, DataDirError> {
        let path = self.path.join("designation");
        match read_bounded(&path, limits::MANDATE as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Keeps a designation for the next start.
    pub fn keep_designation(&self, bytes: &[u8]) -> Result<(), DataDirError> {
        self.write("designation", bytes)
    }

    /// Whether the operator wants this peer to take on nothing new.
    pub fn cordoned(&self) -> bool {
        self.path.join("cordoned").exists()
    }

    /// Remembers that over a restart, or that it is over.
    pub fn set_cordoned(&self, on: bool) -> Result<(), DataDirError> {
        if on {
            return self.write("cordoned", b"");
        }
        let path = self.path.join("cordoned");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Tells commands where the daemon's API is.
    pub fn announce_api(&self, addr: SocketAddr) -> Result<(), DataDirError> {
        self.write("api", format!("{addr}\n").as_bytes())
    }

    /// The API is no more.
    pub fn withdraw_api(&self) {
        // Left behind, it leads commands to an error that says the same.
        let _ = fs::remove_file(self.path.join("api"));
    }

    /// Where the daemon that uses `path` has its API, if one does.
    pub fn api_of(path: &Path) -> Option<SocketAddr> {
        addr_in(path, "api")
    }

    /// The same for a directory and its numbered siblings.
    pub fn apis_beside(path: &Path) -> Vec<SocketAddr> {
        addrs_beside(path, Self::api_of)
    }

    /// Tells commands where the host's control plane is.
    pub fn announce_control(&self, addr: SocketAddr) -> Result<(), DataDirError> {
        self.write("control", format!("{addr}\n").as_bytes())
    }

    /// The control plane is no more.
    pub fn withdraw_control(&self) {
        // Left behind, it leads commands to an error that says the same.
        let _ = fs::remove_file(self.path.join("control"));
    }

    /// Where the host that uses `path` has its control plane, if one does.
    pub fn control_of(path: &Path) -> Option<SocketAddr> {
        addr_in(path, "control")
    }

    /// The same for a directory and its numbered siblings.
    pub fn controls_beside(path: &Path) -> Vec<SocketAddr> {
        addrs_beside(path, Self::control_of)
    }

    /// Writes a whole file or nothing, mode 600.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), DataDirError> {
        let (path, fresh) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || -> io::Result<()> {
            // Only a crash half-way leaves one; the lock keeps others out.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = secret::private_file(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(io_error(&path))
    }
}

fn addr_in(path: &Path, name: &str) -> Option<SocketAddr> {
    read_small(&path.join(name)).ok()?.trim().parse().ok()
}

fn addrs_beside(path: &Path, of: impl Fn(&Path) -> Option<SocketAddr>) -> Vec<SocketAddr> {
    siblings(path)
        .take_while(|sibling| sibling.exists())
        .filter_map(|sibling| of(&sibling))
        .collect()
}

fn siblings(path: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    std::iter::once(path.to_owned()).chain((2..=MAX_SIBLINGS).map(numbered))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        path: path.clone(),
        source,
    }
}

/// The first `limit` bytes and one more of a file: enough to see that it is
/// longer than it may be.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(unix)]
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(not(unix))]
fn make_private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Takes a key away from other users, should it have been copied openly.
#[cfg(unix)]
fn keep_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if secret::open_to_others(path)?.is_none() {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "the key was readable by others; mode set to 600");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn keep_private(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        let first = dir.identity().unwrap().node_id();
        assert_eq!(dir.identity().unwrap().node_id(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!((mode(&path), mode(&path.join("key"))), (0o700, 0o600));
            let open = fs::Permissions::from_mode(0o644);
            fs::set_permissions(path.join("key"), open).unwrap();
            dir.identity().unwrap();
            assert_eq!(mode(&path.join("key")), 0o600);
        }
        drop(dir);
        let again = DataDir::open(&path).unwrap();
        assert_eq!(again.identity().unwrap().node_id(), first);
    }

    #[test]
    fn a_damaged_key_is_reported_and_never_replaced() {
        let base = tempfile::tempdir().unwrap();
        let dir = DataDir::open(base.path()).unwrap();
        let long = "a".repeat(10_000);
        for damage in ["", "12", "zz", &long] {
            fs::write(base.path().join("key"), damage).unwrap();
            assert!(matches!(dir.identity(), Err(DataDirError::CorruptKey(_))));
            assert_eq!(fs::read_to_string(base.path().join("key")).unwrap(), damage);
        }
        fs::write(base.path().join("key"), [0xff, 0xfe]).unwrap();
        assert!(matches!(dir.identity(), Err(DataDirError::CorruptKey(_))));
    }

    #[test]
    fn one_process_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("leaf");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        let second = DataDir::open_free(&path).unwrap();
        assert_eq!(second.path(), base.path().join("leaf-2"));
        drop(first);
        assert_eq!(DataDir::open_free(&path).unwrap().path(), path);
    }

    #[test]
    fn port_and_api_are_found_again() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("leaf");
        assert_eq!(DataDir::apis_beside(&path), []);
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.port(), None);
        dir.remember_port(4477).unwrap();
        assert_eq!(dir.port(), Some(4477));
        let addr: SocketAddr = "127.0.0.1:4480".parse().unwrap();
        dir.announce_api(addr).unwrap();
        assert_eq!(DataDir::apis_beside(&path), [addr]);
        dir.withdraw_api();
        assert_eq!(DataDir::api_of(&path), None);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::open(&file.join("sub")).unwrap_err();
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }
}
