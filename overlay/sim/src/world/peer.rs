//! One modelled peer: its production core, and the machine and line it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::node::{Core, Role, Saved, Stand};
use canopy_supernode::index::Index;

use super::WorldConfig;
use crate::draw::Draw;
use crate::flat::Node;
use crate::net::{Nat, PEER_LINES, REGIONS};

/// The number of a peer in its world.
pub type PeerId = u32;

/// The port that every peer listens on.
const PORT: u16 = 4477;

/// What a peer is like, whatever happens to it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Index into [`REGIONS`].
    pub region: u8,
    /// One way from the peer to its region's exchange, microseconds.
    pub access_us: u64,
    /// Who can dial it.
    pub nat: Nat,
    /// What its line carries, bits a second.
    pub up_bps: u64,
    /// The same the other way.
    pub down_bps: u64,
    /// What it says that it lends, bits a second.
    pub claim_bps: u64,
    /// Its willingness to serve.
    pub stand: Stand,
    /// Zone label; 0: none.
    pub zone: u32,
    /// One of a conspiracy: its ballots and its line favour the others of it.
    pub colludes: bool,
    /// It takes the role and then answers nothing.
    pub drops: bool,
    /// Its wall clock minus the true time, milliseconds.
    pub clock_ms: i64,
    /// How many times slower than others it computes.
    pub slow: u32,
    /// Loss on its line, millionths, on top of everybody's.
    pub loss_ppm: u32,
    /// What each of its messages takes longer, microseconds.
    pub lag_us: u64,
    /// Times that its address changed.
    pub moves: u32,
}

impl Spec {
    /// Draws a peer from the published distributions.
    pub(super) fn draw(config: &WorldConfig, draw: &mut Draw, index: PeerId) -> Self {
        let net = &config.net;
        let shares: Vec<u32> = REGIONS.iter().map(|region| region.share).collect();
        let region = if net.wide {
            draw.weighted(&shares) as u8
        } else {
            0
        };
        let lines: Vec<u32> = PEER_LINES.iter().map(|line| line.share).collect();
        let line = &PEER_LINES[draw.weighted(&lines)];
        // Lines of a class differ: from half to one and a half times its rate.
        let milli = draw.between(500, 1500);
        let (up_bps, down_bps) = match net.line_bps {
            0 => (line.up_bps / 1000 * milli, line.down_bps / 1000 * milli),
            line => (line, line),
        };
        let nat = match draw.below(1_000_000) as u32 {
            lot if lot < net.home_nat_ppm => Nat::Home,
            lot if lot < net.home_nat_ppm + net.symmetric_nat_ppm => Nat::Symmetric,
            _ => Nat::Open,
        };
        Self {
            region,
            access_us: if net.wide {
                draw.between(1_000, 15_000)
            } else {
                draw.between(100, 500)
            },
            nat,
            up_bps,
            down_bps,
            claim_bps: up_bps,
            stand: Stand::Auto,
            zone: match net.zones {
                0 => 0,
                zones => 1 + index % zones,
            },
            colludes: false,
            drops: false,
            clock_ms: 0,
            slow: 1,
            loss_ppm: 0,
            lag_us: 0,
            moves: 0,
        }
    }
}

/// A peer of the world.
pub struct Peer {
    /// The running core; none while the peer is offline.
    pub(super) core: Option<Box<Core>>,
    /// What it runs in place of a core where the flat table is compared with.
    pub(super) flat: Option<Box<Node>>,
    /// Who it is.
    pub node: NodeId,
    /// What it is like.
    pub spec: Spec,
    /// What its core last said it is.
    pub role: Role,
    /// Its homes, as its core last said.
    pub homes: u8,
    /// Peers that it has a session with, dead ones too.
    pub(super) sessions: BTreeSet<PeerId>,
    /// The timeout that is set; older ones are void.
    pub(super) timeout_at: u64,
    /// When its uplink, its downlink and its processor are free again.
    pub(super) up_free: u64,
    pub(super) down_free: u64,
    pub(super) cpu_free: u64,
    /// Bytes sent and received since the start, headers included.
    pub sent: u64,
    /// See `sent`.
    pub received: u64,
    /// Requests of users that it has answered, those passed on by others too.
    pub served: u64,
    /// Bytes that it had sent, and index operations that it had done, when it
    /// last told its core how busy it is.
    pub(super) reported: (u64, u64),
    /// What it told then: utilisation of what is scarcest, thousandths.
    pub(crate) load_milli: u32,
    pub(super) started_at: u64,
    /// Side of a partition.
    pub(super) side: u8,
    pub(super) cold: Option<Box<Cold>>,
}

