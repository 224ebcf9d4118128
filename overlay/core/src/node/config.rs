//! What a peer is told when it starts.

use std::net::SocketAddr;

use canopy_proto::wire::Topology;

pub use crate::election::criteria::Stand;
use crate::election::law::LawConfig;
use crate::keyspace::NodeId;
use crate::preset::Timings;

/// Settings of one peer's core.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay's name; overlays of different names never mix.
    pub network: String,
    /// Who may serve.
    pub topology: Topology,
    /// The network's operator key, where it has one.
    pub operator: Option<NodeId>,
    /// Willingness to serve.
    pub stand: Stand,
    /// Bandwidth lent to the overlay, bits a second; `None`: whatever the line
    /// carries. It is also the claim that decides the place in the queue of races.
    pub uplink_bps: Option<u64>,
    /// Failure domain label; empty: the address prefix decides.
    pub zone: String,
    /// Addresses that this peer listens on, as far as it knows itself.
    pub addrs: Vec<SocketAddr>,
    /// Port it listens on: joined with the address that others see.
    pub port: u16,
    /// Peers to join by, besides the saved ones.
    pub peers: Vec<(Option<NodeId>, SocketAddr)>,
    /// Every interval and scale.
    pub timing: Timings,
    /// Leaves that this peer would host.
    pub max_leaves: usize,
    /// Target of leaves a super-node.
    pub ratio: usize,
    /// What a super-node must carry at least, bits a second.
    pub floor_bps: u64,
    /// Super-nodes that a leaf remembers.
    pub cache: usize,
    /// A designation by the operator key: this peer serves from the start.
    pub designation: Option<canopy_proto::wire::SignedMandate>,
}

/// Super-nodes that a super-node keeps in its full table.
const FULL_TABLE: usize = 20_000;

impl Config {
    /// Entries that a roster holds at most; a leaf keeps
    /// [`cache`](Self::cache) of them.
    pub(super) fn most_super_nodes(&self) -> usize {
        FULL_TABLE
    }

    /// The law of how many super-nodes there should be.
    pub(super) fn law(&self) -> LawConfig {
        LawConfig {
            ratio: self.ratio,
            ..LawConfig::default()
        }
    }
}
