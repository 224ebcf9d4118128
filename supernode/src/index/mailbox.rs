//! Which letters wait for whom, and how many of one sender.

use std::collections::HashMap;

use canopy_core::keyspace::{Key, NodeId};
use parking_lot::RwLock;

use super::{Limits, Refused};

#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    /// Letters by mailbox: id and sender, oldest first.
    boxes: RwLock<HashMap<Key, Vec<(Key, NodeId)>>>,
}

impl Mailboxes {
    /// Whether another letter of `sender` fits a mailbox.
    pub(super) fn room(&self, key: &Key, sender: &NodeId, limits: &Limits) -> Result<(), Refused> {
        let boxes = self.boxes.read();
        let letters = boxes.get(key).map_or(&[][..], Vec::as_slice);
        let of_sender = letters.iter().filter(|(_, from)| from == sender).count();
        match letters.len() < limits.mailbox_letters && of_sender < limits.mailbox_of_sender {
            true => Ok(()),
            false => Err(Refused::MailboxFull(letters.len())),
        }
    }

    pub(super) fn insert(&self, key: Key, id: Key, sender: NodeId) {
        let mut boxes = self.boxes.write();
        let letters = boxes.entry(key).or_default();
        if !letters.iter().any(|(held, _)| *held == id) {
            letters.push((id, sender));
        }
    }

    pub(super) fn remove(&self, key: &Key, id: &Key) {
        let mut boxes = self.boxes.write();
        if let Some(letters) = boxes.get_mut(key) {
            letters.retain(|(held, _)| held != id);
            if letters.is_empty() {
                boxes.remove(key);
            }
        }
    }

    /// Oldest first.
    pub(super) fn list(&self, key: &Key) -> Vec<Key> {
        let boxes = self.boxes.read();
        let letters = boxes.get(key).map_or(&[][..], Vec::as_slice);
        letters.iter().map(|(id, _)| *id).collect()
    }

    /// Letters that wait, in all.
    pub(super) fn count(&self) -> usize {
        self.boxes.read().values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use canopy_core::identity::Identity;
    use canopy_core::keyspace::keys;
    use canopy_core::record::Record;
    use canopy_proto::wire::{self, record::Payload};

    use super::super::{Index, Outcome};
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn identity(secret: u8) -> Identity {
        Identity::from_secret([secret; 32])
    }

    fn named(from: u8, id: u8, envelope: Option<wire::Signed>) -> Payload {
        Payload::Letter(wire::Letter {
            from: identity(from).node_id().to_bytes(),
            to: identity(99).node_id().to_bytes(),
            id: Bytes::from(vec![id; 16]),
            envelope,
        })
    }

    fn letter(from: u8, id: u8) -> Record {
        let letter = named(from, id, Some(wire::Signed::default()));
        Record::sign(&identity(from), "net", 1, NOW, 60, letter).unwrap()
    }

    fn put(index: &Index, record: Record) -> Outcome {
        let (mut outcomes, ack) = index.put(vec![record], NOW);
        ack.wait().unwrap();
        outcomes.remove(0)
    }

    fn index() -> Index {
        Index::in_memory(Limits {
            mailbox_letters: 3,
            mailbox_of_sender: 2,
            ..Limits::default()
        })
    }

    #[test]
    fn a_mailbox_holds_so_many_letters_and_fewer_of_one_sender() {
        let (index, key) = (index(), keys::mailbox(&identity(99).node_id()));
        assert_eq!(put(&index, letter(1, 1)), Outcome::Stored);
        assert_eq!(put(&index, letter(1, 2)), Outcome::Stored);
        let full = |outcome| matches!(outcome, Outcome::Refused(Refused::MailboxFull(_)));
        assert!(full(put(&index, letter(1, 3))), "of one sender");
        assert_eq!(put(&index, letter(2, 1)), Outcome::Stored);
        assert!(full(put(&index, letter(3, 1))), "in all");
        assert_eq!(put(&index, letter(2, 1)), Outcome::AlreadyHave);
        assert_eq!(
            (index.mailbox(&key, NOW).len(), index.held().letters),
            (3, 3)
        );
        // Only who asks for a mailbox is told of letters.
        assert!(index.get(&key, NOW, 10, true).is_empty());
        assert_eq!(index.sweep(NOW + 60_000), 3);
        assert_eq!(index.held().letters, 0);
    }

    #[test]
    fn what_its_addressee_removed_does_not_come_back() {
        let (index, key) = (index(), keys::mailbox(&identity(99).node_id()));
        put(&index, letter(1, 1));
        let removal = named(1, 1, None);
        let removal = Record::sign_removal(&identity(99), "net", 2, NOW, 60, removal).unwrap();
        assert_eq!(put(&index, removal), Outcome::Stored);
        assert!(index.mailbox(&key, NOW).is_empty());
        assert_eq!(put(&index, letter(1, 1)), Outcome::Superseded(2));
        assert_eq!(index.held().letters, 0);
        assert_eq!(put(&index, letter(1, 2)), Outcome::Stored);
    }
}
