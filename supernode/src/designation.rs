//! An operator's word that a host serves: signed once, kept by the host,
//! renewed before it ends.
//!
//! It proves itself: a host that holds one is a super-node to every peer that
//! names the same operator. Nothing here trusts a file; what is opened is
//! checked as other peers will check it.

use bytes::Bytes;
use canopy_core::election::endorse::{Held, VerifyContext};
use canopy_core::election::mandate::{self, Basis, Mandate, MandateError};
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::roster::Nobody;
use canopy_proto::wire;
use prost::Message;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * 3600 * 1000;
/// Longest life of a designation, days: what peers accept.
pub const MAX_DAYS: u32 = (mandate::MAX_DESIGNATED_MS / DAY_MS) as u32;

/// Why a designation cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesignationError {
    /// Not a designation at all.
    #[error("is no designation; make one with `supernode designate`")]
    Malformed,
    /// It is another host's.
    #[error("is for the host {node}, and this is {own}; sign one with `supernode designate --node {own}`", node = .node, own = .own)]
    Node {
        /// Whom it designates.
        node: NodeId,
        /// Who we are.
        own: NodeId,
    },
    /// It is another network's.
    #[error(
        "is for the network {network:?}, and this host is of {own:?}; give --network {network:?}, or sign one for {own:?}"
    )]
    Network {
        /// The network it names.
        network: String,
        /// Our network.
        own: String,
    },
    /// Another operator signed it.
    #[error(
        "is signed by the operator {signer}, and this host's is {own}; correct --operator, or sign it with the other key"
    )]
    Operator {
        /// Who signed.
        signer: NodeId,
        /// The operator this host was told of.
        own: NodeId,
    },
    /// It is over.
    #[error("has expired; sign another with `supernode designate --node {0}`")]
    Expired(NodeId),
    /// Peers would refuse it for another reason.
    #[error("would be refused by other peers: {0}")]
    Refused(#[from] MandateError),
}

/// What a designation is to say.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The overlay's name.
    pub network: String,
    /// Who shall serve.
    pub node: NodeId,
    /// What it can send, bits a second: its share of the keys follows.
    pub capacity_bps: u64,
    /// For how long, at most [`MAX_DAYS`].
    pub days: u32,
    /// Failure domain; empty: the host is one of its own.
    pub zone: String,
}

/// What a host knows that a designation has to agree with.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The overlay's name.
    pub network: &'a str,
    /// Who the host is.
    pub node: NodeId,
    /// The operator that it was told of; `None`: whoever signed.
    pub operator: Option<NodeId>,
}

/// A designation that other peers of the network will accept.
#[derive(Clone, Debug, PartialEq)]
pub struct Designation {
    mandate: Mandate,
    signed: wire::SignedMandate,
}

impl Designation {
    /// Signs one with the operator's key. It is later than `before`, the one
    /// that it replaces, and than any that was signed a second ago.
    ///
    /// # Errors
    /// Peers would refuse it: a capacity or a name beyond any limit.
    pub fn sign(
        operator: &Identity,
        terms: &Terms,
        before: Option<&Designation>,
        now_ms: u64,
    ) -> Result<Self, DesignationError> {
        // Seconds since 1970 grow from one to the next without a register.
        let after = before.map_or(0, |old| old.mandate.term + 1);
        let zone = match terms.zone.as_str() {
            "" => terms.node.short(),
            zone => zone.to_owned(),
        };
        let mandate = Mandate {
            network: terms.network.clone(),
            term: (now_ms / 1000).max(after),
            candidate: terms.node,
            basis: Basis::Designated,
            capacity_bps: terms.capacity_bps,
            issued_ms: now_ms,
            expires_ms: now_ms + u64::from(terms.days) * DAY_MS,
            beacon: Key::default(),
            ballots: Vec::new(),
            officer: operator.node_id(),
            assembly: Vec::new(),
            domain: zone,
            deputy: false,
        };
        let holder = Holder {
            network: &terms.network,
            node: terms.node,
            operator: Some(operator.node_id()),
        };
        Self::check(mandate.designate(operator), &holder, now_ms)
    }

    /// Opens a designation from a file.
    ///
    /// # Errors
    /// It is none, does not agree with `holder`, or peers would refuse it.
    pub fn open(bytes: &[u8], holder: &Holder<'_>, now_ms: u64) -> Result<Self, DesignationError> {
        let signed = wire::SignedMandate::decode(Bytes::copy_from_slice(bytes));
        Self::check(
            signed.map_err(|_| DesignationError::Malformed)?,
            holder,
            now_ms,
        )
    }

