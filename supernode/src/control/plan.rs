//! What a change of the super-nodes would move, and how evenly work would be
//! spread then. Pure functions of a placement and of figures.

use std::collections::BTreeMap;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Placement, R};

use super::balance::{Part, imbalance};

/// Keys whose owners are looked at: the share of each is told to a few per cent.
const SAMPLES: u32 = 4096;

/// A super-node, and what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Carrier {
    /// Bits a second.
    pub(super) capacity_bps: u64,
    /// Thousandths; `None`: it was not reached, and nothing below is known.
    pub(super) utilisation_milli: Option<u32>,
    pub(super) records: f64,
    pub(super) operations: f64,
    pub(super) leaves: f64,
}

/// Carriers by id.
pub(super) type Carriers = BTreeMap<NodeId, Carrier>;

/// Copies of sample keys that go from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    /// `None`: a copy more.
    pub(super) from: Option<NodeId>,
    /// `None`: a copy less.
    pub(super) to: Option<NodeId>,
    pub(super) samples: u32,
}

/// Who owns how much, before and after.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    pub(super) before: BTreeMap<NodeId, u32>,
    pub(super) after: BTreeMap<NodeId, u32>,
    /// The largest first.
    pub(super) shifts: Vec<Shift>,
    /// Copies looked at.
    pub(super) copies: u32,
}

/// Compares the owners of sample keys under two placements.
pub(super) fn shares(before: &Placement, after: &Placement) -> Shares {
    let mut shares = Shares::default();
    let mut shifts: BTreeMap<(Option<NodeId>, Option<NodeId>), u32> = BTreeMap::new();
    for sample in 0..SAMPLES {
        let key = Key::hash("plan sample", &[&sample.to_le_bytes()]);
        let (old, new) = (before.owners(&key, R), after.owners(&key, R));
        shares.copies += old.len() as u32;
        old.iter()
            .for_each(|node| *shares.before.entry(*node).or_default() += 1);
        new.iter()
            .for_each(|node| *shares.after.entry(*node).or_default() += 1);
        let mut left = old.iter().filter(|node| !new.contains(node)).copied();
        let mut came = new.iter().filter(|node| !old.contains(node)).copied();
        loop {
            let pair = (left.next(), came.next());
            if pair == (None, None) {
                break;
            }
            *shifts.entry(pair).or_default() += 1;
        }
    }
    let shifts = shifts.into_iter();
    shares.shifts = shifts
        .map(|((from, to), samples)| Shift { from, to, samples })
        .collect();
    shares
        .shifts
        .sort_by_key(|shift| (std::cmp::Reverse(shift.samples), shift.from, shift.to));
    shares
}

/// What of all that `of` carries goes with so many samples.
pub(super) fn part(shares: &Shares, of: &NodeId, samples: u32, all: f64) -> f64 {
    let owned = shares.before.get(of).copied().unwrap_or(0);
    match owned {
        0 => 0.0,
        owned => all * f64::from(samples) / f64::from(owned),
    }
}

/// What everybody would carry. Work goes with the shards; leaves go as
/// `moves` say.
pub(super) fn after(
    before: &Carriers,
    capacities: &BTreeMap<NodeId, u64>,
    shares: &Shares,
    moves: &[LeafShift],
) -> Carriers {
    let known = |node: &NodeId| {
        before
            .get(node)
            .is_some_and(|c| c.utilisation_milli.is_some())
    };
    // Utilisation times capacity: what moves with a shard.
    let mut work: BTreeMap<NodeId, f64> = before
        .iter()
        .map(|(node, c)| {
            let milli = f64::from(c.utilisation_milli.unwrap_or(0));
            (*node, milli * c.capacity_bps.max(1) as f64)
        })
        .collect();
    let mut out: Carriers = capacities
        .iter()
        .map(|(node, capacity_bps)| {
            let carrier = before.get(node).copied().unwrap_or_default();
            let capacity_bps = *capacity_bps;
            (
                *node,
                Carrier {
                    capacity_bps,
                    ..carrier
                },
            )
        })
        .collect();
    for shift in &shares.shifts {
        let Some(from) = shift.from.filter(known) else {
            continue;
        };
        let Some(source) = before.get(&from) else {
            continue;
        };
        let share = |all: f64| part(shares, &from, shift.samples, all);
        let milli = f64::from(source.utilisation_milli.unwrap_or(0));
        let carried = share(milli * source.capacity_bps.max(1) as f64);
        let mut add = |node: Option<NodeId>, sign: f64| {
            let Some(node) = node else { return };
            *work.entry(node).or_default() += sign * carried;
            if let Some(carrier) = out.get_mut(&node) {
                carrier.records += sign * share(source.records);
                carrier.operations += sign * share(source.operations);
            }
        };
        add(Some(from), -1.0);
        add(shift.to, 1.0);
    }
    for shift in moves {
        for (node, sign) in [(shift.from, -1.0), (shift.to, 1.0)] {
            if let Some(carrier) = out.get_mut(&node) {
                carrier.leaves += sign * f64::from(shift.leaves);
            }
        }
    }
    for (node, carrier) in &mut out {
        let new = !before.contains_key(node);
        if new || carrier.utilisation_milli.is_some() {
            let work = work.get(node).copied().unwrap_or(0.0).max(0.0);
            let milli = work / carrier.capacity_bps.max(1) as f64;
            carrier.utilisation_milli = Some(milli.round() as u32);
        }
    }
    out
}

