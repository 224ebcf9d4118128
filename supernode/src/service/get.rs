//! Reads a key from enough of its owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::R;
use canopy_core::record::Record;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{Consistency, request, response};
use prost::Message;

use super::gather::{Verdict, gather};
use super::local::{key_of, limit_of};
use super::stats::add;
use super::{Answer, Inner, refuse};
use crate::index::Version;

impl<C: Calls> Inner<C> {
    /// Answers from this node's own copy, where one owner's answer is enough
    /// and this node is an owner that has it.
    pub(super) fn get_own(&self, get: &wire::Get) -> Option<Answer> {
        if get.consistency() == Consistency::Quorum {
            return None;
        }
        let key = match key_of(get) {
            Ok(key) => key,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Err(refusal) = self.readable(&key) {
            return Some(Err(refusal));
        }
        // Holding it is cheaper to know than owning it.
        let now_ms = self.calls.now_ms();
        let records = match get.mailbox {
            true => self.index.mailbox(&key, now_ms),
            false => self.index.get(&key, now_ms, limit_of(get), false),
        };
        if records.is_empty() || !self.calls.placement().owns(&self.me(), &key) {
            return None;
        }
        let records = match self.shown(records) {
            Ok(records) => records,
            Err(refusal) => return Some(Err(refusal)),
        };
        self.counters.got(true);
        self.heat.operation(&key, now_ms);
        Some(Ok(response::Kind::Get(wire::GetReply {
            records,
            ..Default::default()
        })))
    }

    pub(super) async fn get(inner: &Arc<Self>, get: wire::Get) -> Answer {
        let key = key_of(&get)?;
        inner.readable(&key)?;
        let placement = inner.calls.placement();
        let mut owners = placement.owners(&key, R);
        if owners.is_empty() {
            return Err(refuse::unavailable(
                "no super-node serves yet; try again later",
            ));
        }
        let own = owners.contains(&inner.me());
        let told_owners = match own {
            true => Vec::new(),
            false => owners.iter().map(|owner| owner.to_bytes()).collect(),
        };
        inner.rank(&placement, &mut owners);
        let needed = match get.consistency() {
            Consistency::Quorum => 2.min(owners.len()),
            _ => 1,
        };
        let mut peers = owners.clone();
        peers.extend(inner.places.other_holders(&key, &owners));
        let mut read = Read::new(inner, key, owners, needed);
        let request = request::Kind::Get(wire::Get {
            key: key.to_bytes(),
            local: true,
            ..get
        });
        let mut take = |peer, answer| read.take(inner, peer, answer);
        let mut hedged = gather(inner, &peers, needed, &request, &mut take).await;
        if read.is_unsure() {
            // Its owners are new: somebody else had it before.
            let next = inner.places.next_closest(&key, &peers);
            let mut take = |peer, answer| read.take(inner, peer, answer);
            hedged |= gather(inner, &next, needed, &request, &mut take).await;
        }
        read.repair(inner);
        let records = inner.shown(read.finish(limit_of(&get))?)?;
        inner.counters.got(!records.is_empty());
        inner.did(&key);
        Ok(response::Kind::Get(wire::GetReply {
            records,
            hedged,
            owners: told_owners,
            settling: false,
            copy: false,
        }))
    }
}

/// What the owners have said of one key so far.
struct Read {
    key: Key,
    now_ms: u64,
    owners: Vec<NodeId>,
    needed: usize,
    /// The latest version of each record, removals included.
    best: BTreeMap<Key, (Version, Record)>,
    /// Who answered, and with which versions.
    answers: Vec<(NodeId, BTreeMap<Key, Version>)>,
    /// Answers that settle what they say.
    firm: usize,
    /// An owner has it, and it is banned.
    banned: Option<wire::Refusal>,
}

impl Read {
    fn new<C: Calls>(inner: &Inner<C>, key: Key, owners: Vec<NodeId>, needed: usize) -> Self {
        Self {
            key,
            now_ms: inner.calls.now_ms(),
            owners,
            needed,
            best: BTreeMap::new(),
            answers: Vec::new(),
            firm: 0,
            banned: None,
        }
    }

