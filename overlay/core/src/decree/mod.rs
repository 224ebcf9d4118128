//! What a network's operator decreed: who and what is banned, which hosts serve
//! by designation, and the policy of elections.
//!
//! A decree is signed by the operator's key alone. Of those about one subject the
//! highest sequence counts, whatever the order of arrival, so that whoever has
//! heard of the same decrees obeys the same.
//!
//! | file | idea |
//! |---|---|
//! | `bans` | what is banned, as the data plane reads it |
//! | `policy` | what elections go by |
//! | `register` | the decrees in force, one a subject |

mod bans;
mod policy;
mod register;

use bytes::Bytes;
use canopy_proto::{limits, wire};
use prost::Message;
use wire::ban::What as BanWhat;
use wire::decree::What;

use crate::election::ballot::MAX_NETWORK;
use crate::election::mandate::{MAX_CLOCK_AHEAD_MS, MAX_DESIGNATED_MS};
use crate::identity::{Domain, Identity, SignatureError, open};
use crate::keyspace::{Key, NodeId};

pub use bans::Bans;
pub use policy::{Policy, PolicyError};
pub use register::{MAX_DECREES, Rank, Register};

/// Longest reason of a ban, bytes.
pub const MAX_REASON: usize = 200;
/// Longest life of a decree, milliseconds: that of a designation.
pub const MAX_LIFE_MS: u64 = MAX_DESIGNATED_MS;

/// What can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Banned {
    /// A peer: it gets no session, holds no mandate and does not vote.
    Peer(NodeId),
    /// Every record that this publisher signed.
    Publisher(NodeId),
    /// What has this BLAKE3 hash: the value, who provides it, items of it.
    Content([u8; 32]),
}

impl std::fmt::Display for Banned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Banned::Peer(node) => write!(f, "peer {node}"),
            Banned::Publisher(node) => write!(f, "publisher {node}"),
            Banned::Content(hash) => write!(f, "content {}", Key(*hash)),
        }
    }
}

/// What a decree is about; there is one decree in force for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The policy of elections.
    Policy,
    /// Whether this host serves by designation.
    Host(NodeId),
    /// Whether this is banned.
    Ban(Banned),
}

impl Subject {
    /// Names the subject where two super-nodes compare what they hold.
    pub fn key(&self) -> Key {
        let (kind, id): (&[u8], &[u8]) = match self {
            Subject::Policy => (b"policy", b""),
            Subject::Host(node) => (b"host", &node.0),
            Subject::Ban(Banned::Peer(node)) => (b"peer", &node.0),
            Subject::Ban(Banned::Publisher(node)) => (b"publisher", &node.0),
            Subject::Ban(Banned::Content(hash)) => (b"content", hash),
        };
        Key::hash("decree subject", &[kind, id])
    }

    /// Whether a leaf needs to know, beside super-nodes.
    pub fn concerns(&self, leaf: &NodeId) -> bool {
        match self {
            Subject::Policy => true,
            Subject::Host(node) | Subject::Ban(Banned::Peer(node)) => node == leaf,
            Subject::Ban(_) => false,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Policy => f.write_str("policy"),
            Subject::Host(node) => write!(f, "host {node}"),
            Subject::Ban(banned) => banned.fmt(f),
        }
    }
}

/// What a decree says of its subject.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// It is banned.
    Ban {
        /// What.
        what: Banned,
        /// Why, for people.
        reason: String,
    },
    /// It is banned no more.
    Unban(Banned),
    /// The host serves by this mandate, which the operator signed as well.
    Designate {
        /// Which host.
        host: NodeId,
        /// Checked as every mandate is, when the host shows it.
        mandate: Box<wire::SignedMandate>,
    },
    /// Designations of the host that were issued before this are void.
    Undesignate(NodeId),
    /// Elections go by this.
    Policy(Policy),
}

