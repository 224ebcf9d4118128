//! A session: one QUIC connection to a peer, with one long-lived stream of frames.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use canopy_core::contact::Contact;
use canopy_core::keyspace::NodeId;
use canopy_proto::{limits, wire};
use prost::Message;
use quinn::VarInt;
use tokio::sync::Notify;

use super::Inner;
use super::carrier::stands_for_carrier;
use super::error::{CloseReason, MeasureError, NotifyError, RequestError};
use super::frame::FrameKind;
use super::hello::Agreed;
use super::measure::{self, MeasurePlan, Measured};
use super::outbox::Outbox;
use super::pending::Pending;

/// Codes of connection closes.
pub(super) mod close_code {
    /// On purpose; the reason is text.
    pub(in super::super) const CLOSED: u32 = 0;
    /// The other side broke the protocol.
    pub(in super::super) const MALFORMED: u32 = 1;
    /// Another session took this one's place.
    pub(in super::super) const SUPERSEDED: u32 = 2;
    /// The hello was refused.
    pub(in super::super) const REFUSED: u32 = 3;
    /// The dial was only to see who answers.
    pub(in super::super) const PROBE: u32 = 4;
    /// At a limit.
    pub(in super::super) const BUSY: u32 = 5;
}

/// A session to a peer; a handle, cheap to clone. It lives until it is closed,
/// whether or not handles remain.
#[derive(Clone)]
pub struct Session(pub(super) Arc<Shared>);

pub(super) struct Shared {
    /// Whose it is; gone when the fabric is.
    fabric: Weak<Inner>,
    pub(super) connection: quinn::Connection,
    pub(super) agreed: Agreed,
    pub(super) inbound: bool,
    pub(super) since: Instant,
    /// Where the peer was when the session opened.
    at: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) pending: Pending,
    reason: OnceLock<CloseReason>,
    /// Wakes the session's task to end, and who waits for the end.
    closing: Notify,
    ended: Notify,
}

impl Session {
    pub(super) fn new(
        fabric: &Arc<Inner>,
        connection: quinn::Connection,
        agreed: Agreed,
        inbound: bool,
    ) -> Self {
        let limits = &fabric.config.limits;
        let addr = connection.remote_address();
        Self(Arc::new(Shared {
            fabric: Arc::downgrade(fabric),
            at: fabric.carriers.real(addr).unwrap_or(addr),
            connection,
            agreed,
            inbound,
            since: Instant::now(),
            outbox: Outbox::new(limits.queue_bytes),
            pending: Pending::new(limits.in_flight),
            reason: OnceLock::new(),
            closing: Notify::new(),
            ended: Notify::new(),
        }))
    }

    /// Who is at the other end, proved by the handshake.
    pub fn peer(&self) -> NodeId {
        self.0.agreed.contact.node_id
    }

    /// The contact that the peer gave with its hello, verified.
    pub fn contact(&self) -> &Contact {
        &self.0.agreed.contact
    }

    /// Where the peer's packets come from now; by a carrier, where that comes from.
    pub fn remote_addr(&self) -> SocketAddr {
        match self.carried() {
            // It never changes its carrier.
            true => self.0.at,
            false => canonical(self.0.connection.remote_address()),
        }
    }

    /// Whether a carrier brings it, because UDP does not get through.
    pub fn carried(&self) -> bool {
        stands_for_carrier(&self.0.connection.remote_address())
    }

    /// Where the peer saw our packets come from, by its word.
    pub fn observed_addr(&self) -> Option<SocketAddr> {
        self.0.agreed.observed
    }

    /// The peer's wall clock minus ours when the session opened, milliseconds;
    /// good to about half a round trip.
    pub fn clock_offset_ms(&self) -> i64 {
        self.0.agreed.clock_offset_ms
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.0.since.elapsed()
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.0.connection.rtt()
    }

    /// The wire version both speak.
    pub fn version(&self) -> u32 {
        self.0.agreed.version
    }

    /// Program and version of the peer, by its word.
    pub fn agent(&self) -> &str {
        &self.0.agreed.agent
    }

    /// Whether the peer dialled.
    pub fn inbound(&self) -> bool {
        self.0.inbound
    }

    /// Requests of ours under way.
    pub fn in_flight(&self) -> usize {
        self.0.pending.len()
    }

