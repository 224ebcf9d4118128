//! Flags that `leaf` and `supernode` share.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use canopy_core::keyspace::NodeId;
use clap::Args;

use super::failure::Failure;
use crate::settings::{Bandwidth, PeerAddr, Preset, Settings, Stand, Topology};

/// How a peer is set up: the flags of every command that starts one.
#[derive(Args, Clone, Debug, Default)]
pub struct PeerFlags {
    /// Address to listen on; any free port at first, then the same again
    #[arg(
        long,
        env = "CANOPY_LISTEN",
        value_name = "ADDR",
        hide_env_values = true
    )]
    listen: Option<SocketAddr>,
    /// Peer to join by, HOST:PORT or ID@HOST:PORT; repeatable
    #[arg(
        long = "peer",
        env = "CANOPY_PEER",
        value_name = "PEER",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub peers: Vec<PeerAddr>,
    /// Where key, cache and shards are kept [default: canopy/PROGRAM in the
    /// user's data, or PROGRAM-2, -3... where that is in use]
    #[arg(
        long,
        env = "CANOPY_DATA_DIR",
        value_name = "PATH",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
    /// Configuration file: TOML, e.g. `data_dir = "/x"`, `peers = ["h:1"]`
    #[arg(
        long,
        env = "CANOPY_CONFIG",
        value_name = "PATH",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Whether to serve as a super-node
    #[arg(long, env = "CANOPY_STAND", value_enum, hide_env_values = true)]
    stand: Option<Stand>,
    /// What this peer may send, e.g. "20 Mbit/s"
    #[arg(
        long,
        env = "CANOPY_UPLINK",
        value_name = "RATE",
        hide_env_values = true
    )]
    uplink: Option<Bandwidth>,
    /// Whether to use TCP where UDP is not answered, and to let others come by
    /// TCP, at the port of the same number [default: true]
    #[arg(
        long,
        env = "CANOPY_CARRIERS",
        value_name = "BOOL",
        hide_env_values = true
    )]
    carriers: Option<bool>,
    /// Ask the router, by UPnP, NAT-PMP or PCP, to let others in
    #[arg(long, env = "CANOPY_PORT_MAPPING")]
    port_mapping: bool,
    /// Timings for a kind of network
    #[arg(long, env = "CANOPY_PRESET", value_enum, hide_env_values = true)]
    preset: Option<Preset>,
    /// Name of the overlay
    #[arg(
        long,
        env = "CANOPY_NETWORK",
        value_name = "NAME",
        hide_env_values = true
    )]
    network: Option<String>,
    /// Who serves; all peers must agree
    #[arg(long, env = "CANOPY_TOPOLOGY", value_enum, hide_env_values = true)]
    topology: Option<Topology>,
    /// Failure domain, e.g. a rack
    #[arg(long, env = "CANOPY_ZONE", value_name = "NAME", hide_env_values = true)]
    zone: Option<String>,
    /// Public key of the network's operator
    #[arg(
        long,
        env = "CANOPY_OPERATOR",
        value_name = "KEY",
        hide_env_values = true
    )]
    operator: Option<NodeId>,
}

/// The flag of programs that go on running.
#[derive(Args, Clone, Debug, Default)]
pub struct HttpFlag {
    /// Address of the HTTP port: /metrics, /healthz, /readyz; it has no
    /// credentials [default: any free port of loopback]
    #[arg(long, env = "CANOPY_HTTP", value_name = "ADDR", hide_env_values = true)]
    http: Option<SocketAddr>,
}

impl HttpFlag {
    /// Where the port listens: by the flag, else by the settings, else on any
    /// free port of loopback.
    pub fn over(&self, settings: &Settings) -> SocketAddr {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.http.or(settings.http).unwrap_or(any)
    }
}

impl PeerFlags {
    /// The flags and the environment, over the configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or says something unknown.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let given = Settings {
            listen: self.listen,
            peers: self.peers.clone(),
            data_dir: self.data_dir.clone(),
            stand: self.stand,
            uplink: self.uplink,
            upload: None,
            carriers: self.carriers,
            relay_only: None,
            port_mapping: self.port_mapping.then_some(true),
            api: None,
            http: None,
            control: None,
            control_tls: None,
            control_access: None,
            control_client_ca: None,
            preset: self.preset,
            network: self.network.clone(),
            topology: self.topology,
            zone: self.zone.clone(),
            operator: self.operator,
        };
        match &self.config {
            Some(path) => Ok(given.over(Settings::read(path)?)),
            None => Ok(given),
        }
    }
}
