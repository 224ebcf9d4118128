//! Who measures a candidate: the voters with the lowest lots, one a network.
//!
//! A lot is a hash of the race's beacon, which officer and auditors draw
//! together, so neither the candidate nor the officer picks the jury. A voter
//! whose past ballots were far off is drawn less often, never shut out: it may
//! have been the honest one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::keyspace::{Key, NodeId};

/// The lot of `voter` for jury number `jury` of the race of `candidate`. The
/// lowest lots serve.
pub fn lot(beacon: &Key, jury: u32, voter: &NodeId, candidate: &NodeId) -> Key {
    Key::hash(
        "lot",
        &[&beacon.0, &jury.to_le_bytes(), &voter.0, &candidate.0],
    )
}

/// Someone who may be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Who it is.
    pub node: NodeId,
    /// Its network, as [`prefix`](crate::contact::prefix) names it.
    pub prefix: Arc<str>,
    /// What its past ballots were worth.
    pub standing: Standing,
}

/// A voter's chance to be drawn, in sixteenths of an untainted voter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing(u8);

impl Standing {
    /// The chance of a voter nothing is known against.
    pub const FULL: Standing = Standing(16);

    /// The chance in sixteenths, 1 to 16.
    pub fn sixteenths(self) -> u8 {
        self.0
    }

    /// After a ballot far off the tally: half the chance, at least 1/16.
    #[must_use]
    pub fn worse(self) -> Self {
        Self((self.0 / 2).max(1))
    }

    /// After a ballot close to the tally: a sixteenth more, at most full.
    #[must_use]
    pub fn better(self) -> Self {
        Self((self.0 + 1).min(Self::FULL.0))
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self::FULL
    }
}

/// The standings of voters that were ever far off, bounded.
#[derive(Clone, Debug)]
pub struct Standings {
    tainted: BTreeMap<NodeId, Standing>,
    limit: usize,
}

impl Standings {
    /// Remembers at most `limit` voters; past it, those least against whom is
    /// known are forgotten first.
    pub fn new(limit: usize) -> Self {
        Self {
            tainted: BTreeMap::new(),
            limit,
        }
    }

    /// What is known of `voter`.
    pub fn of(&self, voter: &NodeId) -> Standing {
        self.tainted.get(voter).copied().unwrap_or_default()
    }

    /// Takes note of one ballot: `near` the tally, or far off.
    pub fn note(&mut self, voter: NodeId, near: bool) {
        let old = self.of(&voter);
        let new = if near { old.better() } else { old.worse() };
        if new == Standing::FULL {
            self.tainted.remove(&voter);
            return;
        }
        self.tainted.insert(voter, new);
        if self.tainted.len() > self.limit {
            let mildest = self.tainted.iter().max_by_key(|(_, s)| **s);
            if let Some(node) = mildest.map(|(node, _)| *node) {
                self.tainted.remove(&node);
            }
        }
    }

    /// How many voters are remembered.
    pub fn len(&self) -> usize {
        self.tainted.len()
    }

    /// Whether nothing is known against anyone.
    pub fn is_empty(&self) -> bool {
        self.tainted.is_empty()
    }
}

/// Draws up to `k` voters for jury number `jury`: lowest lots first, at most
/// one a network, never the candidate, nobody of `excluded` (those who sit
/// out, or cannot be reached), each node once. The order of `electorate` does
/// not matter. To replace jurors who sit out, draw again with them excluded:
/// the others stay as they were, except that another voter of a freed network
/// may come up.
pub fn draw(
    electorate: impl IntoIterator<Item = Voter>,
    beacon: &Key,
    jury: u32,
    candidate: &NodeId,
    k: usize,
    excluded: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let mut lots: Vec<(u128, Key, Voter)> = electorate
        .into_iter()
        .filter(|voter| voter.node != *candidate && !excluded.contains(&voter.node))
        .map(|voter| {
            let lot = lot(beacon, jury, &voter.node, candidate);
            (weighted(&lot, voter.standing), lot, voter)
        })
        .collect();
    lots.sort_unstable_by_key(|(length, lot, _)| (*length, *lot));
    let mut networks: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut drawn = Vec::with_capacity(k.min(lots.len()));
    for (_, _, voter) in lots {
        if drawn.len() == k {
            break;
        }
        if networks.insert(voter.prefix) {
            drawn.push(voter.node);
        }
    }
    drawn
}

