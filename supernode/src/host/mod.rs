//! A whole peer: core, fabric, and the super-node role that the election or
//! the operator may give it. Every program and every app starts its peer here.
//!
//! | file | idea |
//! |---|---|
//! | `figures` | how this peer fares, by its own count |
//! | `inspect` | what this peer tells others that ask for an operator |
//! | `leaves` | what this peer tells of the leaves that it is a home of |
//! | `location` | where others find this peer, kept right in the index |
//! | `mapping` | ports that a router is asked for |
//! | `plan` | settings in, every default filled in |
//! | `tell` | what happens in the peer, as events |
//! | `trouble` | what keeps the peer from the overlay, in words |
//! | `views` | what this peer tells of shards and hot keys |

mod figures;
mod inspect;
mod leaves;
mod location;
#[cfg(feature = "mapping")]
mod mapping;
mod plan;
mod tell;
mod trouble;
mod views;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::data_dir::{DataDir, DataDirError};
use crate::relay::RelayStats;
use crate::role::{RoleConfig, SuperNodeRole};
use crate::routing::{Carried, Router};
use crate::service::{HandOver, IndexStats, ServiceConfig};
use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_core::node as core;
use canopy_core::placement::Placement;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::{BindError, FabricConfig};
use canopy_overlay::peer::{Peer, PeerConfig};
use canopy_proto::wire;
use tokio::sync::{broadcast, watch};

#[cfg(feature = "api")]
pub(crate) use inspect::MAX_OFFICERS;
#[cfg(feature = "api")]
pub(crate) use leaves::MAX_LEAVES_TOLD;
pub use plan::{Plan, Setup, StartError};
#[cfg(feature = "api")]
pub(crate) use views::MAX_HOT;

#[cfg(feature = "api")]
use crate::control::DeskPlace;
use crate::event::{BACKLOG, Event};
#[cfg(feature = "api")]
use crate::event::{EventKind, unix_ms};
use crate::metrics::{Metrics, Reading};
use crate::settings::{Preset, Topology};
use crate::status::{Criterion, Home, MAX_LISTED, Role, Status, SuperNode};
use location::{Locator, Whereabouts};
#[cfg(feature = "mapping")]
use mapping::Mapping;
use tell::{as_role, tell, tell_failure};
use trouble::Trouble;

/// Leaves that one peer would host as a super-node.
const MAX_LEAVES: usize = 50_000;
/// A home line that carries less serves nobody well, bits a second.
const FLOOR_BPS: u64 = 5_000_000;
/// Leaves a super-node, as the election aims for.
const RATIO: usize = 40;

/// The peer of the overlay. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reach: Reach,
    router: Router<Reach>,
    /// Absent: others need not find this peer.
    locator: Option<Locator>,
    /// Absent: routers are asked for nothing.
    #[cfg(feature = "mapping")]
    mapping: Option<Mapping>,
    topology: Topology,
    started: Instant,
    events: broadcast::Sender<Event>,
    trouble: Trouble,
    metrics: Metrics,
    /// Where the control plane listens, once it does.
    control: OnceLock<SocketAddr>,
    /// Where a cordon is remembered over a restart.
    data_dir: Option<Arc<DataDir>>,
    #[cfg(feature = "api")]
    desk: DeskPlace,
}

impl Host {
    /// Starts the peer. Call within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on, or the store cannot be opened.
    pub async fn start(plan: Plan) -> Result<Self, StartError> {
        Ok(Self::start_watched(plan).await?.0)
    }

