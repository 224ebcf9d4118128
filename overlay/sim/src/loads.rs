//! What the overlay cost its peers while users were at work: what each super-node
//! did and what its capacity made due, whose line was how busy, and with what.

use std::collections::{BTreeMap, BTreeSet};

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::node::Role;

use crate::report::Sample;
use crate::world::{PeerId, World};

/// Utilisation at which the bands end, thousandths: below the first the overlay
/// has super-nodes to spare, above the last one is about to shed work.
pub const BANDS_MILLI: [u32; 3] = [250, 600, 900];

/// The work of one super-node, over all the time that users were at work.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Served {
    /// Its number.
    pub peer: PeerId,
    /// What its line carries upwards, bits a second.
    pub up_bps: u64,
    /// Seats, which is capacity, when it last served. A node of the flat table has
    /// one, as all others.
    pub seats: u32,
    /// Requests of users that it answered, those passed on by others too.
    pub operations: u64,
    /// What it would have answered if all work had followed seats.
    pub due: f64,
    /// The highest utilisation that it told its core; 1: all of what is scarcest.
    pub worst: f64,
    /// It serves at the end.
    pub remains: bool,
}

/// Keys for each super-node of which it is counted who would own them: its copies
/// then stray by 2 % by chance.
const KEYS_EACH: usize = 1000;

/// What had been sent and served at a moment.
#[derive(Clone, Debug)]
struct Totals {
    at: u64,
    /// Of each peer: bytes sent, requests served.
    peers: Vec<(u64, u64)>,
    for_users: u64,
    measured: u64,
}

/// Follows the work of all peers while users are at work.
#[derive(Default)]
pub(crate) struct Loads {
    /// When users began, at the last look, and once they rest.
    began: Option<Totals>,
    last: Option<Totals>,
    rest: bool,
    served: BTreeMap<PeerId, Served>,
    /// Those who served at every look so far; none: there was none.
    always: Option<BTreeSet<PeerId>>,
}

impl Loads {
    /// Users begin: what was done before does not count.
    pub(crate) fn begin(&mut self, world: &World) {
        let now = Totals::of(world);
        self.began = Some(now.clone());
        self.last = Some(now);
    }

    /// Users rest: what is done from now on does not count.
    pub(crate) fn end(&mut self, world: &World) {
        self.look(world);
        self.rest = true;
    }

    /// Looks at what each has done since the last look.
    pub(crate) fn look(&mut self, world: &World) {
        let Some(last) = self.last.as_mut().filter(|_| !self.rest) else {
            return;
        };
        let now = Totals::of(world);
        let then = std::mem::replace(last, now.clone());
        let (mut done, mut seats) = (0, 0);
        let mut serving = BTreeSet::new();
        for id in world.with_role(Role::SuperNode) {
            let peer = world.peer(id);
            // A node of the flat table has no core, and as much to do as another.
            let seated = match peer.core() {
                Some(core) => core.placement().get(&peer.node).map(|m| m.seats),
                None => Some(1),
            };
            let Some(seated) = seated else { continue };
            let served = self.served.entry(id).or_default();
            let more = now.served(id) - then.served(id);
            served.peer = id;
            served.up_bps = peer.spec.up_bps;
            served.seats = seated;
            served.operations += more;
            served.worst = served.worst.max(f64::from(peer.load_milli) / 1000.0);
            serving.insert(id);
            done += more;
            seats += u64::from(seated);
        }
        for id in &serving {
            if let Some(served) = self.served.get_mut(id) {
                served.due += done as f64 * f64::from(served.seats) / seats.max(1) as f64;
            }
        }
        self.always = Some(match self.always.take() {
            Some(always) => &always & &serving,
            None => serving,
        });
    }

    /// The most work over what was due, of those who served all the time,
    /// thousandths.
    pub(crate) fn imbalance_milli(&self) -> u64 {
        let always = self.always.iter().flatten();
        let served = always.filter_map(|id| self.served.get(id));
        let per = served.map(|s| s.operations as f64 * 1000.0 / s.due.max(1.0));
        per.fold(0.0, f64::max) as u64
    }

