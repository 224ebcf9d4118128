//! What nodes say to each other, and how large that is.

use canopy_core::keyspace::Key;

use crate::world::PeerId;

/// Sizes are those of BEP 5 and BEP 44 in bencoding, with ids of 32 bytes: a
/// query with nothing but the asker's id...
const QUERY: u64 = 68;
/// ...what a target adds...
const TARGET: u64 = 48;
/// ...a reply with nothing but the answerer's id...
const REPLY: u64 = 60;
/// ...a list of contacts, and each of them: id, IPv4 address, port...
const CONTACTS: u64 = 10;
const CONTACT: u64 = 38;
/// ...and what a mutable value comes with: key, signature, sequence number.
const VALUE: u64 = 152;

/// A node, as others know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) peer: PeerId,
    /// Its place in the keyspace.
    pub(crate) key: Key,
}

/// A packet's content.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) from: Contact,
    /// The sender answers queries: it may be put in tables.
    pub(super) server: bool,
    /// It serves something that a user does, not upkeep.
    pub(crate) for_user: bool,
    /// Which query this is, or answers.
    pub(super) rpc: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Query(Query),
    Nodes {
        closest: Vec<Contact>,
        value: Option<u64>,
    },
    Stored,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Query {
    FindNode(Key),
    FindValue(Key),
    Store(Key, u64),
}

impl Message {
    /// Whether it wants an answer.
    pub(crate) fn is_query(&self) -> bool {
        matches!(self.body, Body::Query(_))
    }

    /// What it is called where traffic is counted.
    pub(crate) fn kind(&self) -> &'static str {
        match self.body {
            Body::Query(Query::FindNode(_)) => "find node",
            Body::Query(Query::FindValue(_)) => "find value",
            Body::Query(Query::Store(..)) => "store",
            Body::Nodes { .. } => "nodes",
            Body::Stored => "stored",
        }
    }

    /// Its bytes, where values have `data` bytes.
    pub(crate) fn size(&self, data: u64) -> u64 {
        match &self.body {
            Body::Query(Query::FindNode(_) | Query::FindValue(_)) => QUERY + TARGET,
            Body::Query(Query::Store(..)) => QUERY + VALUE + data,
            Body::Nodes { closest, value } => {
                let value = value.map_or(0, |_| VALUE + data);
                REPLY + CONTACTS + CONTACT * closest.len() as u64 + value
            }
            Body::Stored => REPLY,
        }
    }
}
