//! One peer's way to the others: what a session is to the real one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::placement::Placement;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::{request, response};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Known, Work};
use crate::world::{NETWORK, PeerId, START_MS};

type Outcome = Result<response::Kind, CallError>;

tokio::task_local! {
    /// Requests that the operation under way has sent so far.
    static ASKED: Cell<u32>;
}

/// Runs an operation, and counts the requests that it sends.
pub(crate) async fn counted<T>(operation: impl Future<Output = T>) -> (T, u32) {
    let operation = async {
        let outcome = operation.await;
        (outcome, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::new(0), operation).await
}

/// A request that waits for its answer.
struct Waiting {
    from: PeerId,
    to: NodeId,
    answer: oneshot::Sender<Outcome>,
}

/// What all peers share: requests under way, and what the world has to do.
pub(super) struct Shared {
    pub(super) begun: Instant,
    pub(super) wanted: Notify,
    work: Mutex<Vec<Work>>,
    waiting: Mutex<(u64, BTreeMap<u64, Waiting>)>,
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
        let waiting = lock(&self.waiting).1.remove(&call);
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

    pub(super) fn unreachable(&self, which: impl Fn(u64, PeerId, &NodeId) -> bool) {
        let mut waiting = lock(&self.waiting);
        let gone = waiting.1.iter();
        let gone = gone.filter(|(call, w)| which(**call, w.from, &w.to));
        let gone: Vec<u64> = gone.map(|(call, _)| *call).collect();
        for Waiting { to, answer, .. } in gone.iter().filter_map(|call| waiting.1.remove(call)) {
            let reason = "the session ended".to_owned();
            let _ = answer.send(Err(CallError::Unreachable { peer: to, reason }));
        }
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

/// Forgets a request whose asker waits no longer.
struct Forget<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.waiting).1.remove(&self.call);
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
        let call = {
            let mut waiting = lock(&self.shared.waiting);
            waiting.0 += 1;
            let (from, to) = (self.view.id, node);
            let call = waiting.0;
            waiting.1.insert(call, Waiting { from, to, answer });
            call
        };
        let _forget = Forget {
            shared: &self.shared,
            call,
        };
        // What no user asked for, as a super-node's repair, is not counted.
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
        self.shared.want(Work::Ask {
            call,
            from: self.view.id,
            to: node,
            request,
        });
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(CallError::Deadline(node)),
        }
    }
}
