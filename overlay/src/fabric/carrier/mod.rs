//! Carriers: datagrams within TCP and TLS, for peers whose network blocks UDP.
//!
//! A carrier leads to one peer, who proves its id as in a session, and to two
//! things of that peer only: the socket of its sessions, and its relay. QUIC runs
//! over it as over UDP: to QUIC a carrier is an address that exists nowhere
//! outside, and the socket knows what it stands for. Such an address must never
//! be told to anybody; where addresses count, it is the TCP connection's.
//!
//! | file | idea |
//! |---|---|
//! | `frame` | datagrams as TCP carries them |
//! | `pipe` | one carrier while it lasts |
//! | `open`, `accept` | how there comes to be one |
//! | `relay` | what carriers bring to this peer's relay, and back |

mod accept;
mod frame;
mod open;
mod pipe;
mod relay;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsConnector, TlsStream};

use super::error::BindError;
use super::session::canonical;
use super::tls;
pub(super) use accept::{acceptor, listen, run};
pub(super) use frame::Channel;
pub(super) use pipe::Pipe;
pub use relay::CarriedRelay;

/// Protocol of carriers.
const ALPN: &[u8] = b"canopy-carrier/1";
/// First byte of the addresses that stand for carriers: of a block that is
/// reserved (RFC 1112, section 4), and IPv4 because every socket has that.
const PREFIX: u8 = 240;
/// Ports say nothing here; zero is refused by QUIC.
const PORT: u16 = 1;
/// Datagrams that wait for who takes them in: sessions, relay, links.
const WAITING: usize = 256;

/// Whether an address stands for a carrier, be there one or not.
pub(super) fn stands_for_carrier(addr: &SocketAddr) -> bool {
    number(addr).is_some()
}

fn number(addr: &SocketAddr) -> Option<u32> {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) if ip.octets()[0] == PREFIX => Some(u32::from(ip)),
        _ => None,
    }
}

/// A datagram, and the carrier that brought it.
pub(super) type Carried = (Arc<Pipe>, Bytes);

/// What carriers did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarrierStats {
    /// Open now, by others and by this peer.
    pub open: usize,
    /// Opened by others.
    pub accepted: u64,
    /// Opened by this peer.
    pub opened: u64,
    /// Turned away: at a limit, too slow, or no carrier at all.
    pub refused: u64,
    /// Ended because the other side sent what is no frame.
    pub malformed: u64,
    /// Bytes of datagrams that came.
    pub received: u64,
    /// Bytes of datagrams queued to be sent.
    pub sent: u64,
    /// Datagrams lost because a queue was full.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// All carriers of one peer.
pub(super) struct Carriers {
    enabled: bool,
    /// Most at a time.
    most: usize,
    connector: TlsConnector,
    table: RwLock<Table>,
    /// Being opened, for links.
    wanted: Mutex<Vec<NodeId>>,
    sessions: mpsc::Sender<Carried>,
    relay: ArcSwapOption<mpsc::Sender<Carried>>,
    links: ArcSwapOption<mpsc::Sender<Carried>>,
    closed: watch::Sender<bool>,
    /// The last peers that answered did so by carriers only.
    udp_silent: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Table {
    by_number: HashMap<u32, Arc<Pipe>>,
    /// Those that this peer opened.
    opened: HashMap<NodeId, Arc<Pipe>>,
    last: u32,
}

impl Carriers {
    /// None yet, and what they will bring to the socket of sessions.
    pub(super) fn new(
        identity: &Identity,
        enabled: bool,
        most: usize,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Carried>), BindError> {
        let tls = tls::client(identity, ALPN).map_err(BindError::tls)?;
        let (sessions, came) = mpsc::channel(WAITING);
        let carriers = Self {
            enabled,
            most,
            connector: TlsConnector::from(Arc::new(tls)),
            table: RwLock::default(),
            wanted: Mutex::default(),
            sessions,
            relay: ArcSwapOption::empty(),
            links: ArcSwapOption::empty(),
            closed: watch::Sender::new(false),
            udp_silent: AtomicBool::new(false),
            counts: Counts::default(),
        };
        Ok((Arc::new(carriers), came))
    }

    /// The carrier that an address stands for.
    pub(super) fn at(&self, addr: &SocketAddr) -> Option<Arc<Pipe>> {
        let number = number(addr)?;
        self.table.read().by_number.get(&number).cloned()
    }

    /// Where who sends from `addr` really is; `None`: a carrier that is over.
    pub(super) fn real(&self, addr: SocketAddr) -> Option<SocketAddr> {
        match stands_for_carrier(&addr) {
            true => self.at(&addr).map(|pipe| pipe.remote),
            false => Some(canonical(addr)),
        }
    }