    /// Figures of the time that users were at work, over all peers that there were
    /// when they began, whether they ran or not.
    pub(crate) fn figures(&self, world: &World) -> BTreeMap<String, f64> {
        match (&self.began, &self.last) {
            (Some(began), Some(last)) => began.until(last, world),
            _ => BTreeMap::new(),
        }
    }

    /// Those who served while users were at work, most seats first, then the
    /// widest line.
    pub(crate) fn finish(self, world: &World) -> Vec<Served> {
        let mut all: Vec<Served> = self.served.into_values().collect();
        for served in &mut all {
            let peer = world.peer(served.peer);
            served.remains = peer.online() && peer.role == Role::SuperNode;
        }
        let most = |served: &Served| std::cmp::Reverse((served.seats, served.up_bps));
        all.sort_by_key(|served| (most(served), served.peer));
        all
    }
}

impl Totals {
    /// As of now.
    fn of(world: &World) -> Self {
        let peers = world.peers().iter().map(|peer| (peer.sent, peer.served));
        Self {
            at: world.clock(),
            peers: peers.collect(),
            for_users: world.traffic().for_users,
            measured: world.measured_bytes(),
        }
    }

    /// What a peer had served; one that came later, nothing.
    fn served(&self, id: PeerId) -> u64 {
        self.peers.get(id as usize).map_or(0, |peer| peer.1)
    }

