//! Posts, checked: the one place where a batch from outside is opened.

use std::collections::HashMap;

use canopy_core::identity::{Domain, open};
use canopy_core::keyspace::NodeId;
use canopy_proto::{limits, wire};

/// Most posts of one request.
pub const MAX_POSTS: usize = 64;

/// Where a post stands among its publisher's in one topic: later ones are
/// greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Run of the publisher.
    pub run: u64,
    /// Number within the run, from 1.
    pub number: u64,
}

impl Stamp {
    /// How many posts are known to lie between `self`, the last one heard, and
    /// `next`; of runs in between nothing is known.
    pub fn missed_before(self, next: Stamp) -> u64 {
        let last = match self.run == next.run {
            true => self.number,
            false => 0,
        };
        next.number.saturating_sub(last.saturating_add(1))
    }
}

/// A post whose signature was checked.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// Where it stands.
    pub at: Stamp,
    /// What was signed.
    pub body: wire::Post,
    /// As it was signed.
    pub signed: wire::Signed,
}

/// Posts of one publisher to one topic, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Who signed them.
    pub publisher: NodeId,
    /// What they are about.
    pub topic: String,
    /// At least one, each later than the one before.
    pub posts: Vec<Stamped>,
}

impl Batch {
    /// Checks signatures, sizes and order.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(posts: &[wire::Signed], network: &str) -> Result<Self, &'static str> {
        if posts.is_empty() || posts.len() > MAX_POSTS {
            return Err("send 1 to 64 posts at a time");
        }
        let mut batch: Option<Batch> = None;
        for signed in posts {
            let opened = open::<wire::Post>(Domain::Post, signed);
            let (publisher, body) = opened.map_err(|_| "a post is not signed by its publisher")?;
            let at = Stamp {
                run: body.run,
                number: body.number,
            };
            if body.network != network || !is_topic(&body.topic) || body.number == 0 {
                return Err("a post is of another network, or has no topic or number");
            }
            if body.data.len() > limits::POST {
                return Err("a post is over 32 KiB");
            }
            let batch = batch.get_or_insert_with(|| Batch {
                publisher,
                topic: body.topic.clone(),
                posts: Vec::with_capacity(posts.len()),
            });
            if batch.publisher != publisher || batch.topic != body.topic {
                return Err("posts of several topics or publishers at once");
            }
            if batch.posts.last().is_some_and(|before| before.at >= at) {
                return Err("posts out of order");
            }
            let signed = signed.clone();
            batch.posts.push(Stamped { at, body, signed });
        }
        batch.ok_or("no posts")
    }

    /// The first one.
    pub fn first(&self) -> Stamp {
        self.posts.first().map_or_else(Stamp::default, |p| p.at)
    }

    /// The last one.
    pub fn last(&self) -> Stamp {
        self.posts.last().map_or_else(Stamp::default, |p| p.at)
    }

    /// As they were signed.
    pub fn signed(&self) -> Vec<wire::Signed> {
        self.posts.iter().map(|post| post.signed.clone()).collect()
    }
}

/// Whether a topic may be called so.
pub fn is_topic(name: &str) -> bool {
    (1..=limits::TOPIC).contains(&name.len())
}

/// Who was heard how far.
pub type Heard = HashMap<NodeId, Stamp>;

/// Entries that name nobody are left out.
pub fn heard_from_wire(heard: &[wire::Heard]) -> Heard {
    let known = heard.iter().filter_map(|heard| {
        let publisher = NodeId::from_slice(&heard.publisher)?;
        let (run, number) = (heard.run, heard.number);
        Some((publisher, Stamp { run, number }))
    });
    known.collect()
}

/// For a message.
pub fn heard_to_wire<'a>(heard: impl IntoIterator<Item = (&'a NodeId, Stamp)>) -> Vec<wire::Heard> {
    let told = heard.into_iter().map(|(publisher, at)| wire::Heard {
        publisher: publisher.to_bytes(),
        run: at.run,
        number: at.number,
    });
    told.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use canopy_core::identity::Identity;

    use super::*;

    pub(crate) fn post(secret: u8, topic: &str, run: u64, number: u64) -> wire::Signed {
        let body = wire::Post {
            network: "net".into(),
            topic: topic.into(),
            run,
            number,
            sent_ms: 0,
            data: Bytes::from_static(b"data"),
        };
        Identity::from_secret([secret; 32]).sign(Domain::Post, &body)
    }

    #[test]
    fn a_batch_is_of_one_publisher_and_topic_in_order() {
        let open = |posts: &[wire::Signed]| Batch::open(posts, "net");
        let good = [post(1, "t", 5, 1), post(1, "t", 5, 2), post(1, "t", 6, 1)];
        let batch = open(&good).unwrap();
        assert_eq!((batch.topic.as_str(), batch.posts.len()), ("t", 3));
        assert_eq!(batch.last(), Stamp { run: 6, number: 1 });
        assert!(open(&[]).is_err());
        assert!(open(&[post(1, "t", 5, 2), post(1, "t", 5, 2)]).is_err());
        assert!(open(&[post(1, "t", 5, 1), post(2, "t", 5, 2)]).is_err());
        assert!(open(&[post(1, "t", 5, 1), post(1, "u", 5, 2)]).is_err());
        assert!(open(&[post(1, "", 5, 1)]).is_err());
        assert!(open(&[post(1, "t", 5, 0)]).is_err());
        assert!(Batch::open(&good, "other").is_err());
        let mut forged = post(1, "t", 5, 1);
        forged.signer = post(2, "t", 5, 1).signer;
        assert!(open(&[forged]).is_err());
    }

    #[test]
    fn gaps_are_counted_within_a_run() {
        let at = |run, number| Stamp { run, number };
        assert_eq!(at(1, 4).missed_before(at(1, 5)), 0);
        assert_eq!(at(1, 4).missed_before(at(1, 8)), 3);
        assert_eq!(at(1, 4).missed_before(at(2, 1)), 0);
        assert_eq!(at(1, 4).missed_before(at(2, 3)), 2);
    }
}
