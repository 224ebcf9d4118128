//! Moves records to their owners when those change, and compares owners now
//! and then.
//!
//! Holders offer ids and sequences; owners answer with what they lack. A node
//! drops what it does not own only after all owners have confirmed a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Placement, R};
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::{request, response};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;

use super::Inner;
use super::stats::add;
use crate::heat::{SHARDS, shard_of};
use crate::index::{Index, Version};

/// Among no more super-nodes than so many, one tells each that it has started, and
/// each that it has offered all. Among more, most of whom have no records in common
/// with it, its offers tell those who have: 2 500 sessions for that would cost it
/// 60 MB and two seconds of handshakes.
pub(super) const TOLD: usize = 64;
/// Entries of one offer: 40 bytes each.
const OFFER: usize = 512;

/// Most bytes of records sent at a time, unless one record alone is larger.
const PIECE: usize = 256 * 1024;
/// After a piece repair rests for so many times as long as the piece took, so
/// that a line that is slow, or busy with requests, is left to them. Garage's
/// "tranquility", which is 2 for its resync too.
const TRANQUILITY: u32 = 2;

/// Spreads what repair sends over time.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// When `bytes` may be sent, at `rate` bytes a second in all.
    fn reserve(&self, bytes: usize, rate: u64) -> Instant {
        let mut free = self.0.lock();
        let now = Instant::now();
        let turn = free.map_or(now, |free| free.max(now));
        *free = Some(turn + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
        turn
    }

    /// Nothing is sent for a while: what was sent took so long.
    fn rest(&self, took: Duration) {
        let mut free = self.0.lock();
        let now = Instant::now();
        *free = Some(free.map_or(now, |free| free.max(now)) + took * TRANQUILITY);
    }

    /// The same as [`Self::reserve`] if they may be sent now; else false.
    pub(super) fn reserve_now(&self, bytes: usize, rate: u64) -> bool {
        let waits = self.0.lock().is_some_and(|free| free > Instant::now());
        if !waits {
            self.reserve(bytes, rate);
        }
        !waits
    }
}

/// How far a hand-over has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// Records looked at.
    pub records: u64,
    /// Records that all their owners have confirmed.
    pub confirmed: u64,
    /// Records sent, counted once for each owner that lacked one.
    pub sent: u64,
}

impl HandOver {
    /// Whether every record is where it belongs.
    pub fn is_complete(&self) -> bool {
        self.confirmed == self.records
    }
}

/// What a pass is to do.
struct Pass {
    /// Owners are computed from this.
    placement: Placement,
    /// Owners under this one are believed to have their copies.
    known: Option<Placement>,
    /// Nodes that are believed to have nothing.
    returned: BTreeSet<NodeId>,
    /// Whether what is not owned here is dropped once it is confirmed.
    drops: bool,
    /// Whether targets store directly, because this node is a super-node.
    member: bool,
    /// This node has just started, and its first offer to each is to say so...
    fresh: bool,
    /// ...of which these had one.
    told: Mutex<BTreeSet<NodeId>>,
    /// By shard, records that not all owners have confirmed.
    left: Mutex<[u32; SHARDS]>,
}

/// The background task: waits for a change of the placement, and repairs.
pub(super) async fn run<C: Calls>(service: Weak<Inner<C>>) {
    let Some(inner) = service.upgrade() else {
        return;
    };
    let wake = Arc::clone(&inner.wake_repair);
    let (after, every) = (inner.config.repair_after, inner.config.repair_every);
    let mut seen = inner.places.current();
    // This node may have been away.
    let mut fresh = seen.get(&inner.me()).is_some();
    if fresh && seen.len() <= TOLD {
        let others: Vec<NodeId> = seen.members().map(|member| member.node).collect();
        tell(&inner, others, true).await;
        fresh = false;
    }
    drop(inner);
    // Owners under this have what they own; none: nothing is known.
    let mut known: Option<Placement> = None;
    let mut wait = after;
    let mut failures = 0u32;
    // However often the placement changes, all is compared now and then.
    let mut compared = Instant::now();
    loop {
        let woken = tokio::time::timeout(wait, wake.notified()).await.is_ok();
        if woken {
            // A change seldom comes alone.
            tokio::time::sleep(after).await;
        }
        let Some(inner) = service.upgrade() else {
            return;
        };
        let placement = inner.places.current();
        let member = placement.get(&inner.me()).is_some();
        let overdue = compared.elapsed() >= every;
        let known_before = known.take().filter(|_| woken && !overdue);
        if known_before.is_none() {
            compared = Instant::now();
        }
        let pass = Pass {
            known: known_before,
            drops: member,
            member,
            fresh: std::mem::take(&mut fresh),
            told: Mutex::default(),
            returned: std::mem::take(&mut *inner.returned.lock()),
            placement: placement.clone(),
            left: Mutex::new([0; SHARDS]),
        };
        let done = pass.run(&inner, |_| ()).await;
        inner.shards.compared(&pass.left.lock());
        inner.counters.repair_pass(&done);
        if placement.len() <= TOLD {
            let mut new: Vec<NodeId> = placement.members().map(|member| member.node).collect();
            new.retain(|node| {
                seen.get(node) != placement.get(node) || pass.returned.contains(node)
            });
            tell(&inner, new, false).await;
        }
        // What failed is tried again soon, and then against everybody; less and
        // less soon, because an owner may refuse for good, e.g. over a quota.
        let complete = done.is_complete();
        failures = if complete { 0 } else { failures + 1 };
        known = complete.then(|| placement.clone());
        let soon = after.max(Duration::from_millis(100)) * 5;
        wait = match failures {
            0 => every,
            n => (soon * (1 << (n - 1).min(10))).min(every),
        };
        seen = placement;
    }
}

