//! Where a page of hits ended, as opaque bytes.
//!
//! Hits are ordered by score, then freshness, then id. The cursor carries the
//! last hit's place in that order and the weight that each term had on the
//! first page, so that items which arrive between two pages move nothing.

use bytes::{BufMut, Bytes, BytesMut};
use canopy_core::keyspace::Key;

/// Layout version, the first byte.
const VERSION: u8 = 1;

/// The place of a hit in the order of hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) score: f32,
    pub(super) issued_ms: u64,
    pub(super) id: Key,
}

impl Place {
    /// Whether this hit comes before `other`.
    pub(super) fn is_before(&self, other: &Place) -> bool {
        let order = other.score.total_cmp(&self.score);
        let order = order.then(other.issued_ms.cmp(&self.issued_ms));
        order.then(self.id.cmp(&other.id)).is_lt()
    }
}

/// What the next page needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cursor {
    /// One a term and prefix, in the order of the query.
    pub(super) weights: Vec<f32>,
    pub(super) last: Place,
}

impl Cursor {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(46 + 4 * self.weights.len());
        out.put_u8(VERSION);
        out.put_u8(self.weights.len() as u8);
        self.weights.iter().for_each(|weight| out.put_f32(*weight));
        out.put_f32(self.last.score);
        out.put_u64(self.last.issued_ms);
        out.put_slice(&self.last.id.0);
        out.freeze()
    }

    /// Reads a cursor of a query with `terms` terms and prefixes; `None` if it
    /// is not one.
    pub(super) fn decode(bytes: &[u8], terms: usize) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(2)?;
        if head[0] != VERSION || usize::from(head[1]) != terms {
            return None;
        }
        let (weights, rest) = rest.split_at_checked(4 * terms)?;
        let (score, rest) = rest.split_first_chunk()?;
        let (issued, id) = rest.split_first_chunk()?;
        let floats = weights.chunks_exact(4);
        let weights: Vec<f32> = floats
            .map(|b| f32::from_be_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let score = f32::from_be_bytes(*score);
        if !score.is_finite() || !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        Some(Self {
            weights,
            last: Place {
                score,
                issued_ms: u64::from_be_bytes(*issued),
                id: Key::from_slice(id)?,
            },
        })
    }
}
