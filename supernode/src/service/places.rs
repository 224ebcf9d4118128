//! The placements of late: who may write here, who owned a key before, and
//! whether this node may still lack records of ranges it newly owns.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Placement, R};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::ServiceConfig;
use super::repair::TOLD;

/// Placements remembered beside the current one.
const RECENT: usize = 8;
/// Where those who joined lately are one in this many of all, two overlays
/// may have met.
const MERGER: usize = 4;
/// What a key's owners do not have yet is looked for at the next closest, up to
/// this many times `R`: as many may have come together.
const NEWCOMERS: usize = 3;

#[derive(Debug)]
pub(super) struct Places {
    me: NodeId,
    settle: Duration,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    current: Placement,
    /// Newest first, with when each ended.
    recent: VecDeque<(Placement, Instant)>,
    /// Those who joined lately, by themselves, and when the last of them did.
    /// They may come from another overlay and bring its records.
    joined: Option<(Placement, Instant)>,
    settling: Option<Settling>,
}

#[derive(Debug)]
struct Settling {
    until: Instant,
    /// Owners that have yet to say that they offered all they have; empty, as it is
    /// among many: only time tells.
    waiting: BTreeSet<NodeId>,
}

impl Places {
    pub(super) fn new(current: Placement, me: NodeId, config: &ServiceConfig) -> Self {
        let settle = config.settle;
        // A node that starts among others missed what was written meanwhile.
        let settling = Settling::of(&current, me, settle);
        Self {
            me,
            settle,
            state: RwLock::new(State {
                current,
                recent: VecDeque::new(),
                joined: None,
                settling,
            }),
        }
    }

    /// Takes in a new placement; false if it is the one already known.
    pub(super) fn update(&self, new: Placement) -> bool {
        let mut state = self.state.write();
        let changes = new.changes_since(&state.current);
        let came = changes.iter().any(|change| change.after.is_some());
        let gone = changes.iter().any(|change| change.before.is_some());
        let mine = state.current.get(&self.me) != new.get(&self.me);
        let old = std::mem::replace(&mut state.current, new);
        if !came && !gone {
            return false;
        }
        if mine {
            state.settling = Settling::of(&state.current, self.me, self.settle);
        } else if gone {
            // Up to R hold everything: the loss of one gives the others nothing.
            let gains = old.len() > R;
            state.lose(gains.then(|| Instant::now() + self.settle));
        }
        state.recent.push_front((old, Instant::now()));
        state.recent.truncate(RECENT);
        if came {
            state.join(self.me, self.settle);
        }
        true
    }

    pub(super) fn current(&self) -> Placement {
        self.state.read().current.clone()
    }

    /// Whether `node` is a super-node, or was one lately.
    pub(super) fn knows(&self, node: &NodeId) -> bool {
        let state = self.state.read();
        state.current.get(node).is_some()
            || state.recent.iter().any(|(old, _)| old.get(node).is_some())
    }

