//! From settings to a plan in which every default is filled in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use canopy_core::contact::MAX_ZONE;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_proto::wire::SignedMandate;

use crate::data_dir::{DataDir, DataDirError};
use crate::index::Limits;
use crate::settings::{
    Bandwidth, DEFAULT_NETWORK, MAX_NETWORK, PeerAddr, Preset, Settings, Stand, Topology,
};

/// Longest wait for the address of a peer's name.
const LOOKUP: Duration = Duration::from_secs(5);

/// Why a peer did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {reason}; give another address with --listen")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A peer's name cannot be looked up.
    #[error(
        "cannot find the address of the peer {peer}: {reason}; check the name, or give the address itself"
    )]
    Lookup {
        /// The peer as it was given.
        peer: String,
        /// What the system said.
        reason: String,
    },
    /// A setting is out of its limits.
    #[error("{0}")]
    Setting(String),
    /// The peer cannot run.
    #[error("the peer cannot start: {0}")]
    Peer(String),
}

/// Everything a peer is started with; all defaults are filled in.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who it is.
    pub identity: Identity,
    /// Where it listens; port 0: any.
    pub listen: SocketAddr,
    /// Whom to join by, looked up; with an id, nobody else may answer there.
    pub peers: Vec<(Option<NodeId>, SocketAddr)>,
    /// Where it may keep cache and shards. Absent: nothing may outlast it.
    pub data_dir: Option<Arc<DataDir>>,
    /// Whether to serve.
    pub stand: Stand,
    /// What it may send; absent: unlimited.
    pub uplink: Option<Bandwidth>,
    /// Whether it may go by TCP where UDP is not answered, and others to it.
    pub carriers: bool,
    /// Whether routers are asked to let others in.
    pub port_mapping: bool,
    /// Timings; never [`Preset::Auto`].
    pub preset: Preset,
    /// The overlay's name, 1 to 64 bytes.
    pub network: String,
    /// Who serves.
    pub topology: Topology,
    /// Failure domain; empty: the address prefix.
    pub zone: String,
    /// Public key of the network's operator.
    pub operator: Option<NodeId>,
    /// The operator's word that this peer serves.
    pub designation: Option<SignedMandate>,
    /// The user chose the address: where it is taken, the start fails.
    pub listen_chosen: bool,
    /// The processor time of the whole process tells how busy this peer is: it
    /// is the only one in it. Else processor time is not told.
    pub process_cpu: bool,
    /// What its index holds at most, should it serve.
    pub limits: Limits,
    /// It is gone again in a moment: where it is homed is not published.
    pub visit: bool,
}

/// What a plan is made of: settings, and what no file says.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// What the user set.
    pub settings: Settings,
    /// Who the peer is; goes before the key in the data directory.
    pub identity: Option<Identity>,
    /// A data directory that is open already; goes before a path.
    pub data_dir: Option<Arc<DataDir>>,
    /// The operator's word that this peer serves.
    pub designation: Option<SignedMandate>,
    /// See [`Plan::process_cpu`].
    pub process_cpu: bool,
    /// See [`Plan::limits`].
    pub limits: Limits,
    /// See [`Plan::visit`].
    pub visit: bool,
}

impl Setup {
    /// Fills in all defaults.
    ///
    /// # Errors
    /// A setting out of its limits, a data directory that cannot be used, or a
    /// peer's name without an address.
    pub async fn plan(self) -> Result<Plan, StartError> {
        let settings = self.settings;
        let network = settings
            .network
            .unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
        if network.is_empty() || network.len() > MAX_NETWORK {
            let length = network.len();
            let reason = format!(
                "the network's name is {length} bytes long; --network takes 1 to {MAX_NETWORK}"
            );
            return Err(StartError::Setting(reason));
        }
        let zone = settings.zone.unwrap_or_default();
        if zone.len() > MAX_ZONE {
            let reason = format!(
                "the zone's name is {} bytes long; --zone takes up to {MAX_ZONE}",
                zone.len()
            );
            return Err(StartError::Setting(reason));
        }
        let port_mapping = settings.port_mapping.unwrap_or(false);
        if port_mapping && !cfg!(feature = "mapping") {
            let reason = "this program can map no ports; build it with the feature `mapping` of Canopy, or leave `port_mapping` out";
            return Err(StartError::Setting(reason.into()));
        }
        let data_dir = match (self.data_dir, settings.data_dir) {
            (Some(open), _) => Some(open),
            (None, Some(path)) => Some(Arc::new(DataDir::open(&path)?)),
            (None, None) => None,
        };
        let identity = match (self.identity, &data_dir) {
            (Some(identity), _) => identity,
            (None, Some(dir)) => dir.identity()?,
            (None, None) => Identity::from_secret(rand::random()),
        };
        let peers = look_up(&settings.peers).await?;
        let listen = settings.listen.unwrap_or_else(|| {
            let port = data_dir.as_ref().and_then(|dir| dir.port()).unwrap_or(0);
            default_listen(&peers, port)
        });
        Ok(Plan {
            identity,
            preset: resolve_preset(settings.preset.unwrap_or_default(), listen, &peers),
            listen,
            peers,
            data_dir,
            stand: settings.stand.unwrap_or_default(),
            uplink: settings.uplink,
            carriers: settings.carriers.unwrap_or(true),
            port_mapping,
            network,
            topology: settings.topology.unwrap_or_default(),
            zone,
            operator: settings.operator,
            designation: self.designation,
            listen_chosen: settings.listen.is_some(),
            process_cpu: self.process_cpu,
            limits: self.limits,
            visit: self.visit,
        })
    }
}

