//! What a home does for the leaves that subscribed at it: it asks the owners for
//! their topics, and brings them the posts, in order for each publisher.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::keyspace::{NodeId, keys};
use canopy_core::placement::R;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_proto::wire::posts::Step;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};
use canopy_proto::{Message as _, limits};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::super::stats::add;
use super::super::{Inner, refusal};
use super::owner::step;
use super::posts::{Batch, Heard, MAX_POSTS, Stamp, Stamped, is_topic};
use super::registry::{Leaf, Standing, Topic};
use super::{PUSH, heard_from_wire, heard_to_wire};

/// How long an owner may take to answer a home.
const ASK: Duration = Duration::from_secs(4);
/// Pause before a session that is full is tried again.
const FULL: Duration = Duration::from_millis(20);
/// Times that a home asks on for what it missed.
const ROUNDS: usize = 32;

/// What the owners of a topic said.
#[derive(Default)]
pub(super) struct Told {
    heads: Heard,
    /// In order for each publisher.
    missed: BTreeMap<NodeId, BTreeMap<Stamp, Stamped>>,
    more: bool,
}

impl<C: Calls> Inner<C> {
    /// A leaf subscribes here, says it again, or ends it.
    pub(in super::super) fn subscribe(
        self: &Arc<Self>,
        from: NodeId,
        ask: wire::Subscribe,
    ) -> Answer {
        if !self.serves(&self.me()) {
            let why = "this peer is no super-node; subscribe at a home";
            return Answer::refuse(Code::NotServing, why);
        }
        if !is_topic(&ask.topic) {
            return Answer::refuse(Code::Malformed, "a topic's name has 1 to 256 bytes");
        }
        if ask.home {
            return match self.serves(&from) {
                true => Answer::Now(self.owner_told(from, &ask)),
                false => Answer::refuse(Code::Invalid, "only super-nodes ask for leaves"),
            };
        }
        if ask.end {
            if self.registry.remove(&ask.topic, &from, None) {
                tokio::spawn(Arc::clone(self).end(ask.topic));
            }
            return Answer::Now(response::Kind::Subscribe(wire::SubscribeReply::default()));
        }
        if let Some(refused) = self.banned(&[from]) {
            return refused;
        }
        let now = Instant::now();
        if !ask.fresh && self.registry.renew(&ask.topic, &from, now) {
            return Answer::Now(response::Kind::Subscribe(wire::SubscribeReply::default()));
        }
        let (topic, leaf) = match self.registry.add(&ask.topic, from, now) {
            Ok(added) => added,
            Err(why) => return Answer::refuse(Code::Busy, why),
        };
        let inner = Arc::clone(self);
        Answer::later(async move { inner.begin(topic, from, leaf, ask).await })
    }

    fn owner_told(&self, from: NodeId, ask: &wire::Subscribe) -> response::Kind {
        match self
            .owned
            .subscribe(from, ask, &heard_from_wire(&ask.heard))
        {
            Some(reply) => response::Kind::Subscribe(reply),
            None => refusal(Code::Busy, "too many topics here; try another owner"),
        }
    }

    async fn begin(
        self: Arc<Self>,
        topic: Arc<Topic>,
        node: NodeId,
        leaf: Arc<Leaf>,
        ask: wire::Subscribe,
    ) -> response::Kind {
        let gate = Arc::clone(&leaf.gate).write_owned().await;
        // Where this is given up halfway, the leaf must not be taken for one that
        // missed nothing.
        let undo = Undo {
            inner: &self,
            topic: &topic,
            node,
            leaf: &leaf,
            settled: false,
        };
        let told = match self.catch_up(&topic, node, &ask).await {
            Ok(told) => told,
            Err(why) => return refusal(Code::Unavailable, why),
        };
        undo.settle();
        drop(gate);
        let mut heads = told;
        for (id, heard) in topic.heard() {
            let head = heads.entry(id).or_default();
            *head = heard.max(*head);
        }
        let heads = heads.iter().map(|(id, at)| (id, *at));
        response::Kind::Subscribe(wire::SubscribeReply {
            heads: heard_to_wire(heads),
            ..Default::default()
        })
    }

