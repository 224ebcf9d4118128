//! The driver: runs one [`Core`] over one [`Fabric`] on tokio.
//!
//! One task owns the core; everything reaches it through a queue. The data
//! plane never waits for that task: it reads the placement snapshot and talks
//! to other peers over sessions of its own accord.
//!
//! | file | idea |
//! |---|---|
//! | `run` | the task that owns the core |
//! | `serve` | what the fabric asks of this peer |
//! | `carry` | carrying out what the core wants |
//! | `file` | the saved roster on disk |
//! | `stats` | what is counted |

mod carry;
mod file;
mod run;
mod serve;
mod stats;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use canopy_core::decree::Bans;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_core::node::{self, Core, Event, Input, Load, Role, Status};
use canopy_core::placement::Placement;
use canopy_core::time::{Now, Time};
use canopy_proto::wire;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::calls::{CallError, Calls};
use crate::fabric::{Answer, BindError, DialError, Fabric, FabricConfig, RequestError, Target};

pub use stats::PeerStats;

/// Messages that may wait for the core; more are dropped, as a network would.
const MAX_QUEUED: usize = 16_384;
/// Events kept for a slow observer.
const EVENTS: usize = 1024;
/// Time a request spends at most on opening a session first.
const DIAL: Duration = Duration::from_secs(3);

/// How a peer is started.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Sockets, limits, identity, network.
    pub fabric: FabricConfig,
    /// The protocol's settings; network, topology, operator, uplink and port
    /// are taken from `fabric`.
    pub core: node::Config,
    /// Where the known super-nodes are kept over a restart; `None`: nowhere.
    pub roster_file: Option<PathBuf>,
}

/// Answers the requests of others while this peer is a super-node.
pub trait Handler: Send + Sync + 'static {
    /// Answers at once, or says how it will.
    fn handle(&self, from: NodeId, request: wire::request::Kind) -> Answer;
}

/// Something that happened to a peer.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// In the protocol.
    Core(Event),
    /// A peer could not be joined by.
    JoinFailed {
        /// Where it should have been.
        addr: SocketAddr,
        /// Why.
        error: DialError,
    },
}

/// A running peer; a handle, cheap to clone.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    fabric: Fabric,
    network: String,
    epoch: Instant,
    inputs: Inputs,
    handler: Arc<ArcSwapOption<Box<dyn Handler>>>,
    inspector: Arc<ArcSwapOption<Box<dyn Handler>>>,
    router: Arc<ArcSwapOption<Box<dyn Handler>>>,
    linker: Arc<ArcSwapOption<Box<dyn Handler>>>,
    placement: ArcSwap<Placement>,
    status: ArcSwap<Status>,
    placements: watch::Sender<u64>,
    role: watch::Sender<Role>,
    homes: watch::Sender<Vec<NodeId>>,
    bans: watch::Sender<Arc<Bans>>,
    events: broadcast::Sender<PeerEvent>,
    join_error: Mutex<Option<(SocketAddr, DialError)>>,
}

/// What reaches the task that owns the core.
enum Command {
    Input(Input),
    Look(Look),
    Dialled {
        node: Option<NodeId>,
        addrs: Vec<SocketAddr>,
        result: Result<NodeId, DialError>,
    },
    Close(oneshot::Sender<()>),
}

/// Reads the core between two inputs.
type Look = Box<dyn FnOnce(&Core, Now) + Send>;

/// The way to the core, for everything that is not the core.
#[derive(Clone)]
struct Inputs {
    sender: mpsc::UnboundedSender<Command>,
    messages: Arc<AtomicUsize>,
    counters: Arc<stats::Counters>,
}

impl Inputs {
    /// Session events: as many as there are sessions, never dropped.
    fn push(&self, input: Input) {
        let _ = self.sender.send(Command::Input(input));
    }

