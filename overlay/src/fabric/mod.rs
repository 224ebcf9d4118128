//! The fabric: authenticated sessions between peers, over QUIC.
//!
//! It opens, accepts and keeps at most one session to each peer, carries
//! requests, answers and one-way messages on it, and measures lines for the
//! election. It must never let a peer speak under another's id, hold unbounded
//! memory for a peer, or block on the [`Service`] above it.
//!
//! | module | idea |
//! |---|---|
//! | [`config`], [`target`], [`error`], [`service`] | what a user of the fabric sees |
//! | `tls`, `transport`, `socket`, `uplink` | identity, QUIC settings, the UDP socket and its limit |
//! | `carrier` | datagrams within TCP, where UDP does not get through |
//! | `accept`, `dial`, `hello`, `registry` | how a session comes to be, and which one stays |
//! | `expel` | peers that the operator banned |
//! | `probe` | whether a peer answers at an address |
//! | `session`, `pump`, `frame`, `outbox`, `pending` | what travels on it |
//! | [`measure`] | timed traffic for ballots |
//! | [`link`] | QUIC from leaf to leaf, over a relay and directly |

mod accept;
mod carrier;
pub mod config;
mod dial;
pub mod error;
mod expel;
mod frame;
mod hello;
pub mod link;
pub mod measure;
mod outbox;
mod pending;
mod probe;
mod pump;
mod registry;
pub mod service;
mod session;
mod socket;
pub mod target;
mod tls;
mod transport;
mod uplink;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use canopy_core::contact::Contact;
use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use quinn::{Endpoint, VarInt};
use tokio::net::TcpListener;

pub use carrier::{CarriedRelay, CarrierStats};
pub use config::{FabricConfig, Limits};
pub use error::{BindError, CloseReason, DialError, MeasureError, NotifyError, RequestError};
pub use measure::{MeasurePlan, Measured};
pub use service::{Answer, Service};
pub use session::Session;
pub use socket::bind as bind_udp;
pub use target::{Target, TargetError};
#[doc(hidden)]
pub use transport::yardstick;

use carrier::Carriers;
use hello::Streams;
use registry::{Entered, Registry};
use session::close_code;
use socket::Line;

/// Ports that are tried for one that is free for UDP and TCP.
const PORTS_TRIED: usize = 16;
/// How long a session that lost its place may finish what is under way on it.
const LINGER: Duration = Duration::from_secs(10);

/// A peer's endpoint; a handle, cheap to clone. When the last handle is
/// dropped, the fabric closes.
#[derive(Clone)]
pub struct Fabric {
    inner: Arc<Inner>,
    _open: Arc<CloseOnDrop>,
}

struct Inner {
    config: FabricConfig,
    service: Arc<dyn Service>,
    endpoint: Endpoint,
    line: Line,
    client: quinn::ClientConfig,
    measure_client: quinn::ClientConfig,
    measure_server: Arc<quinn::ServerConfig>,
    contact: ArcSwap<Contact>,
    registry: Registry,
    bans: ArcSwap<Bans>,
    dials: dial::Dials,
    carriers: Arc<Carriers>,
}

struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the fabric was dropped");
    }
}

impl Fabric {
    /// Opens the endpoint and starts to accept sessions. Call within a tokio
    /// runtime.
    pub fn bind(config: FabricConfig, service: Arc<dyn Service>) -> Result<Self, BindError> {
        let listen = config.listen;
        let failed = |error| BindError::from_io(listen, error);
        let transport = Arc::new(transport::session(config.idle_timeout, config.keep_alive));
        let client = transport::client(&config.identity, tls::ALPN, &transport)?;
        let server = transport::server(&config, tls::ALPN, &transport)?;
        let transport = Arc::new(measure::transport());
        let mut measure_client = transport::client(&config.identity, measure::ALPN, &transport)?;
        measure_client.initial_dst_cid_provider(Arc::new(measure::tagged_id));
        let measure_server = transport::server(&config, measure::ALPN, &transport)?;

        let line = Line::new(config.uplink_bps);
        let runtime = quinn::default_runtime()
            .ok_or_else(|| BindError::Config("no tokio runtime is running".into()))?;
        let (carriers, came) =
            Carriers::new(&config.identity, config.carriers, config.limits.carriers)?;
        let (socket, listener) = bind_both(listen, config.carriers).map_err(failed)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            transport::endpoint(&config.identity),
            Some(server),
            line.wrap(socket, Some((Arc::clone(&carriers), came)), &*runtime)
                .map_err(failed)?,
            runtime,
        )
        .map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;

