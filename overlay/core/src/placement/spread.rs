//! Whom of a key's owners to ask, so that what one sender asks for follows
//! capacity however uneven the keys are.
//!
//! The closest owner is asked, as long as it got no more of this sender's
//! requests of late than its share and an eighth; past that the next one that
//! is below its bound: consistent hashing with bounded loads (Mirrokni, Thorup
//! and Zadimoghaddam, 2018), over the owners only. Every sender keeps the bound
//! by itself, so their sum keeps it, and none needs to know of the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use crate::keyspace::NodeId;

use super::Placement;

/// Requests remembered; past it all counts are halved, so that old ones fade.
const WINDOW: u32 = 4096;
/// How far over its share a super-node may be: one part in this many...
const OVER: u64 = 8;
/// ...and so many requests, which is chance and not load.
const CHANCE: u64 = 2;

/// What one sender asked of each super-node lately.
#[derive(Debug, Default)]
pub struct Spread {
    asked: RwLock<HashMap<NodeId, AtomicU32>>,
    total: AtomicU32,
}

impl Spread {
    /// Puts first whom to ask first; the order of the others stays.
    pub fn order(&self, placement: &Placement, nodes: &mut [NodeId]) {
        let all_seats = placement.total_seats().max(1);
        let total = u64::from(self.total.load(Relaxed));
        let asked = self.asked.read().unwrap_or_else(PoisonError::into_inner);
        let of = |node: &NodeId| {
            let count = asked.get(node).map_or(0, |count| count.load(Relaxed));
            let seats = placement.get(node).map_or(0, |member| member.seats);
            (u64::from(count), u64::from(seats.max(1)))
        };
        // asked <= total * seats / all_seats * (1 + 1 / OVER) + CHANCE
        let within = |node: &NodeId| {
            let (count, seats) = of(node);
            count.saturating_sub(CHANCE) * all_seats * OVER <= total * seats * (OVER + 1)
        };
        let least = || {
            let (mut best, mut at) = (None, 0);
            for (index, node) in nodes.iter().enumerate() {
                let (count, seats) = of(node);
                // count / seats < best_count / best_seats
                if best.is_none_or(|(least, of)| count * of < least * seats) {
                    (best, at) = (Some((count, seats)), index);
                }
            }
            at
        };
        let first = nodes.iter().position(within).unwrap_or_else(least);
        if let Some(front) = nodes.get_mut(..=first) {
            front.rotate_right(1);
        }
    }

    /// Counts one request to `node`.
    pub fn count(&self, node: &NodeId) {
        if !self.count_known(node) {
            let mut asked = self.asked.write().unwrap_or_else(PoisonError::into_inner);
            *asked.entry(*node).or_default().get_mut() += 1;
        }
        if self.total.fetch_add(1, Relaxed) + 1 >= WINDOW {
            self.fade();
        }
    }

    fn count_known(&self, node: &NodeId) -> bool {
        let asked = self.asked.read().unwrap_or_else(PoisonError::into_inner);
        let count = asked.get(node);
        count.inspect(|count| {
            count.fetch_add(1, Relaxed);
        });
        count.is_some()
    }

    fn fade(&self) {
        let mut asked = self.asked.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        if self.total.load(Relaxed) < WINDOW {
            return;
        }
        let mut kept = 0;
        asked.retain(|_, count| {
            *count.get_mut() /= 2;
            kept += *count.get_mut();
            *count.get_mut() > 0
        });
        self.total.store(kept, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Member, R};
    use super::*;
    use crate::keyspace::Key;

    fn placement(seats: &[u32]) -> Placement {
        let member = |(index, seats): (usize, &u32)| Member {
            node: NodeId([index as u8 + 1; 32]),
            seats: *seats,
            domain: "".into(),
        };
        seats.iter().enumerate().map(member).collect()
    }

    /// The most asked super-node by capacity, over the mean.
    fn asked(placement: &Placement, keys: impl Iterator<Item = u64>) -> f64 {
        let spread = Spread::default();
        let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut total = 0;
        for key in keys {
            let key = Key(*blake3::hash(&key.to_be_bytes()).as_bytes());
            let mut owners = placement.owners(&key, R);
            spread.order(placement, &mut owners);
            spread.count(&owners[0]);
            *counts.entry(owners[0]).or_default() += 1;
            total += 1;
        }
        let mean = f64::from(total) / placement.total_seats() as f64;
        let per = |member: &Member| {
            let count = counts.get(&member.node).copied().unwrap_or(0);
            f64::from(count) / f64::from(member.seats) / mean
        };
        placement.members().map(per).fold(0.0, f64::max)
    }

    #[test]
    fn keys_asked_for_alike_go_out_by_capacity() {
        let placement = placement(&[249, 218, 189, 84, 120, 256]);
        let most = asked(&placement, 0..20_000);
        assert!(most <= 1.15, "{most}");
    }

    #[test]
    fn a_few_hot_keys_are_spread_over_their_owners() {
        let placement = placement(&[249, 218, 189, 84, 120, 256]);
        // Half of all requests are for five keys.
        let hot = |i: u64| if i.is_multiple_of(2) { i % 5 } else { i };
        let most = asked(&placement, (0..20_000).map(hot));
        assert!(most <= 1.2, "{most}");
    }

    #[test]
    fn one_key_is_shared_by_all_its_owners() {
        let placement = placement(&[100, 100, 100]);
        let most = asked(&placement, (0..3_000).map(|_| 7));
        assert!(most <= 1.15, "{most}");
    }

    #[test]
    fn the_closest_owner_is_asked_while_nobody_is_busy() {
        let placement = placement(&[100, 100, 100]);
        let spread = Spread::default();
        let owners = placement.owners(&Key([9; 32]), R);
        let mut ordered = owners.clone();
        spread.order(&placement, &mut ordered);
        assert_eq!(ordered, owners);
        spread.order(&placement, &mut []);
    }
}
