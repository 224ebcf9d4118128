//! What the fabric asks of the peer that it runs in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use canopy_core::keyspace::NodeId;
use canopy_proto::wire;

use super::error::CloseReason;
use super::measure::MeasurePlan;
use super::session::Session;

/// The answer to a request.
pub enum Answer {
    /// Here it is: no task and no allocation.
    Now(wire::response::Kind),
    /// It takes a while. Runs beside others, up to [`super::Limits::serving`] a
    /// session; dropped when the caller gives up or the session ends.
    Later(Pin<Box<dyn Future<Output = wire::response::Kind> + Send>>),
}

impl Answer {
    /// A refusal with `message` for people.
    pub fn refuse(code: wire::refusal::Code, message: impl Into<String>) -> Self {
        Self::Now(refusal(code, message))
    }

    /// An answer that takes a while.
    pub fn later(future: impl Future<Output = wire::response::Kind> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Now(kind) => f.debug_tuple("Now").field(kind).finish(),
            Answer::Later(_) => f.write_str("Later"),
        }
    }
}

/// The response that refuses.
pub(super) fn refusal(
    code: wire::refusal::Code,
    message: impl Into<String>,
) -> wire::response::Kind {
    wire::response::Kind::Refusal(wire::Refusal {
        code: code.into(),
        message: message.into(),
    })
}

/// The peer behind a fabric. Methods run on the session's own task: they must
/// return at once and never block; what takes time goes into
/// [`Answer::Later`] or a queue. Bodies share the buffers they arrived in, so
/// what is kept for long should be copied.
pub trait Service: Send + Sync + 'static {
    /// Answers a request.
    fn request(&self, from: &Session, request: wire::request::Kind) -> Answer;

    /// Takes a one-way message.
    fn notify(&self, from: &Session, message: wire::CoreMessage);

    /// A session is open; called before anything arrives on it. Called again
    /// for a peer when a new session takes the place of its old one.
    fn session_up(&self, session: &Session) {
        let _ = session;
    }

    /// The peer's last session ended.
    fn session_down(&self, peer: NodeId, reason: CloseReason) {
        let _ = (peer, reason);
    }

    /// Whether `from` may measure this peer now. By default nobody may.
    fn admit_measure(&self, from: NodeId, plan: &MeasurePlan) -> bool {
        let _ = (from, plan);
        false
    }
}
