//! What goes into a [`Core`](super::Core) and what comes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use canopy_proto::wire;

use crate::contact::Contact;
use crate::decree::{Bans, Subject};
use crate::election::criteria::Verdict;
use crate::keyspace::NodeId;
use crate::placement::Placement;

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session is open; either side may have dialled.
    SessionUp {
        /// The peer's verified contact.
        contact: Contact,
        /// The peer dialled us.
        inbound: bool,
        /// How the peer sees us.
        observed: Option<SocketAddr>,
        /// Round trip of the handshake.
        round_trip: Duration,
        /// The peer's clock minus ours, milliseconds.
        clock_offset_ms: i64,
    },
    /// A session ended.
    SessionDown(NodeId),
    /// A peer that the core wanted to reach could not be.
    Unreachable(NodeId),
    /// A message of a peer that a session is open to.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: Box<wire::CoreMessage>,
    },
    /// The end of an [`Output::DialBack`].
    DialedBack {
        /// As in the request.
        token: u64,
        /// The peer answered at the address and proved its identity.
        reached: bool,
    },
    /// The end of an [`Output::Measure`].
    Measured {
        /// As in the request.
        token: u64,
        /// Absent when the transfer failed.
        result: Option<Measured>,
    },
    /// The address outside at which a router lets in what is for this peer's
    /// sessions; `None`: none does any more.
    Mapped(Option<SocketAddr>),
    /// How this peer fares as a super-node, thousandths of each limit.
    Load(Load),
    /// The role's records are handed over: retiring ends.
    HandedOver,
    /// The user or operator asks the super-node to lay down its role.
    StepDown,
    /// The operator designates this peer, for the first time or anew.
    Designated(wire::SignedMandate),
    /// The operator wants this peer to take on nothing new, or again to.
    Cordon(bool),
    /// The network's operator decreed something: to be checked, obeyed and passed
    /// on.
    Decree(wire::Signed),
    /// An operator wants that many more super-nodes elected now, if this peer is
    /// the one to run the next election.
    CallElection(usize),
    /// An operator wants so many leaves of this super-node moved to each of these.
    MoveLeaves(Vec<(NodeId, usize)>),
}

/// What a juror measured, both directions at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Goodput candidate to juror, bits a second.
    pub up_bps: u64,
    /// Goodput juror to candidate, bits a second.
    pub down_bps: u64,
    /// Smoothed round trip during the transfer.
    pub round_trip: Duration,
    /// Lost packets a million.
    pub loss_ppm: u32,
}

/// Utilisation of a super-node, thousandths of the limit of each dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions.
    pub connections: u32,
    /// Index operations.
    pub operations: u32,
    /// Bytes sent.
    pub bytes: u32,
    /// Memory.
    pub memory: u32,
    /// Processor time.
    pub cpu: u32,
}

impl Load {
    /// The worst dimension: the utilisation that the law looks at.
    pub fn worst(&self) -> u32 {
        self.connections
            .max(self.operations)
            .max(self.bytes)
            .max(self.memory)
            .max(self.cpu)
    }
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a session to one of these addresses; `node` is who must answer, if
    /// that is known. Nothing happens where a session is open already.
    Connect {
        /// Who must answer.
        node: Option<NodeId>,
        /// Where to try.
        addrs: Vec<SocketAddr>,
    },
    /// Send to `node`, opening a session to `addrs` first where there is none.
    Send {
        /// The receiver.
        node: NodeId,
        /// Where it can be reached; empty: only over an open session.
        addrs: Vec<SocketAddr>,
        /// What to say.
        message: Box<wire::CoreMessage>,
    },
    /// End the session with `node`, unless something else is using it.
    Disconnect {
        /// The other side.
        node: NodeId,
    },
    /// Dial the address on a fresh connection and see whether `node` answers.
    DialBack {
        /// Comes back in [`Input::DialedBack`].
        token: u64,
        /// Who must answer.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
    },
    /// Exchange timed traffic with a candidate.
    Measure {
        /// Comes back in [`Input::Measured`].
        token: u64,
        /// The candidate.
        node: NodeId,
        /// Where it is.
        addrs: Vec<SocketAddr>,
        /// Rate in each direction, bits a second.
        share_bps: u64,
        /// How long.
        duration: Duration,
    },
    /// Let these peers measure us until `lasts` is over.
    Permit {
        /// The jury.
        voters: Vec<NodeId>,
        /// The share each may use, bits a second.
        share_bps: u64,
        /// From now.
        lasts: Duration,
    },
    /// Our own contact changed: tell it in every hello from now on.
    Contact(Contact),
    /// The placement changed; the data plane takes this snapshot from now on.
    Placement(Placement),
    /// What is banned changed; the data plane takes this snapshot from now on, and
    /// no session to a banned peer is left.
    Bans(Arc<Bans>),
    /// The role changed.
    Role(Role),
    /// Something worth saving happened; see [`Core::save`](super::Core::save).
    Save,
    /// Something worth telling.
    Event(Event),
}

