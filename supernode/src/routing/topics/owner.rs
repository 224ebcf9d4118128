//! What an owner of a topic does: it checks posts, remembers the last ones, and
//! brings them to the homes that asked for them.
//!
//! Each post goes through one owner, which copies it to the other two. They keep
//! it for those who missed it, and bring it to homes that only they know of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use canopy_core::keyspace::{NodeId, keys};
use canopy_core::placement::R;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_proto::wire::posts::Step;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};
use futures_util::future::{join, join_all};
use parking_lot::Mutex;

use super::super::stats::add;
use super::super::{Inner, refusal};
use super::history::{History, MAX_BYTES};
use super::posts::{Batch, Heard, heard_to_wire};
use super::{COPY, FAN, LEASE};

/// Topics that one owner keeps in memory.
const MAX_TOPICS: usize = 65_536;
/// Bytes of all topics' last posts.
const MAX_HISTORY: usize = 128 * 1024 * 1024;

/// The topics that this node looks after.
#[derive(Debug, Default)]
pub(in super::super) struct Owned {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Topic {
    /// Super-nodes whose leaves want the posts, and until when.
    homes: HashMap<NodeId, Instant>,
    history: History,
}

/// What is to be done with a batch.
enum Todo {
    Fan(Vec<NodeId>),
    Done(wire::PostsReply),
}

impl State {
    fn topic(&mut self, name: &str, now: Instant) -> Option<&mut Topic> {
        if !self.topics.contains_key(name) {
            if self.topics.len() >= MAX_TOPICS {
                self.sweep(now);
            }
            if self.topics.len() >= MAX_TOPICS {
                return None;
            }
            self.topics.insert(name.to_owned(), Topic::default());
        }
        self.topics.get_mut(name)
    }

    fn sweep(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.topics.retain(|_, topic| {
            topic.homes.retain(|_, until| now < *until);
            let before = topic.history.bytes();
            topic.history.expire(now);
            *bytes -= before - topic.history.bytes();
            !topic.homes.is_empty() || topic.history.bytes() > 0
        });
    }
}

impl Owned {
    /// Notes a batch and tells who wants it, in one step: who asks for the topic
    /// before gets it, and who asks after finds it in the history.
    fn take_in(&self, batch: &Batch, copied: bool, now: Instant) -> Option<Todo> {
        let mut state = self.state.lock();
        let keep = state.bytes + MAX_BYTES <= MAX_HISTORY;
        let topic = state.topic(&batch.topic, now)?;
        let head = topic.history.head(&batch.publisher).unwrap_or_default();
        if !copied {
            if head.run > batch.last().run {
                return Some(Todo::Done(wire::PostsReply {
                    later_run: head.run,
                    ..Default::default()
                }));
            }
            if let Some(reply) = topic.history.done(&batch.publisher, batch.last()) {
                return Some(Todo::Done(reply));
            }
        }
        let before = topic.history.bytes();
        match keep {
            true => topic.history.insert(batch, now),
            false => topic.history.expire(now),
        }
        let after = topic.history.bytes();
        topic.homes.retain(|_, until| now < *until);
        let homes = topic.homes.keys().copied().collect();
        state.bytes = state.bytes + after - before;
        Some(Todo::Fan(homes))
    }

    fn done(&self, batch: &Batch, reply: wire::PostsReply) {
        let mut state = self.state.lock();
        if let Some(topic) = state.topics.get_mut(&batch.topic) {
            let history = &mut topic.history;
            history.set_done(&batch.publisher, batch.last(), reply);
        }
    }

    fn leave(&self, topic: &str, home: &NodeId) {
        let mut state = self.state.lock();
        if let Some(topic) = state.topics.get_mut(topic) {
            topic.homes.remove(home);
        }
    }

    /// A home asks for a topic, or wants it no more.
    pub(in super::super) fn subscribe(
        &self,
        home: NodeId,
        ask: &wire::Subscribe,
        heard: &Heard,
    ) -> Option<wire::SubscribeReply> {
        let now = Instant::now();
        if ask.end {
            self.leave(&ask.topic, &home);
            return Some(wire::SubscribeReply::default());
        }
        let mut state = self.state.lock();
        let topic = state.topic(&ask.topic, now)?;
        topic.homes.insert(home, now + LEASE);
        let only = NodeId::from_slice(&ask.publisher);
        let (missed, more) = match ask.fresh {
            true => (Vec::new(), false),
            false => topic.history.after(heard, only),
        };
        Some(wire::SubscribeReply {
            heads: heard_to_wire(topic.history.heads()),
            missed,
            more,
        })
    }

    /// Drops what is over. To be called every few seconds.
    pub(in super::super) fn sweep(&self) {
        self.state.lock().sweep(Instant::now());
    }

    /// This node is no super-node any more.
    pub(in super::super) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// Topics, and bytes of their last posts.
    pub(in super::super) fn held(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.topics.len() as u64, state.bytes as u64)
    }
}

