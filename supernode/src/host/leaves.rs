//! What this peer tells of the leaves that it is a home of. Why a leaf is no
//! candidate only the leaf knows: it is asked over the session that is there.

use std::collections::BTreeMap;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::node::LeafStatus;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply, request, response};
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::Host;

/// Most leaves told of at once.
pub(crate) const MAX_LEAVES_TOLD: usize = 500;
/// Leaves asked at once.
const AT_ONCE: usize = 64;
/// Longest wait for all of them: less than the asker waits.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most criteria that a leaf may say it fails.
const MAX_FAILED: usize = 16;
/// Longest text of a criterion, characters.
const MAX_TEXT: usize = 100;

type Failed = Vec<wire::CriterionRecord>;

impl Host {
    /// Leaves of this super-node. `None`: the peer has ended.
    pub(super) async fn leaves(&self, ask: &wire::LeavesAsk) -> Option<wire::Leaves> {
        let limit = (ask.limit as usize).clamp(1, MAX_LEAVES_TOLD);
        let after = NodeId::from_slice(&ask.after);
        let told = self.peer().look(move |core, now| {
            let total = core.status(now).leaves;
            // One more tells that there are more.
            (core.leaves(after, limit + 1), total)
        });
        let (mut leaves, total) = told.await?;
        let more = leaves.len() > limit;
        leaves.truncate(limit);
        let lacking = leaves.iter().filter(|leaf| !leaf.eligible);
        let mut failed = self.standings(lacking.map(|leaf| leaf.node)).await;
        let leaves = leaves.iter().map(|leaf| {
            let failed = failed.remove(&leaf.node).unwrap_or_default();
            self.leaf(leaf, failed)
        });
        Some(wire::Leaves {
            leaves: leaves.collect(),
            more,
            total: total as u32,
        })
    }

    fn leaf(&self, of: &LeafStatus, failed: Failed) -> wire::LeafRecord {
        let record = wire::LeafRecord {
            node_id: of.node.to_bytes(),
            first: of.first,
            other_home: of.other_home.map(NodeId::to_bytes).unwrap_or_default(),
            eligible: of.eligible,
            claim_bps: of.claim_bps,
            failed,
            ..Default::default()
        };
        let Some(session) = self.peer().fabric().session(&of.node) else {
            return record;
        };
        wire::LeafRecord {
            addr: session.remote_addr().to_string(),
            agent: session.agent().to_owned(),
            wire_version: session.version(),
            age_ms: u64::try_from(session.age().as_millis()).unwrap_or(u64::MAX),
            round_trip_us: u64::try_from(session.rtt().as_micros()).unwrap_or(u64::MAX),
            ..record
        }
    }

    /// What leaves say of the criteria that they fail; of those who say it in time.
    async fn standings(&self, leaves: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Failed> {
        let sessions = self.peer().fabric();
        let here: Vec<NodeId> = leaves
            .filter(|leaf| sessions.session(leaf).is_some())
            .collect();
        let answers = stream::iter(here)
            .map(|leaf| async move { (leaf, self.standing_of(leaf).await) })
            .buffer_unordered(AT_ONCE);
        tokio::pin!(answers);
        let until = Instant::now() + PATIENCE;
        let mut out = BTreeMap::new();
        while let Ok(Some((leaf, failed))) = timeout_at(until, answers.next()).await {
            out.insert(leaf, failed);
        }
        out
    }

    async fn standing_of(&self, leaf: NodeId) -> Failed {
        let ask = inspect::What::Standing(wire::StandingAsk {});
        let ask = request::Kind::Inspect(wire::Inspect { what: Some(ask) });
        let Ok(response::Kind::Inspect(reply)) = self.call(leaf, ask, PATIENCE).await else {
            return Vec::new();
        };
        let Some(inspect_reply::What::Standing(standing)) = reply.what else {
            return Vec::new();
        };
        let failed = standing.now.into_iter().filter(|criterion| !criterion.pass);
        failed.take(MAX_FAILED).map(bounded).collect()
    }
}

/// Leaves may write anything.
fn bounded(of: wire::CriterionRecord) -> wire::CriterionRecord {
    let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
    wire::CriterionRecord {
        name: cut(&of.name),
        value: cut(&of.value),
        threshold: cut(&of.threshold),
        pass: of.pass,
    }
}
