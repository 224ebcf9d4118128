//! The socket of all links: direct datagrams as they are, those of flows in
//! frames to and from their relays, by carriers where UDP does not get there.
//!
//! It shows QUIC IPv6 addresses only, IPv4 ones mapped, whatever the system
//! has, because flows are IPv6 addresses. A peer that shows nobody its address
//! (`relay_only`) neither sends nor takes direct datagrams.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use noq::udp::{RecvMeta, Transmit, UdpSocketState};
use noq::{AsyncUdpSocket, UdpSender};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, mpsc};

use super::super::carrier::{Carried, Carriers, Channel, Pipe};
use super::super::session::canonical;
use super::super::socket::{Line, Wait, weight};
use super::flows::{Flows, stands_for_flow};
use super::frame::{self, Frame, HEADER, Kind};

/// Datagrams of a second flow within one batch that wait for their turn.
const MAX_ASIDE: usize = 256;
/// Addresses remembered at a time.
const MAX_SEEN: usize = 1024;
/// New addresses that wait to be heard of.
const STRANGERS: usize = 64;
/// Largest datagram that QUIC tries, and more than a frame adds, bytes.
const LARGEST: usize = 1_500;
/// Most bytes that one send may have.
const MOST_AT_ONCE: usize = 65_000;

/// What the socket and its senders share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) udp: UdpSocket,
    state: UdpSocketState,
    pub(super) flows: Arc<Flows>,
    relay_only: bool,
    line: Line,
    pub(super) carriers: Arc<Carriers>,
    local: SocketAddr,
    /// Addresses that direct datagrams came from for the first time in a while.
    pub(super) strangers: broadcast::Sender<SocketAddr>,
}

impl Shared {
    pub(super) fn new(
        udp: std::net::UdpSocket,
        flows: Arc<Flows>,
        relay_only: bool,
        line: Line,
        carriers: Arc<Carriers>,
    ) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&udp).into())?;
        let udp = UdpSocket::from_std(udp)?;
        Ok(Arc::new(Self {
            local: udp.local_addr()?,
            state,
            udp,
            flows,
            relay_only,
            line,
            carriers,
            strangers: broadcast::Sender::new(STRANGERS),
        }))
    }

    /// Where it listens, as the system says.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    fn is_silent(&self) -> bool {
        self.line.silent.load(Ordering::Relaxed)
    }

    /// An address as this socket's family has it.
    fn own_family(&self, ip: IpAddr) -> IpAddr {
        match (self.local.is_ipv6(), ip.to_canonical()) {
            (true, ip) => mapped(ip),
            (false, ip) => ip,
        }
    }

    /// Sends a frame by a carrier.
    pub(super) fn send_carried(&self, frame: &[u8], carrier: &Pipe) {
        if !self.is_silent() {
            let (channel, size) = (Channel::Relay, frame.len());
            self.carriers.send_by(carrier, channel, frame, size);
        }
    }

    /// Sends a frame to a relay, when the socket takes it.
    pub(super) async fn send_frame(&self, frame: &[u8], relay: SocketAddr) {
        if self.is_silent() {
            return;
        }
        let to = SocketAddr::new(self.own_family(relay.ip()), relay.port());
        if let Err(error) = self.udp.send_to(frame, to).await {
            // It is sent again when no answer comes.
            tracing::debug!(%error, %to, "link.frame");
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.contents.len();
        let weight = weight(size, transmit.segment_size, transmit.destination);
        self.line.send(weight, || {
            self.udp.try_io(Interest::WRITABLE, || {
                self.state.try_send((&self.udp).into(), transmit)
            })
        })
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        ip @ IpAddr::V6(_) => ip,
    }
}

/// The receiving half, as QUIC takes it.
#[derive(Debug)]
pub(super) struct LinkSocket {
    shared: Arc<Shared>,
    /// What carriers bring from relays.
    carried: mpsc::Receiver<Carried>,
    /// Datagrams that came in one batch with others of another flow.
    aside: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Who sent directly, lately.
    seen: HashSet<SocketAddr>,
}

