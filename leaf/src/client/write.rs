//! Signs records and brings them to a coordinator, who stores them with their
//! owners.
//!
//! A record keeps its sequence through all attempts, so that storing it twice
//! is the same as storing it once. Only a later record found in place makes a
//! new sequence, once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use blake3::Hash;
use bytes::Bytes;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::{MAX_TTL_S, Record};
use canopy_core::text;
use canopy_overlay::calls::Calls;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code;
use canopy_proto::{Message, wire};
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;

use super::Client;
use super::ask::{Ask, Judgement, jittered};
use super::error::{Error, is_verdict};
use super::health::Class;
use super::item::Item;
use super::query::{MAX_LIMIT, MAX_QUERY_TERMS, Query};

/// Lifetime of values and items where none is given.
pub const VALUE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Lifetime of provider announcements where none is given: peers come and go.
pub const PROVIDER_TTL: Duration = Duration::from_secs(24 * 3600);

/// Most bytes of records in one request; well under the frame limit, and small
/// enough that one slow batch does not hold up a home line for long.
const BATCH_BYTES: usize = 256 * 1024;
/// Most records in one request.
const BATCH_RECORDS: usize = 128;
/// Batches under way at once.
const BATCHES_AT_ONCE: usize = 8;
/// Times a batch's leftovers are tried again.
const ROUNDS: usize = 5;
/// From this utilisation of a coordinator on, thousandths, batches pause.
const FULL_MILLI: u32 = 900;

/// A later sequence is believed up to this far ahead of the clock. Sequences are
/// clock readings, so that more is a lie, which would leave this identity no
/// room for further writes; or the clock here was set back.
const MAX_AHEAD_MS: u64 = MAX_TTL_S as u64 * 1000;

/// A write that is on disk at two of three owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Later sequences replace earlier ones.
    pub sequence: u64,
    /// More than one super-node was asked because the first was slow.
    pub hedged: bool,
}

/// A record before it has a sequence.
#[derive(Clone)]
struct Draft {
    payload: Payload,
    ttl_s: u32,
    removal: bool,
}

/// A draft on its way.
struct Pending {
    /// Its place in what was asked for.
    index: usize,
    record: Record,
    /// A later record was found once already.
    resigned: bool,
    error: Error,
}

impl<C: Calls> Client<C> {
    /// Writes `data`, at most 64 KiB, under (this identity, `name`) for `ttl`.
    pub async fn put(&self, name: &str, data: Bytes, ttl: Duration) -> Result<Stored, Error> {
        let name = not_empty(name)?;
        self.store_one(Draft {
            payload: Payload::Value(wire::Value { name, data }),
            ttl_s: seconds(ttl),
            removal: false,
        })
        .await
    }

    /// Writes `data`, at most 64 KiB, under its own BLAKE3 hash.
    pub async fn put_content(&self, data: Bytes, ttl: Duration) -> Result<(Hash, Stored), Error> {
        let hash = blake3::hash(&data);
        let name = String::new();
        let draft = Draft {
            payload: Payload::Value(wire::Value { name, data }),
            ttl_s: seconds(ttl),
            removal: false,
        };
        Ok((hash, self.store_one(draft).await?))
    }

    /// Removes the value under (this identity, `name`), whether it exists or not.
    pub async fn remove(&self, name: &str) -> Result<Stored, Error> {
        let name = not_empty(name)?;
        let data = Bytes::new();
        self.store_one(removal(Payload::Value(wire::Value { name, data })))
            .await
    }

    /// Makes one item searchable for `ttl`.
    pub async fn publish(&self, item: &Item, ttl: Duration) -> Result<Stored, Error> {
        not_empty(&item.name)?;
        self.store_one(draft_item(item, ttl)).await
    }

    /// Makes many items searchable, in batches; one result each, in order.
    pub async fn publish_all(&self, items: &[Item], ttl: Duration) -> Vec<Result<Stored, Error>> {
        let drafts = items.iter().map(|item| draft_item(item, ttl)).collect();
        self.store(drafts).await
    }

    /// Takes the item `name` of this identity out of the index. False: there
    /// is none. The item is looked up by the words of its name.
    pub async fn unpublish(&self, name: &str) -> Result<bool, Error> {
        let name = not_empty(name)?;
        let mut terms = text::terms(&name);
        if terms.is_empty() {
            return Err(Error::Unsearchable(name));
        }
        terms.truncate(MAX_QUERY_TERMS);
        let me = self.node_id();
        let query = Query::of_terms(terms)
            .equal("name", &name)
            .equal("publisher", &me.to_string())
            .limit(MAX_LIMIT);
        let page = self.search(&query).await?;
        let mine = |hit: &&super::Hit| hit.publisher == me && hit.item.name == name;
        match page.hits.iter().find(mine) {
            None => Ok(false),
            Some(hit) => self.withdraw(name, hit.terms.clone()).await.map(|_| true),
        }
    }

