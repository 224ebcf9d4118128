//! A record before it is signed: what it says, for how long, and whether it is
//! kept published.

use std::time::Duration;

use blake3::Hash;
use bytes::Bytes;
use canopy_core::record::MAX_TTL_S;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;

use super::item::Item;

/// Lifetime of values and items where none is given. What is kept published is
/// refreshed about half-way, so that its publisher may be away for three days.
pub const VALUE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Lifetime of provider announcements where none is given: peers come and go,
/// and those that stay announce themselves about twice a day.
pub const PROVIDER_TTL: Duration = Duration::from_secs(24 * 3600);

/// A record before it has a sequence.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) payload: Payload,
    pub(super) ttl_s: u32,
    pub(super) removal: bool,
    /// Refreshed before it ends, for as long as this leaf runs.
    pub(super) keep: bool,
    /// A refresh of this sequence: it takes the next one, and replaces nothing
    /// later.
    pub(super) refreshes: Option<u64>,
}

impl Draft {
    /// With a chosen lifetime it ends then; otherwise it is kept published.
    pub(super) fn new(payload: Payload, ttl: Option<Duration>, default: Duration) -> Self {
        Self {
            payload,
            ttl_s: seconds(ttl.unwrap_or(default)),
            removal: false,
            keep: ttl.is_none(),
            refreshes: None,
        }
    }

    /// A removal must outlast whatever it hides.
    pub(super) fn removal(payload: Payload) -> Self {
        Self {
            payload,
            ttl_s: MAX_TTL_S,
            removal: true,
            keep: false,
            refreshes: None,
        }
    }

    /// A record of this `sequence` again, for another lifetime. A value under
    /// its own hash is the same whoever wrote it: any sequence will do.
    pub(super) fn refresh(payload: Payload, ttl_s: u32, sequence: u64) -> Self {
        Self {
            refreshes: (!is_content(&payload)).then_some(sequence),
            payload,
            ttl_s,
            removal: false,
            keep: true,
        }
    }

    /// An item to be searchable.
    pub(super) fn item(item: &Item, ttl: Option<Duration>) -> Self {
        Self::new(Payload::Item(item.to_wire()), ttl, VALUE_TTL)
    }

    /// Whether it is a value under its own hash.
    pub(super) fn is_content(&self) -> bool {
        is_content(&self.payload)
    }
}

/// That somebody has the content with this hash.
pub(super) fn provider(content: Hash, size: u64) -> Payload {
    let content = Bytes::copy_from_slice(content.as_bytes());
    Payload::Provider(wire::Provider { content, size })
}

fn is_content(payload: &Payload) -> bool {
    matches!(payload, Payload::Value(value) if value.name.is_empty())
}

/// Whole seconds, at least one: a lifetime of none would be refused as expired.
fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1)
}
