//! Whole overlays of cores: they elect, survive, merge and shrink.

#[path = "operator/decrees.rs"]
mod decrees;
mod harness;

use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::node::{Event, Input, Role};
use canopy_core::placement::R;
use canopy_proto::wire::Topology;
use harness::{Plan, World, id, identity};

const MBIT: u64 = 1_000_000;

/// `count` peers from `first` on that know the first of them.
fn group(world: &mut World, first: u8, count: u8) -> Vec<NodeId> {
    (first..first + count)
        .map(|i| world.start(Plan::new(i, 5 * MBIT * u64::from(i), &[first])))
        .collect()
}

fn founded(world: &World) -> bool {
    let serving = world.with_role(Role::SuperNode);
    serving.len() >= R && world.all_know(&serving)
}

fn homed(world: &World) -> bool {
    world.alive().iter().all(|node| {
        let status = world.core(*node).status(world.now());
        status.role == Role::SuperNode || status.homes.len() == 2
    })
}

/// Kills a super-node and waits until another serves in its place.
fn kill_and_replace(world: &mut World) -> NodeId {
    let dead = world.with_role(Role::SuperNode)[0];
    world.kill(dead);
    let replaced =
        |world: &World| founded(world) && !world.with_role(Role::SuperNode).contains(&dead);
    assert!(world.run_until(Duration::from_secs(30), replaced));
    dead
}

#[test]
fn peers_that_know_nobody_elect_the_strongest() {
    let mut world = World::new(1);
    let peers = group(&mut world, 1, 10);
    assert!(
        world.run_until(Duration::from_secs(30), founded),
        "no founding in 30 s"
    );
    let serving = world.with_role(Role::SuperNode);
    let mut strongest: Vec<NodeId> = peers[peers.len() - R..].to_vec();
    strongest.sort_unstable();
    assert_eq!(serving, strongest);
    assert!(world.seconds() < 15.0, "took {} s", world.seconds());
    assert!(
        world.run_until(Duration::from_secs(10), homed),
        "a leaf has no two homes"
    );
}

#[test]
fn the_measured_capacity_is_near_the_true_one() {
    let mut world = World::new(2);
    group(&mut world, 1, 12);
    assert!(world.run_until(Duration::from_secs(30), founded));
    for node in world.with_role(Role::SuperNode) {
        let index = (1..=12).find(|i| id(*i) == node).map(u64::from);
        let truth = 5 * MBIT * index.expect("a started peer");
        let stated = world.core(node).status(world.now()).capacity_bps;
        assert!(
            stated * 4 > truth * 2 && stated < truth * 4 / 3,
            "{stated} of {truth}"
        );
    }
}

#[test]
fn a_boaster_is_measured_and_passed_over() {
    let mut world = World::new(3);
    for i in 1..=10 {
        let mut plan = Plan::new(i, 5 * MBIT * u64::from(i), &[1]);
        if i == 1 {
            plan.uplink_bps = 900 * MBIT;
            plan.true_bps = Some(2 * MBIT);
        }
        world.start(plan);
    }
    assert!(world.run_until(Duration::from_secs(40), founded));
    assert!(!world.with_role(Role::SuperNode).contains(&id(1)));
}

#[test]
fn a_dead_super_node_is_replaced_by_a_deputy() {
    let mut world = World::new(4);
    group(&mut world, 1, 12);
    assert!(world.run_until(Duration::from_secs(30), founded));
    let deputies = |world: &World| world.with_role(Role::Deputy).len() >= 2;
    assert!(
        world.run_until(Duration::from_secs(60), deputies),
        "no deputies"
    );
    let dead = world.with_role(Role::SuperNode)[0];
    let before = world.seconds();
    world.kill(dead);
    let replaced =
        |world: &World| founded(world) && !world.with_role(Role::SuperNode).contains(&dead);
    assert!(
        world.run_until(Duration::from_secs(30), replaced),
        "not replaced"
    );
    assert!(
        world.seconds() - before < 10.0,
        "took {} s",
        world.seconds() - before
    );
}

#[test]
fn all_restarted_come_back_as_they_were() {
    let mut world = World::new(5);
    let peers = group(&mut world, 1, 10);
    assert!(world.run_until(Duration::from_secs(30), founded));
    let serving = world.with_role(Role::SuperNode);
    for node in &peers {
        world.kill(*node);
    }
    world.run(Duration::from_secs(5));
    for node in &peers {
        world.restart(*node);
    }
    assert!(world.run_until(Duration::from_secs(20), founded));
    assert_eq!(world.with_role(Role::SuperNode), serving);
}

