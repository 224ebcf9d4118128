//! Taking the super-node role up and laying it down, as the election decides.
//!
//! The store is opened when the role comes, or at the start if an earlier run
//! left records behind: whoever holds records without owning them hands them
//! over, and gives none up before their owners have confirmed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use canopy_core::node::{Load, Role};
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_overlay::peer::{Handler, Peer};
use canopy_proto::wire::{request, response};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::heat::{Top, TopicName};
use crate::index::{Index, Limits};
use crate::load::{self, Counters, Meter, Rates};
use crate::metrics::Requests;
use crate::relay::{self, Relay, RelayService, RelayStats};
use crate::routing::{Carried, RoutingStats};
use crate::service::{HandOver, IndexService, IndexStats, ServiceConfig};
use crate::store::{Counted, Store, StoreError};

/// How a peer serves once it is elected.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// Where the records are kept; `None`: in memory, for tests and trials.
    pub store: Option<PathBuf>,
    /// What the index holds at most.
    pub limits: Limits,
    /// Deadlines, hedging, repair.
    pub service: ServiceConfig,
    /// Sessions that count as full use.
    pub sessions: usize,
    /// Operations a second that count as full use.
    pub operations_per_s: u64,
    /// Whether the processor time of the whole process is this peer's: it is
    /// the only peer in it.
    pub process_cpu: bool,
    /// How often the load is told to the election.
    pub report_every: Duration,
    /// Pause before an incomplete hand-over is tried again.
    pub retry: Duration,
    /// What requests are counted by.
    pub requests: Requests,
    /// What the store's writes are counted by.
    pub counted: Counted,
    /// What the peer carries for others is counted by.
    pub carried: Carried,
    /// What the relay takes on; `total_bps` follows the line.
    pub relay: relay::Limits,
}

impl Default for RoleConfig {
    fn default() -> Self {
        Self {
            store: None,
            limits: Limits::default(),
            service: ServiceConfig::default(),
            sessions: 50_000,
            // One core does a good 30 000 index operations a second.
            operations_per_s: 20_000,
            process_cpu: false,
            report_every: Duration::from_secs(1),
            retry: Duration::from_secs(2),
            requests: Requests::default(),
            counted: Counted::default(),
            carried: Carried::default(),
            relay: relay::Limits::default(),
        }
    }
}

/// The role of one peer, attended to in the background until it is dropped.
#[derive(Debug)]
pub struct SuperNodeRole {
    stop: watch::Sender<bool>,
    service: watch::Receiver<Option<IndexService<Peer>>>,
    failure: watch::Receiver<Option<StoreError>>,
    load: watch::Receiver<Load>,
    peer: Peer,
    config: RoleConfig,
    past: Arc<Mutex<IndexStats>>,
    rates: watch::Receiver<Rates>,
    progress: watch::Receiver<HandOver>,
    relay: watch::Receiver<Option<RelayService>>,
    relayed: Arc<relay::Counts>,
}

impl SuperNodeRole {
    /// Opens what an earlier run left, if anything, and follows the peer's role
    /// from now on.
    ///
    /// # Errors
    /// The store exists and cannot be opened.
    pub fn attend(peer: Peer, config: RoleConfig) -> Result<Self, StoreError> {
        let left = config.store.as_deref().is_some_and(Path::exists);
        let first = if left {
            Some(open(&peer, &config)?)
        } else {
            None
        };
        let (stop, stopped) = watch::channel(false);
        let (services, service) = watch::channel(first);
        let (failures, failure) = watch::channel(None);
        let (loads, load) = watch::channel(Load::default());
        let past = Arc::default();
        let (told_rates, rates) = watch::channel(Rates::default());
        let (told_progress, progress) = watch::channel(HandOver::default());
        let (relays, relay) = watch::channel(None);
        let relayed = Arc::new(relay::Counts::default());
        let attendant = Attendant {
            meter: Meter::new(Instant::now(), Counters::read(&peer, 0, 0, &config)),
            peer: peer.clone(),
            config: config.clone(),
            services,
            failures,
            loads,
            past: Arc::clone(&past),
            rates: told_rates,
            progress: told_progress,
            relays,
            relayed: Arc::clone(&relayed),
        };
        tokio::spawn(attendant.run(stopped));
        Ok(Self {
            stop,
            service,
            failure,
            load,
            peer,
            config,
            past,
            rates,
            progress,
            relay,
            relayed,
        })
    }

