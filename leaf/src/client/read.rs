//! Reads and searches, and the checks on whatever comes back.
//!
//! A super-node can withhold an answer, but cannot make one up: every record
//! is checked for signature, network, clock, and for being what was asked.

use blake3::Hash;
use bytes::Bytes;
use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::record::{Record, RecordError};
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;

use super::Client;
use super::ask::{Answer, Ask, Judgement};
use super::copies::{Agreed, Copy, Open};
use super::error::Error;
use super::health::Class;
use super::item::{Hit, Item, Page};
use super::query::{MAX_LIMIT, Query};

/// How many owners a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// One: fastest, and possibly stale.
    One,
    /// Two of three, and the highest sequence wins: sees every acknowledged write.
    #[default]
    Quorum,
}

/// A value that was read. Its signature has been checked, or its hash where it
/// was asked for by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Who wrote it; for a value read by its hash, who it says wrote it.
    pub publisher: NodeId,
    /// Under which name; empty when it was read by its hash.
    pub name: String,
    /// What was written, at most 64 KiB.
    pub data: Bytes,
    /// Later sequences replaced earlier ones.
    pub sequence: u64,
    /// When it was written, by the publisher's clock, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// More than one super-node was asked because the first was slow.
    pub hedged: bool,
}

/// Someone who has a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who has it.
    pub node_id: NodeId,
    /// Its size, bytes, as that peer says.
    pub size: u64,
    /// When the announcement ends, milliseconds since 1970.
    pub expires_ms: u64,
}

/// What proves that a record is what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Its publisher's signature.
    Signature,
    /// The hash that it was asked for by: who signed it does not matter.
    Hash,
}

/// Checked records under one key.
struct Found {
    records: Vec<Record>,
    hedged: bool,
}