    /// The same, for an observer who must not miss what happens first.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_watched(
        plan: Plan,
    ) -> Result<(Self, broadcast::Receiver<Event>), StartError> {
        let listen = plan.listen;
        let (peer, happened) = Peer::start_watched(peer_config(&plan))
            .await
            .map_err(|error| listen_error(listen, error))?;
        let timings = preset(plan.preset).timings();
        let service = ServiceConfig {
            // An owner that takes twice as long as a juror may is as good as
            // dead: the others have the record too.
            read_deadline: timings.election.reply_timeout * 2,
            ..ServiceConfig::default()
        };
        let metrics = Metrics::new();
        let carried = Carried::default();
        let role = RoleConfig {
            requests: metrics.requests(),
            counted: metrics.counted(),
            carried: carried.clone(),
            service,
            store: in_dir(&plan, "index"),
            report_every: timings.election.report_interval,
            process_cpu: plan.process_cpu,
            limits: plan.limits,
            ..RoleConfig::default()
        };
        let role = SuperNodeRole::attend(peer.clone(), role)
            .map_err(|error| StartError::Peer(error.to_string()))?;
        let reach = Reach {
            peer,
            role: Arc::new(role),
        };
        let router = Router::start(reach.clone(), &carried);
        reach.peer.set_router(router.front());
        let (events, watched) = broadcast::channel(BACKLOG);
        let trouble = Trouble::default();
        tokio::spawn(tell(happened, events.clone(), trouble.clone()));
        tokio::spawn(tell_failure(reach.role.failure(), events.clone()));
        let locator = (!plan.visit).then(|| {
            let whereabouts = Whereabouts {
                role: reach.peer.role(),
                homes: reach.peer.homes(),
            };
            // New homes are found within this time, and then told within it.
            let spread = timings.home.attach_jitter;
            Locator::start(reach.clone(), plan.identity, whereabouts, spread)
        });
        #[cfg(feature = "mapping")]
        let mapping = plan.port_mapping.then(|| {
            let (peer, relays) = (&reach.peer, reach.role.relays());
            Mapping::start(peer, relays, plan.carriers, events.clone())
        });
        let inner = Inner {
            reach,
            router,
            locator,
            #[cfg(feature = "mapping")]
            mapping: mapping.flatten(),
            topology: plan.topology,
            started: Instant::now(),
            events,
            trouble,
            metrics,
            control: OnceLock::new(),
            data_dir: plan.data_dir,
            #[cfg(feature = "api")]
            desk: DeskPlace::default(),
        };
        let host = Self {
            inner: Arc::new(inner),
        };
        host.answer_inspection();
        if host
            .inner
            .data_dir
            .as_ref()
            .is_some_and(|dir| dir.cordoned())
        {
            host.peer().cordon(true);
        }
        Ok((host, watched))
    }

    #[cfg(feature = "api")]
    pub(crate) fn desk(&self) -> &DeskPlace {
        &self.inner.desk
    }

    /// The peer underneath.
    pub fn peer(&self) -> &Peer {
        &self.inner.reach.peer
    }

    /// What carries messages and posts through this peer, and takes its own.
    pub fn router(&self) -> &Router<impl Calls> {
        &self.inner.router
    }

    /// What this peer is to the overlay, now.
    pub fn role(&self) -> Role {
        as_role(*self.inner.reach.peer.role().borrow())
    }

    /// What this peer's index did and holds; `None` while it has none.
    pub fn index_stats(&self) -> Option<IndexStats> {
        self.inner.reach.role.stats()
    }

    /// What this peer relayed between leaves since it started.
    pub fn relayed(&self) -> RelayStats {
        self.inner.reach.role.relayed()
    }

    /// Asks the router for the UDP port `port` as well, until what is returned is
    /// dropped: where it lets in what is for it. `None`: routers are asked for
    /// nothing.
    pub fn map_port(&self, port: u16) -> Option<watch::Receiver<Option<SocketAddr>>> {
        #[cfg(feature = "mapping")]
        {
            self.inner.mapping.as_ref()?.udp(port)
        }
        #[cfg(not(feature = "mapping"))]
        {
            let _ = port;
            None
        }
    }

    /// How busy this peer is; see [`SuperNodeRole::load`].
    pub fn load(&self) -> watch::Receiver<core::Load> {
        self.inner.reach.role.load()
    }

    /// Whether this peer has joined: it has a home, or serves.
    ///
    /// # Errors
    /// Why it has not, for people.
    pub fn ready(&self) -> Result<(), String> {
        let homes = !self.inner.reach.peer.homes().borrow().is_empty();
        let serves = self.role() == Role::SuperNode && self.inner.reach.role.index().is_some();
        match homes || serves {
            true => Ok(()),
            false => Err(self
                .trouble()
                .unwrap_or_else(|| "this peer has no home yet".to_owned())),
        }
    }

    /// The metrics of this peer, brought up to date. What only the peer's owner
    /// knows may be added before they are rendered.
    pub fn metrics(&self) -> &Metrics {
        let reading = Reading {
            peer: &self.inner.reach.peer,
            role: &self.inner.reach.role,
            topology: self.inner.topology,
            ready: self.ready().is_ok(),
            is: self.role(),
            topics: self.inner.router.held(),
        };
        self.inner.metrics.read(&reading);
        &self.inner.metrics
    }

    /// How far the last hand-over of this peer's records is; see
    /// [`SuperNodeRole::hand_over`].
    pub fn hand_over(&self) -> watch::Receiver<HandOver> {
        self.inner.reach.role.hand_over()
    }

    /// The operator wants this peer to take on nothing new, no leaf and no
    /// mandate, or again to; remembered over a restart where there is a data
    /// directory.
    ///
    /// # Errors
    /// It cannot be remembered; nothing was changed.
    pub fn cordon(&self, on: bool) -> Result<(), DataDirError> {
        if let Some(data_dir) = &self.inner.data_dir {
            data_dir.set_cordoned(on)?;
        }
        self.peer().cordon(on);
        Ok(())
    }

    /// Tells everybody who reads events what an operator did here.
    #[cfg(feature = "api")]
    pub(crate) fn operated(&self, action: &str, caller: &str) {
        // Nobody may be reading.
        let _ = self.inner.events.send(Event {
            at_ms: unix_ms(),
            kind: EventKind::Operated {
                action: action.to_owned(),
                caller: caller.to_owned(),
            },
        });
    }

    /// The operator designates this peer, for the first time or anew; checked
    /// like any mandate.
    pub fn designate(&self, mandate: wire::SignedMandate) {
        self.inner.reach.peer.designate(mandate);
    }

    /// Where a super-node is reached, as far as this peer knows.
    pub fn addrs(&self, node: &NodeId) -> Vec<SocketAddr> {
        let status = self.inner.reach.peer.status();
        let known = status.super_nodes.iter().find(|s| s.node == *node);
        known.map(|s| s.addrs.clone()).unwrap_or_default()
    }

    /// How the peer fares, now.
    pub fn status(&self) -> Status {
        let status = self.inner.reach.peer.status();
        let sessions = self.inner.reach.peer.fabric();
        let addr_of = |node: &NodeId| {
            let known = status.super_nodes.iter().find(|s| s.node == *node);
            known.and_then(|s| s.addrs.first().copied())
        };
        let homes = status.homes.iter().map(|node| Home {
            node_id: *node,
            addr: addr_of(node),
            round_trip_us: sessions
                .session(node)
                .map_or(0, |s| s.rtt().as_micros() as u64),
        });
        let super_nodes = status
            .super_nodes
            .iter()
            .take(MAX_LISTED)
            .map(|s| SuperNode {
                node_id: s.node,
                capacity_bps: s.capacity_bps,
                seats: s.seats,
                domain: s.domain.clone(),
            });
        let criteria = status.verdict.items.iter().map(|item| Criterion {
            name: item.name.to_owned(),
            value: item.value.clone(),
            threshold: item.threshold.clone(),
            pass: item.pass,
        });
        let listen = self.inner.reach.peer.local_addr();
        Status {
            node_id: status.node,
            role: as_role(status.role),
            homes: homes.collect(),
            super_nodes: super_nodes.collect(),
            super_node_count: status.super_nodes.len() as u32,
            capacity_bps: status.capacity_bps,
            criteria: criteria.collect(),
            listen: listen.unwrap_or_else(|_| ([0, 0, 0, 0], 0).into()),
            network: self.network().to_owned(),
            topology: self.inner.topology,
            uptime_s: self.inner.started.elapsed().as_secs(),
            leaves: status.leaves as u32,
        }
    }

    /// Who serves, as it was settled at the start.
    pub fn topology(&self) -> Topology {
        self.inner.topology
    }

    /// A reader of events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Says goodbye and frees the port. What the peer serves stays on disk.
    pub async fn close(&self) {
        if let Some(locator) = &self.inner.locator {
            locator.close().await;
        }
        #[cfg(feature = "mapping")]
        if let Some(mapping) = &self.inner.mapping {
            mapping.close().await;
        }
        self.inner.reach.role.stop();
        self.inner.reach.peer.close().await;
    }

    /// Ends the peer without a word to anybody, as a power cut would.
    pub fn abort(&self) {
        if let Some(locator) = &self.inner.locator {
            locator.abort();
        }
        self.inner.reach.peer.abort();
        self.inner.reach.role.stop();
    }
}

