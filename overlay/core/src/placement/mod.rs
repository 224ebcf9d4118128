//! Which super-nodes own a key: the closest distinct ones by XOR distance of
//! their seats, spread over failure domains.
//!
//! A [`Placement`] is an immutable snapshot. The control core makes a new one
//! for every change; the data plane reads whichever it was handed last, without
//! locks. Two snapshots of the same members answer alike, whatever the order in
//! which the members came. A snapshot must never depend on anything but its
//! members: no clock, no load, no liveness, or two peers would disagree on who
//! owns a key.

mod members;
mod owners;
mod seats;
mod shared;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use crate::keyspace::{Key, NodeId};
use crate::memory;

use self::members::Members;
pub use self::owners::{Owners, SPREAD_SEARCH};
use self::seats::Seats;
pub(crate) use self::shared::Table;
use self::shared::{Laid, Shared};
pub use self::spread::Spread;

/// Copies of every record.
pub const R: usize = 3;

/// Most seats of one super-node; a claim of more is cut to this. With 256 seats
/// for the capacity of an ordinary super-node, it allows for one sixteen times
/// as strong.
pub const MAX_SEATS: u32 = 4096;

/// A super-node as placement sees it.
#[derive(Clone, Debug, Eq)]
pub struct Member {
    /// Who it is.
    pub node: NodeId,
    /// How many seats its mandate gives it; see [`MAX_SEATS`].
    pub seats: u32,
    /// Its failure domain; empty: unknown, shared with nobody.
    pub domain: Arc<str>,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        // Most often both have the very same domain, which need not be read.
        let same_domain = || Arc::ptr_eq(&self.domain, &other.domain);
        (self.node, self.seats) == (other.node, other.seats)
            && (same_domain() || self.domain == other.domain)
    }
}

/// Super-nodes, each with its closest seat, closest first.
pub type Ranked = Arc<[(Key, NodeId)]>;

/// What one snapshot has of a super-node, and another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before; none: it came.
    pub before: Option<Member>,
    /// After; none: it left.
    pub after: Option<Member>,
}

/// An immutable snapshot of who owns what. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    inner: Arc<Inner>,
    version: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    members: Members,
    /// Order-independent hash of the members.
    sum: Key,
    /// Laid out when they are first asked for: a leaf that looks nothing up
    /// needs only to know who serves.
    seats: OnceLock<Laid>,
}

impl Inner {
    fn seats(&self) -> &Laid {
        self.seats.get_or_init(|| match memory::table() {
            Some(table) => Laid::Shared(Shared::new(table, &self.members)),
            None => Laid::Own(Seats::default().edited(self.members.all_seats())),
        })
    }
}

impl Inner {
    fn changed(&self, changes: BTreeMap<NodeId, Option<Member>>, sum: Key) -> Self {
        let laid_out = self.seats.get();
        let own = matches!(laid_out, Some(Laid::Own(_)));
        let nodes: Vec<NodeId> = changes.keys().copied().collect();
        let (members, edits) = self.members.changed(changes, own);
        let (members, seats) = match members.wasteful() {
            true => {
                let all = members.iter().map(|m| (m.node, Some(m.clone()))).collect();
                (Members::default().changed(all, false).0, OnceLock::new())
            }
            false => {
                let seats = laid_out.map(|laid_out| match laid_out {
                    Laid::Own(seats) => Laid::Own(seats.edited(edits)),
                    Laid::Shared(shared) => Laid::Shared(shared.edited(&nodes, &members)),
                });
                (members, seats.map_or_else(OnceLock::new, OnceLock::from))
            }
        };
        Self {
            members,
            sum,
            seats,
        }
    }
}

impl Member {
    fn fingerprint(&self) -> Key {
        let seats = self.seats.to_le_bytes();
        Key::hash("member", &[&self.node.0, &seats, self.domain.as_bytes()])
    }
}

impl Placement {
    /// Nobody serves.
    pub fn empty() -> Self {
        Self::default()
    }

    /// This snapshot with `member` added, or replaced.
    pub fn with(&self, member: Member) -> Self {
        self.updated([], [member])
    }

    /// This snapshot without `node`.
    pub fn without(&self, node: &NodeId) -> Self {
        self.updated([*node], [])
    }

