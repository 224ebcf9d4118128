//! The modelled world: production cores, one for each peer, in virtual time.
//!
//! The world carries out what cores want (sessions, messages, measurements) over
//! the modelled network, in the order of its queue and of nothing else. All
//! that happens goes into the digest.

mod carry;
mod dial;
mod faults;
mod flat;
mod garbage;
mod measure;
mod past;
mod peer;
mod post;
mod requests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::node::{Config, Core, Event, Input, Role};
use canopy_core::preset::Timings;
use canopy_core::time::{Now, Time};
use canopy_proto::wire::{CoreMessage, SignedMandate, Topology, request, response};

use crate::data::Data;
use crate::digest::Digest;
use crate::draw::Draw;
use crate::net::{NetConfig, Sessions};
use crate::queue::Queue;
use crate::users::Done;
use flat::Packet;
pub(crate) use measure::Cast;
use measure::Measurement;
use peer::Addresses;

pub use peer::{Peer, PeerId, Spec};
pub use post::Traffic;

/// Wall clock at the start of every run, milliseconds since 1970.
pub const START_MS: u64 = 1_800_000_000_000;

/// The overlay's name in every run.
pub const NETWORK: &str = "sim";

/// What all peers of a world share.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The network between them.
    pub net: NetConfig,
    /// Every timing.
    pub timing: Timings,
    /// Who serves.
    pub topology: Topology,
    /// Leaves a super-node.
    pub ratio: usize,
    /// Super-nodes that a leaf remembers.
    pub cache: usize,
    /// Leaves that one super-node takes.
    pub max_leaves: usize,
    /// What a super-node must carry at least, bits a second.
    pub floor_bps: u64,
    /// Peers that everybody is told of.
    pub bootstraps: u32,
    /// The network's operator key, where it has one.
    pub operator: Option<NodeId>,
    /// Peers there will be about: how many prefixes there are follows from it.
    pub peers: u32,
    /// Peers run nodes of a flat table, to compare with, in place of cores.
    pub flat: bool,
    /// How long users' values are there, bytes.
    pub value_bytes: u64,
}

/// Something that will happen.
enum Coming {
    Start(PeerId),
    Timeout(PeerId),
    Up {
        peer: PeerId,
        other: PeerId,
        inbound: bool,
        number: u32,
    },
    Down {
        peer: PeerId,
        other: PeerId,
        number: u32,
    },
    Unreachable(PeerId, Box<NodeId>),
    Deliver {
        from: PeerId,
        to: PeerId,
        number: u32,
        message: Box<CoreMessage>,
    },
    DialedBack {
        peer: PeerId,
        token: u64,
        reached: bool,
    },
    MeasureEnd(Box<Measurement>),
    Tell(PeerId, Box<Input>),
    Asked {
        call: u64,
        from: PeerId,
        to: PeerId,
        number: u32,
        request: Box<request::Kind>,
    },
    Serve {
        call: u64,
        from: PeerId,
        to: PeerId,
        request: Box<request::Kind>,
    },
    Answered {
        call: u64,
        from: PeerId,
        to: PeerId,
        number: u32,
        response: Box<response::Kind>,
    },
    Cancelled {
        call: u64,
        from: PeerId,
        to: PeerId,
        number: u32,
    },
    CallFailed(u64),
    HandOver(PeerId),
    Report(PeerId),
    Packet(Box<Packet>),
    Query(Box<Packet>),
}

/// What happened that somebody who watches the world may want to know.
#[derive(Clone, Debug)]
pub struct Noticed {
    /// When, microseconds since the start.
    pub at: u64,
    /// Whose core said so.
    pub peer: PeerId,
    /// What it said.
    pub event: Event,
}

/// The modelled world.
pub struct World {
    pub(crate) config: WorldConfig,
    seed: u64,
    clock: u64,
    queue: Queue<Coming>,
    peers: Vec<Peer>,
    by_node: crate::net::SpreadMap<NodeId, PeerId>,
    by_ip: crate::net::SpreadMap<u32, PeerId>,
    addresses: Addresses,
    sessions: Sessions,
    /// Choices of the network.
    draw: Draw,
    /// Choices in making peers.
    births: Draw,
    split: faults::Split,
    digest: Digest,
    events: u64,
    traffic: Traffic,
    noticed: Vec<Noticed>,
    /// What jurors measured.
    casts: Vec<Cast>,
    /// Handshakes refused because too many were under way.
    refused: u64,
    designations: crate::net::SpreadMap<PeerId, SignedMandate>,
    past: past::Past,
    /// News of super-nodes that cores have taken in.
    seen: u64,
    /// Mandates that cores have refused.
    mandates_refused: u64,
    /// Bytes of timed traffic of elections.
    measured_bytes: u64,
    /// Indexes and clients, where users are modelled.
    data: Option<Data>,
    done: Vec<Done>,
    /// What users of the flat table wait for, and the last number given to it.
    wishes: (u64, BTreeMap<u64, Done>),
}