impl<C: Calls> Inner<C> {
    /// Posts of `from`, who signed them.
    pub(in super::super) fn publish(self: &Arc<Self>, from: NodeId, posts: wire::Posts) -> Answer {
        if !self.serves(&self.me()) {
            return Answer::refuse(Code::NotServing, "this peer is no super-node");
        }
        let batch = match Batch::open(&posts.posts, self.calls.network()) {
            Ok(batch) if batch.publisher == from => batch,
            Ok(_) => return Answer::refuse(Code::Invalid, "post only what you signed yourself"),
            Err(wrong) => return Answer::refuse(Code::Invalid, wrong),
        };
        if let Some(refused) = self.banned(&[from]) {
            return refused;
        }
        let key = keys::topic(self.calls.network(), &batch.topic);
        if !self.calls.placement().owns(&self.me(), &key) {
            let why = "this super-node does not look after the topic; post to one that does";
            return Answer::refuse(Code::Unavailable, why);
        }
        let size = batch.posts.iter().map(|post| post.signed.body.len()).sum();
        let turn = self.posts.enter(from.0, key.0, size, Instant::now());
        let turn = match turn {
            Ok(turn) => turn,
            Err(why) => return Answer::refuse(Code::Busy, why),
        };
        let taken = batch.posts.len() as u64;
        add(&self.counters.posts_taken, taken);
        self.counters.topics.posts(&batch.topic, taken);
        let inner = Arc::clone(self);
        Answer::later(async move {
            let _turn = turn;
            inner.spread(batch, None).await
        })
    }

    /// Posts that another owner brings to `homes`.
    pub(in super::super) fn copy(self: &Arc<Self>, from: NodeId, posts: wire::Posts) -> Answer {
        let batch = match self.passed_on(&from, &posts, "only super-nodes copy posts") {
            Ok(batch) => batch,
            Err(refused) => return refused,
        };
        let inner = Arc::clone(self);
        Answer::later(async move { inner.spread(batch, Some(posts.homes)).await })
    }

    /// What a super-node passes on, checked; `others` is what others are told.
    pub(super) fn passed_on(
        &self,
        from: &NodeId,
        posts: &wire::Posts,
        others: &str,
    ) -> Result<Batch, Answer> {
        if !self.serves(from) {
            return Err(Answer::refuse(Code::Invalid, others));
        }
        let batch = Batch::open(&posts.posts, self.calls.network())
            .map_err(|wrong| Answer::refuse(Code::Invalid, wrong))?;
        match self.banned(&[batch.publisher]) {
            Some(refused) => Err(refused),
            None => Ok(batch),
        }
    }

    /// Brings a batch to all homes that want it, but for those that `copied`
    /// names; resolves when each has it or was given up on.
    async fn spread(self: &Arc<Self>, batch: Batch, copied: Option<Vec<Bytes>>) -> response::Kind {
        let todo = self.owned.take_in(&batch, copied.is_some(), Instant::now());
        let mut homes = match todo {
            Some(Todo::Fan(homes)) => homes,
            Some(Todo::Done(reply)) => return response::Kind::Posts(reply),
            None => return refusal(Code::Busy, "too many topics here; try another owner"),
        };
        let known = copied.as_deref().unwrap_or_default();
        homes.retain(|home| !known.iter().any(|known| *known == home.0.as_slice()));
        let posts = batch.signed();
        let fanned = homes.iter().map(|home| self.fan_to(*home, &batch, &posts));
        let copies = match copied {
            None => self.copy_to_others(&batch, &posts, &homes),
            Some(_) => Vec::new(),
        };
        let (fanned, copies) = join(join_all(fanned), join_all(copies)).await;
        let mut reply = wire::PostsReply::default();
        for more in fanned.into_iter().chain(copies) {
            reply.reached += more.reached;
            reply.given_up += more.given_up;
        }
        if copied.is_none() {
            self.owned.done(&batch, reply);
        }
        response::Kind::Posts(reply)
    }

    async fn fan_to(
        self: &Arc<Self>,
        home: NodeId,
        batch: &Batch,
        posts: &[wire::Signed],
    ) -> wire::PostsReply {
        let answer = match home == self.me() {
            true => Ok(self.fan(home, batch.clone()).await),
            false => {
                let posts = step(Step::Fan, posts, &[]);
                self.calls.call(home, posts, FAN).await
            }
        };
        match answer {
            Ok(response::Kind::Posts(reply)) => reply,
            Ok(response::Kind::Refusal(refusal)) | Err(CallError::Refused { refusal, .. })
                if refusal.code() == Code::NotServing =>
            {
                self.owned.leave(&batch.topic, &home);
                wire::PostsReply::default()
            }
            // It asks again when it is well, and says what it heard last.
            answer => {
                tracing::debug!(?home, ?answer, "topics: a home is given up on");
                self.owned.leave(&batch.topic, &home);
                wire::PostsReply {
                    given_up: 1,
                    ..Default::default()
                }
            }
        }
    }

    /// To the other owners, for their history and for homes that only they
    /// know of.
    fn copy_to_others(
        self: &Arc<Self>,
        batch: &Batch,
        posts: &[wire::Signed],
        homes: &[NodeId],
    ) -> Vec<impl Future<Output = wire::PostsReply>> {
        let key = keys::topic(self.calls.network(), &batch.topic);
        let owners = self.calls.placement().owners(&key, R);
        let others = owners.into_iter().filter(|owner| *owner != self.me());
        let copy = |owner: NodeId| {
            let copy = step(Step::Copy, posts, homes);
            let inner = Arc::clone(self);
            async move {
                match inner.calls.call(owner, copy, COPY).await {
                    Ok(response::Kind::Posts(reply)) => reply,
                    // Best effort: what it knows its homes ask for again.
                    _ => wire::PostsReply::default(),
                }
            }
        };
        others.map(copy).collect()
    }
}

pub(super) fn step(step: Step, posts: &[wire::Signed], homes: &[NodeId]) -> request::Kind {
    request::Kind::Posts(wire::Posts {
        step: step.into(),
        posts: posts.to_vec(),
        homes: homes.iter().map(|home| home.to_bytes()).collect(),
    })
}
