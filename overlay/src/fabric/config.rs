//! What a fabric is told when it starts, and its limits.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_core::contact::Contact;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_proto::wire::Topology;

/// How a fabric is opened. [`FabricConfig::new`] fills in what most peers want.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// This peer's key.
    pub identity: Identity,
    /// Where to listen, UDP. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// The overlay's name; peers of another are refused.
    pub network: String,
    /// Who serves; peers with another setting are refused.
    pub topology: Topology,
    /// The network's operator key, where it has one; both sides must name the same.
    pub operator: Option<NodeId>,
    /// Program and version, for people; at most 128 bytes are sent.
    pub agent: String,
    /// Own contact for the hello. `None`: signed at the start with the address
    /// listened on. [`super::Fabric::set_contact`] replaces it.
    pub contact: Option<Contact>,
    /// Everything sent stays below this many bits a second, IP and UDP headers
    /// included; `None`: no limit.
    pub uplink_bps: Option<u64>,
    /// Whether to take carriers at the TCP port of the same number, and to open
    /// them where UDP is not answered. Default yes.
    pub carriers: bool,
    /// Limits; see there.
    pub limits: Limits,
    /// A silent session ends after this. Default 45 s: two lost keep-alives.
    pub idle_timeout: Duration,
    /// A quiet session sends a packet this often. Default 20 s: within what
    /// NATs keep UDP bindings for, and 4 us/s of CPU a session.
    pub keep_alive: Duration,
}

impl FabricConfig {
    /// The usual settings for `identity` in `network`, elected topology.
    pub fn new(identity: Identity, listen: SocketAddr, network: impl Into<String>) -> Self {
        Self {
            identity,
            listen,
            network: network.into(),
            topology: Topology::Elected,
            operator: None,
            agent: concat!("canopy/", env!("CARGO_PKG_VERSION")).to_owned(),
            contact: None,
            uplink_bps: None,
            carriers: true,
            limits: Limits::default(),
            idle_timeout: Duration::from_secs(45),
            keep_alive: Duration::from_secs(20),
        }
    }
}

/// How much of everything a fabric takes on. Past a limit the other side gets
/// a refusal or the caller a `Busy` error.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions in all. Default 60 000.
    pub sessions: usize,
    /// Sessions, carriers and handshakes from one IP address. Default 64.
    pub sessions_per_address: usize,
    /// Whether `sessions_per_address` counts loopback addresses too. Default no:
    /// many peers of one machine are a test or a demonstration.
    pub count_loopback: bool,
    /// Carriers in all, those that this peer opened included. Default 1024.
    pub carriers: usize,
    /// Inbound handshakes under way; from half of it on, diallers must first
    /// prove their address. Default 512: about a second of one core.
    pub pending_handshakes: usize,
    /// Requests of ours without an answer, a session; at most 4096. Default 1024.
    pub in_flight: usize,
    /// Requests of the peer's that are being answered, a session. Default 1024.
    pub serving: usize,
    /// Bytes queued to a session before requests and notifications are refused.
    /// Default 512 KiB. One frame always fits an empty queue.
    pub queue_bytes: usize,
    /// Measurements served at once. Default 64: a jury of 31, twice.
    pub measurements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 60_000,
            sessions_per_address: 64,
            count_loopback: false,
            carriers: 1024,
            pending_handshakes: 512,
            in_flight: 1024,
            serving: 1024,
            queue_bytes: 512 * 1024,
            measurements: 64,
        }
    }
}