impl Order {
    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Order::Ban { what, .. } | Order::Unban(what) => Subject::Ban(*what),
            Order::Designate { host, .. } | Order::Undesignate(host) => Subject::Host(*host),
            Order::Policy(_) => Subject::Policy,
        }
    }

    /// The word that people and programs see.
    pub fn as_str(&self) -> &'static str {
        match self {
            Order::Ban { .. } => "ban",
            Order::Unban(_) => "unban",
            Order::Designate { .. } => "designate",
            Order::Undesignate(_) => "undesignate",
            Order::Policy(_) => "policy",
        }
    }
}

/// Why a decree does not count. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecreeError {
    /// The network has no operator key.
    #[error(
        "this overlay has no operator key, and only an operator decrees; make one with `supernode operator-key`, and start every peer with --operator PUBLIC_KEY"
    )]
    NoOperator,
    /// Over the size limit.
    #[error("the decree is of {0} bytes, the limit is {max}", max = limits::DECREE)]
    Size(usize),
    /// A part is missing, malformed or over its limit.
    #[error("the decree cannot be read: {0}")]
    Shape(&'static str),
    /// A policy that contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Made for another network.
    #[error("the decree is for the network {0:?}; sign one for this network")]
    Network(String),
    /// Not signed by the operator.
    #[error(
        "the decree is signed by {signer}, and this network's operator is {operator}; sign it with the operator's key"
    )]
    Signer {
        /// Who signed.
        signer: NodeId,
        /// Who had to.
        operator: NodeId,
    },
    /// The signature does not hold.
    #[error("the decree's signature does not hold: {0}")]
    Signature(#[from] SignatureError),
    /// Issued in the future.
    #[error("the decree was issued {0} ms in the future; check the clocks")]
    Future(u64),
    /// Over.
    #[error("the decree has expired; sign another")]
    Expired,
    /// It would live too long.
    #[error("the decree lasts longer than 400 days; sign one for a shorter time")]
    Lifetime,
    /// A later one about the subject is known.
    #[error(
        "a later decree about it, of sequence {held}, is in force; sign one with a higher sequence"
    )]
    Superseded {
        /// Of the one in force.
        held: u64,
    },
    /// There are as many as may be.
    #[error(
        "as many decrees are in force as there may be, {max}; wait until some expire",
        max = register::MAX_DECREES
    )]
    Full,
}

/// What the operator says. Plain data; proves nothing by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Decree {
    /// The overlay it is for.
    pub network: String,
    /// Higher ones replace lower ones about the same subject.
    pub sequence: u64,
    /// When it was signed, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// What it says.
    pub order: Order,
}

impl Decree {
    /// Signs it with the operator's key.
    pub fn sign(&self, operator: &Identity) -> wire::Signed {
        operator.sign(Domain::Decree, &self.to_wire())
    }

    fn to_wire(&self) -> wire::Decree {
        let ban = |what: &Banned, lifted, reason: &str| {
            What::Ban(wire::Ban {
                what: Some(match what {
                    Banned::Peer(node) => BanWhat::Peer(node.to_bytes()),
                    Banned::Publisher(node) => BanWhat::Publisher(node.to_bytes()),
                    Banned::Content(hash) => BanWhat::Content(Bytes::copy_from_slice(hash)),
                }),
                lifted,
                reason: reason.to_owned(),
            })
        };
        let designation = |host: &NodeId, mandate| {
            let host = host.to_bytes();
            What::Designation(wire::Designation { host, mandate })
        };
        let what = match &self.order {
            Order::Ban { what, reason } => ban(what, false, reason),
            Order::Unban(what) => ban(what, true, ""),
            Order::Designate { host, mandate } => {
                designation(host, Some(wire::SignedMandate::clone(mandate)))
            }
            Order::Undesignate(host) => designation(host, None),
            Order::Policy(policy) => What::Policy(policy.to_wire()),
        };
        wire::Decree {
            network: self.network.clone(),
            sequence: self.sequence,
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
            what: Some(what),
        }
    }