impl LinkSocket {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            carried: shared.carriers.bring_to_links(),
            shared,
            aside: VecDeque::new(),
            seen: HashSet::new(),
        }
    }

    /// Tells the links of an address that is new.
    fn see(&mut self, from: SocketAddr) {
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        if self.seen.insert(from) {
            // No link may be there to hear it.
            let _ = self.shared.strangers.send(from);
        }
    }

    /// Makes of a batch what QUIC is to see of it; nothing where it is no QUIC.
    fn unwrap(&mut self, bytes: &mut [u8], meta: &mut RecvMeta) {
        let from = canonical(meta.addr);
        let known = self.shared.flows.known();
        if !known.is_relay(&from) {
            if self.shared.relay_only {
                meta.len = 0;
                return;
            }
            drop(known);
            self.see(from);
            meta.addr = SocketAddr::new(mapped(from.ip()), from.port());
            meta.dst_ip = meta.dst_ip.map(mapped);
            return;
        }
        let (stride, whole) = (meta.stride.max(1), meta.len);
        let (mut read, mut written) = (0, 0);
        let mut first = None;
        while read < whole {
            let end = whole.min(read + stride);
            let frame = Frame::parse(&bytes[read..end]);
            let flow = frame.and_then(|frame| known.named(from, &frame).map(|f| (frame, f)));
            match flow {
                Some((frame, flow)) if frame.kind == Kind::Data => {
                    if *first.get_or_insert(flow.addr) == flow.addr {
                        bytes.copy_within(read + HEADER..end, written);
                        written += end - read - HEADER;
                    } else if self.aside.len() < MAX_ASIDE {
                        let payload = bytes[read + HEADER..end].to_vec();
                        self.aside.push_back((flow.addr, payload));
                    }
                }
                Some((frame, flow)) => flow.take(&frame, None),
                None => {}
            }
            read = end;
        }
        meta.len = written;
        meta.stride = stride.saturating_sub(HEADER).max(1);
        meta.dst_ip = None;
        if let Some(addr) = first {
            meta.addr = addr;
        }
    }

    /// Puts aside the datagrams that carriers brought, as many as there is room for.
    fn take_carried(&mut self, cx: &mut Context<'_>) {
        while self.aside.len() < MAX_ASIDE
            && let Poll::Ready(Some((pipe, datagram))) = self.carried.poll_recv(cx)
        {
            let Some(frame) = Frame::parse(&datagram) else {
                continue;
            };
            let known = self.shared.flows.known();
            let Some(flow) = known.carried(pipe.peer, &frame) else {
                continue;
            };
            match frame.kind {
                Kind::Data => {
                    let payload = frame.payload().to_vec();
                    self.aside.push_back((flow.addr, payload));
                }
                _ => flow.take(&frame, Some(&pipe)),
            }
        }
    }

    /// Hands out what was put aside; how many batches.
    fn take_aside(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((addr, payload)) = self.aside.pop_front() else {
                break;
            };
            let length = payload.len().min(buf.len());
            buf[..length].copy_from_slice(&payload[..length]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (addr, length, length);
            count += 1;
        }
        count
    }
}

