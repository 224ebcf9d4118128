//! The routing table: which super-nodes a peer knows, when it does not know all.
//!
//! It is one sorted list, so an empty table costs nothing and a small one
//! little. It never holds more than its bound, and never forgets a peer merely
//! because it failed: a peer whose own line is down must not lose its way back.

use std::time::Duration;

use crate::keyspace::{Key, NodeId};
use crate::placement::{MAX_SEATS, Member, Placement};
use crate::time::Time;

use super::Peer;
use super::standing::{Bucket, Standing, victim};

/// After this many failures in a row an entry is no longer offered as a way,
/// until it answers again.
const GIVEN_UP: u8 = 3;

/// Super-nodes in a leaf's cache.
const LEAF_TOTAL: usize = 200;

/// Bounds of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Most entries.
    pub total: usize,
    /// Silence after which an entry may be replaced by any other.
    pub stale: Duration,
}

impl TableConfig {
    /// A leaf's cache: 200 super-nodes; a day of silence makes doubtful. The
    /// median super-node session is 2.9 h, so a day is past most of them.
    pub const fn leaf() -> Self {
        Self {
            total: LEAF_TOTAL,
            stale: Duration::from_secs(24 * 3600),
        }
    }

    /// A super-node past the full table: four entries for each of its `seats`,
    /// because the neighbourhood of every seat must be known to its holder, or
    /// lookups end beside their aim. Measured with 2 500 super-nodes of 256 seats:
    /// tables of 1024 found the closest in all of 30 lookups, of 512 in 97 %, of
    /// 128 in 40 %. An hour of silence makes doubtful, since gossip would have
    /// brought news.
    pub const fn super_node(seats: u32) -> Self {
        let near = if seats > MAX_SEATS { MAX_SEATS } else { seats } as usize * 4;
        Self {
            total: if near > LEAF_TOTAL { near } else { LEAF_TOTAL },
            stale: Duration::from_secs(3600),
        }
    }
}

/// A super-node in the table.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Who it is, its seats and its failure domain.
    pub member: Member,
    /// What the owner of the table needs to reach it.
    pub payload: T,
    /// Utilisation in its worst dimension as last reported, thousandths.
    pub load_milli: u16,
    /// When it answered last; before it ever did, when it was first heard of.
    pub last_seen: Time,
    pub(super) proven: bool,
    /// In a row.
    pub(super) failures: u8,
    pub(super) bucket: Bucket,
}

impl<T> Entry<T> {
    fn offered(&self) -> bool {
        self.failures < GIVEN_UP
    }

    /// The entry as a lookup takes it.
    pub fn peer(&self) -> Peer {
        Peer {
            node: self.member.node,
            seats: self.member.seats,
        }
    }
}

/// What became of a peer that the table was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was new and there was room.
    Added,
    /// It was known; member and payload are now the new ones.
    Updated,
    /// It took the place of this one.
    Replaced(NodeId),
    /// It was not taken: the table is full of better ones, or it has no seats.
    Refused,
}

/// A bounded set of super-nodes, dense near one's own positions and thin far
/// from them.
#[derive(Clone, Debug)]
pub struct RoutingTable<T> {
    config: TableConfig,
    /// One's own positions, ascending.
    own: Vec<Key>,
    /// By bucket, then node.
    entries: Vec<Entry<T>>,
    /// What is offered, for fast reading; only while somebody wants it.
    index: Option<Placement>,
}

impl<T> RoutingTable<T> {
    /// An empty table around `own`: the positions of a super-node
    /// ([`Peer::positions`]), or any one position for a leaf. Positions past
    /// [`MAX_SEATS`] are ignored.
    pub fn new(own: impl IntoIterator<Item = Key>, config: TableConfig) -> Self {
        let mut own: Vec<Key> = own.into_iter().take(MAX_SEATS as usize).collect();
        own.sort_unstable();
        own.shrink_to_fit();
        Self {
            config,
            own,
            entries: Vec::new(),
            index: None,
        }
    }

    /// Somebody told of a super-node, whose mandate the caller has verified.
    pub fn heard(&mut self, now: Time, member: Member, payload: T) -> Learned {
        let known = self.find(&member.node);
        if let Some(at) = known.filter(|&at| self.entries[at].member == member) {
            self.entries[at].payload = payload;
            return Learned::Updated;
        }
        let peer = Peer {
            node: member.node,
            seats: member.seats,
        };
        let Some(bucket) = self.bucket(&peer) else {
            return Learned::Refused;
        };
        let mut entry = Entry {
            member,
            payload,
            load_milli: 0,
            last_seen: now,
            proven: false,
            failures: 0,
            bucket,
        };
        if let Some(at) = known {
            let old = self.take(at);
            entry.load_milli = old.load_milli;
            entry.last_seen = old.last_seen;
            entry.proven = old.proven;
            entry.failures = old.failures;
            self.put(entry);
            return Learned::Updated;
        }
        if self.entries.len() < self.config.total {
            self.put(entry);
            return Learned::Added;
        }
        match victim(&self.entries, bucket, now, self.config.stale) {
            Some(at) => {
                let old = self.take(at);
                self.put(entry);
                Learned::Replaced(old.member.node)
            }
            None => Learned::Refused,
        }
    }