/// Pushes all that is held to those who own it without this node.
pub(super) async fn hand_over<C: Calls>(
    inner: &Arc<Inner<C>>,
    progress: impl FnMut(HandOver) + Send,
) -> HandOver {
    let placement = inner.calls.placement();
    let member = placement.get(&inner.me()).is_some();
    let pass = Pass {
        placement: placement.without(&inner.me()),
        known: None,
        returned: BTreeSet::new(),
        drops: !member,
        member,
        fresh: false,
        told: Mutex::default(),
        left: Mutex::new([0; SHARDS]),
    };
    pass.run(inner, progress).await
}

/// Tells `nodes` that all was offered to them or, if `returned`, that this node
/// has just started. Who is not reached learns the first by waiting, and
/// compares with this node some time later anyway.
async fn tell<C: Calls>(inner: &Arc<Inner<C>>, nodes: Vec<NodeId>, returned: bool) {
    let mut told = FuturesUnordered::new();
    for node in nodes {
        if node == inner.me() {
            continue;
        }
        if told.len() >= inner.config.repair_in_flight.max(1) {
            told.next().await;
        }
        let offer = wire::Offer {
            entries: Vec::new(),
            returned,
        };
        let deadline = inner.config.read_deadline;
        told.push(
            inner
                .calls
                .call(node, request::Kind::Offer(offer), deadline),
        );
    }
    while told.next().await.is_some() {}
}

/// A record under way, and who has yet to confirm it.
struct Moving {
    version: Version,
    waiting: BTreeSet<NodeId>,
    owned: bool,
    /// The shards that its keys lie in.
    shards: BTreeSet<usize>,
}

impl Pass {
    async fn run<C: Calls>(
        &self,
        inner: &Arc<Inner<C>>,
        mut progress: impl FnMut(HandOver) + Send,
    ) -> HandOver {
        let mut done = HandOver::default();
        // Each holder begins elsewhere, so that two of them seldom offer a new
        // owner the same at the same time.
        let first = usize::from(inner.me().0[0]) % Index::PARTS;
        for part in (first..Index::PARTS).chain(0..first) {
            for ids in inner.index.ids(part).chunks(OFFER) {
                self.step(inner, ids, &mut done).await;
                progress(done);
                tokio::task::yield_now().await;
            }
        }
        done
    }

    /// Brings the records `ids` to their owners.
    async fn step<C: Calls>(&self, inner: &Arc<Inner<C>>, ids: &[Key], done: &mut HandOver) {
        let mut moving: BTreeMap<Key, Moving> = BTreeMap::new();
        let mut offers: BTreeMap<NodeId, Vec<(Key, Version)>> = BTreeMap::new();
        for id in ids {
            let Some(entry) = self.plan(inner, id) else {
                continue;
            };
            for node in entry.waiting.iter().filter(|node| **node != inner.me()) {
                offers.entry(*node).or_default().push((*id, entry.version));
            }
            moving.insert(*id, entry);
        }
        let targets = offers.into_iter().map(|(node, offer)| async move {
            let (confirmed, sent) = self.offer(inner, node, &offer).await;
            (node, confirmed, sent)
        });
        let mut targets = futures_util::stream::iter(targets)
            .buffer_unordered(inner.config.repair_in_flight.max(1));
        while let Some((node, confirmed, sent)) = targets.next().await {
            done.sent += sent;
            for id in confirmed {
                if let Some(entry) = moving.get_mut(&id) {
                    entry.waiting.remove(&node);
                }
            }
        }
        for (id, entry) in moving {
            done.records += 1;
            if entry.waiting.is_empty() {
                done.confirmed += 1;
                if self.drops && !entry.owned {
                    inner.index.forget(&id, entry.version);
                }
            } else {
                let mut left = self.left.lock();
                for shard in entry.shards {
                    left[shard] += 1;
                }
            }
        }
    }

    /// Who is to be offered a record.
    fn plan<C: Calls>(&self, inner: &Inner<C>, id: &Key) -> Option<Moving> {
        let signed = inner.index.one(id, inner.calls.now_ms(), true)?;
        let record = Record::trusted(&signed).ok()?;
        // Nobody would take it; it ends where it lies.
        inner.allows(&record).ok()?;
        let keys = record.placement_keys();
        let owners = |placement: &Placement| -> BTreeSet<NodeId> {
            let all = keys.iter().flat_map(|key| placement.owners(key, R));
            all.collect()
        };
        let version = Version::of(&record);
        let shards = keys.iter().map(shard_of).collect();
        let mut waiting = owners(&self.placement);
        if waiting.is_empty() {
            // Nobody to give it to: it is not confirmed, and stays.
            return Some(Moving {
                version,
                waiting: BTreeSet::from([inner.me()]),
                owned: true,
                shards,
            });
        }
        let owned = waiting.remove(&inner.me());
        if owned && let Some(known) = &self.known {
            let had = owners(known);
            waiting.retain(|node| !had.contains(node) || self.returned.contains(node));
        }
        Some(Moving {
            version,
            waiting,
            owned,
            shards,
        })
    }

