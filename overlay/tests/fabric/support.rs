//! A peer for the fabric's tests: answers pings, and reports what happens.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::{
    Answer, CloseReason, Fabric, FabricConfig, MeasurePlan, Service, Session, Target,
};
use canopy_proto::wire;
use tokio::sync::{Mutex, mpsc};
use wire::{request, response};

/// Long enough for anything that works.
pub const SOON: Duration = Duration::from_secs(20);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let bounded = tokio::time::timeout(Duration::from_secs(30), future);
    bounded.await.expect("it should have happened by now")
}

pub fn ping(text: &str) -> request::Kind {
    request::Kind::Ping(wire::Ping {
        payload: text.as_bytes().to_vec().into(),
    })
}

pub fn pong(text: &str) -> response::Kind {
    response::Kind::Pong(wire::Pong {
        payload: text.as_bytes().to_vec().into(),
    })
}

pub struct Peer {
    pub fabric: Fabric,
    ups: Arc<AtomicUsize>,
    up: Mutex<mpsc::UnboundedReceiver<Session>>,
    down: Mutex<mpsc::UnboundedReceiver<(NodeId, CloseReason)>>,
    messages: Mutex<mpsc::UnboundedReceiver<wire::CoreMessage>>,
    cancelled: Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Peer {
    pub fn bind(secret: u8) -> Self {
        Self::bind_with(secret, |_| {})
    }

    pub fn bind_with(secret: u8, change: impl FnOnce(&mut FabricConfig)) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut config = FabricConfig::new(Identity::from_secret([secret; 32]), listen, "test");
        change(&mut config);
        let (up_in, up) = mpsc::unbounded_channel();
        let (down_in, down) = mpsc::unbounded_channel();
        let (messages_in, messages) = mpsc::unbounded_channel();
        let (cancelled_in, cancelled) = mpsc::unbounded_channel();
        let ups = Arc::new(AtomicUsize::new(0));
        let service = Echo {
            ups: Arc::clone(&ups),
            up: up_in,
            down: down_in,
            messages: messages_in,
            cancelled: cancelled_in,
        };
        Self {
            fabric: Fabric::bind(config, Arc::new(service)).unwrap(),
            ups,
            up: Mutex::new(up),
            down: Mutex::new(down),
            messages: Mutex::new(messages),
            cancelled: Mutex::new(cancelled),
        }
    }

    pub fn node_id(&self) -> NodeId {
        self.fabric.node_id()
    }

    pub fn target(&self) -> Target {
        Target::peer(self.node_id(), self.fabric.local_addr().unwrap())
    }

    pub async fn connect(&self, other: &Peer) -> Session {
        within(self.fabric.connect(&other.target(), SOON))
            .await
            .unwrap()
    }

    pub fn ups(&self) -> usize {
        self.ups.load(Ordering::SeqCst)
    }

    pub async fn up(&self) -> Session {
        self.up.lock().await.recv().await.unwrap()
    }

    pub async fn down(&self) -> (NodeId, CloseReason) {
        self.down.lock().await.recv().await.unwrap()
    }

    pub async fn message(&self) -> wire::CoreMessage {
        self.messages.lock().await.recv().await.unwrap()
    }

    pub async fn cancelled(&self) {
        self.cancelled.lock().await.recv().await.unwrap();
    }
}

/// Answers pings: "later" after a moment, "never" never, "refuse" with a
/// refusal, "panic" by a panic, everything else at once.
struct Echo {
    ups: Arc<AtomicUsize>,
    up: mpsc::UnboundedSender<Session>,
    down: mpsc::UnboundedSender<(NodeId, CloseReason)>,
    messages: mpsc::UnboundedSender<wire::CoreMessage>,
    cancelled: mpsc::UnboundedSender<()>,
}

/// Tells when the work for a request is dropped.
struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Service for Echo {
    fn request(&self, _from: &Session, request: request::Kind) -> Answer {
        let request::Kind::Ping(wire::Ping { payload }) = request else {
            return Answer::refuse(wire::refusal::Code::NotServing, "pings only");
        };
        let cancelled = self.cancelled.clone();
        match payload.as_ref() {
            b"later" => Answer::later(async move {
                tokio::task::yield_now().await;
                response::Kind::Pong(wire::Pong { payload })
            }),
            b"never" => Answer::later(async move {
                let _told = OnDrop(cancelled);
                std::future::pending().await
            }),
            b"refuse" => Answer::refuse(wire::refusal::Code::Quota, "no more"),
            b"panic" => Answer::later(async move {
                tokio::task::yield_now().await;
                panic!("a request that fails, on purpose")
            }),
            _ => Answer::Now(response::Kind::Pong(wire::Pong { payload })),
        }
    }

    fn notify(&self, _from: &Session, message: wire::CoreMessage) {
        let _ = self.messages.send(message);
    }

    fn session_up(&self, session: &Session) {
        self.ups.fetch_add(1, Ordering::SeqCst);
        let _ = self.up.send(session.clone());
    }

    fn session_down(&self, peer: NodeId, reason: CloseReason) {
        let _ = self.down.send((peer, reason));
    }

    fn admit_measure(&self, _from: NodeId, plan: &MeasurePlan) -> bool {
        plan.term == 1
    }
}

/// Serves nothing.
pub struct Deaf;

impl Service for Deaf {
    fn request(&self, _from: &Session, _request: request::Kind) -> Answer {
        Answer::refuse(wire::refusal::Code::NotServing, "this peer serves nothing")
    }

    fn notify(&self, _from: &Session, _message: wire::CoreMessage) {}
}

/// Polls once; whether the future has started and not ended.
pub fn started(future: std::pin::Pin<&mut impl Future>) -> bool {
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    future.poll(&mut nobody).is_pending()
}