/// What few peers need.
#[derive(Default)]
pub(super) struct Cold {
    /// Who may measure it, and until when.
    pub(super) permits: BTreeMap<NodeId, u64>,
    /// Measurements of it: juror, from, until.
    pub(super) measured: Vec<(PeerId, u64, u64)>,
    /// It lives in one of the networks that are kept for crowds.
    pub(super) crowd: Option<u32>,
    /// What it saved before it went offline.
    pub(super) saved: Option<Saved>,
    /// The index that it had then, or that it has kept since it served.
    pub(super) index: Option<Arc<Index>>,
    /// The node of the flat table that it was then.
    pub(super) flat: Option<Box<Node>>,
}

impl Peer {
    pub(super) fn new(node: NodeId, spec: Spec) -> Self {
        Self {
            core: None,
            flat: None,
            node,
            spec,
            role: Role::Leaf,
            homes: 0,
            sessions: BTreeSet::new(),
            timeout_at: u64::MAX,
            up_free: 0,
            down_free: 0,
            cpu_free: 0,
            sent: 0,
            received: 0,
            served: 0,
            reported: (0, 0),
            load_milli: 0,
            started_at: 0,
            side: 0,
            cold: None,
        }
    }

    /// Whether it runs.
    pub fn online(&self) -> bool {
        self.core.is_some() || self.flat.is_some()
    }

    /// Its core, while it runs.
    pub fn core(&self) -> Option<&Core> {
        self.core.as_deref()
    }

    /// When it was last started, microseconds since the start.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Its zone label; empty: none.
    pub(super) fn zone(&self) -> String {
        match self.spec.zone {
            0 => String::new(),
            zone => format!("zone-{zone}"),
        }
    }

    /// What is on its disk while it is offline.
    pub(crate) fn disk(&self) -> Option<&Arc<Index>> {
        self.cold.as_ref()?.index.as_ref()
    }

    /// The number of the value that its node of the flat table holds.
    pub(crate) fn holds(&self, key: &Key) -> Option<u64> {
        self.flat.as_ref()?.holds(key)
    }

    pub(super) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }
}

/// The identity of a peer: of this seed, and of no other.
pub(super) fn identity(seed: u64, index: PeerId) -> Identity {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"canopy-sim identity");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    Identity::from_secret(*hasher.finalize().as_bytes())
}

/// Gives out addresses: peers share prefixes as the configuration says.
pub(super) struct Addresses {
    prefixes: Vec<u16>,
    used: u32,
}

impl Addresses {
    pub(super) fn new(prefixes: u32, peers: u32) -> Self {
        let public = |prefix: &u16| {
            let [a, b] = prefix.to_be_bytes();
            let ip = Ipv4Addr::new(a, b, 1, 1);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast())
        };
        let all: Vec<u16> = (0x0B00..0xDF00).filter(public).collect();
        let used = match prefixes {
            0 => peers.clamp(1, 40_000),
            prefixes => prefixes.min(40_000),
        };
        Self {
            prefixes: all,
            used,
        }
    }

    /// The prefix number of a peer.
    pub(super) fn prefix_of(&self, index: PeerId, moves: u32) -> u32 {
        (index + moves * 7919) % self.used
    }

    /// Where a peer of a crowd listens: in a network that nobody else is in.
    pub(super) fn crowded(&self, index: PeerId, network: u32) -> SocketAddr {
        let prefix = self.prefixes[self.prefixes.len() - 1 - network as usize % 64];
        let [a, b] = prefix.to_be_bytes();
        let [.., c, d] = index.to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), PORT)
    }

    /// Where a peer listens after so many moves.
    pub(super) fn of(&self, index: PeerId, moves: u32) -> SocketAddr {
        let prefix = self.prefixes[self.prefix_of(index, moves) as usize % self.prefixes.len()];
        let [a, b] = prefix.to_be_bytes();
        let host = (index / self.used)
            .wrapping_add(moves * 0x1000)
            .wrapping_add(1);
        let [.., c, d] = host.to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), PORT)
    }
}
