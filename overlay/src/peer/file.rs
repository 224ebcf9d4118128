//! The saved roster on disk: replaced whole, so that a crash leaves the old one.

use std::io;
use std::path::Path;

use canopy_core::node::Saved;

/// Largest file that is read: 2 500 mandates of 8 KiB.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Reads what an earlier run saved. Nothing there, or nothing readable, is no
/// error: the peer joins by its configured peers.
pub(super) async fn read(path: &Path) -> Option<Saved> {
    let size = tokio::fs::metadata(path).await.ok()?.len();
    if size > MAX_BYTES {
        tracing::warn!(path = %path.display(), size, "peer.saved: too large, ignored");
        return None;
    }
    let bytes = tokio::fs::read(path).await.ok()?;
    match Saved::from_bytes(&bytes) {
        Ok(saved) => Some(saved),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "peer.saved: unreadable, ignored");
            None
        }
    }
}

/// Writes beside the old file, then takes its place.
pub(super) async fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let beside = path.with_extension("new");
    tokio::fs::write(&beside, saved.to_bytes()).await?;
    tokio::fs::rename(&beside, path).await
}
