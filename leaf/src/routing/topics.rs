//! The topics that this leaf subscribed to, kept subscribed: at a home, again
//! before the lease is over, and at the next home when that one is lost.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::CallError;
use canopy_overlay::fabric::Answer;
use canopy_proto::wire::posts::Step;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};
use canopy_supernode::routing::topics::{
    Batch, Heard, RENEW, heard_from_wire, heard_to_wire, is_topic,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::subscription::{Subscription, Topic};
use crate::node::Node;

/// Topics at a time; homes allow no more.
pub const MAX_TOPICS: usize = 64;
/// How long a home may take, with all that it asks of owners.
const ASK: Duration = Duration::from_secs(8);
/// How long a new subscription is tried for.
const TRY: Duration = Duration::from_secs(15);
/// Pause before a home is asked again, or another.
const AGAIN: Duration = Duration::from_millis(300);

/// Why there is no subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// A topic's name has 1 to 256 bytes.
    #[error("a topic's name has 1 to 256 bytes, not {0}")]
    Name(usize),
    /// Too many subscriptions.
    #[error("this leaf has {MAX_TOPICS} topics, the most at a time; end a subscription first")]
    TooMany,
    /// No home took it in time.
    #[error("no home of this leaf took the subscription ({0}); try again")]
    Unavailable(String),
}

/// The subscriptions of a leaf.
#[derive(Debug)]
pub(crate) struct Topics<N: Node> {
    node: N,
    all: Mutex<HashMap<String, Arc<Topic>>>,
    changed: watch::Sender<()>,
    keeper: OnceLock<AbortHandle>,
}

impl<N: Node> Drop for Topics<N> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }
}

impl<N: Node> Topics<N> {
    pub(super) fn new(node: N) -> Arc<Self> {
        Arc::new(Self {
            node,
            all: Mutex::default(),
            changed: watch::Sender::new(()),
            keeper: OnceLock::new(),
        })
    }

    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Subscription, SubscribeError> {
        if !is_topic(name) {
            return Err(SubscribeError::Name(name.len()));
        }
        self.keeper.get_or_init(|| {
            let keeper = keep(
                Arc::downgrade(self),
                self.node.homes(),
                self.changed.subscribe(),
            );
            tokio::spawn(keeper).abort_handle()
        });
        let topic = {
            let mut all = self.all.lock();
            if !all.contains_key(name) && all.len() >= MAX_TOPICS {
                return Err(SubscribeError::TooMany);
            }
            let new = || Arc::new(Topic::new(name, self.changed.clone()));
            Arc::clone(all.entry(name.to_owned()).or_insert_with(new))
        };
        // Dropped again where this fails, and the topic with it.
        let stream = topic.stream();
        // Posts wait until it is known where this begins.
        let mut heard = topic.heard.lock().await;
        if topic.home.lock().is_some() {
            return Ok(stream);
        }
        let heads = self.begin(&topic).await?;
        topic.begin(&mut heard, heads);
        Ok(stream)
    }

