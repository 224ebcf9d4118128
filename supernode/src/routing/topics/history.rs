//! The last posts of a topic, for those whose home was lost meanwhile. Short,
//! and in memory only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use canopy_proto::{Message as _, limits, wire};

use super::posts::{Batch, Heard, Stamp};

/// Posts kept of one topic.
const MAX_POSTS: usize = 1024;
/// Bytes of posts kept of one topic.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a post is kept: a lost home is noticed within a minute.
const KEEP: Duration = Duration::from_secs(180);
/// Publishers of one topic whose last post is remembered.
const MAX_PUBLISHERS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct History {
    publishers: HashMap<NodeId, Track>,
    /// Oldest first.
    order: VecDeque<(NodeId, Stamp, usize, Instant)>,
    bytes: usize,
}

/// What is known of one publisher.
#[derive(Debug)]
struct Track {
    head: Stamp,
    posts: BTreeMap<Stamp, wire::Signed>,
    /// The last batch that went all the way, and what became of it.
    done: Option<(Stamp, wire::PostsReply)>,
    at: Instant,
}

impl History {
    /// Adds what is new of a batch.
    pub(super) fn insert(&mut self, batch: &Batch, now: Instant) {
        self.forget_publishers();
        let track = self.publishers.entry(batch.publisher).or_insert(Track {
            head: Stamp::default(),
            posts: BTreeMap::new(),
            done: None,
            at: now,
        });
        track.at = now;
        for post in batch.posts.iter() {
            if post.at <= track.head {
                continue;
            }
            track.head = post.at;
            let size = post.signed.encoded_len();
            track.posts.insert(post.at, copy(&post.signed));
            self.order.push_back((batch.publisher, post.at, size, now));
            self.bytes += size;
        }
        self.expire(now);
    }

    /// Drops what is too old or too much.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((publisher, at, size, added)) = self.order.front().copied() {
            let fits = self.order.len() <= MAX_POSTS && self.bytes <= MAX_BYTES;
            if fits && now.saturating_duration_since(added) < KEEP {
                break;
            }
            self.order.pop_front();
            self.bytes -= size;
            if let Some(track) = self.publishers.get_mut(&publisher) {
                track.posts.remove(&at);
            }
        }
    }

    fn forget_publishers(&mut self) {
        if self.publishers.len() < MAX_PUBLISHERS {
            return;
        }
        let idle = self.publishers.iter().filter(|(_, t)| t.posts.is_empty());
        let oldest = idle.min_by_key(|(_, track)| track.at).map(|(id, _)| *id);
        let any = || self.order.front().map(|(id, ..)| *id);
        if let Some(publisher) = oldest.or_else(any) {
            self.publishers.remove(&publisher);
            let bytes = &mut self.bytes;
            self.order.retain(|(id, _, size, _)| {
                if *id == publisher {
                    *bytes -= size;
                }
                *id != publisher
            });
        }
    }

    /// How far each publisher is.
    pub(super) fn heads(&self) -> impl Iterator<Item = (&NodeId, Stamp)> {
        self.publishers.iter().map(|(id, track)| (id, track.head))
    }

    /// The last post of one publisher.
    pub(super) fn head(&self, publisher: &NodeId) -> Option<Stamp> {
        self.publishers.get(publisher).map(|track| track.head)
    }

    /// What came after `heard`, in order for each publisher, of `only` or of all;
    /// and whether there is more than fits one answer.
    pub(super) fn after(&self, heard: &Heard, only: Option<NodeId>) -> (Vec<wire::Signed>, bool) {
        let (mut out, mut bytes) = (Vec::new(), 0);
        let wanted = |id: &NodeId| only.is_none_or(|only| only == *id);
        for (id, track) in self.publishers.iter().filter(|(id, _)| wanted(id)) {
            let last = heard.get(id).copied().unwrap_or_default();
            for (_, post) in track.posts.range(last..).filter(|(at, _)| **at > last) {
                bytes += post.encoded_len() + 8;
                if bytes > limits::FRAME / 2 {
                    return (out, true);
                }
                out.push(post.clone());
            }
        }
        (out, false)
    }

    /// What became of a batch that ended with `last`, if it went all the way.
    pub(super) fn done(&self, publisher: &NodeId, last: Stamp) -> Option<wire::PostsReply> {
        let (done, reply) = self.publishers.get(publisher)?.done.as_ref()?;
        (*done >= last).then_some(*reply)
    }

    /// A batch went all the way.
    pub(super) fn set_done(&mut self, publisher: &NodeId, last: Stamp, reply: wire::PostsReply) {
        if let Some(track) = self.publishers.get_mut(publisher)
            && track.done.as_ref().is_none_or(|(before, _)| *before < last)
        {
            track.done = Some((last, reply));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Of its own: what came in shares the buffer of all that came with it.
fn copy(signed: &wire::Signed) -> wire::Signed {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    wire::Signed {
        body: copy(&signed.body),
        signer: copy(&signed.signer),
        signature: copy(&signed.signature),
    }
}

#[cfg(test)]
mod tests {
    use super::super::posts::tests::post;
    use super::*;

    fn batch(secret: u8, numbers: &[u64]) -> Batch {
        let posts: Vec<_> = numbers.iter().map(|n| post(secret, "t", 1, *n)).collect();
        Batch::open(&posts, "net").unwrap()
    }

    #[test]
    fn what_came_after_is_told_in_order_and_once() {
        let mut history = History::default();
        let now = Instant::now();
        history.insert(&batch(1, &[1, 2, 3]), now);
        history.insert(&batch(2, &[1]), now);
        history.insert(&batch(1, &[3, 4]), now);
        let one = batch(1, &[1]).publisher;
        let at = |number| Stamp { run: 1, number };
        let heard = Heard::from([(one, at(2))]);
        let (posts, more) = history.after(&heard, Some(one));
        assert_eq!(
            (Batch::open(&posts, "net").unwrap().last(), more),
            (at(4), false)
        );
        assert_eq!(posts.len(), 2);
        assert_eq!(history.after(&heard, None).0.len(), 3);
        assert_eq!(history.head(&one), Some(at(4)));
        history.expire(now + KEEP);
        assert!(history.after(&heard, None).0.is_empty());
        assert_eq!((history.bytes(), history.heads().count()), (0, 2));
    }

    #[test]
    fn a_topic_keeps_so_many_posts_and_no_more() {
        let mut history = History::default();
        let now = Instant::now();
        let numbers: Vec<u64> = (1..=MAX_POSTS as u64 + 60).collect();
        for numbers in numbers.chunks(50) {
            history.insert(&batch(1, numbers), now);
        }
        let (posts, _) = history.after(&Heard::new(), None);
        assert_eq!(posts.len(), MAX_POSTS);
        assert_eq!(history.order.len(), MAX_POSTS);
    }

    #[test]
    fn a_batch_that_went_all_the_way_is_remembered() {
        let mut history = History::default();
        let batch = batch(1, &[1, 2]);
        history.insert(&batch, Instant::now());
        assert_eq!(history.done(&batch.publisher, batch.last()), None);
        let reply = wire::PostsReply {
            reached: 3,
            ..Default::default()
        };
        history.set_done(&batch.publisher, batch.last(), reply);
        assert_eq!(history.done(&batch.publisher, batch.first()), Some(reply));
    }
}
