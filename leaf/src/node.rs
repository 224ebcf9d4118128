//! The boundary to the peer that a leaf stands on: all that the SDK asks of it.

use std::future::Future;
use std::net::SocketAddr;

use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::Calls;
use canopy_overlay::peer::{Handler, Peer};
use tokio::sync::{broadcast, watch};

#[cfg(feature = "cli")]
pub(crate) use canopy_supernode::event::unix_ms;
pub use canopy_supernode::host::Plan;

use crate::event::Event;
use crate::status::Status;

/// A running peer: it can ask others, and tell how it fares. Handles are cheap
/// to clone. Apps meet it only if they run the SDK over a network of their own,
/// e.g. in tests.
pub trait Node: Calls {
    /// How the peer fares, now. Must not wait.
    fn status(&self) -> Status;

    /// Where a super-node is reached; empty where this peer does not know it.
    /// Must not wait.
    fn addrs(&self, node: &NodeId) -> Vec<SocketAddr>;

    /// The super-nodes that this peer leans on, first slot first; none while it
    /// serves itself.
    fn homes(&self) -> watch::Receiver<Vec<NodeId>>;

    /// Who takes the messages and posts that come for this peer.
    fn set_recipient(&self, recipient: Box<dyn Handler>);

    /// The peer whose sessions links are signalled over; `None` where there are
    /// no sockets, and so no links.
    fn peer(&self) -> Option<&Peer> {
        None
    }

    /// Asks the router for the UDP port `port`, until what is returned is dropped:
    /// where it lets in what is for it. `None`: routers are asked for nothing.
    fn map_port(&self, port: u16) -> Option<watch::Receiver<Option<SocketAddr>>> {
        let _ = port;
        None
    }

    /// A reader of events from now on, over a channel of
    /// [`BACKLOG`](crate::event::BACKLOG).
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Lays down its role, says goodbye and frees its port. Events end.
    /// Calling it again does nothing.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
