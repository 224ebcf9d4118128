//! Refreshes what this leaf keeps published before it ends, a little at a time.
//!
//! A refresh takes the sequence right after the one it refreshes, so that it
//! never replaces what the same identity wrote meanwhile on another device:
//! sequences of writes are clock readings, and a later write is far above.

use std::sync::Weak;
use std::time::Duration;

use canopy_core::record::{Record, id_of};
use canopy_overlay::calls::Calls;
use canopy_proto::wire::record::Payload;
use tokio::time::sleep;

use super::draft::Draft;
use super::error::Error;
use super::publications::Publications;
use super::write::Outcome;
use super::{Client, Inner};

/// Most refreshes at a time...
const BATCH: usize = 20;
/// ...and the pause after them: 100 000 records take an hour and a half when all
/// are due at once, e.g. after a holiday. An item costs its owners a write for
/// each of its terms.
const PAUSE: Duration = Duration::from_secs(1);
/// The list is looked at this often: clocks jump, and machines sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Runs until the client is gone.
pub(super) async fn run<C: Calls>(client: Weak<Inner<C>>) {
    // Machines that were started together do not begin together.
    let mut wait = LOOK.mul_f64(rand::random_range(0.0..1.0));
    loop {
        sleep(wait).await;
        let Some(inner) = client.upgrade() else {
            return;
        };
        wait = Client { inner }.refresh_due().await;
    }
}

impl<C: Calls> Client<C> {
    /// Refreshes some of what is due; the pause until it is to be called again.
    async fn refresh_due(&self) -> Duration {
        let Some(publications) = &self.inner.publications else {
            return LOOK;
        };
        let now_ms = self.common_ms();
        let due = publications.due(now_ms, BATCH);
        if due.is_empty() {
            let next_ms = publications.next_due_ms().unwrap_or(u64::MAX);
            return Duration::from_millis(next_ms.saturating_sub(now_ms)).clamp(PAUSE, LOOK);
        }
        self.refresh(publications, due).await;
        PAUSE
    }

    /// Writes each record again, for another lifetime.
    async fn refresh(&self, publications: &Publications, due: Vec<Record>) {
        let draft = |record: Record| {
            let (ttl_s, sequence) = (record.body.ttl_s, record.body.sequence);
            let payload = record.body.payload?;
            Some(Draft::refresh(payload, ttl_s, sequence))
        };
        let drafts: Vec<Draft> = due.into_iter().filter_map(draft).collect();
        let Outcome {
            results, written, ..
        } = self.send_all(&drafts).await;
        let written: Vec<Record> = written.into_iter().map(|(_, record)| record).collect();
        if let Err(error) = publications.refreshed(&written).await {
            tracing::error!(%error, "publications.refresh: not noted; done again after a restart");
        }
        let mut superseded = Vec::new();
        for (result, draft) in results.into_iter().zip(&drafts) {
            let id = id_of(&self.node_id(), &draft.payload);
            match result {
                Ok(_) => self.inner.counters.refreshed(),
                Err(Error::Superseded { by }) => {
                    let name = name_of(&draft.payload);
                    tracing::info!(name, by, "publications.superseded: written elsewhere since");
                    superseded.push(id);
                }
                Err(error) => {
                    tracing::warn!(%error, "publications.refresh: tried again later");
                    publications.postpone(&id, self.common_ms());
                }
            }
        }
        if let Err(error) = publications.forget(&superseded).await {
            tracing::error!(%error, "publications.forget");
        }
    }
}

fn name_of(payload: &Payload) -> &str {
    match payload {
        Payload::Value(value) => &value.name,
        Payload::Item(item) => &item.name,
        _ => "",
    }
}

#[cfg(test)]
mod tests;
