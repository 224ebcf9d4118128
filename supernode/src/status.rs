//! How a leaf fares: what `status()` returns and `leaf status --json` prints.

use std::net::SocketAddr;

use canopy_core::keyspace::NodeId;
use serde::{Serialize, Serializer};

use crate::settings::Topology;

/// Most super-nodes listed in a [`Status`].
pub const MAX_LISTED: usize = 200;

/// What this peer is to the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It uses the overlay.
    #[default]
    Leaf,
    /// It meets every criterion and may be elected.
    Candidate,
    /// It is elected, and waits for a super-node to fail.
    Deputy,
    /// It serves.
    SuperNode,
    /// It hands over what it holds, and then is a leaf again.
    Retiring,
}

impl Role {
    /// As it is printed.
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

/// A snapshot of this peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// This peer.
    #[serde(serialize_with = "as_text")]
    pub node_id: NodeId,
    /// What it is to the overlay.
    pub role: Role,
    /// The super-nodes it keeps sessions to; two, when all is well.
    pub homes: Vec<Home>,
    /// The super-nodes it knows, at most [`MAX_LISTED`].
    pub super_nodes: Vec<SuperNode>,
    /// How many it knows in all.
    pub super_node_count: u32,
    /// Elected capacity, bits a second; 0 while not elected.
    pub capacity_bps: u64,
    /// The candidacy is the AND of these.
    pub criteria: Vec<Criterion>,
    /// Where the QUIC endpoint listens.
    pub listen: SocketAddr,
    /// The overlay's name.
    pub network: String,
    /// Who serves.
    pub topology: Topology,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Leaves homed here; 0 while not a super-node.
    pub leaves: u32,
}

/// A super-node that a leaf keeps a session to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Home {
    /// Who it is.
    #[serde(serialize_with = "as_text")]
    pub node_id: NodeId,
    /// Where it is reached; absent while the session is being opened.
    pub addr: Option<SocketAddr>,
    /// Smoothed round trip, microseconds; 0: not measured yet.
    pub round_trip_us: u64,
}

/// A super-node as this peer knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuperNode {
    /// Who it is.
    #[serde(serialize_with = "as_text")]
    pub node_id: NodeId,
    /// Elected capacity, bits a second.
    pub capacity_bps: u64,
    /// Seats in the keyspace.
    pub seats: u32,
    /// Failure domain.
    pub domain: String,
}

/// One condition of candidacy, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Criterion {
    /// What is asked for.
    pub name: String,
    /// What this peer has.
    pub value: String,
    /// What it needs.
    pub threshold: String,
    /// Whether it is met.
    pub pass: bool,
}

/// Prints an id as its digits.
pub(crate) fn as_text<S: Serializer>(id: &NodeId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}