    /// Messages: dropped when too many wait.
    fn message(&self, from: NodeId, message: wire::CoreMessage) {
        if self.messages.fetch_add(1, Ordering::Relaxed) < MAX_QUEUED {
            self.counters.messages.one();
            self.push(Input::Message {
                from,
                message: Box::new(message),
            });
        } else {
            self.messages.fetch_sub(1, Ordering::Relaxed);
            self.counters.messages_dropped.one();
            tracing::warn!(?from, "peer.overrun: a message was dropped");
        }
    }
}

/// Who may measure this peer: set by the core, read by the fabric.
type Permits = Arc<Mutex<HashMap<NodeId, (u64, Instant)>>>;

impl Peer {
    /// Opens the socket and starts the peer. Call within a tokio runtime.
    pub async fn start(config: PeerConfig) -> Result<Self, BindError> {
        Ok(Self::start_watched(config).await?.0)
    }

    /// The same, for an observer who must not miss what happens first.
    pub async fn start_watched(
        config: PeerConfig,
    ) -> Result<(Self, broadcast::Receiver<PeerEvent>), BindError> {
        let PeerConfig {
            fabric: fabric_config,
            mut core,
            roster_file,
        } = config;
        let (sender, receiver) = mpsc::unbounded_channel();
        let inputs = Inputs {
            sender,
            messages: Arc::default(),
            counters: Arc::default(),
        };
        let permits = Permits::default();
        let handler = Arc::new(ArcSwapOption::empty());
        let inspector = Arc::new(ArcSwapOption::empty());
        let router = Arc::new(ArcSwapOption::empty());
        let linker = Arc::new(ArcSwapOption::empty());
        let service = serve::Service {
            inputs: inputs.clone(),
            permits: permits.clone(),
            handler: handler.clone(),
            inspector: inspector.clone(),
            router: router.clone(),
            linker: linker.clone(),
            own: fabric_config.identity.node_id(),
        };
        let identity: Identity = fabric_config.identity.clone();
        let network = fabric_config.network.clone();
        core.network.clone_from(&network);
        core.topology = fabric_config.topology;
        core.operator = fabric_config.operator;
        core.uplink_bps = fabric_config.uplink_bps;
        let fabric = Fabric::bind(fabric_config, Arc::new(service))?;
        let local = fabric
            .local_addr()
            .map_err(|error| BindError::Config(error.to_string()))?;
        core.port = local.port();
        if core.addrs.is_empty() && !local.ip().is_unspecified() {
            core.addrs.push(local);
        }
        let saved = match &roster_file {
            Some(path) => file::read(path).await,
            None => None,
        };
        let epoch = Instant::now();
        let now = now(epoch);
        let (events, watched) = broadcast::channel(EVENTS);
        let core = Core::new(core, identity, rand::random(), now, saved.as_ref());
        let inner = Arc::new(Inner {
            fabric,
            network,
            epoch,
            inputs,
            handler,
            inspector,
            router,
            linker,
            placement: ArcSwap::from_pointee(core.placement().clone()),
            status: ArcSwap::from_pointee(core.status(now)),
            placements: watch::Sender::new(0),
            role: watch::Sender::new(core.role()),
            homes: watch::Sender::new(Vec::new()),
            bans: watch::Sender::default(),
            events,
            join_error: Mutex::new(None),
        });
        tokio::spawn(run::Task::new(inner.clone(), core, receiver, permits, roster_file).run());
        Ok((Self { inner }, watched))
    }

