//! What super-nodes bring to this leaf and take from it.
//!
//! | file | idea |
//! |---|---|
//! | `inbox` | messages to this peer, on their way to the app |
//! | `collect` | messages that were kept for this peer |
//! | `seen` | which of them have been taken |
//! | `subscription` | posts of a topic, on their way to the app |
//! | `topics` | topics kept subscribed, whatever becomes of homes |
//! | `publisher` | posts of this leaf, in order |

mod collect;
mod inbox;
mod publisher;
mod seen;
mod subscription;
mod topics;

use std::sync::{Arc, OnceLock, Weak};

use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::Answer;
use canopy_overlay::peer::Handler;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::request;
use tokio::task::AbortHandle;

use crate::client::Client;
use crate::node::Node;
use inbox::Inbox;
use publisher::Publisher;
use topics::Topics;

pub use inbox::{Message, Messages};
pub use publisher::{MAX_POST, PostError, Posted};
pub use subscription::{Ended, Post, Subscription, WAITING};
pub use topics::{MAX_TOPICS, SubscribeError};

/// All that waits for the app, and what waits to leave.
#[derive(Debug)]
pub(crate) struct Arrivals<N: Node> {
    node: N,
    client: Client<N>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) topics: Arc<Topics<N>>,
    pub(crate) publisher: Publisher<N>,
    /// Collects letters, once somebody has listened.
    collector: OnceLock<AbortHandle>,
}

impl<N: Node> Drop for Arrivals<N> {
    fn drop(&mut self) {
        if let Some(collector) = self.collector.get() {
            collector.abort();
        }
    }
}

impl<N: Node> Arrivals<N> {
    pub(crate) fn new(node: N, client: Client<N>) -> Arc<Self> {
        Arc::new(Self {
            inbox: Arc::default(),
            topics: Topics::new(node.clone()),
            node,
            publisher: Publisher::new(client.clone()),
            collector: OnceLock::new(),
            client,
        })
    }

    /// The messages to this peer from now on, and those that were kept for it.
    pub(crate) fn listen(self: &Arc<Self>) -> Messages {
        self.collector.get_or_init(|| {
            let collect = collect::collect(Arc::downgrade(self));
            tokio::spawn(collect).abort_handle()
        });
        self.inbox.listen()
    }

    /// What super-nodes hand things to; does not keep this alive.
    pub(crate) fn recipient(self: &Arc<Self>) -> Box<dyn Handler> {
        Box::new(Recipient(Arc::downgrade(self)))
    }

    /// Nothing more comes or goes: the leaf closes.
    pub(crate) fn close(&self) {
        self.inbox.close();
        if let Some(collector) = self.collector.get() {
            collector.abort();
        }
        self.topics.close();
        self.publisher.close();
    }
}

struct Recipient<N: Node>(Weak<Arrivals<N>>);

impl<N: Node> Handler for Recipient<N> {
    fn handle(&self, _: NodeId, request: request::Kind) -> Answer {
        let Some(arrivals) = self.0.upgrade() else {
            return Answer::refuse(Code::Unavailable, "this leaf is closing");
        };
        match request {
            request::Kind::Deliver(ask) => arrivals.inbox.deliver(&arrivals.client, &ask),
            request::Kind::Posts(posts) => arrivals.topics.take(&posts),
            _ => Answer::refuse(Code::Malformed, "a leaf takes messages and posts only"),
        }
    }
}
