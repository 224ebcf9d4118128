//! What this node answers from its own store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::R;
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::response;

use super::search::Searched;
use super::stats::add;
use super::{Answer, Inner, MAX_GET, MAX_OFFER, MAX_PUT, refuse};
use crate::index::{Outcome, Version};

/// Signatures checked before other tasks get a turn: about a millisecond.
const CHECKS_A_TURN: usize = 25;

impl<C: Calls> Inner<C> {
    /// Stores records here and nowhere else. Taken from every peer that is, or
    /// lately was, a super-node, owner or not in this node's eyes: the sender
    /// may know a later placement, and repair moves what is misplaced.
    pub(super) async fn put_local(self: &Arc<Self>, from: NodeId, put: wire::Put) -> Answer {
        if from != self.me() && !self.places.knows(&from) {
            return Err(refuse::not_serving());
        }
        if from != self.me() && self.leaving.load(Relaxed) {
            return Err(refuse::leaving());
        }
        let checked = self.check(put.records).await?;
        let good = checked.iter().filter_map(|r| r.as_ref().ok()).cloned();
        let good: Vec<Record> = good.collect();
        if self.places.changed_lately() && !good.iter().all(|record| self.owns(record)) {
            // Sent under an earlier placement; it must not stay here unseen.
            self.wake_repair.notify_one();
        }
        for key in good.iter().filter_map(Record::first_key) {
            self.did(&key);
        }
        let mut stored = self.store(good).await.into_iter();
        add(&self.counters.local_puts, stored.len());
        let outcomes = checked.into_iter().map(|record| match record {
            Ok(_) => stored.next().unwrap_or_default(),
            Err(refusal) => refused(refusal),
        });
        Ok(response::Kind::Put(wire::PutReply {
            outcomes: outcomes.collect(),
            utilisation_milli: self.index.utilisation_milli(),
            clock_ms: self.calls.now_ms(),
        }))
    }

    fn owns(&self, record: &Record) -> bool {
        let placement = self.calls.placement();
        let keys = record.placement_keys();
        keys.iter().any(|key| placement.owns(&self.me(), key))
    }

    /// Checks the signature, limits, network and clock of each record.
    pub(super) async fn check(
        &self,
        records: Vec<wire::Signed>,
    ) -> Result<Vec<Result<Record, wire::Refusal>>, wire::Refusal> {
        if records.len() > MAX_PUT {
            return Err(refuse::malformed(
                "too many records in one put; send at most 4096",
            ));
        }
        let now_ms = self.calls.now_ms();
        let mut out = Vec::with_capacity(records.len());
        for (i, signed) in records.iter().enumerate() {
            if i % CHECKS_A_TURN == CHECKS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let record = Record::open(signed, self.calls.network(), now_ms);
            let record = record.map_err(|error| refuse::of_record(&error));
            out.push(record.and_then(|record| self.allows(&record).map(|()| record)));
        }
        Ok(out)
    }

    /// Stores checked records here; each outcome holds across a crash.
    pub(super) async fn store(self: &Arc<Self>, records: Vec<Record>) -> Vec<wire::PutOutcome> {
        let left: Vec<_> = records.iter().filter_map(|r| self.former(r)).collect();
        let (outcomes, ack) = self.index.put(records, self.calls.now_ms());
        let failure = ack.await.err().map(|error| refuse::of_store(&error));
        for (record, owners) in left {
            self.tell_former(record, owners);
        }
        let tell = |outcome| match (outcome, &failure) {
            (Outcome::Stored | Outcome::AlreadyHave, None) => wire::PutOutcome::default(),
            (Outcome::Stored | Outcome::AlreadyHave, Some(refusal)) => refused(refusal.clone()),
            (Outcome::Superseded(sequence), _) => wire::PutOutcome {
                refusal: Some(refuse::superseded(sequence)),
                superseded_by: sequence,
            },
            (Outcome::Refused(why), _) => refused(refuse::of_index(&why)),
        };
        outcomes.into_iter().map(tell).collect()
    }

    /// Who held `record` under terms that its new version has no more: they
    /// would go on finding the old one. One key's owners look after that.
    fn former(&self, record: &Record) -> Option<(wire::Signed, BTreeSet<NodeId>)> {
        if !matches!(record.body.payload, Some(Payload::Item(_))) {
            return None;
        }
        let old = self.index.one(&record.id(), self.calls.now_ms(), true)?;
        let old = Record::trusted(&old).ok()?;
        let keys = record.placement_keys();
        let gone = old.placement_keys();
        let gone: Vec<Key> = gone.into_iter().filter(|key| !keys.contains(key)).collect();
        if gone.is_empty() || Version::of(record) < Version::of(&old) {
            return None;
        }
        let placement = self.calls.placement();
        if !placement.owns(&self.me(), keys.first()?) {
            return None;
        }
        let owners = |key| placement.owners(key, R);
        let current: BTreeSet<NodeId> = keys.iter().flat_map(owners).collect();
        let former = gone.iter().flat_map(owners);
        let former = former.filter(|node| !current.contains(node));
        Some((record.signed.clone(), former.collect()))
    }