#[test]
fn two_assemblies_that_meet_become_one_and_let_the_surplus_go() {
    let mut world = World::new(6);
    let one = group(&mut world, 1, 5);
    let other = group(&mut world, 101, 5);
    let both = |world: &World| world.with_role(Role::SuperNode).len() == 2 * R;
    assert!(world.run_until(Duration::from_secs(40), both));
    world.run(Duration::from_secs(5));
    world.introduce(one[4], other[4]);
    let united = |world: &World| {
        let serving = world.with_role(Role::SuperNode);
        serving.len() == 2 * R && world.all_know(&serving)
    };
    assert!(world.run_until(Duration::from_secs(30), united), "no union");
    let shrunk = |world: &World| world.with_role(Role::SuperNode).len() == R && founded(world);
    assert!(
        world.run_until(Duration::from_secs(60), shrunk),
        "surplus stays"
    );
}

#[test]
fn two_assemblies_become_one_when_two_of_their_leaves_meet() {
    let mut world = World::new(16);
    let one = group(&mut world, 1, 5);
    let other = group(&mut world, 101, 5);
    let both = |world: &World| world.with_role(Role::SuperNode).len() == 2 * R;
    assert!(world.run_until(Duration::from_secs(40), both));
    let leaf = |world: &World, of: &[NodeId]| {
        let serving = world.with_role(Role::SuperNode);
        of.iter().copied().find(|node| !serving.contains(node))
    };
    let pair = leaf(&world, &one).zip(leaf(&world, &other));
    let (a, b) = pair.expect("each group has leaves");
    world.introduce(a, b);
    let one_overlay = |world: &World| {
        let serving = world.with_role(Role::SuperNode);
        serving.len() == R && world.all_know(&serving)
    };
    assert!(world.run_until(Duration::from_secs(120), one_overlay));
}

#[test]
fn a_newcomer_that_knows_both_brings_two_assemblies_together() {
    for seed in 30..38 {
        let mut world = World::new(seed);
        group(&mut world, 1, 5);
        group(&mut world, 101, 5);
        let both = |world: &World| world.with_role(Role::SuperNode).len() == 2 * R;
        assert!(world.run_until(Duration::from_secs(40), both));
        world.start(Plan::new(50, 2 * MBIT, &[1, 101]));
        let one_overlay = |world: &World| {
            let serving = world.with_role(Role::SuperNode);
            serving.len() == R && world.all_know(&serving)
        };
        let united = world.run_until(Duration::from_secs(120), one_overlay);
        assert!(united, "seed {seed}");
    }
}

#[test]
fn a_super_node_that_steps_down_hands_over_and_is_replaced() {
    let mut world = World::new(7);
    group(&mut world, 1, 12);
    assert!(world.run_until(Duration::from_secs(30), founded));
    let leaver = world.with_role(Role::SuperNode)[1];
    world.tell(leaver, Input::StepDown);
    assert_eq!(world.core(leaver).role(), Role::Retiring);
    let replaced = |world: &World| founded(world) && world.core(leaver).role() != Role::Retiring;
    assert!(world.run_until(Duration::from_secs(30), replaced));
}

#[test]
fn an_elected_overlay_does_not_flap() {
    let mut world = World::new(8);
    group(&mut world, 1, 20);
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(30));
    let before = world.events.len();
    world.run(Duration::from_secs(120));
    let changes: Vec<_> = world.events[before..]
        .iter()
        .filter(|(_, _, event)| matches!(event, Event::Role(_) | Event::SuperNodeDown { .. }))
        .collect();
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn in_a_pure_overlay_every_able_peer_serves() {
    let mut world = World::new(9);
    for i in 1..=8 {
        let mut plan = Plan::new(i, 5 * MBIT * u64::from(i), &[1]);
        plan.topology = Topology::Pure;
        world.start(plan);
    }
    let all = |world: &World| world.with_role(Role::SuperNode).len() == 8;
    assert!(
        world.run_until(Duration::from_secs(90), all),
        "{:?}",
        world.with_role(Role::SuperNode).len()
    );
}

#[test]
fn in_a_hybrid_overlay_only_designated_hosts_serve() {
    let operator = identity(200);
    let mut world = World::new(10);
    for i in 1..=8 {
        let mut plan = Plan::new(i, 5 * MBIT * u64::from(i), &[1]);
        plan.topology = Topology::Hybrid;
        plan.operator = Some(operator.node_id());
        if i <= 2 {
            plan.designation = Some(harness::designate(&world, &operator, id(i), 50 * MBIT));
        }
        world.start(plan);
    }
    let mut designated = vec![id(1), id(2)];
    designated.sort_unstable();
    let served = |world: &World| {
        world.with_role(Role::SuperNode) == designated && world.all_know(&designated)
    };
    assert!(world.run_until(Duration::from_secs(20), served));
    world.run(Duration::from_secs(30));
    assert!(served(&world));
}