    /// Where the peer listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.fabric.local_addr()
    }

    /// The fabric underneath.
    pub fn fabric(&self) -> &Fabric {
        &self.inner.fabric
    }

    /// Whose requests `handler` answers from now on: those of everybody.
    /// `None`: this peer serves nothing.
    pub fn set_handler(&self, handler: Option<Box<dyn Handler>>) {
        self.inner.handler.store(handler.map(Arc::new));
    }

    /// Who tells others how this peer fares, whether it serves or not.
    pub fn set_inspector(&self, inspector: Box<dyn Handler>) {
        self.inner.inspector.store(Some(Arc::new(inspector)));
    }

    /// Who takes messages and posts, for this peer itself and, while it serves,
    /// to pass them on.
    pub fn set_router(&self, router: Box<dyn Handler>) {
        self.inner.router.store(Some(Arc::new(router)));
    }

    /// Who answers offers of flows to this peer.
    pub fn set_linker(&self, linker: Box<dyn Handler>) {
        self.inner.linker.store(Some(Arc::new(linker)));
    }

    /// Answers an offer that this peer, as a super-node, makes to itself.
    pub async fn offered(&self, offer: wire::LinkOffer) -> wire::response::Kind {
        let own = self.inner.fabric.node_id();
        let answer = {
            let linker = self.inner.linker.load();
            let offer = wire::request::Kind::LinkOffer(Box::new(offer));
            linker.as_deref().map(|linker| linker.handle(own, offer))
        };
        match answer {
            Some(Answer::Now(answer)) => answer,
            Some(Answer::Later(answer)) => answer.await,
            None => wire::response::Kind::Refusal(wire::Refusal {
                code: wire::refusal::Code::Unavailable.into(),
                message: serve::NO_LINKS.to_owned(),
            }),
        }
    }

    /// Reads the core: more than [`Peer::status`] tells, for whoever can wait
    /// for its turn. `see` must be quick, for the core waits meanwhile. `None`:
    /// the peer has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        see: impl FnOnce(&Core, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, seen) = oneshot::channel();
        let look = Box::new(move |core: &Core, now| {
            // Whoever asked may have given up.
            let _ = tell.send(see(core, now));
        });
        let sent = self.inner.inputs.sender.send(Command::Look(look));
        sent.ok()?;
        seen.await.ok()
    }

    /// What this peer knows of itself and the overlay, at most a tenth of a
    /// second old.
    pub fn status(&self) -> Arc<Status> {
        self.inner.status.load_full()
    }

    /// The role, and every change of it.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.subscribe()
    }

    /// The super-nodes that this peer leans on as a leaf, first slot first, and
    /// every change of them; none while it is a super-node itself.
    pub fn homes(&self) -> watch::Receiver<Vec<NodeId>> {
        self.inner.homes.subscribe()
    }

    /// What the network's operator banned, and every change of it.
    pub fn bans(&self) -> watch::Receiver<Arc<Bans>> {
        self.inner.bans.subscribe()
    }

    /// Changes whenever the placement does; read it by [`Calls::placement`].
    pub fn placement_changes(&self) -> watch::Receiver<u64> {
        self.inner.placements.subscribe()
    }

    /// Events from now on. A slow observer misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.inner.events.subscribe()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> PeerStats {
        let inputs = &self.inner.inputs;
        let waiting = inputs.messages.load(Ordering::Relaxed) as u64;
        inputs.counters.read(waiting)
    }

    /// Why joining failed last, if nothing has worked since.
    pub fn join_error(&self) -> Option<(SocketAddr, DialError)> {
        self.inner.join_error.lock().clone()
    }

    /// Where a router lets in what is for the sessions of this peer, so that others
    /// are told; `None`: nowhere any more.
    pub fn set_mapped(&self, addr: Option<SocketAddr>) {
        self.inner.inputs.push(Input::Mapped(addr));
    }

    /// Tells the election how this super-node fares.
    pub fn report_load(&self, load: Load) {
        self.inner.inputs.push(Input::Load(load));
    }

    /// The records of a retiring super-node are handed over.
    pub fn handed_over(&self) {
        self.inner.inputs.push(Input::HandedOver);
    }

    /// Lays down the super-node role.
    pub fn step_down(&self) {
        self.inner.inputs.push(Input::StepDown);
    }

    /// The operator wants this peer to take on nothing new: no leaf, no mandate.
    /// What it has it keeps. `false`: it may again.
    pub fn cordon(&self, on: bool) {
        self.inner.inputs.push(Input::Cordon(on));
    }

    /// Has that many more super-nodes elected now, if this peer runs the next
    /// election.
    pub fn call_election(&self, places: usize) {
        self.inner.inputs.push(Input::CallElection(places));
    }

    /// Sends so many leaves of this super-node to each of these.
    pub fn move_leaves(&self, moves: Vec<(NodeId, usize)>) {
        self.inner.inputs.push(Input::MoveLeaves(moves));
    }

    /// The network's operator decreed something: checked, obeyed and passed on.
    pub fn decree(&self, signed: wire::Signed) {
        self.inner.inputs.push(Input::Decree(signed));
    }

    /// The operator designates this peer, for the first time or anew; checked
    /// like any mandate.
    pub fn designate(&self, mandate: wire::SignedMandate) {
        self.inner.inputs.push(Input::Designated(mandate));
    }

    /// Saves what is worth saving, closes every session, and ends the peer.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inner.inputs.sender.send(Command::Close(done)).is_ok() {
            let _ = closed.await;
        }
        self.inner.fabric.close().await;
    }

    /// Ends the peer without a word to anybody, as a power cut would.
    pub fn abort(&self) {
        self.set_handler(None);
        self.inner.router.store(None);
        let (done, _) = oneshot::channel();
        let _ = self.inner.inputs.sender.send(Command::Close(done));
        self.inner.fabric.abort();
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peer")
            .field(&self.inner.fabric.node_id())
            .finish()
    }
}

