//! Links: QUIC from leaf to leaf, on a socket of their own.
//!
//! A link starts over a relay, so it works behind any NAT, and moves to a direct
//! path in place as soon as one is found; when that is lost, or the relay is,
//! another takes over and the link lives on. Both ends prove their ids in the
//! handshake, and what they say is encrypted from one to the other: a relay sees
//! neither. Only who was announced by a super-node gets as far as a handshake.
//!
//! | module | idea |
//! |---|---|
//! | [`frame`] | what travels between this socket and a relay |
//! | `flows`, `keeper` | the flows that this peer has ends of, and keeping them bound |
//! | `socket` | the socket: direct or in frames |
//! | `handle` | a link, as its user has it |
//! | `tend` | its paths: punching, choosing, replacing |

mod config;
mod error;
mod flows;
pub mod frame;
mod handle;
mod keeper;
mod socket;
mod tend;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use noq::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime, VarInt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub use config::{LinksConfig, MAX_PROTOCOL};
pub use error::LinkError;
pub use flows::FlowEnd;
pub use handle::{Link, Path, Used};
pub use noq::{RecvStream, SendStream};

use super::tls;
use super::{BindError, Fabric};
use flows::Flows;
use handle::{About, broken};
use keeper::Held;
use socket::LinkSocket;

/// How long an offer waits for the link that it announces.
const TAKE_UP: Duration = Duration::from_secs(10);
/// Links that wait to be accepted, a protocol.
const BACKLOG: usize = 64;

/// How a peer comes to a flow: it asks super-nodes.
pub trait Signals: Send + Sync + 'static {
    /// A flow to `peer`, who agreed. Without a protocol: a further path of a link
    /// that there is, not over `avoid` if there is another.
    fn open<'a>(
        &'a self,
        peer: NodeId,
        protocol: &'a str,
        avoid: Option<NodeId>,
    ) -> Pin<Box<dyn Future<Output = Result<FlowEnd, LinkError>> + Send + 'a>>;
}

/// A peer's links; a handle, cheap to clone. They end with the last handle.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
    _open: Arc<CloseOnDrop>,
}

struct Inner {
    config: LinksConfig,
    identity: Identity,
    endpoint: Endpoint,
    shared: Arc<socket::Shared>,
    signals: Arc<dyn Signals>,
    /// Where a router lets in what is for the socket.
    mapped: watch::Sender<Option<SocketAddr>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    acceptors: HashMap<String, Taker>,
    /// Announced, and not taken up yet, by the address that stands for the flow.
    offers: HashMap<SocketAddr, Offer>,
    /// Links there are, by peer.
    links: HashMap<NodeId, usize>,
    closed: bool,
}

/// Who takes the links of a protocol.
#[derive(Clone)]
struct Taker {
    server: Arc<ServerConfig>,
    links: mpsc::Sender<Link>,
}

struct Offer {
    held: Held,
    protocol: String,
}

struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Links {
    /// Opens the socket, on the line of `fabric`. Call within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(
        fabric: &Fabric,
        config: LinksConfig,
        signals: Arc<dyn Signals>,
    ) -> Result<Self, BindError> {
        let failed = |error| BindError::from_io(config.listen, error);
        let udp = super::bind_udp(config.listen).map_err(failed)?;
        let line = fabric.inner.line.clone();
        let flows = Arc::new(Flows::default());
        let carriers = Arc::clone(&fabric.inner.carriers);
        let shared = socket::Shared::new(udp, flows, config.relay_only, line, carriers);
        let shared = shared.map_err(failed)?;
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let identity = fabric.inner.config.identity.clone();
        // Which protocol it is for is known with the offer: see `handshake`.
        let server = config::server(&identity, "")?;
        let endpoint = Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            Some(server),
            Box::new(LinkSocket::new(Arc::clone(&shared))),
            runtime,
        )
        .map_err(failed)?;
        let inner = Arc::new(Inner {
            config,
            identity,
            endpoint,
            shared,
            signals,
            mapped: watch::Sender::new(None),
            state: Mutex::default(),
        });
        tokio::spawn(take_all(Arc::downgrade(&inner), inner.endpoint.clone()));
        Ok(Self {
            _open: Arc::new(CloseOnDrop(Arc::clone(&inner))),
            inner,
        })
    }

    /// Where the socket listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.shared.local()
    }

    /// Where a router lets in what is for the socket, so that the other sides of all
    /// links are told, now and later; `None`: nowhere any more.
    pub fn set_mapped(&self, addr: Option<SocketAddr>) {
        self.inner.mapped.send_if_modified(|before| {
            let news = *before != addr;
            *before = addr;
            news
        });
    }

    /// Opens a link to `peer`, within `deadline`.
    ///
    /// # Errors
    /// The peer cannot be reached, does not want the link, or is not who it
    /// should be.
    pub async fn connect(
        &self,
        peer: NodeId,
        protocol: &str,
        deadline: Duration,
    ) -> Result<Link, LinkError> {
        let inner = &self.inner;
        check(protocol)?;
        if peer == inner.identity.node_id() {
            return Err(LinkError::Myself);
        }
        let client = config::client(&inner.identity, protocol).map_err(broken)?;
        let work = async {
            let end = inner.signals.open(peer, protocol, None).await?;
            inner.room()?;
            let flow = inner.shared.flows.add(end, peer);
            let flow = flow.ok_or_else(|| broken("the relay gave one flow twice"))?;
            let held = Held::bind(Arc::clone(&inner.shared), flow).await;
            let (endpoint, addr) = (&inner.endpoint, held.flow.addr);
            let connecting = endpoint.connect_with(client, addr, tls::SERVER_NAME);
            let connection = connecting.map_err(broken)?.await.map_err(broken)?;
            inner.start(connection, held, protocol, true)
        };
        match timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Timeout(peer)),
        }
    }

    /// Takes links of `protocol` from now on, until the acceptor is dropped.
    ///
    /// # Errors
    /// The protocol is accepted already, or its name is no name.
    pub fn accept(&self, protocol: &str) -> Result<Acceptor, LinkError> {
        check(protocol)?;
        let server = config::server(&self.inner.identity, protocol).map_err(broken)?;
        let (links, arriving) = mpsc::channel(BACKLOG);
        let mut state = self.inner.state.lock();
        if state.closed {
            return Err(LinkError::Closed);
        }
        if state.acceptors.contains_key(protocol) {
            return Err(LinkError::Taken(protocol.to_owned()));
        }
        let taker = Taker {
            server: Arc::new(server),
            links,
        };
        state.acceptors.insert(protocol.to_owned(), taker);
        drop(state);
        Ok(Acceptor {
            arriving,
            protocol: protocol.to_owned(),
            inner: Arc::downgrade(&self.inner),
        })
    }

    /// A super-node offers a flow from `from`: binds its end, if this peer takes
    /// such links, and waits for them for a while.
    ///
    /// # Errors
    /// Why it does not, for the other peer to read.
    pub async fn offered(
        &self,
        from: NodeId,
        protocol: String,
        end: FlowEnd,
    ) -> Result<(), String> {
        let inner = &self.inner;
        let flow = {
            let state = inner.state.lock();
            if state.closed {
                return Err("this peer is closing".into());
            }
            match protocol.is_empty() {
                true if !state.links.contains_key(&from) => {
                    return Err("there is no link to find another path for".into());
                }
                false if !state.acceptors.contains_key(&protocol) => {
                    return Err(format!("it does not accept {protocol:?}"));
                }
                _ => {}
            }
            let offers = state.offers.values();
            let of_this = offers.filter(|offer| offer.held.flow.peer == from);
            if of_this.count() >= inner.config.offers_per_peer {
                return Err("too many links are being opened".into());
            }
            drop(state);
            inner.room().map_err(|error| error.to_string())?;
            let flow = inner.shared.flows.add(end, from);
            flow.ok_or_else(|| "this flow was offered already".to_owned())?
        };
        let addr = flow.addr;
        let held = Held::bind(Arc::clone(&inner.shared), flow).await;
        let offer = Offer { held, protocol };
        inner.state.lock().offers.insert(addr, offer);
        let weak = Arc::downgrade(inner);
        tokio::spawn(async move {
            tokio::time::sleep(TAKE_UP).await;
            if let Some(inner) = weak.upgrade() {
                let late = inner.state.lock().offers.remove(&addr);
                drop(late);
            }
        });
        Ok(())
    }

    /// Ends all links, tells the other sides, and waits until they have heard or
    /// cannot any more.
    pub async fn close(&self) {
        self.inner.close();
        self.inner.endpoint.wait_idle().await;
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Links").field(&self.local_addr()).finish()
    }
}

fn check(protocol: &str) -> Result<(), LinkError> {
    match (1..=MAX_PROTOCOL).contains(&protocol.len()) {
        true => Ok(()),
        false => Err(LinkError::Protocol(protocol.to_owned())),
    }
}