        let contact = config.contact.clone().unwrap_or_else(|| {
            let addrs: &[_] = if local.ip().is_unspecified() {
                &[]
            } else {
                &[local]
            };
            Contact::sign(&config.identity, addrs, "", hello::unix_ms())
        });
        let inner = Arc::new(Inner {
            registry: Registry::new(config.identity.node_id()),
            contact: ArcSwap::from_pointee(contact),
            bans: ArcSwap::default(),
            dials: dial::Dials::default(),
            line,
            client,
            measure_client,
            measure_server: Arc::new(measure_server),
            endpoint,
            service,
            carriers,
            config,
        });
        tokio::spawn(accept::run(Arc::clone(&inner)));
        if let Some(listener) = listener {
            let acceptor = carrier::acceptor(&inner.config.identity)?;
            tokio::spawn(carrier::run(Arc::clone(&inner), listener, acceptor));
        }
        tracing::info!(%local, node = ?inner.config.identity.node_id(), "fabric.bound");
        Ok(Self {
            _open: Arc::new(CloseOnDrop(Arc::clone(&inner))),
            inner,
        })
    }

    /// This peer.
    pub fn node_id(&self) -> NodeId {
        self.inner.config.identity.node_id()
    }

    /// Where the socket listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// The contact that hellos carry.
    pub fn contact(&self) -> Arc<Contact> {
        self.inner.contact.load_full()
    }

    /// Replaces the contact that hellos carry; it must be this peer's own.
    /// Sessions that are open keep what they were told.
    pub fn set_contact(&self, contact: Contact) {
        self.inner.contact.store(Arc::new(contact));
    }

    /// The session to `target`: the one that is open, or a new one. Calls for
    /// one peer at the same time share one dial. Without an id, whoever
    /// answers at the first address that does.
    pub async fn connect(&self, target: &Target, deadline: Duration) -> Result<Session, DialError> {
        dial::connect(&self.inner, target, deadline).await
    }

    /// The open session to `peer`.
    pub fn session(&self, peer: &NodeId) -> Option<Session> {
        self.inner.registry.get(peer)
    }

    /// All open sessions.
    pub fn sessions(&self) -> Vec<Session> {
        self.inner.registry.all()
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.inner.registry.len()
    }

    /// What this endpoint may send, bits a second; `None`: no limit was set.
    pub fn uplink_bps(&self) -> Option<u64> {
        self.inner.config.uplink_bps
    }

    /// Bytes sent since the start on every socket of this endpoint, headers of
    /// IP and UDP included: what an uplink limit counts.
    pub fn bytes_sent(&self) -> u64 {
        self.inner.line.sent.load(Ordering::Relaxed)
    }

    /// Bytes out of [`Fabric::bytes_sent`], about, that only measured a line:
    /// they come and go with elections and say nothing of how busy a peer is.
    pub fn bytes_measuring(&self) -> u64 {
        self.inner.line.measuring.load(Ordering::Relaxed)
    }

    /// What carriers did.
    pub fn carriers(&self) -> CarrierStats {
        self.inner.carriers.stats()
    }

    /// What carriers bring to a relay of this peer, from now on.
    pub fn carried_relay(&self) -> CarriedRelay {
        CarriedRelay::new(&self.inner.carriers)
    }

    /// Whether `expected` answers at `addr` when it is dialled from a fresh
    /// socket, so that no binding of a NAT on the way makes it look reachable.
    /// Any session to it stays as it is.
    pub async fn dial_back(&self, addr: SocketAddr, expected: NodeId, deadline: Duration) -> bool {
        probe::dial_back(&self.inner, addr, expected, deadline).await
    }

    /// Ends without a word, as if the machine had lost its power: peers notice
    /// by their time-outs. The port is free again shortly after.
    pub fn abort(&self) {
        self.inner.line.silent.store(true, Ordering::Relaxed);
        self.inner.close("aborted");
    }

    /// Closes every session, tells the peers, and waits until they have heard
    /// or cannot any more.
    pub async fn close(&self) {
        self.inner.close("the peer is shutting down");
        self.inner.endpoint.wait_idle().await;
    }
}

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fabric")
            .field("node", &self.node_id())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn close(&self, reason: &str) {
        for session in self.registry.close() {
            session.close(reason);
        }
        let code = VarInt::from_u32(close_code::CLOSED);
        self.endpoint.close(code, reason.as_bytes());
        self.carriers.close();
    }

    /// Makes a session out of a connection whose hello succeeded: registers
    /// it, tells the service, and starts its task, which keeps `place` to its end.
    fn open(
        self: &Arc<Self>,
        session: Session,
        streams: Streams,
        place: Option<accept::Place>,
    ) -> Entered {
        let entered = self.registry.enter(&session);
        let Entered::Current(old) = &entered else {
            return entered;
        };
        if let Some(old) = old {
            tokio::spawn(retire(old.clone()));
        }
        tracing::debug!(
            peer = ?session.peer(),
            remote = %session.remote_addr(),
            inbound = session.inbound(),
            "fabric.session.up"
        );
        if self.banned(&session.peer()).is_some() {
            tokio::spawn(expel::expel(session.clone()));
        }
        self.service.session_up(&session);
        tokio::spawn(attend(Arc::clone(self), session, streams, place));
        entered
    }
}