    /// Figures of the time since.
    fn until(&self, now: &Self, world: &World) -> BTreeMap<String, f64> {
        let micros = now.at.saturating_sub(self.at).max(1);
        let grown = self.peers.iter().zip(&now.peers);
        let grown = grown.map(|(then, now)| (now.0 - then.0, now.1 - then.1));
        let grown: Vec<(u64, u64)> = grown.collect();
        let mut by_line: Vec<(u64, PeerId, u64)> = (0..)
            .zip(&grown)
            .map(|(id, (sent, _))| {
                let line = world.peer(id).spec.up_bps.max(1);
                // Millionths.
                let could = u128::from(line) * u128::from(micros);
                let used = u128::from(*sent) * 8_000_000 * 1_000_000 / could.max(1);
                (line, id, u64::try_from(used).unwrap_or(u64::MAX))
            })
            .collect();
        by_line.sort_unstable();
        let weakest = &by_line[..by_line.len().div_ceil(10)];
        let mean = weakest.iter().map(|(.., used)| used).sum::<u64>() / weakest.len().max(1) as u64;
        let most = by_line.iter().map(|(.., used)| *used).max().unwrap_or(0);
        let sent: u64 = grown.iter().map(|(sent, _)| sent).sum();
        let served = grown.iter().map(|(_, served)| *served).max().unwrap_or(0);
        let for_users = now.for_users - self.for_users;
        let each = |bytes: u64| bytes as f64 * 1e6 / micros as f64 / grown.len().max(1) as f64;
        let figures = [
            ("weakest_uplink_use_milli", mean as f64 / 1e3),
            ("busiest_uplink_use_milli", most as f64 / 1e3),
            ("sent_bytes_a_second_a_peer", each(sent)),
            (
                "maintenance_bytes_a_second_a_peer",
                each(sent.saturating_sub(for_users)),
            ),
            (
                "measurement_bytes_a_second_a_peer",
                each(now.measured - self.measured),
            ),
            (
                "busiest_peer_requests_a_second",
                served as f64 * 1e6 / micros as f64,
            ),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Leaves of the super-node that has most of them, over the mean.
pub(crate) fn crowding(world: &World) -> f64 {
    let serving = world.with_role(Role::SuperNode);
    let cores = serving.iter().filter_map(|id| world.peer(*id).core());
    let leaves: Vec<usize> = cores.map(|core| core.hosted()).collect();
    let all: usize = leaves.iter().sum();
    let most = leaves.iter().max().copied().unwrap_or(0);
    (most * leaves.len()) as f64 / all.max(1) as f64
}

/// Copies of very many keys, all alike, that super-nodes would hold: those of the
/// one with most over what its seats make due.
pub(crate) fn copies_over_due(world: &World) -> f64 {
    let serving = world.with_role(Role::SuperNode);
    let mut cores = serving.iter().filter_map(|id| world.peer(*id).core());
    let Some(placement) = cores.next().map(|core| core.placement()) else {
        return 0.0;
    };
    let keys = (placement.len() * KEYS_EACH) as u64;
    let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
    for number in 0..keys {
        let key = Key::hash("sim copies", &[&number.to_le_bytes()]);
        for owner in placement.owner_set(&key).iter() {
            *held.entry(*owner).or_default() += 1;
        }
    }
    let copies: u32 = held.values().sum();
    let seat = f64::from(copies) / placement.total_seats().max(1) as f64;
    let members = placement.members();
    let over = members.map(|member| {
        let held = held.get(&member.node).copied().unwrap_or(0);
        f64::from(held) / (seat * f64::from(member.seats))
    });
    over.fold(0.0, f64::max)
}

/// How busy those who serve are now, into `sample`.
pub(crate) fn utilisation(world: &World, sample: &mut Sample) {
    let serving = world.with_role(Role::SuperNode);
    let loads = serving.iter().map(|id| world.peer(*id).load_milli);
    let (mut sum, mut worst) = (0, 0);
    for load in loads {
        sum += u64::from(load);
        worst = worst.max(load);
        let band = BANDS_MILLI.iter().filter(|end| load >= **end).count();
        sample.utilisation_bands[band] += 1;
    }
    sample.utilisation_mean = sum as f64 / 1000.0 / serving.len().max(1) as f64;
    sample.utilisation_worst = f64::from(worst) / 1000.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetConfig;
    use crate::scenario::{Scenario, Topology};
    use crate::world::WorldConfig;

    #[test]
    fn the_weakest_tenth_is_that_of_the_thinnest_lines() {
        let scenario = Scenario::find("steady").expect("a built-in scenario");
        let mut world = World::new(
            WorldConfig {
                net: NetConfig::default(),
                timing: scenario.timing(),
                topology: Topology::Flat.into(),
                ratio: 40,
                cache: 200,
                max_leaves: 100,
                floor_bps: 0,
                bootstraps: 1,
                operator: None,
                peers: 20,
                flat: true,
                value_bytes: 8,
            },
            1,
        );
        for id in 0..20u64 {
            let up_bps = match id {
                7 | 9 => 8_000,
                _ => 8_000_000,
            };
            world.add(|spec| spec.up_bps = up_bps);
        }
        let before = Totals {
            at: 5_000_000,
            peers: vec![(1_000, 10); 20],
            for_users: 100,
            measured: 0,
        };
        // In ten seconds, peer 7 fills a half of its line, 9 a tenth, 3 a fifth.
        let mut after = Totals {
            at: 15_000_000,
            for_users: 1_001_100,
            measured: 4_000,
            ..before.clone()
        };
        after.peers[7] = (6_000, 10);
        after.peers[9] = (2_000, 10);
        after.peers[3] = (2_001_000, 60);
        let figures = before.until(&after, &world);
        assert_eq!(figures["weakest_uplink_use_milli"], 300.0);
        assert_eq!(figures["busiest_uplink_use_milli"], 500.0);
        assert_eq!(figures["busiest_peer_requests_a_second"], 5.0);
        assert_eq!(figures["sent_bytes_a_second_a_peer"], 10_030.0);
        assert_eq!(figures["maintenance_bytes_a_second_a_peer"], 5_025.0);
        assert_eq!(figures["measurement_bytes_a_second_a_peer"], 20.0);
    }
}
