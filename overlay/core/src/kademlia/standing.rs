//! What an entry of the routing table is worth, and which one makes room for a
//! newcomer.
//!
//! Peers that have answered for long are those that will answer next; peers
//! that one was only told of may be anything. So hearsay never displaces a
//! proven peer of its own neighbourhood, and a flood of it cannot wash a table
//! clean of what works.

use std::time::Duration;

use crate::time::Time;

use super::table::Entry;

/// What is known of a peer's life, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It failed to answer, or nothing was heard of it for long.
    Doubtful,
    /// Somebody told of it.
    Heard,
    /// It answered.
    Proven,
}

impl Standing {
    /// The standing of an entry at `now`, where silence of `stale` makes doubt.
    pub(super) fn of<T>(entry: &Entry<T>, now: Time, stale: Duration) -> Self {
        if entry.failures > 0 || now.since(entry.last_seen) > stale {
            Standing::Doubtful
        } else if entry.proven {
            Standing::Proven
        } else {
            Standing::Heard
        }
    }
}

/// A region of the keyspace around one of one's own positions. The order puts
/// what is far first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    /// Leading bits that the two closest positions share, 0 to 256.
    pub(super) depth: u16,
    /// Which of one's own positions it is.
    pub(super) own: u16,
}

/// Who makes room in a full table for a newcomer to `bucket`: the index of the
/// entry, or `None` if the newcomer is not worth it. `entries` are sorted by
/// bucket.
///
/// A doubtful entry goes first, from the fullest bucket that has one. Otherwise
/// the fullest bucket of all gives way (of equals, the one farthest away, which
/// is the easiest to fill again) until all are equally full: so far buckets keep
/// a few entries each, and near ones all there are. Within a bucket it is the
/// entry of the lowest standing, and of those the least recently seen.
pub(super) fn victim<T>(
    entries: &[Entry<T>],
    bucket: Bucket,
    now: Time,
    stale: Duration,
) -> Option<usize> {
    let mut best: Option<Rank> = None;
    let mut own_size = 0;
    let mut start = 0;
    for group in entries.chunk_by(|a, b| a.bucket == b.bucket) {
        let rank = Rank::lowest(group, start, now, stale)?;
        if group[0].bucket == bucket {
            own_size = group.len();
        }
        if best.as_ref().is_none_or(|best| rank.goes_before(best)) {
            best = Some(rank);
        }
        start += group.len();
    }
    let best = best?;
    let crowded =
        best.size > own_size + 1 || (best.size == own_size + 1 && best.bucket.depth < bucket.depth);
    (best.standing == Standing::Doubtful || crowded).then_some(best.index)
}

/// The first of a bucket to go.
struct Rank {
    standing: Standing,
    size: usize,
    bucket: Bucket,
    index: usize,
}

impl Rank {
    fn lowest<T>(group: &[Entry<T>], start: usize, now: Time, stale: Duration) -> Option<Self> {
        let order = |e: &Entry<T>| (Standing::of(e, now, stale), e.last_seen);
        let (at, entry) = group.iter().enumerate().min_by_key(|(_, e)| order(e))?;
        Some(Self {
            standing: Standing::of(entry, now, stale),
            size: group.len(),
            bucket: entry.bucket,
            index: start + at,
        })
    }

    fn goes_before(&self, other: &Self) -> bool {
        let doubtful = |rank: &Self| rank.standing == Standing::Doubtful;
        // Of equals the first stays, which is the farther one.
        (doubtful(self), self.size) > (doubtful(other), other.size)
    }
}
