//! What carriers bring to this peer's relay, and the way back.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Carried, Carriers, Channel, WAITING, stands_for_carrier};

/// The end of all carriers at the relay. There is one: a new one takes the place
/// of the one before.
#[derive(Debug)]
pub struct CarriedRelay {
    came: mpsc::Receiver<Carried>,
    carriers: Arc<Carriers>,
}

impl CarriedRelay {
    pub(in super::super) fn new(carriers: &Arc<Carriers>) -> Self {
        let (relay, came) = mpsc::channel(WAITING);
        carriers.relay.store(Some(Arc::new(relay)));
        Self {
            came,
            carriers: Arc::clone(carriers),
        }
    }

    /// The next datagram, and the address that stands for the carrier which
    /// brought it. Nothing is lost where the wait is given up.
    pub async fn recv(&mut self) -> (SocketAddr, Bytes) {
        match self.came.recv().await {
            Some((pipe, datagram)) => (pipe.addr, datagram),
            None => pending().await,
        }
    }

    /// The same, where it has come already.
    pub fn try_recv(&mut self) -> Option<(SocketAddr, Bytes)> {
        let (pipe, datagram) = self.came.try_recv().ok()?;
        Some((pipe.addr, datagram))
    }

    /// Whether `addr` stands for a carrier.
    pub fn leads_to(addr: &SocketAddr) -> bool {
        stands_for_carrier(addr)
    }

    /// Sends datagrams of `size` bytes, of which the last may be shorter, back by
    /// a carrier. What finds its queue full is lost.
    pub fn send(&self, to: &SocketAddr, datagrams: &[u8], size: usize) {
        self.carriers.send(to, Channel::Relay, datagrams, size);
    }
}
