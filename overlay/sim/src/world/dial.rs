//! Opening and losing sessions.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::node::Input;

use super::post::occupy;
use super::{Coming, PeerId, World, ip_of, micros};
use crate::net::{Nat, State};

/// How long the driver tries to open a session, and to dial somebody back.
const DIAL_US: u64 = 5_000_000;
const DIAL_BACK_US: u64 = 3_000_000;
/// Processor time of a handshake on the side that accepts, microseconds.
const HANDSHAKE_US: u64 = 1_000;
/// Bytes of a handshake, each way: two padded datagrams and the hello.
const HANDSHAKE_BYTES: u64 = 3_000;
/// Handshakes under way before more are refused; the fabric's limit.
const MAX_HANDSHAKES: u64 = 512;
/// Sessions of one peer; the fabric's limit.
const MAX_SESSIONS: usize = 60_000;

impl World {
    /// The peer that answers at one of `addrs`; `node`, where it is given.
    pub(super) fn target(&self, node: Option<NodeId>, addrs: &[SocketAddr]) -> Option<PeerId> {
        let mut there = addrs.iter().filter_map(|addr| {
            let id = *self.by_ip.get(&ip_of(addr))?;
            (self.addr_of(id, &self.peers[id as usize]) == *addr).then_some(id)
        });
        match node {
            Some(node) => there.find(|id| self.peers[*id as usize].node == node),
            None => there.next(),
        }
    }

    /// Opens a session, unless there is one. False if that cannot be; then the
    /// core hears of it.
    pub(super) fn connect(
        &mut self,
        dialler: PeerId,
        node: Option<NodeId>,
        target: Option<PeerId>,
    ) -> bool {
        if let Some(target) = target
            && (target == dialler || self.has_session(dialler, target))
        {
            return target != dialler;
        }
        match self.dial(dialler, target) {
            Ok(()) => true,
            Err(after) => {
                if let Some(node) = node {
                    self.later(after, Coming::Unreachable(dialler, Box::new(node)));
                }
                false
            }
        }
    }

    /// Opens a session where there is none. Where that cannot be, says when the
    /// dialler knows it, microseconds from now.
    pub(super) fn dial(&mut self, dialler: PeerId, target: Option<PeerId>) -> Result<(), u64> {
        let target = target.filter(|target| self.can_dial(dialler, *target));
        let target = target.ok_or(DIAL_US)?;
        let there = self.one_way(dialler, target);
        let back = self.one_way(target, dialler);
        let clock = self.clock;
        let peer = &mut self.peers[target as usize];
        let cost = HANDSHAKE_US * u64::from(peer.spec.slow);
        let busy = peer.cpu_free.saturating_sub(clock);
        if busy > MAX_HANDSHAKES * cost || peer.sessions.len() >= MAX_SESSIONS {
            self.refused += 1;
            return Err(there + back);
        }
        let accepted = occupy(&mut peer.cpu_free, clock, cost);
        let asked = self.through_uplink(dialler, HANDSHAKE_BYTES);
        let answered = self.through_uplink(target, HANDSHAKE_BYTES);
        let (Some(asked), Some(answered)) = (asked, answered) else {
            return Err(DIAL_US);
        };
        // Each of the three holds it up.
        let up = accepted + (asked - clock) + (answered - clock) + there + back;
        let number = self.sessions.open(dialler, target, up);
        self.peers[dialler as usize].sessions.insert(target);
        self.peers[target as usize].sessions.insert(dialler);
        for (peer, other, inbound) in [(dialler, target, false), (target, dialler, true)] {
            let coming = Coming::Up {
                peer,
                other,
                inbound,
                number,
            };
            self.queue.push(up, coming);
        }
        Ok(())
    }

    /// Whether `id` believes that it has a session with `other`. One that was
    /// restarted knows nothing of what the other side still takes for open.
    pub(super) fn has_session(&self, id: PeerId, other: PeerId) -> bool {
        let held = self.peers[id as usize].sessions.contains(&other);
        held && self.sessions.get(id, other).is_some()
    }

    /// Whether a packet of `dialler` opens a path to `target`.
    pub(super) fn can_dial(&self, dialler: PeerId, target: PeerId) -> bool {
        let peer = &self.peers[target as usize];
        peer.online() && peer.spec.nat == Nat::Open && !self.is_cut(dialler, target)
    }

    pub(super) fn session_up(&mut self, peer: PeerId, other: PeerId, inbound: bool, number: u32) {
        let Some(session) = self.sessions.get(peer, other) else {
            return;
        };
        if session.number != number || !matches!(session.state, State::Open { .. }) {
            return;
        }
        let (Some(_), Some(core)) = (
            self.peers[peer as usize].core(),
            self.peers[other as usize].core(),
        ) else {
            return;
        };
        let contact = core.contact().clone();
        self.note(3, peer, u64::from(other));
        let clock_offset_ms =
            self.peers[other as usize].spec.clock_ms - self.peers[peer as usize].spec.clock_ms;
        let round_trip = 2 * self.one_way(peer, other);
        let input = Input::SessionUp {
            contact,
            inbound,
            observed: None,
            round_trip: Duration::from_micros(round_trip),
            clock_offset_ms,
        };
        self.tell(peer, input);
    }

    /// `peer` notices that its session is over.
    pub(super) fn session_down(&mut self, peer: PeerId, other: PeerId, number: u32) {
        match self.sessions.get(peer, other) {
            // Another session of the two has taken its place.
            Some(session) if session.number != number => return,
            Some(_) => {
                self.sessions.remove(peer, other);
            }
            None => {}
        }
        self.peers[peer as usize].sessions.remove(&other);
        self.note(4, peer, u64::from(other));
        let node = self.peers[other as usize].node;
        if let Some(data) = &self.data {
            data.lost(peer, &node);
        }
        self.tell(peer, Input::SessionDown(node));
    }

    /// Ends the session of two peers: those of them who run notice after
    /// `after`, and what they send until then is lost.
    pub(super) fn break_session(&mut self, one: PeerId, other: PeerId, after: u64) {
        let Some(session) = self.sessions.get_mut(one, other) else {
            return;
        };
        session.state = State::Dead;
        let number = session.number;
        let mut noticed = false;
        for (peer, other) in [(one, other), (other, one)] {
            if self.peers[peer as usize].online() {
                noticed = true;
                let coming = Coming::Down {
                    peer,
                    other,
                    number,
                };
                self.later(after, coming);
            } else {
                self.peers[peer as usize].sessions.remove(&other);
            }
        }
        if !noticed {
            self.sessions.remove(one, other);
        }
    }

    /// How long a peer takes to notice that another fell silent.
    pub(super) fn silence_us(&mut self) -> u64 {
        // As the host sets it: two keep-alives and five seconds, of which part
        // is over when the other side goes.
        let keep_alive = self.config.timing.home.keep_alive;
        let idle = micros(keep_alive * 2 + Duration::from_secs(5));
        self.draw.between(idle / 2, idle)
    }

    pub(super) fn dial_back(&mut self, id: PeerId, token: u64, node: NodeId, addr: SocketAddr) {
        let target = self.target(Some(node), &[addr]);
        let target = target.filter(|target| self.can_dial(id, *target));
        let after = match target {
            Some(target) => self.one_way(id, target) + self.one_way(target, id) + HANDSHAKE_US,
            None => DIAL_BACK_US,
        };
        let coming = Coming::DialedBack {
            peer: id,
            token,
            reached: target.is_some(),
        };
        self.later(after, coming);
    }
}
