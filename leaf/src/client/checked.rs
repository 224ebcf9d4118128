//! Signatures that were found good lately, so that a record that is read again
//! is not checked again: a check costs 40 us, a look here less than one.
//!
//! A record is known by a keyed hash of all its bytes; the key is this
//! process's secret, so nobody can make another record that passes for it.

use std::sync::OnceLock;

use canopy_core::record::{Record, RecordError};
use canopy_proto::wire;
use parking_lot::Mutex;

/// Locks; readers of different records seldom meet at one.
const SHARDS: usize = 16;
/// Records remembered a shard.
const PLACES: usize = 256;

type Shard = Mutex<Vec<[u8; 32]>>;

/// What was found good. Takes no memory until it is used, then 128 KiB.
#[derive(Debug, Default)]
pub(super) struct Checked {
    memory: OnceLock<([u8; 32], Vec<Shard>)>,
}

impl Checked {
    /// As [`Record::read`], without the signature's check where the very same
    /// record passed it lately. Network, clock and limits are always checked.
    pub(super) fn open(
        &self,
        signed: &wire::Signed,
        network: &str,
        now_ms: u64,
    ) -> Result<Record, RecordError> {
        if signed.signer.len() != 32 || signed.signature.len() != 64 {
            // The hash below tells fields apart by their sizes.
            return Record::read(signed, network, now_ms);
        }
        let (secret, shards) = self.memory.get_or_init(|| {
            let shards = (0..SHARDS).map(|_| Mutex::new(vec![[0; 32]; PLACES]));
            (rand::random(), shards.collect())
        });
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher
            .update(&signed.signer)
            .update(&signed.signature)
            .update(&signed.body);
        let hash = *hasher.finalize().as_bytes();
        let shard = &shards[usize::from(hash[0]) % SHARDS];
        let place = usize::from(hash[1]) % PLACES;
        if shard.lock()[place] == hash {
            return Record::reopen(signed, network, now_ms);
        }
        let record = Record::read(signed, network, now_ms)?;
        shard.lock()[place] = hash;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use canopy_core::identity::Identity;
    use canopy_proto::wire::record::Payload;

    const NOW: u64 = 1_800_000_000_000;

    fn record() -> Record {
        let value = wire::Value {
            name: "n".into(),
            data: Bytes::from_static(b"data"),
        };
        let identity = Identity::from_secret([1; 32]);
        Record::sign(&identity, "net", 1, NOW, 60, Payload::Value(value)).unwrap()
    }

    #[test]
    fn a_record_opens_again_and_a_forged_one_never() {
        let checked = Checked::default();
        let record = record();
        for _ in 0..2 {
            assert_eq!(checked.open(&record.signed, "net", NOW), Ok(record.clone()));
        }
        let mut forged = record.signed.clone();
        forged.signature = Bytes::from(vec![0; 64]);
        assert!(checked.open(&forged, "net", NOW).is_err());
        let mut shifted = record.signed.clone();
        shifted.signer = Bytes::from([&shifted.signer[..], &shifted.signature[..1]].concat());
        shifted.signature = shifted.signature.slice(1..);
        assert!(checked.open(&shifted, "net", NOW).is_err());
    }

    #[test]
    fn network_and_clock_are_checked_every_time() {
        let checked = Checked::default();
        let record = record();
        assert!(checked.open(&record.signed, "net", NOW).is_ok());
        assert!(matches!(
            checked.open(&record.signed, "other", NOW),
            Err(RecordError::Network(_))
        ));
        assert_eq!(
            checked.open(&record.signed, "net", NOW + 60_000),
            Err(RecordError::Expired)
        );
    }
}
