//! Brings records to their owners and waits for a quorum of each key's.

use std::collections::BTreeMap;
use std::sync::Arc;

use canopy_core::keyspace::NodeId;
use canopy_core::placement::{Placement, R};
use canopy_core::record::Record;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::{request, response};
use canopy_proto::{limits, wire};
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::local::refused;
use super::stats::add;
use super::{Answer, Inner, WRITE_QUORUM, refuse};

/// Room for what surrounds the records of a frame.
const FRAME_SLACK: usize = 4096;

/// What one owner said of one record.
struct Report {
    record: usize,
    owner: NodeId,
    outcome: wire::PutOutcome,
}

impl<C: Calls> Inner<C> {
    /// Stores each record at the owners of all its keys, and answers when
    /// [`WRITE_QUORUM`] of each key's owners have it on disk, or too many
    /// refused. Deliveries go on after the answer, and if the caller is gone.
    pub(super) async fn put(inner: &Arc<Self>, put: wire::Put) -> Answer {
        let checked = inner.check(put.records).await?;
        let placement = inner.calls.placement();
        if placement.is_empty() {
            return Err(refuse::unavailable(
                "no super-node serves yet; try again later",
            ));
        }
        let (report, mut reports) = unbounded_channel();
        let mut tallies = Vec::with_capacity(checked.len());
        let mut by_owner: BTreeMap<NodeId, Vec<(usize, Record)>> = BTreeMap::new();
        for (i, record) in checked.into_iter().enumerate() {
            tallies.push(match record {
                Ok(record) => {
                    if let Some(key) = record.first_key() {
                        inner.did(&key);
                    }
                    inner.heat.wrote(&record.publisher, inner.calls.now_ms());
                    let tally = Tally::new(&record, &placement);
                    for owner in tally.owners() {
                        let records = by_owner.entry(owner).or_default();
                        records.push((i, record.clone()));
                    }
                    tally
                }
                Err(refusal) => Tally::decided(refused(refusal)),
            });
        }
        for (owner, records) in by_owner {
            tokio::spawn(deliver(Arc::clone(inner), owner, records, report.clone()));
        }
        drop(report);
        while tallies.iter().any(|tally| tally.decision.is_none()) {
            // Every delivery reports each record, within its deadline.
            let Some(Report {
                record,
                owner,
                outcome,
            }) = reports.recv().await
            else {
                break;
            };
            tallies[record].count(owner, outcome);
        }
        let outcomes: Vec<wire::PutOutcome> = tallies.into_iter().map(Tally::outcome).collect();
        let stored = outcomes.iter().filter(|o| o.refusal.is_none()).count();
        add(&inner.counters.puts_stored, stored);
        add(&inner.counters.puts_refused, outcomes.len() - stored);
        Ok(response::Kind::Put(wire::PutReply {
            outcomes,
            utilisation_milli: inner.index.utilisation_milli(),
            clock_ms: inner.calls.now_ms(),
        }))
    }

    /// Has `owner` store `records`, in as many frames as they need; one outcome
    /// a record. A peer that is no super-node asks for coordination instead.
    pub(super) async fn send(
        &self,
        owner: NodeId,
        records: &[wire::Signed],
        local: bool,
    ) -> Vec<wire::PutOutcome> {
        let mut out = Vec::with_capacity(records.len());
        for batch in frames(records) {
            let put = wire::Put {
                records: batch.to_vec(),
                local,
            };
            let deadline = self.config.write_deadline;
            let answer = self.calls.call(owner, request::Kind::Put(put), deadline);
            match answer.await {
                Ok(response::Kind::Put(reply)) if reply.outcomes.len() == batch.len() => {
                    out.extend(reply.outcomes);
                }
                answer => {
                    let error = answer.err().unwrap_or(CallError::Malformed(owner));
                    if !matches!(error, CallError::Refused { .. }) {
                        self.latencies.failed(owner);
                    }
                    let refusal = refuse::of_call(&error);
                    out.extend(batch.iter().map(|_| refused(refusal.clone())));
                }
            }
        }
        out
    }
}

async fn deliver<C: Calls>(
    inner: Arc<Inner<C>>,
    owner: NodeId,
    records: Vec<(usize, Record)>,
    report: UnboundedSender<Report>,
) {
    let (numbers, records): (Vec<usize>, Vec<Record>) = records.into_iter().unzip();
    let outcomes = match owner == inner.me() {
        true => inner.store(records).await,
        false => {
            let signed: Vec<_> = records.into_iter().map(|record| record.signed).collect();
            inner.send(owner, &signed, true).await
        }
    };
    for (record, outcome) in numbers.into_iter().zip(outcomes) {
        // The writer may have its quorum, and be gone.
        let _ = report.send(Report {
            record,
            owner,
            outcome,
        });
    }
}

/// Cuts records into runs that fit a frame. One record always does.
pub(super) fn frames(records: &[wire::Signed]) -> Vec<&[wire::Signed]> {
    let mut out = Vec::new();
    let (mut from, mut size) = (0, 0);
    for (i, record) in records.iter().enumerate() {
        let more = record.encoded_len() + 8;
        if i > from && size + more > limits::FRAME - FRAME_SLACK {
            out.push(&records[from..i]);
            (from, size) = (i, 0);
        }
        size += more;
    }
    if from < records.len() {
        out.push(&records[from..]);
    }
    out
}

/// How far one record has come.
struct Tally {
    keys: Vec<KeyTally>,
    decision: Option<wire::PutOutcome>,
}

struct KeyTally {
    /// Owners that have not answered.
    waiting: Vec<NodeId>,
    /// Acknowledgements that are still needed.
    needed: usize,
}

impl Tally {
    fn new(record: &Record, placement: &Placement) -> Self {
        let keys = record.placement_keys();
        let keys: Vec<KeyTally> = keys
            .iter()
            .map(|key| {
                let waiting = placement.owners(key, R);
                let needed = WRITE_QUORUM.min(waiting.len());
                KeyTally { waiting, needed }
            })
            .collect();
        match keys.iter().all(|key| key.needed > 0) && !keys.is_empty() {
            true => Self {
                keys,
                decision: None,
            },
            false => Self::decided(refused(refuse::unavailable(
                "nobody owns the record's keys",
            ))),
        }
    }

    fn decided(outcome: wire::PutOutcome) -> Self {
        Self {
            keys: Vec::new(),
            decision: Some(outcome),
        }
    }

    fn owners(&self) -> Vec<NodeId> {
        let owners = self.keys.iter().flat_map(|key| &key.waiting);
        let mut owners: Vec<NodeId> = owners.copied().collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    fn count(&mut self, owner: NodeId, outcome: wire::PutOutcome) {
        if self.decision.is_some() {
            return;
        }
        if outcome.superseded_by > 0 {
            self.decision = Some(outcome);
            return;
        }
        let mut lost = false;
        for key in &mut self.keys {
            let Some(at) = key.waiting.iter().position(|node| *node == owner) else {
                continue;
            };
            key.waiting.swap_remove(at);
            if outcome.refusal.is_none() {
                key.needed = key.needed.saturating_sub(1);
            }
            lost |= key.waiting.len() < key.needed;
        }
        if lost {
            self.decision = Some(outcome);
        } else if self.keys.iter().all(|key| key.needed == 0) {
            self.decision = Some(wire::PutOutcome::default());
        }
    }

    fn outcome(self) -> wire::PutOutcome {
        let unanswered = || refused(refuse::unavailable("not enough owners answered; try again"));
        self.decision.unwrap_or_else(unanswered)
    }
}