    /// Reads a body; nothing is checked but its shape.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(body: &Bytes) -> Result<Self, DecreeError> {
        let body = wire::Decree::decode(body.clone());
        Self::of_wire(body.map_err(|_| DecreeError::Shape("it is no decree"))?)
    }

    fn of_wire(body: wire::Decree) -> Result<Self, DecreeError> {
        let shape = DecreeError::Shape;
        let order = match body.what.ok_or(shape("it says nothing"))? {
            What::Ban(ban) => order_of_ban(ban)?,
            What::Designation(designation) => {
                let host = NodeId::from_slice(&designation.host);
                let host = host.ok_or(shape("a host's id is 32 bytes"))?;
                match designation.mandate {
                    Some(mandate) => Order::Designate {
                        host,
                        mandate: Box::new(mandate),
                    },
                    None => Order::Undesignate(host),
                }
            }
            What::Policy(policy) => Order::Policy(Policy::of_wire(&policy)?),
        };
        if body.network.len() > MAX_NETWORK {
            return Err(shape("its network's name is too long"));
        }
        Ok(Self {
            network: body.network,
            sequence: body.sequence,
            issued_ms: body.issued_ms,
            expires_ms: body.expires_ms,
            order,
        })
    }

    fn check(&self, network: &str, now_ms: u64) -> Result<(), DecreeError> {
        if self.network != network {
            let name = self.network.chars().take(64).collect();
            return Err(DecreeError::Network(name));
        }
        if self.issued_ms > now_ms.saturating_add(MAX_CLOCK_AHEAD_MS) {
            return Err(DecreeError::Future(self.issued_ms - now_ms));
        }
        if self.expires_ms <= now_ms {
            return Err(DecreeError::Expired);
        }
        match self.expires_ms - self.issued_ms.min(self.expires_ms) > MAX_LIFE_MS {
            true => Err(DecreeError::Lifetime),
            false => Ok(()),
        }
    }
}

fn order_of_ban(ban: wire::Ban) -> Result<Order, DecreeError> {
    let shape = DecreeError::Shape;
    let node = |bytes: &[u8]| NodeId::from_slice(bytes).ok_or(shape("an id is 32 bytes"));
    let what = match ban.what.ok_or(shape("it bans nothing"))? {
        BanWhat::Peer(id) => Banned::Peer(node(&id)?),
        BanWhat::Publisher(id) => Banned::Publisher(node(&id)?),
        BanWhat::Content(hash) => {
            let hash = hash.as_ref().try_into();
            Banned::Content(hash.map_err(|_| shape("a content hash is 32 bytes"))?)
        }
    };
    if ban.reason.len() > MAX_REASON || ban.reason.chars().any(char::is_control) {
        return Err(shape(
            "its reason is over 200 bytes, or has control characters",
        ));
    }
    Ok(match ban.lifted {
        true => Order::Unban(what),
        false => Order::Ban {
            what,
            reason: ban.reason,
        },
    })
}

/// A decree that passed every check, with the form that is passed on. Only
/// [`VerifiedDecree::open`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedDecree {
    decree: Decree,
    signed: wire::Signed,
}

impl VerifiedDecree {
    /// Checks a decree from outside: size, shape, network, times, and that the
    /// operator signed it.
    ///
    /// # Errors
    /// It does not count here.
    pub fn open(
        signed: &wire::Signed,
        network: &str,
        operator: Option<NodeId>,
        now_ms: u64,
    ) -> Result<Self, DecreeError> {
        let operator = operator.ok_or(DecreeError::NoOperator)?;
        let size = signed.encoded_len();
        if size > limits::DECREE {
            return Err(DecreeError::Size(size));
        }
        // Cheap refusals first; a signature costs 40 microseconds.
        Decree::decode(&signed.body)?.check(network, now_ms)?;
        match NodeId::from_slice(&signed.signer) {
            Some(signer) if signer != operator => {
                return Err(DecreeError::Signer { signer, operator });
            }
            _ => {}
        }
        let (_, body) = open::<wire::Decree>(Domain::Decree, signed)?;
        Ok(Self {
            decree: Decree::of_wire(body)?,
            signed: signed.clone(),
        })
    }

    /// What it says.
    pub fn decree(&self) -> &Decree {
        &self.decree
    }

    /// What was signed, to be stored and passed on.
    pub fn signed(&self) -> &wire::Signed {
        &self.signed
    }
}

#[cfg(test)]
mod tests;
