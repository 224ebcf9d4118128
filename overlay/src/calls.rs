//! What the data plane needs of the peer it runs in: a placement snapshot, and
//! a way to ask another peer. Index service and SDK are written against this,
//! so that tests can run them without sockets.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_core::placement::Placement;
use canopy_proto::wire;

/// Why a request to another peer got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer did not answer in time.
    #[error("{0} did not answer in time")]
    Deadline(NodeId),
    /// No session could be opened, or it broke.
    #[error("{peer} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// What happened.
        reason: String,
    },
    /// Too much is already under way to this peer; nothing was sent.
    #[error("too many requests under way to {0}; slow down")]
    Busy(NodeId),
    /// The peer answered that it will not.
    #[error("{peer} refused: {}", refusal.message)]
    Refused {
        /// The peer.
        peer: NodeId,
        /// Its reason.
        refusal: wire::Refusal,
    },
    /// The answer was not of the kind that was asked for.
    #[error("{0} gave an answer of the wrong kind")]
    Malformed(NodeId),
}

/// A peer, as the data plane sees it. Handles are cheap to clone.
pub trait Calls: Clone + Send + Sync + 'static {
    /// This peer.
    fn node_id(&self) -> NodeId;

    /// The network's name; records of another are refused.
    fn network(&self) -> &str;

    /// Who owns what, as far as this peer knows now.
    fn placement(&self) -> Placement;

    /// The wall clock, milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// What the network's operator banned, as far as this peer knows now.
    fn bans(&self) -> Arc<Bans> {
        Arc::default()
    }

    /// What keeps this peer from the overlay, for people, if it is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Asks `node` and waits at most `deadline`. A refusal comes back as
    /// [`CallError::Refused`]. Dropping the future cancels the request.
    fn call(
        &self,
        node: NodeId,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> impl Future<Output = Result<wire::response::Kind, CallError>> + Send;
}