/// What the peer underneath is started with.
fn peer_config(plan: &Plan) -> PeerConfig {
    let mut fabric = FabricConfig::new(plan.identity.clone(), plan.listen, plan.network.clone());
    fabric.topology = plan.topology.into();
    fabric.operator = plan.operator;
    fabric.uplink_bps = plan.uplink.map(|uplink| uplink.0);
    fabric.carriers = plan.carriers;
    let timing = preset(plan.preset).timings();
    fabric.keep_alive = timing.home.keep_alive;
    fabric.idle_timeout = timing.home.keep_alive * 2 + Duration::from_secs(5);
    PeerConfig {
        core: core::Config {
            network: plan.network.clone(),
            topology: plan.topology.into(),
            operator: plan.operator,
            stand: plan.stand.to_core(),
            uplink_bps: fabric.uplink_bps,
            zone: plan.zone.clone(),
            addrs: Vec::new(),
            port: 0,
            peers: plan.peers.clone(),
            timing,
            max_leaves: MAX_LEAVES,
            ratio: RATIO,
            floor_bps: FLOOR_BPS,
            cache: MAX_LISTED,
            designation: plan.designation.clone(),
        },
        fabric,
        roster_file: in_dir(plan, "roster"),
    }
}

fn in_dir(plan: &Plan, name: &str) -> Option<PathBuf> {
    plan.data_dir.as_ref().map(|dir| dir.path().join(name))
}

