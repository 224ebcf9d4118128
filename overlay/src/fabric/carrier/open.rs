//! Opening a carrier to another peer: where UDP to it is not answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::error::DialError;
use super::super::session::canonical;
use super::super::tls;
use super::{Carriers, Pipe};

/// How long UDP has to answer before a carrier is tried beside it.
const UDP_FIRST: Duration = Duration::from_secs(2);
/// How long TCP and TLS may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Carriers {
    /// How long a dial waits before it tries a carrier beside UDP.
    pub(in super::super) fn patience(&self) -> Duration {
        match self.udp_silent.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => UDP_FIRST,
        }
    }

    /// Whether who was spoken to both ways answered over UDP.
    pub(in super::super) fn learn(&self, udp: bool) {
        self.udp_silent.store(!udp, Ordering::Relaxed);
    }

    /// The carrier to `peer` that this side opened, if it seems to work.
    pub(in super::super) fn to(&self, peer: &NodeId) -> Option<Arc<Pipe>> {
        let pipe = self.table.read().opened.get(peer).cloned();
        pipe.filter(|pipe| pipe.is_fresh())
    }

    /// The same, where UDP was not answered of late.
    pub(in super::super) fn instead_of_udp(&self, peer: &NodeId) -> Option<Arc<Pipe>> {
        let silent = self.udp_silent.load(Ordering::Relaxed);
        silent.then(|| self.to(peer)).flatten()
    }

    /// The carrier to `peer`, or has one opened, to be there some time later.
    pub(in super::super) fn want(
        self: &Arc<Self>,
        peer: NodeId,
        addr: SocketAddr,
    ) -> Option<Arc<Pipe>> {
        let there = self.to(&peer);
        if there.is_some() || !self.enabled {
            return there;
        }
        let mut wanted = self.wanted.lock();
        if !wanted.contains(&peer) {
            wanted.push(peer);
            let carriers = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = carriers.open(addr, Some(peer)).await {
                    tracing::debug!(?peer, %addr, %error, "carrier.open");
                }
                carriers.wanted.lock().retain(|other| *other != peer);
            });
        }
        None
    }

    /// A carrier to who listens at `addr`: the one that there is, or a new one.
    pub(in super::super) async fn open(
        self: &Arc<Self>,
        addr: SocketAddr,
        expected: Option<NodeId>,
    ) -> Result<Arc<Pipe>, DialError> {
        if let Some(pipe) = expected.and_then(|peer| self.to(&peer)) {
            return Ok(pipe);
        }
        if !self.enabled {
            return Err(DialError::Timeout);
        }
        let opened = timeout(PATIENCE, self.handshake(addr, expected)).await;
        opened.unwrap_or(Err(DialError::Timeout))
    }

    async fn handshake(
        self: &Arc<Self>,
        addr: SocketAddr,
        expected: Option<NodeId>,
    ) -> Result<Arc<Pipe>, DialError> {
        let failed = |error: std::io::Error| DialError::Unreachable(format!("by TCP: {error}"));
        let tcp = TcpStream::connect(addr).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(tls::SERVER_NAME)
            .map_err(|error| DialError::Unreachable(error.to_string()))?;
        let stream = self.connector.connect(name, tcp).await.map_err(failed)?;
        let found = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(tls::peer_by)
            .ok_or_else(|| DialError::Unreachable("the peer showed no key".into()))?;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(DialError::WrongIdentity { expected, found });
        }
        self.start(stream.into(), found, canonical(addr), false, None)
            .ok_or_else(|| DialError::Busy("this peer has as many carriers as it may".into()))
    }
}