    /// The relay of this peer; `None` while it has none.
    pub fn relay(&self) -> Option<Relay> {
        let service = self.relay.borrow();
        service
            .as_ref()
            .and_then(|service| service.relay().cloned())
    }

    /// The relay of this peer, with what answers for it, and every change of it.
    #[cfg(feature = "mapping")]
    pub(crate) fn relays(&self) -> watch::Receiver<Option<RelayService>> {
        self.relay.clone()
    }

    /// What every relay of this peer did since the peer started.
    pub fn relayed(&self) -> RelayStats {
        self.relayed.read()
    }

    /// What a relay of this peer takes on, now.
    pub fn relay_limits(&self) -> relay::Limits {
        relay::Limits {
            total_bps: relay_bps(self.limits().bps),
            ..self.config.relay
        }
    }

    /// What the index holds; `None` while this peer has none.
    pub fn index(&self) -> Option<Arc<Index>> {
        let service = self.service.borrow();
        service.as_ref().map(|service| service.index().clone())
    }

    /// What every index of this peer did since the peer started, and what the
    /// one that is there holds.
    pub fn totals(&self) -> IndexStats {
        let past = self.past.lock();
        self.stats().unwrap_or_default().after(&past)
    }

    /// What this peer carried for others since it started.
    pub fn carried(&self) -> RoutingStats {
        self.config.carried.read()
    }

    /// The topics that gave this peer most to do of late, at most `limit`.
    pub fn hot_topics(&self, limit: usize) -> Top<TopicName> {
        self.config.carried.topics(limit)
    }

    /// What an index of this peer holds at most.
    pub fn index_limits(&self) -> &Limits {
        &self.config.limits
    }

    /// What counts as full use, now.
    pub fn limits(&self) -> load::Limits {
        limits(&self.peer, &self.config)
    }

    /// The service of this peer's index; `None` while it has none.
    pub fn service(&self) -> Option<IndexService<Peer>> {
        self.service.borrow().clone()
    }

    /// What the index of this peer did and holds; `None` while it has none.
    pub fn stats(&self) -> Option<IndexStats> {
        self.service.borrow().as_ref().map(IndexService::stats)
    }

    /// How busy this peer is, thousandths of each limit, as the election is
    /// told; changes with each report, while there is an index.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.load.clone()
    }

    /// What this peer did a second between its last two reports of the load.
    pub fn rates(&self) -> Rates {
        *self.rates.borrow()
    }

    /// How far the last hand-over of this peer's records is; changes with each
    /// step.
    pub fn hand_over(&self) -> watch::Receiver<HandOver> {
        self.progress.clone()
    }

    /// Answers a request of this peer to itself, without a session.
    ///
    /// # Errors
    /// The peer is no super-node now, or it refuses.
    pub async fn answer(
        &self,
        own: NodeId,
        request: request::Kind,
    ) -> Result<response::Kind, CallError> {
        let service = self.service.borrow().clone();
        let Some(service) = service else {
            let reason = "this peer is no super-node any more".to_owned();
            return Err(CallError::Unreachable { peer: own, reason });
        };
        if let request::Kind::RelayOpen(ask) = request {
            let relay = self.relay.borrow().clone();
            let answer = relay.map(|relay| relay.open(own, ask));
            return match answer {
                Some(Answer::Now(answer)) => settled(own, answer),
                Some(Answer::Later(answer)) => settled(own, answer.await),
                None => Err(CallError::Unreachable {
                    peer: own,
                    reason: "this peer relays nothing".to_owned(),
                }),
            };
        }
        let began = Instant::now();
        let kind = Requests::kind(&request);
        let answer = service.handle(own, request).await;
        let requests = &self.config.requests;
        requests.answered(kind, &answer, began.elapsed());
        settled(own, answer)
    }

    /// Stops attending to the role and lets go of the store; what is held
    /// stays on disk.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Why the role could not be taken up, or why the store takes no more
    /// writes; changes when that happens.
    pub fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.failure.clone()
    }
}

