//! What looks after one link: it finds direct paths, decides which path is
//! used, and finds a new relay when one is lost.
//!
//! Both sides tell each other where they may be reached; the one that dialled
//! starts the rounds in which both send to all of those addresses at once, so
//! that their NATs let the other in. It alone opens and closes paths; both mark
//! the direct one as available and the relay's as a backup, else QUIC goes on to
//! use both.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use noq::{Connection, PathEvent, PathId, PathStatus, WeakConnectionHandle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::session::canonical;
use super::Inner;
use super::config::{KEEP_ALIVE, PATH_IDLE};
use super::error::LinkError;
use super::flows::{FlowEnd, FlowState, stands_for_flow};
use super::handle::{About, Path, Used};
use super::keeper::Held;

/// Pauses between rounds while there is no direct path; the last one goes on.
const ROUNDS: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
];
/// Pauses between tries to find a new relay.
const RELAYS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(30),
];

/// How long the relay outlives the link.
const FAREWELL: Duration = Duration::from_secs(3);

/// Addresses that are tried because something came from there, a link.
const MAX_STRANGERS: usize = 8;

type Opening = Pin<Box<dyn Future<Output = Result<FlowEnd, LinkError>> + Send>>;

/// Looks after `connection` until it ends.
pub(super) fn start(inner: &Arc<Inner>, connection: &Connection, about: Arc<About>, relay: Held) {
    let tender = Tender {
        inner: Arc::downgrade(inner),
        connection: connection.weak_handle(),
        state: relay.state(),
        relay,
        relay_path: Some(PathId::ZERO),
        next: None,
        about,
        directs: BTreeMap::new(),
        told: BTreeSet::new(),
        rounds: Pause::new(&ROUNDS),
        relays: Pause::new(&RELAYS),
        strangers: 0,
    };
    let (ended, events) = (connection.on_closed(), connection.path_events());
    let updates = connection.nat_traversal_updates();
    tokio::spawn(tender.run(ended, events, updates));
}

/// A growing pause before something is tried again.
struct Pause {
    steps: &'static [Duration],
    tried: usize,
    due: Option<Instant>,
}

impl Pause {
    fn new(steps: &'static [Duration]) -> Self {
        Self {
            steps,
            tried: 0,
            due: None,
        }
    }

    /// From the first pause on.
    fn restart(&mut self) {
        self.tried = 0;
        self.again();
    }

    /// After the next pause.
    fn again(&mut self) {
        let step = self.steps[self.tried.min(self.steps.len() - 1)];
        self.tried += 1;
        // Not in step with the others that lost the same relay.
        let spread = rand::random_range(0.8..1.2);
        self.due = Some(Instant::now() + step.mul_f64(spread));
    }

    fn stop(&mut self) {
        self.due = None;
    }

    async fn wait(due: Option<Instant>) {
        match due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }
}

struct Tender {
    inner: Weak<Inner>,
    connection: WeakConnectionHandle,
    about: Arc<About>,
    /// The flow in use, its path, and what its keeper says.
    relay: Held,
    relay_path: Option<PathId>,
    state: watch::Receiver<FlowState>,
    /// A flow that is to take its place, once its path is open.
    next: Option<Held>,
    directs: BTreeMap<PathId, SocketAddr>,
    /// Addresses of ours that the other side knows.
    told: BTreeSet<SocketAddr>,
    rounds: Pause,
    relays: Pause,
    /// Addresses tried because something came from there.
    strangers: usize,
}

