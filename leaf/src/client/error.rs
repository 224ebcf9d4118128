//! Why a request through the SDK failed, and what to do about it.

use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::record::RecordError;
use canopy_proto::wire::refusal::Code;
use canopy_supernode::store::StoreError;

use super::query::QueryError;

/// Why a read, write or search gave no answer.
///
/// Writes are idempotent: after any of these the same write may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No super-node was known for the whole time.
    #[error(
        "no super-node is known after {:.1} s; {}", .waited.as_secs_f32(),
        .why.as_deref().unwrap_or("check that a given peer is up, or wait for the election")
    )]
    NoSuperNode {
        /// How long it was waited for.
        waited: Duration,
        /// What keeps this peer from the overlay, for people, if it is known.
        why: Option<String>,
    },
    /// Super-nodes are known, but none gave a usable answer in time.
    #[error(
        "no usable answer to {asked} request(s) in {:.1} s (last: {last}); try again",
        .waited.as_secs_f32()
    )]
    Unavailable {
        /// How many requests were sent.
        asked: u32,
        /// How long it was tried for.
        waited: Duration,
        /// What went wrong last.
        last: String,
    },
    /// Super-nodes checked the request and refused it; trying again will not help.
    /// [`Code::Banned`]: the network's operator banned the publisher, the content
    /// or this peer.
    #[error("{peer} refused ({code:?}): {message}")]
    Refused {
        /// Who refused.
        peer: NodeId,
        /// In what way.
        code: Code,
        /// Its reason, for people.
        message: String,
    },
    /// The record breaks a limit; nothing was sent.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// The query cannot be asked; nothing was sent.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// A name is needed and was empty.
    #[error("a name must not be empty; give one of 1 to 1024 bytes")]
    EmptyName,
    /// Another process writes with the same key.
    #[error(
        "a later write (sequence {by}) of the same key is in place; make sure that one process at a time writes with this identity"
    )]
    Superseded {
        /// The sequence found in place.
        by: u64,
    },
    /// This leaf keeps as much published as it may; nothing was sent.
    #[error(
        "this leaf keeps {records} records ({bytes} bytes) published, and there is no room for more; remove some, or give a lifetime, so that it ends then"
    )]
    PublicationsFull {
        /// Records kept published.
        records: usize,
        /// Their size, bytes.
        bytes: usize,
    },
    /// The list of what this leaf keeps published cannot be written. What was
    /// sent before this was found ends with its lifetime.
    #[error("cannot write the list of what this leaf keeps published: {0}")]
    Publications(#[from] StoreError),
    /// The item cannot be found again by its name, so its terms are unknown.
    #[error(
        "{0:?} has no searchable word in its name; unpublish it by the item that was published, or publish that again with a lifetime of a second"
    )]
    Unsearchable(String),
}

/// Whether a refusal is a verdict on the request: another super-node would
/// come to the same one, so that asking on and on is of no use.
pub(crate) fn is_verdict(code: Code) -> bool {
    match code {
        Code::Malformed
        | Code::Invalid
        | Code::Quota
        | Code::Network
        | Code::Version
        | Code::Banned => true,
        Code::Unspecified
        | Code::Busy
        | Code::NotServing
        | Code::Unavailable
        | Code::Deadline
        | Code::Internal => false,
    }
}
