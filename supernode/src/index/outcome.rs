//! What became of a record, and which of two versions is the later one.

use canopy_core::record::Record;
use canopy_proto::wire::record::Payload;

use crate::store::StoreError;

/// Orders the versions of one record; the larger one wins everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The record's sequence; of a value under its own hash, when it expires:
    /// all its publishers say the same, so the longest-lived copy wins.
    pub sequence: u64,
    /// First half of the body's BLAKE3 hash.
    tie: [u8; 16],
}

impl Version {
    /// The version of a verified record.
    pub fn of(record: &Record) -> Self {
        let hash = blake3::hash(&record.signed.body);
        let mut tie = [0; 16];
        tie.copy_from_slice(&hash.as_bytes()[..16]);
        let sequence = match is_content_value(record) {
            true => record.expires_ms(),
            false => record.body.sequence,
        };
        Self { sequence, tie }
    }
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken in.
    Stored,
    /// The same version was there.
    AlreadyHave,
    /// A later version, of this sequence, is there.
    Superseded(u64),
    /// Not taken in.
    Refused(Refused),
}

/// Why a verified record was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its lifetime is over.
    #[error("the record has expired; publish it again")]
    Expired,
    /// Many may publish a value under its own hash; none can remove it.
    #[error("a value under its own hash cannot be removed; let it expire")]
    SharedRemoval,
    /// The store takes no more writes.
    #[error("{0}")]
    Store(StoreError),
    /// The publisher has too many records here.
    #[error(
        "this publisher has {0} records here, the most allowed; replace some, or wait until some expire"
    )]
    PublisherRecords(u64),
    /// The publisher's records take too much room.
    #[error("this publisher's records take {0} bytes here, the limit is near; remove some")]
    PublisherBytes(u64),
    /// This node holds as much as it may.
    #[error("this super-node's index is full; try again when records have expired")]
    Full,
    /// All terms of a new item are full.
    #[error("all terms of the item are full, {0:?} among them; add a rarer term")]
    TermsFull(String),
    /// The content has too many providers.
    #[error("this content has as many providers as are kept; no more are needed")]
    ProvidersFull,
    /// Too many letters wait for the addressee, or too many of this sender.
    #[error(
        "{0} messages wait for this peer already, too many of all or of this sender; try again when it has been there"
    )]
    MailboxFull(usize),
}

fn is_content_value(record: &Record) -> bool {
    matches!(&record.body.payload, Some(Payload::Value(value)) if value.name.is_empty())
}

/// Whether `record` would remove what other publishers stand for as well.
pub(super) fn removes_shared(record: &Record) -> bool {
    record.body.removed && is_content_value(record)
}
