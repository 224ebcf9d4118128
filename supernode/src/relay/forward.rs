//! The relay's socket: datagrams in batches from the kernel, through the flows,
//! and out again, in one task.
//!
//! Batches that the kernel put together (GRO) are looked at once and go out as
//! one (GSO). Nothing is copied, allocated or locked for a datagram. Where the
//! kernel takes no more, the relay waits: its senders' datagrams then wait, or
//! are lost, in the receive buffer. What a carrier brings is one datagram at a time.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use noq_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::counts::{Counts, Dropped, Refused};
use super::flows::{Drawn, FlowFigures, Flows, Outgoing, PERIOD, Place};
use crate::heat::Top;
use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::CarriedRelay;
use canopy_overlay::fabric::link::frame::FlowId;

/// Batches taken from the kernel at once. More do not fit the processor's cache.
const BATCHES: usize = 8;
/// Most bytes of a batch.
const BATCH: usize = 64 * 1024;
/// Datagrams of carriers that are taken before the socket has its turn.
const CARRIED: usize = 128;
/// Times that the socket is read before commands have their turn.
const READS: usize = 16;
/// What IP and UDP add to a datagram, bytes: IPv4 and IPv6.
const HEADERS: [usize; 2] = [28, 48];
/// Most bytes that one send may have: the payload of the largest datagram.
const MOST_AT_ONCE: usize = 65_487;

/// What a carrier brings next.
async fn came(carried: &mut Option<CarriedRelay>) -> (SocketAddr, Bytes) {
    match carried {
        Some(carried) => carried.recv().await,
        None => std::future::pending().await,
    }
}

/// What the relay's task is asked.
pub(super) enum Command {
    Open {
        opener: NodeId,
        other: NodeId,
        drawn: Drawn,
        done: oneshot::Sender<Result<(), Refused>>,
    },
    Close(FlowId),
    Limit(Option<u64>),
    Expel(Arc<Bans>),
    Top {
        limit: usize,
        told: oneshot::Sender<Top<FlowFigures>>,
    },
}

/// The task's state.
pub(super) struct Forwarder {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    carried: Option<CarriedRelay>,
    flows: Flows,
    counts: Arc<Counts>,
    commands: mpsc::Receiver<Command>,
    buffer: Box<[u8]>,
    outgoing: Vec<Outgoing>,
}