impl Tender {
    async fn run(
        mut self,
        ended: noq::OnClosed,
        mut events: noq::PathEvents,
        mut updates: noq::NatTraversalUpdates,
    ) {
        let mut ended = std::pin::pin!(ended);
        let Some((mut strangers, mut mapped)) = self
            .inner
            .upgrade()
            .map(|i| (i.shared.strangers.subscribe(), i.mapped.subscribe()))
        else {
            return;
        };
        let mut opening: Option<Opening> = None;
        self.tell_addresses();
        loop {
            let (round, relay, busy) = (self.rounds.due, self.relays.due, opening.is_some());
            let opened = async {
                match &mut opening {
                    Some(opening) => opening.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = &mut ended => break,
                event = events.next() => match event {
                    Some(Ok(event)) => self.path_event(event),
                    // Some were missed: look at what there is.
                    Some(Err(_)) => self.look(),
                    None => break,
                },
                Some(_) = updates.next() => {
                    self.look_for_direct();
                }
                Ok(addr) = strangers.recv() => self.stranger(addr),
                Ok(()) = mapped.changed() => self.tell_addresses(),
                changed = self.state.changed() => {
                    if changed.is_ok() {
                        self.relay_changed();
                    }
                }
                () = Pause::wait(round) => self.punch(),
                () = Pause::wait(relay), if !busy => {
                    self.relays.stop();
                    opening = self.find_relay();
                }
                found = opened => {
                    opening = None;
                    self.use_relay(found).await;
                }
            }
        }
        tracing::debug!(peer = ?self.about.peer, "link.ended");
        if let Some(inner) = self.inner.upgrade() {
            inner.ended(self.about.peer);
        }
        // QUIC says once, over its first path, that it closes, and again to each
        // packet that still comes: a flow that is gone would swallow that.
        sleep(FAREWELL).await;
    }

    /// Tells the other side where this one may be reached.
    fn tell_addresses(&mut self) {
        let (Some(inner), Some(connection)) = (self.inner.upgrade(), self.connection.upgrade())
        else {
            return;
        };
        if inner.config.relay_only {
            return;
        }
        let mut addrs = BTreeSet::new();
        addrs.extend(self.state.borrow_and_update().observed);
        addrs.extend(local_address(&inner, self.relay.flow.end.addr));
        addrs.extend(*inner.mapped.borrow());
        for gone in self.told.difference(&addrs) {
            let _ = connection.remove_nat_traversal_address(*gone);
        }
        let mut news = false;
        for addr in addrs.difference(&self.told) {
            match connection.add_nat_traversal_address(*addr) {
                Ok(()) => news = true,
                Err(error) => tracing::debug!(%error, "link.address"),
            }
        }
        self.told = addrs;
        if news {
            self.look_for_direct();
        }
    }

    /// Starts rounds, where this side is to and the other has somewhere to go.
    fn look_for_direct(&mut self) {
        if self.about.dialled && self.directs.is_empty() && !self.told.is_empty() {
            self.rounds.restart();
        }
    }

    /// Has both sides send to each other's addresses.
    fn punch(&mut self) {
        self.rounds.again();
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        match connection.initiate_nat_traversal_round() {
            Ok(probed) => tracing::debug!(peer = ?self.about.peer, ?probed, "link.punch"),
            Err(error) => tracing::debug!(peer = ?self.about.peer, %error, "link.punch"),
        }
    }

    /// Somebody sent directly. Where it is the other leaf, behind a NAT that gave
    /// it another port than it knows of, that port is the way to it.
    fn stranger(&mut self, addr: SocketAddr) {
        if !self.about.dialled || !self.directs.is_empty() || self.strangers >= MAX_STRANGERS {
            return;
        }
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        let known = connection.get_remote_nat_traversal_addresses();
        let known = known.unwrap_or_default();
        let same_host = |known: &SocketAddr| known.ip().to_canonical() == addr.ip();
        if known.iter().any(same_host) && !known.contains(&addr) {
            self.strangers += 1;
            // Whether it opens is told by an event.
            drop(connection.open_path_ensure(addr, PathStatus::Backup));
        }
    }

    fn path_event(&mut self, event: PathEvent) {
        match event {
            PathEvent::Established { id, .. } => self.established(id),
            PathEvent::Abandoned { id, ref reason, .. } => {
                tracing::debug!(peer = ?self.about.peer, ?id, ?reason, "link.path.gone");
                self.gone(id);
            }
            _ => {}
        }
    }

    /// Finds out what changed while events were missed.
    fn look(&mut self) {
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        let gone: Vec<_> = self.directs.keys().copied().collect();
        for id in gone.into_iter().filter(|id| connection.path(*id).is_none()) {
            self.gone(id);
        }
    }

    fn established(&mut self, id: PathId) {
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        let Some(remote) = connection.path(id).and_then(|p| p.remote_address().ok()) else {
            return;
        };
        tracing::debug!(peer = ?self.about.peer, ?id, %remote, "link.path.open");
        if stands_for_flow(&remote) {
            self.relay_established(&connection, id, remote);
        } else {
            let addr = canonical(remote);
            self.directs.insert(id, addr);
            self.rounds.stop();
            if let Some(path) = connection.path(id) {
                let _ = path.set_max_idle_timeout(Some(PATH_IDLE));
                let _ = path.set_keep_alive_interval(Some(KEEP_ALIVE));
            }
            self.keep_best(&connection);
        }
        self.choose(&connection);
    }

    fn relay_established(&mut self, connection: &Connection, id: PathId, remote: SocketAddr) {
        self.relays.stop();
        if remote == self.relay.flow.addr {
            self.relay_path = Some(id);
            return;
        }
        let next = self.next.take().filter(|next| next.flow.addr == remote);
        let next = next.or_else(|| self.inner.upgrade()?.claim_path(&remote, self.about.peer));
        let Some(next) = next else {
            return;
        };
        self.state = next.state();
        self.relay = next;
        let before = self.relay_path.replace(id);
        if let (true, Some(before)) = (self.about.dialled, before)
            && let Some(path) = connection.path(before)
        {
            let _ = path.close();
        }
        self.tell_addresses();
    }

    /// Of several direct paths one stays: the side that dialled says which.
    fn keep_best(&mut self, connection: &Connection) {
        if !self.about.dialled || self.directs.len() < 2 {
            return;
        }
        let speed = |id: &PathId| connection.rtt(*id).unwrap_or(Duration::MAX);
        let best = self.directs.keys().copied().min_by_key(speed);
        for id in self.directs.keys().filter(|id| Some(**id) != best) {
            if let Some(path) = connection.path(*id) {
                let _ = path.close();
            }
        }
        self.directs.retain(|id, _| Some(*id) == best);
    }

    /// Marks the paths, and says which one is used.
    fn choose(&mut self, connection: &Connection) {
        let direct = self.directs.first_key_value().map(|(id, at)| (*id, *at));
        let set = |id: PathId, status| {
            if let Some(path) = connection.path(id) {
                let _ = path.set_status(status);
            }
        };
        if let Some((id, _)) = direct {
            set(id, PathStatus::Available);
        }
        if let Some(id) = self.relay_path {
            let (status, alive) = match direct {
                // No byte goes over the relay any more.
                Some(_) => (PathStatus::Backup, None),
                None => (PathStatus::Available, Some(KEEP_ALIVE)),
            };
            set(id, status);
            if let Some(path) = connection.path(id) {
                let _ = path.set_keep_alive_interval(alive);
            }
        }
        self.relay.set_needed(direct.is_none());
        let relay = self.relay.flow.end.relay;
        let used = match (direct, self.relay_path) {
            (Some((id, addr)), _) => Used {
                path: Path::Direct(addr),
                id,
            },
            (None, id) => Used {
                path: Path::Relayed(relay),
                id: id.unwrap_or(PathId::ZERO),
            },
        };
        self.about.used.send_if_modified(|before| {
            let news = *before != used;
            *before = used;
            news
        });
    }

    fn gone(&mut self, id: PathId) {
        let direct = self.directs.remove(&id).is_some();
        if self.relay_path == Some(id) {
            self.relay_path = None;
            if self.about.dialled {
                self.relays.restart();
            }
        }
        if direct {
            self.look_for_direct();
        }
        if let Some(connection) = self.connection.upgrade() {
            self.choose(&connection);
        }
    }

    /// The keeper of the flow has news.
    fn relay_changed(&mut self) {
        self.tell_addresses();
        if !self.state.borrow_and_update().dead {
            return;
        }
        tracing::debug!(peer = ?self.about.peer, relay = ?self.relay.flow.end.relay, "link.relay.dead");
        if self.about.dialled && self.relays.due.is_none() {
            self.relays.restart();
        }
    }

    fn find_relay(&self) -> Option<Opening> {
        let inner = self.inner.upgrade()?;
        let (peer, avoid) = (self.about.peer, self.relay.flow.end.relay);
        Some(Box::pin(async move {
            inner.signals.open(peer, "", Some(avoid)).await
        }))
    }

    /// Opens a path over a flow that was found.
    async fn use_relay(&mut self, found: Result<FlowEnd, LinkError>) {
        let (Some(inner), Some(connection)) = (self.inner.upgrade(), self.connection.upgrade())
        else {
            return;
        };
        let end = match found {
            Ok(end) => end,
            Err(error) => {
                tracing::debug!(peer = ?self.about.peer, %error, "link.relay.none");
                return self.relays.again();
            }
        };
        let Some(flow) = inner.shared.flows.add(end, self.about.peer) else {
            return self.relays.again();
        };
        let held = Held::bind(Arc::clone(&inner.shared), flow).await;
        let status = match self.directs.is_empty() {
            true => PathStatus::Available,
            false => PathStatus::Backup,
        };
        // Whether it opens is told by an event.
        let path = connection.open_path(held.flow.addr, status).path_id();
        if path.is_some() {
            self.next = Some(held);
        }
        // Until then it is tried again.
        self.relays.again();
        if path.is_some() {
            self.relays.due = self.relays.due.map(|due| due + Duration::from_secs(3));
        }
    }
}

/// Where this peer is in its own network: the address that packets to the relay
/// leave from.
fn local_address(inner: &Inner, relay: SocketAddr) -> Option<SocketAddr> {
    let local = inner.shared.local();
    if !local.ip().is_unspecified() {
        return Some(local);
    }
    let any: SocketAddr = match relay.is_ipv4() {
        true => ([0, 0, 0, 0], 0).into(),
        false => ([0u16; 8], 0).into(),
    };
    // Connecting a UDP socket sends nothing; it only chooses a route.
    let probe = UdpSocket::bind(any).ok()?;
    probe.connect(relay).ok()?;
    let ip = probe.local_addr().ok()?.ip();
    Some(SocketAddr::new(ip, local.port()))
}
