//! The definition of placement, as plainly as it can be put: sort everything.

use std::collections::BTreeMap;

use crate::keyspace::{Key, NodeId, keys};
use crate::placement::{MAX_SEATS, Member, SPREAD_SEARCH};

#[derive(Clone, Default)]
pub(super) struct Naive {
    pub(super) members: BTreeMap<NodeId, Member>,
}

impl Naive {
    pub(super) fn with(&mut self, mut member: Member) {
        member.seats = member.seats.min(MAX_SEATS);
        self.members.insert(member.node, member);
    }

    pub(super) fn without(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    pub(super) fn closest(&self, key: &Key, count: usize) -> Vec<(Key, NodeId)> {
        let mut order: Vec<(Key, NodeId)> = self
            .members
            .values()
            .filter_map(|member| {
                (0..member.seats)
                    .map(|i| keys::seat(&member.node, i))
                    .min_by_key(|seat| key.distance(seat))
                    .map(|seat| (seat, member.node))
            })
            .collect();
        order.sort_by_key(|(seat, _)| key.distance(seat));
        order.truncate(count);
        order
    }

    pub(super) fn owners(&self, key: &Key, count: usize) -> Vec<NodeId> {
        let order = self.closest(key, SPREAD_SEARCH);
        let mut out: Vec<&Member> = Vec::new();
        for spread in [true, false] {
            for (_, node) in &order {
                let member = &self.members[node];
                let taken = out.iter().any(|o| {
                    o.node == *node
                        || (spread && !member.domain.is_empty() && o.domain == member.domain)
                });
                if out.len() < count && !taken {
                    out.push(member);
                }
            }
        }
        out.iter().map(|member| member.node).collect()
    }
}
