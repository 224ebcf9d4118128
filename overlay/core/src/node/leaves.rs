//! What a super-node knows of the leaves that it is a home of, for operators.
//! Decides nothing.

use std::ops::Bound;

use super::Core;
use crate::keyspace::NodeId;

/// A leaf, as a home of it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafStatus {
    /// Who it is.
    pub node: NodeId,
    /// This is the first of its homes, not the second.
    pub first: bool,
    /// Its other home, as it told last.
    pub other_home: Option<NodeId>,
    /// It passes all criteria, by its own word.
    pub eligible: bool,
    /// What it offers to lend, bits a second.
    pub claim_bps: u64,
}

impl Core {
    /// Leaves homed here, by node id: at most `limit`, those after `after`.
    pub fn leaves(&self, after: Option<NodeId>, limit: usize) -> Vec<LeafStatus> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let leaves = self.host.iter().map(|host| &host.leaves);
        let leaves = leaves.flat_map(|leaves| leaves.range((from, Bound::Unbounded)));
        leaves
            .take(limit)
            .map(|(node, hosted)| LeafStatus {
                node: *node,
                first: hosted.first,
                other_home: hosted.other_home,
                eligible: hosted.candidacy.eligible,
                claim_bps: hosted.candidacy.claim_bps,
            })
            .collect()
    }
}
