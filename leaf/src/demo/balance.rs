//! How evenly work follows capacity.

use std::collections::BTreeMap;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Placement, R};
use rand::RngExt;
use rand::rngs::StdRng;

/// Keys that the shards are shown with: enough that chance is below 1 %.
pub(super) const KEYS: usize = 100_000;

/// Work and capacity of one super-node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) load: u64,
    pub(super) capacity_bps: u64,
}

/// The most loaded super-node over the whole: its load per capacity, against
/// the sum of loads per sum of capacities. 0 where nothing was done.
pub(super) fn max_over_mean(shares: &[Share]) -> f64 {
    let load: u64 = shares.iter().map(|share| share.load).sum();
    let capacity: u64 = shares.iter().map(|share| share.capacity_bps).sum();
    if load == 0 || capacity == 0 {
        return 0.0;
    }
    let mean = load as f64 / capacity as f64;
    let per = |share: &Share| share.load as f64 / share.capacity_bps.max(1) as f64;
    let max = shares.iter().map(per).fold(0.0, f64::max);
    (max / mean * 1_000.0).round() / 1_000.0
}

/// How many keys each super-node owns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owned {
    /// As the closest owner, who is asked first.
    pub(super) first: u64,
    /// As any of the owners.
    pub(super) any: u64,
}

/// Throws [`KEYS`] random keys at a placement.
pub(super) fn spread(placement: &Placement, random: &mut StdRng) -> BTreeMap<NodeId, Owned> {
    let mut owned: BTreeMap<NodeId, Owned> = placement
        .members()
        .map(|member| (member.node, Owned::default()))
        .collect();
    for _ in 0..KEYS {
        let key = Key(random.random());
        for (place, node) in placement.owners(&key, R).into_iter().enumerate() {
            let count = owned.entry(node).or_default();
            count.any += 1;
            count.first += u64::from(place == 0);
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_weighed_by_capacity() {
        let share = |load, capacity_bps| Share { load, capacity_bps };
        assert_eq!(max_over_mean(&[share(10, 1), share(30, 3)]), 1.0);
        // 20/1 against 40/4.
        assert_eq!(max_over_mean(&[share(20, 1), share(20, 3)]), 2.0);
        assert_eq!(max_over_mean(&[share(0, 1)]), 0.0);
        assert_eq!(max_over_mean(&[]), 0.0);
    }
}
