//! The 256-bit keyspace: keys, node ids and XOR distance (Kademlia).
//!
//! A key is a BLAKE3 hash with a domain label per kind, so that the same bytes
//! under two kinds never meet.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// A position in the keyspace: 32 bytes, most significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// Its first eight bytes as a number: enough of a hash to tell a few apart.
    pub(crate) fn short_hash(&self) -> u64 {
        first_eight(&self.0)
    }

    /// Hashes `parts` under `domain`. Parts are length-prefixed, so that
    /// `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn hash(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// XOR distance to `other`; compare with `<`.
    pub fn distance(&self, other: &Self) -> Key {
        let mut out = [0; 32];
        for (byte, (a, b)) in out.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *byte = a ^ b;
        }
        Key(out)
    }

    /// The first eight bytes as a number: enough to order almost any two keys.
    pub fn prefix(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(head)
    }

    /// Reads a key from exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The key as bytes for a message.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &to_hex(&self.0)[..10])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// A peer's name: its Ed25519 public key. Printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// Reads a node id from exactly 32 bytes. Whether they are a valid public
    /// key shows when a signature is checked.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The id as bytes for a message.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The first ten digits, for tables and logs.
    pub fn short(&self) -> String {
        to_hex(&self.0[..5])
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The first eight bytes as a number.
fn first_eight(bytes: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The order of 32 bytes, which the first eight decide nearly always.
fn order(one: &[u8; 32], other: &[u8; 32]) -> Ordering {
    let first = first_eight(one).cmp(&first_eight(other));
    first.then_with(|| one.cmp(other))
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0)
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text is no node id or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 64 hexadecimal digits")]
pub struct ParseIdError(pub String);

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

impl FromStr for Key {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

fn parse_hex(text: &str) -> Result<[u8; 32], ParseIdError> {
    let fail = || ParseIdError(text.chars().take(80).collect());
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(fail());
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16).ok_or_else(fail)?;
        let low = (pair[1] as char).to_digit(16).ok_or_else(fail)?;
        *byte = (high * 16 + low) as u8;
    }
    Ok(out)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of what the overlay stores and decides.
pub mod keys {
    use super::{Key, NodeId};

    /// A value under its publisher and name.
    pub fn value(publisher: &NodeId, name: &str) -> Key {
        Key::hash("value", &[&publisher.0, name.as_bytes()])
    }

    /// A value under the BLAKE3 hash of its data.
    pub fn content_value(data: &[u8]) -> Key {
        content(blake3::hash(data).as_bytes())
    }

    /// The value with this BLAKE3 hash.
    pub fn content(hash: &[u8; 32]) -> Key {
        Key::hash("content", &[hash])
    }

    /// Who has the content with this BLAKE3 hash.
    pub fn provider(content: &[u8; 32]) -> Key {
        Key::hash("provider", &[content])
    }

    /// Items that have this folded term.
    pub fn term(term: &str) -> Key {
        Key::hash("term", &[term.as_bytes()])
    }

    /// Items with a term that begins so; see the search module for its length.
    pub fn term_prefix(prefix: &str) -> Key {
        Key::hash("prefix", &[prefix.as_bytes()])
    }

    /// Where a peer is homed.
    pub fn location(peer: &NodeId) -> Key {
        Key::hash("location", &[&peer.0])
    }

    /// Letters to a peer.
    pub fn mailbox(peer: &NodeId) -> Key {
        Key::hash("mailbox", &[&peer.0])
    }

    /// Who looks after a topic.
    pub fn topic(network: &str, topic: &str) -> Key {
        Key::hash("topic", &[network.as_bytes(), topic.as_bytes()])
    }

    /// The `index`-th seat of a super-node.
    pub fn seat(node: &NodeId, index: u32) -> Key {
        Key::hash("seat", &[&node.0, &index.to_le_bytes()])
    }

    /// The super-node with the seat closest to this runs the term.
    pub fn election(network: &str, term: u64) -> Key {
        Key::hash("election", &[network.as_bytes(), &term.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(
            Key::hash("x", &[b"ab", b"c"]),
            Key::hash("x", &[b"a", b"bc"])
        );
        assert_ne!(Key::hash("x", &[b"a"]), Key::hash("xa", &[]));
    }

    #[test]
    fn ids_print_and_parse_back() {
        let id = NodeId([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("abc".parse::<NodeId>().is_err());
        assert!("zz".repeat(32).parse::<NodeId>().is_err());
        assert!("é".repeat(32).parse::<NodeId>().is_err());
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        let ids = [[0; 32], [7; 32], [0xff; 32]].into_iter().flat_map(|id| {
            [0, 7, 8, 31].map(|at| {
                let mut id = id;
                id[at] = 9;
                NodeId(id)
            })
        });
        let ids: Vec<NodeId> = ids.collect();
        for (one, other) in ids.iter().flat_map(|one| ids.iter().map(move |o| (one, o))) {
            assert_eq!(one.cmp(other), one.0.cmp(&other.0));
            assert_eq!(Key(one.0).cmp(&Key(other.0)), one.0.cmp(&other.0));
        }
    }

    #[test]
    fn distance_orders_like_xor() {
        let (a, b) = (Key([1; 32]), Key([3; 32]));
        assert_eq!(a.distance(&b), Key([2; 32]));
        assert_eq!(a.distance(&a), Key::default());
    }
}