impl<C: Calls> Client<C> {
    /// Reads the value under (`publisher`, `name`).
    pub async fn get(
        &self,
        publisher: NodeId,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Value>, Error> {
        if name.is_empty() {
            return Err(Error::EmptyName);
        }
        let fits = |record: &Record| match &record.body.payload {
            Some(Payload::Value(value)) => record.publisher == publisher && value.name == name,
            _ => false,
        };
        let key = keys::value(&publisher, name);
        self.value(&key, consistency, Proof::Signature, fits).await
    }

    /// Reads a value by the BLAKE3 hash of its data.
    pub async fn get_content(&self, hash: Hash) -> Result<Option<Value>, Error> {
        let key = Key::hash("content", &[hash.as_bytes()]);
        let fits = |record: &Record| match &record.body.payload {
            Some(Payload::Value(value)) => {
                value.name.is_empty() && blake3::hash(&value.data) == hash
            }
            _ => false,
        };
        match self
            .value(&key, Consistency::One, Proof::Hash, fits)
            .await?
        {
            // One owner may have missed the write; two cannot both have.
            None => {
                self.value(&key, Consistency::Quorum, Proof::Hash, fits)
                    .await
            }
            found => Ok(found),
        }
    }

    /// Who announced that they have the content; at most `limit` (1 to 100),
    /// latest first.
    pub async fn find_providers(&self, hash: Hash, limit: u32) -> Result<Vec<Provider>, Error> {
        let limit = limit.clamp(1, MAX_LIMIT);
        let fits = |record: &Record| match &record.body.payload {
            Some(Payload::Provider(provider)) => provider.content == hash.as_bytes().as_slice(),
            _ => false,
        };
        let key = keys::provider(hash.as_bytes());
        let mut found = self
            .read(
                self.get_of(&key, Consistency::Quorum, limit),
                Proof::Signature,
                fits,
            )
            .await?;
        found
            .records
            .sort_by_key(|record| std::cmp::Reverse(record.body.sequence));
        let mut providers: Vec<Provider> = Vec::new();
        for record in found.records {
            let known = providers
                .iter()
                .any(|other| other.node_id == record.publisher);
            let (Some(Payload::Provider(provider)), false, false) =
                (&record.body.payload, known, record.body.removed)
            else {
                continue;
            };
            providers.push(Provider {
                node_id: record.publisher,
                size: provider.size,
                expires_ms: record.expires_ms(),
            });
        }
        providers.truncate(limit as usize);
        Ok(providers)
    }

    /// One page of the items that match `query`.
    pub async fn search(&self, query: &Query) -> Result<Page, Error> {
        query.check()?;
        let answer = self
            .ask(Ask {
                class: Class::Search,
                key: &query.key(),
                request: wire::request::Kind::Search(query.to_wire()),
                judge: |_, response| self.judge_search(query, response),
                deadline: self.deadline(),
            })
            .await?;
        let mut page = answer.value;
        page.hedged |= answer.hedged;
        Ok(page)
    }

    async fn value(
        &self,
        key: &Key,
        consistency: Consistency,
        proof: Proof,
        fits: impl Fn(&Record) -> bool + Sync,
    ) -> Result<Option<Value>, Error> {
        let found = self.latest(key, consistency, proof, fits).await?;
        let Some((record, hedged)) = found else {
            return Ok(None);
        };
        let expires_ms = record.expires_ms();
        let Some(Payload::Value(value)) = record.body.payload else {
            return Ok(None);
        };
        Ok(Some(Value {
            publisher: record.publisher,
            name: value.name,
            data: value.data,
            sequence: record.body.sequence,
            issued_ms: record.body.issued_ms,
            expires_ms,
            hedged,
        }))
    }

    /// The latest record under a key that has at most one, and whether it was
    /// hedged for; `None`: there is none, or it was removed.
    pub(super) async fn latest(
        &self,
        key: &Key,
        consistency: Consistency,
        proof: Proof,
        fits: impl Fn(&Record) -> bool + Sync,
    ) -> Result<Option<(Record, bool)>, Error> {
        let get = self.get_of(key, consistency, 1);
        let found = self.read(get, proof, fits).await?;
        let records = found.records.into_iter();
        let latest = records.max_by_key(|record| record.body.sequence);
        let latest = latest.filter(|record| !record.body.removed);
        Ok(latest.map(|record| (record, found.hedged)))
    }

    fn get_of(&self, key: &Key, consistency: Consistency, limit: u32) -> wire::Get {
        let consistency = match consistency {
            Consistency::One => wire::Consistency::One,
            Consistency::Quorum => wire::Consistency::Quorum,
        };
        wire::Get {
            key: key.to_bytes(),
            consistency: consistency as i32,
            limit,
            ..wire::Get::default()
        }
    }

    /// The letters to this peer, at most `limit`.
    pub(super) async fn read_mailbox(
        &self,
        limit: u32,
        fits: impl Fn(&Record) -> bool + Sync,
    ) -> Result<Vec<Record>, Error> {
        let key = keys::mailbox(&self.node_id());
        let get = wire::Get {
            mailbox: true,
            ..self.get_of(&key, Consistency::Quorum, limit)
        };
        let found = self.read(get, Proof::Signature, fits).await?;
        Ok(found.records)
    }

    async fn read(
        &self,
        get: wire::Get,
        proof: Proof,
        fits: impl Fn(&Record) -> bool + Sync,
    ) -> Result<Found, Error> {
        let limit = get.limit;
        let key = &Key::from_slice(&get.key).unwrap_or_default();
        let deadline = self.deadline();
        let copies = match get.consistency() {
            // More than one record may differ where nothing is wrong.
            wire::Consistency::Quorum if limit == 1 && !get.mailbox => {
                let copy = wire::Get {
                    copy: true,
                    ..get.clone()
                };
                let judge = |_, response| self.judge_copy(&fits, proof, response);
                self.copies(key, copy, judge, deadline).await
            }
            _ => Err(Open::NotAsked),
        };
        let ask = Ask {
            class: Class::Read,
            key,
            request: wire::request::Kind::Get(get),
            judge: |_, response| self.judge_get(&fits, proof, limit, response),
            deadline,
        };
        let answer = match copies {
            Ok(Agreed { records, hedged }) => return Ok(Found { records, hedged }),
            Err(Open::NotAsked) => self.ask(ask).await,
            Err(open) => {
                self.inner.counters.retried();
                let owes = matches!(open, Open::Refused);
                self.ask_further(ask, owes).await
            }
        };
        let Answer { mut value, hedged } = answer?;
        value.hedged |= hedged;
        Ok(value)
    }

    /// An owner's copy; removals are in it.
    fn judge_copy(
        &self,
        fits: impl Fn(&Record) -> bool,
        proof: Proof,
        response: wire::response::Kind,
    ) -> Judgement<Copy> {
        let (owner, whole) = match &response {
            wire::response::Kind::Get(reply) => (reply.owners.is_empty(), !reply.copy),
            _ => (false, false),
        };
        let found = self.judge_get(fits, proof, 1, response);
        found.map(|Found { records, .. }| Copy {
            records,
            owner,
            whole,
        })
    }

    /// Opens what a super-node answered with. What is over by this machine's
    /// clock is judged again by the super-nodes' clocks, if ours is known to be
    /// off.
    fn open(&self, signed: &wire::Signed, proof: Proof) -> Result<Record, RecordError> {
        let calls = &self.inner.calls;
        let network = calls.network();
        let opened = |now_ms| match proof {
            Proof::Signature => self.inner.checked.open(signed, network, now_ms),
            Proof::Hash => Record::reopen(signed, network, now_ms),
        };
        match opened(calls.now_ms()) {
            Err(RecordError::Expired) => opened(self.common_ms()),
            outcome => outcome,
        }
    }

    /// A read's answer is bad if it holds something other than what was asked.
    fn judge_get(
        &self,
        fits: impl Fn(&Record) -> bool,
        proof: Proof,
        limit: u32,
        response: wire::response::Kind,
    ) -> Judgement<Found> {
        let wire::response::Kind::Get(reply) = response else {
            return Judgement::Bad("answered a read with something else".into());
        };
        let mut records = Vec::new();
        // More than was asked for is not looked at.
        for signed in reply.records.iter().take(limit as usize) {
            match self.open(signed, proof) {
                Ok(record) if fits(&record) => records.push(record),
                Ok(_) => return Judgement::Bad("answered with another record".into()),
                // It may have ended on its way here.
                Err(RecordError::Expired) => {}
                Err(error) => return Judgement::Bad(error.to_string()),
            }
        }
        let hedged = reply.hedged;
        Judgement::Good(Found { records, hedged })
    }

    /// Hits that do not hold are left out; an answer of nothing but such is bad.
    fn judge_search(&self, query: &Query, response: wire::response::Kind) -> Judgement<Page> {
        let wire::response::Kind::Search(reply) = response else {
            return Judgement::Bad("answered a search with something else".into());
        };
        let given = reply.hits.len().min(query.limit as usize);
        let mut hits: Vec<Hit> = Vec::with_capacity(given);
        let mut rejected = 0;
        for hit in reply.hits.into_iter().take(given) {
            match self.open_hit(query, hit) {
                Some(hit) if !is_known(&hits, &hit) => hits.push(hit),
                _ => rejected += 1,
            }
        }
        if hits.is_empty() && rejected > 0 {
            return Judgement::Bad(format!(
                "all {rejected} hits were forged, expired or beside the query"
            ));
        }
        let next = (!reply.next.is_empty()).then(|| query.clone().after(reply.next));
        Judgement::Good(Page {
            hits,
            next,
            total: reply.total,
            rejected,
            hedged: reply.hedged,
        })
    }

    fn open_hit(&self, query: &Query, hit: wire::Hit) -> Option<Hit> {
        let record = self.open(&hit.record?, Proof::Signature).ok()?;
        let expires_ms = record.expires_ms();
        match record.body.payload {
            Some(Payload::Item(item)) if !record.body.removed && query.matches(&item) => {
                Some(Hit {
                    publisher: record.publisher,
                    terms: item.terms.clone(),
                    item: Item::from_wire(item),
                    score: hit.score,
                    sequence: record.body.sequence,
                    issued_ms: record.body.issued_ms,
                    expires_ms,
                })
            }
            _ => None,
        }
    }
}

fn is_known(hits: &[Hit], hit: &Hit) -> bool {
    let same = |other: &Hit| other.publisher == hit.publisher && other.item.name == hit.item.name;
    hits.iter().any(same)
}
