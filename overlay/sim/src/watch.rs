//! Watching a run: counts for the report, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use canopy_core::keyspace::NodeId;
use canopy_core::node::{Event, Role};
use canopy_proto::wire::Topology;

use crate::draw::Draw;
use crate::loads;
use crate::net::Nat;
use crate::report::Sample;
use crate::world::{Noticed, PeerId, World};

/// Peers looked at closely at each sample.
const LOOKED_AT: usize = 64;
/// Promotions within one settling time, at most: four in flight, for an officer
/// and two stand-ins. Or as many as served before, because an overlay that lacks
/// more than it has doubles; twice as many, where two rounds fall into the time.
const MAX_PROMOTIONS: usize = 12;
const MAX_GROWTH: usize = 3;
/// Violations that are told; a broken invariant breaks at every look.
const MAX_TOLD: usize = 20;
/// More peers are a crowd.
const CROWD: usize = 500;

/// Follows a world.
pub(crate) struct Watch {
    /// Those whom an honest officer found strong enough, or the operator named.
    mandated: BTreeSet<NodeId>,
    pub(crate) violations: Vec<String>,
    broken: BTreeSet<&'static str>,
    promotions: VecDeque<u64>,
    founding: bool,
    roles: BTreeMap<PeerId, Role>,
    pub(crate) role_changes: u64,
    pub(crate) role_losses: u64,
    pub(crate) elections: u64,
    pub(crate) races: u64,
    pub(crate) overrated: u64,
    pub(crate) rated: u64,
    homed_looks: u64,
    looks: u64,
    sent: (u64, u64, u64),
    draw: Draw,
    served: bool,
    /// Faults have begun.
    pub(crate) troubled: bool,
    settle_us: u64,
}

/// Whether no more leaves than the ratio asks for fall to each who serves: those who
/// were killed and came back may be more than are needed, and officers recall one.
fn has_enough(world: &World) -> bool {
    let serving = world.with_role(Role::SuperNode).len();
    let leaves = world.online().count() - serving;
    leaves <= serving * world.config.ratio
}

impl Watch {
    pub(crate) fn new(seed: u64, settle_us: u64) -> Self {
        Self {
            mandated: BTreeSet::new(),
            violations: Vec::new(),
            broken: BTreeSet::new(),
            promotions: VecDeque::new(),
            founding: true,
            roles: BTreeMap::new(),
            role_changes: 0,
            role_losses: 0,
            elections: 0,
            races: 0,
            overrated: 0,
            rated: 0,
            homed_looks: 0,
            looks: 0,
            sent: (0, 0, 0),
            draw: Draw::new(seed, "watch"),
            served: false,
            troubled: false,
            settle_us,
        }
    }

    /// The operator named this peer, or it was elected before.
    pub(crate) fn mandated(&mut self, node: NodeId) {
        self.mandated.insert(node);
    }

    /// Whether this peer was named or elected.
    pub(crate) fn is_mandated(&self, node: &NodeId) -> bool {
        self.mandated.contains(node)
    }

    /// Something did not hold; the same thing is told once.
    pub(crate) fn broke(&mut self, what: &'static str, how: String) {
        if self.broken.insert(what) && self.violations.len() < MAX_TOLD {
            self.violations.push(format!("{what}: {how}"));
        }
    }

    /// Takes in what happened.
    pub(crate) fn take(&mut self, world: &World, noticed: Vec<Noticed>) {
        for Noticed { at, peer, event } in noticed {
            match event {
                Event::Role(role) => self.role(world, at, peer, role),
                Event::ElectionOpened { reason, .. } => {
                    self.elections += 1;
                    self.founding = reason.contains("no super-node");
                }
                Event::Raced {
                    candidate,
                    score_bps,
                    ..
                } => self.raced(world, peer, candidate, score_bps),
                _ => {}
            }
        }
    }

    fn raced(&mut self, world: &World, officer: PeerId, candidate: NodeId, score_bps: u64) {
        self.races += 1;
        if score_bps == 0 {
            return;
        }
        if !world.peer(officer).spec.drops {
            self.mandated.insert(candidate);
        }
        if let Some(id) = world.find(&candidate) {
            self.rated += 1;
            let truth = world.peer(id).spec.up_bps;
            self.overrated += u64::from(score_bps > truth / 3 * 4);
        }
    }

    fn role(&mut self, world: &World, at: u64, id: PeerId, role: Role) {
        let before = self.roles.insert(id, role).unwrap_or(Role::Leaf);
        let peer = world.peer(id);
        let serves = |role| role == Role::SuperNode;
        if serves(before) != serves(role) && self.served {
            self.role_changes += 1;
        }
        let lost = serves(before) && !serves(role) && self.troubled && peer.online();
        if lost && !has_enough(world) {
            self.role_losses += 1;
        }
        if role != Role::SuperNode || serves(before) {
            return;
        }
        // One that comes back with a mandate that still holds is not elected anew.
        if peer.started_at() == at {
            return;
        }
        self.promotions.push_back(at);
        let since = at.saturating_sub(self.settle_us);
        while self.promotions.front().is_some_and(|at| *at < since) {
            self.promotions.pop_front();
        }
        let serve = self.roles.values().filter(|role| serves(**role)).count();
        let before = serve.saturating_sub(self.promotions.len());
        let most = MAX_PROMOTIONS.max(before * MAX_GROWTH);
        if self.promotions.len() > most && !self.founding {
            let how = format!(
                "{} peers were promoted within {} s",
                self.promotions.len(),
                self.settle_us / 1_000_000
            );
            self.broke("role changes in flight are bounded", how);
        }
    }

