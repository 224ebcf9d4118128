//! The fast solver answers as the naive one, after any history.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::naive::Naive;
use super::{key, member, node};
use crate::placement::{self, MAX_SEATS, Member, Placement, R, SPREAD_SEARCH};

#[derive(Clone, Debug)]
enum Change {
    Join(Member),
    Leave(u64),
    Batch(Vec<u64>, Vec<Member>),
}

fn a_member(nodes: u64, seats: u32) -> impl Strategy<Value = Member> {
    let domains = prop::sample::select(vec!["", "", "a", "b", "c", "d"]);
    (0..nodes, 0..=seats, domains).prop_map(|(n, seats, domain)| member(n, seats, domain))
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => a_member(12, 60).prop_map(Change::Join),
        2 => (0..12_u64).prop_map(Change::Leave),
        1 => (
            prop::collection::vec(0..12_u64, 0..5),
            prop::collection::vec(a_member(12, 60), 0..5),
        )
            .prop_map(|(leavers, joiners)| Change::Batch(leavers, joiners)),
    ]
}

fn assert_same(placement: &Placement, naive: &Naive, at: u64) {
    let key = key(at);
    for count in [0, 1, 2, R, R + 4, 1000] {
        assert_eq!(placement.closest(&key, count), naive.closest(&key, count));
        assert_eq!(placement.owners(&key, count), naive.owners(&key, count));
    }
    let owners = placement.owner_set(&key);
    assert_eq!(owners.to_vec(), naive.owners(&key, R));
    assert!(
        naive
            .members
            .keys()
            .all(|n| placement.owns(n, &key) == owners.contains(n))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_answers_as_the_naive_solver_and_as_a_fresh_build(
        changes in prop::collection::vec(a_change(), 1..30),
        at in any::<u64>(),
    ) {
        let mut placement = Placement::empty();
        let mut naive = Naive::default();
        for change in changes {
            let version = placement.version();
            let before = naive.members.clone();
            match change {
                Change::Join(member) => {
                    naive.with(member.clone());
                    placement = placement.with(member);
                }
                Change::Leave(n) => {
                    naive.without(&node(n));
                    placement = placement.without(&node(n));
                }
                Change::Batch(leavers, joiners) => {
                    leavers.iter().for_each(|&n| naive.without(&node(n)));
                    joiners.iter().cloned().for_each(|m| naive.with(m));
                    placement = placement.updated(leavers.into_iter().map(node), joiners);
                }
            }
            let changed = before != naive.members;
            prop_assert_eq!(placement.version(), version + u64::from(changed));
        }
        prop_assert!(placement.members().eq(naive.members.values()));
        let fresh: Placement = naive.members.values().cloned().collect();
        for i in 0..4 {
            assert_same(&placement, &naive, at.wrapping_add(i));
            assert_same(&fresh, &naive, at.wrapping_add(i));
        }
    }

    #[test]
    fn many_members_answer_as_the_naive_solver(
        members in prop::collection::vec(a_member(150, 20), 100..200),
        at in any::<u64>(),
    ) {
        let mut naive = Naive::default();
        members.iter().cloned().for_each(|m| naive.with(m));
        let placement: Placement = members.into_iter().collect();
        assert_same(&placement, &naive, at);
    }
}

#[test]
fn a_network_that_grew_and_shrank_answers_as_a_fresh_one() {
    let mut naive = Naive::default();
    let mut placement = Placement::empty();
    for n in 0..300 {
        naive.with(member(n, 40, ""));
        placement = placement.with(member(n, 40, ""));
    }
    assert_same(&placement, &naive, 1);
    let full = placement.memory_bytes();
    for n in 0..290 {
        naive.without(&node(n));
        placement = placement.without(&node(n));
    }
    assert_same(&placement, &naive, 2);
    assert!(
        placement.memory_bytes() < full / 10,
        "what left must not be kept"
    );
}

#[test]
fn an_old_snapshot_does_not_change() {
    let old = Placement::empty().with(member(1, 8, "a"));
    let new = old.with(member(2, 8, "b")).without(&node(1));
    assert_eq!(old.owners(&key(0), R), [node(1)]);
    assert_eq!(new.owners(&key(0), R), [node(2)]);
    assert_eq!((old.version(), new.version()), (1, 3));
}

#[test]
fn a_claim_of_too_many_seats_is_cut() {
    let placement = Placement::empty().with(member(1, u32::MAX, ""));
    assert_eq!(placement.get(&node(1)).map(|m| m.seats), Some(MAX_SEATS));
    assert_eq!(placement.with(member(1, MAX_SEATS + 1, "")).version(), 1);
}

#[test]
fn owners_are_of_distinct_domains_where_there_are_enough() {
    let zones = ["a", "b", "c"];
    let members = (0..60).map(|n| member(n, 16, zones[n as usize % 3]));
    let placement: Placement = members.collect();
    for at in 0..500 {
        let owners = placement.owner_set(&key(at));
        let mut domains: Vec<_> = owners
            .iter()
            .map(|n| &placement.get(n).unwrap().domain)
            .collect();
        domains.sort();
        domains.dedup();
        assert_eq!(domains.len(), R);
        assert_eq!(owners[0], placement.closest(&key(at), 1)[0].1);
    }
}

#[test]
fn the_search_for_another_domain_ends() {
    // One domain but for a single seat elsewhere, almost never in reach.
    let mut members: Vec<_> = (0..1000).map(|n| member(n, 16, "a")).collect();
    members.push(member(1000, 1, "b"));
    let placement: Placement = members.into_iter().collect();
    let spread = (0..300).filter(|&at| {
        let closest = placement.closest(&key(at), SPREAD_SEARCH);
        let owners = placement.owner_set(&key(at));
        let within = closest.iter().any(|(_, n)| *n == node(1000));
        assert_eq!(owners.contains(&node(1000)), within);
        assert_eq!(owners.len(), R);
        within
    });
    assert!(spread.count() < 30);
}

#[test]
fn nobody_owns_a_key_of_an_empty_network() {
    assert!(Placement::empty().owner_set(&key(0)).is_empty());
    let seatless = Placement::empty().with(member(1, 0, ""));
    assert_eq!(seatless.len(), 1);
    assert!(seatless.owner_set(&key(0)).is_empty());
    assert!(seatless.closest(&key(0), 5).is_empty());
}

proptest! {
    #[test]
    fn changes_are_what_differs_member_by_member(
        before in prop::collection::btree_map(0..12u64, 1..3u32, 0..12),
        after in prop::collection::btree_map(0..12u64, 1..3u32, 0..12),
    ) {
        let of = |members: &BTreeMap<u64, u32>| {
            let members = members.iter();
            Placement::empty().updated([], members.map(|(number, seats)| member(*number, *seats, "")))
        };
        let (old, new) = (of(&before), of(&after));
        let mut expected: Vec<placement::Change> = (0..12)
            .map(|number| {
                let before = before.get(&number).map(|seats| member(number, *seats, ""));
                let after = after.get(&number).map(|seats| member(number, *seats, ""));
                placement::Change { before, after }
            })
            .filter(|change| change.before != change.after)
            .collect();
        let id = |change: &placement::Change| change.before.as_ref().or(change.after.as_ref()).map(|m| m.node);
        expected.sort_by_key(id);
        prop_assert_eq!(&new.changes_since(&old)[..], &expected[..]);
        prop_assert!(old.changes_since(&old).is_empty());
    }
}
