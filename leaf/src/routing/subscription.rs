//! Posts of topics, on their way to the app: checked, each once, in order for
//! each publisher.
//!
//! Posts count as delivered when they wait in the app's stream, which holds a
//! few. An app that does not read holds its publishers up; after a while it is
//! no subscriber any more.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use canopy_proto::wire;
use canopy_supernode::routing::topics::{Batch, Heard, STALL, Stamp, Stamped};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// Posts that wait in one stream.
pub const WAITING: usize = 64;
/// Publishers of a topic whose last post is remembered.
const PUBLISHERS: usize = 4096;

/// A post of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Who posted it; the signature has been checked.
    pub publisher: NodeId,
    /// When, by the publisher's clock, milliseconds since 1970.
    pub sent_ms: u64,
    /// Numbers the posts of this publisher to this topic since it started.
    pub number: u64,
    /// How many posts of this publisher before this one are known to have been
    /// missed; 0 but for losses that nobody could make up for.
    pub missed: u64,
    /// What was posted.
    pub data: Bytes,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The app did not read its posts, and everybody waited for it.
    #[error("the posts were not read for {} s, and publishers waited for it; subscribe again, and read faster", STALL.as_secs())]
    TooSlow,
    /// The leaf was closed.
    #[error("the leaf was closed")]
    Closed,
}

/// The posts of one topic, as they come. Dropped, the subscription ends.
#[derive(Debug)]
pub struct Subscription {
    posts: mpsc::Receiver<Post>,
    slow: Arc<std::sync::atomic::AtomicBool>,
    topic: Arc<Topic>,
}

/// A topic that this leaf subscribed to.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    streams: Mutex<Vec<Stream>>,
    /// Held while posts are handed to the streams, and until it is known where a
    /// new subscription begins.
    pub(super) heard: tokio::sync::Mutex<Heard>,
    /// The same as it was last: for who need not wait.
    shown: Mutex<Heard>,
    /// At which super-node it was subscribed.
    pub(super) home: Mutex<Option<NodeId>>,
    /// Woken when a stream ends.
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug)]
struct Stream {
    posts: mpsc::Sender<Post>,
    slow: Arc<std::sync::atomic::AtomicBool>,
}

impl Subscription {
    /// The next post.
    ///
    /// # Errors
    /// [`Ended`]: there will be no more.
    pub async fn next(&mut self) -> Result<Post, Ended> {
        let slow = || self.slow.load(std::sync::atomic::Ordering::Acquire);
        match self.posts.recv().await {
            Some(post) => Ok(post),
            None if slow() => Err(Ended::TooSlow),
            None => Err(Ended::Closed),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.posts.close();
        self.topic.changed.send_replace(());
    }
}

impl Topic {
    pub(super) fn new(name: &str, changed: watch::Sender<()>) -> Self {
        Self {
            name: name.to_owned(),
            streams: Mutex::default(),
            heard: tokio::sync::Mutex::default(),
            shown: Mutex::default(),
            home: Mutex::default(),
            changed,
        }
    }

    pub(super) fn stream(self: &Arc<Self>) -> Subscription {
        let (sender, posts) = mpsc::channel(WAITING);
        let slow = Arc::<std::sync::atomic::AtomicBool>::default();
        self.streams.lock().push(Stream {
            posts: sender,
            slow: Arc::clone(&slow),
        });
        Subscription {
            posts,
            slow,
            topic: Arc::clone(self),
        }
    }

    /// Whether an app still reads.
    pub(super) fn is_wanted(&self) -> bool {
        let mut streams = self.streams.lock();
        streams.retain(|stream| !stream.posts.is_closed());
        !streams.is_empty()
    }

    /// No more posts: the leaf closes.
    pub(super) fn close(&self) {
        self.streams.lock().clear();
    }

    /// How far each publisher was heard.
    pub(super) fn heard(&self) -> Heard {
        self.shown.lock().clone()
    }

    /// Where publishers stand that were not heard yet.
    pub(super) fn begin(&self, heard: &mut Heard, heads: Heard) {
        for (publisher, head) in heads {
            heard.entry(publisher).or_insert(head);
        }
        self.shown.lock().clone_from(heard);
    }

    /// Hands posts to the app; resolves when they wait in each stream.
    pub(super) async fn take(&self, batch: Batch) -> wire::PostsReply {
        let mut heard = self.heard.lock().await;
        let mut given_up = 0;
        for post in batch.posts {
            let last = heard.get(&batch.publisher).copied();
            if last.is_some_and(|last| post.at <= last) {
                continue;
            }
            let at = post.at;
            given_up += self.hand_out(batch.publisher, post, last).await;
            remember(&mut heard, batch.publisher, at);
            self.shown.lock().insert(batch.publisher, at);
        }
        let reached = u64::from(self.is_wanted());
        wire::PostsReply {
            reached,
            given_up: given_up.min(1 - reached),
            later_run: 0,
        }
    }

    /// To all streams at once, so that none gets a post twice where this is
    /// dropped halfway; how many were given up on.
    async fn hand_out(&self, publisher: NodeId, stamped: Stamped, last: Option<Stamp>) -> u64 {
        let post = Post {
            publisher,
            sent_ms: stamped.body.sent_ms,
            number: stamped.at.number,
            missed: last.map_or(0, |last| last.missed_before(stamped.at)),
            data: stamped.body.data,
        };
        let streams = self.streams.lock().clone();
        let room = streams.iter().map(|stream| async move {
            match tokio::time::timeout(STALL, stream.posts.reserve()).await {
                Ok(permit) => permit.ok(),
                Err(_) => {
                    stream
                        .slow
                        .store(true, std::sync::atomic::Ordering::Release);
                    None
                }
            }
        });
        let permits = join_all(room).await;
        let mut given_up = 0;
        for permit in permits {
            match permit {
                Some(permit) => permit.send(post.clone()),
                None => given_up += 1,
            }
        }
        drop(streams);
        if given_up > 0 {
            let mut streams = self.streams.lock();
            let slow = |stream: &Stream| stream.slow.load(std::sync::atomic::Ordering::Acquire);
            streams.retain(|stream| !slow(stream) && !stream.posts.is_closed());
            self.changed.send_replace(());
        }
        given_up
    }
}

/// A leaf need not remember more publishers than owners do; one that it forgot
/// could be heard twice after a loss.
fn remember(heard: &mut HashMap<NodeId, Stamp>, publisher: NodeId, at: Stamp) {
    if heard.len() >= PUBLISHERS && !heard.contains_key(&publisher) {
        let oldest = heard.iter().min_by_key(|(_, at)| at.run);
        if let Some(oldest) = oldest.map(|(id, _)| *id) {
            heard.remove(&oldest);
        }
    }
    heard.insert(publisher, at);
}