impl World {
    /// A world without peers.
    pub fn new(config: WorldConfig, seed: u64) -> Self {
        Self {
            addresses: Addresses::new(config.net.prefixes, config.peers),
            draw: Draw::new(seed, "network"),
            births: Draw::new(seed, "peers"),
            config,
            seed,
            clock: 0,
            queue: Queue::default(),
            peers: Vec::new(),
            by_node: Default::default(),
            by_ip: Default::default(),
            sessions: Sessions::default(),
            split: faults::Split::default(),
            digest: Digest::default(),
            events: 0,
            traffic: Traffic::default(),
            noticed: Vec::new(),
            casts: Vec::new(),
            refused: 0,
            designations: Default::default(),
            past: past::Past::default(),
            seen: 0,
            mandates_refused: 0,
            measured_bytes: 0,
            data: None,
            done: Vec::new(),
            wishes: Default::default(),
        }
    }

    /// Makes a peer, offline, and returns its number. `change` may alter what
    /// was drawn for it.
    pub fn add(&mut self, change: impl FnOnce(&mut Spec)) -> PeerId {
        let index = self.peers.len() as PeerId;
        let mut spec = Spec::draw(&self.config, &mut self.births, index);
        change(&mut spec);
        let node = peer::identity(self.seed, index).node_id();
        self.by_node.insert(node, index);
        self.peers.push(Peer::new(node, spec));
        index
    }

    /// Starts a peer at a moment to come, microseconds since the start.
    pub fn start_at(&mut self, id: PeerId, at: u64) {
        self.queue.push(at.max(self.clock), Coming::Start(id));
    }

    /// Starts an offline peer; one that ran before has what it had saved.
    pub fn start(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(id as usize).filter(|peer| !peer.online()) else {
            return;
        };
        if self.config.flat {
            return self.start_flat(id);
        }
        let addr = self.addr_of(id, peer);
        self.by_ip.insert(ip_of(&addr), id);
        let identity = peer::identity(self.seed, id);
        let config = self.core_config(id, addr);
        let seed = self.births.seed();
        let now = self.now_of(id);
        let peer = &mut self.peers[id as usize];
        let before = self.past.saved(id, &peer.node);
        let saved = peer.cold.as_mut().and_then(|cold| cold.saved.take());
        let saved = saved.as_ref().or(before.as_deref());
        let core = Core::new(config, identity, seed, now, saved);
        peer.core = Some(Box::new(core));
        peer.role = Role::Leaf;
        peer.homes = 0;
        peer.load_milli = 0;
        peer.started_at = self.clock;
        self.digest.note(self.clock, 1, u64::from(id), 0);
        self.reopen(id);
        self.settle(id);
    }

    fn core_config(&self, id: PeerId, addr: SocketAddr) -> Config {
        let spec = &self.peers[id as usize].spec;
        let boots = 0..self.config.bootstraps.min(self.peers.len() as u32);
        let peers = boots.filter(|boot| *boot != id);
        let peers = peers.map(|boot| (None, self.addr_of(boot, &self.peers[boot as usize])));
        Config {
            network: NETWORK.into(),
            topology: self.config.topology,
            operator: self.config.operator,
            stand: spec.stand,
            uplink_bps: Some(spec.claim_bps),
            zone: self.peers[id as usize].zone(),
            addrs: vec![addr],
            port: addr.port(),
            peers: peers.collect(),
            timing: self.config.timing,
            max_leaves: self.config.max_leaves,
            ratio: self.config.ratio,
            floor_bps: self.config.floor_bps,
            cache: self.config.cache,
            designation: self.designations.get(&id).cloned(),
        }
    }

    /// Where a peer listens.
    fn addr_of(&self, id: PeerId, peer: &Peer) -> SocketAddr {
        match peer.cold.as_ref().and_then(|cold| cold.crowd) {
            Some(network) => self.addresses.crowded(id, network),
            None => self.addresses.of(id, peer.spec.moves),
        }
    }

    /// Moves an offline peer into the network number `network` of those that
    /// are kept for crowds.
    pub(crate) fn crowd(&mut self, id: PeerId, network: u32) {
        self.peers[id as usize].cold().crowd = Some(network);
    }

    /// The failure domain of a peer: its zone, else its network.
    pub(crate) fn domain_of(&self, id: PeerId) -> u32 {
        let spec = &self.peers[id as usize].spec;
        match spec.zone {
            0 => self.addresses.prefix_of(id, spec.moves),
            zone => zone,
        }
    }

    /// Both clocks of a peer.
    pub(crate) fn now_of(&self, id: PeerId) -> Now {
        let true_ms = START_MS + self.clock / 1000;
        Now {
            at: Time(self.clock),
            unix_ms: true_ms.saturating_add_signed(self.peers[id as usize].spec.clock_ms),
        }
    }

    /// Time since the start, microseconds.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Time since the start, for people.
    pub fn seconds(&self) -> f64 {
        self.clock as f64 / 1e6
    }

    /// All peers, offline ones too.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// One peer.
    pub fn peer(&self, id: PeerId) -> &Peer {
        &self.peers[id as usize]
    }

    /// The peer with this key.
    pub fn find(&self, node: &NodeId) -> Option<PeerId> {
        self.by_node.get(node).copied()
    }

