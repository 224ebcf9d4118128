//! Membership among super-nodes: a SWIM failure detector (`foca`) with its
//! timers and packets turned into plain data.
//!
//! It says who answers and who does not. Who *may* be a super-node is not its
//! business: the roster decides that, and only holders of a mandate get their
//! packets heard.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Foca, Identity, NoCustomBroadcast, OwnedNotification, PostcardCodec,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::keyspace::NodeId;
use crate::preset::Gossip;
use crate::time::Time;

/// A super-node as SWIM knows it. `epoch` grows when a node that was declared
/// dead comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    node: [u8; 32],
    epoch: u64,
}

impl Identity for Member {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        Some(Self {
            epoch: self.epoch.wrapping_add(1),
            ..*self
        })
    }

    fn addr(&self) -> [u8; 32] {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.epoch > adversary.epoch
    }
}

/// What changed among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node answers.
    Up(NodeId),
    /// The node was declared dead by the others.
    Down(NodeId),
}

/// What a step of the detector wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Packets to send.
    pub packets: Vec<(NodeId, Bytes)>,
    /// Members that came or went.
    pub changes: Vec<Change>,
}

/// The failure detector of one super-node.
pub struct Swim {
    foca: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Member>,
    // By due time, then by a counter that keeps the order of submission.
    timers: BTreeMap<(Time, u64), foca::Timer<Member>>,
    submitted: u64,
    up: BTreeSet<NodeId>,
}

impl Swim {
    /// A detector that knows nobody yet. `epoch` must not be lower than in
    /// earlier runs of this node: the wall clock in milliseconds will do.
    pub fn new(node: NodeId, epoch: u64, config: foca::Config, seed: u64) -> Self {
        let me = Member {
            node: node.0,
            epoch,
        };
        Self {
            foca: Foca::new(me, config, StdRng::seed_from_u64(seed), PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            submitted: 0,
            up: BTreeSet::new(),
        }
    }

    /// Says hello to `node`, which answers with the members it knows.
    pub fn announce(&mut self, now: Time, node: NodeId) -> Effects {
        // Epoch 0 loses against whatever the other side calls itself.
        let to = Member {
            node: node.0,
            epoch: 0,
        };
        // It fails where a packet cannot be written; the next announcement
        // to those believed dead makes up for it.
        let _ = self.foca.announce(to, &mut self.runtime);
        self.drain(now)
    }

    /// Takes a packet of another super-node. Malformed ones change nothing.
    pub fn packet(&mut self, now: Time, packet: &[u8]) -> Effects {
        let _ = self.foca.handle_data(packet, &mut self.runtime);
        self.drain(now)
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Time) -> Effects {
        let mut effects = Effects::default();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
            let more = self.drain(now);
            effects.packets.extend(more.packets);
            effects.changes.extend(more.changes);
        }
        effects
    }

    /// When [`Swim::timeout`] is due next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Tells the others that this node leaves on purpose.
    pub fn leave(&mut self, now: Time) -> Effects {
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.drain(now)
    }

    /// Whether `node` is among the members that answer.
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.up.contains(node)
    }

    /// How many others answer.
    pub fn len(&self) -> usize {
        self.foca.num_members()
    }

    /// Whether nobody else answers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn drain(&mut self, now: Time) -> Effects {
        let mut effects = Effects::default();
        while let Some((to, packet)) = self.runtime.to_send() {
            effects.packets.push((NodeId(to.node), packet));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(m) => {
                    self.up.insert(NodeId(m.node));
                    effects.changes.push(Change::Up(NodeId(m.node)));
                }
                OwnedNotification::MemberDown(m) => {
                    self.up.remove(&NodeId(m.node));
                    effects.changes.push(Change::Down(NodeId(m.node)));
                }
                _ => {}
            }
        }
        effects
    }
}

/// The detector's numbers; see [`crate::preset`] for where they come from.
pub fn config(gossip: &Gossip) -> foca::Config {
    let at_least_one = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let periodic = |frequency, count| foca::PeriodicParams {
        frequency,
        num_members: at_least_one(count),
    };
    foca::Config {
        probe_period: gossip.probe_period,
        probe_rtt: gossip.probe_rtt,
        num_indirect_probes: at_least_one(gossip.indirect_probes),
        suspect_to_down_after: gossip.probe_period * gossip.suspicion_periods,
        // A returning node renews its epoch, so remembering the dead only has
        // to outlast the rumours about them.
        remove_down_after: Some(gossip.forget_dead_after),
        notify_down_members: true,
        periodic_gossip: Some(periodic(gossip.gossip_period, gossip.gossip_fanout)),
        periodic_announce_to_down_members: Some(periodic(gossip.announce_dead_period, 1)),
        ..foca::Config::simple()
    }
}
