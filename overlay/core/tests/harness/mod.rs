//! Many cores in one process, in virtual time, over a modelled network: sessions
//! open and break, messages take time and are lost with their session, uplinks
//! are shared by whoever measures at the same moment.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use canopy_core::contact::Contact;
use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::node::{Config, Core, Event, Input, Measured, Output, Role, Saved, Stand};
use canopy_core::preset::Preset;
use canopy_core::time::{Now, Time};
use canopy_proto::wire::core_message::Kind;
use canopy_proto::wire::{CoreMessage, SignedMandate, Topology};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const START_MS: u64 = 1_800_000_000_000;

/// Something that will happen.
enum Coming {
    Input(NodeId, Input),
    HandOver(NodeId),
    Timeout(NodeId),
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Box<CoreMessage>,
    },
    MeasureEnd {
        juror: NodeId,
        token: u64,
        candidate: NodeId,
        share_bps: u64,
        from: u64,
    },
}

/// How a peer is made; kept so that it can be restarted.
#[derive(Clone)]
pub struct Plan {
    pub index: u8,
    pub uplink_bps: u64,
    pub topology: Topology,
    pub stand: Stand,
    pub operator: Option<NodeId>,
    pub designation: Option<SignedMandate>,
    pub ratio: usize,
    pub peers: Vec<u8>,
    /// What it really carries, where that is not what it claims.
    pub true_bps: Option<u64>,
}

impl Plan {
    pub fn new(index: u8, uplink_bps: u64, peers: &[u8]) -> Self {
        Self {
            index,
            uplink_bps,
            topology: Topology::Elected,
            stand: Stand::Auto,
            operator: None,
            designation: None,
            ratio: 40,
            peers: peers.to_vec(),
            true_bps: None,
        }
    }

    pub fn identity(&self) -> Identity {
        identity(self.index)
    }
}

pub fn identity(index: u8) -> Identity {
    Identity::from_secret([index; 32])
}

pub fn id(index: u8) -> NodeId {
    identity(index).node_id()
}

pub fn addr(index: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(index)))
}

struct Peer {
    core: Core,
    plan: Plan,
    contact: Contact,
    permits: BTreeMap<NodeId, u64>,
    timeout_at: Option<u64>,
}

