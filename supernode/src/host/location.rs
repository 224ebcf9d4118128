//! Keeps the location record of this peer in the index right: which super-nodes
//! others reach it through.
//!
//! It is published when the homes change and again before it ends, and taken
//! back when the peer says goodbye. Writes are spread over a while, because all
//! leaves of a super-node that died change their homes at once.

use std::ops::Range;
use std::time::Duration;

use canopy_core::clock::Clocks;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{NodeId, keys};
use canopy_core::node::Role;
use canopy_core::placement::R;
use canopy_core::record::{MAX_TTL_S, Record};
use canopy_core::time::Now;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::{request, response};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Lifetime of a location, seconds. Peers come and go within hours (median
/// session 2.9 h): what a vanished peer leaves behind must not outlive it long.
const TTL_S: u32 = 3600;
/// Part of its lifetime after which it is published again, at random, so that
/// peers do not act in step.
const REFRESH: Range<f64> = 0.4..0.5;
/// How long one super-node may take to store it.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Longest pause after a failure: several tries fit what is left of the
/// lifetime when it is refreshed.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// How long taking it back may hold up a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// A correction of the clock that makes a refused record worth another try,
/// milliseconds.
const CORRECTION_MS: u64 = 1_000;
/// A sequence in place is believed up to this far ahead of the clock.
const MAX_AHEAD_MS: u64 = MAX_TTL_S as u64 * 1000;

/// What decides where a peer is found, and every change of it.
pub(super) struct Whereabouts {
    pub(super) role: watch::Receiver<Role>,
    pub(super) homes: watch::Receiver<Vec<NodeId>>,
}

impl Whereabouts {
    /// The homes of `me`: itself while it serves; `None` while there are none,
    /// and what was published stands.
    fn homes(&mut self, me: NodeId) -> Option<Vec<NodeId>> {
        let serves = *self.role.borrow_and_update() == Role::SuperNode;
        let homes = self.homes.borrow_and_update().clone();
        match serves {
            true => Some(vec![me]),
            false => Some(homes).filter(|homes| !homes.is_empty()),
        }
    }

    /// An error: the peer is gone.
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            role = self.role.changed() => role,
            homes = self.homes.changed() => homes,
        }
    }
}

/// The background task, until it is closed or dropped.
#[derive(Debug)]
pub(super) struct Locator {
    close: Mutex<Option<oneshot::Sender<Goodbye>>>,
}

/// Told when the record is taken back, or will not be.
type Goodbye = oneshot::Sender<()>;

impl Locator {
    /// Publishes where the peer is found, each time within `spread` of a change.
    pub(super) fn start<C: Calls>(
        calls: C,
        identity: Identity,
        whereabouts: Whereabouts,
        spread: Duration,
    ) -> Self {
        let (close, closed) = oneshot::channel();
        let keeper = Keeper {
            calls,
            identity,
            begun: Instant::now(),
            clocks: Clocks::default(),
            sequence: 0,
            published: Vec::new(),
            stored_ms: None,
        };
        tokio::spawn(keeper.run(whereabouts, spread, closed));
        Self {
            close: Mutex::new(Some(close)),
        }
    }

    /// Takes the record back, where there is one: nobody needs to look for a
    /// peer that said goodbye. Takes two seconds at most.
    pub(super) async fn close(&self) {
        let close = self.close.lock().take();
        let (goodbye, done) = oneshot::channel();
        if close.is_some_and(|close| close.send(goodbye).is_ok()) {
            // An error says that the task is gone, which is the same.
            let _ = done.await;
        }
    }

    /// Ends the task and leaves the record to its lifetime.
    pub(super) fn abort(&self) {
        self.close.lock().take();
    }
}

struct Keeper<C> {
    calls: C,
    identity: Identity,
    /// When it began: the epoch of its monotonic clock.
    begun: Instant,
    /// What super-nodes' clocks show.
    clocks: Clocks,
    /// The sequence given last.
    sequence: u64,
    /// The homes that were published last, or tried to be.
    published: Vec<NodeId>,
    /// When the record was stored last by the own clock, milliseconds since 1970.
    stored_ms: Option<u64>,
}

