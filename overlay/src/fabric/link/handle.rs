//! A link: streams and datagrams to another leaf, whatever path they take.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use noq::{Connection, ConnectionError, PathId, RecvStream, SendStream, VarInt};
use tokio::sync::watch;

use super::error::LinkError;

/// What a link is closed with when all is said and read.
const FINISHED: VarInt = VarInt::from_u32(2);

/// The way that a link's bytes take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Through the relay of this super-node.
    Relayed(NodeId),
    /// Straight to the other leaf, at this address.
    Direct(SocketAddr),
}

impl Path {
    /// Whether no super-node carries it.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// The path in use, and its number within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub(super) path: Path,
    pub(super) id: PathId,
}

impl Used {
    /// The path.
    pub fn path(&self) -> Path {
        self.path
    }
}

/// A link to another leaf: QUIC, encrypted between the two. A handle, cheap to
/// clone; the link ends when the last handle and stream are dropped, or either
/// side closes it.
#[derive(Clone)]
pub struct Link {
    pub(super) connection: Connection,
    pub(super) about: Arc<About>,
}

#[derive(Debug)]
pub(super) struct About {
    pub(super) peer: NodeId,
    pub(super) protocol: String,
    pub(super) dialled: bool,
    pub(super) used: watch::Sender<Used>,
    /// This side has ended it, all being said.
    pub(super) finished: AtomicBool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.about.dialled { "to" } else { "from" };
        write!(f, "Link({direction} {:?})", self.about.peer)
    }
}

impl Link {
    /// Who is at the other end, proved by the handshake.
    pub fn peer(&self) -> NodeId {
        self.about.peer
    }

    /// What the link is for.
    pub fn protocol(&self) -> &str {
        &self.about.protocol
    }

    /// Opens a stream, both ways. The other side sees it with its first byte.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), LinkError> {
        self.connection.open_bi().await.map_err(broken)
    }

    /// The next stream that the other side opens.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), LinkError> {
        self.connection.accept_bi().await.map_err(broken)
    }

    /// Opens a stream that only this side writes.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn open_uni(&self) -> Result<SendStream, LinkError> {
        self.connection.open_uni().await.map_err(broken)
    }

    /// The next stream that only the other side writes.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn accept_uni(&self) -> Result<RecvStream, LinkError> {
        self.connection.accept_uni().await.map_err(broken)
    }

    /// Sends a datagram: it comes once or not at all, in no order.
    ///
    /// # Errors
    /// It is larger than [`Link::max_datagram`], or the link has ended.
    pub fn send_datagram(&self, data: impl Into<Bytes>) -> Result<(), LinkError> {
        self.connection.send_datagram(data.into()).map_err(broken)
    }

    /// The next datagram.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn read_datagram(&self) -> Result<Bytes, LinkError> {
        self.connection.read_datagram().await.map_err(broken)
    }

    /// Largest datagram, bytes; `None`: none can be sent now.
    pub fn max_datagram(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    /// The path in use.
    pub fn path(&self) -> Path {
        self.about.used.borrow().path
    }

    /// The path in use, and every change of it.
    pub fn paths(&self) -> watch::Receiver<Used> {
        self.about.used.subscribe()
    }

    /// Waits until the link is direct; for ever where it never will be.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn direct(&self) -> Result<SocketAddr, LinkError> {
        let mut used = self.about.used.subscribe();
        tokio::select! {
            used = used.wait_for(|used| used.path.is_direct()) => match used.map(|used| used.path) {
                Ok(Path::Direct(addr)) => Ok(addr),
                _ => Err(LinkError::Closed),
            },
            error = self.connection.closed() => Err(broken(error)),
        }
    }

    /// Smoothed round-trip time of the path in use.
    pub fn round_trip(&self) -> Option<Duration> {
        self.connection.rtt(self.about.used.borrow().id)
    }

    /// Ends the link; the other side is told why. What was not yet read there
    /// may be lost: let the reader close.
    pub fn close(&self, reason: &str) {
        let reason = &reason.as_bytes()[..reason.len().min(256)];
        self.connection.close(VarInt::from_u32(0), reason);
    }

    /// Ends the link because both sides have said and read all.
    pub fn finish(&self) {
        self.about.finished.store(true, Ordering::Relaxed);
        self.connection.close(FINISHED, b"all is said and read");
    }

    /// Whether either side ended it by [`Link::finish`].
    pub fn finished(&self) -> bool {
        match self.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => close.error_code == FINISHED,
            _ => self.about.finished.load(Ordering::Relaxed),
        }
    }

    /// Waits for the end; why it came.
    pub async fn closed(&self) -> String {
        self.connection.closed().await.to_string()
    }
}

pub(super) fn broken(error: impl fmt::Display) -> LinkError {
    LinkError::Broken(error.to_string())
}
