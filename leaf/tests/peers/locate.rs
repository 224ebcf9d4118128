//! Where peers are found: published by each, followed when a home dies, taken
//! back with a goodbye.

use std::collections::BTreeSet;

use crate::common::{host, leaf, until, within};
use canopy_leaf::{Identity, Leaf, NodeId};
use canopy_overlay::calls::Calls;

/// Waits until `asker` finds `peer` at two homes that are the ones it has, and
/// not at `dead`.
async fn located(asker: &Leaf, peer: &Leaf, dead: Option<NodeId>) -> BTreeSet<NodeId> {
    until(async || {
        let location = asker.locate(peer.node_id()).await.ok()??;
        let told: BTreeSet<NodeId> = location.homes.iter().map(|home| home.node_id).collect();
        let homes = peer.status().homes;
        let homes: BTreeSet<NodeId> = homes.iter().map(|home| home.node_id).collect();
        let right = told == homes && told.len() == 2 && !dead.is_some_and(|d| told.contains(&d));
        right.then(|| {
            assert!(location.homes.iter().all(|home| !home.addrs.is_empty()));
            told
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_found_at_their_homes_wherever_those_go() {
    let operator = Identity::from_secret([1; 32]);
    let first = host(&operator, 11, &[], false).await;
    let second = host(&operator, 12, &[&first], false).await;
    let third = host(&operator, 13, &[&first], false).await;
    let (a, b) = (leaf(&first, &operator).await, leaf(&third, &operator).await);
    let homes = located(&b, &a, None).await;
    located(&a, &b, None).await;

    // A super-node is its own home.
    for host in [&first, &second, &third] {
        let node = host.node_id();
        let location = until(async || a.locate(node).await.ok()?).await;
        let told: Vec<NodeId> = location.homes.iter().map(|home| home.node_id).collect();
        assert_eq!(told, [node]);
        let addr = host.peer().local_addr().unwrap();
        assert_eq!(location.homes[0].addrs, [addr]);
    }
    assert_eq!(within(a.locate(NodeId([7; 32]))).await, Ok(None));

    // A home dies without a word; the location follows.
    let hosts = [first, second, third];
    let victim = hosts.iter().find(|host| homes.contains(&host.node_id()));
    let victim = victim.expect("one of them");
    let before = within(b.locate(a.node_id())).await.unwrap().unwrap();
    victim.abort();
    located(&b, &a, Some(victim.node_id())).await;
    let after = within(b.locate(a.node_id())).await.unwrap().unwrap();
    assert!(after.sequence > before.sequence);

    // A peer that says goodbye is not looked for.
    within(a.close()).await;
    until(async || match b.locate(a.node_id()).await {
        Ok(None) => Some(()),
        _ => None,
    })
    .await;
    within(b.close()).await;
    for host in &hosts {
        within(host.close()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_node_that_steps_down_is_found_at_its_homes() {
    let operator = Identity::from_secret([1; 32]);
    let first = host(&operator, 11, &[], false).await;
    let second = host(&operator, 12, &[&first], false).await;
    let third = host(&operator, 13, &[&first], false).await;
    let leaf = leaf(&first, &operator).await;
    let homes = async |of: NodeId| {
        let location = leaf.locate(of).await.ok()??;
        let homes = location.homes.iter().map(|home| home.node_id);
        Some(homes.collect::<BTreeSet<NodeId>>())
    };
    let found_at = async |expected: BTreeSet<NodeId>| {
        let node = third.node_id();
        let right = async || homes(node).await.filter(|homes| *homes == expected);
        until(right).await;
    };
    found_at(BTreeSet::from([third.node_id()])).await;
    third.peer().step_down();
    found_at(BTreeSet::from([first.node_id(), second.node_id()])).await;
    within(leaf.close()).await;
    for host in [&first, &second, &third] {
        within(host.close()).await;
    }
}