impl Drop for SuperNodeRole {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer of this peer to itself.
fn settled(own: NodeId, answer: response::Kind) -> Result<response::Kind, CallError> {
    match answer {
        response::Kind::Refusal(refusal) => Err(CallError::Refused { peer: own, refusal }),
        answer => Ok(answer),
    }
}

fn open(peer: &Peer, config: &RoleConfig) -> Result<IndexService<Peer>, StoreError> {
    let index = match &config.store {
        Some(path) => {
            let store = Store::open_counted(path, config.counted.clone())?;
            Index::open(store, config.limits, peer.now_ms())?
        }
        None => Index::in_memory(config.limits),
    };
    Ok(IndexService::start(
        peer.clone(),
        Arc::new(index),
        config.service,
    ))
}

/// Answers for the index, at once where it can, and counts; for the relay too.
struct Front {
    service: IndexService<Peer>,
    requests: Requests,
    relay: RelayService,
}

impl Handler for Front {
    fn handle(&self, from: NodeId, request: request::Kind) -> Answer {
        let request = match request {
            request::Kind::RelayOpen(ask) => return self.relay.open(from, ask),
            request::Kind::LinkOffer(offer) => return self.relay.pass_on(from, *offer),
            request => request,
        };
        let kind = Requests::kind(&request);
        let began = Instant::now();
        if let Some(answer) = self.service.try_now(from, &request) {
            self.requests.answered(kind, &answer, began.elapsed());
            return Answer::Now(answer);
        }
        let (service, requests) = (self.service.clone(), self.requests.clone());
        Answer::later(async move {
            let answer = service.handle(from, request).await;
            requests.answered(kind, &answer, began.elapsed());
            answer
        })
    }
}

struct Attendant {
    peer: Peer,
    config: RoleConfig,
    services: watch::Sender<Option<IndexService<Peer>>>,
    failures: watch::Sender<Option<StoreError>>,
    loads: watch::Sender<Load>,
    rates: watch::Sender<Rates>,
    progress: watch::Sender<HandOver>,
    meter: Meter,
    /// What indexes did that are closed by now.
    past: Arc<Mutex<IndexStats>>,
    relays: watch::Sender<Option<RelayService>>,
    relayed: Arc<relay::Counts>,
}

impl Attendant {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut roles = self.peer.role();
        let mut placements = self.peer.placement_changes();
        let mut bans = self.peer.bans();
        let mut reports = tokio::time::interval(self.config.report_every);
        let mut retries = tokio::time::interval(self.config.retry);
        self.take_role(*roles.borrow_and_update());
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                changed = roles.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let role = *roles.borrow_and_update();
                    self.take_role(role);
                }
                _ = placements.changed() => {
                    if let Some(service) = self.service() {
                        service.placement_changed();
                    }
                }
                Ok(()) = bans.changed() => {
                    if let Some(service) = self.service() {
                        service.bans_changed();
                    }
                }
                _ = reports.tick() => self.report(),
                _ = retries.tick() => self.hand_over(&mut stopped).await,
            }
        }
        self.peer.set_handler(None);
        self.services.send_replace(None);
        self.relays.send_replace(None);
    }

    fn service(&self) -> Option<IndexService<Peer>> {
        self.services.borrow().clone()
    }

    fn take_role(&mut self, role: Role) {
        if role != Role::SuperNode {
            return;
        }
        let service = match self.service() {
            Some(service) => service,
            None => match open(&self.peer, &self.config) {
                Ok(service) => service,
                Err(error) => {
                    tracing::error!(%error, "role.store: stepping down");
                    self.failures.send_replace(Some(error));
                    return self.peer.step_down();
                }
            },
        };
        service.stay();
        service.placement_changed();
        let front = Front {
            service: service.clone(),
            requests: self.config.requests.clone(),
            relay: self.relay_service(),
        };
        self.peer.set_handler(Some(Box::new(front)));
        self.services.send_replace(Some(service));
    }

    /// The relay, opened now if there is none. A super-node without one serves
    /// all the same.
    fn relay_service(&self) -> RelayService {
        if let Some(there) = &*self.relays.borrow() {
            return there.clone();
        }
        let limits = relay::Limits {
            total_bps: relay_bps(limits(&self.peer, &self.config).bps),
            ..self.config.relay
        };
        let bound = self.peer.local_addr().and_then(|addr| {
            // Beside the port of sessions, so that a firewall's rule can name it.
            let port = addr.port().checked_add(1).unwrap_or(0);
            let addr = SocketAddr::new(addr.ip(), port);
            let carried = self.peer.fabric().carried_relay();
            Relay::bind(addr, limits, Arc::clone(&self.relayed), Some(carried))
        });
        let relay = bound.inspect_err(
            |error| tracing::warn!(%error, "role.relay: this super-node relays nothing"),
        );
        let (counts, loads) = (Arc::clone(&self.relayed), self.loads.subscribe());
        let service = RelayService::new(self.peer.clone(), relay.ok(), counts, loads);
        self.relays.send_replace(Some(service.clone()));
        service
    }

    /// Gives away what this peer holds and does not own: while it retires, and
    /// when it is a leaf with a store of an earlier time.
    async fn hand_over(&mut self, stopped: &mut watch::Receiver<bool>) {
        let role = *self.peer.role().borrow();
        let serves = role == Role::SuperNode;
        let (Some(service), false) = (self.service(), serves) else {
            return;
        };
        if self.peer.placement().is_empty() {
            return;
        }
        service.placement_changed();
        let tell = |progress| {
            tracing::debug!(?progress, "role.hand_over");
            self.progress.send_replace(progress);
        };
        let step = tokio::select! {
            step = service.hand_over(tell) => step,
            _ = stopped.changed() => return,
        };
        if !step.is_complete() {
            return tracing::info!(?step, "role.hand_over: not all owners have confirmed yet");
        }
        tracing::info!(?step, "role.handed_over");
        self.peer.handed_over();
        self.peer.set_handler(None);
        self.relays.send_replace(None);
        {
            // One after the other: a reader would see its work twice, or not at all.
            let mut past = self.past.lock();
            self.services.send_replace(None);
            *past = service.stats().after(&past);
        }
    }

    fn report(&mut self) {
        let Some(service) = self.service() else {
            return;
        };
        let failure = service.index().failure();
        self.failures.send_if_modified(|told| {
            let news = failure.is_some() && *told != failure;
            if news {
                *told = failure;
            }
            news
        });
        service.heat().tick(tokio::time::Instant::now());
        let stats = service.stats();
        let operations = stats.operations() + self.config.carried.read().operations();
        let relayed = self.relayed.read().sent;
        let counters = Counters::read(&self.peer, operations, relayed, &self.config);
        let rates = self.meter.tick(Instant::now(), counters);
        let limits = limits(&self.peer, &self.config);
        let service = self.relays.borrow().clone();
        if let Some(relay) = service.as_ref().and_then(RelayService::relay) {
            relay.limit(relay_bps(limits.bps));
            relay.expel(Arc::clone(&self.peer.bans().borrow()));
        }
        let sessions = self.peer.fabric().session_count();
        let load = limits.load(sessions, stats.utilisation_milli, &rates);
        tracing::debug!(?load, "role.load");
        self.loads.send_replace(load);
        self.rates.send_replace(rates);
        self.peer.report_load(load);
    }
}

/// What counts as full use. The line: the limit its user set, else what the
/// peer was elected for; 0: not known.
fn limits(peer: &Peer, config: &RoleConfig) -> load::Limits {
    let uplink = peer.fabric().uplink_bps();
    load::Limits {
        sessions: config.sessions,
        operations_per_s: config.operations_per_s,
        bps: uplink.unwrap_or_else(|| peer.status().capacity_bps),
    }
}

/// What of a line of `bps` is for relaying: the rest answers requests, however
/// much is relayed. A line that is not known has no limit.
fn relay_bps(bps: u64) -> Option<u64> {
    (bps > 0).then(|| bps / 4 * 3)
}

impl Counters {
    fn read(peer: &Peer, operations: u64, relayed: u64, config: &RoleConfig) -> Self {
        let fabric = peer.fabric();
        // What measures a line is no load: elections would call for elections.
        let bytes = fabric.bytes_sent().saturating_sub(fabric.bytes_measuring());
        Self {
            operations,
            bytes: bytes + relayed,
            cpu: config.process_cpu.then(load::process_cpu).flatten(),
        }
    }
}
