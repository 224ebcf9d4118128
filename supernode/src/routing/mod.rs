//! What a super-node carries from leaf to leaf: messages to one peer, and posts
//! to all who subscribed to a topic. Every peer has a router, because every peer
//! receives; it passes on only while it serves.
//!
//! Nothing that comes from another peer is passed on before its signature was
//! checked, and nothing waits here without a bound.
//!
//! | file | idea |
//! |---|---|
//! | `deliver` | messages to one peer |
//! | `fair` | who may have how much carried |
//! | `stats` | what was carried |
//! | [`topics`] | posts to all who subscribed |

mod deliver;
mod fair;
mod stats;
pub mod topics;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_overlay::peer::Handler;
use canopy_proto::wire::posts::Step;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};

use fair::{Fair, Limits};
use stats::Counters;
use topics::{Owned, Registry};

pub use deliver::{Checked, MAX_ENVELOPE_TTL_S, TAKE, Wrong};
pub use stats::{Carried, RoutingStats, TopicsHeld};

/// Messages of one sender and to one addressee: a person writes a few a minute,
/// a program some hundred a second.
const MESSAGES: Limits = Limits {
    per_s: 200.0,
    bytes_per_s: 2.0 * 1024.0 * 1024.0,
    of_sender: 64,
    for_receiver: 64,
    in_all: 8192,
    burst_s: 3.0,
};

/// Posts of one publisher, and to one topic. A request holds many posts, and the
/// next one waits for its answer.
const POSTS: Limits = Limits {
    per_s: 100.0,
    bytes_per_s: 4.0 * 1024.0 * 1024.0,
    of_sender: 64,
    for_receiver: 256,
    in_all: 1024,
    burst_s: 3.0,
};

/// Carries messages and posts. Clones share it.
#[derive(Debug)]
pub struct Router<C: Calls> {
    inner: Arc<Inner<C>>,
}

impl<C: Calls> Clone for Router<C> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

struct Inner<C: Calls> {
    calls: C,
    /// Takes what is for this peer itself.
    recipient: ArcSwapOption<Box<dyn Handler>>,
    messages: Arc<Fair>,
    posts: Arc<Fair>,
    /// Topics that this node looks after.
    owned: Owned,
    /// Who subscribed here.
    registry: Registry,
    counters: Arc<Counters>,
}

impl<C: Calls> std::fmt::Debug for Inner<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

impl<C: Calls> Router<C> {
    /// A router that reaches others through `calls`, and counts by `carried`.
    /// Call within a tokio runtime.
    pub fn start(calls: C, carried: &Carried) -> Self {
        let inner = Arc::new(Inner {
            calls,
            recipient: ArcSwapOption::empty(),
            messages: Fair::new(MESSAGES),
            posts: Fair::new(POSTS),
            owned: Owned::default(),
            registry: Registry::default(),
            counters: Arc::clone(&carried.0),
        });
        tokio::spawn(topics::keep(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// Who takes what is for this peer itself: messages to it, and posts of
    /// topics that it subscribed to.
    pub fn set_recipient(&self, recipient: Box<dyn Handler>) {
        self.inner.recipient.store(Some(Arc::new(recipient)));
    }

    /// What answers other peers for as long as this router, or a clone, lives.
    pub fn front(&self) -> Box<dyn Handler> {
        Box::new(Front(Arc::downgrade(&self.inner)))
    }

    /// Whether a request is one that routers answer.
    pub fn answers(request: &request::Kind) -> bool {
        matches!(
            request,
            request::Kind::Deliver(_) | request::Kind::Posts(_) | request::Kind::Subscribe(_)
        )
    }

    /// Answers a request of this peer to itself.
    ///
    /// # Errors
    /// It is refused.
    pub async fn answer(&self, request: request::Kind) -> Result<response::Kind, CallError> {
        let me = self.inner.me();
        let answer = match Inner::take(&self.inner, me, request) {
            Answer::Now(answer) => answer,
            Answer::Later(answer) => answer.await,
        };
        match answer {
            response::Kind::Refusal(refusal) => Err(CallError::Refused { peer: me, refusal }),
            answer => Ok(answer),
        }
    }

    /// What was carried since the start.
    pub fn stats(&self) -> RoutingStats {
        self.inner.counters.read()
    }

    /// What is held in memory for topics now.
    pub fn held(&self) -> TopicsHeld {
        let (topics, history_bytes) = self.inner.owned.held();
        let (_, subscriptions) = self.inner.registry.held();
        TopicsHeld {
            topics,
            history_bytes,
            subscriptions,
        }
    }
}

/// Answers the other peers; does not keep the router alive.
struct Front<C: Calls>(Weak<Inner<C>>);

impl<C: Calls> Handler for Front<C> {
    fn handle(&self, from: NodeId, request: request::Kind) -> Answer {
        match self.0.upgrade() {
            Some(inner) => Inner::take(&inner, from, request),
            None => Answer::refuse(Code::Unavailable, "this peer is closing"),
        }
    }
}

impl<C: Calls> Inner<C> {
    fn take(inner: &Arc<Self>, from: NodeId, request: request::Kind) -> Answer {
        match request {
            request::Kind::Deliver(ask) => inner.deliver(from, ask),
            request::Kind::Subscribe(ask) => inner.subscribe(from, ask),
            request::Kind::Posts(posts) => match posts.step() {
                Step::Publish => inner.publish(from, posts),
                Step::Copy => inner.copy(from, posts),
                Step::Fan => inner.fanned(from, posts),
                Step::Push => match inner.recipient() {
                    Some(recipient) => recipient.handle(from, request::Kind::Posts(posts)),
                    None => Answer::refuse(Code::NotServing, "nobody subscribed here"),
                },
                Step::Unspecified => Answer::refuse(Code::Malformed, "an unknown step of posts"),
            },
            _ => Answer::refuse(Code::Malformed, "this request is not the router's"),
        }
    }

    fn me(&self) -> NodeId {
        self.calls.node_id()
    }

    /// Whether `node` is a super-node, as far as this one knows.
    fn serves(&self, node: &NodeId) -> bool {
        self.calls.placement().get(node).is_some()
    }

    /// Refuses what one of `peers`, which the network's operator banned, would
    /// send or get.
    fn banned(&self, peers: &[NodeId]) -> Option<Answer> {
        let bans = self.calls.bans();
        let banned = peers.iter().find(|peer| bans.peer(peer))?;
        let why = format!(
            "the operator of this network banned {banned}; nothing goes there or comes from there"
        );
        Some(Answer::refuse(Code::Banned, why))
    }

    fn recipient(&self) -> Option<Arc<Box<dyn Handler>>> {
        self.recipient.load_full()
    }
}

fn refusal(code: Code, message: impl Into<String>) -> response::Kind {
    response::Kind::Refusal(wire::Refusal {
        code: code.into(),
        message: message.into(),
    })
}
