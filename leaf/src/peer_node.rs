//! The peer of a leaf that runs for real.

use std::net::SocketAddr;

use canopy_core::keyspace::NodeId;
use canopy_overlay::peer::{Handler, Peer};
use canopy_supernode::event::Event;
use canopy_supernode::status::Status;
use tokio::sync::{broadcast, watch};

pub use canopy_supernode::host::Host as PeerNode;

use crate::node::Node;

impl Node for PeerNode {
    fn status(&self) -> Status {
        self.status()
    }

    fn addrs(&self, node: &NodeId) -> Vec<SocketAddr> {
        self.addrs(node)
    }

    fn homes(&self) -> watch::Receiver<Vec<NodeId>> {
        self.peer().homes()
    }

    fn set_recipient(&self, recipient: Box<dyn Handler>) {
        self.router().set_recipient(recipient);
    }

    fn peer(&self) -> Option<&Peer> {
        Some(self.peer())
    }

    fn map_port(&self, port: u16) -> Option<watch::Receiver<Option<SocketAddr>>> {
        self.map_port(port)
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events()
    }

    async fn close(&self) {
        self.close().await;
    }
}