    /// Who is no owner of `key` and may have its records all the same: who
    /// owned it before the changes that may still be settling, and who owned
    /// it among those who have just joined, if they come from another overlay.
    pub(super) fn other_holders(&self, key: &Key, owners: &[NodeId]) -> Vec<NodeId> {
        let state = self.state.read();
        let recent = state.recent.iter();
        let lately = recent.filter(|(_, ended)| ended.elapsed() < self.settle);
        let mut out: Vec<NodeId> = lately.flat_map(|(old, _)| old.owners(key, R)).collect();
        if let Some((joined, at)) = &state.joined
            && at.elapsed() < self.settle
        {
            out.extend(joined.owners(key, R));
        }
        out.retain(|node| !owners.contains(node) && state.current.get(node).is_some());
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Who would own `key` if some of its owners had not come: the next closest,
    /// without `asked`. What happened before this node came it can only guess.
    pub(super) fn next_closest(&self, key: &Key, asked: &[NodeId]) -> Vec<NodeId> {
        let closest = self.current().closest(key, R * NEWCOMERS);
        let nodes = closest.into_iter().map(|(_, node)| node);
        nodes.filter(|node| !asked.contains(node)).collect()
    }

    /// Whether so many joined lately that they may be another overlay, with
    /// records of its own under every key.
    pub(super) fn merging(&self) -> bool {
        let state = self.state.read();
        let joined = state.joined.as_ref();
        joined.is_some_and(|(joined, at)| {
            at.elapsed() < self.settle && joined.len() * MERGER >= state.current.len()
        })
    }

    /// Whether `node` joined so lately that it may lack records.
    pub(super) fn is_new(&self, node: &NodeId) -> bool {
        let state = self.state.read();
        let joined = state.joined.as_ref();
        joined.is_some_and(|(joined, at)| at.elapsed() < self.settle && joined.get(node).is_some())
    }

    /// Whether the placement changed so lately that writes sent under the one
    /// before may still arrive.
    pub(super) fn changed_lately(&self) -> bool {
        let state = self.state.read();
        let last = state.recent.front();
        last.is_some_and(|(_, ended)| ended.elapsed() < self.settle)
    }

    pub(super) fn settling(&self) -> bool {
        let state = self.state.read();
        let until = state.settling.as_ref().map(|settling| settling.until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// `node` has offered all that it has for this node.
    pub(super) fn finished(&self, node: &NodeId) {
        let mut state = self.state.write();
        if let Some(settling) = &mut state.settling
            && settling.waiting.remove(node)
            && settling.waiting.is_empty()
        {
            state.settling = None;
        }
    }
}

impl State {
    /// Notes who was not there a while ago.
    fn join(&mut self, me: NodeId, settle: Duration) {
        let mut recent = self.recent.iter().rev();
        let Some((before, _)) = recent.find(|(_, ended)| ended.elapsed() < settle) else {
            return;
        };
        let changes = self.current.changes_since(before);
        let new = changes.iter().filter(|change| change.before.is_none());
        let new = new.filter_map(|change| change.after.clone());
        let new = new.filter(|member| member.node != me);
        let joined = Placement::empty().updated(Vec::new(), new);
        self.joined = Some((joined, Instant::now()));
    }

    /// Others are gone: this node need not wait for them, and may own ranges of
    /// theirs, if `until` is given.
    fn lose(&mut self, until: Option<Instant>) {
        let now = Instant::now();
        match self
            .settling
            .as_mut()
            .filter(|settling| now < settling.until)
        {
            Some(settling) => {
                let current = &self.current;
                settling.waiting.retain(|node| current.get(node).is_some());
            }
            None => {
                let waiting = BTreeSet::new();
                self.settling = until.map(|until| Settling { until, waiting });
            }
        }
    }
}

impl Settling {
    fn of(placement: &Placement, me: NodeId, settle: Duration) -> Option<Self> {
        placement.get(&me)?;
        let others = placement.members().map(|member| member.node);
        let others = others.filter(|node| *node != me);
        let waiting = match placement.len() <= TOLD {
            true => others.collect(),
            false => BTreeSet::new(),
        };
        (placement.len() > 1).then(|| Self {
            until: Instant::now() + settle,
            waiting,
        })
    }
}

#[cfg(test)]
mod tests {
    use canopy_core::placement::Member;

    use super::*;

    fn of(nodes: &[u8]) -> Placement {
        nodes.iter().fold(Placement::empty(), |placement, n| {
            placement.with(Member {
                node: NodeId([*n; 32]),
                seats: 1,
                domain: "".into(),
            })
        })
    }

    fn places(nodes: &[u8]) -> Places {
        Places::new(of(nodes), NodeId([1; 32]), &ServiceConfig::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_settles_when_all_others_have_finished_or_time_is_up() {
        let all = places(&[1, 2, 3]);
        assert!(all.settling());
        all.finished(&NodeId([2; 32]));
        assert!(all.settling());
        all.finished(&NodeId([3; 32]));
        assert!(!all.settling());

        let silent = places(&[1, 2]);
        tokio::time::advance(ServiceConfig::default().settle).await;
        assert!(!silent.settling());
        assert!(!places(&[1]).settling());
        assert!(!places(&[2, 3]).settling());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gains_ranges_by_a_loss_settles() {
        let places = places(&[1, 2, 3, 4, 5]);
        for left in [&[1, 2, 3, 4][..], &[1, 2, 3]] {
            tokio::time::advance(ServiceConfig::default().settle).await;
            assert!(!places.settling());
            assert!(places.update(of(left)));
            assert!(places.settling() && places.changed_lately());
        }
        tokio::time::advance(ServiceConfig::default().settle).await;
        // Of three, all had everything.
        for left in [&[1, 2][..], &[1]] {
            assert!(places.update(of(left)));
            assert!(!places.settling() && places.changed_lately());
        }
        assert!(places.knows(&NodeId([3; 32])));
        assert!(!places.knows(&NodeId([6; 32])));
        assert!(!places.update(of(&[1])));
    }
}
