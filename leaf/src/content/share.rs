//! What a leaf shares: begins, ends, and goes on after a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hash;
use canopy_overlay::fabric::link::{LinkError, Links};

use super::error::ShareError;
use super::hub::Hub;
use super::kept::Kept;
use super::scan;
use super::source::Source;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::node::Node;

/// Most contents that a leaf shares.
const MAX_SHARES: usize = 10_000;

/// A content that this leaf shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Its hash: what to fetch it by.
    pub content: Hash,
    /// The file or folder.
    pub path: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many files; 1 where it is one.
    pub files: usize,
    /// False: it is being fetched, and some of it is there.
    pub whole: bool,
}

/// Hears how many bytes were hashed since it heard last.
pub type Hashed = Box<dyn FnMut(u64) + Send>;

impl Shared {
    fn of(source: &Source) -> Self {
        let manifest = source.manifest().map_or(0, |list| list.len() as u64);
        Self {
            content: source.root(),
            path: source.place(),
            bytes: source.bytes() - manifest,
            files: source.files(),
            whole: source.is_whole(),
        }
    }
}

fn kept_in(data_dir: &DataDir) -> Kept {
    Kept::new(data_dir.path().join("shares"))
}

/// Whether a leaf with this directory shared something when it ran last. Blocks.
pub(crate) fn any_kept(data_dir: &DataDir) -> bool {
    kept_in(data_dir).any()
}

/// Opens what a leaf shares and fetches, what it shared before included.
pub(crate) fn open<N: Node>(
    client: Client<N>,
    links: Links,
    upload_bps: Option<u64>,
    data_dir: Option<&DataDir>,
) -> Result<Arc<Hub<N>>, LinkError> {
    let hub = Hub::open(client, links, upload_bps, data_dir.map(kept_in))?;
    let again = Arc::downgrade(&hub);
    if data_dir.is_some() {
        tokio::task::spawn_blocking(move || {
            let hub = again.upgrade()?;
            let sources = hub.kept.as_ref()?.load();
            for source in sources {
                if !hub.is_banned(&source.root()) {
                    hub.offer(Arc::new(source));
                }
            }
            Some(())
        });
    }
    Ok(hub)
}

/// Hashes `path`, keeps it shared and announces it.
pub(crate) async fn share<N: Node>(
    hub: &Arc<Hub<N>>,
    path: &Path,
    hashed: Hashed,
) -> Result<Shared, ShareError> {
    if hub.sources().len() >= MAX_SHARES {
        return Err(ShareError::Full(MAX_SHARES));
    }
    let (path, of) = (path.to_owned(), Arc::clone(hub));
    let lost = |_| ShareError::Links(LinkError::Closed);
    let read = tokio::task::spawn_blocking(move || {
        // It must be found after a restart from elsewhere.
        let path = std::path::absolute(&path).map_err(|source| ShareError::Read {
            path: path.clone(),
            source,
        })?;
        let scanned = scan::scan(&path, hashed)?;
        let content = scanned.source.root();
        if of.is_banned(&content) {
            return Err(ShareError::Banned(content));
        }
        if let Some(kept) = &of.kept {
            let noted = kept.keep(&scanned);
            noted.map_err(|source| ShareError::Note { path, source })?;
        }
        Ok(scanned.source)
    });
    let source = Arc::new(read.await.map_err(lost)??);
    let shared = Shared::of(&source);
    hub.withdraw(&shared.content, "it is shared anew");
    hub.offer(source);
    let (content, bytes) = (shared.content, shared.bytes);
    let announced = hub.client.provide(content, bytes, None).await;
    if let Err(error) = announced {
        unshare(hub, content).await?;
        return Err(error.into());
    }
    Ok(shared)
}

/// Shares it no more. False: it was not shared.
pub(crate) async fn unshare<N: Node>(hub: &Arc<Hub<N>>, content: Hash) -> Result<bool, ShareError> {
    let offered = hub.withdraw(&content, "it is shared no more");
    let of = Arc::clone(hub);
    let forgot = tokio::task::spawn_blocking(move || match &of.kept {
        Some(kept) => kept.drop(&content),
        None => Ok(false),
    });
    let forgot = forgot.await.unwrap_or(Ok(false));
    let kept = forgot.map_err(|source| ShareError::Note {
        path: content.to_hex().as_str().into(),
        source,
    })?;
    if offered || kept {
        hub.client.unprovide(content).await?;
    }
    Ok(offered || kept)
}

/// All that is shared, and what of fetches is.
pub(crate) fn shares<N: Node>(hub: &Hub<N>) -> Vec<Shared> {
    let mut shares: Vec<Shared> = hub.sources().iter().map(|own| Shared::of(own)).collect();
    shares.sort_by_key(|shared| *shared.content.as_bytes());
    shares
}