impl Inner {
    /// Where a super-node can be reached, as far as this peer knows.
    fn addrs_of(&self, node: NodeId) -> Vec<SocketAddr> {
        let status = self.status.load();
        let found = status.super_nodes.iter().find(|s| s.node == node);
        found.map(|s| s.addrs.clone()).unwrap_or_default()
    }

    /// Why a call has no session. No address is known of one who does not serve: the
    /// last dial that failed may be what made it count as gone.
    fn reason(&self, error: &DialError) -> String {
        if *error != DialError::NoAddress {
            return error.to_string();
        }
        match &*self.join_error.lock() {
            Some((addr, last)) => format!("{error}; the last dial that failed: {addr}: {last}"),
            None => error.to_string(),
        }
    }

    fn now(&self) -> Now {
        now(self.epoch)
    }
}

fn now(epoch: Instant) -> Now {
    let at = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
    Now {
        at: Time(at),
        unix_ms: unix_ms(),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Calls for Peer {
    fn node_id(&self) -> NodeId {
        self.inner.fabric.node_id()
    }

    fn network(&self) -> &str {
        &self.inner.network
    }

    fn placement(&self) -> Placement {
        Placement::clone(&self.inner.placement.load())
    }

    fn now_ms(&self) -> u64 {
        unix_ms()
    }

    fn bans(&self) -> Arc<Bans> {
        self.inner.bans.borrow().clone()
    }

    async fn call(
        &self,
        node: NodeId,
        request: wire::request::Kind,
        deadline: Duration,
    ) -> Result<wire::response::Kind, CallError> {
        let until = Instant::now() + deadline;
        let session = match self.inner.fabric.session(&node) {
            Some(session) => session,
            None => {
                let addrs = self.inner.addrs_of(node);
                let target = Target {
                    id: Some(node),
                    addrs,
                };
                let dial = self.inner.fabric.connect(&target, deadline.min(DIAL)).await;
                dial.map_err(|error| CallError::Unreachable {
                    peer: node,
                    reason: self.inner.reason(&error),
                })?
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        session
            .request(request, left)
            .await
            .map_err(|error| match error {
                RequestError::Deadline => CallError::Deadline(node),
                RequestError::Busy => CallError::Busy(node),
                RequestError::Refused(refusal) => CallError::Refused {
                    peer: node,
                    refusal,
                },
                RequestError::Malformed => CallError::Malformed(node),
                RequestError::Closed(reason) => CallError::Unreachable {
                    peer: node,
                    reason: reason.to_string(),
                },
                error @ RequestError::TooLarge { .. } => CallError::Unreachable {
                    peer: node,
                    reason: error.to_string(),
                },
            })
    }
}
