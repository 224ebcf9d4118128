//! Who may call: anybody who reaches loopback, or whoever shows a token or a
//! certificate.
//!
//! A token is compared by its hash with every entry of the file, whichever fits, so
//! that the time it takes tells nothing. No token is ever printed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::rpc::tls::{Authority, names};
use crate::secret::{open_to_others, read_text};

/// Longest access file, bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Shortest token, characters: 128 bits as hexadecimal digits.
const SHORTEST: usize = 32;
/// Longest token and name, characters.
const LONGEST: usize = 256;
const MAX_NAME: usize = 64;

/// Why an access file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("cannot read the access file {path}: {source}; check the path, its owner and mode", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Other users may read it.
    #[error("the access file {path} can be read by other users (mode {mode:o}); run `chmod 600 {path}`, and replace its tokens if somebody may have seen them", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line says something else.
    #[error("correct line {line} of the access file {path}: {reason}; write e.g. `ada operate TOKEN`, with a token of `openssl rand -hex 32`", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong; never the token.
        reason: &'static str,
    },
    /// A line waits for certificates, and nobody vouches for any.
    #[error("line {line} of the access file {path} admits a certificate: give --control-client-ca as well, or a token instead", path = .path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// It admits nobody.
    #[error("the access file {path} admits nobody; write e.g. `ada operate TOKEN`, with a token of `openssl rand -hex 32`", path = .0.display())]
    Empty(PathBuf),
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Ask.
    View,
    /// Ask and act.
    Operate,
}

/// Who calls, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// As the access file names it; `None`: nobody is asked for a name.
    name: Option<Arc<str>>,
    right: Right,
}

#[derive(Clone)]
pub(super) struct Entry {
    name: Arc<str>,
    right: Right,
    proof: Proof,
}

/// How a caller proves who it is.
#[derive(Clone, PartialEq, Eq)]
enum Proof {
    /// By a token of this hash.
    Token(blake3::Hash),
    /// By a certificate of its name.
    Certificate,
}

/// Who is admitted.
#[derive(Clone)]
pub(super) enum Access {
    /// Whoever can connect.
    Anybody,
    /// Whoever of these proves who it is; the authority judges certificates.
    Listed(Arc<[Entry]>, Option<Authority>),
}

impl Access {
    /// Reads an access file: a line for each caller, `NAME view|operate TOKEN`, or
    /// `certificate` in the place of a token; empty lines and those that begin with #
    /// are passed over.
    pub(super) fn read(path: &Path, authority: Option<Authority>) -> Result<Self, AccessError> {
        let failed = |source| AccessError::Read {
            path: path.to_owned(),
            source,
        };
        if let Some(mode) = open_to_others(path).map_err(failed)? {
            return Err(AccessError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let text = read_text(path, MAX_FILE).map_err(failed)?;
        let mut entries: Vec<Entry> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line, &entries).map_err(|reason| AccessError::Line {
                path: path.to_owned(),
                line: number,
                reason,
            })?;
            if entry.proof == Proof::Certificate && authority.is_none() {
                return Err(AccessError::NoAuthority {
                    path: path.to_owned(),
                    line: number,
                });
            }
            entries.push(entry);
        }
        match entries.is_empty() {
            true => Err(AccessError::Empty(path.to_owned())),
            false => Ok(Self::Listed(entries.into(), authority)),
        }
    }

    fn caller(&self, metadata: &MetadataMap, shown: Shown<'_>) -> Result<Caller, Status> {
        let Self::Listed(entries, authority) = self else {
            return Ok(Caller {
                name: None,
                right: Right::Operate,
            });
        };
        let refused = |why| {
            Status::unauthenticated(format!(
                "{why}; call with the metadata `authorization: Bearer TOKEN`, a token of this host's access file"
            ))
        };
        let token = metadata.get("authorization");
        if let (None, Some(authority), Some(chain)) = (token, authority, shown) {
            return certified(entries, authority, chain);
        }
        let shown = token.ok_or_else(|| match authority {
            Some(_) => refused("neither a token was given nor a client certificate"),
            None => refused("no token was given"),
        })?;
        let token = shown.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(|| refused("the authorization is no bearer token"))?;
        let token = Proof::Token(blake3::hash(token.as_bytes()));
        // Hashes compare in constant time, and all of them are compared.
        let found = entries
            .iter()
            .fold(None, |found, entry| match entry.proof == token {
                true => Some(entry),
                false => found,
            });
        let entry = found.ok_or_else(|| refused("this token admits nobody"))?;
        Ok(Caller {
            name: Some(entry.name.clone()),
            right: entry.right,
        })
    }
}