/// What a peer is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Does not stand, or does not pass every criterion.
    Leaf,
    /// Passes every criterion and can be elected.
    Candidate,
    /// Measured and elected in reserve.
    Deputy,
    /// Holds a mandate and serves.
    SuperNode,
    /// Hands over its records, then is a leaf again.
    Retiring,
}

impl Role {
    /// The word that people and programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leaf => "leaf",
            Role::Candidate => "candidate",
            Role::Deputy => "deputy",
            Role::SuperNode => "super-node",
            Role::Retiring => "retiring",
        }
    }
}

/// Something that an observer of this peer may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The own role changed.
    Role(Role),
    /// A super-node serves from now on.
    SuperNodeUp {
        /// Who.
        node: NodeId,
        /// Elected capacity, bits a second.
        capacity_bps: u64,
        /// Seats.
        seats: u32,
        /// Term of its mandate.
        term: u64,
    },
    /// A super-node serves no more.
    SuperNodeDown {
        /// Who.
        node: NodeId,
        /// Why.
        reason: &'static str,
    },
    /// The homes changed.
    Homes(Vec<NodeId>),
    /// This peer opened an election.
    ElectionOpened {
        /// Its term.
        term: u64,
        /// How many super-nodes are wanted.
        wanted: usize,
        /// Who will be measured, in order.
        candidates: Vec<NodeId>,
        /// Why it was opened.
        reason: String,
    },
    /// One level of a race that this peer runs was measured.
    Level {
        /// The term.
        term: u64,
        /// Who was measured.
        candidate: NodeId,
        /// The level, from 0.
        level: u32,
        /// Each juror's share, bits a second.
        share_bps: u64,
        /// Ballots received.
        ballots: usize,
        /// The median of them, bits a second.
        median_bps: u64,
    },
    /// A race that this peer runs ended.
    Raced {
        /// The term.
        term: u64,
        /// Who was measured.
        candidate: NodeId,
        /// Its score, bits a second; 0: not elected.
        score_bps: u64,
    },
    /// An election that this peer ran ended.
    ElectionClosed {
        /// Its term.
        term: u64,
        /// Who got a mandate.
        elected: Vec<NodeId>,
    },
    /// The network's operator decreed something, and this peer obeys from now on.
    Decreed {
        /// What it is about.
        subject: Subject,
        /// What it says: the word of [`Order::as_str`](crate::decree::Order::as_str).
        says: &'static str,
        /// Its sequence.
        sequence: u64,
    },
    /// A mandate from outside was refused.
    MandateRefused {
        /// Whose it claimed to be.
        candidate: Option<NodeId>,
        /// Why.
        reason: String,
    },
}

/// A snapshot of what the core knows of itself and the overlay.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Its homes, first slot first; empty for a super-node.
    pub homes: Vec<NodeId>,
    /// Super-nodes that serve, as far as known.
    pub super_nodes: Vec<SuperNodeStatus>,
    /// Elected capacity of this peer, or its last measured score; 0: never measured.
    pub capacity_bps: u64,
    /// The criteria of candidacy and how this peer meets them.
    pub verdict: Verdict,
    /// Leaves attached to this super-node.
    pub leaves: usize,
    /// Peers of the assembly while there is no super-node.
    pub assembly: usize,
    /// Highest term known.
    pub term: u64,
    /// Term of the election that this peer runs now.
    pub election: Option<u64>,
    /// The operator wants this peer to take on nothing new.
    pub cordoned: bool,
}

/// A super-node in a [`Status`].
#[derive(Clone, Debug)]
pub struct SuperNodeStatus {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addrs: Vec<SocketAddr>,
    /// Elected capacity, bits a second.
    pub capacity_bps: u64,
    /// Seats.
    pub seats: u32,
    /// Term of its mandate.
    pub term: u64,
    /// Failure domain.
    pub domain: String,
}