    /// Has the owners know of this home, and brings the leaf what it missed. How
    /// far each publisher is.
    async fn catch_up(
        self: &Arc<Self>,
        topic: &Topic,
        node: NodeId,
        ask: &wire::Subscribe,
    ) -> Result<Heard, String> {
        let mut heard = heard_from_wire(&ask.heard);
        for _ in 0..ROUNDS {
            let told = self.ask_owners(topic, ask.fresh, &heard).await;
            let told = told.ok_or("no owner of the topic answers; try again")?;
            if ask.fresh {
                return Ok(told.heads);
            }
            for (publisher, posts) in told.missed {
                let posts: Vec<Stamped> = posts.into_values().collect();
                let last = posts.last().map(|post| post.at);
                let pushed = self.push(node, &posts).await;
                pushed.map_err(|error| error.to_string())?;
                heard.extend(last.map(|last| (publisher, last)));
            }
            if !told.more {
                return Ok(told.heads);
            }
        }
        Err("too much was missed; subscribe afresh".to_owned())
    }

    /// Says to all owners that this home wants the topic; what they say in all.
    /// `None`: none answered.
    pub(super) async fn ask_owners(
        self: &Arc<Self>,
        topic: &Topic,
        fresh: bool,
        heard: &Heard,
    ) -> Option<Told> {
        let key = keys::topic(self.calls.network(), &topic.name);
        let owners = self.calls.placement().owners(&key, R);
        let ask = wire::Subscribe {
            topic: topic.name.clone(),
            home: true,
            fresh,
            heard: heard_to_wire(heard.iter().map(|(id, at)| (id, *at))),
            ..Default::default()
        };
        let answers = owners
            .iter()
            .map(|owner| self.ask_owner(*owner, ask.clone()));
        let answers: Vec<wire::SubscribeReply> =
            join_all(answers).await.into_iter().flatten().collect();
        if answers.is_empty() {
            return None;
        }
        let mut told = Told::default();
        for answer in answers {
            told.take(answer, heard, &topic.name, self.calls.network());
        }
        let first = topic.standing.lock().said.is_none();
        if first || fresh {
            topic.note_heads(&told.heads);
        }
        *topic.standing.lock() = Standing {
            owners,
            said: Some(Instant::now()),
        };
        Some(told)
    }

    async fn ask_owner(&self, owner: NodeId, ask: wire::Subscribe) -> Option<wire::SubscribeReply> {
        if owner == self.me() {
            return self
                .owned
                .subscribe(owner, &ask, &heard_from_wire(&ask.heard));
        }
        let ask = request::Kind::Subscribe(ask);
        match self.calls.call(owner, ask, ASK).await {
            Ok(response::Kind::Subscribe(reply)) => Some(reply),
            other => {
                tracing::debug!(?owner, ?other, "topics: an owner does not answer");
                None
            }
        }
    }

    /// Nobody here wants the topic any more.
    pub(super) async fn end(self: Arc<Self>, topic: String) {
        let key = keys::topic(self.calls.network(), &topic);
        let owners = self.calls.placement().owners(&key, R);
        let ask = wire::Subscribe {
            topic,
            home: true,
            end: true,
            ..Default::default()
        };
        join_all(
            owners
                .iter()
                .map(|owner| self.ask_owner(*owner, ask.clone())),
        )
        .await;
    }

    /// Posts from an owner, for the leaves that subscribed here.
    pub(in super::super) fn fanned(self: &Arc<Self>, from: NodeId, posts: wire::Posts) -> Answer {
        let batch = match self.passed_on(&from, &posts, "only super-nodes bring posts") {
            Ok(batch) => batch,
            Err(refused) => return refused,
        };
        let inner = Arc::clone(self);
        Answer::later(async move { inner.fan(from, batch).await })
    }

