//! Releases: what ends a mandate before it expires. A super-node lays its own
//! role down; anyone else needs what it takes to give a mandate.

use bytes::Bytes;
use canopy_proto::{limits, wire};
use prost::Message;

use super::endorse::{self, MandateError, VerifyContext};
use super::mandate::MAX_CLOCK_AHEAD_MS;
use crate::identity::{Domain, Identity};
use crate::keyspace::NodeId;

/// Longest reason, bytes.
pub const MAX_REASON: usize = 200;

/// What a release says. Plain data; proves nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The overlay it is for.
    pub network: String,
    /// Whose mandates end.
    pub candidate: NodeId,
    /// The last term that ends; later mandates stand.
    pub term: u64,
    /// When it was signed, milliseconds since 1970.
    pub issued_ms: u64,
    /// Why, for people; cut at [`MAX_REASON`] bytes.
    pub reason: String,
}

impl Release {
    /// The encoded body: what endorsements sign.
    pub fn encode(&self) -> Bytes {
        let mut end = self.reason.len().min(MAX_REASON);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let body = wire::Release {
            network: self.network.clone(),
            candidate: self.candidate.to_bytes(),
            term: self.term,
            issued_ms: self.issued_ms,
            reason: self.reason[..end].to_owned(),
        };
        Bytes::from(body.encode_to_vec())
    }

    /// Lays down the signer's own role. `candidate` is set to it.
    pub fn lay_down(mut self, identity: &Identity) -> wire::SignedRelease {
        self.candidate = identity.node_id();
        let body = self.encode();
        let endorsement = endorse(identity, &body);
        sealed(body, vec![endorsement])
    }
}

/// Signs an encoded release. Call [`audit`] first, unless it is one's own.
pub fn endorse(identity: &Identity, body: &[u8]) -> wire::Endorsement {
    wire::Endorsement {
        signer: identity.node_id().to_bytes(),
        signature: identity.sign_bytes(Domain::Release, body),
    }
}

/// Puts body and signatures together.
pub fn sealed(body: Bytes, endorsements: Vec<wire::Endorsement>) -> wire::SignedRelease {
    wire::SignedRelease { body, endorsements }
}

/// A release that passed every check, with the form that is passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedRelease {
    release: Release,
    signed: wire::SignedRelease,
}

impl VerifiedRelease {
    /// What it says.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// What was signed, to be stored and passed on.
    pub fn signed(&self) -> &wire::SignedRelease {
        &self.signed
    }
}

/// Checks a release from outside: signed by the super-node itself, by the
/// operator, or by as many known super-nodes as a mandate takes. A newcomer
/// without a roster accepts only the first two. An old release stays true, so
/// its age is not checked.
pub fn open(
    signed: &wire::SignedRelease,
    context: &VerifyContext<'_>,
) -> Result<VerifiedRelease, MandateError> {
    let size = signed.encoded_len();
    if size > limits::MANDATE {
        return Err(MandateError::Size(size));
    }
    let release = audit(&signed.body, context)?;
    let endorsers = endorse::signers(Domain::Release, &signed.body, &signed.endorsements)?;
    let alone = |node: &NodeId| endorsers == [*node];
    if !alone(&release.candidate) && !context.operator.is_some_and(|key| alone(&key)) {
        if endorsers.contains(&release.candidate) {
            return Err(MandateError::OwnEndorsement);
        }
        context.check_authorities(&release.candidate, &endorsers)?;
    }
    Ok(VerifiedRelease {
        release,
        signed: signed.clone(),
    })
}

/// Checks everything about an encoded release but who signed it.
pub fn audit(body: &Bytes, context: &VerifyContext<'_>) -> Result<Release, MandateError> {
    let wire = wire::Release::decode(body.clone()).map_err(|_| MandateError::Body)?;
    if wire.network != context.network {
        let name = wire.network.chars().take(64).collect();
        return Err(MandateError::Network(name));
    }
    if wire.reason.len() > MAX_REASON {
        return Err(MandateError::Body);
    }
    if wire.issued_ms > context.now_ms.saturating_add(MAX_CLOCK_AHEAD_MS) {
        return Err(MandateError::Future(wire.issued_ms - context.now_ms));
    }
    Ok(Release {
        candidate: NodeId::from_slice(&wire.candidate).ok_or(MandateError::Body)?,
        term: wire.term,
        issued_ms: wire.issued_ms,
        network: wire.network,
        reason: wire.reason,
    })
}
