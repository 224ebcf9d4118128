//! One carrier while it lasts: a short queue out, and whatever comes in handed on.
//!
//! What finds the queue full is lost, as in a router's: QUIC takes it as
//! congestion. What comes in faster than it is taken waits in the other side's
//! queue, by TCP's own flow control.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::Carriers;
use super::frame::{self, Channel, Malformed};

/// Datagrams that wait to be written.
const QUEUE: usize = 256;
/// Bytes read, and written, at a time.
const AT_ONCE: usize = 16 * 1024;
/// A carrier on which nothing comes for this long is over: sessions and flows
/// say something every 20 s at the latest. Also what a write may take.
const IDLE: Duration = Duration::from_secs(45);
/// One that was silent for so long is not trusted with something new.
const FRESH: Duration = Duration::from_secs(25);
/// How long what was said at the end may take to get out.
const FAREWELL: Duration = Duration::from_millis(500);

type Stream = TlsStream<TcpStream>;

/// A carrier to one peer.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Who is at the other end, proved by the handshake.
    pub(crate) peer: NodeId,
    /// What stands for it.
    pub(crate) addr: SocketAddr,
    /// Where the other end really is.
    pub(crate) remote: SocketAddr,
    /// The other side opened it.
    pub(crate) accepted: bool,
    out: mpsc::Sender<Bytes>,
    heard: Mutex<Instant>,
    over: watch::Sender<bool>,
}

/// Why a carrier is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the other side closed it")]
    Peer,
    #[error("this side closed it")]
    Local,
    #[error("it was silent for too long")]
    Idle,
    #[error("the other side broke the protocol: {0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Pipe {
    /// A new one, and what is to be written.
    pub(super) fn new(
        peer: NodeId,
        addr: SocketAddr,
        remote: SocketAddr,
        accepted: bool,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (out, queue) = mpsc::channel(QUEUE);
        let pipe = Self {
            peer,
            addr,
            remote,
            accepted,
            out,
            heard: Mutex::new(Instant::now()),
            over: watch::Sender::new(false),
        };
        (pipe, queue)
    }

    /// Whether it works, as far as one can know.
    pub(super) fn is_fresh(&self) -> bool {
        !*self.over.borrow() && self.heard.lock().elapsed() < FRESH
    }

    /// Waits until it is over.
    pub(crate) async fn over(&self) {
        // An error would say that the sender, which is ours, is gone.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Queues a datagram; false where it is lost.
    pub(super) fn send(&self, channel: Channel, datagram: &[u8]) -> bool {
        let frame = frame::frame(channel, datagram);
        frame.is_some_and(|frame| self.out.try_send(frame).is_ok())
    }
}

/// Carries until the end.
pub(super) async fn run(
    carriers: Arc<Carriers>,
    pipe: Arc<Pipe>,
    stream: Stream,
    queue: mpsc::Receiver<Bytes>,
) {
    let (from, to) = tokio::io::split(stream);
    let over = tokio::select! {
        over = receive(&carriers, &pipe, from) => over,
        over = transmit(queue, to) => over,
        () = closing(&carriers) => Over::Local,
    };
    tracing::debug!(peer = ?pipe.peer, remote = %pipe.remote, %over, "carrier.down");
    carriers.forget(&pipe);
    pipe.over.send_replace(true);
}

async fn closing(carriers: &Carriers) {
    carriers.closed().await;
    tokio::time::sleep(FAREWELL).await;
}

async fn receive(carriers: &Carriers, pipe: &Arc<Pipe>, mut from: ReadHalf<Stream>) -> Over {
    let mut came = BytesMut::new();
    loop {
        came.reserve(AT_ONCE);
        match timeout(IDLE, from.read_buf(&mut came)).await {
            Err(_) => return Over::Idle,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Over::Peer,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => return Over::Peer,
            Ok(Ok(_)) => *pipe.heard.lock() = Instant::now(),
        }
        loop {
            match frame::take(&mut came) {
                Ok(Some((channel, datagram))) => carriers.take(pipe, channel, datagram).await,
                Ok(None) => break,
                Err(malformed) => {
                    carriers.counts.malformed.fetch_add(1, Ordering::Relaxed);
                    return malformed.into();
                }
            }
        }
    }
}

async fn transmit(mut queue: mpsc::Receiver<Bytes>, mut to: WriteHalf<Stream>) -> Over {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while let Some(frame) = queue.recv().await {
        batch.clear();
        batch.extend_from_slice(&frame);
        while batch.len() + frame::LARGEST < AT_ONCE
            && let Ok(frame) = queue.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        let written = async {
            to.write_all(&batch).await?;
            to.flush().await
        };
        match timeout(IDLE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Over::Idle,
        }
    }
    Over::Local
}