    /// Sends datagrams of `size` bytes, of which the last may be shorter. What
    /// finds no carrier, or a full queue, is lost.
    pub(super) fn send(&self, to: &SocketAddr, channel: Channel, datagrams: &[u8], size: usize) {
        match self.at(to) {
            Some(pipe) => self.send_by(&pipe, channel, datagrams, size),
            None => self.drop_one(),
        }
    }

    /// The same, by a carrier that is known.
    pub(super) fn send_by(&self, pipe: &Pipe, channel: Channel, datagrams: &[u8], size: usize) {
        for datagram in datagrams.chunks(size.max(1)) {
            match pipe.send(channel, datagram) {
                true => {
                    let bytes = datagram.len() as u64;
                    self.counts.sent.fetch_add(bytes, Ordering::Relaxed);
                }
                false => self.drop_one(),
            }
        }
    }

    fn drop_one(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands on what came, as soon as there is room for it.
    async fn take(&self, pipe: &Arc<Pipe>, channel: Channel, datagram: Bytes) {
        let bytes = datagram.len() as u64;
        self.counts.received.fetch_add(bytes, Ordering::Relaxed);
        let sink = match (channel, pipe.accepted) {
            (Channel::Sessions, _) => Some(self.sessions.clone()),
            (Channel::Relay, true) => self.relay.load().as_deref().cloned(),
            (Channel::Relay, false) => self.links.load().as_deref().cloned(),
        };
        let taken = match sink {
            Some(sink) => sink.send((Arc::clone(pipe), datagram)).await.is_ok(),
            None => false,
        };
        if !taken {
            self.drop_one();
        }
    }

    /// Has what relays answer brought to the links of this peer.
    pub(super) fn bring_to_links(&self) -> mpsc::Receiver<Carried> {
        let (links, came) = mpsc::channel(WAITING);
        self.links.store(Some(Arc::new(links)));
        came
    }

    /// Carries for `peer` from now on; `None`: as many as may be do already.
    fn start(
        self: &Arc<Self>,
        stream: TlsStream<TcpStream>,
        peer: NodeId,
        remote: SocketAddr,
        accepted: bool,
        place: Option<super::accept::Place>,
    ) -> Option<Arc<Pipe>> {
        // TCP finds out by itself how much should be under way; a long queue of
        // the system's would only make everything late.
        let socket = socket2::SockRef::from(stream.get_ref().0);
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        let mut table = self.table.write();
        if table.by_number.len() >= self.most || *self.closed.borrow() {
            return None;
        }
        let number = table.next_number();
        let addr = SocketAddr::new(Ipv4Addr::from(number).into(), PORT);
        let (pipe, queue) = Pipe::new(peer, addr, remote, accepted);
        let pipe = Arc::new(pipe);
        table.by_number.insert(number, Arc::clone(&pipe));
        if !accepted {
            table.opened.insert(peer, Arc::clone(&pipe));
        }
        drop(table);
        let counter = match accepted {
            true => &self.counts.accepted,
            false => &self.counts.opened,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?peer, %remote, accepted, "carrier.up");
        let work = pipe::run(Arc::clone(self), Arc::clone(&pipe), stream, queue);
        tokio::spawn(async move {
            work.await;
            drop(place);
        });
        Some(pipe)
    }

    fn forget(&self, pipe: &Arc<Pipe>) {
        let mut table = self.table.write();
        if let Some(number) = number(&pipe.addr) {
            table.by_number.remove(&number);
        }
        let opened = table.opened.get(&pipe.peer);
        if opened.is_some_and(|opened| Arc::ptr_eq(opened, pipe)) {
            table.opened.remove(&pipe.peer);
        }
    }

    /// Ends all, shortly after: what is said at the end still gets out.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    async fn closed(&self) {
        // An error would say that the sender, which is ours, is gone.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn refuse(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> CarrierStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        CarrierStats {
            open: self.table.read().by_number.len(),
            accepted: read(&counts.accepted),
            opened: read(&counts.opened),
            refused: read(&counts.refused),
            malformed: read(&counts.malformed),
            received: read(&counts.received),
            sent: read(&counts.sent),
            dropped: read(&counts.dropped),
        }
    }
}

/// What the system may hold of what is to be sent, bytes; it doubles that.
const SEND_BUFFER: usize = 256 * 1024;

impl Table {
    /// A number that no carrier has.
    fn next_number(&mut self) -> u32 {
        let first = u32::from(PREFIX) << 24;
        loop {
            self.last = (self.last + 1) & 0x00ff_ffff;
            let number = first | self.last;
            if !self.by_number.contains_key(&number) {
                return number;
            }
        }
    }
}

impl std::fmt::Debug for Carriers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Carriers").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests;
