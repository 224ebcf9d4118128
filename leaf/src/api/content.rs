//! Sharing and fetching over the API. A call whose caller goes ends; what a fetch
//! has by then is kept.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::{fetch_update, share_update};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tonic::Status;

use super::convert;
use crate::content::{ContentStats, Fetch, FetchError, Progress, ShareError, Shared};
use crate::leaf::Leaf;
use crate::node::Node;

/// What a call of Share answers.
pub(super) type Shares = Pin<Box<dyn Stream<Item = Result<pb::ShareUpdate, Status>> + Send>>;
/// What a call of Fetch answers.
pub(super) type Fetches = Pin<Box<dyn Stream<Item = Result<pb::FetchUpdate, Status>> + Send>>;

/// Bytes between two words of how far hashing is.
const STEP: u64 = 64 * 1024 * 1024;

/// Serves one call of Share.
pub(super) fn share<N: Node>(leaf: Leaf<N>, path: &str) -> Result<Shares, Status> {
    let path = absolute(path)?;
    let (tell, hashed) = watch::channel(0);
    let (mut count, mut told) = (0, 0);
    let hear = Box::new(move |bytes| {
        count += bytes;
        if count >= told + STEP {
            told = count;
            // The caller may be gone.
            let _ = tell.send(count);
        }
    });
    let work = Box::pin(async move { leaf.share_watched(path, hear).await });
    let updates = stream::unfold(Some((work, hashed)), |state| async move {
        let (mut work, mut hashed) = state?;
        let shared = tokio::select! {
            shared = &mut work => shared,
            Ok(()) = hashed.changed() => {
                let what = share_update::What::Hashed(*hashed.borrow_and_update());
                return Some((Ok(pb::ShareUpdate { what: Some(what) }), Some((work, hashed))));
            }
        };
        let shared = shared.map(|shared| pb::ShareUpdate {
            what: Some(share_update::What::Shared(to_proto(&shared))),
        });
        Some((shared.map_err(share_error), None))
    });
    Ok(Box::pin(updates))
}

/// Serves one call of Fetch.
pub(super) fn fetch<N: Node>(leaf: &Leaf<N>, ask: &pb::FetchRequest) -> Result<Fetches, Status> {
    let content = convert::hash(&ask.content)?;
    let fetch = leaf.fetch(content, absolute(&ask.to)?);
    let updates = stream::unfold(Some(fetch), |fetch| async move {
        let mut fetch: Fetch = fetch?;
        if let Some(progress) = fetch.next().await {
            let what = fetch_update::What::Progress(progress_to_proto(progress));
            return Some((Ok(pb::FetchUpdate { what: Some(what) }), Some(fetch)));
        }
        let fetched = fetch.await.map(|fetched| {
            let shared = Shared {
                content: fetched.content,
                path: fetched.path,
                bytes: fetched.bytes,
                files: fetched.files,
                whole: true,
            };
            pb::FetchUpdate {
                what: Some(fetch_update::What::Fetched(to_proto(&shared))),
            }
        });
        Some((fetched.map_err(fetch_error), None))
    });
    Ok(Box::pin(updates))
}

fn absolute(path: &str) -> Result<PathBuf, Status> {
    match Path::new(path).is_absolute() {
        true => Ok(path.into()),
        false => Err(Status::invalid_argument(format!(
            "{path:?} is no absolute path; the leaf may run elsewhere than the caller"
        ))),
    }
}

pub(super) fn list(shares: &[Shared], stats: ContentStats) -> pb::ListSharesReply {
    pb::ListSharesReply {
        shares: shares.iter().map(to_proto).collect(),
        stats: Some(pb::ContentStats {
            uploaded: stats.uploaded,
            downloaded: stats.downloaded,
            pieces: stats.pieces,
            refused: stats.refused,
        }),
    }
}

fn to_proto(shared: &Shared) -> pb::SharedContent {
    pb::SharedContent {
        content: shared.content.to_string(),
        path: shared.path.display().to_string(),
        bytes: shared.bytes,
        files: shared.files as u64,
        whole: shared.whole,
    }
}

fn progress_to_proto(progress: Progress) -> pb::FetchProgress {
    pb::FetchProgress {
        bytes: progress.bytes,
        total: progress.total,
        providers: progress.providers as u32,
        rate: progress.rate,
        refused: progress.refused as u32,
    }
}

/// A failure as gRPC tells it.
pub(super) fn share_error(error: ShareError) -> Status {
    let text = error.to_string();
    match error {
        ShareError::Overlay(error) => convert::error(error),
        ShareError::Banned(_) => Status::permission_denied(text),
        ShareError::Full(_) => Status::resource_exhausted(text),
        ShareError::Links(_) => Status::unavailable(text),
        ShareError::Note { .. } | ShareError::Read { .. } => Status::internal(text),
        ShareError::Kind(_)
        | ShareError::Name(_)
        | ShareError::TooMany(_)
        | ShareError::TooLarge(_)
        | ShareError::Manifest(_)
        | ShareError::Changed(_) => Status::invalid_argument(text),
    }
}

fn fetch_error(error: FetchError) -> Status {
    let text = error.to_string();
    match error {
        FetchError::Overlay(error) => convert::error(error),
        FetchError::Banned(_) => Status::permission_denied(text),
        FetchError::NoProvider(_) => Status::not_found(text),
        FetchError::TooMany(_) => Status::resource_exhausted(text),
        FetchError::Own(_) | FetchError::Twice(_) | FetchError::Running(_) => {
            Status::already_exists(text)
        }
        FetchError::Exists(_) | FetchError::Name(_) | FetchError::Other(_) => {
            Status::invalid_argument(text)
        }
        FetchError::Full(_) | FetchError::Disk { .. } => Status::internal(text),
        FetchError::TooLarge | FetchError::Manifest(_) => Status::failed_precondition(text),
        FetchError::Stalled { .. } | FetchError::Links(_) | FetchError::Closed => {
            Status::unavailable(text)
        }
    }
}
