//! What this thread has worked out already, for a process that runs many peers:
//! what one of them has checked or laid out, the others need not do again.
//!
//! Off unless asked for. All of it is a pure function of its input, so that
//! nothing but time and memory depends on it; failures are never remembered.
//! Bodies are known by where they lie in memory, and are held so that nothing
//! else can come to lie there: peers that pass a message on share its bytes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, RwLock, Weak};

use bytes::Bytes;
use canopy_proto::wire::{Signed, SignedMandate};

use crate::contact::Contact;
use crate::election::mandate::Examined;
use crate::identity::{Domain, SignatureError};
use crate::keyspace::{Key, NodeId};
use crate::placement::{Change, Inner, Ranked, Table};
use crate::roster::Entry;

/// Placements that nobody has any more are forgotten when they are so many.
const PLACEMENTS: usize = 1024;
/// The same of entries of rosters.
const ENTRIES: usize = 4096;
/// Answers about placements are remembered where they name so few.
const FEW: usize = 64;
/// Changes of the placement that are remembered; past it all are forgotten.
const CHANGES: usize = 4096;
/// Positions whose closest super-nodes are remembered; past it all are forgotten.
const POSITIONS: usize = 16_384;

#[derive(PartialEq, Eq, Hash)]
struct Check {
    body: u32,
    domain: Domain,
    signer: NodeId,
    signature: [u8; 64],
}

#[derive(Default)]
struct Memory {
    limit: usize,
    /// By address and length.
    bodies: HashMap<(usize, usize), (Bytes, u32)>,
    good: HashSet<Check>,
    mandates: HashMap<(usize, usize), Arc<Examined>>,
    /// By the address of the body.
    contacts: HashMap<usize, Contact>,
    entries: HashMap<Likeness, Weak<Entry>>,
    /// How many there may be before those that nobody has are looked for.
    entries_limit: usize,
    /// Every seat that one of the peers has laid out.
    table: Option<Arc<RwLock<Table>>>,
    placements: HashMap<Key, Weak<Inner>>,
    /// How many there may be before those that nobody has are looked for.
    placements_limit: usize,
    /// By the members before and after.
    changes: HashMap<(Key, Key), Arc<[Change]>>,
    /// By the members of a placement and a position in it: so many who are closest.
    nearest: HashMap<(Key, Key, usize), Ranked>,
}

/// See [`Entry::likeness`].
type Likeness = (NodeId, u64, u64, usize, [bool; 3]);

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// From now on this thread remembers up to `limit` good signatures (about 300
/// bytes each), as many mandates and contacts, the placements that its peers have, and
/// a bounded number of answers about these; 0 forgets them all. Past the limit it starts
/// anew.
pub fn remember_work(limit: usize) {
    MEMORY.with_borrow_mut(|memory| {
        *memory = Memory {
            limit,
            table: (limit > 0).then(Arc::default),
            ..Memory::default()
        };
    });
}

fn place(bytes: &Bytes) -> usize {
    match bytes.is_empty() {
        true => 0,
        false => bytes.as_ptr() as usize,
    }
}

/// What `signed` was found to be, if it was found good before.
pub(crate) fn examined(signed: &SignedMandate) -> Option<Arc<Examined>> {
    MEMORY.with_borrow(|memory| {
        let place = (place(&signed.body), place(&signed.ballots));
        let known = memory.mandates.get(&place)?;
        same(known.signed(), signed).then(|| known.clone())
    })
}

/// Whether both are the same, as the long parts lie in the same places.
fn same(known: &SignedMandate, signed: &SignedMandate) -> bool {
    known.body.len() == signed.body.len()
        && known.ballots.len() == signed.ballots.len()
        && known.assembly == signed.assembly
        && known.endorsements == signed.endorsements
}

pub(crate) fn remember(examined: &Arc<Examined>) {
    MEMORY.with_borrow_mut(|memory| {
        if memory.mandates.len() >= memory.limit {
            memory.mandates.clear();
        }
        if memory.limit > 0 {
            let signed = examined.signed();
            let place = (place(&signed.body), place(&signed.ballots));
            memory.mandates.insert(place, examined.clone());
        }
    });
}

