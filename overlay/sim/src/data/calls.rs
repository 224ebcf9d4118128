//! One peer's way to the others: what a session is to the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::placement::Placement;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::{request, response};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Known, Work};
use crate::world::{NETWORK, PeerId, START_MS};

type Outcome = Result<response::Kind, CallError>;

/// A request that waits for its answer.
struct Waiting {
    from: PeerId,
    to: NodeId,
    answer: oneshot::Sender<Outcome>,
    trail: Option<Trail>,
}

/// All of these, by number, and by who asked whom.
#[derive(Default)]
struct AllWaiting {
    last: u64,
    calls: BTreeMap<u64, Waiting>,
    pairs: BTreeSet<(PeerId, NodeId, u64)>,
}

impl AllWaiting {
    /// Takes in a request; its number.
    fn insert(&mut self, asked: Waiting) -> u64 {
        self.last += 1;
        self.pairs.insert((asked.from, asked.to, self.last));
        self.calls.insert(self.last, asked);
        self.last
    }

    fn remove(&mut self, call: u64) -> Option<Waiting> {
        let asked = self.calls.remove(&call)?;
        self.pairs.remove(&(asked.from, asked.to, call));
        Some(asked)
    }

    /// What `from` waits for an answer of `to` for.
    fn between(&self, from: PeerId, to: &NodeId) -> impl Iterator<Item = u64> {
        let calls = self.pairs.range((from, *to, 0)..=(from, *to, u64::MAX));
        calls.map(|(.., call)| *call)
    }
}

/// What all peers share: requests under way, and what the world has to do.
pub(super) struct Shared {
    pub(super) begun: Instant,
    pub(super) wanted: Notify,
    work: Mutex<Vec<Work>>,
    waiting: Mutex<AllWaiting>,
    /// Requests that super-nodes are at work on.
    serving: Mutex<BTreeMap<u64, AbortHandle>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(begun: Instant) -> Self {
        Self {
            begun,
            wanted: Notify::new(),
            work: Mutex::default(),
            waiting: Mutex::default(),
            serving: Mutex::default(),
        }
    }

    pub(super) fn serves(&self, call: u64, task: AbortHandle) {
        lock(&self.serving).insert(call, task);
    }

    pub(super) fn served(&self, call: u64) {
        lock(&self.serving).remove(&call);
    }

    pub(super) fn cancelled(&self, call: u64) {
        if let Some(task) = lock(&self.serving).remove(&call) {
            task.abort();
        }
    }

    pub(super) fn want(&self, work: Work) {
        lock(&self.work).push(work);
        self.wanted.notify_one();
    }

    pub(super) fn take_work(&self) -> Vec<Work> {
        std::mem::take(&mut lock(&self.work))
    }

    pub(super) fn answered(&self, call: u64, response: response::Kind) {
        let waiting = lock(&self.waiting).remove(call);
        // None: whoever asked waits no longer.
        if let Some(waiting) = waiting {
            let outcome = match response {
                response::Kind::Refusal(refusal) => Err(CallError::Refused {
                    peer: waiting.to,
                    refusal,
                }),
                response => Ok(response),
            };
            let _ = waiting.answer.send(outcome);
        }
    }

    /// The trail of a request that somebody waits for.
    pub(super) fn trail(&self, call: u64) -> Option<Trail> {
        lock(&self.waiting).calls.get(&call)?.trail.clone()
    }

    pub(super) fn waits(&self, from: PeerId, to: &NodeId) -> bool {
        lock(&self.waiting).between(from, to).next().is_some()
    }

    /// A request gets no answer: nothing can be sent to whom it is for.
    pub(super) fn unreachable(&self, call: u64) {
        if let Some(Waiting { to, answer, .. }) = lock(&self.waiting).remove(call) {
            let reason = "the session ended".to_owned();
            let _ = answer.send(Err(CallError::Unreachable { peer: to, reason }));
        }
    }

    /// All requests of `from` to `to` get none.
    pub(super) fn lost(&self, from: PeerId, to: &NodeId) {
        let gone: Vec<u64> = lock(&self.waiting).between(from, to).collect();
        gone.into_iter().for_each(|call| self.unreachable(call));
    }
}

tokio::task_local! {
    static TRAIL: Trail;
}

/// The requests that were waited for in one read, one because of the other:
/// passed on, sent again, or sent to another one because the first was slow. Those
/// sent at the same moment count as one; one whose answer was not waited for in the
/// end counts for nothing, with all that was sent because of it.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    /// How many one after the other, up to the last answer.
    deepest: Arc<AtomicU32>,
    /// How many came before, and when the last of them was sent.
    last: Arc<Mutex<(u32, Option<Instant>)>>,
}

impl Trail {
    fn after(hops: u32) -> Self {
        Self {
            deepest: Arc::new(AtomicU32::new(hops)),
            last: Arc::new(Mutex::new((hops, None))),
        }
    }

    /// One more is sent now: the trail from there on.
    fn step(&self) -> Self {
        let now = Some(Instant::now());
        let mut last = lock(&self.last);
        if last.1 != now {
            *last = (last.0 + 1, now);
        }
        Self::after(last.0)
    }

