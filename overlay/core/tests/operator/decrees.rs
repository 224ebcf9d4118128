//! What the operator decrees reaches every super-node, and is obeyed.

use std::time::Duration;

use canopy_core::decree::{Banned, Decree, MAX_LIFE_MS, Order, Policy, Subject};
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_core::node::{Event, Input, Role};
use canopy_proto::wire;

use crate::harness::{Plan, World, id, identity};

const OPERATOR: u8 = 200;
/// Longest time until every super-node has heard of a decree, of the preset for
/// one machine.
const HEARD: Duration = Duration::from_secs(3);

fn operator() -> Identity {
    identity(OPERATOR)
}

fn decree(world: &World, sequence: u64, order: Order) -> Decree {
    let now_ms = world.now().unix_ms;
    Decree {
        network: "test".into(),
        sequence,
        issued_ms: now_ms,
        expires_ms: now_ms + MAX_LIFE_MS,
        order,
    }
}

fn signed(world: &World, sequence: u64, order: Order) -> wire::Signed {
    decree(world, sequence, order).sign(&operator())
}

fn ban(node: NodeId) -> Order {
    Order::Ban {
        what: Banned::Peer(node),
        reason: "test".into(),
    }
}

/// An overlay of an operator with `count` peers, the strongest first.
fn overlay(seed: u64, count: u8) -> World {
    let mut world = World::new(seed);
    for index in 1..=count {
        let mut plan = Plan::new(index, 200_000_000 - u64::from(index) * 4_000_000, &[1]);
        plan.operator = Some(operator().node_id());
        plan.ratio = 4;
        world.start(plan);
    }
    let serves = world.run_until(Duration::from_secs(120), |world| {
        world.with_role(Role::SuperNode).len() >= 3
    });
    assert!(serves, "an overlay is founded");
    world.run(Duration::from_secs(10));
    world
}

fn sequence_at(world: &World, node: NodeId, subject: &Subject) -> Option<u64> {
    let held = world.core(node).decrees().get(subject);
    held.map(|decree| decree.sequence)
}

/// Whether every super-node has the decree of this sequence, and the same digest.
fn heard(world: &World, subject: &Subject, sequence: u64) -> bool {
    let all = world.with_role(Role::SuperNode);
    let has = |node: &NodeId| sequence_at(world, *node, subject) == Some(sequence);
    let digest = |node: &NodeId| world.core(*node).decrees().digest();
    all.iter().all(has) && all.iter().all(|node| digest(node) == digest(&all[0]))
}

fn serves(world: &World, node: NodeId) -> bool {
    let placements = world.alive().into_iter().filter(|other| *other != node);
    let known: Vec<bool> = placements
        .map(|other| world.core(other).placement().get(&node).is_some())
        .collect();
    known.iter().any(|known| *known)
}

#[test]
fn a_ban_reaches_all_and_is_obeyed_until_it_is_lifted() {
    let mut world = overlay(1, 14);
    let all = world.with_role(Role::SuperNode);
    let (through, banned) = (all[0], all[1]);
    let subject = Subject::Ban(Banned::Peer(banned));
    let order = signed(&world, 10, ban(banned));
    world.tell(through, Input::Decree(order.clone()));
    let spread = world.run_until(HEARD, |world| heard(world, &subject, 10));
    assert!(spread, "every super-node has heard of it");

    // It lays its role down, is nobody's super-node, and has no home.
    let gone = world.run_until(Duration::from_secs(20), |world| !serves(world, banned));
    assert!(gone, "nobody takes it for a super-node");
    world.run(Duration::from_secs(30));
    let core = world.core(banned);
    assert_eq!(core.role(), Role::Leaf);
    assert!(core.status(world.now()).homes.is_empty());
    let verdict = core.status(world.now()).verdict;
    assert!(verdict.failed().any(|item| item.name == "not_banned"));
    for (_, _, event) in &world.events {
        if let Event::SuperNodeUp { node, term, .. } = event {
            assert!(*node != banned || *term < 1 << 40);
        }
    }

    // Not one ballot of it counts: nobody that serves hears it, so that it is in
    // no election that was opened meanwhile.
    let since = world.events.len();
    world.kill(all[2]);
    world.run(Duration::from_secs(60));
    for (_, _, event) in &world.events[since..] {
        if let Event::ElectionClosed { elected, .. } = event {
            assert!(!elected.contains(&banned));
        }
    }

    // An older one changes nothing; a later one lifts it.
    let older = signed(&world, 9, Order::Unban(Banned::Peer(banned)));
    world.tell(through, Input::Decree(older));
    world.run(HEARD);
    assert!(heard(&world, &subject, 10));
    let lifted = signed(&world, 11, Order::Unban(Banned::Peer(banned)));
    world.tell(through, Input::Decree(lifted));
    let homed = world.run_until(Duration::from_secs(60), |world| {
        heard(world, &subject, 11) && !world.core(banned).status(world.now()).homes.is_empty()
    });
    assert!(homed, "it is a leaf again");
    world.tell(through, Input::Decree(order));
    world.run(HEARD);
    assert!(
        heard(&world, &subject, 11),
        "the old one is not taken again"
    );
}

#[test]
fn a_forged_decree_counts_nowhere() {
    let mut world = overlay(2, 10);
    let all = world.with_role(Role::SuperNode);
    let said = decree(&world, 10, ban(all[1]));
    let mut claimed = said.sign(&identity(7));
    let by_stranger = claimed.clone();
    claimed.signer = operator().node_id().to_bytes();
    let mut elsewhere = said.clone();
    elsewhere.network = "other".into();
    let elsewhere = elsewhere.sign(&operator());
    for forged in [by_stranger, claimed, elsewhere] {
        world.tell(all[0], Input::Decree(forged.clone()));
        let message = wire::core_message::Kind::Decrees(wire::Decrees {
            decrees: vec![forged],
        });
        let message = Box::new(wire::CoreMessage {
            kind: Some(message),
        });
        let from = all[1];
        world.tell(all[2], Input::Message { from, message });
    }
    world.run(Duration::from_secs(10));
    for node in world.alive() {
        assert!(world.core(node).decrees().is_empty());
    }
    assert_eq!(world.with_role(Role::SuperNode), all);
}