/// The contact that `signed` was found to be, if it was found good before.
pub(crate) fn contact(signed: &Signed) -> Option<Contact> {
    MEMORY.with_borrow(|memory| {
        let known = memory.contacts.get(&place(&signed.body))?;
        let same = known.signed.body.len() == signed.body.len()
            && known.signed.signer == signed.signer
            && known.signed.signature == signed.signature;
        same.then(|| known.clone())
    })
}

pub(crate) fn remember_contact(contact: &Contact) {
    MEMORY.with_borrow_mut(|memory| {
        if memory.contacts.len() >= memory.limit {
            memory.contacts.clear();
        }
        if memory.limit > 0 {
            let place = place(&contact.signed.body);
            memory.contacts.insert(place, contact.clone());
        }
    });
}

/// `entry`, or the same one as another peer has it.
pub(crate) fn entry(entry: Arc<Entry>) -> Arc<Entry> {
    MEMORY.with_borrow_mut(|memory| {
        if memory.limit == 0 {
            return entry;
        }
        let likeness = entry.likeness();
        let known = memory.entries.get(&likeness).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.same(&entry)) {
            return known;
        }
        if memory.entries.len() >= memory.entries_limit {
            memory.entries.retain(|_, known| known.strong_count() > 0);
            memory.entries_limit = ENTRIES.max(memory.entries.len() * 2);
        }
        memory.entries.insert(likeness, Arc::downgrade(&entry));
        entry
    })
}

/// The seats that all peers of this thread share, if they do.
pub(crate) fn table() -> Option<Arc<RwLock<Table>>> {
    MEMORY.with_borrow(|memory| memory.table.clone())
}

/// The placement of these members, as another peer has it; else `make` lays it
/// out.
pub(crate) fn placement(members: &Key, make: impl FnOnce() -> Inner) -> Arc<Inner> {
    let known = MEMORY.with_borrow(|memory| memory.placements.get(members).and_then(Weak::upgrade));
    known.unwrap_or_else(|| {
        let made = Arc::new(make());
        MEMORY.with_borrow_mut(|memory| {
            if memory.limit == 0 {
                return;
            }
            if memory.placements.len() >= memory.placements_limit {
                memory
                    .placements
                    .retain(|_, known| known.strong_count() > 0);
                memory.placements_limit = PLACEMENTS.max(memory.placements.len() * 2);
            }
            memory.placements.insert(*members, Arc::downgrade(&made));
        });
        made
    })
}

/// What came between these members and those, as another peer has found it; else
/// `find` does.
pub(crate) fn changes(
    before: &Key,
    after: &Key,
    find: impl FnOnce() -> Vec<Change>,
) -> Arc<[Change]> {
    let place = (*before, *after);
    answer(|memory| &mut memory.changes, CHANGES, place, find)
}

/// The `count` of these members who are closest to `position`, as another peer has
/// found them; else `find` does.
pub(crate) fn nearest(
    members: &Key,
    position: &Key,
    count: usize,
    find: impl FnOnce() -> Vec<(Key, NodeId)>,
) -> Ranked {
    let place = (*members, *position, count);
    answer(|memory| &mut memory.nearest, POSITIONS, place, find)
}

/// What `answers` have at `place`; else `find` does. Short ones are kept, and all are
/// forgotten past `most`.
fn answer<P: Eq + Hash, T>(
    answers: fn(&mut Memory) -> &mut HashMap<P, Arc<[T]>>,
    most: usize,
    place: P,
    find: impl FnOnce() -> Vec<T>,
) -> Arc<[T]> {
    let known = MEMORY.with_borrow_mut(|memory| answers(memory).get(&place).cloned());
    known.unwrap_or_else(|| {
        let found: Arc<[T]> = find().into();
        MEMORY.with_borrow_mut(|memory| {
            if memory.limit > 0 && found.len() <= FEW {
                let answers = answers(memory);
                if answers.len() >= most {
                    answers.clear();
                }
                answers.insert(place, found.clone());
            }
        });
        found
    })
}