    /// Offers records to `node` and sends what it wants. Returns the ids that
    /// it has now, and how many were sent.
    async fn offer<C: Calls>(
        &self,
        inner: &Arc<Inner<C>>,
        node: NodeId,
        offer: &[(Key, Version)],
    ) -> (Vec<Key>, u64) {
        let entries = offer.iter().map(|(id, version)| wire::OfferEntry {
            id: id.to_bytes(),
            sequence: version.sequence,
        });
        let request = request::Kind::Offer(wire::Offer {
            entries: entries.collect(),
            returned: self.fresh && self.told.lock().insert(node),
        });
        let answer = inner
            .calls
            .call(node, request, inner.config.read_deadline)
            .await;
        let Ok(response::Kind::Offer(reply)) = answer else {
            return (Vec::new(), 0);
        };
        let wanted: BTreeSet<usize> = reply.wanted.iter().map(|i| *i as usize).collect();
        let entries = offer.iter().enumerate();
        let (lacks, has): (Vec<_>, Vec<_>) = entries.partition(|(i, _)| wanted.contains(i));
        let mut confirmed: Vec<Key> = has.into_iter().map(|(_, (id, _))| *id).collect();
        let mut lacks = lacks.into_iter().map(|(_, (id, _))| *id);
        let mut sent = 0;
        loop {
            let piece = piece(inner, &mut lacks);
            if piece.is_empty() {
                break;
            }
            let taken = self.send(inner, node, piece).await;
            if taken.is_empty() {
                // It is gone or takes nothing: it is asked again later.
                break;
            }
            sent += taken.len();
            confirmed.extend(taken);
        }
        add(&inner.counters.repaired, sent);
        (confirmed, sent as u64)
    }

    /// Sends a piece when its turn comes; the ids of what `node` has taken.
    async fn send<C: Calls>(
        &self,
        inner: &Arc<Inner<C>>,
        node: NodeId,
        piece: Vec<(Key, wire::Signed)>,
    ) -> Vec<Key> {
        let (ids, records): (Vec<Key>, Vec<wire::Signed>) = piece.into_iter().unzip();
        let bytes = records.iter().map(Message::encoded_len).sum();
        let turn = inner.pace.reserve(bytes, inner.config.repair_bytes_per_s);
        tokio::time::sleep_until(turn).await;
        let began = Instant::now();
        let outcomes = inner.send(node, &records, self.member).await;
        inner.pace.rest(began.elapsed());
        let outcomes = ids.into_iter().zip(outcomes);
        let taken = outcomes.filter(|(_, o)| o.refusal.is_none() || o.superseded_by > 0);
        taken.map(|(id, _)| id).collect()
    }
}

/// The next records of `ids`, as many as are sent at a time. What is gone
/// meanwhile is left out.
fn piece<C: Calls>(
    inner: &Inner<C>,
    ids: &mut impl Iterator<Item = Key>,
) -> Vec<(Key, wire::Signed)> {
    let mut bytes = 0;
    let mut out = Vec::new();
    while bytes < PIECE
        && let Some(id) = ids.next()
    {
        if let Some(signed) = inner.index.one(&id, inner.calls.now_ms(), true) {
            bytes += signed.encoded_len();
            out.push((id, signed));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_is_left_to_others_for_two_thirds_of_the_time() {
        let pace = Pace::default();
        let began = Instant::now();
        let (mut busy, rate) = (Duration::ZERO, 1_250_000);
        for _ in 0..100 {
            tokio::time::sleep_until(pace.reserve(PIECE, rate)).await;
            // Longer than the rate alone would space pieces.
            let took = Duration::from_millis(700);
            tokio::time::sleep(took).await;
            pace.rest(took);
            busy += took;
        }
        tokio::time::sleep_until(pace.reserve(0, rate)).await;
        assert!(busy * 3 <= began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_line_carries_no_more_than_the_rate() {
        let pace = Pace::default();
        let began = Instant::now();
        for _ in 0..50 {
            tokio::time::sleep_until(pace.reserve(PIECE, 1_250_000)).await;
            pace.rest(Duration::from_millis(1));
        }
        let rate = (49 * PIECE) as f64 / began.elapsed().as_secs_f64();
        assert!((1_200_000.0..=1_250_000.0).contains(&rate), "{rate}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_need_not_be_sent_waits_for_no_turn() {
        let pace = Pace::default();
        assert!(pace.reserve_now(1_000, 1_000));
        assert!(!pace.reserve_now(1_000, 1_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.reserve_now(1_000, 1_000));
    }
}