impl<C: Calls> Keeper<C> {
    async fn run(
        mut self,
        mut whereabouts: Whereabouts,
        spread: Duration,
        mut closed: oneshot::Receiver<Goodbye>,
    ) {
        let mut pause = spread;
        let mut due = self.due(&mut whereabouts, spread);
        let goodbye = loop {
            tokio::select! {
                goodbye = &mut closed => break goodbye,
                changed = whereabouts.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(soon) = self.due(&mut whereabouts, spread) {
                        pause = spread;
                        due = Some(due.map_or(soon, |due: Instant| due.min(soon)));
                    }
                    continue;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            if let Some(homes) = whereabouts.homes(self.calls.node_id()) {
                self.published = homes;
            }
            let stored = tokio::select! {
                goodbye = &mut closed => break goodbye,
                stored = self.write(false) => stored,
            };
            let wait = match stored {
                Ok(()) => {
                    tracing::debug!(homes = ?self.published, "location.published");
                    pause = spread;
                    part_of(Duration::from_secs(TTL_S.into()), REFRESH)
                }
                Err(reason) => {
                    tracing::debug!(reason, "location: not published");
                    pause = (pause * 2).min(BACK_OFF_MAX);
                    part_of(pause, 0.5..1.0)
                }
            };
            due = Some(Instant::now() + wait);
        };
        let Ok(goodbye) = goodbye else {
            return;
        };
        if self.stored_ms.is_some()
            && let Ok(Err(reason)) = timeout(GOODBYE, self.write(true)).await
        {
            tracing::debug!(reason, "location: not taken back; it ends by itself");
        }
        // The closer may have stopped waiting.
        let _ = goodbye.send(());
    }

    /// When to publish because of a change, if what is published is not right.
    fn due(&self, whereabouts: &mut Whereabouts, spread: Duration) -> Option<Instant> {
        let homes = whereabouts.homes(self.calls.node_id())?;
        // The timer of the next refresh stands still while a machine sleeps.
        let half_ms = u64::from(TTL_S) * 500;
        let old = |at: u64| self.calls.now_ms().saturating_sub(at) > half_ms;
        let right = homes == self.published && !self.stored_ms.is_some_and(old);
        (!right).then(|| Instant::now() + part_of(spread, 0.0..1.0))
    }

    /// Stores the record, or its removal, through one of the homes, to which
    /// there are sessions, else through an owner of its key.
    async fn write(&mut self, removal: bool) -> Result<(), String> {
        let mut through = self.published.clone();
        let key = keys::location(&self.calls.node_id());
        let owners = self.calls.placement().owners(&key, R);
        through.extend(owners.iter().filter(|node| !self.published.contains(node)));
        let mut last = "no super-node is known".to_owned();
        for node in through {
            // A later sequence in place is one of ours, by a clock that was
            // ahead: it is overtaken once. So is a clock that turns out to be
            // off.
            for _ in 0..2 {
                let offset_ms = self.clock_offset_ms();
                let record = self.sign(removal, offset_ms)?;
                match self.store(node, &record).await {
                    Ok(()) => {
                        self.stored_ms = Some(self.calls.now_ms());
                        return Ok(());
                    }
                    Err(failure) => {
                        last = format!("{}: {}", node.short(), failure.reason);
                        match failure.superseded_by {
                            Some(by) => self.sequence = self.sequence.max(by),
                            None if self.clock_offset_ms().abs_diff(offset_ms) >= CORRECTION_MS => {
                                tracing::warn!("location: this machine's clock is off");
                            }
                            None => break,
                        }
                    }
                }
            }
        }
        Err(last)
    }

    /// How far the clocks of those who hold records are ahead of ours,
    /// milliseconds; zero unless two of them say that it is much.
    fn clock_offset_ms(&mut self) -> i64 {
        let enough = self.calls.placement().len().min(2);
        let now = Now::new(self.begun.elapsed(), self.calls.now_ms());
        self.clocks.offset_ms(now, enough)
    }

    fn sign(&mut self, removal: bool, offset_ms: i64) -> Result<Record, String> {
        let now_ms = self.calls.now_ms();
        self.sequence = now_ms.max(self.sequence.saturating_add(1));
        let homes = self.published.iter().map(|home| home.to_bytes());
        let location = Payload::Location(wire::Location {
            homes: homes.collect(),
        });
        let make = match removal {
            true => Record::sign_removal,
            false => Record::sign,
        };
        let (network, sequence) = (self.calls.network(), self.sequence);
        let issued_ms = now_ms.saturating_add_signed(offset_ms);
        make(
            &self.identity,
            network,
            sequence,
            issued_ms,
            TTL_S,
            location,
        )
        .map_err(|error| error.to_string())
    }

    async fn store(&mut self, node: NodeId, record: &Record) -> Result<(), Failure> {
        let put = wire::Put {
            records: vec![record.signed.clone()],
            local: false,
        };
        let call = self.calls.call(node, request::Kind::Put(put), ATTEMPT);
        let reply = match call.await {
            Ok(response::Kind::Put(reply)) => reply,
            Ok(_) => return Err(Failure::because("answered with something else")),
            Err(error) => return Err(Failure::because(error.to_string())),
        };
        let now = Now::new(self.begun.elapsed(), self.calls.now_ms());
        self.clocks.read(now, node, reply.clock_ms);
        let [outcome] = &reply.outcomes[..] else {
            return Err(Failure::because("did not say what became of it"));
        };
        let latest = self.calls.now_ms().saturating_add(MAX_AHEAD_MS);
        match (&outcome.refusal, outcome.superseded_by) {
            (None, 0) => Ok(()),
            (Some(refusal), 0) => Err(Failure::because(refusal.message.clone())),
            (_, by) => Err(Failure {
                reason: format!("says that sequence {by} is in place"),
                superseded_by: Some(by).filter(|by| *by <= latest),
            }),
        }
    }
}

/// Why one super-node did not store it.
struct Failure {
    reason: String,
    /// A later sequence is in place, and is one that may be.
    superseded_by: Option<u64>,
}

impl Failure {
    fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            superseded_by: None,
        }
    }
}

fn part_of(whole: Duration, part: Range<f64>) -> Duration {
    whole.mul_f64(rand::random_range(part))
}

#[cfg(test)]
mod tests;