/// The modelled world.
pub struct World {
    now_us: u64,
    peers: BTreeMap<NodeId, Peer>,
    plans: BTreeMap<NodeId, Plan>,
    saved: BTreeMap<NodeId, Saved>,
    sessions: BTreeSet<(NodeId, NodeId)>,
    queue: BTreeMap<(u64, u64), Coming>,
    sequence: u64,
    rng: SmallRng,
    /// Measurements under way: candidate, from, until (microseconds).
    measuring: Vec<(NodeId, u64, u64)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    pub events: Vec<(u64, NodeId, Event)>,
    /// Messages sent, of those that a test counts.
    pub sent: BTreeMap<&'static str, u64>,
    /// How often each peer's timers fired.
    pub wakings: BTreeMap<NodeId, u64>,
    pub preset: Preset,
    /// Messages in a hundred that are lost, and that arrive twice.
    pub loss_percent: u8,
    pub twice_percent: u8,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now_us: 0,
            peers: BTreeMap::new(),
            plans: BTreeMap::new(),
            saved: BTreeMap::new(),
            sessions: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: SmallRng::seed_from_u64(seed),
            measuring: Vec::new(),
            cut: BTreeSet::new(),
            events: Vec::new(),
            sent: BTreeMap::new(),
            wakings: BTreeMap::new(),
            preset: Preset::Local,
            loss_percent: 0,
            twice_percent: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now {
            at: Time(self.now_us),
            unix_ms: START_MS + self.now_us / 1000,
        }
    }

    pub fn seconds(&self) -> f64 {
        self.now_us as f64 / 1e6
    }

    /// Starts a peer; one that ran before comes back with what it had saved.
    pub fn start(&mut self, plan: Plan) -> NodeId {
        let identity = plan.identity();
        let node = identity.node_id();
        let config = Config {
            network: "test".into(),
            topology: plan.topology,
            operator: plan.operator,
            stand: plan.stand,
            uplink_bps: Some(plan.uplink_bps),
            zone: String::new(),
            addrs: vec![addr(plan.index)],
            port: addr(plan.index).port(),
            peers: plan.peers.iter().map(|peer| (None, addr(*peer))).collect(),
            timing: self.preset.timings(),
            max_leaves: 1000,
            ratio: plan.ratio,
            floor_bps: 1_000_000,
            cache: 200,
            designation: plan.designation.clone(),
        };
        let seed = self.rng.random();
        let core = Core::new(
            config,
            identity.clone(),
            seed,
            self.now(),
            self.saved.get(&node),
        );
        let contact = Contact::sign(&identity, &[addr(plan.index)], "", START_MS);
        self.plans.insert(node, plan.clone());
        let peer = Peer {
            core,
            plan,
            contact,
            permits: BTreeMap::new(),
            timeout_at: None,
        };
        self.peers.insert(node, peer);
        self.settle(node);
        node
    }

    pub fn restart(&mut self, node: NodeId) {
        if let Some(plan) = self.plans.get(&node).cloned() {
            self.start(plan);
        }
    }

    /// Ends a peer without a word. Others notice that their session is dead
    /// after a while.
    pub fn kill(&mut self, node: NodeId) {
        self.peers.remove(&node);
        let broken: Vec<NodeId> = self
            .sessions
            .iter()
            .filter(|(a, b)| *a == node || *b == node)
            .map(|(a, b)| if *a == node { *b } else { *a })
            .collect();
        self.sessions.retain(|(a, b)| *a != node && *b != node);
        for other in broken {
            self.later(
                Duration::from_millis(1500),
                Coming::Input(other, Input::SessionDown(node)),
            );
        }
    }

    /// No word passes between the two groups any more, until `heal`.
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) {
        for a in one {
            for b in other {
                self.cut.insert((*a, *b));
                self.cut.insert((*b, *a));
                if self.sessions.remove(&pair(*a, *b)) {
                    let wait = Duration::from_millis(1500);
                    self.later(wait, Coming::Input(*a, Input::SessionDown(*b)));
                    self.later(wait, Coming::Input(*b, Input::SessionDown(*a)));
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn tell(&mut self, node: NodeId, input: Input) {
        let now = self.now();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.core.handle(now, input);
            self.settle(node);
        }
    }

    /// Brings two peers into contact.
    pub fn introduce(&mut self, one: NodeId, other: NodeId) {
        self.open(one, other);
    }

    pub fn core(&self, node: NodeId) -> &Core {
        &self.peers[&node].core
    }

    pub fn alive(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    pub fn with_role(&self, role: Role) -> Vec<NodeId> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.core.role() == role)
            .map(|(node, _)| *node)
            .collect()
    }

    /// Whether every peer knows exactly `nodes` as super-nodes.
    pub fn all_know(&self, nodes: &[NodeId]) -> bool {
        self.peers.values().all(|peer| {
            let known: Vec<NodeId> = peer.core.placement().members().map(|m| m.node).collect();
            known == nodes
        })
    }

    /// Runs until `done` or for `limit` of virtual time; true if it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now_us + limit.as_micros() as u64;
        let mut checked = 0;
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > end {
                break;
            }
            let coming = entry.remove();
            self.now_us = at;
            self.happen(coming);
            if self.now_us - checked > 10_000 {
                checked = self.now_us;
                if done(self) {
                    return true;
                }
            }
        }
        self.now_us = end;
        done(self)
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn later(&mut self, after: Duration, coming: Coming) {
        self.sequence += 1;
        self.queue.insert(
            (self.now_us + after.as_micros() as u64, self.sequence),
            coming,
        );
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(300..1500))
    }

    fn happen(&mut self, coming: Coming) {
        let now = self.now();
        match coming {
            Coming::Input(node, input) => self.tell(node, input),
            // Somebody has to be there who takes what it holds.
            Coming::HandOver(node) => match self.peers.get(&node) {
                Some(peer) if peer.core.placement().is_empty() => {
                    self.later(Duration::from_secs(1), Coming::HandOver(node));
                }
                Some(_) => self.tell(node, Input::HandedOver),
                None => {}
            },
            Coming::Timeout(node) => {
                let Some(peer) = self.peers.get_mut(&node) else {
                    return;
                };
                if peer.timeout_at != Some(self.now_us) {
                    return;
                }
                peer.timeout_at = None;
                *self.wakings.entry(node).or_default() += 1;
                peer.core.timeout(now);
                self.settle(node);
            }
            Coming::Deliver { from, to, message } => {
                if self.sessions.contains(&pair(from, to)) {
                    self.tell(to, Input::Message { from, message });
                }
            }
            Coming::MeasureEnd {
                juror,
                token,
                candidate,
                share_bps,
                from,
            } => {
                let until = self.now_us;
                let together = self
                    .measuring
                    .iter()
                    .filter(|(c, start, end)| *c == candidate && *start < until && *end > from)
                    .count()
                    .max(1) as u64;
                let result = self.peers.get(&candidate).and_then(|peer| {
                    let permitted = peer.permits.get(&juror).is_some_and(|end| *end >= from);
                    let line = peer.plan.true_bps.unwrap_or(peer.plan.uplink_bps);
                    let own = self.peers.get(&juror)?.plan.uplink_bps;
                    permitted.then_some(Measured {
                        up_bps: share_bps.min(line / together),
                        down_bps: share_bps.min(own),
                        round_trip: Duration::from_millis(1),
                        loss_ppm: 0,
                    })
                });
                self.measuring
                    .retain(|(_, _, end)| *end + 1_000_000 > until);
                self.tell(juror, Input::Measured { token, result });
            }
        }
    }

    /// Carries out what the core wants, and sets its next timeout.
    fn settle(&mut self, node: NodeId) {
        loop {
            let Some(output) = self.peers.get_mut(&node).and_then(|peer| peer.core.poll()) else {
                break;
            };
            self.carry_out(node, output);
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if let Some(at) = peer.core.next_timeout() {
            let at = at.0.max(self.now_us + 1);
            if peer
                .timeout_at
                .is_none_or(|set| at < set || set <= self.now_us)
            {
                peer.timeout_at = Some(at);
                self.later(
                    Duration::from_micros(at - self.now_us),
                    Coming::Timeout(node),
                );
            }
        }
    }

    fn carry_out(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Connect { node: who, addrs } => {
                if let Some(target) = self.find(who, &addrs) {
                    self.open(node, target);
                }
            }
            Output::Send {
                node: to,
                addrs,
                message,
            } => {
                if !self.sessions.contains(&pair(node, to)) {
                    match self.find(Some(to), &addrs) {
                        Some(target) if !self.cut.contains(&(node, target)) => {
                            self.open(node, target)
                        }
                        _ => {
                            let input = Input::Unreachable(to);
                            return self
                                .later(Duration::from_millis(500), Coming::Input(node, input));
                        }
                    }
                }
                self.post(node, to, message);
            }
            Output::DialBack {
                token,
                node: who,
                addr,
            } => {
                let reached = self
                    .find(Some(who), &[addr])
                    .is_some_and(|t| !self.cut.contains(&(node, t)));
                self.later(
                    Duration::from_millis(3),
                    Coming::Input(node, Input::DialedBack { token, reached }),
                );
            }
            Output::Measure {
                token,
                node: candidate,
                share_bps,
                duration,
                ..
            } => {
                let from = self.now_us;
                self.measuring
                    .push((candidate, from, from + duration.as_micros() as u64));
                self.later(
                    duration,
                    Coming::MeasureEnd {
                        juror: node,
                        token,
                        candidate,
                        share_bps,
                        from,
                    },
                );
            }
            Output::Disconnect { node: other } => {
                if self.sessions.remove(&pair(node, other)) {
                    let wait = Duration::from_millis(3);
                    self.later(wait, Coming::Input(node, Input::SessionDown(other)));
                    self.later(wait, Coming::Input(other, Input::SessionDown(node)));
                }
            }
            Output::Permit { voters, lasts, .. } => {
                let until = self.now_us + lasts.as_micros() as u64;
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.permits
                        .extend(voters.into_iter().map(|voter| (voter, until)));
                }
            }
            Output::Contact(contact) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.contact = contact;
                }
            }
            Output::Role(Role::Retiring) => {
                self.later(Duration::from_millis(200), Coming::HandOver(node));
            }
            Output::Event(event) => self.events.push((self.now_us, node, event)),
            Output::Save => {
                if let Some(peer) = self.peers.get(&node) {
                    self.saved.insert(node, peer.core.save());
                }
            }
            Output::Placement(_) | Output::Role(_) | Output::Bans(_) => {}
        }
    }

    /// Once, twice or never, and in any order.
    fn post(&mut self, from: NodeId, to: NodeId, message: Box<CoreMessage>) {
        let counted = match &message.kind {
            Some(Kind::RosterDigest(_)) => "roster_digest",
            Some(Kind::Decrees(_)) => "decrees",
            Some(Kind::DecreeKeys(_)) => "decree_keys",
            Some(Kind::DialBackAsk(_)) => "dial_back_ask",
            _ => "other",
        };
        *self.sent.entry(counted).or_default() += 1;
        let faulty = self.loss_percent + self.twice_percent > 0;
        let lot = if faulty {
            self.rng.random_range(0..100)
        } else {
            100
        };
        let copies = match lot {
            lot if lot < self.loss_percent => 0,
            lot if lot < self.loss_percent + self.twice_percent => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let after = self.latency() * 2;
            let message = message.clone();
            self.later(after, Coming::Deliver { from, to, message });
        }
    }

    fn find(&self, who: Option<NodeId>, addrs: &[SocketAddr]) -> Option<NodeId> {
        let at = |node: &NodeId| {
            self.peers
                .get(node)
                .is_some_and(|peer| addrs.contains(&addr(peer.plan.index)))
        };
        match who {
            Some(node) => at(&node).then_some(node),
            None => self.peers.keys().copied().find(at),
        }
    }

    fn open(&mut self, dialler: NodeId, other: NodeId) {
        if dialler == other
            || self.cut.contains(&(dialler, other))
            || !self.sessions.insert(pair(dialler, other))
        {
            return;
        }
        let after = self.latency() * 2;
        for (node, peer, inbound) in [(dialler, other, false), (other, dialler, true)] {
            let contact = self.peers[&peer].contact.clone();
            let input = Input::SessionUp {
                contact,
                inbound,
                observed: None,
                round_trip: Duration::from_millis(2),
                clock_offset_ms: 0,
            };
            self.later(after, Coming::Input(node, input));
        }
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// A designation of `node` by the operator.
pub fn designate(
    world: &World,
    operator: &Identity,
    node: NodeId,
    capacity_bps: u64,
) -> SignedMandate {
    let now_ms = world.now().unix_ms;
    Mandate {
        network: "test".into(),
        term: 1,
        candidate: node,
        basis: Basis::Designated,
        capacity_bps,
        issued_ms: now_ms,
        expires_ms: now_ms + 24 * 3600 * 1000,
        beacon: Key::default(),
        ballots: Vec::new(),
        officer: operator.node_id(),
        assembly: Vec::new(),
        domain: String::new(),
        deputy: false,
    }
    .designate(operator)
}
