//! Everything that can go wrong, by operation.

use std::io;
use std::net::SocketAddr;

use canopy_core::keyspace::NodeId;
use canopy_proto::wire;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP {0} is in use; stop the other program or choose another port")]
    InUse(SocketAddr),
    /// The system does not let us.
    #[error("no permission to listen on UDP {0}; choose a port above 1023 or grant the right")]
    Permission(SocketAddr),
    /// No interface has the address.
    #[error("{0} is no address of this machine; listen on one that is, or on [::] for all")]
    NoSuchAddress(SocketAddr),
    /// Anything else the system said.
    #[error("cannot listen on UDP {addr}: {source}")]
    Io {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration cannot work.
    #[error("the fabric cannot start: {0}")]
    Config(String),
}

impl BindError {
    pub(super) fn from_io(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(addr),
            io::ErrorKind::PermissionDenied => Self::Permission(addr),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(addr),
            _ => Self::Io { addr, source },
        }
    }

    pub(super) fn tls(error: impl std::fmt::Display) -> Self {
        Self::Config(format!("TLS: {error}"))
    }
}

/// Why there is no session to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The target names no address.
    #[error("no address is known for this peer")]
    NoAddress,
    /// The target is this peer itself.
    #[error("that address is this peer's own")]
    Myself,
    /// Nothing answered before the deadline.
    #[error("no answer in time; is the peer up, and UDP open on the way?")]
    Timeout,
    /// The system or the peer's system refused.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Another peer answered there.
    #[error("expected peer {expected} but {found} answered; the address has moved")]
    WrongIdentity {
        /// Whom the target names.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// No wire version in common; the text is the side's that refused.
    #[error("no common wire version: {0}")]
    Version(String),
    /// Another network, topology or operator; the text is the side's that refused.
    #[error("another overlay: {0}; peers must agree on network, topology and operator")]
    Network(String),
    /// The peer is at a limit.
    #[error("the peer is busy: {0}; try later or elsewhere")]
    Busy(String),
    /// The peer speaks something else, or refused for another reason.
    #[error("the peer was refused or refused: {}", .0.message)]
    Refused(wire::Refusal),
    /// This fabric is closed.
    #[error("the fabric is closed")]
    Closed,
}

impl From<wire::Refusal> for DialError {
    fn from(refusal: wire::Refusal) -> Self {
        use wire::refusal::Code;
        match refusal.code() {
            Code::Version => Self::Version(refusal.message),
            Code::Network => Self::Network(refusal.message),
            Code::Busy => Self::Busy(refusal.message),
            _ => Self::Refused(refusal),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed here: {0}")]
    Local(String),
    /// The other side closed it.
    #[error("closed by the peer: {0}")]
    Peer(String),
    /// The peer was silent past the idle time-out.
    #[error("the peer fell silent")]
    TimedOut,
    /// The peer forgot the session: it restarted.
    #[error("the peer restarted")]
    Reset,
    /// Another session to the same peer took its place.
    #[error("another session to the peer took its place")]
    Superseded,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Malformed(String),
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(String),
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The deadline passed; the peer was told to stop.
    #[error("no answer in time")]
    Deadline,
    /// The session ended.
    #[error("the session ended: {0}")]
    Closed(CloseReason),
    /// The peer answered that it will not.
    #[error("refused: {}", .0.message)]
    Refused(wire::Refusal),
    /// Too many requests are under way or too many bytes queued; nothing was sent.
    #[error("too much under way to this peer; wait for answers first")]
    Busy,
    /// The answer could not be understood.
    #[error("the answer is malformed")]
    Malformed,
    /// The request is larger than its kind may be; nothing was sent.
    #[error("the request is {size} bytes; its kind allows {limit}")]
    TooLarge {
        /// Encoded size, bytes.
        size: usize,
        /// Most allowed, bytes.
        limit: usize,
    },
}

/// Why a message was not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The session ended.
    #[error("the session ended: {0}")]
    Closed(CloseReason),
    /// The queue to this peer is full.
    #[error("the queue to this peer is full; drop the message or send it later")]
    Busy,
    /// The message is larger than its kind may be.
    #[error("the message is {size} bytes; its kind allows {limit}")]
    TooLarge {
        /// Encoded size, bytes.
        size: usize,
        /// Most allowed, bytes.
        limit: usize,
    },
}

/// Why a measurement has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The plan is over a limit.
    #[error("the plan is out of bounds: {0}")]
    Plan(&'static str),
    /// The candidate did not admit it, or is busy.
    #[error("the candidate refused: {0}")]
    Refused(String),
    /// Nothing answered in time.
    #[error("the candidate did not answer in time")]
    Timeout,
    /// Another peer answered at the candidate's address.
    #[error("another peer answered at the candidate's address")]
    WrongIdentity,
    /// The connection broke or the report made no sense.
    #[error("the measurement broke off: {0}")]
    Broken(String),
}
