//! Lookups over networks in which every node knows its own table only.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{key, member, peer, true_closest};
use crate::kademlia::{Lookup, MAX_ANSWER, Peer, RoutingTable, Step, TableConfig};
use crate::keyspace::{Key, NodeId};
use crate::placement::R;
use crate::time::Time;

/// A network whose tables are made when they are first looked at.
struct Network {
    peers: Vec<Peer>,
    total: usize,
    tables: BTreeMap<NodeId, RoutingTable<()>>,
}

impl Network {
    fn new(peers: Vec<Peer>, total: usize) -> Self {
        Self {
            peers,
            total,
            tables: BTreeMap::new(),
        }
    }

    fn of(nodes: u64, seats: u32, total: usize) -> Self {
        Self::new((0..nodes).map(|n| peer(n, seats)).collect(), total)
    }

    /// What `of` knows: it heard of everybody once, in an order of its own.
    fn table(&mut self, of: Peer) -> &mut RoutingTable<()> {
        self.tables.entry(of.node).or_insert_with(|| {
            let config = TableConfig {
                total: self.total,
                ..TableConfig::leaf()
            };
            let mut table = RoutingTable::new(of.positions(), config);
            let mut others: Vec<_> = self.peers.iter().filter(|p| p.node != of.node).collect();
            others.sort_by_key(|p| Key(p.node.0).distance(&Key(of.node.0)).0[4..12].to_vec());
            for other in others {
                table.heard(Time(0), member(*other), ());
                table.answered(Time(0), &other.node, 0);
            }
            table.placement();
            table
        })
    }

    /// Runs a lookup from `from`, with `dead` peers that never answer.
    fn look_up(&mut self, from: Peer, target: Key, want: usize, dead: &[Peer]) -> Lookup {
        let known = self.table(from).closest(&target, MAX_ANSWER);
        let mut lookup = Lookup::new(from.node, target, want, known);
        let mut under_way = Vec::new();
        loop {
            match lookup.next_step() {
                Step::Ask(peer) => under_way.push(peer),
                Step::Done => return lookup,
                Step::Wait => {
                    let peer = under_way.remove(0);
                    if dead.contains(&peer) {
                        lookup.failed(&peer.node);
                    } else {
                        let closer = self.table(peer).closest(&target, MAX_ANSWER);
                        lookup.answered(&peer.node, closer);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_lookup_finds_the_closest_of_nodes_with_one_seat(
        nodes in 30..300_u64,
        target in any::<u64>(),
        from in any::<prop::sample::Index>(),
    ) {
        let mut network = Network::of(nodes, 1, 64);
        let from = network.peers[from.index(nodes as usize)];
        let target = key(target);
        let others: Vec<_> = network.peers.iter().copied().filter(|p| *p != from).collect();
        let found = network.look_up(from, target, R, &[]).result();
        prop_assert_eq!(found, true_closest(&others, &target, R));
    }

    #[test]
    fn a_lookup_finds_the_closest_of_nodes_with_many_seats(
        seats in prop::collection::vec(0..16_u32, 30..100),
        target in any::<u64>(),
    ) {
        let peers: Vec<_> = (0..).zip(&seats).map(|(n, s)| peer(n, *s)).collect();
        let mut network = Network::new(peers, 64);
        let from = peer(u64::MAX, 8);
        let target = key(target);
        let found = network.look_up(from, target, R, &[]).result();
        prop_assert_eq!(found, true_closest(&network.peers, &target, R));
    }
}

#[test]
fn with_everybody_known_it_takes_one_step() {
    let mut network = Network::of(60, 8, 1000);
    for at in 0..10 {
        let from = peer(1000, 8);
        let lookup = network.look_up(from, key(at), R, &[]);
        assert_eq!(lookup.result(), true_closest(&network.peers, &key(at), R));
        assert_eq!((lookup.hops(), lookup.asked()), (1, R));
    }
}

#[test]
fn the_dead_are_passed_by() {
    let mut network = Network::of(200, 1, 64);
    for at in 0..10 {
        let dead = true_closest(&network.peers, &key(at), 2);
        let from = peer(1000, 1);
        let lookup = network.look_up(from, key(at), R, &dead);
        let alive: Vec<_> = network
            .peers
            .iter()
            .copied()
            .filter(|p| !dead.contains(p))
            .collect();
        assert_eq!(lookup.result(), true_closest(&alive, &key(at), R));
    }
}

/// Median hops, the share of lookups that found the true closest, and mean
/// questions.
fn survey(network: &mut Network, lookups: u64, want: usize) -> (usize, f64, f64) {
    let mut hops = Vec::new();
    let (mut found, mut asked) = (0, 0);
    for at in 0..lookups {
        let from = network.peers[(at as usize * 37) % network.peers.len()];
        let lookup = network.look_up(from, key(at), want, &[]);
        let others: Vec<_> = network
            .peers
            .iter()
            .copied()
            .filter(|p| *p != from)
            .collect();
        found += u64::from(lookup.result().first() == true_closest(&others, &key(at), 1).first());
        hops.push(lookup.hops());
        asked += lookup.asked();
    }
    hops.sort_unstable();
    let share = found as f64 / lookups as f64;
    (hops[hops.len() / 2], share, asked as f64 / lookups as f64)
}

#[test]
fn of_2_500_nodes_a_table_of_128_finds_the_closest_in_three_hops() {
    let mut network = Network::of(2_500, 1, 128);
    let (median, found, asked) = survey(&mut network, 40, R);
    println!("2500 nodes, tables of 128: median {median} hops, {asked} questions, {found} found");
    assert!(median <= 3, "median {median} hops");
    assert!(found >= 0.95, "found {found}");
}
