//! What a user can set, and where it comes from: the defaults, then the
//! configuration file, then the environment, then the flags; later ones win.

mod file;
mod peer_addr;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;

use canopy_core::keyspace::NodeId;
use canopy_proto::wire;
use serde::{Deserialize, Serialize};

pub use file::ConfigError;
pub use peer_addr::{PeerAddr, PeerAddrError};
pub use units::{Bandwidth, UnitError, parse_duration};

/// The network's name where none is given.
pub const DEFAULT_NETWORK: &str = "canopy";
/// Longest name of a network, bytes.
pub const MAX_NETWORK: usize = 64;

/// Whether this peer is willing to serve as a super-node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// When it meets every criterion.
    #[default]
    Auto,
    /// Whenever it can, however new it is.
    Always,
    /// Not at all.
    Never,
}

/// A set of timings and thresholds for a kind of network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// `local` on loopback, `lan` on private addresses, else `wan`.
    #[default]
    Auto,
    /// All peers on one machine.
    Local,
    /// A network of one site.
    Lan,
    /// The internet.
    Wan,
}

/// Who serves. All peers of a network must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Every able peer.
    Pure,
    /// Designated hosts only.
    Hybrid,
    /// Elected super-nodes.
    #[default]
    Elected,
}

impl Stand {
    /// As the core knows it.
    pub(crate) fn to_core(self) -> canopy_core::node::Stand {
        match self {
            Stand::Auto => canopy_core::node::Stand::Auto,
            Stand::Always => canopy_core::node::Stand::Always,
            Stand::Never => canopy_core::node::Stand::Never,
        }
    }
}

impl Topology {
    /// As it is written in files and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Topology::Pure => "pure",
            Topology::Hybrid => "hybrid",
            Topology::Elected => "elected",
        }
    }
}

impl From<Topology> for wire::Topology {
    fn from(topology: Topology) -> Self {
        match topology {
            Topology::Pure => wire::Topology::Pure,
            Topology::Hybrid => wire::Topology::Hybrid,
            Topology::Elected => wire::Topology::Elected,
        }
    }
}

/// Everything that can be set; what is absent was not.
///
/// As a TOML file, with the same names:
/// ```toml
/// listen = "0.0.0.0:4477"
/// peers = ["203.0.113.7:4477"]
/// data_dir = "/var/lib/canopy"
/// uplink = "20 Mbit/s"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the QUIC endpoint listens. Absent: the port of last time, on
    /// loopback unless a peer on another address is given.
    pub listen: Option<SocketAddr>,
    /// Peers to join by.
    #[serde(default)]
    pub peers: Vec<PeerAddr>,
    /// Where key, cache and shards are kept. Absent: nothing is kept.
    pub data_dir: Option<PathBuf>,
    /// Whether to serve as a super-node.
    pub stand: Option<Stand>,
    /// What this peer may send; absent: unlimited.
    pub uplink: Option<Bandwidth>,
    /// At what rate a leaf sends content to others, all of it together; absent: as
    /// the uplink.
    pub upload: Option<Bandwidth>,
    /// Whether sessions may go by TCP where UDP is not answered: to others, and
    /// from others at the TCP port of the same number. Absent: yes.
    pub carriers: Option<bool>,
    /// Whether links of a leaf go over relays only, so that other leaves never
    /// learn its address. Absent: no.
    pub relay_only: Option<bool>,
    /// Whether routers are asked, by UPnP, NAT-PMP or PCP, to let others in. Absent:
    /// no.
    pub port_mapping: Option<bool>,
    /// Where the local gRPC API listens; loopback only.
    pub api: Option<SocketAddr>,
    /// Where a daemon's HTTP port listens: metrics, health, readiness. Absent:
    /// any free port of loopback.
    pub http: Option<SocketAddr>,
    /// Where the operators' control plane listens; elsewhere than on loopback
    /// with both files that follow.
    pub control: Option<SocketAddr>,
    /// Certificate chain and private key of the control plane, PEM.
    pub control_tls: Option<PathBuf>,
    /// Who may call the control plane.
    pub control_access: Option<PathBuf>,
    /// Certificates that vouch for those of its callers, PEM.
    pub control_client_ca: Option<PathBuf>,
    /// Timings.
    pub preset: Option<Preset>,
    /// Overlays of different names never mix.
    pub network: Option<String>,
    /// Who serves.
    pub topology: Option<Topology>,
    /// Failure domain; absent: the address prefix.
    pub zone: Option<String>,
    /// Public key of the network's operator, where it has one.
    #[serde(default, deserialize_with = "file::node_id")]
    pub operator: Option<NodeId>,
}

impl Settings {
    /// These settings, and those of `below` where these say nothing.
    #[must_use]
    pub fn over(self, below: Settings) -> Settings {
        Settings {
            listen: self.listen.or(below.listen),
            peers: match self.peers.is_empty() {
                true => below.peers,
                false => self.peers,
            },
            data_dir: self.data_dir.or(below.data_dir),
            stand: self.stand.or(below.stand),
            uplink: self.uplink.or(below.uplink),
            upload: self.upload.or(below.upload),
            carriers: self.carriers.or(below.carriers),
            relay_only: self.relay_only.or(below.relay_only),
            port_mapping: self.port_mapping.or(below.port_mapping),
            api: self.api.or(below.api),
            http: self.http.or(below.http),
            control: self.control.or(below.control),
            control_tls: self.control_tls.or(below.control_tls),
            control_access: self.control_access.or(below.control_access),
            control_client_ca: self.control_client_ca.or(below.control_client_ca),
            preset: self.preset.or(below.preset),
            network: self.network.or(below.network),
            topology: self.topology.or(below.topology),
            zone: self.zone.or(below.zone),
            operator: self.operator.or(below.operator),
        }
    }
}
