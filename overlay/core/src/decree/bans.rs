//! What is banned, as whoever serves reads it: a snapshot, and cheap where
//! nothing is.

use std::collections::HashSet;

use canopy_proto::wire::record::Payload;

use super::Banned;
use crate::keyspace::{Key, NodeId, keys};
use crate::record::Record;

/// Everything that is banned at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    all: HashSet<Banned>,
    /// Keys that a banned content is found under.
    keys: HashSet<Key>,
}

impl Bans {
    pub(super) fn set(&mut self, banned: Banned, on: bool) {
        if let Banned::Content(hash) = &banned {
            for key in [keys::content(hash), keys::provider(hash)] {
                match on {
                    true => self.keys.insert(key),
                    false => self.keys.remove(&key),
                };
            }
        }
        match on {
            true => self.all.insert(banned),
            false => self.all.remove(&banned),
        };
    }

    /// Nothing is banned.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether this peer is.
    pub fn peer(&self, node: &NodeId) -> bool {
        !self.is_empty() && self.all.contains(&Banned::Peer(*node))
    }

    /// The peers that are.
    pub fn peers(&self) -> impl Iterator<Item = &NodeId> {
        self.all.iter().filter_map(|banned| match banned {
            Banned::Peer(node) => Some(node),
            _ => None,
        })
    }

    /// Whether all that is found under this key is.
    pub fn key(&self, key: &Key) -> bool {
        !self.keys.is_empty() && self.keys.contains(key)
    }

    /// What of a record is: its publisher, its data, or what it points at.
    pub fn of(&self, record: &Record) -> Option<Banned> {
        if self.is_empty() {
            return None;
        }
        let publisher = Banned::Publisher(record.publisher);
        if self.all.contains(&publisher) {
            return Some(publisher);
        }
        if self.keys.is_empty() {
            return None;
        }
        let hash: [u8; 32] = match record.body.payload.as_ref()? {
            Payload::Value(value) => *blake3::hash(&value.data).as_bytes(),
            Payload::Provider(provider) => provider.content.as_ref().try_into().ok()?,
            Payload::Item(item) => item.content.as_ref().try_into().ok()?,
            Payload::Location(_) | Payload::Letter(_) => return None,
        };
        let content = Banned::Content(hash);
        self.all.contains(&content).then_some(content)
    }
}
