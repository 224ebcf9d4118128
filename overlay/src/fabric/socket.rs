//! The fabric's UDP socket: large kernel buffers, an uplink limit that QUIC
//! feels as a slow line, and a switch that silences it. What goes by a carrier
//! goes through it too.
//!
//! The limit must hold for everything sent, by every connection of every
//! socket that shares the bucket; each waiter has a timer of its own, so no
//! waiter depends on another to be woken.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::carrier::{Carried, Carriers, Channel, stands_for_carrier};
use super::uplink::Bucket;

/// Kernel buffers asked for, bytes: the usual 208 KiB drop handshakes in a burst.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
/// What IP and UDP add to a datagram, bytes: IPv4 and IPv6.
const HEADERS: [usize; 2] = [28, 48];
/// A datagram's size as batches are planned, bytes.
const DATAGRAM: usize = 1_200;

/// Opens a UDP socket with large buffers, dual-stack where it is IPv6.
pub fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "fabric.socket.v6_only");
    }
    // The system may grant less (net.core.rmem_max); that is no failure.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// What all sockets of one fabric share.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The uplink limit.
    pub(super) bucket: Option<Arc<Bucket>>,
    /// Nothing goes out or comes in any more.
    pub(super) silent: Arc<AtomicBool>,
    /// Bytes handed to the kernel, as the limit counts them.
    pub(super) sent: Arc<AtomicU64>,
    /// Bytes written to measure lines, out of those sent.
    pub(super) measuring: Arc<AtomicU64>,
}

impl Line {
    pub(super) fn new(uplink_bps: Option<u64>) -> Self {
        let bucket = uplink_bps.map(|bits| Arc::new(Bucket::new(bits, Instant::now())));
        Self {
            bucket,
            silent: Arc::default(),
            sent: Arc::default(),
            measuring: Arc::default(),
        }
    }

    /// Has `send` hand over what weighs `weight`, if the limit lets it.
    pub(super) fn send(
        &self,
        weight: usize,
        send: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(bucket) = &self.bucket {
            let taken = bucket.take(weight, Instant::now());
            taken.map_err(|_| io::ErrorKind::WouldBlock)?;
        }
        let sent = send();
        match (&sent, &self.bucket) {
            (Ok(()), _) => {
                self.sent.fetch_add(weight as u64, Ordering::Relaxed);
            }
            (Err(_), Some(bucket)) => bucket.give_back(weight),
            (Err(_), None) => {}
        }
        sent
    }

    /// Datagrams that should go in one batch, of `most` that may: a slow line in
    /// large batches would starve its other connections.
    pub(super) fn segments(&self, most: usize) -> usize {
        match &self.bucket {
            None => most,
            Some(bucket) => most.min((bucket.batch() / DATAGRAM).max(1)),
        }
    }

    /// `socket` as quinn takes it, on this line; with what carriers bring, and
    /// without where there is nothing to come by them.
    pub(super) fn wrap(
        &self,
        socket: UdpSocket,
        carried: Option<(Arc<Carriers>, mpsc::Receiver<Carried>)>,
        runtime: &dyn Runtime,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(FabricSocket {
            inner: runtime.wrap_udp_socket(socket)?,
            line: self.clone(),
            carried: carried.map(|(carriers, came)| ByCarrier {
                carriers,
                came: Mutex::new(came),
                first: AtomicBool::new(false),
            }),
        }))
    }
}

#[derive(Debug)]
struct FabricSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    line: Line,
    carried: Option<ByCarrier>,
}

#[derive(Debug)]
struct ByCarrier {
    carriers: Arc<Carriers>,
    came: Mutex<mpsc::Receiver<Carried>>,
    /// Carriers and UDP are looked at first by turns: neither starves the other.
    first: AtomicBool,
}

impl ByCarrier {
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut came = self.came.lock();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Poll::Ready(Some((pipe, datagram))) = came.poll_recv(cx) else {
                break;
            };
            let length = datagram.len().min(buf.len());
            buf[..length].copy_from_slice(&datagram[..length]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (pipe.addr, length, length);
            count += 1;
        }
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }
}

impl FabricSocket {
    fn is_silent(&self) -> bool {
        self.line.silent.load(Ordering::Relaxed)
    }

    fn poll_udp(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
        let count = *received.as_ref().unwrap_or(&0);
        for meta in &mut meta[..count] {
            // Nobody can really send from there.
            if stands_for_carrier(&meta.addr) {
                meta.len = 0;
            }
        }
        Poll::Ready(received)
    }
}

/// What a batch of `size` bytes weighs on the line, bytes.
pub(super) fn weight(size: usize, segment: Option<usize>, to: SocketAddr) -> usize {
    let datagrams = segment.map_or(1, |one| size.div_ceil(one.max(1)));
    size + datagrams * HEADERS[usize::from(to.is_ipv6())]
}

impl AsyncUdpSocket for FabricSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = Arc::clone(&self.inner).create_io_poller();
        match &self.line.bucket {
            None => inner,
            Some(bucket) => Box::pin(LimitedPoller {
                bucket: Arc::clone(bucket),
                inner,
                wait: Wait::default(),
            }),
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.is_silent() {
            return Ok(());
        }
        let (size, to) = (transmit.contents.len(), transmit.destination);
        let weight = weight(size, transmit.segment_size, to);
        self.line.send(weight, || match &self.carried {
            Some(carried) if stands_for_carrier(&to) => {
                let each = transmit.segment_size.unwrap_or(size);
                let channel = Channel::Sessions;
                carried.carriers.send(&to, channel, transmit.contents, each);
                Ok(())
            }
            _ => self.inner.try_send(transmit),
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = match &self.carried {
                None => self.poll_udp(cx, bufs, meta),
                Some(carried) if carried.first.fetch_xor(true, Ordering::Relaxed) => {
                    match carried.poll_recv(cx, bufs, meta) {
                        Poll::Pending => self.poll_udp(cx, bufs, meta),
                        received => received,
                    }
                }
                Some(carried) => match self.poll_udp(cx, bufs, meta) {
                    Poll::Pending => carried.poll_recv(cx, bufs, meta),
                    received => received,
                },
            };
            let received = ready!(received);
            if received.is_err() || !self.is_silent() {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.line.segments(self.inner.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Waits for a bucket, by a timer of its own.
#[derive(Default)]
pub(super) struct Wait(Option<Pin<Box<Sleep>>>);

impl Wait {
    pub(super) fn poll(&mut self, bucket: &Bucket, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(wait) = bucket.wait_for(Instant::now()) {
            let at = tokio::time::Instant::now() + wait;
            let timer = match &mut self.0 {
                Some(timer) => {
                    timer.as_mut().reset(at);
                    timer
                }
                none => none.insert(Box::pin(tokio::time::sleep_until(at))),
            };
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

/// Ready when both the bucket and the socket are.
struct LimitedPoller {
    bucket: Arc<Bucket>,
    inner: Pin<Box<dyn UdpPoller>>,
    wait: Wait,
}

impl UdpPoller for LimitedPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.wait.poll(&this.bucket, cx));
        this.inner.as_mut().poll_writable(cx)
    }
}

impl fmt::Debug for LimitedPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedPoller").finish_non_exhaustive()
    }
}