    fn take<C: Calls>(
        &mut self,
        inner: &Inner<C>,
        peer: NodeId,
        answer: Result<response::Kind, CallError>,
    ) -> Verdict {
        let reply = match answer {
            Ok(response::Kind::Get(reply)) => reply,
            Err(CallError::Refused { refusal, .. }) if refusal.code() == Code::Banned => {
                self.banned = Some(refusal);
                return Verdict::More;
            }
            _ => return Verdict::More,
        };
        let mut versions = BTreeMap::new();
        for signed in reply.records.iter().take(super::MAX_GET) {
            // This node checked its own before it stored them.
            let record = match peer == inner.me() {
                true => Record::trusted(signed),
                false => Record::read(signed, inner.calls.network(), self.now_ms),
            };
            let Some(record) = record
                .ok()
                .filter(|r| r.placement_keys().contains(&self.key))
            else {
                tracing::debug!(%peer, "an owner returned a record that is not valid");
                continue;
            };
            let (id, version) = (record.id(), Version::of(&record));
            versions.insert(id, version);
            if self.best.get(&id).is_none_or(|(best, _)| *best < version) {
                self.best.insert(id, (version, record));
            }
        }
        // One owner's word is enough for a find, settling or not.
        let settles = !reply.settling || (self.needed == 1 && !versions.is_empty());
        self.firm += usize::from(settles);
        self.answers.push((peer, versions));
        match (self.best.is_empty(), self.firm >= self.needed) {
            // Others under way may still bring the number that is needed.
            (_, false) if settles => Verdict::Wait,
            (_, false) => Verdict::More,
            // All owners are asked before "none" is believed.
            (true, true) => Verdict::More,
            (false, true) if self.agreed() => Verdict::Done,
            (false, true) => Verdict::More,
        }
    }

    /// Nothing was found, and too few of those who said so can be sure of it.
    fn is_unsure(&self) -> bool {
        self.best.is_empty() && self.firm < self.needed
    }

    /// Whether as many owners as are needed hold the latest of all that was
    /// found. Where they differ, the one that was not asked may know more.
    fn agreed(&self) -> bool {
        let latest = |versions: &BTreeMap<Key, Version>| {
            let mut best = self.best.iter();
            best.all(|(id, (best, _))| versions.get(id) == Some(best))
        };
        let agreeing = self.answers.iter().filter(|(_, versions)| latest(versions));
        agreeing.count() >= self.needed
    }

    /// Brings the latest versions to owners that answered with less, as far as
    /// repair may send something now; the rest it brings by itself.
    fn repair<C: Calls>(&self, inner: &Arc<Inner<C>>) {
        for (peer, versions) in &self.answers {
            let stale = |id: &Key, best: &Version| versions.get(id).is_none_or(|v| v < best);
            let lacking = self.best.iter().filter(|(id, (best, _))| stale(id, best));
            let lacking: Vec<Record> = lacking.map(|(_, (_, record))| record.clone()).collect();
            if lacking.is_empty() || !self.owners.contains(peer) {
                continue;
            }
            let bytes = lacking.iter().map(|r| r.signed.encoded_len()).sum();
            let rate = inner.config.repair_bytes_per_s;
            if *peer != inner.me() && !inner.pace.reserve_now(bytes, rate) {
                continue;
            }
            add(&inner.counters.repaired, lacking.len());
            let (inner, peer) = (Arc::clone(inner), *peer);
            tokio::spawn(async move {
                if peer == inner.me() {
                    inner.store(lacking).await;
                } else {
                    let signed: Vec<_> = lacking.into_iter().map(|r| r.signed).collect();
                    inner.send(peer, &signed, true).await;
                }
            });
        }
    }

    fn finish(self, limit: usize) -> Result<Vec<wire::Signed>, wire::Refusal> {
        if let Some(refusal) = self.banned.filter(|_| self.best.is_empty()) {
            return Err(refusal);
        }
        let enough = match self.best.is_empty() {
            // One owner alone may be the one that a write's quorum left out.
            true => 2.min(self.owners.len()),
            false => self.needed,
        };
        if self.answers.len() < enough {
            let message = format!(
                "{} of the {enough} owners needed answered; try again",
                self.answers.len()
            );
            return Err(refuse::unavailable(message));
        }
        let records = self.best.into_values().map(|(_, record)| record);
        let shown = records.filter(|record| !record.body.removed).take(limit);
        Ok(shown.map(|record| record.signed).collect())
    }
}
