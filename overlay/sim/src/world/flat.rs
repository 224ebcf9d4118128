//! Nodes of the flat table to compare with, in the same network: their packets
//! wait for the same lines and processors.

use canopy_core::keyspace::keys;
use canopy_core::node::Role;

use super::post::{PACKET, occupy};
use super::requests::{REPORT_EVERY_US, REQUEST_US};
use super::{Coming, PeerId, World};
use crate::flat::{Contact, Ended, Message, Node, Output, Wish};
use crate::net::Nat;
use crate::users::Done;

/// What UDP and IP add to a packet.
const UDP_OVERHEAD: u64 = 28;
/// Queries waiting for the processor before more are dropped, microseconds of
/// its time.
const MAX_BUSY_US: u64 = 2_000_000;

/// A packet on its way.
pub(super) struct Packet {
    from: PeerId,
    to: PeerId,
    message: Message,
}

impl World {
    fn contact_of(&self, id: PeerId) -> Contact {
        let key = keys::seat(&self.peers[id as usize].node, 0);
        Contact { peer: id, key }
    }

    /// Starts an offline peer as a node.
    pub(super) fn start_flat(&mut self, id: PeerId) {
        let seed = self.births.seed();
        let me = self.contact_of(id);
        let boots = 0..self.config.bootstraps.min(self.peers.len() as u32);
        let boots = boots.filter(|boot| *boot != id);
        let boots = boots.map(|boot| self.contact_of(boot)).collect();
        let clock = self.clock;
        let peer = &mut self.peers[id as usize];
        let server = peer.spec.nat == Nat::Open;
        let kept = peer.cold.as_mut().and_then(|cold| cold.flat.take());
        let mut node = kept.unwrap_or_else(|| Box::new(Node::new(me, server, seed)));
        node.start(clock, boots);
        peer.flat = Some(node);
        peer.role = Role::Leaf;
        peer.homes = 0;
        peer.load_milli = 0;
        peer.started_at = clock;
        self.note(1, id, 0);
        self.wake_flat(id);
    }

    /// Ends a node. It says nothing to anybody, whichever way it goes.
    pub(super) fn kill_flat(&mut self, id: PeerId) {
        let peer = &mut self.peers[id as usize];
        let Some(mut node) = peer.flat.take() else {
            return;
        };
        let wishes = node.stop();
        peer.cold().flat = Some(node);
        peer.timeout_at = u64::MAX;
        peer.homes = 0;
        self.note(11, id, 0);
        for wish in wishes {
            self.wish_ended(wish, None, true);
        }
    }

    /// Lets a node do what is due.
    pub(super) fn wake_flat(&mut self, id: PeerId) {
        let clock = self.clock;
        if let Some(node) = &mut self.peers[id as usize].flat {
            node.timeout(clock);
        }
        self.settle_flat(id);
    }

    /// Carries out what a node wants, and sets its next timeout.
    fn settle_flat(&mut self, id: PeerId) {
        while let Some(output) = self.node(id).and_then(Node::poll) {
            match output {
                Output::Send(to, message) => self.send_packet(id, to, message),
                Output::Joined => {
                    let peer = &mut self.peers[id as usize];
                    peer.homes = 1;
                    if peer.flat.as_ref().is_some_and(|node| node.is_server()) {
                        peer.role = Role::SuperNode;
                        peer.reported = (peer.sent, peer.served);
                        self.later(REPORT_EVERY_US, Coming::Report(id));
                    }
                    self.note(10, id, 0);
                }
                Output::Ended(wish, ended, prompt) => self.wish_ended(wish, Some(ended), prompt),
            }
        }
        let next = self.node(id).and_then(|node| node.next_timeout());
        if let Some(next) = next {
            self.wake_at(id, next);
        }
    }

    fn node(&mut self, id: PeerId) -> Option<&mut Node> {
        self.peers[id as usize].flat.as_deref_mut()
    }

    fn send_packet(&mut self, from: PeerId, to: PeerId, message: Message) {
        let size = message.size(self.config.value_bytes);
        let bytes = size + UDP_OVERHEAD * size.div_ceil(PACKET);
        self.traffic.count(message.kind(), bytes, message.for_user);
        let Some(departs) = self.through_uplink(from, bytes) else {
            self.traffic.overflowed += 1;
            return;
        };
        // Nobody sends a lost packet again: the asker's timeout deals with it.
        let loss = self.loss(from, to) + self.config.net.drop_ppm;
        if self.draw.chance(loss) {
            return;
        }
        let arrives = departs + self.one_way(from, to);
        let at = self.through_downlink(to, arrives, bytes);
        let packet = Box::new(Packet { from, to, message });
        self.queue.push(at, Coming::Packet(packet));
    }

    /// A packet is there. A query waits for the processor; an answer comes through
    /// the path that its query opened.
    pub(super) fn packet(&mut self, packet: Box<Packet>) {
        let (from, to) = (packet.from, packet.to);
        let cut = self.is_cut(from, to);
        let clock = self.clock;
        let peer = &mut self.peers[to as usize];
        if cut || !peer.online() {
            return;
        }
        if !packet.message.is_query() {
            return self.open(*packet);
        }
        if peer.spec.nat != Nat::Open || peer.spec.drops || peer.cpu_free > clock + MAX_BUSY_US {
            return;
        }
        let takes = REQUEST_US * u64::from(peer.spec.slow);
        let at = occupy(&mut peer.cpu_free, clock, takes);
        self.queue.push(at, Coming::Query(packet));
    }

    /// A node takes a packet in.
    pub(super) fn open(&mut self, packet: Packet) {
        let Packet { from, to, message } = packet;
        self.note(
            21,
            to,
            u64::from(from) << 16 | message.size(self.config.value_bytes),
        );
        let clock = self.clock;
        let peer = &mut self.peers[to as usize];
        peer.served += u64::from(message.is_query() && message.for_user);
        if let Some(node) = &mut peer.flat {
            node.handle(clock, message);
            self.settle_flat(to);
        }
    }

    /// Begins what a user wants of its node; `done` is told to users when it ends.
    pub(crate) fn wish_flat(&mut self, id: PeerId, wish: Wish, done: Done) {
        self.wishes.0 += 1;
        let number = self.wishes.0;
        self.wishes.1.insert(number, done);
        self.note(16, id, number);
        let clock = self.clock;
        match self.node(id) {
            Some(node) => {
                node.begin(clock, number, wish);
                self.settle_flat(id);
            }
            None => self.wish_ended(number, None, true),
        }
    }

    fn wish_ended(&mut self, wish: u64, ended: Option<Ended>, prompt: bool) {
        self.note(19, 0, wish);
        if let Some(done) = self.wishes.1.remove(&wish) {
            self.done.push(done.ended(ended, prompt, self.clock));
        }
    }
}
