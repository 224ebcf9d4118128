//! The peers of the demo: started, killed and closed. Each has an endpoint, a
//! data directory and a line of its own; none is told who is super-node.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::Placement;
use canopy_overlay::calls::Calls;
use canopy_proto::wire::SignedMandate;
use canopy_supernode::control::{Control, ControlConfig, ControlError};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::DemoError;
use super::draw::{Draw, ranks};
use crate::event::Events;
use crate::leaf::Leaf;
use crate::node::unix_ms;
use crate::settings::{Bandwidth, PeerAddr, Preset, Topology};
use crate::status::Role;

/// Hosts that the demo's operator designates: the strongest lines.
pub(super) const DESIGNATED: usize = 2;
/// How long a designation lasts; longer than anybody runs a demo.
const DESIGNATED_FOR: Duration = Duration::from_secs(24 * 3600);

/// One peer.
#[derive(Debug)]
pub(super) struct Mate {
    /// Number by order of start.
    pub(super) index: usize,
    pub(super) leaf: Leaf,
    pub(super) uplink: Bandwidth,
    /// 1: the strongest line.
    pub(super) rank: usize,
    /// All its events from its start on, for one listener.
    pub(super) events: Mutex<Option<Events>>,
    /// Where its control plane listens.
    pub(super) control: SocketAddr,
    attended: JoinHandle<()>,
    killed: AtomicBool,
}

impl Mate {
    pub(super) fn id(&self) -> NodeId {
        self.leaf.node_id()
    }

    pub(super) fn alive(&self) -> bool {
        !self.killed.load(Ordering::Relaxed)
    }

    pub(super) fn placement(&self) -> Placement {
        self.leaf.node().placement()
    }

    /// Whether it serves: it has the role, and an index to answer from.
    pub(super) fn serves(&self) -> bool {
        self.role() == Role::SuperNode && self.leaf.node().index_stats().is_some()
    }

    pub(super) fn role(&self) -> Role {
        self.leaf.node().role()
    }

    /// Requests of any kind that its index has worked on; 0 while it has none.
    pub(super) fn operations(&self) -> u64 {
        let stats = self.leaf.node().index_stats();
        stats.map_or(0, |stats| stats.operations())
    }

    /// A power cut.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.attended.abort();
        self.leaf.node().abort();
    }
}

/// All peers, dead ones included. Their directories go with it.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) mates: Vec<Mate>,
    pub(super) begun: Instant,
    pub(super) topology: Topology,
    _home: TempDir,
}

impl Fleet {
    /// Starts `count` peers, one after another.
    pub(super) async fn start(
        draw: Draw,
        count: usize,
        topology: Topology,
        started: impl Fn(&Mate),
    ) -> Result<Self, DemoError> {
        let home = TempDir::with_prefix("canopy-demo-")
            .map_err(|error| DemoError::Home(error.to_string()))?;
        let uplinks: Vec<Bandwidth> = (0..count).map(|i| draw.uplink(i)).collect();
        let ranks = ranks(&uplinks);
        let network = format!("demo-{:016x}", rand::random::<u64>());
        let operator = draw.identity("operator", 0);
        let mut fleet = Self {
            mates: Vec::with_capacity(count),
            begun: Instant::now(),
            topology,
            _home: home,
        };
        let hosts = match topology {
            Topology::Hybrid => strongest(&uplinks),
            Topology::Pure | Topology::Elected => Vec::new(),
        };
        for index in 0..count {
            let identity = draw.identity("peer", index);
            let mut builder = Leaf::builder()
                .identity(identity.clone())
                .listen(([127, 0, 0, 1], 0).into())
                .data_dir(fleet._home.path().join(index.to_string()))
                .network(&network)
                .preset(Preset::Local)
                .topology(topology)
                .uplink(uplinks[index]);
            if topology == Topology::Hybrid {
                builder = builder.operator(operator.node_id());
            }
            if hosts.contains(&index) {
                let mandate = designation(&network, identity.node_id(), uplinks[index], &operator);
                builder = builder.designation(mandate);
            }
            for known in draw.acquaintances(index) {
                builder = builder.peer(fleet.addr(known)?);
            }
            let outcome = builder.start().await;
            let leaf = match outcome {
                Ok(leaf) => leaf,
                Err(error) => {
                    fleet.close().await;
                    return Err(DemoError::Start { index, error });
                }
            };
            let (control, attended) = match attend(&leaf).await {
                Ok(attended) => attended,
                Err(error) => {
                    leaf.close().await;
                    fleet.close().await;
                    return Err(error.into());
                }
            };
            let mate = Mate {
                index,
                control,
                attended,
                uplink: uplinks[index],
                rank: ranks[index],
                events: Mutex::new(Some(leaf.events())),
                leaf,
                killed: AtomicBool::new(false),
            };
            started(&mate);
            fleet.mates.push(mate);
        }
        Ok(fleet)
    }

    fn addr(&self, index: usize) -> Result<PeerAddr, DemoError> {
        let addr = self.mates[index].leaf.status().listen.to_string();
        addr.parse()
            .map_err(|_| DemoError::Home(format!("a peer listens on {addr}")))
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &Mate> {
        self.mates.iter().filter(|mate| mate.alive())
    }

    pub(super) fn by_id(&self, id: &NodeId) -> Option<&Mate> {
        self.mates.iter().find(|mate| mate.id() == *id)
    }

    /// How people tell peers apart: number, and what its line carries.
    pub(super) fn name(&self, id: &NodeId) -> String {
        match self.by_id(id) {
            Some(mate) => format!("#{:02} ({})", mate.index, mate.uplink),
            None => id.short(),
        }
    }

    /// Everybody leaves, all at once: nobody is left to hand over to.
    pub(super) async fn close(&self) {
        for mate in self.alive() {
            mate.attended.abort();
        }
        join_all(self.alive().map(|mate| mate.leaf.close())).await;
    }
}

/// Opens a control plane to a peer, until it is aborted.
async fn attend(leaf: &Leaf) -> Result<(SocketAddr, JoinHandle<()>), ControlError> {
    let control = Control::bind(ControlConfig::default()).await?;
    let (addr, host) = (control.addr(), leaf.node().clone());
    let attended = tokio::spawn(async move {
        if let Err(error) = control.serve(host, std::future::pending()).await {
            tracing::warn!(%error, "demo.control: it ended");
        }
    });
    Ok((addr, attended))
}

fn strongest(uplinks: &[Bandwidth]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..uplinks.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(uplinks[*index]));
    order.truncate(DESIGNATED);
    order
}

fn designation(
    network: &str,
    candidate: NodeId,
    uplink: Bandwidth,
    operator: &Identity,
) -> SignedMandate {
    let issued_ms = unix_ms();
    let mandate = Mandate {
        network: network.to_owned(),
        term: 1,
        candidate,
        basis: Basis::Designated,
        capacity_bps: uplink.0,
        issued_ms,
        expires_ms: issued_ms + DESIGNATED_FOR.as_millis() as u64,
        beacon: Key([0; 32]),
        ballots: Vec::new(),
        officer: operator.node_id(),
        assembly: Vec::new(),
        domain: String::new(),
        deputy: false,
    };
    mandate.designate(operator)
}