/// The certificates that a caller showed, its own first.
type Shown<'a> = Option<&'a [CertificateDer<'static>]>;

/// The caller that a certificate is of.
fn certified(
    entries: &[Entry],
    authority: &Authority,
    chain: &[CertificateDer<'static>],
) -> Result<Caller, Status> {
    authority.judge(chain).map_err(Status::unauthenticated)?;
    let mut entries = entries.iter();
    let of = |entry: &&Entry| {
        let own = chain.first();
        entry.proof == Proof::Certificate && own.is_some_and(|own| names(own, &entry.name))
    };
    let entry = entries.find(of).ok_or_else(|| {
        Status::unauthenticated(
            "this client certificate is of nobody whom the host's access file admits by `certificate`; have one signed with such a name as DNS name",
        )
    })?;
    Ok(Caller {
        name: Some(entry.name.clone()),
        right: entry.right,
    })
}

fn entry(line: &str, before: &[Entry]) -> Result<Entry, &'static str> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let [name, right, token] = parts[..] else {
        return Err("it is not a name, a right and a token");
    };
    let right = match right {
        "view" => Right::View,
        "operate" => Right::Operate,
        _ => return Err("the right is neither view nor operate"),
    };
    if name.len() > MAX_NAME || before.iter().any(|entry| *entry.name == *name) {
        return Err("the name is over 64 bytes, or there twice");
    }
    let proof = match token {
        "certificate" => Proof::Certificate,
        token if (SHORTEST..=LONGEST).contains(&token.len()) => {
            Proof::Token(blake3::hash(token.as_bytes()))
        }
        _ => return Err("the token is not of 32 to 256 characters"),
    };
    if proof != Proof::Certificate && before.iter().any(|entry| entry.proof == proof) {
        return Err("the token is there twice");
    }
    let name = Arc::from(name);
    Ok(Entry { name, right, proof })
}

impl Interceptor for Access {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.peer_certs();
        let shown = shown.as_ref().map(|chain| chain.as_slice());
        let caller = self.caller(request.metadata(), shown)?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anybody => f.write_str("Anybody"),
            Self::Listed(entries, _) => write!(f, "{} callers", entries.len()),
        }
    }
}

/// The name of a caller that may act: as the access file has it, else as it was
/// `given`.
pub(super) fn operator<T>(request: &Request<T>, given: &str) -> Result<String, Status> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| Status::internal("nobody looked at who calls"))?;
    match (&caller.name, caller.right) {
        (Some(name), Right::View) => Err(Status::permission_denied(format!(
            "{name} may look and not act; call with a token of the right `operate`"
        ))),
        (Some(name), Right::Operate) => Ok(name.to_string()),
        (None, _) => Ok(given.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access");
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        (home, path)
    }

    fn shown(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", token.parse().unwrap());
        metadata
    }

    #[test]
    fn each_token_admits_its_own_caller_and_others_nobody() {
        let (ada, eve) = ("a".repeat(32), "b".repeat(64));
        let (_home, path) = file(&format!("# callers\n\nada operate {ada}\neve view {eve}\n"));
        let access = Access::read(&path, None).unwrap();
        let caller = |text: &str| access.caller(&shown(text), None).map_err(|s| s.code());
        let admitted = |name: &str, right| {
            Ok(Caller {
                name: Some(Arc::from(name)),
                right,
            })
        };
        assert_eq!(
            caller(&format!("Bearer {ada}")),
            admitted("ada", Right::Operate)
        );
        assert_eq!(
            caller(&format!("bearer {eve}")),
            admitted("eve", Right::View)
        );
        for wrong in [
            "Bearer ",
            "Bearer",
            &ada,
            &format!("Basic {ada}"),
            &format!("Bearer {ada}a"),
        ] {
            assert_eq!(caller(wrong), Err(tonic::Code::Unauthenticated), "{wrong}");
        }
        let nothing = access.caller(&MetadataMap::new(), None).unwrap_err();
        assert_eq!(nothing.code(), tonic::Code::Unauthenticated);
        assert!(!nothing.message().contains(&ada));
        assert_eq!(format!("{access:?}"), "2 callers");
    }

    #[test]
    fn a_file_that_is_wrong_says_where_and_never_what_is_secret() {
        let token = "c".repeat(40);
        for (text, wanted) in [
            (
                format!("ada operate {token}\nada view {}", "d".repeat(40)),
                "line 2",
            ),
            (format!("ada rule {token}"), "view nor operate"),
            (format!("ada {token}"), "a name, a right and a token"),
            ("ada view short".to_owned(), "32 to 256"),
            ("ada view certificate".to_owned(), "--control-client-ca"),
            (format!("ada view {token}\neve operate {token}"), "twice"),
            ("# nobody\n".to_owned(), "admits nobody"),
        ] {
            let (_home, path) = file(&text);
            let error = Access::read(&path, None).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains(&token), "{error}");
        }
        let (home, path) = file(&format!("ada view {token}"));
        assert!(Access::read(&home.path().join("other"), None).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            let error = Access::read(&path, None).unwrap_err();
            assert!(matches!(error, AccessError::Open { .. }), "{error}");
        }
    }
}