    /// The same, checked; `from` is the owner that they come from.
    pub(super) async fn fan(self: &Arc<Self>, from: NodeId, batch: Batch) -> response::Kind {
        let Some(topic) = self.registry.get(&batch.topic) else {
            return refusal(Code::NotServing, "nobody here subscribed to this topic");
        };
        let publisher = topic.publisher(batch.publisher);
        let _turn = publisher.turn.lock().await;
        let known = topic.standing.lock().said.is_some();
        let heard = *publisher.heard.lock();
        // Of one who was not there when this home asked, everything is new.
        let last = heard
            .or(known.then(Stamp::default))
            .unwrap_or(batch.first());
        let mut posts = batch.posts.clone();
        if let (Some(heard), true) = (heard, known) {
            posts.retain(|post| post.at > heard);
        }
        if posts.is_empty() {
            let reached = topic.leaves().len() as u64;
            return response::Kind::Posts(wire::PostsReply {
                reached,
                ..Default::default()
            });
        }
        if known && last.missed_before(batch.first()) > 0 {
            let missed = self.fetch(from, &batch, last).await;
            posts.splice(0..0, missed);
        }
        let reply = self.push_all(&topic, &posts).await;
        *publisher.heard.lock() = posts.last().map(|post| post.at).max(heard);
        response::Kind::Posts(reply)
    }

    /// What lies between `heard` and `batch`, as far as the owner `from` knows.
    async fn fetch(&self, from: NodeId, batch: &Batch, heard: Stamp) -> Vec<Stamped> {
        let ask = wire::Subscribe {
            topic: batch.topic.clone(),
            home: true,
            heard: heard_to_wire([(&batch.publisher, heard)]),
            publisher: batch.publisher.to_bytes(),
            ..Default::default()
        };
        let Some(reply) = self.ask_owner(from, ask).await else {
            return Vec::new();
        };
        let before = Heard::from([(batch.publisher, heard)]);
        let mut told = Told::default();
        told.take(reply, &before, &batch.topic, self.calls.network());
        let missed = told.missed.remove(&batch.publisher).unwrap_or_default();
        let missed = missed.into_values();
        missed.filter(|post| post.at < batch.first()).collect()
    }

    /// To all leaves of a topic; resolves when each has the posts or was given
    /// up on.
    pub(super) async fn push_all(
        self: &Arc<Self>,
        topic: &Topic,
        posts: &[Stamped],
    ) -> wire::PostsReply {
        let pushes = topic.leaves().into_iter().map(|(node, leaf)| async move {
            let pushed = async {
                // What it missed before goes first.
                let _gate = leaf.gate.read().await;
                self.push(node, posts).await
            };
            let pushed = tokio::time::timeout(PUSH, pushed).await;
            let pushed = pushed.unwrap_or(Err(CallError::Deadline(node)));
            match pushed {
                Ok(reply) => reply,
                Err(error) => {
                    self.give_up(topic, node, &leaf, &error);
                    wire::PostsReply {
                        given_up: 1,
                        ..Default::default()
                    }
                }
            }
        });
        let mut all = wire::PostsReply::default();
        for reply in join_all(pushes).await {
            all.reached += reply.reached;
            all.given_up += reply.given_up;
        }
        let taken = all.reached * posts.len() as u64;
        add(&self.counters.posts_pushed, taken);
        self.counters.topics.posts(&topic.name, taken);
        add(&self.counters.posts_given_up, all.given_up);
        all
    }

    fn give_up(self: &Arc<Self>, topic: &Topic, node: NodeId, leaf: &Arc<Leaf>, why: &CallError) {
        tracing::debug!(?node, topic = topic.name, %why, "topics: a leaf is given up on");
        if matches!(why, CallError::Deadline(_)) {
            self.registry.pause(node, Instant::now());
        }
        if self.registry.remove(&topic.name, &node, Some(leaf)) {
            tokio::spawn(Arc::clone(self).end(topic.name.clone()));
        }
    }