impl Inner {
    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Acceptors see their end; offers are told to the relays.
        let (acceptors, offers) = (
            std::mem::take(&mut state.acceptors),
            std::mem::take(&mut state.offers),
        );
        drop(state);
        drop((acceptors, offers));
        self.endpoint
            .close(VarInt::from_u32(0), b"the peer is closing");
    }

    fn room(&self) -> Result<(), LinkError> {
        match self.shared.flows.len() < self.config.links {
            true => Ok(()),
            false => Err(LinkError::Busy),
        }
    }

    /// Makes a link of a connection whose handshake is done.
    fn start(
        self: &Arc<Self>,
        connection: noq::Connection,
        held: Held,
        protocol: &str,
        dialled: bool,
    ) -> Result<Link, LinkError> {
        let peer = held.flow.peer;
        if peer_of(&connection) != Some(peer) {
            connection.close(VarInt::from_u32(1), b"another peer was expected");
            return Err(LinkError::WrongIdentity { expected: peer });
        }
        let used = handle::Used {
            path: Path::Relayed(held.flow.end.relay),
            id: noq::PathId::ZERO,
        };
        let about = Arc::new(About {
            peer,
            protocol: protocol.to_owned(),
            dialled,
            used: watch::Sender::new(used),
            finished: std::sync::atomic::AtomicBool::new(false),
        });
        *self.state.lock().links.entry(peer).or_insert(0) += 1;
        tend::start(self, &connection, Arc::clone(&about), held);
        tracing::debug!(?peer, protocol, dialled, "link.up");
        Ok(Link { connection, about })
    }

    /// A link to `peer` has ended.
    fn ended(&self, peer: NodeId) {
        let mut state = self.state.lock();
        if let Some(count) = state.links.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                state.links.remove(&peer);
            }
        }
    }

    /// The flow behind `addr`, where it was offered by `peer` as a further path.
    fn claim_path(&self, addr: &SocketAddr, peer: NodeId) -> Option<Held> {
        let mut state = self.state.lock();
        let offer = state.offers.get(addr)?;
        if offer.held.flow.peer != peer || !offer.protocol.is_empty() {
            return None;
        }
        state.offers.remove(addr).map(|offer| offer.held)
    }

    /// The offer of a link behind `addr`, and who takes it.
    fn claim(&self, addr: &SocketAddr) -> Option<(Offer, Taker)> {
        let mut state = self.state.lock();
        let protocol = &state.offers.get(addr)?.protocol;
        let taker = state.acceptors.get(protocol)?.clone();
        Some((state.offers.remove(addr)?, taker))
    }
}

/// Takes connections that were announced; nobody else gets an answer.
async fn take_all(inner: Weak<Inner>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let Some((offer, taker)) = inner.claim(&incoming.remote_address()) else {
            incoming.ignore();
            continue;
        };
        tokio::spawn(async move {
            let peer = offer.held.flow.peer;
            if let Err(error) = handshake(&inner, incoming, offer, taker).await {
                tracing::debug!(?peer, %error, "link.inbound");
            }
        });
    }
}

async fn handshake(
    inner: &Arc<Inner>,
    incoming: noq::Incoming,
    offer: Offer,
    taker: Taker,
) -> Result<(), LinkError> {
    let connecting = incoming.accept_with(taker.server).map_err(broken)?;
    let peer = offer.held.flow.peer;
    let connected = timeout(TAKE_UP, connecting).await;
    let connection = connected
        .map_err(|_| LinkError::Timeout(peer))?
        .map_err(broken)?;
    let link = inner.start(connection, offer.held, &offer.protocol, false)?;
    taker.links.try_send(link).map_err(|error| {
        let link = error.into_inner();
        link.close("nobody takes the link");
        LinkError::Busy
    })
}

/// Who is at the other end of an established connection.
fn peer_of(connection: &noq::Connection) -> Option<NodeId> {
    tls::peer_in(connection.peer_identity()?)
}

/// Takes the links of one protocol, until it is dropped.
pub struct Acceptor {
    arriving: mpsc::Receiver<Link>,
    protocol: String,
    inner: Weak<Inner>,
}

impl Acceptor {
    /// The next link; `None`: this peer has closed.
    pub async fn next(&mut self) -> Option<Link> {
        self.arriving.recv().await
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.state.lock().acceptors.remove(&self.protocol);
        }
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Acceptor").field(&self.protocol).finish()
    }
}