/// Leaves that go from one super-node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafShift {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) leaves: u32,
}

/// The fewest moves after which each of `capacities` has the leaves that its
/// capacity is due; all leaves of whoever is not among them move.
pub(super) fn level(before: &Carriers, capacities: &BTreeMap<NodeId, u64>) -> Vec<LeafShift> {
    let known = |node: &NodeId| {
        let carrier = before.get(node);
        carrier.is_none_or(|c| c.utilisation_milli.is_some())
    };
    // Of who was not reached nothing is known: it keeps what it has.
    let weights: BTreeMap<NodeId, u128> = capacities
        .iter()
        .filter(|(node, _)| known(node))
        .map(|(node, capacity)| (*node, u128::from((*capacity).max(1))))
        .collect();
    let reached = before.iter().filter(|(node, _)| known(node));
    let held: BTreeMap<NodeId, u64> = reached
        .map(|(node, c)| (*node, c.leaves.max(0.0) as u64))
        .collect();
    let total: u64 = held.values().sum();
    let weight: u128 = weights.values().sum();
    if weight == 0 {
        return Vec::new();
    }
    // Rounded by running sums, so that nothing is lost.
    let (mut seen, mut given) = (0_u128, 0_u64);
    let mut due: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (node, own) in &weights {
        seen += own;
        let so_far = u64::try_from(u128::from(total) * seen / weight).unwrap_or(total);
        due.insert(*node, so_far - given);
        given = so_far;
    }
    let of = |map: &BTreeMap<NodeId, u64>, node: &NodeId| map.get(node).copied().unwrap_or(0);
    let mut over: Vec<(u64, NodeId)> = held
        .iter()
        .map(|(node, leaves)| (leaves.saturating_sub(of(&due, node)), *node))
        .filter(|(surplus, _)| *surplus > 0)
        .collect();
    let mut under: Vec<(u64, NodeId)> = due
        .iter()
        .map(|(node, leaves)| (leaves.saturating_sub(of(&held, node)), *node))
        .filter(|(lack, _)| *lack > 0)
        .collect();
    over.sort_by_key(|(count, node)| (std::cmp::Reverse(*count), *node));
    under.sort_by_key(|(count, node)| (std::cmp::Reverse(*count), *node));
    let mut moves = Vec::new();
    let mut takers = under.into_iter();
    let mut taker = takers.next();
    for (mut surplus, from) in over {
        while surplus > 0
            && let Some((lack, to)) = &mut taker
        {
            let leaves = surplus.min(*lack);
            moves.push(LeafShift {
                from,
                to: *to,
                leaves: u32::try_from(leaves).unwrap_or(u32::MAX),
            });
            surplus -= leaves;
            *lack -= leaves;
            if *lack == 0 {
                taker = takers.next();
            }
        }
    }
    moves
}

/// How even something is among carriers; `keys` counts samples.
pub(super) fn evenness(
    carriers: &Carriers,
    of: impl Fn(&NodeId, &Carrier) -> f64,
) -> Option<super::balance::Imbalance> {
    let known = carriers
        .iter()
        .filter(|(_, c)| c.utilisation_milli.is_some());
    let parts: Vec<Part> = known
        .map(|(node, carrier)| Part {
            capacity_bps: carrier.capacity_bps,
            load: of(node, carrier).max(0.0),
        })
        .collect();
    imbalance(&parts)
}

#[cfg(test)]
mod tests {
    use canopy_core::election::mandate::seats_for;
    use canopy_core::placement::Member;
    use proptest::prelude::*;

    use super::*;

    fn node(i: u8) -> NodeId {
        NodeId([i; 32])
    }

    fn member(i: u8, capacity_bps: u64) -> Member {
        Member {
            node: node(i),
            seats: seats_for(capacity_bps),
            domain: format!("d{i}").into(),
        }
    }

