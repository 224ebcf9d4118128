//! Rosters compared a part at a time: two super-nodes of a large overlay nearly
//! always lack a few entries of each other's, and list only the parts that differ.

use std::ops::Bound;

use bytes::Bytes;

use crate::keyspace::{Key, NodeId};

/// Parts of the key space, by the first bits of a node's key.
pub(crate) const PARTS: usize = 64;
const BITS: u32 = PARTS.trailing_zeros();
const SUM: usize = size_of::<u64>();

fn part(node: &NodeId) -> usize {
    usize::from(node.0[0] >> (u8::BITS - BITS))
}

/// The first id of a part, if there is such a part.
fn first(part: usize) -> Option<NodeId> {
    let mut id = [0; 32];
    id[0] = u8::try_from(part << (u8::BITS - BITS)).ok()?;
    Some(NodeId(id))
}

/// Order-independent summary of the entries in each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts([u64; PARTS]);

impl Default for Parts {
    fn default() -> Self {
        Self([0; PARTS])
    }
}

impl Parts {
    /// One more entry, or one less, of this fingerprint.
    pub(crate) fn toggle(&mut self, node: &NodeId, fingerprint: &Key) {
        self.0[part(node)] ^= fingerprint.short_hash();
    }

    /// For a message.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.iter().flat_map(|sum| sum.to_be_bytes()).collect()
    }

    /// From a message; none unless there is a sum for each part.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (sums, rest) = bytes.as_chunks::<SUM>();
        let sums: [_; PARTS] = sums.try_into().ok().filter(|_| rest.is_empty())?;
        Some(Self(sums.map(u64::from_be_bytes)))
    }

    /// Those that are not alike in both; all of them where none differs, as what two
    /// have to tell each other is something else then.
    pub(crate) fn differing(&self, other: &Self) -> Among {
        let pairs = self.0.iter().zip(&other.0).enumerate();
        let differ = pairs.filter(|(_, (one, other))| one != other);
        Among(differ.fold(0, |among, (part, _)| among | 1 << part))
    }
}

/// Some parts: those whose bit is set, or all where none is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Among(pub(crate) u64);

impl Among {
    /// Every part.
    pub(crate) const ALL: Self = Self(0);

    /// The ids in each of them, in order.
    pub(crate) fn ranges(self) -> impl Iterator<Item = (Bound<NodeId>, Bound<NodeId>)> {
        let all = self == Self::ALL;
        let parts = (0..PARTS).filter(move |part| self.0 >> part & 1 == 1);
        let parts = parts.map(|part| (first(part), first(part + 1)));
        let bounds = |(from, to): (Option<NodeId>, Option<NodeId>)| {
            let from = from.map_or(Bound::Unbounded, Bound::Included);
            (from, to.map_or(Bound::Unbounded, Bound::Excluded))
        };
        all.then_some((None, None))
            .into_iter()
            .chain(parts)
            .map(bounds)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;

    fn key(sum: u64) -> Key {
        let mut key = Key::default();
        key.0[..SUM].copy_from_slice(&sum.to_be_bytes());
        key
    }

    /// Of entries whose keys begin with these bytes.
    fn parts(entries: [(u8, u64); 3]) -> Parts {
        let mut parts = Parts::default();
        for (first, sum) in entries {
            parts.toggle(&NodeId([first; 32]), &key(sum));
        }
        parts
    }

    #[test]
    fn what_differs_is_seen_over_the_wire() {
        let one = parts([(0, 1), (9, 5), (0xff, 7)]);
        let mut other = parts([(9, 5), (0xf8, 7), (3, 1)]);
        assert_eq!(Parts::from_slice(&one.to_bytes()).as_ref(), Some(&one));
        assert_eq!(one.differing(&one), Among::ALL);
        let among = one.differing(&other);
        assert_eq!(among, Among(0b11 << 62));
        let node = |first| NodeId([first; 32]);
        let holds = |among: Among, node| among.ranges().any(|range| range.contains(&node));
        assert!(holds(among, node(0xff)) && holds(among, node(0xf8)));
        assert!(!holds(among, node(0xf7)) && !holds(among, node(0)));
        assert!(holds(Among::ALL, node(0)) && holds(Among::ALL, node(0xff)));
        other.toggle(&node(0xf8), &key(7));
        other.toggle(&node(0xff), &key(7));
        assert_eq!(one, other);
    }

    #[test]
    fn sums_of_another_count_are_none() {
        let bytes = Parts::default().to_bytes();
        for cut in [0, 8, 511] {
            assert_eq!(Parts::from_slice(&bytes[..cut]), None);
        }
        assert_eq!(Parts::from_slice(&[&bytes[..], &[0]].concat()), None);
    }
}
