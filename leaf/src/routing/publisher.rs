//! Posts of this leaf. Of each topic one batch is under way at a time, and what
//! is posted meanwhile goes with the next one: so posts stay in order, and slow
//! subscribers hold the publisher up.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use canopy_core::identity::Domain;
use canopy_core::keyspace::{NodeId, keys};
use canopy_core::placement::R;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::posts::Step;
use canopy_proto::wire::{self, request, response};
use canopy_proto::{Message as _, limits};
use canopy_supernode::routing::topics::{MAX_POSTS, PUBLISH, is_topic};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::client::{Client, is_verdict};

/// Largest post, bytes.
pub const MAX_POST: usize = limits::POST;
/// Posts of one topic that wait for their turn; who posts more waits.
const WAITING: usize = 64;
/// Topics that one leaf posts to in its life.
const MAX_TOPICS: usize = 1024;
/// How long a batch is tried for.
const TRY: Duration = Duration::from_secs(30);
/// Pause before the owners are tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// What signature and names add to a post, at most, bytes.
const ENVELOPE: usize = 1024;

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Subscribed leaves that have it.
    pub reached: u64,
    /// Subscribed leaves that were given up on, because they did not take it in
    /// time or their home was lost. Those that come back get it all the same.
    pub given_up: u64,
}

/// Why a post did not go out, or it is not known whether it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// A topic's name has 1 to 256 bytes.
    #[error("a topic's name has 1 to 256 bytes, not {0}")]
    Name(usize),
    /// The post is too large; nothing was sent.
    #[error("the post is {size} bytes, the limit is {MAX_POST}; put it and post its hash")]
    TooLarge {
        /// Its size, bytes.
        size: usize,
    },
    /// This leaf posted to too many topics.
    #[error("this leaf has posted to {MAX_TOPICS} topics, the most in one run")]
    TooManyTopics,
    /// An owner of the topic refused it; the same one will be refused again.
    #[error("the post was refused: {0}")]
    Refused(String),
    /// No owner of the topic answered in time; some subscribers may have it.
    #[error("no owner of the topic took the post in half a minute (last: {0}); try again")]
    Unavailable(String),
    /// The leaf was closed.
    #[error("the leaf was closed")]
    Closed,
}

type Told = Result<Posted, PostError>;

/// A post that waits for its turn.
#[derive(Debug)]
struct Job {
    data: Bytes,
    told: oneshot::Sender<Told>,
}

/// The posts of a leaf.
#[derive(Debug)]
pub(crate) struct Publisher<C: Calls> {
    client: Client<C>,
    topics: Mutex<HashMap<String, mpsc::Sender<Job>>>,
}

impl<C: Calls> Publisher<C> {
    pub(super) fn new(client: Client<C>) -> Self {
        Self {
            client,
            topics: Mutex::default(),
        }
    }

    /// Posts `data` to a topic; resolves when every subscriber has it, or was
    /// given up on.
    pub(crate) async fn post(&self, topic: &str, data: Bytes) -> Told {
        if !is_topic(topic) {
            return Err(PostError::Name(topic.len()));
        }
        if data.len() > MAX_POST {
            return Err(PostError::TooLarge { size: data.len() });
        }
        let jobs = self.jobs(topic)?;
        let (told, outcome) = oneshot::channel();
        let job = Job { data, told };
        jobs.send(job).await.map_err(|_| PostError::Closed)?;
        outcome.await.unwrap_or(Err(PostError::Closed))
    }

    fn jobs(&self, topic: &str) -> Result<mpsc::Sender<Job>, PostError> {
        let mut topics = self.topics.lock();
        if let Some(jobs) = topics.get(topic) {
            return Ok(jobs.clone());
        }
        if topics.len() >= MAX_TOPICS {
            return Err(PostError::TooManyTopics);
        }
        let (jobs, queue) = mpsc::channel(WAITING);
        topics.insert(topic.to_owned(), jobs.clone());
        let worker = Worker {
            client: self.client.clone(),
            topic: topic.to_owned(),
            run: self.client.common_ms(),
            number: 0,
            owner: None,
        };
        tokio::spawn(worker.run(queue));
        Ok(jobs)
    }