    fn world(capacities: &[u64]) -> (Placement, Carriers) {
        let numbered = || (1_u8..).zip(capacities);
        let placement = numbered().fold(Placement::empty(), |placement, (i, capacity)| {
            placement.with(member(i, *capacity))
        });
        let carriers = numbered().map(|(i, capacity)| {
            let carrier = Carrier {
                capacity_bps: *capacity,
                utilisation_milli: Some(400),
                records: *capacity as f64 / 1e3,
                operations: *capacity as f64 / 1e4,
                leaves: 40.0,
            };
            (node(i), carrier)
        });
        (placement, carriers.collect())
    }

    fn capacities(of: &Carriers) -> BTreeMap<NodeId, u64> {
        of.iter().map(|(node, c)| (*node, c.capacity_bps)).collect()
    }

    fn records(of: &Carriers) -> f64 {
        of.values().map(|c| c.records).sum()
    }

    #[test]
    fn what_one_leaves_behind_the_others_carry() {
        let (before, carriers) = world(&[40_000_000; 6]);
        let placement = before.without(&node(1));
        let shares = shares(&before, &placement);
        assert_eq!(shares.copies, SAMPLES * 3);
        assert!(shares.shifts.iter().all(|s| s.from == Some(node(1))));
        let mut left = capacities(&carriers);
        left.remove(&node(1));
        let moves = level(&carriers, &left);
        let out = after(&carriers, &left, &shares, &moves);
        assert_eq!(out.len(), 5);
        assert!((records(&out) - records(&carriers)).abs() < 1.0);
        let leaves: f64 = out.values().map(|c| c.leaves).sum();
        assert_eq!(leaves, 240.0);
        let mean: u32 = out
            .values()
            .filter_map(|c| c.utilisation_milli)
            .sum::<u32>()
            / 5;
        assert!((470..490).contains(&mean), "{mean}: a fifth more than 400");
    }

    #[test]
    fn a_newcomer_takes_what_its_capacity_is_due() {
        let (before, carriers) = world(&[40_000_000; 5]);
        let placement = before.with(member(9, 40_000_000));
        let shares = shares(&before, &placement);
        assert!(shares.shifts.iter().all(|s| s.to == Some(node(9))));
        let mut all = capacities(&carriers);
        all.insert(node(9), 40_000_000);
        let out = after(&carriers, &all, &shares, &level(&carriers, &all));
        let own = out[&node(9)];
        let due = records(&carriers) / 6.0;
        assert!(
            (own.records / due - 1.0).abs() < 0.2,
            "{} of {due}",
            own.records
        );
        assert!((280..390).contains(&own.utilisation_milli.unwrap()));
        assert!((33.0..=34.0).contains(&own.leaves));
        let even = evenness(&out, |_, c| c.records).unwrap();
        assert!(even.max_over_mean < 1.25, "{even:?}");
    }

    #[test]
    fn who_was_not_reached_keeps_its_leaves() {
        let (_, mut carriers) = world(&[40_000_000; 3]);
        carriers.insert(
            node(3),
            Carrier {
                capacity_bps: 40_000_000,
                ..Carrier::default()
            },
        );
        carriers.get_mut(&node(1)).unwrap().leaves = 60.0;
        let moves = level(&carriers, &capacities(&carriers));
        let expected = LeafShift {
            from: node(1),
            to: node(2),
            leaves: 10,
        };
        assert_eq!(moves, [expected]);
    }

    proptest! {
        #[test]
        fn after_levelling_each_has_what_it_is_due(
            all in prop::collection::vec((1u64..1_000, 0u32..500), 1..30),
        ) {
            let carriers: Carriers = (1_u8..).zip(&all).map(|(i, (capacity, leaves))| {
                let carrier = Carrier {
                    capacity_bps: *capacity,
                    utilisation_milli: Some(0),
                    leaves: f64::from(*leaves),
                    ..Carrier::default()
                };
                (node(i), carrier)
            }).collect();
            let capacities = capacities(&carriers);
            let moves = level(&carriers, &capacities);
            let out = after(&carriers, &capacities, &Shares::default(), &moves);
            let total: f64 = carriers.values().map(|c| c.leaves).sum();
            let weight: u64 = capacities.values().sum();
            for carrier in out.values() {
                let due = total * carrier.capacity_bps as f64 / weight as f64;
                prop_assert!((carrier.leaves - due).abs() <= 1.0);
            }
            // Nobody both gives and takes.
            for one in &moves {
                prop_assert!(moves.iter().all(|other| other.to != one.from));
            }
            prop_assert!(moves.len() < carriers.len().max(1));
        }
    }
}