    /// To one leaf, in as many requests as they need.
    async fn push(
        self: &Arc<Self>,
        node: NodeId,
        posts: &[Stamped],
    ) -> Result<wire::PostsReply, CallError> {
        let mut last = wire::PostsReply::default();
        for posts in chunks(posts) {
            let signed: Vec<wire::Signed> = posts.iter().map(|p| p.signed.clone()).collect();
            let bytes: usize = signed.iter().map(|signed| signed.body.len()).sum();
            last = loop {
                match self.hand_to(node, step(Step::Push, &signed, &[])).await {
                    // Its session is full of other things.
                    Err(CallError::Busy(_)) => sleep(FULL).await,
                    Err(error) => return Err(error),
                    Ok(reply) => break reply,
                }
            };
            add(&self.counters.bytes, bytes as u64);
        }
        Ok(last)
    }

    async fn hand_to(
        self: &Arc<Self>,
        node: NodeId,
        push: request::Kind,
    ) -> Result<wire::PostsReply, CallError> {
        let answer = match (node == self.me(), self.recipient()) {
            (true, Some(recipient)) => match recipient.handle(node, push) {
                Answer::Now(answer) => answer,
                Answer::Later(answer) => answer.await,
            },
            (true, None) => refusal(Code::NotServing, "this peer subscribed to nothing"),
            (false, _) => self.calls.call(node, push, PUSH).await?,
        };
        match answer {
            response::Kind::Posts(reply) => Ok(reply),
            response::Kind::Refusal(refusal) => Err(CallError::Refused {
                peer: node,
                refusal,
            }),
            _ => Err(CallError::Malformed(node)),
        }
    }
}

impl Told {
    /// Takes in what one owner said, as far as it is well signed, of this topic
    /// and new.
    fn take(&mut self, reply: wire::SubscribeReply, heard: &Heard, topic: &str, network: &str) {
        for (id, head) in heard_from_wire(&reply.heads) {
            let known = self.heads.entry(id).or_default();
            *known = head.max(*known);
        }
        self.more |= reply.more;
        for signed in &reply.missed {
            let Ok(batch) = Batch::open(std::slice::from_ref(signed), network) else {
                continue;
            };
            let last = heard.get(&batch.publisher).copied().unwrap_or_default();
            if batch.topic != topic || batch.first() <= last {
                continue;
            }
            let of = self.missed.entry(batch.publisher).or_default();
            of.extend(batch.posts.into_iter().map(|post| (post.at, post)));
        }
    }

    /// What was missed, in order for each publisher, and whether there is more.
    pub(super) fn missed(self) -> (Vec<(NodeId, Vec<Stamped>)>, bool) {
        let missed = self.missed.into_iter();
        let missed = missed.map(|(id, posts)| (id, posts.into_values().collect()));
        (missed.collect(), self.more)
    }
}

/// Cuts posts into runs that one request may carry.
fn chunks(posts: &[Stamped]) -> Vec<&[Stamped]> {
    let mut out = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (place, post) in posts.iter().enumerate() {
        let more = post.signed.encoded_len() + 8;
        let full = bytes + more > limits::POSTS || place - from >= MAX_POSTS;
        if full && place > from {
            out.push(&posts[from..place]);
            (from, bytes) = (place, 0);
        }
        bytes += more;
    }
    out.push(&posts[from..]);
    out
}

/// Ends a subscription that was begun and not completed.
struct Undo<'a, C: Calls> {
    inner: &'a Arc<Inner<C>>,
    topic: &'a Topic,
    node: NodeId,
    leaf: &'a Arc<Leaf>,
    settled: bool,
}

impl<C: Calls> Undo<'_, C> {
    fn settle(mut self) {
        self.settled = true;
    }
}

impl<C: Calls> Drop for Undo<'_, C> {
    fn drop(&mut self) {
        if !self.settled {
            let registry = &self.inner.registry;
            registry.remove(&self.topic.name, &self.node, Some(self.leaf));
        }
    }
}
