//! What each super-node did, and what its capacity says that it should have done.

use std::collections::BTreeMap;

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
    /// Seats, which is capacity, when it last served.
    pub seats: u32,
    /// Index operations that it did.
    pub operations: u64,
    /// What it would have done if all work had followed seats.
    pub due: f64,
    /// The highest utilisation that it told its core; 1: all of what is scarcest.
    pub worst: f64,
    /// It serves at the end.
    pub remains: bool,
}

/// Follows the work of all super-nodes.
#[derive(Default)]
pub(crate) struct Loads {
    served: BTreeMap<PeerId, Served>,
    /// What the index of each had done at the last look.
    counted: BTreeMap<PeerId, u64>,
    /// Users are at work.
    active: bool,
}

impl Loads {
    /// Users begin: what was done before does not count.
    pub(crate) fn begin(&mut self, world: &World) {
        self.active = true;
        self.look(world);
        self.served.clear();
    }

    /// Users rest: what is done from now on does not count.
    pub(crate) fn end(&mut self, world: &World) {
        self.look(world);
        self.active = false;
    }

    /// Looks at what each has done since the last look.
    pub(crate) fn look(&mut self, world: &World) {
        let Some(data) = world.data().filter(|_| self.active) else {
            return;
        };
        let mut now = BTreeMap::new();
        let (mut done, mut seats) = (0, 0);
        for id in world.with_role(Role::SuperNode) {
            let peer = world.peer(id);
            let member = peer
                .core()
                .and_then(|core| core.placement().get(&peer.node));
            let (Some(member), Some(stats)) = (member, data.index_stats(id)) else {
                continue;
            };
            let count = stats.operations();
            let before = self.counted.get(&id).copied().unwrap_or(0);
            now.insert(id, count);
            let served = self.served.entry(id).or_default();
            // A count that went back began anew.
            let more = count.checked_sub(before).unwrap_or(count);
            served.peer = id;
            served.up_bps = peer.spec.up_bps;
            served.seats = member.seats;
            served.operations += more;
            served.worst = served.worst.max(f64::from(peer.load_milli) / 1000.0);
            done += more;
            seats += u64::from(member.seats);
        }
        for id in now.keys() {
            if let Some(served) = self.served.get_mut(id) {
                served.due += done as f64 * f64::from(served.seats) / seats.max(1) as f64;
            }
        }
        self.counted = now;
    }

    /// Those who served while users were at work, most seats first.
    pub(crate) fn finish(self, world: &World) -> Vec<Served> {
        let mut all: Vec<Served> = self.served.into_values().collect();
        for served in &mut all {
            let peer = world.peer(served.peer);
            served.remains = peer.online() && peer.role == Role::SuperNode;
        }
        all.sort_by_key(|served| (std::cmp::Reverse(served.seats), served.peer));
        all
    }
}

/// How busy those who serve are now, into `sample`.
pub(crate) fn utilisation(world: &World, sample: &mut Sample) {
    if world.data().is_none() {
        return;
    }
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