impl AsyncUdpSocket for LinkSocket {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(Sender {
            shared: Arc::clone(&self.shared),
            framed: Vec::new(),
            waiting: None,
            wait: Wait::default(),
        })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let count = self.take_aside(bufs, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            // UDP is looked at after each batch of what carriers brought.
            self.take_carried(cx);
            let ready = self.shared.udp.poll_recv_ready(cx)?;
            if ready.is_pending() && !self.aside.is_empty() {
                continue;
            }
            ready!(ready);
            let shared = &self.shared;
            let received = shared.udp.try_io(Interest::READABLE, || {
                shared.state.recv((&shared.udp).into(), bufs, metas)
            });
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if self.shared.is_silent() {
                continue;
            }
            for (buf, meta) in bufs.iter_mut().zip(metas.iter_mut()).take(count) {
                self.unwrap(buf, meta);
            }
            return Poll::Ready(Ok(count));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.shared.local;
        Ok(SocketAddr::new(mapped(local.ip()), local.port()))
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.shared.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.shared.state.may_fragment()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One sending half; each waits for the socket on its own.
struct Sender {
    shared: Arc<Shared>,
    /// Kept, so that a send allocates nothing.
    framed: Vec<u8>,
    waiting: Option<Writable>,
    wait: Wait,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// Waits for the line, then queues to a carrier.
    fn poll_carried(
        &mut self,
        carrier: &Pipe,
        framed: &[u8],
        size: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        loop {
            if let Some(bucket) = &shared.line.bucket {
                ready!(self.wait.poll(bucket, cx));
            }
            let weight = weight(framed.len(), Some(size), carrier.remote);
            let sent = shared.line.send(weight, || {
                let (carriers, channel) = (&shared.carriers, Channel::Relay);
                carriers.send_by(carrier, channel, framed, size);
                Ok(())
            });
            // Else another sender was faster to take what the line gives.
            if sent.is_ok() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Waits for the line and the socket, then hands over.
    fn poll(&mut self, transmit: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(bucket) = &self.shared.line.bucket {
                ready!(self.wait.poll(bucket, cx));
            }
            if let Some(waiting) = &mut self.waiting {
                let writable = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                writable?;
            }
            match self.shared.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let shared = Arc::clone(&self.shared);
                    let writable = async move { shared.udp.writable().await };
                    self.waiting = Some(Box::pin(writable));
                }
                Err(error) => {
                    // As with any loss on the way; also a probe that is too large.
                    tracing::trace!(%error, to = %transmit.destination, "link.send");
                    return Poll::Ready(Ok(()));
                }
                Ok(()) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl UdpSender for Sender {
    fn poll_send(
        self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.is_silent() {
            return Poll::Ready(Ok(()));
        }
        let to = transmit.destination;
        if !stands_for_flow(&to) {
            if this.shared.relay_only || !is_somebody(to.ip().to_canonical()) {
                return Poll::Ready(Ok(()));
            }
            let direct = Transmit {
                destination: SocketAddr::new(this.shared.own_family(to.ip()), to.port()),
                src_ip: transmit.src_ip.map(|ip| this.shared.own_family(ip)),
                ..transmit.clone()
            };
            return this.poll(&direct, cx);
        }
        let Some((header, relay, carrier)) = this.shared.flows.known().at(&to).map(|flow| {
            let end = &flow.end;
            let header = frame::header(end.flow, end.side);
            (header, end.addr, flow.carrier())
        }) else {
            // The flow is gone, and QUIC will notice.
            return Poll::Ready(Ok(()));
        };
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut framed = std::mem::take(&mut this.framed);
        framed.clear();
        for datagram in transmit.contents.chunks(size.max(1)) {
            framed.extend_from_slice(&header);
            framed.extend_from_slice(datagram);
        }
        if let Some(carrier) = carrier {
            let sent = this.poll_carried(&carrier, &framed, size + HEADER, cx);
            this.framed = framed;
            return sent;
        }
        let relayed = Transmit {
            destination: SocketAddr::new(this.shared.own_family(relay.ip()), relay.port()),
            ecn: transmit.ecn,
            contents: &framed,
            segment_size: transmit.segment_size.map(|size| size + HEADER),
            src_ip: None,
        };
        let sent = this.poll(&relayed, cx);
        this.framed = framed;
        sent
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        let most = self.shared.state.max_gso_segments().get();
        let most = most.min(MOST_AT_ONCE / LARGEST);
        let most = self.shared.line.segments(most);
        NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)
    }
}

/// Whether an address can be one peer's: others may name any to be probed.
fn is_somebody(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_broadcast() || ip.is_multicast() || ip.is_unspecified()),
        IpAddr::V6(ip) => !(ip.is_multicast() || ip.is_unspecified()),
    }
}
