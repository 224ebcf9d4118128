//! Signing keys, and messages signed under a domain.
//!
//! A signature covers `domain | 0 | body`, so that a ballot can never pass for
//! a record. Bodies stay encoded: what was signed is what is stored and sent on.

use bytes::Bytes;
use canopy_proto::wire;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::keyspace::NodeId;

/// What kind of body a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// [`wire::Contact`]
    Contact,
    /// [`wire::Record`]
    Record,
    /// [`wire::Ballot`]
    Ballot,
    /// [`wire::Mandate`]
    Mandate,
    /// [`wire::Release`]
    Release,
    /// A share of a race's beacon.
    Beacon,
    /// [`wire::Decree`]
    Decree,
    /// [`wire::Envelope`]
    Envelope,
    /// [`wire::Post`]
    Post,
}

impl Domain {
    fn label(self) -> &'static [u8] {
        match self {
            Domain::Contact => b"canopy contact v1\0",
            Domain::Record => b"canopy record v1\0",
            Domain::Ballot => b"canopy ballot v1\0",
            Domain::Mandate => b"canopy mandate v1\0",
            Domain::Release => b"canopy release v1\0",
            Domain::Beacon => b"canopy beacon v1\0",
            Domain::Decree => b"canopy decree v1\0",
            Domain::Envelope => b"canopy envelope v1\0",
            Domain::Post => b"canopy post v1\0",
        }
    }
}

/// Why a signed message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signer is not 32 bytes of a valid public key.
    #[error("the signer is not an Ed25519 public key")]
    Signer,
    /// The signature does not match body and signer.
    #[error("the signature does not match")]
    Mismatch,
    /// The body is not an encoded message of its kind.
    #[error("the signed body cannot be decoded")]
    Body,
}

/// A peer's secret key. `Debug` prints the public half only.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity with this 32-byte Ed25519 secret.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(&secret),
        }
    }

    /// The 32-byte secret, to be stored with mode 600 and nowhere else.
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// Encodes and signs `message`.
    pub fn sign(&self, domain: Domain, message: &impl Message) -> wire::Signed {
        let body = Bytes::from(message.encode_to_vec());
        let (signature, signer) = (self.sign_bytes(domain, &body), self.node_id());
        crate::memory::made_signature(domain, &signer, &body, &signature);
        wire::Signed {
            signature,
            signer: signer.to_bytes(),
            body,
        }
    }

    /// The X25519 form of the secret key, to open what was sealed to
    /// [`x25519_public`] of this identity.
    pub fn x25519_secret(&self) -> [u8; 32] {
        self.key.to_scalar_bytes()
    }

    /// The 64-byte signature of `body` under `domain`.
    pub fn sign_bytes(&self, domain: Domain, body: &[u8]) -> Bytes {
        let signature = self.key.sign(&[domain.label(), body].concat());
        Bytes::copy_from_slice(&signature.to_bytes())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.node_id().short())
    }
}

/// The X25519 form of a peer's public key, to seal messages to it; `None`: the id
/// is no public key, or one that everybody could open messages of.
pub fn x25519_public(node: &NodeId) -> Option<[u8; 32]> {
    let key = VerifyingKey::from_bytes(&node.0).ok()?;
    (!key.is_weak()).then(|| key.to_montgomery().to_bytes())
}

/// Checks that `signature` is `signer`'s of `body` under `domain`.
pub fn verify(
    domain: Domain,
    signer: &NodeId,
    body: &Bytes,
    signature: &[u8],
) -> Result<(), SignatureError> {
    crate::memory::good_signature(domain, signer, body, signature, || {
        verify_bytes(domain, signer, body, signature)
    })
}

/// As [`verify`], for a body that is not kept in [`Bytes`].
pub fn verify_bytes(
    domain: Domain,
    signer: &NodeId,
    body: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = VerifyingKey::from_bytes(&signer.0).map_err(|_| SignatureError::Signer)?;
    let signature = Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
    key.verify_strict(&[domain.label(), body].concat(), &signature)
        .map_err(|_| SignatureError::Mismatch)
}

/// Checks the signature and decodes the body; returns who signed.
pub fn open<M: Message + Default>(
    domain: Domain,
    signed: &wire::Signed,
) -> Result<(NodeId, M), SignatureError> {
    let signer = NodeId::from_slice(&signed.signer).ok_or(SignatureError::Signer)?;
    verify(domain, &signer, &signed.body, &signed.signature)?;
    let message = M::decode(signed.body.clone()).map_err(|_| SignatureError::Body)?;
    Ok((signer, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_body_signer_and_domain_only() {
        let identity = Identity::from_secret([7; 32]);
        let contact = wire::Contact {
            node_id: identity.node_id().to_bytes(),
            ..Default::default()
        };
        let signed = identity.sign(Domain::Contact, &contact);
        assert_eq!(
            open::<wire::Contact>(Domain::Contact, &signed),
            Ok((identity.node_id(), contact))
        );
        assert!(open::<wire::Contact>(Domain::Record, &signed).is_err());

        let mut forged = signed.clone();
        forged.body = Bytes::from_static(b"\x0a\x00");
        assert_eq!(
            open::<wire::Contact>(Domain::Contact, &forged),
            Err(SignatureError::Mismatch)
        );

        let mut claimed = signed;
        claimed.signer = Identity::from_secret([8; 32]).node_id().to_bytes();
        assert_eq!(
            open::<wire::Contact>(Domain::Contact, &claimed),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn unknown_fields_survive_in_a_signed_body() {
        let identity = Identity::from_secret([7; 32]);
        let mut body = wire::Contact {
            zone: "a".into(),
            ..Default::default()
        }
        .encode_to_vec();
        // Field 2000, varint 1: from a version yet to come.
        prost::encoding::uint32::encode(2000, &1, &mut body);
        let body = Bytes::from(body);
        let signed = wire::Signed {
            signature: identity.sign_bytes(Domain::Contact, &body),
            signer: identity.node_id().to_bytes(),
            body: body.clone(),
        };
        let forwarded = wire::Signed::decode(Bytes::from(signed.encode_to_vec())).unwrap();
        assert_eq!(forwarded.body, body);
        assert!(open::<wire::Contact>(Domain::Contact, &forwarded).is_ok());
    }
}