fn listen_error(listen: SocketAddr, error: BindError) -> StartError {
    let reason = match error {
        BindError::InUse(_) => "another program uses the port".into(),
        BindError::Permission(_) => "this user may not use a port that low".into(),
        BindError::NoSuchAddress(_) => "this machine has no such address".into(),
        BindError::Io { source, .. } => source.to_string(),
        error @ BindError::Config(_) => return StartError::Peer(error.to_string()),
    };
    let addr = listen;
    StartError::Listen { addr, reason }
}

fn preset(preset: Preset) -> canopy_core::preset::Preset {
    match preset {
        Preset::Local => canopy_core::preset::Preset::Local,
        Preset::Lan => canopy_core::preset::Preset::Lan,
        Preset::Auto | Preset::Wan => canopy_core::preset::Preset::Wan,
    }
}

/// The peer and its role: asks others over sessions, and itself without one.
#[derive(Clone, Debug)]
struct Reach {
    peer: Peer,
    role: Arc<SuperNodeRole>,
}

impl Calls for Reach {
    fn node_id(&self) -> NodeId {
        self.peer.node_id()
    }

    fn network(&self) -> &str {
        self.peer.network()
    }

    fn placement(&self) -> Placement {
        self.peer.placement()
    }

    fn now_ms(&self) -> u64 {
        self.peer.now_ms()
    }

    fn bans(&self) -> Arc<Bans> {
        Calls::bans(&self.peer)
    }

    async fn call(
        &self,
        node: NodeId,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> Result<wire::response::Kind, CallError> {
        match node == self.node_id() {
            true => self.role.answer(node, request).await,
            false => self.peer.call(node, request, deadline).await,
        }
    }
}

impl Calls for Host {
    fn node_id(&self) -> NodeId {
        self.inner.reach.node_id()
    }

    fn network(&self) -> &str {
        self.inner.reach.network()
    }

    fn placement(&self) -> Placement {
        self.inner.reach.placement()
    }

    fn now_ms(&self) -> u64 {
        self.inner.reach.now_ms()
    }

    fn bans(&self) -> Arc<Bans> {
        self.inner.reach.bans()
    }

    fn trouble(&self) -> Option<String> {
        let status = self.inner.reach.peer.status();
        let alone = status.super_nodes.is_empty();
        self.inner.trouble.in_words(&status.verdict.items, alone)
    }

    async fn call(
        &self,
        node: NodeId,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> Result<wire::response::Kind, CallError> {
        // Its own router: Reach leads to the index.
        if node == self.node_id() && Router::<Reach>::answers(&request) {
            return self.inner.router.answer(request).await;
        }
        self.inner.reach.call(node, request, deadline).await
    }
}
