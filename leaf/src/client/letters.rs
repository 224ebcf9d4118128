//! Messages kept for peers that are not there: records in the index, under a key
//! of the addressee, who collects and removes them.

use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;

use super::Client;
use super::draft::Draft;
use super::error::Error;

/// How long a message is kept for a peer that is not there.
pub const LETTER_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Letters of one look into the mailbox.
const AT_ONCE: u32 = 100;

impl<C: Calls> Client<C> {
    /// Keeps a message for `to`; returns when two of three owners have it on
    /// disk, with when it ends, milliseconds since 1970.
    pub(super) async fn keep_letter(
        &self,
        to: NodeId,
        id: bytes::Bytes,
        envelope: wire::Signed,
    ) -> Result<u64, Error> {
        let letter = Payload::Letter(wire::Letter {
            from: self.node_id().to_bytes(),
            to: to.to_bytes(),
            id,
            envelope: Some(envelope),
        });
        let until_ms = self.common_ms() + LETTER_TTL.as_millis() as u64;
        let draft = Draft::new(letter, Some(LETTER_TTL), LETTER_TTL);
        let mut outcome = self.send_all(&[draft]).await;
        // One draft, one result.
        let stored = outcome.results.pop().transpose()?;
        stored
            .map(|_| until_ms)
            .ok_or_else(super::write::unanswered)
    }

    /// The letters that wait for this peer, some at a time.
    pub(crate) async fn letters(&self) -> Result<Vec<Record>, Error> {
        let me = self.node_id();
        let fits = |record: &Record| match &record.body.payload {
            Some(Payload::Letter(letter)) => letter.to == me.0.as_slice(),
            _ => false,
        };
        let mut letters = self.read_mailbox(AT_ONCE, fits).await?;
        // Within a millisecond, as its sender numbered them.
        letters.sort_by_key(|letter| (letter.body.issued_ms, letter.body.sequence));
        Ok(letters)
    }

    /// Takes letters that were received out of the index.
    pub(crate) async fn remove_letters(&self, letters: &[Record]) {
        let now_ms = self.common_ms();
        let drafts = letters.iter().filter_map(|record| {
            let Some(Payload::Letter(letter)) = &record.body.payload else {
                return None;
            };
            // It hides the letter for as long as that would have lived.
            let left_ms = record.expires_ms().saturating_sub(now_ms);
            let named = wire::Letter {
                envelope: None,
                ..letter.clone()
            };
            Some(Draft {
                ttl_s: u32::try_from(left_ms / 1000 + 1).unwrap_or(u32::MAX),
                refreshes: Some(record.body.sequence),
                ..Draft::removal(Payload::Letter(named))
            })
        });
        let drafts: Vec<Draft> = drafts.collect();
        for result in self.send_all(&drafts).await.results {
            if let Err(error) = result {
                // It is read again, and known by its id.
                tracing::debug!(%error, "letters: one was not removed");
            }
        }
    }
}
