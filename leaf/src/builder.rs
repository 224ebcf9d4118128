//! From settings to a running leaf.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_proto::wire::SignedMandate;
use canopy_supernode::host::{Host, Plan, Setup};
use canopy_supernode::store::StoreError;
use parking_lot::Mutex;

pub use canopy_supernode::host::StartError;

use crate::client::publications::Publications;
use crate::client::{Client, DEFAULT_TIMEOUT};
use crate::content;
use crate::data_dir::DataDir;
use crate::event::Events;
use crate::leaf::Leaf;
use crate::node::Node;
use crate::peer_node::PeerNode;
use crate::settings::{Bandwidth, PeerAddr, Preset, Settings, Stand, Topology};

/// Makes a [`Leaf`]. Everything has a default; without a data directory the
/// leaf is a new peer each time, and keeps nothing.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    setup: Setup,
    timeout: Option<Duration>,
}

impl Builder {
    /// Takes all settings at once, e.g. those of a configuration file.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.setup.settings = settings;
        self
    }

    /// Where the QUIC endpoint listens. By default the port of last time, on
    /// loopback unless a peer on another address is given.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.setup.settings.listen = Some(addr);
        self
    }

    /// A peer to join by; may be called again.
    pub fn peer(mut self, peer: PeerAddr) -> Self {
        self.setup.settings.peers.push(peer);
        self
    }

    /// Where key, cache and shards are kept.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.setup.settings.data_dir = Some(path.into());
        self
    }

    /// A data directory that is open already; goes before a path.
    pub fn open_data_dir(mut self, data_dir: Arc<DataDir>) -> Self {
        self.setup.data_dir = Some(data_dir);
        self
    }

    /// Who this peer is; goes before the key in the data directory.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.setup.identity = Some(identity);
        self
    }

    /// Whether to serve as a super-node.
    pub fn stand(mut self, stand: Stand) -> Self {
        self.setup.settings.stand = Some(stand);
        self
    }

    /// What this peer may send; unlimited by default.
    pub fn uplink(mut self, limit: Bandwidth) -> Self {
        self.setup.settings.uplink = Some(limit);
        self
    }

    /// Timings.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.setup.settings.preset = Some(preset);
        self
    }

    /// The overlay's name: those of different names never mix.
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.setup.settings.network = Some(name.into());
        self
    }

    /// Who serves. All peers of a network must agree.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.setup.settings.topology = Some(topology);
        self
    }

    /// Failure domain, e.g. a rack; by default the address prefix.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.setup.settings.zone = Some(zone.into());
        self
    }

    /// Public key of the network's operator, where it has one.
    pub fn operator(mut self, key: NodeId) -> Self {
        self.setup.settings.operator = Some(key);
        self
    }

    /// The operator's word that this peer serves: a mandate signed with the
    /// network's operator key.
    pub fn designation(mut self, mandate: SignedMandate) -> Self {
        self.setup.designation = Some(mandate);
        self
    }

    /// Whether the whole process's processor time tells how busy this peer is,
    /// should it serve; true for a process that holds this one peer and little
    /// else. By default processor time is not told.
    pub fn process_cpu(mut self, counts: bool) -> Self {
        self.setup.process_cpu = counts;
        self
    }

    /// Whether this peer is gone again in a moment, e.g. that of one command.
    /// Then it does not publish where it is found, and nothing that it writes is
    /// refreshed.
    pub fn visit(mut self, visits: bool) -> Self {
        self.setup.visit = visits;
        self
    }

    /// Whether links go over relays only, so that other leaves never learn this
    /// one's address. By default they go directly where they can.
    pub fn relay_only(mut self, relay_only: bool) -> Self {
        self.setup.settings.relay_only = Some(relay_only);
        self
    }

    /// Whether TCP is used where UDP is not answered, and others may come by TCP.
    /// By default so.
    pub fn carriers(mut self, carriers: bool) -> Self {
        self.setup.settings.carriers = Some(carriers);
        self
    }

    /// Whether routers are asked, by UPnP, NAT-PMP or PCP, to let others in; for that
    /// the feature `mapping` is needed. By default they are not.
    pub fn port_mapping(mut self, port_mapping: bool) -> Self {
        self.setup.settings.port_mapping = Some(port_mapping);
        self
    }

    /// At what rate content is sent to other leaves, all of it together; by default
    /// the uplink.
    pub fn upload(mut self, limit: Bandwidth) -> Self {
        self.setup.settings.upload = Some(limit);
        self
    }

    /// How long a request may take; 10 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Starts the leaf. It returns when the endpoint listens; super-nodes are
    /// found while the first requests wait.
    pub async fn start(self) -> Result<Leaf, StartError> {
        self.start_on(Host::start).await
    }

    /// The same, with all that happens from the very start, e.g. that nobody
    /// could be joined by.
    pub async fn start_watched(self) -> Result<(Leaf, Events), StartError> {
        let first = Mutex::new(None);
        let open = async |plan: Plan| {
            let (host, events) = Host::start_watched(plan).await?;
            *first.lock() = Some(events);
            Ok(host)
        };
        let leaf = self.start_on(open).await?;
        let events = match first.into_inner() {
            Some(events) => Events::new(events),
            None => leaf.events(),
        };
        Ok((leaf, events))
    }

    /// Starts the leaf on a peer that `open` makes.
    pub(crate) async fn start_on<N: Node>(
        self,
        open: impl AsyncFn(Plan) -> Result<N, StartError>,
    ) -> Result<Leaf<N>, StartError> {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let upload = self.setup.settings.upload;
        let relay_only = self.setup.settings.relay_only.unwrap_or(false);
        let mut plan = self.setup.plan().await?;
        let publications = publications(&plan).await?;
        let node = plan.open(open).await?;
        if let Some(data_dir) = &plan.data_dir {
            data_dir.remember_port(node.status().listen.port())?;
        }
        let (calls, identity) = (node.clone(), plan.identity);
        let client = match publications {
            Some(list) => Client::keeping(calls, identity, timeout, list),
            None => Client::new(calls, identity, timeout),
        };
        let shares = plan.data_dir.as_deref();
        let shares = !plan.visit && shares.is_some_and(content::any_kept);
        let leaf = Leaf::new(node, client, plan.data_dir)
            .relay_only(relay_only)
            .upload_bps(upload.or(plan.uplink).map(|upload| upload.0));
        if shares {
            let opened = leaf.hub();
            opened.map_err(|error| StartError::Peer(error.to_string()))?;
        }
        Ok(leaf)
    }
}