    /// Takes `item`, as it was published, out of the index.
    pub async fn unpublish_item(&self, item: &Item) -> Result<Stored, Error> {
        self.withdraw(not_empty(&item.name)?, item.terms()).await
    }

    async fn withdraw(&self, name: String, terms: Vec<String>) -> Result<Stored, Error> {
        // The terms say which owners hold it; the rest is not needed.
        let names = wire::Item {
            name,
            terms,
            ..wire::Item::default()
        };
        self.store_one(removal(Payload::Item(names))).await
    }

    /// Announces for `ttl` that this peer has the content with this hash,
    /// `size` bytes long.
    pub async fn provide(&self, content: Hash, size: u64, ttl: Duration) -> Result<Stored, Error> {
        let content = Bytes::copy_from_slice(content.as_bytes());
        self.store_one(Draft {
            payload: Payload::Provider(wire::Provider { content, size }),
            ttl_s: seconds(ttl),
            removal: false,
        })
        .await
    }

    /// The clock in milliseconds, or one more than the last sequence, or
    /// `at_least`: whichever is highest.
    fn next_sequence(&self, at_least: u64) -> u64 {
        let now = self.inner.calls.now_ms().max(at_least);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        match self.inner.sequence.fetch_update(Relaxed, Relaxed, next) {
            Ok(last) | Err(last) => now.max(last.saturating_add(1)),
        }
    }

    fn sign(&self, draft: &Draft, at_least: u64) -> Result<Record, Error> {
        let calls = &self.inner.calls;
        let make = match draft.removal {
            true => Record::sign_removal,
            false => Record::sign,
        };
        Ok(make(
            &self.inner.identity,
            calls.network(),
            self.next_sequence(at_least),
            calls.now_ms(),
            draft.ttl_s,
            draft.payload.clone(),
        )?)
    }

    async fn store_one(&self, draft: Draft) -> Result<Stored, Error> {
        let mut results = self.store(vec![draft]).await;
        // One draft, one result.
        results.pop().unwrap_or(Err(unanswered()))
    }

    /// Stores each draft; one result each, in order.
    async fn store(&self, drafts: Vec<Draft>) -> Vec<Result<Stored, Error>> {
        let class = if drafts.len() > 1 {
            Class::Bulk
        } else {
            Class::Write
        };
        let mut results: Vec<Result<Stored, Error>> = Vec::new();
        let mut pending = Vec::new();
        for (index, draft) in drafts.iter().enumerate() {
            match self.sign(draft, 0) {
                Ok(record) => pending.push(Pending {
                    index,
                    record,
                    resigned: false,
                    error: unanswered(),
                }),
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            }
            results.push(Err(unanswered()));
        }
        let mut pause = Duration::from_millis(50);
        for round in 0..ROUNDS {
            let batches = stream::iter(self.batches(pending))
                .map(|batch| self.send(batch, class))
                .buffer_unordered(BATCHES_AT_ONCE);
            let answers: Vec<_> = batches.collect().await;
            pending = Vec::new();
            for (batch, answer) in answers {
                self.settle(batch, answer, &drafts, &mut results, &mut pending);
            }
            if pending.is_empty() || round + 1 == ROUNDS {
                break;
            }
            sleep(jittered(pause)).await;
            pause *= 2;
        }
        for left in pending {
            results[left.index] = Err(left.error);
        }
        results
    }

    /// Groups records by their coordinator, in requests of bounded size.
    fn batches(&self, pending: Vec<Pending>) -> Vec<Vec<Pending>> {
        let mut open: BTreeMap<Option<NodeId>, (usize, Vec<Pending>)> = BTreeMap::new();
        let mut full = Vec::new();
        let single = pending.len() == 1;
        for item in pending {
            let size = item.record.signed.encoded_len();
            let coordinator = match single {
                true => None,
                false => self.coordinator(&coordinator_key(&item.record)),
            };
            let (bytes, batch) = open.entry(coordinator).or_default();
            if *bytes + size > BATCH_BYTES || batch.len() >= BATCH_RECORDS {
                full.push(std::mem::take(batch));
                *bytes = 0;
            }
            *bytes += size;
            batch.push(item);
        }
        full.extend(open.into_values().map(|(_, batch)| batch));
        full
    }

