//! Messages sealed end to end: whoever carries one sees who writes to whom, how
//! much and when, and nothing else.
//!
//! A sealed box (X25519 with a key of its own, XSalsa20-Poly1305) to the
//! addressee's key. It begins with the sender's id: nobody can pass another's
//! box off as its own by signing the envelope anew.

use bytes::Bytes;
use canopy_core::identity::{Identity, x25519_public};
use canopy_core::keyspace::NodeId;
use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey};

/// Bytes of the sender's id.
const SENDER: usize = 32;

/// Seals `message` of `from` to `to`; `None`: `to` is no public key.
pub(crate) fn seal(from: &NodeId, to: &NodeId, message: &[u8]) -> Option<Bytes> {
    let key = PublicKey::from_bytes(x25519_public(to)?);
    let sealed = key.seal(&mut OsRng, &[&from.0, message].concat());
    sealed.ok().map(Bytes::from)
}

/// Opens what `from` sealed to `identity`; `None`: it did not.
pub(crate) fn unseal(identity: &Identity, from: &NodeId, sealed: &[u8]) -> Option<Bytes> {
    let key = SecretKey::from_bytes(identity.x25519_secret());
    let opened = Bytes::from(key.unseal(sealed).ok()?);
    let sender = opened.get(..SENDER)?;
    (sender == from.0.as_slice()).then(|| opened.slice(SENDER..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_addressee_opens_it_and_only_as_its_senders() {
        let identity = |secret| Identity::from_secret([secret; 32]);
        let (from, to, other) = (identity(1), identity(2), identity(3));
        let sealed = seal(&from.node_id(), &to.node_id(), b"hello").unwrap();
        let open = |by: &Identity, of: &Identity| unseal(by, &of.node_id(), &sealed);
        assert_eq!(open(&to, &from).as_deref(), Some(&b"hello"[..]));
        assert_eq!(open(&other, &from), None);
        assert_eq!(open(&to, &other), None);
        assert!(!sealed.windows(5).any(|part| part == b"hello"));
        let mut spoilt = sealed.to_vec();
        spoilt[50] ^= 1;
        assert_eq!(unseal(&to, &from.node_id(), &spoilt), None);
        assert_eq!(unseal(&to, &from.node_id(), b"short"), None);
    }

    #[test]
    fn nothing_is_sealed_to_what_is_no_key() {
        let from = Identity::from_secret([1; 32]).node_id();
        // Of small order: the shared secret would be known to all.
        let mut small = [0; 32];
        small[0] = 1;
        assert_eq!(seal(&from, &NodeId(small), b"x"), None);
        assert_eq!(seal(&from, &NodeId([2; 32]), b"x"), None);
    }
}