#[test]
fn both_sides_of_a_partition_hear_of_what_was_decreed_on_the_other() {
    let mut world = overlay(3, 12);
    let all = world.with_role(Role::SuperNode);
    let (one, other) = all.split_at(all.len() / 2);
    let (leaves, rest): (Vec<NodeId>, Vec<NodeId>) = world
        .alive()
        .into_iter()
        .partition(|node| one.contains(node));
    world.partition(&leaves, &rest);
    let policy = |ratio| {
        Order::Policy(Policy {
            ratio: Some(ratio),
            ..Policy::default()
        })
    };
    let content = Banned::Content([7; 32]);
    let reason = String::new();
    let what = content;
    let orders = [
        (one[0], signed(&world, 20, policy(5))),
        (other[0], signed(&world, 21, policy(6))),
        (one[0], signed(&world, 5, Order::Ban { what, reason })),
    ];
    for (node, order) in orders {
        world.tell(node, Input::Decree(order));
    }
    world.run(Duration::from_secs(5));
    assert_eq!(sequence_at(&world, one[0], &Subject::Policy), Some(20));
    assert_eq!(sequence_at(&world, other[0], &Subject::Policy), Some(21));
    world.heal();
    let merged = world.run_until(Duration::from_secs(120), |world| {
        heard(world, &Subject::Policy, 21) && heard(world, &Subject::Ban(content), 5)
    });
    assert!(merged, "all know both, and the later policy");
    let node = world.with_role(Role::SuperNode)[0];
    assert_eq!(world.core(node).overlay_law().ratio, 6);
}

#[test]
fn what_was_decreed_is_kept_over_a_restart_and_told_to_new_super_nodes_and_leaves() {
    let mut world = overlay(4, 12);
    let all = world.with_role(Role::SuperNode);
    let policy = Order::Policy(Policy {
        per_address: Some(9),
        ratio: Some(4),
        ..Policy::default()
    });
    let order = signed(&world, 3, policy);
    world.tell(all[0], Input::Decree(order));
    let told = world.run_until(HEARD, |world| {
        let knows = |node| sequence_at(world, node, &Subject::Policy) == Some(3);
        world.alive().into_iter().all(knows)
    });
    assert!(
        told,
        "leaves know the policy too: they judge themselves by it"
    );
    let cap = world.core(id(12)).status(world.now()).verdict;
    let cap = cap.items.iter().find(|item| item.name == "address_cap");
    assert_eq!(cap.map(|item| item.threshold.as_str()), Some("< 9"));

    for node in all.clone() {
        world.kill(node);
    }
    world.run(Duration::from_secs(2));
    for node in all {
        world.restart(node);
        assert_eq!(sequence_at(&world, node, &Subject::Policy), Some(3));
    }
    let mut plan = Plan::new(20, 900_000_000, &[1]);
    plan.operator = Some(operator().node_id());
    let newcomer = world.start(plan);
    let told = world.run_until(Duration::from_secs(60), |world| {
        sequence_at(world, newcomer, &Subject::Policy) == Some(3)
    });
    assert!(told, "a newcomer is told by its homes");
}

#[test]
fn a_host_serves_by_decree_until_that_is_withdrawn() {
    let mut world = overlay(5, 10);
    let all = world.with_role(Role::SuperNode);
    let host = id(10);
    assert!(!all.contains(&host));
    let mandate = crate::harness::designate(&world, &operator(), host, 50_000_000);
    let order = Order::Designate {
        host,
        mandate: Box::new(mandate),
    };
    let order = signed(&world, 1, order);
    world.tell(all[0], Input::Decree(order));
    let appointed = world.run_until(Duration::from_secs(20), |world| {
        let known = world.with_role(Role::SuperNode);
        let knows = |node: &NodeId| world.core(*node).roster().serves(&host);
        known.contains(&host) && known.iter().all(knows)
    });
    assert!(appointed, "it heard of it through its home, and serves");

    world.run(Duration::from_secs(1));
    let order = signed(&world, 2, Order::Undesignate(host));
    world.tell(all[1], Input::Decree(order));
    let dismissed = world.run_until(Duration::from_secs(20), |world| {
        !serves(world, host) && world.core(host).role() != Role::SuperNode
    });
    assert!(dismissed);
    world.kill(host);
    world.run(Duration::from_secs(5));
    world.restart(host);
    world.run(Duration::from_secs(20));
    assert!(!serves(&world, host), "nor does it after a restart");
}

#[test]
fn nothing_is_sent_of_what_all_know() {
    let mut world = overlay(6, 8);
    let all = world.with_role(Role::SuperNode);
    let order = signed(&world, 1, ban(id(99)));
    world.tell(all[0], Input::Decree(order));
    assert!(world.run_until(HEARD, |world| heard(
        world,
        &Subject::Ban(Banned::Peer(id(99))),
        1
    )));
    world.run(Duration::from_secs(2));
    world.sent.clear();
    world.run(Duration::from_secs(30));
    let count = |name: &str| world.sent.get(name).copied().unwrap_or(0);
    assert!(count("roster_digest") > 0, "rosters are compared");
    assert_eq!(count("decrees") + count("decree_keys"), 0);
}