/// A signature that one of the peers has just made needs no check.
pub(crate) fn made_signature(domain: Domain, signer: &NodeId, body: &Bytes, signature: &[u8]) {
    let made = good_signature(domain, signer, body, signature, || Ok(()));
    debug_assert!(made.is_ok());
}

pub(crate) fn good_signature(
    domain: Domain,
    signer: &NodeId,
    body: &Bytes,
    signature: &[u8],
    check: impl FnOnce() -> Result<(), SignatureError>,
) -> Result<(), SignatureError> {
    MEMORY.with_borrow_mut(|memory| {
        let Ok(signature) = signature.try_into() else {
            return check();
        };
        if memory.limit == 0 || body.is_empty() {
            return check();
        }
        if memory.good.len() >= memory.limit || memory.bodies.len() >= memory.limit {
            memory.good.clear();
            memory.bodies.clear();
        }
        let place = (body.as_ptr() as usize, body.len());
        let next = memory.bodies.len() as u32;
        let (_, body) = memory
            .bodies
            .entry(place)
            .or_insert_with(|| (body.clone(), next));
        let key = Check {
            body: *body,
            domain,
            signer: *signer,
            signature,
        };
        if memory.good.contains(&key) {
            return Ok(());
        }
        check()?;
        memory.good.insert(key);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Domain, Identity, verify};
    use crate::placement::{Member, Placement};

    #[test]
    fn what_is_remembered_is_that_signature_of_that_body_and_nothing_else() {
        remember_work(100);
        let identity = Identity::from_secret([7; 32]);
        let (body, other) = (Bytes::from_static(b"body"), Bytes::from_static(b"else"));
        let signature = identity.sign_bytes(Domain::Ballot, &body);
        let node = identity.node_id();
        for _ in 0..2 {
            assert!(verify(Domain::Ballot, &node, &body, &signature).is_ok());
            assert!(verify(Domain::Mandate, &node, &body, &signature).is_err());
            assert!(verify(Domain::Ballot, &node, &other, &signature).is_err());
            let stranger = Identity::from_secret([8; 32]).node_id();
            assert!(verify(Domain::Ballot, &stranger, &body, &signature).is_err());
            let mut forged = signature.to_vec();
            forged[0] ^= 1;
            assert!(verify(Domain::Ballot, &node, &body, &forged).is_err());
        }
        remember_work(0);
    }

    #[test]
    fn it_forgets_at_its_limit() {
        remember_work(10);
        let identity = Identity::from_secret([7; 32]);
        for i in 0..100u8 {
            let body = Bytes::copy_from_slice(&[i; 40]);
            let signature = identity.sign_bytes(Domain::Ballot, &body);
            let good = verify(Domain::Ballot, &identity.node_id(), &body, &signature);
            assert!(good.is_ok());
            MEMORY.with_borrow(|memory| assert!(memory.good.len() <= 10));
        }
        remember_work(0);
    }

    #[test]
    fn peers_that_know_the_same_members_share_one_placement() {
        let member = |i: u8| Member {
            node: NodeId([i; 32]),
            seats: 8,
            domain: "".into(),
        };
        let made = |order: [u8; 3]| {
            order
                .map(member)
                .into_iter()
                .fold(Placement::empty(), |p, m| p.with(m))
        };
        remember_work(10);
        let (one, other) = (made([1, 2, 3]), made([3, 1, 2]));
        assert!(one.same_snapshot(&other));
        assert!(!one.same_snapshot(&one.without(&NodeId([2; 32]))));
        assert_eq!(one.version(), other.version());
        let (position, nodes) = (Key([9; 32]), one.nearest(&Key([9; 32]), 3));
        assert_eq!(one.closest(&position, 3), nodes[..]);
        assert!(Arc::ptr_eq(&nodes, &other.nearest(&position, 3)));
        let fewer = other.without(&nodes[0].1);
        assert_eq!(fewer.nearest(&position, 3)[..], nodes[1..]);
        remember_work(0);
        assert!(!one.same_snapshot(&made([1, 2, 3])));
    }
}
