//! A whole peer: core, fabric, and the super-node role that the election or
//! the operator may give it. Every program and every app starts its peer here.
//!
//! | file | idea |
//! |---|---|
//! | `plan` | settings in, every default filled in |
//! | `tell` | what happens in the peer, as events |
//! | `trouble` | what keeps the peer from the overlay, in words |

mod plan;
mod tell;
mod trouble;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::role::{RoleConfig, SuperNodeRole};
use crate::service::{IndexStats, ServiceConfig};
use canopy_core::keyspace::NodeId;
use canopy_core::node as core;
use canopy_core::placement::Placement;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::{BindError, FabricConfig};
use canopy_overlay::peer::{Peer, PeerConfig};
use canopy_proto::wire;
use tokio::sync::{broadcast, watch};

pub use plan::{Plan, Setup, StartError};

use crate::event::{BACKLOG, Event};
use crate::settings::{Preset, Topology};
use crate::status::{Criterion, Home, MAX_LISTED, Role, Status, SuperNode};
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
    peer: Peer,
    role: SuperNodeRole,
    topology: Topology,
    started: Instant,
    events: broadcast::Sender<Event>,
    trouble: Trouble,
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
        let role = RoleConfig {
            service,
            store: in_dir(&plan, "index"),
            report_every: timings.election.report_interval,
            process_cpu: plan.process_cpu,
            limits: plan.limits,
            ..RoleConfig::default()
        };
        let role = SuperNodeRole::attend(peer.clone(), role)
            .map_err(|error| StartError::Peer(error.to_string()))?;
        let (events, watched) = broadcast::channel(BACKLOG);
        let trouble = Trouble::default();
        tokio::spawn(tell(happened, events.clone(), trouble.clone()));
        tokio::spawn(tell_failure(role.failure(), events.clone()));
        let inner = Inner {
            peer,
            role,
            topology: plan.topology,
            started: Instant::now(),
            events,
            trouble,
        };
        let host = Self {
            inner: Arc::new(inner),
        };
        Ok((host, watched))
    }

    /// The peer underneath.
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// What this peer is to the overlay, now.
    pub fn role(&self) -> Role {
        as_role(*self.inner.peer.role().borrow())
    }

    /// What this peer's index did and holds; `None` while it has none.
    pub fn index_stats(&self) -> Option<IndexStats> {
        self.inner.role.stats()
    }

    /// How busy this peer is; see [`SuperNodeRole::load`].
    pub fn load(&self) -> watch::Receiver<core::Load> {
        self.inner.role.load()
    }

    /// The operator designates this peer, for the first time or anew; checked
    /// like any mandate.
    pub fn designate(&self, mandate: wire::SignedMandate) {
        self.inner.peer.designate(mandate);
    }

    /// How the peer fares, now.
    pub fn status(&self) -> Status {
        let status = self.inner.peer.status();
        let sessions = self.inner.peer.fabric();
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
        let listen = self.inner.peer.local_addr();
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

    /// A reader of events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Says goodbye and frees the port. What the peer serves stays on disk.
    pub async fn close(&self) {
        self.inner.role.stop();
        self.inner.peer.close().await;
    }

    /// Ends the peer without a word to anybody, as a power cut would.
    pub fn abort(&self) {
        self.inner.peer.abort();
        self.inner.role.stop();
    }
}

/// What the peer underneath is started with.
fn peer_config(plan: &Plan) -> PeerConfig {
    let mut fabric = FabricConfig::new(plan.identity.clone(), plan.listen, plan.network.clone());
    fabric.topology = plan.topology.into();
    fabric.operator = plan.operator;
    fabric.uplink_bps = plan.uplink.map(|uplink| uplink.0);
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

impl Calls for Host {
    fn node_id(&self) -> NodeId {
        self.inner.peer.node_id()
    }

    fn network(&self) -> &str {
        self.inner.peer.network()
    }

    fn placement(&self) -> Placement {
        self.inner.peer.placement()
    }

    fn now_ms(&self) -> u64 {
        self.inner.peer.now_ms()
    }

    fn trouble(&self) -> Option<String> {
        let status = self.inner.peer.status();
        let alone = status.super_nodes.is_empty();
        self.inner.trouble.in_words(&status.verdict.items, alone)
    }

    async fn call(
        &self,
        node: NodeId,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> Result<wire::response::Kind, CallError> {
        // A super-node's own requests need no session.
        match node == self.node_id() {
            true => self.inner.role.answer(node, request).await,
            false => self.inner.peer.call(node, request, deadline).await,
        }
    }
}
