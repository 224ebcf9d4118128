//! Why there is no link.

use canopy_core::keyspace::NodeId;

/// Why a link could not be opened, or cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A peer needs no link to itself.
    #[error("that is this peer itself")]
    Myself,
    /// The name of the protocol is too short or too long.
    #[error("{0:?} names no protocol; give it 1 to 128 bytes")]
    Protocol(String),
    /// Somebody in this process accepts it already.
    #[error("{0:?} is accepted already; one acceptor takes all links of a protocol")]
    Taken(String),
    /// Nobody tells where the peer is.
    #[error("nobody knows where {0} is; is it running, and in this overlay?")]
    Unknown(NodeId),
    /// The peer, or its home on its behalf, said no.
    #[error("{peer} cannot be linked to: {reason}")]
    Refused {
        /// Whom the link was to reach.
        peer: NodeId,
        /// What was said.
        reason: String,
    },
    /// No super-node relays to the peer now.
    #[error("no super-node relays to {peer} now: {reason}")]
    NoRelay {
        /// Whom the link was to reach.
        peer: NodeId,
        /// What the last one said.
        reason: String,
    },
    /// The peer did not answer over the relay.
    #[error("{0} did not answer over the relay in time; is UDP open to it?")]
    Timeout(NodeId),
    /// Who answered is somebody else.
    #[error("{expected} was wanted but somebody else answered")]
    WrongIdentity {
        /// Whom the link was to reach.
        expected: NodeId,
    },
    /// Too many links, or links under way.
    #[error("too many links; close some first")]
    Busy,
    /// The connection failed.
    #[error("the link failed: {0}")]
    Broken(String),
    /// The socket for links could not be opened.
    #[error("no socket for links: {0}")]
    Socket(String),
    /// This peer takes part no more.
    #[error("this peer is closing")]
    Closed,
}
