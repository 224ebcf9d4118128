//! Signs records and brings them to a coordinator, who stores them with their
//! owners.
//!
//! A record keeps its sequence through all attempts, so that storing it twice
//! is the same as storing it once. Only a later record found in place makes a
//! new sequence, once; and the insight that this machine's clock is off: then
//! it is issued anew, by the super-nodes' clocks.
//!
//! Sequences stay readings of this machine's own clock all the same: one that
//! super-nodes could push far ahead would leave its name no room.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use blake3::Hash;
use bytes::Bytes;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::{MAX_CLOCK_AHEAD_MS, MAX_TTL_S, Record, id_of};
use canopy_core::text;
use canopy_overlay::calls::Calls;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code;
use canopy_proto::{Message, wire};
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;

use super::Client;
use super::ask::{Ask, Judgement};
use super::draft::{Draft, PROVIDER_TTL, VALUE_TTL, provider};
use super::error::{Error, is_verdict};
use super::health::Class;
use super::item::Item;
use super::query::{MAX_LIMIT, MAX_QUERY_TERMS, Query};

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

/// What surrounds a record's payload, at most, bytes.
const ENVELOPE: usize = 384;

/// A later sequence is believed up to this far ahead of the clock. Sequences are
/// clock readings, so that more is a lie, which would leave this identity no
/// room for further writes; or the clock here was set back.
const MAX_AHEAD_MS: u64 = MAX_TTL_S as u64 * 1000;
/// A correction of the clock that makes a refused record worth another try,
/// milliseconds.
const CORRECTION_MS: u64 = 1_000;

/// A write that is on disk at two of three owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Later sequences replace earlier ones.
    pub sequence: u64,
    /// More than one super-node was asked because the first was slow.
    pub hedged: bool,
}

/// A draft on its way.
struct Pending {
    /// Its place in what was asked for.
    index: usize,
    record: Record,
    /// A later record was found once already.
    resigned: bool,
    /// By how much its time was corrected, milliseconds.
    offset_ms: i64,
    error: Error,
}

/// What became of drafts so far.
pub(super) struct Outcome {
    /// One for each draft, in order.
    pub(super) results: Vec<Result<Stored, Error>>,
    /// What is stored, with its place among the drafts.
    pub(super) written: Vec<(usize, Record)>,
    /// What may still succeed.
    pending: Vec<Pending>,
}

