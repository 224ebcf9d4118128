//! Carriers that others open: admission before the handshake, as for sessions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::super::accept::Place;
use super::super::error::BindError;
use super::super::session::canonical;
use super::super::{Inner, tls};
use super::ALPN;

/// Who connects must finish the handshake within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way.
pub(super) const PENDING: usize = 128;
/// Connections that the system holds until they are looked at.
const BACKLOG: i32 = 256;
/// Pause after the system could not accept, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the TCP port, dual-stack where it is IPv6. Call within a tokio runtime.
pub(in super::super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "carrier.socket.v6_only");
    }
    // Else the port would be taken for a minute after a restart.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the fabric closes.
pub(in super::super) async fn run(inner: Arc<Inner>, listener: TcpListener, tls: TlsAcceptor) {
    let pending = Arc::new(Semaphore::new(PENDING));
    let carriers = Arc::clone(&inner.carriers);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = carriers.closed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "carrier.accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let remote = canonical(remote);
        let full = carriers.table.read().by_number.len() >= carriers.most;
        let permit = Arc::clone(&pending).try_acquire_owned().ok();
        let permit = permit.filter(|_| !full);
        let (Some(permit), Some(place)) = (permit, Place::new(&inner, remote.ip())) else {
            tracing::debug!(%remote, full, "carrier.accept.refused");
            carriers.refuse();
            continue;
        };
        let (inner, tls) = (Arc::clone(&inner), tls.clone());
        tokio::spawn(async move {
            let greeted = timeout(PATIENCE, greet(&inner, &tls, stream, remote, place)).await;
            if greeted != Ok(true) {
                tracing::debug!(%remote, "carrier.accept.failed");
                inner.carriers.refuse();
            }
            drop(permit);
        });
    }
}

/// The handshake; whether a carrier came of it.
async fn greet(
    inner: &Arc<Inner>,
    tls: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    place: Place,
) -> bool {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else {
        return false;
    };
    let peer = stream.get_ref().1.peer_certificates();
    let Some(peer) = peer.and_then(tls::peer_by) else {
        return false;
    };
    if inner.banned(&peer).is_some() {
        return false;
    }
    let carriers = &inner.carriers;
    let started = carriers.start(stream.into(), peer, remote, true, Some(place));
    started.is_some()
}

/// How those who connect are taken for who they are.
pub(in super::super) fn acceptor(
    identity: &canopy_core::identity::Identity,
) -> Result<TlsAcceptor, BindError> {
    let tls = tls::server(identity, ALPN).map_err(BindError::tls)?;
    Ok(TlsAcceptor::from(Arc::new(tls)))
}
