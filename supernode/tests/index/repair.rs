//! Records move to their owners when those change.

use crate::common::*;
use canopy_core::placement::R;
use canopy_core::record::Record;
use canopy_proto::wire::{self, Consistency, request};

async fn fill(net: &Net, count: usize) -> Vec<Record> {
    let values = (0..count).map(|n| value(&format!("n{n}"), 1));
    let items = (0..count / 4).map(|n| item(&format!("thing{n}"), "common words"));
    let records: Vec<Record> = values.chain(items).collect();
    let refusals = net.put(1, &records).await;
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
    records
}

/// Whether every owner of every key holds each record, and nobody else does.
fn in_place(net: &Net, nodes: &[u8], records: &[Record]) -> bool {
    let placement = net.placement();
    records.iter().all(|record| {
        let keys = record.placement_keys();
        nodes.iter().all(|n| {
            let owns = keys
                .iter()
                .any(|key| placement.owners(key, R).contains(&node(*n)));
            let index = net.service(*n);
            owns == index.index().version(&record.id()).is_some()
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_is_given_its_records_and_old_ones_drop_theirs() {
    let net = Net::of(4);
    let records = fill(&net, 80).await;
    net.join(5);
    let nodes = [1, 2, 3, 4, 5];
    assert!(net.service(5).stats().settling);
    until("all in place", || in_place(&net, &nodes, &records)).await;
    until("settled", || !net.service(5).stats().settling).await;
    for record in records.iter().take(80) {
        let reply = net.get(5, record.id(), Consistency::Quorum).await.unwrap();
        assert_eq!(reply.records, std::slice::from_ref(&record.signed));
    }
}

#[tokio::test(start_paused = true)]
async fn reads_and_searches_find_everything_while_two_overlays_become_one() {
    let net = Net::two_of(3);
    let mut records = Vec::new();
    for (n, side) in [(1, "one"), (4, "other")] {
        let values = (0..40).map(|i| value(&format!("{side} {i}"), 1));
        let items = (0..10).map(|i| item(&format!("{side}{i}"), "common words"));
        let own: Vec<Record> = values.chain(items).collect();
        let refusals = net.put(n, &own).await;
        assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
        records.extend(own);
    }
    net.unite();
    let items = |record: &&Record| record.placement_keys().len() > 1;
    for n in 1..=6 {
        for record in records.iter().filter(|record| !items(record)) {
            let reply = net.get(n, record.id(), Consistency::Quorum).await.unwrap();
            assert_eq!(reply.records, std::slice::from_ref(&record.signed), "{n}");
            let copy = net.copy(n, record.id()).await.unwrap();
            assert_eq!(copy.records, std::slice::from_ref(&record.signed), "{n}");
        }
        assert_eq!(net.search(n, "common").await.unwrap().len(), 20, "{n}");
    }
    let nodes = [1, 2, 3, 4, 5, 6];
    until("all in place", || in_place(&net, &nodes, &records)).await;
}

#[tokio::test(start_paused = true)]
async fn reads_find_everything_while_owners_change() {
    let net = Net::of(4);
    let records = fill(&net, 40).await;
    net.join(5);
    for record in records.iter().take(40) {
        for consistency in [Consistency::One, Consistency::Quorum] {
            let reply = net.get(5, record.id(), consistency).await.unwrap();
            assert_eq!(reply.records, std::slice::from_ref(&record.signed));
        }
    }
    assert_eq!(net.search(5, "common thing7").await.unwrap(), ["thing7"]);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_node_is_made_up_to_three_copies() {
    let net = Net::of(5);
    let records = fill(&net, 80).await;
    net.kill(2);
    net.leave(2);
    let nodes = [1, 3, 4, 5];
    until("all in place", || in_place(&net, &nodes, &records)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_is_given_what_it_missed() {
    let net = Net::of(4);
    let records = fill(&net, 40).await;
    until("all in place", || in_place(&net, &[1, 2, 3, 4], &records)).await;
    // Back before anybody noticed, with an empty store.
    net.kill(3);
    net.revive(3);
    assert!(net.service(3).stats().settling);
    until("all in place again", || {
        in_place(&net, &[1, 2, 3, 4], &records)
    })
    .await;
    until("settled", || !net.service(3).stats().settling).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_sent_under_an_earlier_placement_finds_its_owners() {
    let net = Net::of(5);
    let records = fill(&net, 20).await;
    net.kill(5);
    net.leave(5);
    let nodes = [1, 2, 3, 4];
    until("all in place", || in_place(&net, &nodes, &records)).await;
    // A straggler, to a node that does not own it.
    let late = value("late", 1);
    let owners = net.placement().owners(&late.id(), R);
    let other = nodes
        .into_iter()
        .find(|n| !owners.contains(&node(*n)))
        .unwrap();
    let put = request::Kind::Put(wire::Put {
        records: vec![late.signed.clone()],
        local: true,
    });
    net.service(other).handle(owners[0], put).await;
    let began = tokio::time::Instant::now();
    until("moved", || {
        in_place(&net, &nodes, std::slice::from_ref(&late))
    })
    .await;
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_leaver_pushes_first_and_reports() {
    let net = Net::of(4);
    let records = fill(&net, 80).await;
    let mut steps = 0;
    let done = net.service(4).hand_over(|_| steps += 1).await;
    assert!(done.is_complete(), "{done:?}");
    assert!(done.records > 0 && steps > 0);
    // Its word holds: it can go at once.
    net.kill(4);
    net.leave(4);
    let placement = net.placement();
    for record in &records {
        for key in record.placement_keys() {
            for owner in placement.owners(&key, R) {
                let held = net.service(owner.0[0]).index().version(&record.id());
                assert!(held.is_some());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_no_super_node_any_more_hands_over_what_it_has() {
    let net = Net::of(3);
    let former = net.start(9);
    let records: Vec<Record> = (0..20).map(|n| value(&format!("left{n}"), 1)).collect();
    let (_, ack) = former.index().put(records.clone(), NOW);
    ack.await.unwrap();
    let done = former.hand_over(|_| ()).await;
    assert!(done.is_complete(), "{done:?}");
    assert_eq!(former.index().held().records, 0);
    until("three copies", || {
        records.iter().all(|r| net.copies(r) == 3)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_super_node_keeps_what_nobody_takes() {
    let net = Net::of(1);
    let records = fill(&net, 8).await;
    let done = net.service(1).hand_over(|_| ()).await;
    assert!(!done.is_complete());
    assert!(records.iter().all(|record| net.copies(record) == 1));
}

#[tokio::test(start_paused = true)]
async fn what_its_owners_did_not_confirm_is_not_dropped() {
    let net = Net::of(4);
    let records = fill(&net, 40).await;
    until("all in place", || in_place(&net, &[1, 2, 3, 4], &records)).await;
    net.start(5);
    net.kill(5);
    // In the placement, and dead: nobody can be relieved by it.
    let before: Vec<usize> = records.iter().map(|record| net.copies(record)).collect();
    net.each(|placement| {
        placement.with(canopy_core::placement::Member {
            node: node(5),
            seats: 8,
            domain: "".into(),
        })
    });
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let after: Vec<usize> = records.iter().map(|record| net.copies(record)).collect();
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn two_that_leave_at_once_do_not_count_on_each_other() {
    let net = Net::of(2);
    fill(&net, 40).await;
    let (one, other) = (net.service(1), net.service(2));
    let both = tokio::join!(one.hand_over(|_| ()), other.hand_over(|_| ()));
    assert!(!(both.0.is_complete() && both.1.is_complete()), "{both:?}");
    // Who stays after all is given the records again, and vouches for them.
    one.stay();
    assert!(other.hand_over(|_| ()).await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn what_only_new_owners_own_is_found_at_those_before() {
    let net = Net::of(3);
    let records = fill(&net, 80).await;
    (4..=7).for_each(|n| net.join(n));
    let placement = net.placement();
    let new = |record: &&Record| {
        let owners = placement.owners(&record.id(), R);
        owners.iter().all(|owner| *owner > node(3))
    };
    assert!(records.iter().take(80).any(|record| new(&record)));
    for n in [1, 4, 7] {
        for record in records.iter().take(80) {
            let reply = net.get(n, record.id(), Consistency::Quorum).await.unwrap();
            assert_eq!(reply.records, std::slice::from_ref(&record.signed), "{n}");
            let copy = net.copy(n, record.id()).await.unwrap();
            assert_eq!(copy.records, std::slice::from_ref(&record.signed), "{n}");
        }
        assert_eq!(net.search(n, "common").await.unwrap().len(), 20, "{n}");
    }
}