#[test]
fn two_who_reached_a_third_are_not_asked_to_again_at_once() {
    let operator = identity(200);
    let mut world = World::new(10);
    for i in 1..=3 {
        let mut plan = Plan::new(i, 100 * MBIT, &[1]);
        plan.operator = Some(operator.node_id());
        plan.designation = Some(harness::designate(&world, &operator, id(i), 100 * MBIT));
        world.start(plan);
    }
    assert!(world.run_until(Duration::from_secs(20), founded));
    world.run(Duration::from_secs(10));
    world.sent.clear();
    // They count for a minute, and are renewed at half time.
    world.run(Duration::from_secs(300));
    let asked = world.sent.get("dial_back_ask").copied().unwrap_or(0);
    assert!((6..=90).contains(&asked), "{asked} in five minutes");
}

#[test]
fn a_newcomer_told_of_a_leaf_alone_finds_the_super_nodes() {
    let mut world = World::new(11);
    group(&mut world, 1, 10);
    assert!(world.run_until(Duration::from_secs(30), founded));
    let leaf = (1..=10).find(|i| world.core(id(*i)).role() != Role::SuperNode);
    world.start(Plan::new(50, 2 * MBIT, &[leaf.expect("a leaf")]));
    let joined = |world: &World| founded(world) && homed(world);
    assert!(world.run_until(Duration::from_secs(10), joined));
}

#[test]
fn a_settled_leaf_wakes_at_most_once_a_second() {
    let mut world = World::new(12);
    group(&mut world, 1, 12);
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(30));
    world.wakings.clear();
    world.run(Duration::from_secs(100));
    for node in world.alive() {
        if world.core(node).role() != Role::SuperNode {
            let wakings = world.wakings.get(&node).copied().unwrap_or(0);
            assert!(wakings <= 100, "{node:?} woke {wakings} times in 100 s");
        }
    }
}

#[test]
fn designated_hosts_that_nobody_was_told_of_are_found_by_all() {
    let operator = identity(200);
    let mut world = World::new(11);
    for i in 1..=16 {
        // A chain of acquaintances, with the hosts in it and at its end.
        let known: Vec<u8> = (1..i).rev().take(1).collect();
        let mut plan = Plan::new(i, 20 * MBIT, &known);
        plan.topology = Topology::Hybrid;
        plan.operator = Some(operator.node_id());
        if i == 6 || i == 16 {
            plan.designation = Some(harness::designate(&world, &operator, id(i), 50 * MBIT));
        }
        world.start(plan);
    }
    let mut designated = vec![id(6), id(16)];
    designated.sort_unstable();
    let known = |world: &World| world.all_know(&designated);
    assert!(
        world.run_until(Duration::from_secs(30), known),
        "not all found"
    );
    assert!(world.run_until(Duration::from_secs(10), homed));
}

#[test]
fn a_super_node_that_was_away_finds_its_place_and_the_surplus_goes() {
    let mut world = World::new(11);
    group(&mut world, 1, 10);
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(10));
    let away = kill_and_replace(&mut world);
    world.restart(away);
    let four = |world: &World| founded(world) && world.with_role(Role::SuperNode).len() == R + 1;
    assert!(world.run_until(Duration::from_secs(10), four), "not found");
    let three = |world: &World| founded(world) && world.with_role(Role::SuperNode).len() == R;
    assert!(world.run_until(Duration::from_secs(30), three), "surplus");
}

#[test]
fn who_was_recalled_and_restarts_stays_a_leaf() {
    let mut world = World::new(13);
    group(&mut world, 1, 10);
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(10));
    let away = kill_and_replace(&mut world);
    world.restart(away);
    let four = |world: &World| world.with_role(Role::SuperNode).len() == R + 1;
    assert!(world.run_until(Duration::from_secs(10), four));
    let before = world.with_role(Role::SuperNode);
    let three = |world: &World| founded(world) && world.with_role(Role::SuperNode).len() == R;
    assert!(world.run_until(Duration::from_secs(30), three));
    let mut recalled = before.into_iter();
    let leaver = recalled.find(|node| world.core(*node).role() != Role::SuperNode);
    let leaver = leaver.expect("one was recalled");
    world.run(Duration::from_secs(5));
    let serving = world.with_role(Role::SuperNode);
    world.kill(leaver);
    world.restart(leaver);
    assert!(world.core(leaver).role() != Role::SuperNode);
    let before = world.events.len();
    world.run(Duration::from_secs(2));
    let flaps = |(_, node, event): &(u64, NodeId, Event)| {
        *node == leaver && matches!(event, Event::Role(Role::SuperNode | Role::Retiring))
    };
    assert!(!world.events[before..].iter().any(flaps));
    assert!(world.all_know(&serving), "it does not know who serves");
}

#[test]
fn a_leaf_that_was_away_learns_who_came_and_went() {
    let mut world = World::new(12);
    group(&mut world, 1, 12);
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(10));
    let away = world.with_role(Role::Candidate)[0];
    world.kill(away);
    kill_and_replace(&mut world);
    world.restart(away);
    world.run(Duration::from_millis(500));
    assert!(world.run_until(Duration::from_secs(10), founded));
}