    fn tell_former(self: &Arc<Self>, record: wire::Signed, owners: BTreeSet<NodeId>) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            for owner in owners {
                inner.send(owner, std::slice::from_ref(&record), true).await;
            }
        });
    }

    /// This node's copy, for one who compares those of several owners; `None` if it
    /// may not be the latest.
    pub(super) fn get_copy(&self, get: &wire::Get) -> Option<Answer> {
        let key = match key_of(get) {
            Ok(key) => key,
            Err(refusal) => return Some(Err(refusal)),
        };
        if self.places.settling() {
            return None;
        }
        let owners = self.places.current().owners(&key, R);
        let alone = || self.places.other_holders(&key, &owners).is_empty();
        if !owners.contains(&self.me()) || !alone() {
            return None;
        }
        let reply = self.copy_of(get);
        Some(reply.map(|mut reply| {
            reply.copy = true;
            self.counters.got(!reply.records.is_empty());
            response::Kind::Get(reply)
        }))
    }

    pub(super) fn get_local(&self, get: &wire::Get) -> Answer {
        add(&self.counters.local_reads, 1);
        self.copy_of(get).map(|mut reply| {
            reply.settling = self.places.settling();
            response::Kind::Get(reply)
        })
    }

    fn copy_of(&self, get: &wire::Get) -> Result<wire::GetReply, wire::Refusal> {
        let key = key_of(get)?;
        self.readable(&key)?;
        let limit = limit_of(get);
        let now_ms = self.calls.now_ms();
        let records = match get.mailbox {
            true => self.index.mailbox(&key, now_ms),
            false => self.index.get(&key, now_ms, limit, true),
        };
        let records = self.shown(records)?;
        self.heat.operation(&key, now_ms);
        Ok(wire::GetReply {
            records,
            ..Default::default()
        })
    }

    pub(super) fn search_local(&self, search: &wire::Search) -> Answer {
        add(&self.counters.local_reads, 1);
        let under = self.searched(search)?;
        self.search_here(search, under)
    }

    /// `under`: the word that this node was asked for.
    pub(super) fn search_here(&self, search: &wire::Search, under: Searched<'_>) -> Answer {
        let now_ms = self.calls.now_ms();
        self.heat.operation(&under.key(), now_ms);
        self.heat.search(under.word(), now_ms);
        let page = self.index.search(search, now_ms);
        let page = page.map_err(|error| refuse::of_search(&error))?;
        let mut reply = wire::SearchReply {
            hits: page.hits,
            next: page.next,
            total: page.total,
            hedged: false,
            settling: self.places.settling(),
        };
        self.sift(&mut reply);
        Ok(response::Kind::Search(reply))
    }

    /// Says which of the offered records this node lacks. An empty offer means
    /// that the sender has offered all.
    pub(super) fn offered(&self, from: NodeId, offer: &wire::Offer) -> Answer {
        if offer.entries.len() > MAX_OFFER {
            return Err(refuse::malformed(
                "too many entries in one offer; send at most 4096",
            ));
        }
        if self.leaving.load(Relaxed) {
            return Err(refuse::leaving());
        }
        match (offer.returned, offer.entries.is_empty()) {
            (true, _) if self.places.current().get(&from).is_some() => {
                self.returned.lock().insert(from);
                self.wake_repair.notify_one();
            }
            (false, true) => self.places.finished(&from),
            _ => {}
        }
        let now_ms = self.calls.now_ms();
        let entries = offer.entries.iter().enumerate();
        let wanted = entries.filter_map(|(i, entry)| {
            let id = Key::from_slice(&entry.id)?;
            (!self.index.holds(&id, entry.sequence, now_ms)).then_some(i as u32)
        });
        Ok(response::Kind::Offer(wire::OfferReply {
            wanted: wanted.collect(),
        }))
    }
}

pub(super) fn refused(refusal: wire::Refusal) -> wire::PutOutcome {
    wire::PutOutcome {
        refusal: Some(refusal),
        superseded_by: 0,
    }
}

pub(super) fn key_of(get: &wire::Get) -> Result<Key, wire::Refusal> {
    Key::from_slice(&get.key).ok_or_else(|| refuse::malformed("a key is 32 bytes"))
}

pub(super) fn limit_of(get: &wire::Get) -> usize {
    match get.limit as usize {
        0 => MAX_GET,
        limit => limit.min(MAX_GET),
    }
}