    /// The numbers of those who run.
    pub fn online(&self) -> impl Iterator<Item = PeerId> {
        let numbered = (0..).zip(&self.peers);
        numbered.filter(|(_, p)| p.online()).map(|(id, _)| id)
    }

    /// The numbers of those who run and are `role`.
    pub fn with_role(&self, role: Role) -> Vec<PeerId> {
        let numbered = (0..).zip(&self.peers);
        let those = numbered.filter(|(_, p)| p.online() && p.role == role);
        those.map(|(id, _)| id).collect()
    }

    /// What happened since this was last asked.
    pub fn take_noticed(&mut self) -> Vec<Noticed> {
        std::mem::take(&mut self.noticed)
    }

    /// What jurors measured since this was last asked.
    pub(crate) fn take_casts(&mut self) -> Vec<Cast> {
        std::mem::take(&mut self.casts)
    }

    /// The hash of all that happened so far.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many events happened so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events that wait, and sessions that are open.
    pub fn backlog(&self) -> (usize, usize) {
        (self.queue.len(), self.sessions.len())
    }

    /// What was sent, by kind.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Bytes of timed traffic of elections, which nobody's `sent` contains.
    pub(crate) fn measured_bytes(&self) -> u64 {
        self.measured_bytes
    }

    /// Handshakes that a busy peer refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Mandates that peers refused.
    pub fn mandates_refused(&self) -> u64 {
        self.mandates_refused
    }

    /// Lets everything happen up to `until`, microseconds since the start.
    pub fn run_until(&mut self, until: u64) {
        loop {
            let next = self.queue.next_at().unwrap_or(until).min(until);
            let reached = self.work_until(next).min(until);
            while let Some((at, coming)) = self.queue.pop_until(reached) {
                self.clock = self.clock.max(at);
                self.happen(coming);
            }
            if reached >= until {
                break;
            }
        }
        self.clock = self.clock.max(until);
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(self.clock + micros(time));
    }

    /// Lets time pass until `done` holds, looked at every `step`, or `limit` is
    /// over; true if it held.
    pub fn run_while(
        &mut self,
        limit: Duration,
        step: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> bool {
        let end = self.clock + micros(limit);
        while !done(self) {
            if self.clock >= end {
                return false;
            }
            self.run_until(end.min(self.clock + micros(step)));
        }
        true
    }

    fn later(&mut self, after: u64, coming: Coming) {
        self.queue.push(self.clock + after, coming);
    }

    /// Hands something to a peer's core now.
    pub fn tell(&mut self, id: PeerId, input: Input) {
        let now = self.now_of(id);
        if let Some(core) = &mut self.peers[id as usize].core {
            core.handle(now, input);
            self.settle(id);
        }
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Start(id) => self.start(id),
            Coming::Timeout(id) => {
                let peer = &mut self.peers[id as usize];
                if peer.timeout_at != self.clock || !peer.online() {
                    return;
                }
                peer.timeout_at = u64::MAX;
                self.note(2, id, 0);
                let now = self.now_of(id);
                if let Some(core) = &mut self.peers[id as usize].core {
                    core.timeout(now);
                    self.settle(id);
                } else {
                    self.wake_flat(id);
                }
            }
            Coming::Up {
                peer,
                other,
                inbound,
                number,
            } => self.session_up(peer, other, inbound, number),
            Coming::Down {
                peer,
                other,
                number,
            } => self.session_down(peer, other, number),
            Coming::Unreachable(id, node) => {
                self.note(5, id, 0);
                self.tell(id, Input::Unreachable(*node));
            }
            Coming::Deliver {
                from,
                to,
                number,
                message,
            } => self.deliver(from, to, number, message),
            Coming::DialedBack {
                peer,
                token,
                reached,
            } => {
                self.note(7, peer, u64::from(reached));
                self.tell(peer, Input::DialedBack { token, reached });
            }
            Coming::MeasureEnd(measurement) => self.measure_end(*measurement),
            coming @ Coming::Asked { .. } => self.asked(coming),
            Coming::Serve {
                call,
                from,
                to,
                request,
            } => self.handle(call, from, to, *request),
            Coming::Answered {
                call,
                from,
                to,
                number,
                response,
            } => self.answered(call, (from, to), number, *response),
            Coming::Cancelled {
                call,
                from,
                to,
                number,
            } => self.cancelled(call, from, to, number),
            Coming::CallFailed(call) => self.fail_call(call),
            Coming::HandOver(id) => self.hand_over(id),
            Coming::Report(id) => self.report(id),
            Coming::Packet(packet) => self.packet(packet),
            Coming::Query(packet) => self.open(*packet),
            Coming::Tell(id, input) => {
                self.note(9, id, 0);
                self.tell(id, *input);
            }
        }
    }

    fn note(&mut self, what: u64, who: PeerId, detail: u64) {
        self.events += 1;
        self.digest.note(self.clock, what, u64::from(who), detail);
    }
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

fn ip_of(addr: &SocketAddr) -> u32 {
    match addr.ip() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(_) => 0,
    }
}