    /// A request with the trail `step` is over.
    fn waited_for(&self, step: &Self) {
        self.deepest.fetch_max(step.deepest.load(Relaxed), Relaxed);
    }
}

/// Runs what asks others for one read, and counts.
pub(crate) async fn counted<T>(asking: impl Future<Output = T>) -> (T, u32) {
    let trail = Trail::after(0);
    let outcome = TRAIL.scope(trail.clone(), asking).await;
    (outcome, trail.deepest.load(Relaxed))
}

/// Runs what asks others because of a request with this trail.
pub(super) async fn followed<T>(trail: Option<Trail>, asking: impl Future<Output = T>) -> T {
    match trail {
        Some(trail) => TRAIL.scope(trail, asking).await,
        None => asking.await,
    }
}

/// What one peer knows.
pub(super) struct View {
    id: PeerId,
    node: NodeId,
    placement: Mutex<Placement>,
    /// Its wall clock minus the true time.
    clock_ms: AtomicI64,
}

impl View {
    pub(super) fn new(id: PeerId, (node, placement, clock_ms): Known) -> Self {
        Self {
            id,
            node,
            placement: Mutex::new(placement),
            clock_ms: AtomicI64::new(clock_ms),
        }
    }

    pub(super) fn set_clock(&self, clock_ms: i64) {
        self.clock_ms.store(clock_ms, Relaxed);
    }

    pub(super) fn place(&self, placement: Placement) {
        *lock(&self.placement) = placement;
    }
}

/// See [`Calls`].
#[derive(Clone)]
pub(crate) struct SimCalls {
    view: Arc<View>,
    shared: Arc<Shared>,
}

impl SimCalls {
    pub(super) fn new(view: Arc<View>, shared: Arc<Shared>) -> Self {
        Self { view, shared }
    }
}

/// Forgets a request whose asker waits no longer, and tells who was asked.
struct Forget<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let waiting = lock(&self.shared.waiting).remove(self.call);
        if let Some(Waiting { from, to, .. }) = waiting {
            let call = self.call;
            self.shared.want(Work::Cancel { call, from, to });
        }
    }
}

impl Calls for SimCalls {
    fn node_id(&self) -> NodeId {
        self.view.node
    }

    fn network(&self) -> &str {
        NETWORK
    }

    fn placement(&self) -> Placement {
        lock(&self.view.placement).clone()
    }

    fn now_ms(&self) -> u64 {
        let passed = self.shared.begun.elapsed().as_millis();
        let true_ms = START_MS.saturating_add(u64::try_from(passed).unwrap_or(0));
        true_ms.saturating_add_signed(self.view.clock_ms.load(Relaxed))
    }

    async fn call(&self, node: NodeId, request: request::Kind, deadline: Duration) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let parent = TRAIL.try_with(Trail::clone).ok();
        // Asking oneself takes nobody's line.
        let step = |trail: &Trail| match node == self.view.node {
            true => trail.clone(),
            false => trail.step(),
        };
        let trail = parent.as_ref().map(step);
        let call = lock(&self.shared.waiting).insert(Waiting {
            from: self.view.id,
            to: node,
            answer,
            trail: trail.clone(),
        });
        let _forget = Forget {
            shared: &self.shared,
            call,
        };
        self.shared.want(Work::Ask {
            call,
            from: self.view.id,
            to: node,
            request,
        });
        let outcome = tokio::time::timeout(deadline, answered).await;
        if let (Some(parent), Some(trail)) = (&parent, &trail) {
            parent.waited_for(trail);
        }
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(CallError::Deadline(node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that is answered when `because_of` it is over.
    async fn ask(because_of: impl Future) {
        let parent = TRAIL.with(Trail::clone);
        let step = parent.step();
        TRAIL.scope(step.clone(), because_of).await;
        parent.waited_for(&step);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_count_as_hops_when_one_follows_from_another() {
        let pause = |ms| tokio::time::sleep(Duration::from_millis(ms));
        // Whoever got the second passes it on, and later once more; the first
        // passes it on at the same time.
        let second = async {
            ask(async {}).await;
            pause(5).await;
            ask(async {}).await;
        };
        let both = async { tokio::join!(ask(ask(async {})), ask(second)) };
        assert_eq!(counted(both).await.1, 3);
        // Sent again because nothing came.
        let again = async {
            ask(async {}).await;
            pause(1000).await;
            ask(async {}).await;
        };
        assert_eq!(counted(again).await.1, 2);
        assert_eq!(counted(async {}).await.1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_nobody_waited_for_are_no_hops() {
        let pause = |ms| tokio::time::sleep(Duration::from_millis(ms));
        let slow = async {
            pause(5).await;
            ask(pause(10)).await;
        };
        // A hedge, passed on and answered there, but the first was faster.
        let hedge = async {
            pause(1).await;
            ask(async {
                ask(async {}).await;
                pause(100).await;
            })
            .await;
        };
        let (_, hops) = counted(async {
            tokio::select! {
                () = ask(slow) => (),
                () = hedge => unreachable!("it is slower"),
            }
        })
        .await;
        assert_eq!(hops, 2);
    }
}
