//! Lookups among liars: they end, and the honest answer survives.

use proptest::prelude::*;

use super::{key, peer, true_closest};
use crate::kademlia::{ALPHA, Lookup, MAX_ASKED, Peer, Step};
use crate::keyspace::NodeId;

const ME: NodeId = NodeId([0; 32]);

/// Asks until the lookup is over or waits.
fn ask_all(lookup: &mut Lookup) -> Vec<Peer> {
    let mut asked = Vec::new();
    while let Step::Ask(peer) = lookup.next_step() {
        asked.push(peer);
    }
    asked
}

proptest! {
    /// Any answers in any order: it ends, asks nobody twice, never too many at
    /// once, and its result is what answered, closest first.
    #[test]
    fn it_ends_whatever_it_is_told(
        answers in prop::collection::vec(
            prop::option::of(prop::collection::vec((0..80_u64, 0..4_u32), 0..40)),
            1..60,
        ),
        want in 0..50_usize,
    ) {
        let target = key(1);
        let mut lookup = Lookup::new(ME, target, want, (0..5).map(|n| peer(n, 2)));
        let mut under_way: Vec<Peer> = Vec::new();
        let mut asked: Vec<Peer> = Vec::new();
        let mut answered: Vec<Peer> = Vec::new();
        let mut answers = answers.iter().cycle();
        loop {
            match lookup.next_step() {
                Step::Ask(peer) => {
                    prop_assert!(!asked.iter().any(|p| p.node == peer.node));
                    asked.push(peer);
                    under_way.push(peer);
                    prop_assert!(under_way.len() <= ALPHA);
                }
                Step::Wait => {
                    prop_assert!(!under_way.is_empty());
                    let peer = under_way.pop().unwrap();
                    match answers.next().unwrap() {
                        Some(told) => {
                            let told = told.iter().map(|(n, seats)| super::peer(*n, *seats));
                            lookup.answered(&peer.node, told);
                            answered.push(peer);
                        }
                        None => lookup.failed(&peer.node),
                    }
                }
                Step::Done => break,
            }
        }
        prop_assert!(asked.len() <= MAX_ASKED);
        prop_assert_eq!(lookup.asked(), asked.len());
        let closest = true_closest(&answered, &target, want.min(MAX_ASKED));
        prop_assert_eq!(lookup.result(), closest);
    }
}

#[test]
fn answers_that_nobody_asked_for_are_ignored() {
    let mut lookup = Lookup::new(ME, key(0), 3, [peer(1, 1)]);
    lookup.answered(&peer(1, 1).node, [peer(2, 1)]);
    lookup.answered(&peer(9, 1).node, [peer(3, 1)]);
    lookup.failed(&peer(1, 1).node);
    assert_eq!(ask_all(&mut lookup), [peer(1, 1)]);
    lookup.answered(&peer(1, 1).node, []);
    lookup.answered(&peer(1, 1).node, [peer(4, 1)]);
    assert_eq!(lookup.next_step(), Step::Done);
    assert_eq!(lookup.result(), [peer(1, 1)]);
}

#[test]
fn those_who_tell_of_each_other_and_of_the_asker_lead_nowhere() {
    let (a, b) = (peer(1, 1), peer(2, 1));
    let mut lookup = Lookup::new(ME, key(0), 3, [a]);
    assert_eq!(ask_all(&mut lookup), [a]);
    let me = Peer { node: ME, seats: 9 };
    lookup.answered(&a.node, [a, me, b, b]);
    assert_eq!(ask_all(&mut lookup), [b]);
    lookup.answered(&b.node, [b, a]);
    assert_eq!(lookup.next_step(), Step::Done);
    assert_eq!(lookup.asked(), 2);
}

#[test]
fn a_source_of_dead_ends_is_not_followed_further() {
    let target = key(0);
    let everybody: Vec<_> = (0..2000).map(|n| peer(n, 1)).collect();
    let ranked = true_closest(&everybody, &target, 2000);
    // A liar names sixteen that do not exist and are closer than anybody;
    // honest peers stand by.
    let (invented, honest) = (&ranked[..16], &ranked[100..105]);
    let liar = ranked[99];
    let known = honest.iter().copied().chain([liar]);
    let mut lookup = Lookup::new(ME, target, 3, known);
    let mut under_way = Vec::new();
    loop {
        match lookup.next_step() {
            Step::Ask(peer) => under_way.push(peer),
            Step::Done => break,
            Step::Wait => match under_way.remove(0) {
                peer if peer == liar => lookup.answered(&liar.node, invented.iter().copied()),
                peer if invented.contains(&peer) => lookup.failed(&peer.node),
                peer => lookup.answered(&peer.node, []),
            },
        }
    }
    let result = lookup.result();
    assert_eq!(result, [liar, honest[0], honest[1]]);
    assert!(lookup.asked() <= 3 + ALPHA + 1, "asked {}", lookup.asked());
}

#[test]
fn nobody_known_is_the_end_at_once() {
    let mut lookup = Lookup::new(ME, key(0), 3, []);
    assert_eq!(lookup.next_step(), Step::Done);
    assert!(lookup.result().is_empty());
    assert_eq!((lookup.hops(), lookup.asked()), (0, 0));
}
