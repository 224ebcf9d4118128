//! Leaves by their homes, a page at a time: each super-node that is asked tells
//! its next few, and those that come first are a page.

use std::collections::{BTreeMap, BTreeSet};

use canopy_core::keyspace::NodeId;
use canopy_proto::control as pb;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply};
use tonic::Status;

use super::poll::{WRONG_KIND, ask_all, reason};
use super::survey::Member;
use super::{convert, page};
use crate::event::unix_ms;
use crate::host::{Host, MAX_LEAVES_TOLD};

/// Leaves of a page that names no size.
const USUAL_PAGE: u32 = 100;
/// Super-nodes asked for one page.
const MAX_ASKED: usize = 1024;
/// Asked of each super-node besides its due part of a page, since nobody's leaves
/// come evenly.
const SLACK: usize = 16;

/// A page that was asked for, checked before anybody is asked.
pub(super) struct Query {
    size: usize,
    after: Option<NodeId>,
    /// Of the page before: the home that was asked for, or nothing.
    home_before: Option<String>,
    home: String,
}

impl Query {
    pub(super) fn of(request: pb::ListLeavesRequest) -> Result<Self, Status> {
        let size = page::size(request.page_size, USUAL_PAGE, MAX_LEAVES_TOLD as u32)?;
        let (after, home_before) = match request.page_token.as_str() {
            "" => (None, None),
            token => {
                let (after, home) = token.split_once('/').ok_or_else(wrong_token)?;
                let after = after.parse().map_err(|_| wrong_token())?;
                (Some(after), Some(home.to_owned()))
            }
        };
        Ok(Self {
            size,
            after,
            home_before,
            home: request.home,
        })
    }

    /// Who is asked.
    fn homes(&self, members: &[Member]) -> Result<(Vec<NodeId>, String), Status> {
        let (homes, home) = match self.home.as_str() {
            "" => {
                let serving = members.iter().filter(|member| member.serves());
                (serving.map(|member| member.node).collect(), String::new())
            }
            text => {
                let member = convert::find(members, text)?;
                if !member.serves() {
                    return Err(Status::failed_precondition(format!(
                        "home: {text} is {} and has no leaves; ask for one that serves",
                        member.state.as_str()
                    )));
                }
                (vec![member.node], member.node.to_string())
            }
        };
        match &self.home_before {
            Some(before) if *before != home => Err(wrong_token()),
            _ => Ok((homes, home)),
        }
    }

    pub(super) async fn page(
        &self,
        host: &Host,
        members: &[Member],
    ) -> Result<pb::ListLeavesReply, Status> {
        let (homes, home) = self.homes(members)?;
        let each = match homes.len() {
            0 | 1 => self.size,
            several => self.size.min(2 * self.size / several + SLACK),
        };
        let ask = inspect::What::Leaves(wire::LeavesAsk {
            after: self.after.map(NodeId::to_bytes).unwrap_or_default(),
            limit: each as u32,
        });
        let asked = homes.clone().into_iter().take(MAX_ASKED);
        let asked = asked.map(|node| (node, ask.clone()));
        let mut freshness = pb::Freshness {
            of: homes.len() as u32,
            ..Default::default()
        };
        let mut silent: BTreeSet<NodeId> = homes.iter().copied().collect();
        let mut missing = BTreeMap::new();
        let mut told = Vec::new();
        for (node, answer) in ask_all(host, asked).await {
            silent.remove(&node);
            match answer {
                Ok(inspect_reply::What::Leaves(leaves)) => told.push((node, leaves)),
                Ok(_) => _ = missing.insert(node, WRONG_KIND.to_owned()),
                Err(error) => _ = missing.insert(node, reason(error)),
            }
        }
        let late = silent
            .into_iter()
            .map(|node| (node, "was not asked in time".to_owned()));
        missing.extend(late);
        freshness.reached = told.len() as u32;
        let named = missing.into_iter().take(convert::MAX_MISSING);
        freshness.missing = named
            .map(|(node, reason)| pb::Missing {
                node_id: node.to_string(),
                reason,
            })
            .collect();
        let homes = told.iter().map(|(_, leaves)| u64::from(leaves.total)).sum();
        let (leaves, more) = merge(told, self.after, self.size, unix_ms());
        let last = leaves.last().filter(|_| more);
        Ok(pb::ListLeavesReply {
            next_page_token: last
                .map_or_else(String::new, |leaf| format!("{}/{home}", leaf.node_id)),
            leaves,
            homes,
            freshness: Some(freshness),
        })
    }
}

fn wrong_token() -> Status {
    Status::invalid_argument("page_token: it is of no list of this home; begin again without one")
}

/// The first leaves of what several homes told, and whether more follow. Where a
/// home told not all it has, others' leaves past its last one wait for the next
/// page.
fn merge(
    told: Vec<(NodeId, wire::Leaves)>,
    after: Option<NodeId>,
    size: usize,
    now_ms: u64,
) -> (Vec<pb::Leaf>, bool) {
    let mut bound: Option<NodeId> = None;
    let mut all: BTreeMap<NodeId, Vec<(NodeId, wire::LeafRecord)>> = BTreeMap::new();
    for (home, leaves) in told {
        let mut last = None;
        for leaf in leaves.leaves.into_iter().take(MAX_LEAVES_TOLD) {
            // It comes from outside.
            let Some(node) = NodeId::from_slice(&leaf.node_id).filter(|node| Some(*node) > after)
            else {
                continue;
            };
            last = last.max(Some(node));
            let at = all.entry(node).or_default();
            if at.iter().all(|(known, _)| *known != home) {
                at.push((home, leaf));
            }
        }
        if let (true, Some(last)) = (leaves.more, last) {
            bound = Some(bound.map_or(last, |bound| bound.min(last)));
        }
    }
    let listed = all.len();
    let within = |node: &NodeId| bound.is_none_or(|bound| *node <= bound);
    let leaves = all.into_iter().filter(|(node, _)| within(node)).take(size);
    let leaves: Vec<pb::Leaf> = leaves.map(|(node, at)| leaf(node, at, now_ms)).collect();
    let more = bound.is_some() || leaves.len() < listed;
    (leaves, more)
}

