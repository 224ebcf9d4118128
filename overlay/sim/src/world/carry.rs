//! Carrying out what cores want, as the driver of a real peer does.

use canopy_core::node::{Event, Input, Output, Role};

use super::measure::Measurement;
use super::{Coming, Noticed, PeerId, World, micros};

/// Voters that a peer lets measure it at most; as the driver.
const MAX_PERMITS: usize = 1024;
/// How long a retiring super-node takes to hand its records over.
const HAND_OVER_US: u64 = 200_000;

impl World {
    /// Carries out what the core wants, and sets its next timeout.
    pub(super) fn settle(&mut self, id: PeerId) {
        loop {
            let Some(core) = &mut self.peers[id as usize].core else {
                return;
            };
            let Some(output) = core.poll() else { break };
            self.carry(id, output);
        }
        let core = self.peers[id as usize].core.as_ref();
        if let Some(next) = core.and_then(|core| core.next_timeout()) {
            self.wake_at(id, next.0);
        }
    }

    /// Sets the next timeout of a peer, unless an earlier one is set.
    pub(super) fn wake_at(&mut self, id: PeerId, next: u64) {
        let clock = self.clock;
        let peer = &mut self.peers[id as usize];
        let at = next.max(clock + 1);
        if at < peer.timeout_at || peer.timeout_at <= clock {
            peer.timeout_at = at;
            self.queue.push(at, Coming::Timeout(id));
        }
    }

    fn carry(&mut self, id: PeerId, output: Output) {
        match output {
            Output::Connect { node, addrs } => {
                let target = self.target(node, &addrs);
                self.connect(id, node, target);
            }
            Output::Send {
                node,
                addrs,
                message,
            } => {
                let known = self.find(&node);
                if let Some(to) = known
                    && self.has_session(id, to)
                {
                    return self.post(id, to, message);
                }
                if addrs.is_empty() {
                    return self.later(1, Coming::Unreachable(id, Box::new(node)));
                }
                let target = self.target(Some(node), &addrs);
                if self.connect(id, Some(node), target)
                    && let Some(to) = target
                {
                    self.post(id, to, message);
                }
            }
            Output::Disconnect { node } => {
                let other = self.find(&node);
                let used = self.data.as_ref().is_some_and(|data| data.waits(id, &node));
                if let Some(other) = other.filter(|_| !used) {
                    let after = self.one_way(id, other);
                    self.break_session(id, other, after);
                }
            }
            Output::DialBack { token, node, addr } => self.dial_back(id, token, node, addr),
            Output::Measure {
                token,
                node,
                addrs,
                share_bps,
                duration,
            } => {
                let candidate = self.target(Some(node), &addrs);
                let lasts = micros(duration);
                self.measure(Measurement {
                    juror: id,
                    token,
                    candidate,
                    share_bps,
                    from: self.clock,
                    lasts,
                });
            }
            Output::Permit { voters, lasts, .. } => {
                let (now, until) = (self.clock, self.clock + micros(lasts));
                let cold = self.peers[id as usize].cold();
                cold.permits.retain(|_, end| *end > now);
                for voter in voters {
                    if cold.permits.len() < MAX_PERMITS {
                        cold.permits.insert(voter, until);
                    }
                }
            }
            Output::Role(role) => self.role(id, role),
            Output::Event(event) => self.event(id, event),
            // Read from the core when they are needed.
            Output::Contact(_) | Output::Save | Output::Bans(_) => {}
            Output::Placement(placement) => {
                if let Some(data) = &self.data {
                    data.placed(id, &placement);
                }
            }
        }
    }

    fn role(&mut self, id: PeerId, role: Role) {
        self.note(10, id, role as u64);
        self.peers[id as usize].role = role;
        if self.data.is_some() {
            self.role_in_data(id, role);
        } else if role == Role::Retiring {
            let input = Box::new(Input::HandedOver);
            self.later(HAND_OVER_US, Coming::Tell(id, input));
        }
        self.noticed.push(Noticed {
            at: self.clock,
            peer: id,
            event: Event::Role(role),
        });
    }

    fn event(&mut self, id: PeerId, event: Event) {
        match event {
            Event::Homes(homes) => self.peers[id as usize].homes = homes.len() as u8,
            // Said with the output; and what every peer of thousands says is
            // counted, not kept.
            Event::Role(_) => {}
            Event::SuperNodeUp { .. } | Event::SuperNodeDown { .. } => self.seen += 1,
            Event::MandateRefused { .. } => self.mandates_refused += 1,
            event => self.noticed.push(Noticed {
                at: self.clock,
                peer: id,
                event,
            }),
        }
    }
}