    /// Looks at the whole.
    pub(crate) fn sample(&mut self, world: &World) -> Sample {
        let mut sample = Sample {
            at_s: world.seconds(),
            sessions: world.backlog().1 as u64,
            ..Sample::default()
        };
        let mut sent = (0, 0);
        for peer in world.peers().iter().filter(|peer| peer.online()) {
            sample.online += 1;
            match peer.role {
                Role::SuperNode => {
                    sample.super_nodes += 1;
                    sent.1 += peer.sent;
                    continue;
                }
                Role::Deputy => sample.deputies += 1,
                _ => {}
            }
            sample.leaves += 1;
            sample.homed += u64::from(peer.homes > 0);
            sent.0 += peer.sent;
        }
        let (leaf, upper, at) = self.sent;
        let seconds = (world.clock() - at) as f64 / 1e6;
        let rate = |now: u64, then: u64, peers: u64| {
            now.saturating_sub(then) as f64 / seconds.max(0.001) / peers.max(1) as f64
        };
        sample.leaf_sends = rate(sent.0, leaf, sample.leaves);
        sample.super_node_sends = rate(sent.1, upper, sample.super_nodes);
        self.sent = (sent.0, sent.1, world.clock());
        loads::utilisation(world, &mut sample);
        if self.served {
            self.looks += sample.leaves;
            self.homed_looks += sample.homed;
        }
        self.look_closely(world);
        sample
    }

    /// Everybody is served for the first time.
    pub(crate) fn served(&mut self) {
        self.served = true;
    }

    /// Of a thousand looks at a leaf, how many found it with a home.
    pub(crate) fn homed_milli(&self) -> u64 {
        (self.homed_looks * 1000)
            .checked_div(self.looks)
            .unwrap_or(1000)
    }

    fn look_closely(&mut self, world: &World) {
        let online: Vec<PeerId> = world.online().collect();
        for id in self.draw.some(&online, LOOKED_AT) {
            let peer = world.peer(id);
            let Some(core) = peer.core() else { continue };
            let unknown = core
                .placement()
                .members()
                .find(|m| !self.mandated.contains(&m.node));
            if let Some(member) = unknown {
                let how = format!(
                    "at {:.1} s peer {id} took {:?} for a super-node, which nobody elected",
                    world.seconds(),
                    member.node
                );
                self.broke("only those with a mandate are super-nodes", how);
            }
            let status = core.status(world.now_of(id));
            let all = status.verdict.items.iter().all(|item| item.pass);
            if status.verdict.eligible != all {
                let how = format!("peer {id}: {:?}", status.verdict);
                self.broke("the verdict is the criteria", how);
            }
            if status.role == Role::Candidate && peer.spec.nat != Nat::Open && !self.troubled {
                let how = format!("peer {id} cannot be dialled");
                self.broke("only those who can be dialled are candidates", how);
            }
            if status.homes.len() > 2 || status.leaves > world.config.max_leaves {
                let how = format!("peer {id}: {} leaves", status.leaves);
                self.broke("homes and leaves are bounded", how);
            }
        }
    }
}

/// Whether everybody is served: enough super-nodes, a home for each leaf, and
/// one opinion on who serves, where a leaf can know them all. In a crowd somebody
/// is always about to come or to move; there it is 999 of 1000 who have homes, and
/// as many super-nodes as the ratio asks for where they are elected.
pub(crate) fn all_served(world: &World, fewest: usize) -> bool {
    let crowd = world.peers().len() > CROWD;
    let (mut serving, mut homeless): (Vec<NodeId>, usize) = (Vec::new(), 0);
    for peer in world.peers().iter().filter(|peer| peer.online()) {
        match peer.role {
            Role::SuperNode => serving.push(peer.node),
            _ if peer.homes == 0 && !crowd => return false,
            _ => homeless += usize::from(peer.homes == 0),
        }
    }
    if serving.len() < fewest.max(1) {
        return false;
    }
    if crowd {
        let leaves = world.online().count() - serving.len();
        let elects = world.config.topology == Topology::Elected;
        let most = world.config.ratio * serving.len() * 12 / 10;
        return homeless * 1000 <= leaves && (!elects || leaves <= most);
    }
    serving.sort_unstable();
    let few = serving.len() <= world.config.cache;
    world
        .peers()
        .iter()
        .filter(|p| few || p.role == Role::SuperNode)
        .filter_map(|peer| peer.core())
        .all(|core| {
            let placement = core.placement();
            placement.len() == serving.len()
                && placement.members().map(|m| &m.node).eq(serving.iter())
        })
}