    async fn begin(&self, topic: &Topic) -> Result<Heard, SubscribeError> {
        let until = Instant::now() + TRY;
        let mut last = "it has none".to_owned();
        let mut homes = self.node.homes();
        loop {
            for home in self.homes() {
                match self.ask(topic, home, true).await {
                    Ok(reply) => {
                        *topic.home.lock() = Some(home);
                        return Ok(heard_from_wire(&reply.heads));
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            let again = (Instant::now() + AGAIN).min(until);
            // New homes, or the same ones after a pause.
            let _ = timeout_at(again, homes.changed()).await;
            if Instant::now() >= until {
                return Err(SubscribeError::Unavailable(last));
            }
        }
    }

    /// Where this leaf may subscribe, best first.
    fn homes(&self) -> Vec<NodeId> {
        let me = self.node.node_id();
        match self.node.placement().get(&me).is_some() {
            true => vec![me],
            false => self.node.homes().borrow().clone(),
        }
    }

    async fn ask(
        &self,
        topic: &Topic,
        home: NodeId,
        fresh: bool,
    ) -> Result<wire::SubscribeReply, CallError> {
        let heard = topic.heard();
        let ask = request::Kind::Subscribe(wire::Subscribe {
            topic: topic.name.clone(),
            fresh,
            heard: heard_to_wire(heard.iter().map(|(id, at)| (id, *at))),
            ..Default::default()
        });
        match self.node.call(home, ask, ASK).await? {
            response::Kind::Subscribe(reply) => Ok(reply),
            _ => Err(CallError::Malformed(home)),
        }
    }

    async fn end(&self, topic: &Topic) {
        let home = topic.home.lock().take();
        let Some(home) = home else {
            return;
        };
        let ask = request::Kind::Subscribe(wire::Subscribe {
            topic: topic.name.clone(),
            end: true,
            ..Default::default()
        });
        if let Err(error) = self.node.call(home, ask, ASK).await {
            tracing::debug!(%error, "topics: a subscription ends with its lease");
        }
    }

    /// Posts that a home brings.
    pub(super) fn take(&self, posts: &wire::Posts) -> Answer {
        if posts.step() != Step::Push {
            return Answer::refuse(Code::Malformed, "a leaf only takes posts");
        }
        let batch = match Batch::open(&posts.posts, self.node.network()) {
            Ok(batch) => batch,
            Err(wrong) => return Answer::refuse(Code::Invalid, wrong),
        };
        let topic = self.all.lock().get(&batch.topic).map(Arc::clone);
        match topic.filter(|topic| topic.is_wanted()) {
            Some(topic) => {
                Answer::later(async move { response::Kind::Posts(topic.take(batch).await) })
            }
            None => Answer::refuse(Code::NotServing, "this leaf did not subscribe to the topic"),
        }
    }

    pub(super) fn close(&self) {
        for (_, topic) in self.all.lock().drain() {
            topic.close();
        }
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }

    /// Keeps every topic subscribed; true: something has to be tried again soon.
    async fn tend(&self, renew: bool) -> bool {
        let topics: Vec<Arc<Topic>> = self.all.lock().values().map(Arc::clone).collect();
        let homes = self.homes();
        let tended = topics.iter().map(|topic| async {
            if !topic.is_wanted() {
                // Unless somebody has just subscribed again.
                let gone = {
                    let mut all = self.all.lock();
                    let gone = !topic.is_wanted();
                    gone.then(|| all.remove(&topic.name))
                };
                if gone.is_some() {
                    self.end(topic).await;
                }
                return false;
            }
            // The first time is the business of whoever subscribes.
            let Some(home) = *topic.home.lock() else {
                return false;
            };
            if homes.contains(&home) && !renew {
                return false;
            }
            let mut order = homes.clone();
            order.sort_by_key(|other| *other != home);
            for home in order {
                if self.ask(topic, home, false).await.is_ok() {
                    *topic.home.lock() = Some(home);
                    return false;
                }
            }
            true
        });
        join_all(tended).await.contains(&true)
    }
}

async fn keep<N: Node>(
    topics: Weak<Topics<N>>,
    mut homes: watch::Receiver<Vec<NodeId>>,
    mut changed: watch::Receiver<()>,
) {
    let mut renew_at = Instant::now() + RENEW;
    let mut again_at = None;
    loop {
        let wake = again_at.map_or(renew_at, |again: Instant| again.min(renew_at));
        tokio::select! {
            told = homes.changed() => if told.is_err() { return },
            told = changed.changed() => if told.is_err() { return },
            () = sleep_until(wake) => {}
        }
        let Some(topics) = topics.upgrade() else {
            return;
        };
        let renew = Instant::now() >= renew_at || again_at.is_some();
        if Instant::now() >= renew_at {
            renew_at = Instant::now() + RENEW;
        }
        again_at = topics.tend(renew).await.then(|| Instant::now() + AGAIN);
    }
}