    /// This snapshot without `leavers` and then with `joiners`, in one step.
    /// It shares all that did not change with this one, and costs far less than
    /// the same changes one by one. Where nothing changes, it is this one.
    pub fn updated(
        &self,
        leavers: impl IntoIterator<Item = NodeId>,
        joiners: impl IntoIterator<Item = Member>,
    ) -> Self {
        let mut changes: BTreeMap<NodeId, Option<Member>> =
            leavers.into_iter().map(|node| (node, None)).collect();
        changes.extend(joiners.into_iter().map(|mut member| {
            member.seats = member.seats.min(MAX_SEATS);
            (member.node, Some(member))
        }));
        changes.retain(|node, wanted| self.get(node) != wanted.as_ref());
        if changes.is_empty() {
            return self.clone();
        }
        let mut sum = self.inner.sum;
        for (node, wanted) in &changes {
            for member in self.get(node).into_iter().chain(wanted) {
                sum = sum.distance(&member.fingerprint());
            }
        }
        Self {
            inner: memory::placement(&sum, || self.inner.changed(changes, sum)),
            version: self.version + 1,
        }
    }

    /// The up to `count` owners of `key`: distinct super-nodes of distinct
    /// failure domains, closest first; where the [`SPREAD_SEARCH`] closest
    /// super-nodes have not enough domains, the closest of the others follow.
    /// `count` is cut to [`SPREAD_SEARCH`].
    pub fn owners(&self, key: &Key, count: usize) -> Vec<NodeId> {
        let mut out = Vec::new();
        self.pick(key, count, |node| out.push(node));
        out
    }

    /// The [`R`] owners of `key`, or all super-nodes where they are fewer:
    /// [`Placement::owners`] without an allocation, for the data plane.
    pub fn owner_set(&self, key: &Key) -> Owners {
        let mut out = Owners::default();
        self.pick(key, R, |node| out.push(node));
        out
    }

    /// Whether `node` is one of the [`R`] owners of `key`.
    pub fn owns(&self, node: &NodeId, key: &Key) -> bool {
        self.owner_set(key).contains(node)
    }

    fn pick(&self, key: &Key, count: usize, out: impl FnMut(NodeId)) {
        owners::pick(&self.inner.members, self.inner.seats(), key, count, out);
    }

    /// The `count` distinct super-nodes with the seats closest to `key`,
    /// closest first, whatever their domains; each with its closest seat.
    pub fn closest(&self, key: &Key, count: usize) -> Vec<(Key, NodeId)> {
        let members = &self.inner.members;
        let count = count.min(members.serving());
        let mut out = Vec::with_capacity(count);
        if count == 0 {
            return out;
        }
        let mut seen = Vec::with_capacity(count);
        // The break only says that the list is full.
        let _ = self.inner.seats().visit(key, members, &mut |seat| {
            if !seen.contains(&seat.slot) {
                seen.push(seat.slot);
                out.push((members.position(seat), members.member(seat.slot).node));
            }
            match out.len() < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        out
    }

    /// The same super-nodes as [`Placement::closest`], for positions that many ask
    /// for: those of elections.
    pub fn nearest(&self, position: &Key, count: usize) -> Ranked {
        memory::nearest(&self.inner.sum, position, count, || {
            self.closest(position, count)
        })
    }

    /// Who came, left or has changed since `before`, by node id.
    pub fn changes_since(&self, before: &Self) -> Arc<[Change]> {
        if self.same_snapshot(before) {
            return Arc::default();
        }
        memory::changes(&before.inner.sum, &self.inner.sum, || {
            let (mut old, mut new) = (before.members().peekable(), self.members().peekable());
            let mut changes = Vec::new();
            while let Some(next) = [old.peek(), new.peek()]
                .into_iter()
                .flatten()
                .min_by_key(|m| m.node)
            {
                let node = next.node;
                let before = old.next_if(|member| member.node == node);
                let after = new.next_if(|member| member.node == node);
                if before != after {
                    let (before, after) = (before.cloned(), after.cloned());
                    changes.push(Change { before, after });
                }
            }
            changes
        })
    }

    /// The member `node`, if it serves.
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.inner.members.get(node)
    }

    /// The member with so many others before it, by node id.
    pub fn nth(&self, number: usize) -> Option<&Member> {
        self.inner.members.nth(number)
    }

    /// All members, by node id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.inner.members.iter()
    }

    /// How many super-nodes serve.
    pub fn len(&self) -> usize {
        self.inner.members.len()
    }

    /// Whether nobody serves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Seats of all super-nodes together.
    pub fn total_seats(&self) -> u64 {
        self.inner.members.seats()
    }

    /// Grows with every change of this lineage of snapshots.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether `other` is this very snapshot, not just an equal one.
    pub fn same_snapshot(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    #[cfg(test)]
    fn laid(&self) -> Option<&Laid> {
        self.inner.seats.get()
    }

    /// Memory of this snapshot, bytes, without the texts of the domains. Most
    /// of it is shared with the snapshots before and after.
    pub fn memory_bytes(&self) -> usize {
        let seats = self.inner.seats.get().map_or(0, Laid::memory_bytes);
        size_of::<Inner>() + self.inner.members.memory_bytes() + seats
    }
}

impl FromIterator<Member> for Placement {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        Self::empty().updated([], members)
    }
}