    /// `node` answered, and said how loaded it is. False if it is not known.
    pub fn answered(&mut self, now: Time, node: &NodeId, load_milli: u16) -> bool {
        let Some(at) = self.find(node) else {
            return false;
        };
        let entry = &mut self.entries[at];
        let back = !entry.offered();
        entry.load_milli = load_milli;
        entry.last_seen = now;
        entry.proven = true;
        entry.failures = 0;
        if back {
            let member = entry.member.clone();
            self.reindex(|index| index.with(member));
        }
        true
    }

    /// `node` did not answer. It stays, but anything new may take its place,
    /// and after three times in a row it is offered no more.
    pub fn failed(&mut self, node: &NodeId) {
        let Some(at) = self.find(node) else {
            return;
        };
        let entry = &mut self.entries[at];
        entry.failures = entry.failures.saturating_add(1);
        if entry.failures == GIVEN_UP {
            self.reindex(|index| index.without(node));
        }
    }

    /// Forgets `node`, whose mandate ended.
    pub fn remove(&mut self, node: &NodeId) -> Option<Entry<T>> {
        let at = self.find(node)?;
        Some(self.take(at))
    }

    /// The up to `count` peers closest to `target`, closest first. Without a
    /// [`RoutingTable::placement`] at hand it derives every seat: about 25 us
    /// for an entry of 256 seats.
    pub fn closest(&self, target: &Key, count: usize) -> Vec<Peer> {
        if let Some(index) = &self.index {
            let nodes = index.closest(target, count).into_iter();
            let members = nodes.filter_map(|(_, node)| index.get(&node));
            let peer = |m: &Member| Peer {
                node: m.node,
                seats: m.seats,
            };
            return members.map(peer).collect();
        }
        let offered = self.entries.iter().filter(|entry| entry.offered());
        let mut order: Vec<(Key, Peer)> = offered
            .filter_map(|entry| {
                let seat = entry.peer().closest_seat(target)?;
                Some((seat.distance(target), entry.peer()))
            })
            .collect();
        order.sort_unstable_by_key(|(distance, peer)| (*distance, peer.node));
        order.truncate(count);
        order.into_iter().map(|(_, peer)| peer).collect()
    }

    /// What is known, as a placement for the data plane. It is kept and follows
    /// every change until [`RoutingTable::rest`]: some 20 bytes a seat.
    pub fn placement(&mut self) -> Placement {
        let offered = self.entries.iter().filter(|entry| entry.offered());
        let build = || offered.map(|entry| entry.member.clone()).collect();
        self.index.get_or_insert_with(build).clone()
    }

    /// Gives up the memory that only speeds reading up; for a quiet peer.
    pub fn rest(&mut self) {
        self.index = None;
        self.entries.shrink_to_fit();
    }

    /// The entry of `node`.
    pub fn get(&self, node: &NodeId) -> Option<&Entry<T>> {
        self.find(node).map(|at| &self.entries[at])
    }

    /// All entries, in a fixed order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    /// What `node` is worth at `now`.
    pub fn standing(&self, now: Time, node: &NodeId) -> Option<Standing> {
        let entry = self.get(node)?;
        Some(Standing::of(entry, now, self.config.stale))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, node: &NodeId) -> Option<usize> {
        self.entries.iter().position(|e| e.member.node == *node)
    }

    /// Where the closest pair of own and foreign positions lies. Among sorted
    /// keys, the one that shares most bits is a neighbour.
    fn bucket(&self, peer: &Peer) -> Option<Bucket> {
        let near = |seat: Key| {
            let after = self.own.partition_point(|own| *own < seat);
            let pair = after.saturating_sub(1)..(after + 1).min(self.own.len());
            let depths = pair.map(move |i| (shared_bits(&self.own[i], &seat), i));
            depths.max()
        };
        let own = peer.positions().filter_map(near).max();
        own.map(|(depth, own)| Bucket {
            depth,
            // At most MAX_SEATS = 4096.
            own: own as u16,
        })
    }

    fn put(&mut self, entry: Entry<T>) {
        let at = self
            .entries
            .partition_point(|e| (e.bucket, e.member.node) < (entry.bucket, entry.member.node));
        if entry.offered() {
            let member = entry.member.clone();
            self.reindex(|index| index.with(member));
        }
        self.entries.insert(at, entry);
    }

    fn take(&mut self, at: usize) -> Entry<T> {
        let entry = self.entries.remove(at);
        self.reindex(|index| index.without(&entry.member.node));
        entry
    }

    fn reindex(&mut self, change: impl FnOnce(&Placement) -> Placement) {
        self.index = self.index.as_ref().map(change);
    }
}

/// Leading bits that two keys have in common, 0 to 256.
fn shared_bits(a: &Key, b: &Key) -> u16 {
    let distance = a.distance(b);
    let zeros = distance.0.iter().take_while(|byte| **byte == 0).count();
    let rest = distance.0.get(zeros).map_or(0, |byte| byte.leading_zeros());
    (zeros as u32 * 8 + rest) as u16
}