/// The lot, longer the worse the standing: with half the chance, a voter's
/// lots lie twice as far apart. Whole numbers, so that every machine agrees.
fn weighted(lot: &Key, standing: Standing) -> u128 {
    u128::from(lot.prefix()) * u128::from(Standing::FULL.0) / u128::from(standing.0)
}

/// How many distinct networks can vote on `candidate`: the size of the largest
/// jury that can be drawn. Where it is no more than a full jury, all three
/// draws are the same set.
pub fn networks<'a>(electorate: impl IntoIterator<Item = &'a Voter>, candidate: &NodeId) -> usize {
    electorate
        .into_iter()
        .filter(|voter| voter.node != *candidate)
        .map(|voter| &voter.prefix)
        .collect::<BTreeSet<_>>()
        .len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: usize) -> NodeId {
        NodeId(Key::hash("test voter", &[&i.to_le_bytes()]).0)
    }

    fn electorate(size: usize, per_network: usize) -> Vec<Voter> {
        (0..size)
            .map(|i| Voter {
                node: node(i),
                prefix: format!("net-{}", i / per_network).into(),
                standing: Standing::FULL,
            })
            .collect()
    }

    fn draw31(
        voters: Vec<Voter>,
        beacon: u8,
        jury: u32,
        excluded: &BTreeSet<NodeId>,
    ) -> Vec<NodeId> {
        draw(voters, &Key([beacon; 32]), jury, &node(0), 31, excluded)
    }

    #[test]
    fn a_jury_has_one_voter_a_network_and_never_the_candidate() {
        let drawn = draw31(electorate(200, 4), 1, 0, &BTreeSet::new());
        assert_eq!(drawn.len(), 31);
        let index = |n: &NodeId| (0..200).position(|i| node(i) == *n).unwrap();
        let networks: BTreeSet<_> = drawn.iter().map(|n| index(n) / 4).collect();
        assert_eq!(networks.len(), 31);
        assert!(!drawn.contains(&node(0)));
    }

    #[test]
    fn a_draw_depends_on_beacon_and_jury_and_not_on_order() {
        let none = BTreeSet::new();
        let mut reversed = electorate(200, 1);
        reversed.reverse();
        let first = draw31(electorate(200, 1), 1, 0, &none);
        assert_eq!(first, draw31(reversed, 1, 0, &none));
        assert_ne!(first, draw31(electorate(200, 1), 1, 1, &none));
        assert_ne!(first, draw31(electorate(200, 1), 2, 0, &none));
    }

    #[test]
    fn whoever_sits_out_is_replaced_and_the_others_stay() {
        let first = draw31(electorate(200, 1), 1, 0, &BTreeSet::new());
        let out = BTreeSet::from([first[3], first[9]]);
        let second = draw31(electorate(200, 1), 1, 0, &out);
        assert_eq!(second.len(), 31);
        assert!(second.iter().all(|n| !out.contains(n)));
        assert_eq!(first.iter().filter(|n| second.contains(n)).count(), 29);
    }

    #[test]
    fn a_tainted_voter_is_drawn_about_as_often_as_its_standing_says() {
        let mut voters = electorate(1_000, 1);
        for voter in &mut voters[1..501] {
            voter.standing = Standing(4);
        }
        let tainted: BTreeSet<_> = voters[1..501].iter().map(|v| v.node).collect();
        let drawn: Vec<_> = (0..60)
            .flat_map(|beacon| draw31(voters.clone(), beacon, 0, &BTreeSet::new()))
            .collect();
        let share =
            drawn.iter().filter(|n| tainted.contains(n)).count() as f64 / drawn.len() as f64;
        assert!((0.17..0.23).contains(&share), "{share}");
    }

    #[test]
    fn standings_are_bounded_and_recover() {
        let mut standings = Standings::new(2);
        for _ in 0..9 {
            standings.note(node(1), false);
        }
        assert_eq!(standings.of(&node(1)).sixteenths(), 1);
        standings.note(node(2), false);
        standings.note(node(3), false);
        assert_eq!(standings.len(), 2);
        assert_eq!(
            standings.of(&node(1)).sixteenths(),
            1,
            "the worst stay known"
        );
        for _ in 0..15 {
            standings.note(node(1), true);
        }
        assert_eq!(standings.of(&node(1)), Standing::FULL);
    }

    #[test]
    fn networks_count_once() {
        assert_eq!(networks(&electorate(200, 4), &node(0)), 50);
        assert_eq!(networks(&electorate(5, 1), &node(0)), 4);
    }
}
