//! Signatures that this thread has found good, for a process that runs many
//! peers: what one of them has checked, the others need not check again.
//!
//! Off unless asked for. A check is a pure function of its input, so that
//! nothing but time depends on it; failures are never remembered. Bodies are
//! known by where they lie in memory, and are held so that nothing else can
//! come to lie there: peers that pass a message on share its bytes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{Domain, SignatureError};
use crate::keyspace::NodeId;

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
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// From now on this thread remembers up to `limit` good signatures (about 300
/// bytes each), for all peers that it runs; 0 forgets them all. Past the limit
/// it starts anew.
pub fn remember_signatures(limit: usize) {
    MEMORY.with_borrow_mut(|memory| {
        *memory = Memory {
            limit,
            ..Memory::default()
        };
    });
}

pub(super) fn remembered(
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
    use crate::identity::{Identity, verify};

    #[test]
    fn what_is_remembered_is_that_signature_of_that_body_and_nothing_else() {
        remember_signatures(100);
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
        remember_signatures(0);
    }

    #[test]
    fn it_forgets_at_its_limit() {
        remember_signatures(10);
        let identity = Identity::from_secret([7; 32]);
        for i in 0..100u8 {
            let body = Bytes::copy_from_slice(&[i; 40]);
            let signature = identity.sign_bytes(Domain::Ballot, &body);
            let good = verify(Domain::Ballot, &identity.node_id(), &body, &signature);
            assert!(good.is_ok());
            MEMORY.with_borrow(|memory| assert!(memory.good.len() <= 10));
        }
        remember_signatures(0);
    }
}