impl<C: Calls> Client<C> {
    /// Writes `data`, at most 64 KiB, under (this identity, `name`) for `ttl`.
    /// `None`: for [`VALUE_TTL`], and it is refreshed before that ends for as
    /// long as this leaf runs; so it is with all writes that take a `ttl`.
    pub async fn put(
        &self,
        name: &str,
        data: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Stored, Error> {
        let name = not_empty(name)?;
        let value = Payload::Value(wire::Value { name, data });
        self.store_one(Draft::new(value, ttl, VALUE_TTL)).await
    }

    /// Writes `data`, at most 64 KiB, under its own BLAKE3 hash.
    pub async fn put_content(
        &self,
        data: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(Hash, Stored), Error> {
        let hash = blake3::hash(&data);
        let name = String::new();
        let value = Payload::Value(wire::Value { name, data });
        let draft = Draft::new(value, ttl, VALUE_TTL);
        Ok((hash, self.store_one(draft).await?))
    }

    /// Refreshes the value under this hash no more, so that it ends with its
    /// lifetime: others may have written it too, so nobody can remove it. False:
    /// this leaf does not keep it published.
    pub async fn forget_content(&self, hash: Hash) -> Result<bool, Error> {
        let Some(publications) = &self.inner.publications else {
            return Ok(false);
        };
        let id = Key::hash("content", &[hash.as_bytes()]);
        Ok(publications.forget(&[id]).await?)
    }

    /// Removes the value under (this identity, `name`), whether it exists or not.
    pub async fn remove(&self, name: &str) -> Result<Stored, Error> {
        let name = not_empty(name)?;
        let data = Bytes::new();
        let value = Payload::Value(wire::Value { name, data });
        self.store_one(Draft::removal(value)).await
    }

    /// Makes one item searchable for `ttl`.
    pub async fn publish(&self, item: &Item, ttl: Option<Duration>) -> Result<Stored, Error> {
        not_empty(&item.name)?;
        self.store_one(Draft::item(item, ttl)).await
    }

    /// Makes many items searchable, in batches; one result each, in order.
    pub async fn publish_all(
        &self,
        items: &[Item],
        ttl: Option<Duration>,
    ) -> Vec<Result<Stored, Error>> {
        let drafts = items.iter().map(|item| Draft::item(item, ttl)).collect();
        self.store(drafts).await
    }

    /// Takes the item `name` of this identity out of the index. False: there
    /// is none. The item is looked up by the words of its name; one that this
    /// leaf keeps published needs none.
    pub async fn unpublish(&self, name: &str) -> Result<bool, Error> {
        let name = not_empty(name)?;
        let terms = match (self.find_own(&name).await, self.kept_item(&name)) {
            (Ok(Some(terms)), _) => terms,
            (_, Some(kept)) => kept.terms,
            (Ok(None), None) => return Ok(false),
            (Err(error), None) => return Err(error),
        };
        self.withdraw(name, terms).await.map(|_| true)
    }

    /// The terms of this identity's item `name` in the index.
    async fn find_own(&self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let mut terms = text::terms(name);
        if terms.is_empty() {
            return Err(Error::Unsearchable(name.to_owned()));
        }
        terms.truncate(MAX_QUERY_TERMS);
        let me = self.node_id();
        let query = Query::of_terms(terms)
            .equal("name", name)
            .equal("publisher", &me.to_string())
            .limit(MAX_LIMIT);
        let hits = self.search(&query).await?.hits;
        let mut mine = hits
            .into_iter()
            .filter(|hit| hit.publisher == me && hit.item.name == name);
        Ok(mine.next().map(|hit| hit.terms))
    }

    /// This identity's item `name`, where this leaf keeps it published.
    fn kept_item(&self, name: &str) -> Option<wire::Item> {
        let named = Payload::Item(wire::Item {
            name: name.to_owned(),
            ..wire::Item::default()
        });
        let publications = self.inner.publications.as_ref()?;
        let kept = publications.get(&id_of(&self.node_id(), &named))?;
        match kept.body.payload {
            Some(Payload::Item(item)) => Some(item),
            _ => None,
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
        self.store_one(Draft::removal(Payload::Item(names))).await
    }

    /// Announces that this peer has the content with this hash, `size` bytes
    /// long, for `ttl`; without one, for [`PROVIDER_TTL`] at a time.
    pub async fn provide(
        &self,
        content: Hash,
        size: u64,
        ttl: Option<Duration>,
    ) -> Result<Stored, Error> {
        let draft = Draft::new(provider(content, size), ttl, PROVIDER_TTL);
        self.store_one(draft).await
    }

    /// Takes back that this peer has a content, whether it said so or not.
    pub async fn unprovide(&self, content: Hash) -> Result<Stored, Error> {
        self.store_one(Draft::removal(provider(content, 0))).await
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
        let sequence = match draft.refreshes {
            Some(old) => old.saturating_add(1),
            None => self.next_sequence(at_least),
        };
        Ok(make(
            &self.inner.identity,
            calls.network(),
            sequence,
            self.common_ms(),
            draft.ttl_s,
            draft.payload.clone(),
        )?)
    }

    async fn store_one(&self, draft: Draft) -> Result<Stored, Error> {
        let mut results = self.store(vec![draft]).await;
        // One draft, one result.
        results.pop().unwrap_or(Err(unanswered()))
    }

    /// Stores each draft, and notes what is to be refreshed from now on, and
    /// what no more; one result each, in order.
    async fn store(&self, drafts: Vec<Draft>) -> Vec<Result<Stored, Error>> {
        let Some(publications) = &self.inner.publications else {
            return self.send_all(&drafts).await.results;
        };
        let me = self.node_id();
        let keep = drafts.iter().filter(|draft| draft.keep);
        let sizes = keep.map(|draft| {
            let size = draft.payload.encoded_len() + ENVELOPE;
            (id_of(&me, &draft.payload), size)
        });
        if let Err(error) = publications.check_room(&sizes.collect::<Vec<_>>()).await {
            return vec![Err(error); drafts.len()];
        }
        let mut outcome = self.send_all(&drafts).await;
        let written = outcome.written.into_iter();
        let (keep, end): (Vec<_>, Vec<_>) = written.partition(|(index, _)| drafts[*index].keep);
        let (kept, records): (Vec<usize>, Vec<Record>) = keep.into_iter().unzip();
        let end = end.into_iter().map(|(index, record)| (index, record.id()));
        let (ended, ids): (Vec<usize>, Vec<Key>) = end.unzip();
        let remembered = publications.remember(&records).await;
        let forgotten = publications.forget(&ids).await;
        for (places, noted) in [(kept, remembered), (ended, forgotten.map(drop))] {
            if let Err(error) = noted {
                places.into_iter().for_each(|index| {
                    outcome.results[index] = Err(error.clone().into());
                });
            }
        }
        outcome.results
    }

    /// Sends each draft until it is stored, refused or given up.
    pub(super) async fn send_all(&self, drafts: &[Draft]) -> Outcome {
        let class = if drafts.len() > 1 {
            Class::Bulk
        } else {
            Class::Write
        };
        let mut outcome = Outcome {
            results: Vec::with_capacity(drafts.len()),
            written: Vec::with_capacity(drafts.len()),
            pending: Vec::new(),
        };
        for (index, draft) in drafts.iter().enumerate() {
            let offset_ms = self.clock_offset_ms();
            match self.sign(draft, 0) {
                Ok(record) => outcome.pending.push(Pending {
                    index,
                    record,
                    resigned: false,
                    offset_ms,
                    error: unanswered(),
                }),
                Err(error) => {
                    outcome.results.push(Err(error));
                    continue;
                }
            }
            outcome.results.push(Err(unanswered()));
        }
        let mut pause = Duration::from_millis(50);
        for round in 0..ROUNDS {
            let pending = std::mem::take(&mut outcome.pending);
            let batches = stream::iter(self.batches(pending))
                .map(|batch| self.send(batch, class))
                .buffer_unordered(BATCHES_AT_ONCE);
            let answers: Vec<_> = batches.collect().await;
            for (batch, answer) in answers {
                self.settle(batch, answer, drafts, &mut outcome);
            }
            if outcome.pending.is_empty() || round + 1 == ROUNDS {
                break;
            }
            sleep(self.jittered(pause)).await;
            pause *= 2;
        }
        for left in std::mem::take(&mut outcome.pending) {
            outcome.results[left.index] = Err(left.error);
        }
        outcome
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
                judge: |node, response| {
                    let off = self.read_clock(node, &response);
                    judge(node, asked, latest, off, response)
                },
                deadline: self.deadline(),
            })
            .await;
        if let (Class::Bulk, Ok(answer)) = (class, &answer) {
            let (_, reply) = &answer.value;
            let over = reply.utilisation_milli.saturating_sub(FULL_MILLI).min(100);
            if over > 0 {
                sleep(self.jittered(Duration::from_millis(5) * over)).await;
            }
        }
        let sent = answer.map(|answer| {
            let (peer, reply) = answer.value;
            (peer, reply, answer.hedged)
        });
        (batch, sent)
    }

    /// Takes in what the clock of `node` shows, if it says so. Whether that is
    /// far from the time by which records are issued at present.
    fn read_clock(&self, node: NodeId, response: &wire::response::Kind) -> bool {
        let wire::response::Kind::Put(reply) = response else {
            return false;
        };
        let common_ms = self.common_ms();
        let mut clocks = self.inner.clocks.lock();
        clocks.read(self.now(), node, reply.clock_ms);
        reply.clock_ms > 0 && reply.clock_ms.abs_diff(common_ms) > MAX_CLOCK_AHEAD_MS
    }

    /// Issues a record anew that was refused, if this machine's clock turned out
    /// to be off since it was issued.
    fn reissue(&self, item: &mut Pending, draft: &Draft) -> bool {
        let offset_ms = self.clock_offset_ms();
        if offset_ms.abs_diff(item.offset_ms) < CORRECTION_MS {
            return false;
        }
        let Ok(record) = self.sign(draft, 0) else {
            return false;
        };
        tracing::warn!(
            offset_ms,
            "write: this machine's clock is off; records are issued by the super-nodes' clocks"
        );
        item.record = record;
        item.offset_ms = offset_ms;
        true
    }

    /// Enters the outcomes of one batch; what may still succeed stays pending.
    fn settle(&self, batch: Vec<Pending>, sent: Sent, drafts: &[Draft], outcome: &mut Outcome) {
        let (peer, reply, hedged) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                let invalid =
                    matches!(&error, Error::Refused { code, .. } if *code == Code::Invalid);
                for mut item in batch {
                    item.error = error.clone();
                    let draft = &drafts[item.index];
                    match invalid && self.reissue(&mut item, draft) {
                        true => outcome.pending.push(item),
                        false => outcome.results[item.index] = Err(item.error),
                    }
                }
                return;
            }
        };
        for (mut item, answer) in batch.into_iter().zip(reply.outcomes) {
            let draft = &drafts[item.index];
            let sequence = item.record.body.sequence;
            let by = answer.superseded_by;
            // In place already: a copy of the same content that lives longer,
            // or an earlier try of this refresh.
            let there =
                by > 0 && (draft.is_content() || (by == sequence && draft.refreshes.is_some()));
            if there || (by <= sequence && answer.refusal.is_none()) {
                outcome.results[item.index] = Ok(Stored { sequence, hedged });
                outcome.written.push((item.index, item.record));
                continue;
            }
            if by > sequence {
                if item.resigned || draft.refreshes.is_some() {
                    outcome.results[item.index] = Err(Error::Superseded { by });
                    continue;
                }
                match self.sign(draft, by.saturating_add(1)) {
                    Ok(record) => {
                        item.record = record;
                        item.resigned = true;
                        item.error = Error::Superseded { by };
                        outcome.pending.push(item);
                    }
                    Err(error) => outcome.results[item.index] = Err(error),
                }
                continue;
            }
            let refusal = answer.refusal.unwrap_or_default();
            let code = refusal.code();
            item.error = Error::Refused {
                peer,
                code,
                message: refusal.message,
            };
            let again = code == Code::Invalid && self.reissue(&mut item, draft);
            match is_verdict(code) && !again {
                true => outcome.results[item.index] = Err(item.error),
                false => outcome.pending.push(item),
            }
        }
    }
}

/// Who answered, what, and whether it was hedged for.
type Sent = Result<(NodeId, wire::PutReply, bool), Error>;

/// A put answer is good if it settles at least one record. `off`: whoever gave
/// it has another clock than records are issued by.
fn judge(
    node: NodeId,
    asked: usize,
    latest: u64,
    off: bool,
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
        // One of the two clocks is off; another super-node tells which.
        Some([first, ..]) if off && first.code() == Code::Invalid => {
            Judgement::Verdict(first.code(), first.message.clone())
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

fn not_empty(name: &str) -> Result<String, Error> {
    match name.is_empty() {
        true => Err(Error::EmptyName),
        false => Ok(name.to_owned()),
    }
}

pub(super) fn unanswered() -> Error {
    Error::Refused {
        peer: NodeId([0; 32]),
        code: Code::Unavailable,
        message: "the write was not answered; try again".into(),
    }
}
