//! Membership among super-nodes: a SWIM failure detector (`foca`) with its
//! timers and packets turned into plain data.
//!
//! It says who answers and who does not. Who *may* be a super-node is not its
//! business: the roster decides that, and only holders of a mandate get their
//! packets heard.

use std::collections::BTreeMap;
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

/// A super-node as SWIM knows it. `epoch` is when its contact was signed, which
/// the roster tells everybody; a node that was declared dead signs a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    node: [u8; 32],
    epoch: u64,
}

impl Member {
    fn new(node: NodeId, epoch: u64) -> Self {
        let node = node.0;
        Self { node, epoch }
    }
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
    /// When it passes on what it has heard, if that is anything.
    gossip: Option<(Time, foca::Timer<Member>)>,
    submitted: u64,
}

impl Swim {
    /// A detector that knows nobody yet. `epoch` is when the node's contact was
    /// signed, milliseconds since 1970.
    pub fn new(node: NodeId, epoch: u64, config: foca::Config, seed: u64) -> Self {
        let me = Member::new(node, epoch);
        Self {
            foca: Foca::new(me, config, StdRng::seed_from_u64(seed), PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            gossip: None,
            submitted: 0,
        }
    }

    /// Says hello to `node`, which answers with the members it knows.
    pub fn announce(&mut self, now: Time, node: NodeId) -> Effects {
        // Epoch 0 loses against whatever the other side calls itself.
        let to = Member::new(node, 0);
        // It fails where a packet cannot be written; the next announcement
        // to those believed dead makes up for it.
        let _ = self.foca.announce(to, &mut self.runtime);
        self.drain(now)
    }

    /// Watches `node`, whose contact is of `epoch`, from now on, as if it had been
    /// heard of; the others know it, too, and are told nothing.
    pub fn learn(&mut self, now: Time, node: NodeId, epoch: u64) -> Effects {
        let alive = foca::Member::alive(Member::new(node, epoch));
        self.apply(now, alive)
    }

    /// Takes another's word for it that `node`, if its contact is still that of
    /// `epoch`, is dead.
    pub fn bury(&mut self, now: Time, node: NodeId, epoch: u64) -> Effects {
        let dead = foca::Member::down(Member::new(node, epoch));
        self.apply(now, dead)
    }

    fn apply(&mut self, now: Time, member: foca::Member<Member>) -> Effects {
        let member = std::iter::once(member);
        // It fails where a packet cannot be written, and none is.
        let _ = self.foca.apply_many(member, false, &mut self.runtime);
        self.drain(now)
    }

    /// This node has a new contact, signed at `epoch`.
    pub fn rename(&mut self, now: Time, epoch: u64) -> Effects {
        let own = *self.foca.identity();
        let renamed = Member { epoch, ..own };
        // It fails where nothing changes.
        let _ = self.foca.change_identity(renamed, &mut self.runtime);
        self.watch_on();
        self.drain(now)
    }

    /// Under a new name it watches nobody until something is applied.
    fn watch_on(&mut self) {
        let nothing = std::iter::empty();
        let _ = self.foca.apply_many(nothing, false, &mut self.runtime);
    }

    /// What the others have to know this node by: later than it was told where they
    /// had declared it dead.
    pub fn epoch(&self) -> u64 {
        self.foca.identity().epoch
    }

    /// Takes a packet of another super-node. Malformed ones change nothing.
    pub fn packet(&mut self, now: Time, packet: &[u8]) -> Effects {
        let _ = self.foca.handle_data(packet, &mut self.runtime);
        self.watch_on();
        self.drain(now)
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Time) -> Effects {
        let mut effects = Effects::default();
        while let Some(timer) = self.due(now) {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
            let more = self.drain(now);
            effects.packets.extend(more.packets);
            effects.changes.extend(more.changes);
        }
        effects
    }

    fn due(&mut self, now: Time) -> Option<foca::Timer<Member>> {
        if self.gossips().is_some_and(|at| at <= now) {
            return self.gossip.take().map(|(_, timer)| timer);
        }
        let first = self.timers.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When it passes on what it has heard: most of the time there is nothing.
    fn gossips(&self) -> Option<Time> {
        let gossip = self.gossip.as_ref();
        let at = gossip.map(|(at, _)| *at);
        at.filter(|_| self.foca.updates_backlog() > 0)
    }

    /// When [`Swim::timeout`] is due next.
    pub fn next_timeout(&self) -> Option<Time> {
        let first = self.timers.first_key_value();
        let first = first.map(|((at, _), _)| *at);
        [first, self.gossips()].into_iter().flatten().min()
    }

    /// Tells the others that this node leaves on purpose.
    pub fn leave(&mut self, now: Time) -> Effects {
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.drain(now)
    }

    /// Whether `node` is among the members that answer.
    pub fn is_up(&self, node: &NodeId) -> bool {
        let mut up = self.foca.iter_members();
        up.any(|member| member.id().node == node.0)
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
            if matches!(timer, foca::Timer::PeriodicGossip(_)) {
                self.gossip = Some((now + after, timer));
                continue;
            }
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(m) => {
                    effects.changes.push(Change::Up(NodeId(m.node)));
                }
                OwnedNotification::MemberDown(m) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;

    const NOW: Time = Time(0);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn swim(n: u8, epoch: u64) -> Swim {
        let config = config(&Preset::Local.timings().gossip);
        Swim::new(node(n), epoch, config, u64::from(n))
    }

    /// Hands on packets between the two until there are none; what `two` noticed.
    fn talk(one: &mut Swim, two: &mut Swim, begin: Effects) -> Vec<Change> {
        let (mut to_two, mut noticed) = (begin.packets, Vec::new());
        for _ in 0..10 {
            let mut to_one = Vec::new();
            for (_, packet) in std::mem::take(&mut to_two) {
                let effects = two.packet(NOW, &packet);
                noticed.extend(effects.changes);
                to_one.extend(effects.packets);
            }
            for (_, packet) in to_one {
                to_two.extend(one.packet(NOW, &packet).packets);
            }
        }
        noticed
    }

    #[test]
    fn one_who_was_learned_is_up_and_known_by_its_contact() {
        let (mut one, mut two) = (swim(1, 5), swim(2, 7));
        assert_eq!(one.learn(NOW, node(2), 7).changes, [Change::Up(node(2))]);
        assert_eq!(two.learn(NOW, node(1), 5).changes, [Change::Up(node(1))]);
        // Nothing new, and nothing that contradicts what is known.
        assert_eq!(one.learn(NOW, node(2), 7).changes, []);
        assert_eq!(one.bury(NOW, node(2), 6).changes, []);
        assert!(one.is_up(&node(2)));
        let hello = one.announce(NOW, node(2));
        assert_eq!(talk(&mut one, &mut two, hello), []);
    }

    #[test]
    fn one_who_was_buried_comes_back_under_a_later_epoch() {
        let (mut one, mut two) = (swim(1, 5), swim(2, 7));
        one.learn(NOW, node(2), 7);
        two.learn(NOW, node(1), 5);
        assert_eq!(two.bury(NOW, node(1), 5).changes, [Change::Down(node(1))]);
        let hello = one.announce(NOW, node(2));
        let noticed = talk(&mut one, &mut two, hello);
        assert_eq!((noticed, one.epoch()), (vec![Change::Up(node(1))], 6));
    }

    #[test]
    fn one_with_a_new_contact_stays_up() {
        let (mut one, mut two) = (swim(1, 5), swim(2, 7));
        one.learn(NOW, node(2), 7);
        two.learn(NOW, node(1), 5);
        let told = one.rename(NOW, 9);
        assert_eq!(talk(&mut one, &mut two, told), []);
        assert!(two.is_up(&node(1)));
        // The old one is nobody's any more.
        assert_eq!(two.bury(NOW, node(1), 5).changes, []);
        assert_eq!(two.bury(NOW, node(1), 9).changes, [Change::Down(node(1))]);
    }
}