impl Forwarder {
    pub(super) fn new(
        socket: UdpSocket,
        carried: Option<CarriedRelay>,
        flows: Flows,
        counts: Arc<Counts>,
        commands: mpsc::Receiver<Command>,
    ) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            socket: tokio::net::UdpSocket::from_std(socket)?,
            carried,
            flows,
            counts,
            commands,
            buffer: vec![0; BATCHES * BATCH].into_boxed_slice(),
            outgoing: Vec::new(),
        })
    }

    /// Runs until nobody can give commands any more.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.flows.is_empty();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = ticks.tick(), if !idle => self.flows.tick(Instant::now()),
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        return tracing::error!(%error, "relay.socket: the relay has ended");
                    }
                    self.forward().await;
                    self.forward_carried().await;
                }
                (from, datagram) = came(&mut self.carried) => {
                    self.forward_one(from, &datagram).await;
                    self.forward_carried().await;
                }
            }
        }
    }

    /// Forwards what carriers have brought.
    async fn forward_carried(&mut self) {
        for _ in 0..CARRIED {
            let came = self.carried.as_mut().and_then(CarriedRelay::try_recv);
            let Some((from, datagram)) = came else {
                break;
            };
            self.forward_one(from, &datagram).await;
        }
    }

    async fn forward_one(&mut self, from: SocketAddr, datagram: &[u8]) {
        let mut meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (from, datagram.len(), datagram.len());
        self.pass_on(Instant::now(), datagram, &meta).await;
    }

    /// Looks at what came at once, and sends what is to be sent for it.
    async fn pass_on(&mut self, now: Instant, bytes: &[u8], meta: &RecvMeta) {
        let from = Place {
            addr: meta.addr,
            local: meta.dst_ip,
        };
        let mut outgoing = std::mem::take(&mut self.outgoing);
        self.flows
            .receive(now, from, bytes, meta.stride, &mut outgoing);
        for out in outgoing.drain(..) {
            self.send(&out, bytes, meta).await;
        }
        self.outgoing = outgoing;
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        // Who asked may have given up: then the flow ends by itself.
        match command {
            Command::Open {
                opener,
                other,
                drawn,
                done,
            } => {
                let _ = done.send(self.flows.open(now, opener, other, drawn));
            }
            Command::Close(flow) => self.flows.close(flow),
            Command::Limit(bps) => self.flows.limit(bps),
            Command::Expel(bans) => self.flows.expel(&bans),
            Command::Top { limit, told } => {
                let _ = told.send(self.flows.top(now, limit));
            }
        }
    }

    /// Forwards what has come.
    async fn forward(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..READS {
            let mut metas = [RecvMeta::default(); BATCHES];
            let count = match self.receive(&mut buffer, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error about something sent before: read on.
                Err(error) => {
                    tracing::debug!(%error, "relay.receive");
                    break;
                }
            };
            let now = Instant::now();
            for (bytes, meta) in buffer.chunks(BATCH).zip(&metas[..count]) {
                let bytes = &bytes[..meta.len];
                if CarriedRelay::leads_to(&meta.addr) {
                    // Nobody can really send from there.
                    self.counts.discard(Dropped::Forged, 1);
                    continue;
                }
                self.pass_on(now, bytes, meta).await;
            }
        }
        self.buffer = buffer;
    }

    fn receive(&self, buffer: &mut [u8], metas: &mut [RecvMeta; BATCHES]) -> io::Result<usize> {
        let mut parts = buffer.chunks_mut(BATCH);
        let mut slices: [IoSliceMut<'_>; BATCHES] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
        self.socket.try_io(Interest::READABLE, || {
            let socket = (&self.socket).into();
            self.state.recv(socket, &mut slices, metas)
        })
    }

    async fn send(&self, out: &Outgoing, bytes: &[u8], meta: &RecvMeta) {
        match out {
            Outgoing::Reply { to, frame, length } => {
                self.send_piece(*to, &frame[..*length], None, None).await;
            }
            Outgoing::Forward { to, part, .. } => {
                let stride = meta.stride.max(1);
                let most = self.state.max_gso_segments().get();
                let most = most.min(MOST_AT_ONCE / stride).max(1);
                for piece in bytes[part.clone()].chunks(stride * most) {
                    self.send_piece(*to, piece, Some(stride), meta.ecn).await;
                }
            }
        }
    }

    /// Hands datagrams of `stride` bytes to the kernel, waiting where it is busy.
    async fn send_piece(
        &self,
        to: Place,
        contents: &[u8],
        stride: Option<usize>,
        ecn: Option<EcnCodepoint>,
    ) {
        let transmit = Transmit {
            destination: to.addr,
            ecn,
            contents,
            segment_size: stride.filter(|stride| *stride < contents.len()),
            src_ip: to.local,
        };
        let datagrams = stride.map_or(1, |stride| contents.len().div_ceil(stride));
        if CarriedRelay::leads_to(&to.addr) {
            if let Some(carried) = &self.carried {
                let size = stride.unwrap_or(contents.len());
                carried.send(&to.addr, contents, size);
                self.counts.send(contents.len() + datagrams * HEADERS[0]);
            }
            return;
        }
        loop {
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                self.state.try_send((&self.socket).into(), &transmit)
            });
            match sent {
                Ok(()) => {
                    let headers = HEADERS[usize::from(to.addr.is_ipv6())];
                    return self.counts.send(contents.len() + datagrams * headers);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.socket.writable().await.is_err() {
                        return self.counts.discard(Dropped::Failed, datagrams);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, to = %to.addr, "relay.send");
                    return self.counts.discard(Dropped::Failed, datagrams);
                }
            }
        }
    }
}