impl Plan {
    /// Opens a peer by `open` where it is planned. The port of last time is a
    /// courtesy: where somebody took it, any other will do.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn open<N>(
        &mut self,
        open: impl AsyncFn(Plan) -> Result<N, StartError>,
    ) -> Result<N, StartError> {
        match open(self.clone()).await {
            Err(StartError::Listen { addr, .. }) if !self.listen_chosen && addr.port() != 0 => {
                self.listen.set_port(0);
                open(self.clone()).await
            }
            outcome => outcome,
        }
    }
}

type Peers = [(Option<NodeId>, SocketAddr)];

async fn look_up(peers: &[PeerAddr]) -> Result<Vec<(Option<NodeId>, SocketAddr)>, StartError> {
    let mut out = Vec::new();
    for peer in peers {
        let failed = |reason: String| StartError::Lookup {
            peer: peer.to_string(),
            reason,
        };
        let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(&peer.addr))
            .await
            .map_err(|_| failed("no answer in time".into()))?
            .map_err(|error| failed(error.to_string()))?;
        let before = out.len();
        out.extend(found.map(|addr| (peer.id, addr)));
        if out.len() == before {
            return Err(failed("the name has no address".into()));
        }
    }
    Ok(out)
}

/// Loopback until there is a peer elsewhere: nobody is exposed by accident.
fn default_listen(peers: &Peers, port: u16) -> SocketAddr {
    let elsewhere = peers.iter().any(|(_, addr)| !addr.ip().is_loopback());
    let ip = match elsewhere {
        true => Ipv4Addr::UNSPECIFIED,
        false => Ipv4Addr::LOCALHOST,
    };
    SocketAddr::new(IpAddr::V4(ip), port)
}

fn resolve_preset(preset: Preset, listen: SocketAddr, peers: &Peers) -> Preset {
    if preset != Preset::Auto {
        return preset;
    }
    let mut addrs: Vec<IpAddr> = peers
        .iter()
        .map(|(_, addr)| addr.ip().to_canonical())
        .collect();
    if !listen.ip().is_unspecified() || addrs.is_empty() {
        addrs.push(listen.ip().to_canonical());
    }
    let private = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    };
    match () {
        () if addrs.iter().all(IpAddr::is_loopback) => Preset::Local,
        () if addrs.iter().all(private) => Preset::Lan,
        () => Preset::Wan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(addrs: &[&str]) -> Vec<(Option<NodeId>, SocketAddr)> {
        addrs
            .iter()
            .map(|addr| (None, addr.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_preset_follows_the_widest_address() {
        let auto = |listen: &str, given: &[&str]| {
            resolve_preset(Preset::Auto, listen.parse().unwrap(), &peers(given))
        };
        assert_eq!(auto("127.0.0.1:0", &[]), Preset::Local);
        assert_eq!(auto("0.0.0.0:1", &["192.168.1.9:1"]), Preset::Lan);
        assert_eq!(
            auto("0.0.0.0:1", &["192.168.1.9:1", "203.0.113.1:1"]),
            Preset::Wan
        );
        assert_eq!(auto("0.0.0.0:1", &[]), Preset::Wan);
        assert_eq!(
            resolve_preset(Preset::Wan, "127.0.0.1:1".parse().unwrap(), &[]),
            Preset::Wan
        );
    }

    #[test]
    fn nobody_is_exposed_by_accident() {
        assert!(
            default_listen(&peers(&["127.0.0.1:1"]), 7)
                .ip()
                .is_loopback()
        );
        assert!(
            default_listen(&peers(&["192.168.1.9:1"]), 7)
                .ip()
                .is_unspecified()
        );
    }

    #[tokio::test]
    async fn settings_out_of_their_limits_are_refused() {
        let network = |name: &str| Settings {
            network: Some(name.to_owned()),
            ..Settings::default()
        };
        let zone = Settings {
            zone: Some("x".repeat(65)),
            ..Settings::default()
        };
        for settings in [network(""), network(&"x".repeat(65)), zone] {
            let setup = Setup {
                settings,
                ..Setup::default()
            };
            assert!(matches!(setup.plan().await, Err(StartError::Setting(_))));
        }
    }
}