/// A session's life after its hello.
async fn attend(
    inner: Arc<Inner>,
    session: Session,
    streams: Streams,
    place: Option<accept::Place>,
) {
    // Also when the service panics: the peer must be able to come back.
    let guard = Leave {
        inner,
        session,
        _place: place,
    };
    let Leave { inner, session, .. } = &guard;
    let service = Arc::clone(&inner.service);
    let pump = pump::run(session, streams, service, inner.config.limits.serving);
    let carrier = inner.carriers.at(&session.0.connection.remote_address());
    let reason = match carrier {
        None => pump.await,
        Some(carrier) => tokio::select! {
            biased;
            reason = pump => reason,
            () = carrier.over() => CloseReason::Transport("its carrier broke off".into()),
        },
    };
    session.end(reason);
}

/// The UDP socket, and the TCP port of the same number where carriers are taken.
fn bind_both(
    listen: SocketAddr,
    carriers: bool,
) -> std::io::Result<(UdpSocket, Option<TcpListener>)> {
    // Of the ports that the system chooses, one may be taken for TCP.
    let mut tried = 1;
    loop {
        let socket = socket::bind(listen)?;
        if !carriers {
            return Ok((socket, None));
        }
        let at = socket.local_addr()?;
        match carrier::listen(at) {
            Ok(listener) => return Ok((socket, Some(listener))),
            Err(_) if listen.port() == 0 && tried < PORTS_TRIED => tried += 1,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "TCP {at} is not to be had: peers whose network blocks UDP cannot come here"
                );
                return Ok((socket, None));
            }
        }
    }
}

struct Leave {
    inner: Arc<Inner>,
    session: Session,
    _place: Option<accept::Place>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let Self { inner, session, .. } = self;
        session.end(CloseReason::Local("the session failed here".into()));
        let reason = session.close_reason().unwrap_or(CloseReason::Superseded);
        let last = inner.registry.leave(session);
        tracing::debug!(peer = ?session.peer(), %reason, last, "fabric.session.down");
        if last {
            inner.service.session_down(session.peer(), reason);
        }
    }
}

/// Lets a session that lost its place finish what is under way, then ends it.
async fn retire(session: Session) {
    let until = tokio::time::Instant::now() + LINGER;
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    ticks.tick().await;
    // At least one tick: what the peer just sent is still on its way.
    loop {
        tokio::select! {
            _ = session.closed() => return,
            now = ticks.tick() => {
                if session.in_flight() == 0 || now >= until {
                    return session.end(CloseReason::Superseded);
                }
            }
        }
    }
}