    pub(super) fn close(&self) {
        self.topics.lock().clear();
    }
}

/// Posts to one topic, one batch after the other.
struct Worker<C: Calls> {
    client: Client<C>,
    topic: String,
    run: u64,
    number: u64,
    /// Who took the last batch.
    owner: Option<NodeId>,
}

impl<C: Calls> Worker<C> {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(job) => job,
                None => match queue.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            let mut bytes = first.data.len() + ENVELOPE;
            let mut jobs = vec![first];
            while jobs.len() < MAX_POSTS
                && let Ok(job) = queue.try_recv()
            {
                bytes += job.data.len() + ENVELOPE;
                if bytes > limits::POSTS {
                    next = Some(job);
                    break;
                }
                jobs.push(job);
            }
            let told = self.post(&jobs).await;
            for job in jobs {
                // Whoever posted it may have stopped waiting.
                let _ = job.told.send(told.clone());
            }
        }
    }

    async fn post(&mut self, jobs: &[Job]) -> Told {
        let until = Instant::now() + TRY;
        let mut posts = self.sign(jobs);
        let mut last = "none is known".to_owned();
        let told = 'tries: loop {
            for owner in self.owners() {
                let ask = request::Kind::Posts(wire::Posts {
                    step: Step::Publish.into(),
                    posts: posts.clone(),
                    homes: Vec::new(),
                });
                match self.client.calls().call(owner, ask, PUBLISH).await {
                    Ok(response::Kind::Posts(reply)) if reply.later_run > 0 => {
                        // This leaf ran before, by a clock that was ahead.
                        self.run = reply.later_run.saturating_add(1);
                        self.number = 0;
                        posts = self.sign(jobs);
                        continue 'tries;
                    }
                    Ok(response::Kind::Posts(reply)) => {
                        self.owner = Some(owner);
                        break 'tries Ok(Posted {
                            reached: reply.reached,
                            given_up: reply.given_up,
                        });
                    }
                    Ok(_) => last = format!("{}: a strange answer", owner.short()),
                    Err(CallError::Refused { refusal, .. }) if is_verdict(refusal.code()) => {
                        break 'tries Err(PostError::Refused(refusal.message));
                    }
                    Err(error) => last = error.to_string(),
                }
                if Instant::now() >= until {
                    break;
                }
            }
            self.owner = None;
            if Instant::now() + AGAIN >= until {
                break Err(PostError::Unavailable(last));
            }
            sleep(AGAIN).await;
        };
        // Also where nobody confirmed them: somebody may have them.
        self.number += jobs.len() as u64;
        told
    }

    /// Owners of the topic, the one that took the last batch first.
    fn owners(&self) -> Vec<NodeId> {
        let calls = self.client.calls();
        let key = keys::topic(calls.network(), &self.topic);
        let mut owners = calls.placement().owners(&key, R);
        owners.sort_by_key(|owner| Some(*owner) != self.owner);
        owners
    }

    fn sign(&self, jobs: &[Job]) -> Vec<wire::Signed> {
        let sent_ms = self.client.common_ms();
        let numbered = jobs.iter().zip(self.number + 1..);
        let posts = numbered.map(|(job, number)| {
            let post = wire::Post {
                network: self.client.network().to_owned(),
                topic: self.topic.clone(),
                run: self.run,
                number,
                sent_ms,
                data: job.data.clone(),
            };
            self.client.identity().sign(Domain::Post, &post)
        });
        let posts: Vec<wire::Signed> = posts.collect();
        debug_assert!(posts.iter().all(|p| p.encoded_len() <= MAX_POST + ENVELOPE));
        posts
    }
}