/// A leaf as those of its homes see it that were asked: one at least.
fn leaf(node: NodeId, at: Vec<(NodeId, wire::LeafRecord)>, now_ms: u64) -> pb::Leaf {
    let mut homes: Vec<pb::LeafHome> = Vec::new();
    for (home, of) in &at {
        homes.push(pb::LeafHome {
            node_id: home.to_string(),
            confirmed: true,
            first: of.first,
            since_ms: now_ms.saturating_sub(of.age_ms),
            round_trip_us: of.round_trip_us,
        });
    }
    for (_, of) in &at {
        let other = NodeId::from_slice(&of.other_home);
        let other = other.filter(|node| at.iter().all(|(home, _)| home != node));
        if let (Some(node), 1) = (other, homes.len()) {
            homes.push(pb::LeafHome {
                node_id: node.to_string(),
                first: !of.first,
                ..Default::default()
            });
        }
    }
    homes.sort_by_key(|home| !home.first);
    let failed = at
        .iter()
        .map(|(_, of)| &of.failed)
        .find(|failed| !failed.is_empty());
    let failed = failed.map_or(&[][..], Vec::as_slice).iter();
    let failed = failed.map(|criterion| pb::Criterion {
        name: criterion.name.clone(),
        value: criterion.value.clone(),
        threshold: criterion.threshold.clone(),
        pass: false,
    });
    let first = at.first().map(|(_, of)| of.clone()).unwrap_or_default();
    pb::Leaf {
        node_id: node.to_string(),
        addr: first.addr,
        agent: first.agent,
        wire_version: first.wire_version,
        homes,
        candidate: first.eligible,
        claim_bps: first.claim_bps,
        failed: failed.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn record(n: u8, other: u8, first: bool) -> wire::LeafRecord {
        wire::LeafRecord {
            node_id: home(n).to_bytes(),
            other_home: home(other).to_bytes(),
            first,
            age_ms: 10,
            ..Default::default()
        }
    }

    /// What home `at` tells of its leaves after one, a few at a time.
    fn tell(at: u8, leaves: &[(u8, u8, u8)], after: Option<NodeId>, limit: usize) -> wire::Leaves {
        let here = leaves.iter().filter_map(|(leaf, first, second)| match at {
            at if at == *first => Some(record(*leaf, *second, true)),
            at if at == *second => Some(record(*leaf, *first, false)),
            _ => None,
        });
        let mut here: Vec<wire::LeafRecord> = here
            .filter(|leaf| NodeId::from_slice(&leaf.node_id) > after)
            .collect();
        let more = here.len() > limit;
        here.truncate(limit);
        wire::Leaves {
            leaves: here,
            more,
            total: 0,
        }
    }

    #[test]
    fn pages_hold_every_leaf_once_with_both_homes_whatever_homes_tell_at_once() {
        // Leaves 1 to 40; most at home 201, so that the others' come ahead.
        let leaves: Vec<(u8, u8, u8)> = (1..=40)
            .map(|n| match n % 5 {
                0 => (n, 202, 203),
                _ => (n, 201, 202 + n % 2),
            })
            .collect();
        for (size, each) in [(3, 2), (7, 3), (100, 4), (100, 100), (1, 1)] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let homes = [201, 202, 203];
                let told = homes.map(|at| (home(at), tell(at, &leaves, after, each)));
                let (page, more) = merge(told.into(), after, size, 100);
                assert!(page.len() <= size && (!more || !page.is_empty()));
                after = page.last().map(|leaf| leaf.node_id.parse().unwrap());
                seen.extend(page);
                if !more {
                    break;
                }
            }
            assert_eq!(seen.len(), leaves.len(), "{size} {each}");
            for (leaf, (n, first, second)) in seen.iter().zip(&leaves) {
                let homes: Vec<(String, bool)> = leaf
                    .homes
                    .iter()
                    .map(|home| (home.node_id.clone(), home.first))
                    .collect();
                let wanted = [(home(*first), true), (home(*second), false)];
                assert_eq!(leaf.node_id, home(*n).to_string());
                assert_eq!(homes, wanted.map(|(node, first)| (node.to_string(), first)));
            }
        }
    }

    #[test]
    fn a_home_that_was_not_asked_is_named_and_not_confirmed() {
        let told = vec![(home(201), tell(201, &[(1, 201, 202)], None, 5))];
        let (page, more) = merge(told, None, 5, 100);
        let homes = &page[0].homes;
        assert!(!more && homes[0].confirmed && homes[0].since_ms == 90);
        assert!(!homes[1].confirmed && homes[1].since_ms == 0);
    }

    #[test]
    fn a_home_that_makes_no_sense_ends_no_list_and_repeats_nothing() {
        let wrong = wire::Leaves {
            leaves: vec![
                record(3, 0, true),
                record(1, 0, true),
                wire::LeafRecord::default(),
            ],
            more: true,
            total: 9,
        };
        let empty = wire::Leaves {
            more: true,
            ..Default::default()
        };
        let told = vec![(home(201), wrong), (home(202), empty)];
        let (page, _) = merge(told, Some(home(2)), 5, 100);
        assert_eq!(page.len(), 1);
        assert_eq!(page[0].node_id, home(3).to_string());
    }
}
