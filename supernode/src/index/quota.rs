//! Who uses how much.

use std::collections::HashMap;

use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Limits, Refused};

const STRIPES: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    records: u64,
    bytes: u64,
}

/// Usage by publisher and in all.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    publishers: [Mutex<HashMap<NodeId, Usage>>; STRIPES],
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Quotas {
    /// Charges `new` and releases `old`, or refuses and changes nothing.
    /// Replacing a record by one that is no larger always succeeds, so that a
    /// full publisher can refresh and remove.
    pub(super) fn replace(
        &self,
        old: Option<(NodeId, usize)>,
        new: (NodeId, usize),
        limits: &Limits,
    ) -> Result<(), Refused> {
        let (publisher, size) = new;
        let same = old.filter(|(owner, _)| *owner == publisher);
        let adds_record = u64::from(same.is_none());
        let adds_bytes = (size as u64).saturating_sub(same.map_or(0, |(_, size)| size as u64));
        let more_in_all = u64::from(old.is_none());
        if (more_in_all > 0 && self.records.load(Ordering::Relaxed) >= limits.records)
            || (adds_bytes > 0
                && self
                    .bytes
                    .load(Ordering::Relaxed)
                    .saturating_add(adds_bytes)
                    > limits.bytes)
        {
            return Err(Refused::Full);
        }
        {
            let mut publishers = self.publishers[stripe(&publisher)].lock();
            let usage = publishers.get(&publisher).copied().unwrap_or_default();
            if adds_record > 0 && usage.records >= limits.publisher_records {
                return Err(Refused::PublisherRecords(usage.records));
            }
            if adds_bytes > 0 && usage.bytes + adds_bytes > limits.publisher_bytes {
                return Err(Refused::PublisherBytes(usage.bytes));
            }
            let usage = publishers.entry(publisher).or_default();
            usage.records += 1;
            usage.bytes += size as u64;
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if let Some((owner, size)) = old {
            self.release(owner, size);
        }
        Ok(())
    }

    /// Takes back a [`Quotas::replace`] whose record was refused after all.
    pub(super) fn restore(&self, new: (NodeId, usize), old: Option<(NodeId, usize)>) {
        self.release(new.0, new.1);
        if let Some((publisher, size)) = old {
            let mut publishers = self.publishers[stripe(&publisher)].lock();
            let usage = publishers.entry(publisher).or_default();
            usage.records += 1;
            usage.bytes += size as u64;
            self.records.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(size as u64, Ordering::Relaxed);
        }
    }

    /// Releases a dropped record of `size` bytes.
    pub(super) fn release(&self, publisher: NodeId, size: usize) {
        let mut publishers = self.publishers[stripe(&publisher)].lock();
        if let Some(usage) = publishers.get_mut(&publisher) {
            usage.records = usage.records.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(size as u64);
            if usage.records == 0 {
                publishers.remove(&publisher);
            }
        }
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size as u64, Ordering::Relaxed);
    }

    /// Records and bytes in all.
    pub(super) fn total(&self) -> (u64, u64) {
        let records = self.records.load(Ordering::Relaxed);
        (records, self.bytes.load(Ordering::Relaxed))
    }
}

fn stripe(publisher: &NodeId) -> usize {
    usize::from(publisher.0[0]) % STRIPES
}