    fn check(
        signed: wire::SignedMandate,
        holder: &Holder<'_>,
        now_ms: u64,
    ) -> Result<Self, DesignationError> {
        let body = wire::Mandate::decode(signed.body.clone());
        let body = body.map_err(|_| DesignationError::Malformed)?;
        let ids = (
            NodeId::from_slice(&body.candidate),
            NodeId::from_slice(&body.officer),
        );
        let (Some(node), Some(signer)) = ids else {
            return Err(DesignationError::Malformed);
        };
        if body.basis != wire::Basis::Designated as i32 {
            return Err(DesignationError::Malformed);
        }
        // First what the user can set right, then what peers look at.
        if body.network != holder.network {
            return Err(DesignationError::Network {
                network: body.network.chars().take(64).collect(),
                own: holder.network.to_owned(),
            });
        }
        if node != holder.node {
            let own = holder.node;
            return Err(DesignationError::Node { node, own });
        }
        match holder.operator {
            Some(own) if own != signer => {
                return Err(DesignationError::Operator { signer, own });
            }
            _ => {}
        }
        let context = VerifyContext {
            network: holder.network,
            now_ms,
            operator: Some(signer),
            authorities: &Nobody,
            assemblies: &[],
            bootstrap: false,
            brief: false,
            held: &|_| Held::default(),
        };
        let mandate = match mandate::open(&signed, &context) {
            Ok(verified) => verified.mandate().clone(),
            Err(MandateError::Expired) => return Err(DesignationError::Expired(node)),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { mandate, signed })
    }

    /// What it says.
    pub fn mandate(&self) -> &Mandate {
        &self.mandate
    }

    /// Who signed it: the key that peers name as their operator's.
    pub fn operator(&self) -> NodeId {
        self.mandate.officer
    }

    /// What other peers are shown.
    pub fn signed(&self) -> &wire::SignedMandate {
        &self.signed
    }

    /// For a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.signed.encode_to_vec()
    }

    /// Whether it is time for the next: less than a quarter of its life is left.
    pub fn is_due(&self, now_ms: u64) -> bool {
        let life = self
            .mandate
            .expires_ms
            .saturating_sub(self.mandate.issued_ms);
        self.mandate.expires_ms.saturating_sub(now_ms) < life / 4
    }

    /// Whole days that are left of it.
    pub fn days_left(&self, now_ms: u64) -> u64 {
        self.mandate.expires_ms.saturating_sub(now_ms) / DAY_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn operator() -> Identity {
        Identity::from_secret([1; 32])
    }

    fn terms() -> Terms {
        Terms {
            network: "net".into(),
            node: Identity::from_secret([2; 32]).node_id(),
            capacity_bps: 100_000_000,
            days: 100,
            zone: String::new(),
        }
    }

    fn holder() -> Holder<'static> {
        Holder {
            network: "net",
            node: terms().node,
            operator: Some(operator().node_id()),
        }
    }

    #[test]
    fn a_designation_comes_back_from_its_bytes() {
        let made = Designation::sign(&operator(), &terms(), None, NOW).unwrap();
        let read = Designation::open(&made.to_bytes(), &holder(), NOW).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.mandate().capacity_bps, 100_000_000);
        assert_eq!(read.operator(), operator().node_id());
    }

    #[test]
    fn the_term_grows_with_each_however_fast_they_follow() {
        let first = Designation::sign(&operator(), &terms(), None, NOW).unwrap();
        let second = Designation::sign(&operator(), &terms(), Some(&first), NOW).unwrap();
        let later = Designation::sign(&operator(), &terms(), None, NOW + 2_000).unwrap();
        let terms = [&first, &second, &later].map(|made| made.mandate().term);
        assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
    }

    #[test]
    fn it_is_due_in_its_last_quarter_and_over_at_its_end() {
        let made = Designation::sign(&operator(), &terms(), None, NOW).unwrap();
        assert!(!made.is_due(NOW + 74 * DAY_MS));
        assert!(made.is_due(NOW + 76 * DAY_MS));
        assert_eq!(made.days_left(NOW + 76 * DAY_MS), 24);
        let over = Designation::open(&made.to_bytes(), &holder(), NOW + 100 * DAY_MS);
        assert_eq!(over, Err(DesignationError::Expired(terms().node)));
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let made = Designation::sign(&operator(), &terms(), None, NOW).unwrap();
        let open = |holder| Designation::open(&made.to_bytes(), &holder, NOW).unwrap_err();
        let other = Identity::from_secret([3; 32]).node_id();
        let network = Holder {
            network: "other",
            ..holder()
        };
        assert!(matches!(open(network), DesignationError::Network { .. }));
        let node = Holder {
            node: other,
            ..holder()
        };
        assert!(matches!(open(node), DesignationError::Node { .. }));
        let signer = Holder {
            operator: Some(other),
            ..holder()
        };
        assert!(matches!(open(signer), DesignationError::Operator { .. }));
    }

    #[test]
    fn a_forged_or_damaged_one_is_refused() {
        let made = Designation::sign(&operator(), &terms(), None, NOW).unwrap();
        let mut forged = made.signed.clone();
        let mut body = wire::Mandate::decode(forged.body.clone()).unwrap();
        body.capacity_bps += 1;
        forged.body = Bytes::from(body.encode_to_vec());
        let forged = Designation::open(&forged.encode_to_vec(), &holder(), NOW);
        assert!(
            matches!(forged, Err(DesignationError::Refused(_))),
            "{forged:?}"
        );
        for damage in [&b""[..], b"\xff\xff", b"a text", &[0; 9000]] {
            let error = Designation::open(damage, &holder(), NOW).unwrap_err();
            assert_eq!(error, DesignationError::Malformed);
        }
        let beyond = Terms {
            capacity_bps: u64::MAX,
            ..terms()
        };
        assert!(Designation::sign(&operator(), &beyond, None, NOW).is_err());
    }
}
