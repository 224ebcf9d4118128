//! Counts what is held by shard of the keyspace, when somebody wants to know:
//! nothing is kept up to date for it, so it costs those who read and write
//! nothing. About a second for a million items; never run it on a task's thread.

use std::collections::HashMap;

use canopy_core::keyspace::{Key, keys};
use canopy_core::record::prefix_of;

use super::Index;
use super::dictionary::Postings;
use crate::heat::{SHARDS, shard_of};

/// Terms looked at in one go.
const TERMS: usize = 1024;

/// Live records by shard, under keys that the node owns. An item counts under
/// each of its terms, and of their beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Those of which it is the first owner.
    pub records: [u64; SHARDS],
    /// All of them.
    pub copies: [u64; SHARDS],
    /// Size of all of them, bytes.
    pub bytes: [u64; SHARDS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            records: [0; SHARDS],
            copies: [0; SHARDS],
            bytes: [0; SHARDS],
        }
    }
}

/// Whether a key is the node's, and if so, whether it is the first owner.
type Owned<'a> = &'a dyn Fn(&Key) -> Option<bool>;

impl Tally {
    /// Records of these sizes are under `key`.
    fn add(&mut self, key: &Key, owned: Owned<'_>, sizes: impl Iterator<Item = usize>) {
        let Some(first) = owned(key) else { return };
        let shard = shard_of(key);
        for size in sizes {
            self.copies[shard] += 1;
            self.records[shard] += u64::from(first);
            self.bytes[shard] += size as u64;
        }
    }
}

/// Items under one beginning of terms, which come one after the other.
#[derive(Default)]
struct Beginning {
    prefix: String,
    docs: Vec<u32>,
}

impl Beginning {
    fn end(&mut self, tally: &mut Tally, owned: Owned<'_>, sizes: &HashMap<u32, usize>) {
        if !self.prefix.is_empty() {
            self.docs.sort_unstable();
            self.docs.dedup();
            let sizes = self.docs.iter().filter_map(|doc| sizes.get(doc).copied());
            tally.add(&keys::term_prefix(&self.prefix), owned, sizes);
        }
        self.docs.clear();
        self.prefix.clear();
    }
}

impl Index {
    /// Counts what is held under keys of which `owned` says whether this node is
    /// their first owner; `None`: it owns them not.
    pub fn tally(&self, now_ms: u64, owned: impl Fn(&Key) -> Option<bool>) -> Tally {
        let mut tally = Tally::default();
        let mut sizes: HashMap<u32, usize> = HashMap::new();
        for stripe in &self.stripes {
            // Owners are looked for without the lock.
            let held = stripe.read().live(now_ms);
            for held in held {
                match held.doc {
                    Some(doc) => _ = sizes.insert(doc, held.size),
                    None => tally.add(&held.key, &owned, std::iter::once(held.size)),
                }
            }
        }
        if !sizes.is_empty() {
            self.tally_items(&mut tally, &owned, &sizes);
        }
        tally
    }

    fn tally_items(&self, tally: &mut Tally, owned: Owned<'_>, sizes: &HashMap<u32, usize>) {
        let docs = |postings: &Postings| -> Vec<u32> {
            let docs = postings.iter().map(|posting| posting >> 1);
            docs.filter(|doc| sizes.contains_key(doc)).collect()
        };
        let mut beginning = Beginning::default();
        self.items.dictionary.scan(TERMS, |term, postings| {
            let docs = docs(postings);
            let held = docs.iter().filter_map(|doc| sizes.get(doc).copied());
            tally.add(&keys::term(term), owned, held);
            let prefix = prefix_of(term).unwrap_or_default();
            if prefix != beginning.prefix {
                beginning.end(tally, owned, sizes);
                prefix.clone_into(&mut beginning.prefix);
            }
            if !prefix.is_empty() {
                beginning.docs.extend(docs);
            }
        });
        beginning.end(tally, owned, sizes);
    }
}
