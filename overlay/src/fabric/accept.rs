//! Inbound connections: admission before the handshake, then the hello.
//!
//! A handshake costs about a millisecond of CPU, so a flood must be turned
//! away before it: by address, by number under way, by proof of address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use canopy_proto::wire::refusal::Code;
use quinn::{Connection, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::dial::close;
use super::hello::{self, HelloError, refusal};
use super::registry::Entered;
use super::session::{Session, close_code};
use super::{Inner, measure, tls};

/// A dialler must finish handshake and hello within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts until the endpoint closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let most = inner.config.limits.pending_handshakes.max(1);
    let pending = Arc::new(Semaphore::new(most));
    let measured = Arc::new(Semaphore::new(inner.config.limits.measurements));
    while let Some(incoming) = inner.endpoint.accept().await {
        if measure::is_announced(&incoming) {
            measure::serve(&inner, &measured, incoming);
            continue;
        }
        let Ok(permit) = Arc::clone(&pending).try_acquire_owned() else {
            tracing::debug!(remote = %incoming.remote_address(), "fabric.accept.flood");
            incoming.refuse();
            continue;
        };
        let strained = pending.available_permits() < most / 2;
        if strained && !incoming.remote_address_validated() && incoming.may_retry() {
            // A forged source address never comes back.
            let _ = incoming.retry();
            continue;
        }
        admit(&inner, incoming, permit);
    }
}

fn admit(inner: &Arc<Inner>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let Some(addr) = inner.carriers.real(incoming.remote_address()) else {
        // The carrier that brought it is over.
        return incoming.ignore();
    };
    let addr = addr.ip();
    let limits = &inner.config.limits;
    let place = Place::new(inner, addr);
    let full = inner.registry.len() >= limits.sessions;
    let Some(place) = place.filter(|_| !full) else {
        tracing::debug!(%addr, full, "fabric.accept.refused");
        incoming.refuse();
        return;
    };
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let Ok(connecting) = incoming.accept() else {
            return;
        };
        let greeted = timeout(PATIENCE, async {
            if let Ok(connection) = connecting.await {
                greet(&inner, connection, place).await;
            }
        });
        if greeted.await.is_err() {
            tracing::debug!(%addr, "fabric.accept.timeout");
        }
        drop(permit);
    });
}

/// The hello with a dialler, and the session, if one comes of it.
async fn greet(inner: &Arc<Inner>, connection: Connection, place: Place) {
    let Some(peer) = tls::peer_of(&connection) else {
        return;
    };
    if peer == inner.config.identity.node_id() {
        close(&connection, close_code::REFUSED, "you dialled yourself");
        return;
    }
    let (agreed, mut streams) = match hello::accept(&inner.config, &connection, peer).await {
        Ok(agreed) => agreed,
        Err(HelloError::Refuse(no)) => {
            tracing::info!(?peer, reason = %no.message, "fabric.accept.hello_refused");
            close(&connection, close_code::REFUSED, &no.message);
            return;
        }
        // A probe, or a dialler that changed its mind.
        Err(_) => return,
    };
    if let Some(no) = inner.banned(&peer) {
        streams.refuse(&no).await;
        close(&connection, close_code::REFUSED, &no.message);
        return;
    }
    let contact = inner.contact.load_full();
    let ours = hello::ours(&inner.config, &contact, connection.remote_address());
    let limits = &inner.config.limits;
    if inner.registry.len() >= limits.sessions && inner.registry.get(&peer).is_none() {
        let no = refusal(Code::Busy, "it has as many sessions as it may");
        streams.refuse(&no).await;
        close(&connection, close_code::BUSY, &no.message);
        return;
    }
    // The dialler sends nothing before our hello, so the session may open first:
    // once the dialler knows of it, so do we.
    let session = Session::new(inner, connection, agreed, true);
    session.0.greet(&ours);
    match inner.open(session.clone(), streams, Some(place)) {
        Entered::Current(_) => {}
        Entered::Loses(_) => session.end(super::CloseReason::Superseded),
        Entered::Closed => session.close("the peer is shutting down"),
    }
}

/// One connection from an address, counted until it is dropped.
pub(super) struct Place {
    inner: Arc<Inner>,
    addr: Option<IpAddr>,
}

impl Place {
    /// `None` when the address has as many as it may.
    pub(super) fn new(inner: &Arc<Inner>, addr: IpAddr) -> Option<Self> {
        let limits = &inner.config.limits;
        let exempt = addr.is_loopback() && !limits.count_loopback;
        if !exempt && !inner.registry.admit(addr, limits.sessions_per_address) {
            return None;
        }
        Some(Self {
            inner: Arc::clone(inner),
            addr: (!exempt).then_some(addr),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(addr) = self.addr {
            self.inner.registry.release(addr);
        }
    }
}
