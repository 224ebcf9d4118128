//! The routing table: a bucket for each number of leading bits that a contact
//! may share with the node itself.

use canopy_core::keyspace::Key;

use super::{Contact, K};

#[derive(Clone, Copy)]
struct Entry {
    contact: Contact,
    /// It has not answered since it was last heard of.
    doubtful: bool,
}

#[derive(Default)]
struct Bucket {
    /// Least recently heard of first.
    entries: Vec<Entry>,
    /// Newcomers to a full bucket, most recently heard of last.
    reserve: Vec<Contact>,
    /// When this node last looked for something in it.
    looked_at: u64,
}

/// Whom a node knows.
pub(super) struct Table {
    own: Key,
    buckets: Vec<Bucket>,
}

impl Table {
    pub(super) fn new(own: Key) -> Self {
        Self {
            own,
            buckets: Vec::new(),
        }
    }

    fn bucket(&mut self, key: &Key) -> Option<&mut Bucket> {
        let depth = shared_bits(&self.own, key);
        // What shares all bits is the node itself.
        if depth == 256 {
            return None;
        }
        if self.buckets.len() <= depth {
            self.buckets.resize_with(depth + 1, Bucket::default);
        }
        self.buckets.get_mut(depth)
    }

    /// A packet of `contact` arrived; whether it is new in the table.
    pub(super) fn heard(&mut self, contact: Contact) -> bool {
        let Some(bucket) = self.bucket(&contact.key) else {
            return false;
        };
        let fresh = Entry {
            contact,
            doubtful: false,
        };
        let mut entries = bucket.entries.iter();
        let known = entries.position(|entry| entry.contact.peer == contact.peer);
        let doubtful = bucket.entries.iter().position(|entry| entry.doubtful);
        let full = bucket.entries.len() >= K;
        match known.or(doubtful.filter(|_| full)) {
            Some(at) => {
                bucket.entries.remove(at);
                bucket.entries.push(fresh);
            }
            None if full => {
                bucket.reserve.retain(|other| other.peer != contact.peer);
                bucket.reserve.push(contact);
                if bucket.reserve.len() > K {
                    bucket.reserve.remove(0);
                }
                return false;
            }
            None => bucket.entries.push(fresh),
        }
        known.is_none()
    }

    /// `contact` did not answer: one of the reserve takes its place; where there
    /// is none it stays, so that a node whose own line fails keeps its table.
    pub(super) fn failed(&mut self, contact: &Contact) {
        let Some(bucket) = self.bucket(&contact.key) else {
            return;
        };
        let mut entries = bucket.entries.iter();
        let Some(at) = entries.position(|entry| entry.contact.peer == contact.peer) else {
            bucket.reserve.retain(|other| other.peer != contact.peer);
            return;
        };
        match bucket.reserve.pop() {
            Some(contact) => {
                bucket.entries.remove(at);
                bucket.entries.push(Entry {
                    contact,
                    doubtful: false,
                });
            }
            None => bucket.entries[at].doubtful = true,
        }
    }

    /// The k closest to `target`, closest first; doubtful ones only if `any`.
    pub(super) fn closest(&self, target: &Key, any: bool) -> Vec<Contact> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        let offered = entries.filter(|entry| any || !entry.doubtful);
        let by_distance = offered.map(|entry| (entry.contact.key.distance(target), entry.contact));
        let mut all: Vec<(Key, Contact)> = by_distance.collect();
        if all.len() > K {
            all.select_nth_unstable_by_key(K, |(distance, _)| *distance);
            all.truncate(K);
        }
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().map(|(_, contact)| contact).collect()
    }

    /// A lookup of `target` begins.
    pub(super) fn looks(&mut self, target: &Key, now: u64) {
        if let Some(bucket) = self.bucket(target) {
            bucket.looked_at = now;
        }
    }

    /// The buckets in which this node has looked for nothing since `before`.
    pub(super) fn idle(&self, before: u64) -> Vec<usize> {
        let buckets = self.buckets.iter().enumerate();
        let idle = buckets.filter(|(_, bucket)| bucket.looked_at <= before);
        idle.map(|(depth, _)| depth).collect()
    }
}

/// Leading bits that two keys share, 0 to 256.
pub(super) fn shared_bits(a: &Key, b: &Key) -> usize {
    let distance = a.distance(b);
    let zeros = distance.0.iter().take_while(|byte| **byte == 0).count();
    let rest = distance.0.get(zeros).map_or(0, |byte| byte.leading_zeros());
    zeros * 8 + rest as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(peer: u32, first: u8) -> Contact {
        let mut key = Key::hash("contact", &[&peer.to_le_bytes()]);
        key.0[0] = first;
        Contact { peer, key }
    }

    #[test]
    fn a_full_bucket_keeps_who_answers_and_replaces_who_does_not() {
        let mut table = Table::new(Key::default());
        for peer in 0..K as u32 {
            assert!(table.heard(contact(peer, 0x80)));
        }
        assert!(!table.heard(contact(100, 0x80)), "the bucket is full");
        // Another bucket has room.
        assert!(table.heard(contact(200, 0x40)));
        let peers = |table: &Table| -> Vec<u32> {
            let closest = table.closest(&contact(0, 0x80).key, false);
            closest.iter().map(|contact| contact.peer).collect()
        };
        assert!(!peers(&table).contains(&100));
        table.failed(&contact(3, 0x80));
        assert!(peers(&table).contains(&100) && !peers(&table).contains(&3));
        // Nobody is in reserve any more: who fails stays, and is not offered.
        table.failed(&contact(4, 0x80));
        assert!(!peers(&table).contains(&4));
        let any = table.closest(&contact(0, 0x80).key, true);
        assert!(any.iter().any(|contact| contact.peer == 4));
        table.heard(contact(4, 0x80));
        assert!(peers(&table).contains(&4));
    }

    #[test]
    fn the_closest_are_those_that_sorting_all_finds() {
        let mut table = Table::new(Key::hash("own", &[]));
        let keyed = |peer: u32| Contact {
            peer,
            key: Key::hash("contact", &[&peer.to_le_bytes()]),
        };
        let all: Vec<Contact> = (0..200).map(keyed).filter(|c| table.heard(*c)).collect();
        assert!((K + 1..200).contains(&all.len()), "{}", all.len());
        let target = Key::hash("target", &[]);
        let mut sorted = all;
        sorted.sort_by_key(|contact| contact.key.distance(&target));
        sorted.truncate(K);
        assert_eq!(table.closest(&target, false), sorted);
    }
}
