//! Where a peer is reached, and which failure domain it belongs to.
//!
//! A contact is signed by its peer; nobody else can move it to another address.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use canopy_proto::wire;

use crate::identity::{Domain, Identity, SignatureError, open};
use crate::keyspace::NodeId;
use crate::memory;

/// Most addresses that a contact may name.
pub const MAX_ADDRS: usize = 8;
/// Longest zone label, bytes.
pub const MAX_ZONE: usize = 64;

/// A verified contact, with the signed form that can be passed on. Cloning shares
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact(Arc<Place>);

/// What a contact says.
#[derive(Debug, PartialEq)]
pub struct Place {
    /// Who it is.
    pub node_id: NodeId,
    /// Where it listens; best first.
    pub addrs: Vec<SocketAddr>,
    /// Failure domain label of its operator; empty if none was given.
    pub zone: String,
    /// When it was signed, by the peer's own clock, milliseconds since 1970.
    pub issued_ms: u64,
    /// What the peer signed.
    pub signed: wire::Signed,
}

impl Deref for Contact {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

/// Why a contact was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContactError {
    /// Not signed by the peer it names.
    #[error("contact: {0}")]
    Signature(#[from] SignatureError),
    /// Named another peer than its signer.
    #[error("contact: signed by another peer than it names")]
    Signer,
    /// Over a limit, or an address that cannot be parsed.
    #[error("contact: too many or malformed addresses, or too long a zone")]
    Shape,
}

impl Contact {
    /// Makes and signs the contact of `identity`. Addresses past
    /// [`MAX_ADDRS`] and zone bytes past [`MAX_ZONE`] are cut.
    pub fn sign(identity: &Identity, addrs: &[SocketAddr], zone: &str, issued_ms: u64) -> Self {
        let addrs: Vec<_> = addrs.iter().copied().take(MAX_ADDRS).collect();
        let mut end = zone.len().min(MAX_ZONE);
        while !zone.is_char_boundary(end) {
            end -= 1;
        }
        let zone = zone[..end].to_owned();
        let body = wire::Contact {
            node_id: identity.node_id().to_bytes(),
            addrs: addrs.iter().map(SocketAddr::to_string).collect(),
            issued_ms,
            zone: zone.clone(),
        };
        let signed = identity.sign(Domain::Contact, &body);
        let contact = Self(Arc::new(Place {
            node_id: identity.node_id(),
            addrs,
            zone,
            issued_ms,
            signed,
        }));
        memory::remember_contact(&contact);
        contact
    }

    /// The contact that a message gives, if it is a good one; see [`Contact::open`].
    pub fn given(signed: &Option<wire::Signed>) -> Option<Self> {
        Self::open(signed.as_ref()?).ok()
    }

    /// Checks signature and limits of a contact from outside.
    pub fn open(signed: &wire::Signed) -> Result<Self, ContactError> {
        if let Some(known) = memory::contact(signed) {
            return Ok(known);
        }
        let (signer, body) = open::<wire::Contact>(Domain::Contact, signed)?;
        if body.node_id != Bytes::copy_from_slice(&signer.0) {
            return Err(ContactError::Signer);
        }
        if body.addrs.len() > MAX_ADDRS || body.zone.len() > MAX_ZONE {
            return Err(ContactError::Shape);
        }
        let addrs = body
            .addrs
            .iter()
            .map(|addr| addr.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| ContactError::Shape)?;
        let contact = Self(Arc::new(Place {
            node_id: signer,
            addrs,
            zone: body.zone,
            issued_ms: body.issued_ms,
            signed: signed.clone(),
        }));
        memory::remember_contact(&contact);
        Ok(contact)
    }

    /// The failure domain: the zone label, else the prefix of the first address.
    pub fn domain(&self) -> String {
        match (self.zone.as_str(), self.addrs.first()) {
            ("", Some(addr)) => prefix(addr),
            ("", None) => String::new(),
            (zone, _) => zone.to_owned(),
        }
    }
}

/// The network that an address belongs to, as far as juries, dial-backs and
/// failure domains care: IPv4 /16, IPv6 /32, the whole address on private
/// networks, and address with port on loopback, where every peer counts as a
/// network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// A loopback address, with its port.
    Loopback(SocketAddr),
    /// An address of a private network.
    Private(IpAddr),
    /// The first two bytes of a public IPv4 address.
    V4([u8; 2]),
    /// The first two groups of a public IPv6 address.
    V6([u16; 2]),
}

impl Network {
    /// The network of `addr`.
    pub fn of(addr: &SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            ip if ip.is_loopback() => Self::Loopback(*addr),
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => Self::Private(ip.into()),
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => {
                Self::Private(ip.into())
            }
            IpAddr::V6(ip) => {
                let [a, b, ..] = ip.segments();
                Self::V6([a, b])
            }
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback(addr) => addr.fmt(f),
            Self::Private(ip) => ip.fmt(f),
            Self::V4([a, b]) => write!(f, "{a}.{b}.0.0/16"),
            Self::V6([a, b]) => write!(f, "{a:x}:{b:x}::/32"),
        }
    }
}

/// The [`Network`] of `addr`, as text.
pub fn prefix(addr: &SocketAddr) -> String {
    Network::of(addr).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_opens_only_as_signed() {
        let identity = Identity::from_secret([1; 32]);
        let addr: SocketAddr = "127.0.0.1:4477".parse().unwrap();
        let contact = Contact::sign(&identity, &[addr], "rack-1", 5);
        assert_eq!(Contact::open(&contact.signed), Ok(contact.clone()));
        assert_eq!(contact.domain(), "rack-1");

        let mut other = contact.signed.clone();
        other.signer = Identity::from_secret([2; 32]).node_id().to_bytes();
        assert!(Contact::open(&other).is_err());
    }

    #[test]
    fn prefixes_follow_the_kind_of_address() {
        let of = |text: &str| prefix(&text.parse().unwrap());
        assert_eq!(of("127.0.0.1:1"), "127.0.0.1:1");
        assert_eq!(of("192.168.1.2:1"), "192.168.1.2");
        assert_eq!(of("203.0.113.9:1"), "203.0.0.0/16");
        assert_eq!(of("[2001:db8::1]:1"), "2001:db8::/32");
        assert_eq!(of("[::ffff:203.0.113.9]:1"), "203.0.0.0/16");
    }

    #[test]
    fn a_long_zone_is_cut_at_a_character() {
        let identity = Identity::from_secret([1; 32]);
        let contact = Contact::sign(&identity, &[], &"é".repeat(40), 0);
        assert_eq!(contact.zone.len(), 64);
        assert!(Contact::open(&contact.signed).is_ok());
    }
}
