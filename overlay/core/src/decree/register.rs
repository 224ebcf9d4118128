//! The decrees in force, one a subject; bounded. Nothing unverified gets in.

use std::collections::BTreeMap;
use std::sync::Arc;

use canopy_proto::wire;

use super::{Bans, Decree, DecreeError, Order, Policy, Subject, VerifiedDecree};
use crate::election::mandate::{Basis, Mandate};
use crate::keyspace::{Key, NodeId};

/// Decrees in force at most: about a megabyte.
pub const MAX_DECREES: usize = 4096;

/// Of two decrees about one subject the one of the higher rank counts: sequence,
/// and what tells those of one sequence apart.
pub type Rank = (u64, u64);

#[derive(Clone, Debug)]
struct Entry {
    verified: VerifiedDecree,
    /// Summary that two peers compare to see whether they know the same.
    fingerprint: Key,
}

impl Entry {
    fn new(verified: VerifiedDecree) -> Self {
        let subject = verified.decree.order.subject().key();
        let parts: [&[u8]; 2] = [&subject.0, &verified.signed.body];
        Self {
            fingerprint: Key::hash("decree", &parts),
            verified,
        }
    }

    /// The later one wins; of two of one sequence the same one everywhere.
    fn rank(&self) -> Rank {
        (self.verified.decree.sequence, self.fingerprint.short_hash())
    }
}

/// What the operator decreed, as far as this peer knows.
#[derive(Clone, Debug, Default)]
pub struct Register {
    entries: BTreeMap<Subject, Entry>,
    digest: Key,
    bans: Arc<Bans>,
    policy: Policy,
}

impl Register {
    /// Whether [`Register::take`] would take this.
    ///
    /// # Errors
    /// A later one is in force, or there is no room.
    pub fn would_take(&self, verified: &VerifiedDecree) -> Result<bool, DecreeError> {
        let subject = verified.decree.order.subject();
        let Some(held) = self.entries.get(&subject) else {
            return match self.entries.len() < MAX_DECREES {
                true => Ok(true),
                false => Err(DecreeError::Full),
            };
        };
        if held.verified.signed.body == verified.signed.body {
            return Ok(false);
        }
        match Entry::new(verified.clone()).rank() > held.rank() {
            true => Ok(true),
            false => Err(DecreeError::Superseded {
                held: held.verified.decree.sequence,
            }),
        }
    }

    /// Puts a decree into force; false where it is already.
    ///
    /// # Errors
    /// A later one about its subject is in force, or there is no room.
    pub fn take(&mut self, verified: VerifiedDecree) -> Result<bool, DecreeError> {
        if !self.would_take(&verified)? {
            return Ok(false);
        }
        let subject = verified.decree.order.subject();
        let entry = Entry::new(verified);
        self.digest = self.digest.distance(&entry.fingerprint);
        if let Some(old) = self.entries.insert(subject, entry) {
            self.digest = self.digest.distance(&old.fingerprint);
        }
        self.changed(&subject);
        Ok(true)
    }

    /// Drops what has expired; returns what it was.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Decree> {
        let entries = self.entries.iter();
        let over = entries.filter(|(_, entry)| entry.verified.decree.expires_ms <= now_ms);
        let over: Vec<Subject> = over.map(|(subject, _)| *subject).collect();
        let mut ended = Vec::with_capacity(over.len());
        for subject in over {
            if let Some(entry) = self.entries.remove(&subject) {
                self.digest = self.digest.distance(&entry.fingerprint);
                self.changed(&subject);
                ended.push(entry.verified.decree);
            }
        }
        ended
    }

    fn changed(&mut self, subject: &Subject) {
        match subject {
            Subject::Policy => {
                let held = self.get(subject).map(|decree| &decree.order);
                self.policy = match held {
                    Some(Order::Policy(policy)) => *policy,
                    _ => Policy::default(),
                };
            }
            Subject::Ban(banned) => {
                let held = self.get(subject).map(|decree| &decree.order);
                let on = matches!(held, Some(Order::Ban { .. }));
                // Readers keep the snapshot that they have.
                Arc::make_mut(&mut self.bans).set(*banned, on);
            }
            Subject::Host(_) => {}
        }
    }

    /// The decree in force about `subject`.
    pub fn get(&self, subject: &Subject) -> Option<&Decree> {
        let entry = self.entries.get(subject)?;
        Some(&entry.verified.decree)
    }

    /// Every decree in force.
    pub fn decrees(&self) -> impl Iterator<Item = &Decree> {
        self.entries.values().map(|entry| &entry.verified.decree)
    }

    /// The same, as they are passed on.
    pub fn signed(&self) -> impl Iterator<Item = &wire::Signed> {
        self.entries.values().map(|entry| &entry.verified.signed)
    }

    /// The rank of each, by the [key](Subject::key) of its subject.
    pub fn ranks(&self) -> impl Iterator<Item = (Key, Rank, &wire::Signed)> {
        let entries = self.entries.iter();
        entries.map(|(subject, entry)| (subject.key(), entry.rank(), &entry.verified.signed))
    }

    /// How many are in force.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next one ends, milliseconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        self.decrees().map(|decree| decree.expires_ms).min()
    }

    /// Order-independent summary of all.
    pub fn digest(&self) -> Key {
        self.digest
    }

    /// The same of those that concern this leaf.
    pub fn digest_for(&self, leaf: &NodeId) -> Key {
        let concerning = self.concerning(leaf);
        concerning.fold(Key::default(), |sum, (_, entry)| {
            sum.distance(&entry.fingerprint)
        })
    }

    /// The decrees that this leaf has to know, as they are passed on.
    pub fn signed_for(&self, leaf: &NodeId) -> Vec<wire::Signed> {
        let concerning = self.concerning(leaf);
        let signed = concerning.map(|(_, entry)| entry.verified.signed.clone());
        signed.collect()
    }

    fn concerning(&self, leaf: &NodeId) -> impl Iterator<Item = (&Subject, &Entry)> {
        let subjects = [
            Subject::Policy,
            Subject::Host(*leaf),
            Subject::Ban(super::Banned::Peer(*leaf)),
        ];
        let found = subjects.into_iter();
        found.filter_map(|subject| self.entries.get_key_value(&subject))
    }

    /// What is banned.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// What elections go by.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether the holder of `mandate` may not serve by it: it is banned, or the
    /// designation was withdrawn.
    pub fn voids(&self, mandate: &Mandate) -> bool {
        self.voids_parts(&mandate.candidate, mandate.basis, mandate.issued_ms)
    }

    /// The same, of what a roster keeps of a mandate.
    pub fn voids_parts(&self, candidate: &NodeId, basis: Basis, issued_ms: u64) -> bool {
        let host = self.entries.get(&Subject::Host(*candidate));
        let withdrawn = host.is_some_and(|entry| {
            let decree = &entry.verified.decree;
            matches!(decree.order, Order::Undesignate(_)) && issued_ms <= decree.issued_ms
        });
        self.bans.peer(candidate) || (basis == Basis::Designated && withdrawn)
    }
}