/// What the leaf keeps published, on disk where it has a directory.
async fn publications(plan: &Plan) -> Result<Option<Publications>, StartError> {
    let (network, me) = (plan.network.clone(), plan.identity.node_id());
    if plan.visit {
        return Ok(None);
    }
    let Some(data_dir) = &plan.data_dir else {
        return Ok(Some(Publications::in_memory(&network, me)));
    };
    let path = data_dir.path().join("publications");
    let open = move || Publications::open(&path, &network, me);
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| StartError::Peer(error.to_string()))?;
    opened.map(Some).map_err(|error| match error {
        StoreError::Corrupt { path, reason } => StartError::Peer(format!(
            "the list of what this leaf keeps published, {}, is damaged ({reason}); restore it, or move it away, start again and publish again",
            path.display()
        )),
        error => StartError::Peer(error.to_string()),
    })
}

impl Leaf<PeerNode> {
    /// Sets up a leaf.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::Net;
    use crate::data_dir::DataDirError;

    /// A port that is taken once, wherever it is.
    async fn start_where_taken(builder: Builder) -> Result<(Leaf<Net>, Vec<Plan>), StartError> {
        let plans = Mutex::new(Vec::new());
        let leaf = builder.start_on(async |plan: Plan| {
            plans.lock().push(plan.clone());
            match plan.listen.port() {
                0 => Ok(Net::new(&plan.identity, 3)),
                _ => Err(StartError::Listen {
                    addr: plan.listen,
                    reason: "in use".into(),
                }),
            }
        });
        let leaf = leaf.await?;
        Ok((leaf, plans.into_inner()))
    }

    #[tokio::test]
    async fn the_port_of_last_time_is_tried_first_and_a_chosen_one_is_insisted_on() {
        let base = tempfile::tempdir().unwrap();
        let builder = || Leaf::builder().data_dir(base.path());
        let (leaf, plans) = start_where_taken(builder()).await.unwrap();
        assert_eq!(plans.len(), 1);
        let id = leaf.node_id();
        drop((leaf, plans));

        let (leaf, plans) = start_where_taken(builder()).await.unwrap();
        let ports: Vec<u16> = plans.iter().map(|plan| plan.listen.port()).collect();
        assert_eq!(ports, [4477, 0]);
        assert_eq!(leaf.node_id(), id);
        drop((leaf, plans));

        let chosen = builder().listen("127.0.0.1:4477".parse().unwrap());
        let error = start_where_taken(chosen).await.unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_directory_in_use_and_a_name_without_address_stop_the_start() {
        let base = tempfile::tempdir().unwrap();
        let _held = DataDir::open(base.path()).unwrap();
        let error = start_where_taken(Leaf::builder().data_dir(base.path()))
            .await
            .unwrap_err();
        assert!(
            matches!(error, StartError::DataDir(DataDirError::Locked(_))),
            "{error}"
        );
        // A label this long is refused before anything is looked up.
        let peer = format!("{}:1", "a".repeat(80)).parse().unwrap();
        let error = start_where_taken(Leaf::builder().peer(peer))
            .await
            .unwrap_err();
        assert!(matches!(error, StartError::Lookup { .. }), "{error}");
    }

    #[test]
    fn starting_can_be_spawned() {
        fn send<T: Send>(_: &T) {}
        send(&Leaf::builder().start());
    }
}