    async fn send(&self, batch: Vec<Pending>, class: Class) -> (Vec<Pending>, Sent) {
        let Some(first) = batch.first() else {
            return (batch, Err(unanswered()));
        };
        let key = coordinator_key(&first.record);
        let records = batch
            .iter()
            .map(|item| item.record.signed.clone())
            .collect();
        let asked = batch.len();
        let latest = self.inner.calls.now_ms().saturating_add(MAX_AHEAD_MS);
        let answer = self
            .ask(Ask {
                class,
                key: &key,
                request: wire::request::Kind::Put(wire::Put {
                    records,
                    local: false,
                }),
                judge: |node, response| judge(node, asked, latest, response),
                deadline: self.deadline(),
            })
            .await;
        if let (Class::Bulk, Ok(answer)) = (class, &answer) {
            let (_, reply) = &answer.value;
            let over = reply.utilisation_milli.saturating_sub(FULL_MILLI).min(100);
            if over > 0 {
                sleep(jittered(Duration::from_millis(5) * over)).await;
            }
        }
        let sent = answer.map(|answer| {
            let (peer, reply) = answer.value;
            (peer, reply, answer.hedged)
        });
        (batch, sent)
    }

    /// Enters the outcomes of one batch; what may still succeed stays pending.
    fn settle(
        &self,
        batch: Vec<Pending>,
        sent: Sent,
        drafts: &[Draft],
        results: &mut [Result<Stored, Error>],
        pending: &mut Vec<Pending>,
    ) {
        let (peer, reply, hedged) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                for item in batch {
                    results[item.index] = Err(error.clone());
                }
                return;
            }
        };
        for (mut item, outcome) in batch.into_iter().zip(reply.outcomes) {
            let sequence = item.record.body.sequence;
            let by = outcome.superseded_by;
            if by > sequence {
                if item.resigned {
                    results[item.index] = Err(Error::Superseded { by });
                    continue;
                }
                match self.sign(&drafts[item.index], by.saturating_add(1)) {
                    Ok(record) => {
                        item.record = record;
                        item.resigned = true;
                        item.error = Error::Superseded { by };
                        pending.push(item);
                    }
                    Err(error) => results[item.index] = Err(error),
                }
                continue;
            }
            let Some(refusal) = outcome.refusal else {
                results[item.index] = Ok(Stored { sequence, hedged });
                continue;
            };
            let code = refusal.code();
            item.error = Error::Refused {
                peer,
                code,
                message: refusal.message,
            };
            match is_verdict(code) {
                true => results[item.index] = Err(item.error),
                false => pending.push(item),
            }
        }
    }
}

/// Who answered, what, and whether it was hedged for.
type Sent = Result<(NodeId, wire::PutReply, bool), Error>;

/// A put answer is good if it settles at least one record.
fn judge(
    node: NodeId,
    asked: usize,
    latest: u64,
    response: wire::response::Kind,
) -> Judgement<(NodeId, wire::PutReply)> {
    let wire::response::Kind::Put(reply) = response else {
        return Judgement::Bad("answered a write with something else".into());
    };
    if reply.outcomes.len() != asked {
        let got = reply.outcomes.len();
        return Judgement::Bad(format!("gave {got} outcomes for {asked} records"));
    }
    if let Some(by) = reply
        .outcomes
        .iter()
        .map(|outcome| outcome.superseded_by)
        .find(|by| *by > latest)
    {
        return Judgement::Bad(format!(
            "says that sequence {by} is in place, far ahead of the clock; check the clock"
        ));
    }
    let refused = |outcome: &wire::PutOutcome| match &outcome.refusal {
        Some(refusal) if outcome.superseded_by == 0 => Some(refusal.clone()),
        _ => None,
    };
    let refusals: Option<Vec<_>> = reply.outcomes.iter().map(refused).collect();
    match refusals.as_deref() {
        None => Judgement::Good((node, reply)),
        Some([only]) if is_verdict(only.code()) => {
            Judgement::Verdict(only.code(), only.message.clone())
        }
        Some(all) if all.iter().any(|refusal| is_verdict(refusal.code())) => {
            Judgement::Good((node, reply))
        }
        Some(all) => {
            let reason = all.first().map(|refusal| refusal.message.clone());
            Judgement::Bad(reason.unwrap_or_default())
        }
    }
}

/// Where a record's coordinator is looked for. An item has many owners, so its
/// id spreads the coordination instead.
fn coordinator_key(record: &Record) -> Key {
    match &record.body.payload {
        Some(Payload::Item(_)) => record.id(),
        _ => record.placement_keys().first().copied().unwrap_or_default(),
    }
}

fn draft_item(item: &Item, ttl: Duration) -> Draft {
    Draft {
        payload: Payload::Item(item.to_wire()),
        ttl_s: seconds(ttl),
        removal: false,
    }
}

/// A removal must outlast whatever it hides.
fn removal(payload: Payload) -> Draft {
    Draft {
        payload,
        ttl_s: MAX_TTL_S,
        removal: true,
    }
}

fn not_empty(name: &str) -> Result<String, Error> {
    match name.is_empty() {
        true => Err(Error::EmptyName),
        false => Ok(name.to_owned()),
    }
}

/// Whole seconds, at least one: a lifetime of none would be refused as expired.
fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn unanswered() -> Error {
    Error::Refused {
        peer: NodeId([0; 32]),
        code: Code::Unavailable,
        message: "the write was not answered; try again".into(),
    }
}