    /// Asks the peer and waits for the answer, at most `deadline`. A refusal
    /// comes back as [`RequestError::Refused`]. Dropping the future cancels the
    /// request at the peer.
    pub async fn request(
        &self,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> Result<wire::response::Kind, RequestError> {
        let limit = limits::request(&request);
        let request = wire::Request {
            kind: Some(request),
        };
        let size = request.encoded_len();
        // The limit is of the kind; the oneof adds a tag and a length.
        if size > limits::FRAME || size > limit + 8 {
            return Err(RequestError::TooLarge { size, limit });
        }
        let shared = &self.0;
        let id = shared.pending.start(Instant::now() + deadline)?;
        let waiting = Waiting {
            shared,
            id: Some(id),
        };
        shared
            .outbox
            .push(FrameKind::Request, id, &request, size)
            .map_err(|_| RequestError::Busy)
            .inspect_err(|_| {
                shared.pending.forget(id);
            })?;
        waiting.await
    }

    /// Queues a one-way message; returns at once. Messages arrive in order, or
    /// not at all if the session ends first.
    pub fn notify(&self, message: &wire::CoreMessage) -> Result<(), NotifyError> {
        if let Some(reason) = self.0.reason.get() {
            return Err(NotifyError::Closed(reason.clone()));
        }
        let size = message.encoded_len();
        let limit = message.kind.as_ref().map_or(0, limits::core);
        if size > limits::FRAME || size > limit + 8 {
            return Err(NotifyError::TooLarge { size, limit });
        }
        self.0
            .outbox
            .push(FrameKind::Notify, 0, message, size)
            .map_err(|_| NotifyError::Busy)
    }

    /// Measures the line to and from the peer, which must admit it, on a
    /// connection of its own. Takes `plan.duration` and a few round trips.
    pub async fn measure(&self, plan: &MeasurePlan) -> Result<Measured, MeasureError> {
        match self.0.fabric.upgrade() {
            Some(inner) => measure::run(&inner, self, plan).await,
            None => Err(MeasureError::Broken("the fabric is closed".into())),
        }
    }

    /// Ends the session; the peer is told why. What is queued may be lost.
    pub fn close(&self, reason: &str) {
        self.end(CloseReason::Local(reason.to_owned()));
    }

    /// Waits for the end; why it came.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let ended = self.0.ended.notified();
            if let Some(reason) = self.0.reason.get() {
                return reason.clone();
            }
            ended.await;
        }
    }

    /// Why it ended, if it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.reason.get().cloned()
    }

    /// Ends the session for `reason`; the first reason stays.
    pub(super) fn end(&self, reason: CloseReason) {
        if self.0.reason.set(reason).is_err() {
            return;
        }
        let Some(reason) = self.0.reason.get() else {
            return;
        };
        let (code, text) = match reason {
            CloseReason::Malformed(text) => (close_code::MALFORMED, text.as_str()),
            CloseReason::Superseded => (close_code::SUPERSEDED, "superseded"),
            CloseReason::Local(text) => (close_code::CLOSED, text.as_str()),
            _ => (close_code::CLOSED, ""),
        };
        let text = &text.as_bytes()[..text.len().min(256)];
        self.0.connection.close(VarInt::from_u32(code), text);
        self.0.pending.close(reason);
        self.0.closing.notify_one();
        self.0.ended.notify_waiters();
    }

    /// For the session's task: returns once it must end.
    pub(super) async fn closing(&self) {
        if self.0.reason.get().is_none() {
            self.0.closing.notified().await;
        }
    }
}

impl Shared {
    /// Queues our hello as the first frame; the session is new.
    pub(super) fn greet(&self, hello: &wire::Hello) {
        let size = hello.encoded_len();
        self.outbox.push_bounded(FrameKind::Hello, 0, hello, size);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = if self.0.inbound { "from" } else { "to" };
        write!(f, "Session({direction} {:?})", self.peer())
    }
}

/// Mapped IPv4 addresses of a dual-stack socket, as people write them.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A request under way. Dropped before its end, it cancels the request.
struct Waiting<'a> {
    shared: &'a Shared,
    id: Option<u32>,
}

impl Future for Waiting<'_> {
    type Output = Result<wire::response::Kind, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else {
            return Poll::Ready(Err(RequestError::Malformed));
        };
        let outcome = std::task::ready!(self.shared.pending.poll(id, cx));
        self.id = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && self.shared.pending.forget(id)
        {
            self.shared
                .outbox
                .push_bounded(FrameKind::Cancel, id, &(), 0);
        }
    }
}
