//! Keeps one end of a flow bound: at the start, again every few seconds, and
//! at once when the relay says that it sees another address.
//!
//! It also finds the way there: UDP or, where that is not answered, a carrier.
//! What it sends by a carrier it sends by UDP as well, so that UDP has its turn as
//! soon as it works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::flows::{Flow, FlowState};
use super::frame;
use super::socket::Shared;

/// Waits for the answer to one bind after the other; after the last the relay
/// counts as dead.
const PATIENCE: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
    Duration::from_millis(500),
    Duration::from_millis(600),
];
/// Binds without an answer after which a carrier is looked for.
const UDP_FIRST: usize = 2;
/// Time between binds: a relay that died should be missed soon.
const EVERY: Duration = Duration::from_secs(1);
/// The same while nothing depends on the relay: NATs forget what was silent for
/// 30 s.
const IDLE_EVERY: Duration = Duration::from_secs(15);

/// A flow that is kept bound until this is dropped; then the relay is told that
/// it is needed no more.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    pub(super) flow: Arc<Flow>,
    needed: watch::Sender<bool>,
    keeper: AbortHandle,
}

impl Held {
    /// Binds the end and keeps it bound. What is sent from now on finds it so,
    /// unless the bind is lost.
    pub(super) async fn bind(shared: Arc<Shared>, flow: Arc<Flow>) -> Self {
        flow.go_by(shared.carriers.instead_of_udp(&flow.end.relay));
        let first = bind(&shared, &flow).await;
        let (needed, is_needed) = watch::channel(true);
        let keeper = keep(Arc::clone(&shared), Arc::clone(&flow), is_needed, first);
        Self {
            shared,
            flow,
            needed,
            keeper: tokio::spawn(keeper).abort_handle(),
        }
    }

    /// Whether traffic depends on the flow.
    pub(super) fn set_needed(&self, needed: bool) {
        self.needed.send_if_modified(|before| {
            let news = *before != needed;
            *before = needed;
            news
        });
    }

    pub(super) fn state(&self) -> watch::Receiver<FlowState> {
        self.flow.state.subscribe()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
        self.shared.flows.remove(&self.flow);
        let (shared, flow) = (Arc::clone(&self.shared), Arc::clone(&self.flow));
        // Without a runtime the relay finds out by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { close(&shared, &flow).await });
        }
    }
}

/// Goes by a carrier that works, once there is one: UDP was not answered.
fn turn(shared: &Shared, flow: &Flow) {
    let end = &flow.end;
    flow.go_by(shared.carriers.want(end.relay, end.sessions));
}

/// The least count whose answer says that the end is bound.
async fn bind(shared: &Shared, flow: &Flow) -> u64 {
    let end = &flow.end;
    let next = || {
        let count = flow.next_count();
        (count, frame::bind(end.flow, end.side, count, &end.key))
    };
    let carried = flow.carrier().map(|carrier| {
        let (count, frame) = next();
        shared.send_carried(&frame, &carrier);
        count
    });
    // The last one wins.
    let (count, frame) = next();
    shared.send_frame(&frame, end.addr).await;
    carried.unwrap_or(count)
}

async fn close(shared: &Shared, flow: &Flow) {
    let (end, count) = (&flow.end, flow.next_count());
    let frame = frame::close(end.flow, end.side, count, &end.key);
    match flow.carrier() {
        Some(carrier) => shared.send_carried(&frame, &carrier),
        None => shared.send_frame(&frame, end.addr).await,
    }
}

/// Waits for the end of the carrier in use.
async fn broken(flow: &Flow) {
    match flow.carrier() {
        Some(carrier) => carrier.over().await,
        None => std::future::pending().await,
    }
}

/// Runs until it is aborted. The bind `first` was sent already.
async fn keep(
    shared: Arc<Shared>,
    flow: Arc<Flow>,
    mut needed: watch::Receiver<bool>,
    mut first: u64,
) {
    let mut answered = flow.answered.subscribe();
    loop {
        let mut bound = false;
        for (tried, patience) in PATIENCE.into_iter().enumerate() {
            if tried >= UDP_FIRST {
                turn(&shared, &flow);
            }
            if first == 0 {
                first = bind(&shared, &flow).await;
            }
            let count = std::mem::take(&mut first);
            let answer = answered.wait_for(|answered| *answered >= count);
            if timeout(patience, answer).await.is_ok() {
                bound = true;
                break;
            }
        }
        if bound && flow.carrier().is_none() {
            shared.carriers.learn(true);
        }
        if !bound {
            flow.state.send_if_modified(|state| {
                let news = !state.dead;
                state.dead = true;
                news
            });
        }
        let every = match *needed.borrow_and_update() {
            true => EVERY,
            false => IDLE_EVERY,
        };
        tokio::select! {
            () = sleep(every) => {}
            () = flow.lost.notified() => {}
            () = broken(&flow) => turn(&shared, &flow),
            changed = needed.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
