//! How evenly keys spread, and how few move. Bounds are the project's targets;
//! what is measured lies well inside them.

use std::collections::BTreeMap;

use super::{key, member};
use crate::keyspace::{Key, NodeId};
use crate::placement::{Member, Owners, Placement, R};

const NODES: u64 = 100;
const SEATS: u32 = 256;
const KEYS: u64 = 100_000;

fn equal(nodes: std::ops::Range<u64>) -> Placement {
    nodes.map(|n| member(n, SEATS, "")).collect()
}

fn sample() -> Vec<Key> {
    (0..KEYS).map(key).collect()
}

/// How many of `keys` each node holds, looking at the first `count` owners.
fn loads(placement: &Placement, keys: &[Key], count: usize) -> BTreeMap<NodeId, u64> {
    let mut loads: BTreeMap<_, _> = placement.members().map(|m| (m.node, 0)).collect();
    for key in keys {
        for owner in placement.owner_set(key).iter().take(count) {
            *loads.entry(*owner).or_default() += 1;
        }
    }
    loads
}

/// Each node's load over what its seats entitle it to.
fn weighted(placement: &Placement, keys: &[Key], count: usize) -> Vec<(Member, f64)> {
    let seats: u32 = placement.members().map(|m| m.seats).sum();
    let loads = loads(placement, keys, count);
    let share = |m: &Member| f64::from(m.seats) / f64::from(seats) * (keys.len() * count) as f64;
    placement
        .members()
        .map(|m| (m.clone(), loads[&m.node] as f64 / share(m)))
        .collect()
}

fn max(weighted: &[(Member, f64)]) -> f64 {
    weighted.iter().map(|(_, load)| *load).fold(0.0, f64::max)
}

#[test]
fn equal_nodes_hold_equal_shares() {
    let (placement, keys) = (equal(0..NODES), sample());
    for count in [1, R] {
        let most = max(&weighted(&placement, &keys, count));
        println!("{NODES} equal nodes, {count} owners: max/mean {most:.3}");
        assert!(most <= 1.25, "{count} owners: max/mean {most}");
    }
}

#[test]
fn unequal_nodes_hold_shares_by_their_seats() {
    let seats = |n: u64| [64, 128, 256, 512, 1024][n as usize % 5];
    let placement: Placement = (0..NODES).map(|n| member(n, seats(n), "")).collect();
    let keys = sample();
    for count in [1, R] {
        let weighted = weighted(&placement, &keys, count);
        println!(
            "seats 64 to 1024, {count} owners: max/mean {:.3}",
            max(&weighted)
        );
        for size in [64, 128, 256, 512, 1024] {
            let of: Vec<_> = weighted
                .iter()
                .filter(|(m, _)| m.seats == size)
                .cloned()
                .collect();
            let mean = of.iter().map(|(_, load)| load).sum::<f64>() / of.len() as f64;
            println!("  {size} seats: mean {mean:.3}, max {:.3}", max(&of));
            assert!(
                (0.85..1.15).contains(&mean),
                "{size} seats, {count} owners: mean {mean}"
            );
        }
        // The smallest have only 64 seats; their spread is that of 64 draws.
        assert!(max(&weighted) <= 1.45);
    }
}

/// Few nodes cannot hold R copies by capacity: a node holds a key once, so the
/// strongest is capped and the weakest takes what is left.
#[test]
fn of_few_unequal_nodes_the_first_owner_follows_capacity() {
    let seats = [400, 280, 200, 160, 140, 120];
    // Averaged over many networks of this shape, so that it is the rule that
    // shows and not one network's luck.
    let networks = 20;
    let keys = &sample()[..5_000];
    let mut mean = [[0.0; 6]; R + 1];
    let mut worst = [0.0_f64; R + 1];
    for network in 0..networks {
        let members = (0..)
            .zip(seats)
            .map(|(i, s)| member(network * 6 + i, s, ""));
        let placement: Placement = members.collect();
        for count in [1, R] {
            let weighted = weighted(&placement, keys, count);
            worst[count] = worst[count].max(max(&weighted));
            for (member, load) in weighted {
                let at = seats.iter().position(|s| *s == member.seats).unwrap();
                mean[count][at] += load / networks as f64;
            }
        }
    }
    for count in [1, R] {
        println!(
            "seats {seats:?}, {count} owners: mean {:.3?}, worst {:.3}",
            mean[count], worst[count]
        );
    }
    assert!(
        mean[1].iter().all(|load| (0.93..1.07).contains(load)),
        "{:?}",
        mean[1]
    );
    assert!(mean[R][0] < 0.9 && mean[R][5] > 1.1, "{:?}", mean[R]);
    assert!(
        mean[R].iter().all(|load| (0.7..1.4).contains(load)),
        "{:?}",
        mean[R]
    );
}

/// Copies that come to a node that did not hold them before.
fn moved(before: &[Owners], after: &Placement, keys: &[Key]) -> u64 {
    let news = before.iter().zip(keys).map(|(old, key)| {
        let new = after.owner_set(key);
        new.iter().filter(|node| !old.contains(node)).count() as u64
    });
    news.sum()
}

/// A newcomer entitled to 1/(n+1) of all copies must receive that many, and
/// nothing else need move: that is the minimum.
#[test]
fn a_join_moves_at_most_a_fifth_over_the_minimum() {
    let (placement, keys) = (equal(0..NODES), sample());
    let before: Vec<_> = keys.iter().map(|key| placement.owner_set(key)).collect();
    let minimum = (KEYS * R as u64) as f64 / (NODES + 1) as f64;
    for n in NODES..NODES + 10 {
        let joiner = member(n, SEATS, "");
        let after = placement.with(joiner.clone());
        let moved = moved(&before, &after, &keys);
        // All that moved, moved to the newcomer.
        assert_eq!(moved, loads(&after, &keys, R)[&joiner.node]);
        let ratio = moved as f64 / minimum;
        println!("join {n}: {ratio:.3} of the minimum");
        assert!(ratio <= 1.2, "join {n} moved {ratio} of the minimum");
    }
}

/// What the leaver held must be copied elsewhere, once; its fair share of that
/// is the minimum.
#[test]
fn a_leave_moves_at_most_a_fifth_over_the_minimum() {
    let (placement, keys) = (equal(0..NODES), sample());
    let before: Vec<_> = keys.iter().map(|key| placement.owner_set(key)).collect();
    let held = loads(&placement, &keys, R);
    let minimum = (KEYS * R as u64) as f64 / NODES as f64;
    for leaver in placement.members().step_by(10) {
        let moved = moved(&before, &placement.without(&leaver.node), &keys);
        assert_eq!(moved, held[&leaver.node]);
        let ratio = moved as f64 / minimum;
        println!("leave: {ratio:.3} of the minimum");
        assert!(ratio <= 1.2, "a leave moved {ratio} of the minimum");
    }
}
