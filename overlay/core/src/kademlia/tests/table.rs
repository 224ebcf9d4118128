//! What the table keeps, what it lets go, and what it costs.

use std::time::Duration;

use super::{key, member, peer};
use crate::kademlia::{Learned, Peer, RoutingTable, Standing, TableConfig};
use crate::keyspace::Key;
use crate::time::Time;

const STALE: Duration = Duration::from_secs(100);

fn table(total: usize) -> RoutingTable<u8> {
    let config = TableConfig {
        total,
        stale: STALE,
    };
    RoutingTable::new([Key::default()], config)
}

fn secs(s: u64) -> Time {
    Time(s * 1_000_000)
}

/// Peers of one seat, all in the bucket of `depth` around `Key::default()`.
fn at_depth(depth: u32) -> impl Iterator<Item = Peer> {
    let all = (0..).map(|n| peer(n, 1));
    all.filter(move |p| {
        p.positions()
            .all(|seat| seat.prefix().leading_zeros() == depth)
    })
}

#[test]
fn it_never_holds_more_than_its_bound() {
    let mut table = table(20);
    for n in 0..500 {
        table.heard(secs(n), member(peer(n, 2)), 0);
        table.answered(secs(n), &peer(n, 2).node, 7);
        assert!(table.len() <= 20);
    }
    assert_eq!(table.len(), 20);
}

#[test]
fn a_full_table_gives_every_bucket_an_equal_share_or_all_it_has() {
    let mut table = table(40);
    let depth = |p: &Peer| {
        let seat = p.positions().next().unwrap();
        seat.prefix().leading_zeros() as usize
    };
    let (mut there_are, mut kept) = ([0; 64], [0; 64]);
    for p in (0..500).map(|n| peer(n, 1)) {
        table.heard(secs(0), member(p), 0);
        there_are[depth(&p)] += 1;
    }
    table.entries().for_each(|e| kept[depth(&e.peer())] += 1);
    let fullest = kept.iter().copied().max().unwrap();
    assert!(fullest <= 6, "{kept:?}");
    for (kept, there_are) in kept.into_iter().zip(there_are) {
        assert!(kept == there_are || kept + 1 >= fullest);
    }
}

#[test]
fn hearsay_does_not_displace_the_proven_but_the_doubtful() {
    let mut table = table(2);
    let peers: Vec<_> = at_depth(1).take(4).collect();
    for p in &peers[..2] {
        assert_eq!(table.heard(secs(0), member(*p), 0), Learned::Added);
        table.answered(secs(0), &p.node, 500);
    }
    assert_eq!(table.heard(secs(1), member(peers[2]), 0), Learned::Refused);
    table.failed(&peers[1].node);
    let replaced = Learned::Replaced(peers[1].node);
    assert_eq!(table.heard(secs(2), member(peers[2]), 0), replaced);

    // Both that are left are silent for long: the one silent longest goes.
    let later = secs(2) + STALE + STALE;
    assert_eq!(
        table.standing(later, &peers[0].node),
        Some(Standing::Doubtful)
    );
    let replaced = Learned::Replaced(peers[0].node);
    assert_eq!(table.heard(later, member(peers[3]), 0), replaced);
}

#[test]
fn what_was_only_heard_of_goes_before_what_answered() {
    let mut table = table(3);
    let far: Vec<_> = at_depth(0).take(3).collect();
    for p in &far {
        table.heard(secs(0), member(*p), 0);
    }
    table.answered(secs(1), &far[0].node, 0);
    table.answered(secs(1), &far[2].node, 0);
    let near = at_depth(3).next().unwrap();
    assert_eq!(
        table.heard(secs(2), member(near), 0),
        Learned::Replaced(far[1].node)
    );
}

#[test]
fn a_peer_that_fails_is_kept_but_offered_no_more_until_it_answers() {
    let mut table = table(5);
    let (a, b) = (peer(1, 4), peer(2, 4));
    for p in [a, b] {
        table.heard(secs(0), member(p), 0);
    }
    for indexed in [false, true] {
        if indexed {
            table.placement();
        }
        for _ in 0..3 {
            assert_eq!(table.closest(&key(0), 9).len(), 2);
            table.failed(&a.node);
        }
        assert_eq!(table.closest(&key(0), 9), [b]);
        assert_eq!(table.len(), 2);
        assert!(table.answered(secs(1), &a.node, 250));
        assert_eq!(table.closest(&key(0), 9).len(), 2);
        assert_eq!(table.get(&a.node).map(|e| e.load_milli), Some(250));
    }
}

#[test]
fn the_index_follows_every_change() {
    let mut indexed = table(30);
    let mut plain = table(30);
    indexed.placement();
    for n in 0..200 {
        // Seat counts change on the way, and some fail or leave.
        let p = peer(n % 60, 1 + (n / 60) as u32);
        for table in [&mut indexed, &mut plain] {
            table.heard(secs(n), member(p), n as u8);
            if n % 3 == 0 {
                table.answered(secs(n), &p.node, 0);
            }
            if n % 7 == 0 {
                table.failed(&peer(n % 5, 1).node);
            }
            if n % 11 == 0 {
                table.remove(&p.node);
            }
        }
        assert_eq!(indexed.closest(&key(n), 8), plain.closest(&key(n), 8));
        assert_eq!(indexed.len(), plain.len());
    }
    indexed.rest();
    assert_eq!(indexed.closest(&key(0), 40), plain.closest(&key(0), 40));
}

#[test]
fn a_renewed_mandate_updates_the_entry_in_place() {
    let mut table = table(5);
    table.heard(secs(0), member(peer(1, 4)), 1);
    table.answered(secs(3), &peer(1, 4).node, 9);
    assert_eq!(
        table.heard(secs(5), member(peer(1, 90)), 2),
        Learned::Updated
    );
    let entry = table.get(&peer(1, 4).node).unwrap();
    assert_eq!(
        (entry.member.seats, entry.payload, entry.load_milli),
        (90, 2, 9)
    );
    assert_eq!(entry.last_seen, secs(3));
    assert_eq!(
        table.standing(secs(5), &peer(1, 4).node),
        Some(Standing::Proven)
    );
}

#[test]
fn what_cannot_be_used_is_refused() {
    assert_eq!(
        table(5).heard(secs(0), member(peer(1, 0)), 0),
        Learned::Refused
    );
    assert_eq!(
        table(0).heard(secs(0), member(peer(1, 4)), 0),
        Learned::Refused
    );
    assert!(!table(5).answered(secs(0), &peer(1, 4).node, 0));
}

#[test]
fn a_super_nodes_bound_follows_its_seats() {
    assert_eq!(TableConfig::super_node(256).total, 1024);
    assert_eq!(TableConfig::super_node(1).total, TableConfig::leaf().total);
    assert_eq!(TableConfig::super_node(u32::MAX).total, 4 * 4096);
}

#[test]
fn a_quiet_table_is_small() {
    let mut table: RoutingTable<[u8; 16]> =
        RoutingTable::new([Key::default()], TableConfig::leaf());
    for n in 0..8 {
        table.heard(secs(0), member(peer(n, 256)), [0; 16]);
    }
    table.rest();
    let bytes = size_of_val(&table) + 8 * size_of::<crate::kademlia::Entry<[u8; 16]>>();
    println!("8 entries take {bytes} bytes");
    assert!(bytes <= 1536, "8 entries take {bytes} bytes");
}
