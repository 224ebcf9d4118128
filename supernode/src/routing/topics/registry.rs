//! Who subscribed to what at this home.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;

use super::LEASE;
use super::posts::{Heard, Stamp};

/// Topics of one home: each is said again to three owners every few seconds.
const MAX_TOPICS: usize = 4096;
/// Topics of one leaf.
const MAX_OF_LEAF: usize = 64;
/// Publishers of one topic whose posts are kept in order.
const MAX_PUBLISHERS: usize = 1024;
/// How long a leaf that did not take its posts in time is not served.
const PAUSE: Duration = Duration::from_secs(30);
/// Such leaves remembered.
const MAX_PAUSED: usize = 4096;

#[derive(Debug, Default)]
pub(in super::super) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Arc<Topic>>,
    /// Subscriptions of each leaf.
    counts: HashMap<NodeId, usize>,
    paused: HashMap<NodeId, Instant>,
}

/// A topic that leaves of this home subscribed to.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    leaves: Mutex<HashMap<NodeId, Arc<Leaf>>>,
    publishers: Mutex<HashMap<NodeId, Arc<Publisher>>>,
    pub(super) standing: Mutex<Standing>,
    pub(super) renewing: AtomicBool,
}

/// How the topic's owners know of this home.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) owners: Vec<NodeId>,
    /// `None`: they were never asked.
    pub(super) said: Option<Instant>,
}

/// A subscribing leaf.
#[derive(Debug)]
pub(super) struct Leaf {
    until: Mutex<Instant>,
    /// Held for writing while the leaf is told what it missed: what is posted
    /// meanwhile waits, so that it comes after.
    pub(super) gate: Arc<tokio::sync::RwLock<()>>,
}

/// A publisher, as this home hears it.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    /// Held while a batch goes to the leaves: one after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// The last post that went to all leaves.
    pub(super) heard: Mutex<Option<Stamp>>,
}

impl Topic {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            leaves: Mutex::default(),
            publishers: Mutex::default(),
            standing: Mutex::default(),
            renewing: AtomicBool::new(false),
        }
    }

    pub(super) fn leaves(&self) -> Vec<(NodeId, Arc<Leaf>)> {
        let leaves = self.leaves.lock();
        leaves.iter().map(|(id, l)| (*id, Arc::clone(l))).collect()
    }

    pub(super) fn publisher(&self, id: NodeId) -> Arc<Publisher> {
        let mut all = self.publishers.lock();
        if !all.contains_key(&id) && all.len() >= MAX_PUBLISHERS {
            let idle = all.iter().find(|(_, p)| Arc::strong_count(p) == 1);
            if let Some(idle) = idle.map(|(id, _)| *id) {
                all.remove(&idle);
            }
        }
        Arc::clone(all.entry(id).or_default())
    }

    /// How far each publisher was heard by all leaves.
    pub(super) fn heard(&self) -> Heard {
        let all = self.publishers.lock();
        let heard = all.iter();
        heard
            .filter_map(|(id, publisher)| Some((*id, (*publisher.heard.lock())?)))
            .collect()
    }

    /// Where publishers stand that this home has not heard yet.
    pub(super) fn note_heads(&self, heads: &Heard) {
        for (id, head) in heads {
            self.publisher(*id).heard.lock().get_or_insert(*head);
        }
    }
}

impl Registry {
    /// A subscription of `leaf`; what was there of it is replaced.
    pub(super) fn add(
        &self,
        topic: &str,
        leaf: NodeId,
        now: Instant,
    ) -> Result<(Arc<Topic>, Arc<Leaf>), &'static str> {
        let mut state = self.state.lock();
        if state.paused.get(&leaf).is_some_and(|until| now < *until) {
            return Err("this leaf did not take its posts in time; try again in half a minute");
        }
        let known = state.topics.get(topic).map(Arc::clone);
        let had = |topic: &Arc<Topic>| topic.leaves.lock().contains_key(&leaf);
        let new = !known.as_ref().is_some_and(had);
        let count = state.counts.get(&leaf).copied().unwrap_or(0);
        if new && count >= MAX_OF_LEAF {
            return Err("a leaf may subscribe to 64 topics at a time");
        }
        if known.is_none() && state.topics.len() >= MAX_TOPICS {
            return Err("this home has as many topics as it may; try another");
        }
        let topic = known.unwrap_or_else(|| {
            let new = Arc::new(Topic::new(topic));
            state.topics.insert(topic.to_owned(), Arc::clone(&new));
            new
        });
        state.counts.insert(leaf, count + usize::from(new));
        let entry = Arc::new(Leaf {
            until: Mutex::new(now + LEASE),
            gate: Arc::default(),
        });
        topic.leaves.lock().insert(leaf, Arc::clone(&entry));
        Ok((topic, entry))
    }

    /// Prolongs a subscription; false: there is none.
    pub(super) fn renew(&self, topic: &str, leaf: &NodeId, now: Instant) -> bool {
        let Some(topic) = self.get(topic) else {
            return false;
        };
        let leaves = topic.leaves.lock();
        let found = leaves.get(leaf);
        found.is_some_and(|entry| {
            *entry.until.lock() = now + LEASE;
            true
        })
    }

    /// Ends a subscription, if it is still `entry` where one is given; true: it
    /// was the topic's last.
    pub(super) fn remove(&self, topic: &str, leaf: &NodeId, entry: Option<&Arc<Leaf>>) -> bool {
        let mut state = self.state.lock();
        let Some(known) = state.topics.get(topic).map(Arc::clone) else {
            return false;
        };
        let mut leaves = known.leaves.lock();
        let same = |held: &Arc<Leaf>| entry.is_none_or(|entry| Arc::ptr_eq(held, entry));
        if !leaves.get(leaf).is_some_and(same) {
            return false;
        }
        leaves.remove(leaf);
        if let Some(count) = state.counts.get_mut(leaf) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(leaf);
            }
        }
        let last = leaves.is_empty();
        if last {
            state.topics.remove(topic);
        }
        last
    }

    /// A leaf did not take its posts in time.
    pub(super) fn pause(&self, leaf: NodeId, now: Instant) {
        let mut state = self.state.lock();
        state.paused.retain(|_, until| now < *until);
        if state.paused.len() < MAX_PAUSED {
            state.paused.insert(leaf, now + PAUSE);
        }
    }

    pub(super) fn get(&self, topic: &str) -> Option<Arc<Topic>> {
        self.state.lock().topics.get(topic).map(Arc::clone)
    }

    pub(super) fn topics(&self) -> Vec<Arc<Topic>> {
        self.state.lock().topics.values().map(Arc::clone).collect()
    }

    /// Ends the subscriptions that were not said again; the topics that nobody
    /// here wants any more.
    pub(super) fn sweep(&self, now: Instant) -> Vec<String> {
        let mut ended = Vec::new();
        for topic in self.topics() {
            for (leaf, entry) in topic.leaves() {
                let over = *entry.until.lock() <= now;
                if over && self.remove(&topic.name, &leaf, Some(&entry)) {
                    ended.push(topic.name.clone());
                }
            }
        }
        ended
    }

    /// This node is no super-node any more.
    pub(super) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// Topics, and subscriptions to them.
    pub(in super::super) fn held(&self) -> (u64, u64) {
        let state = self.state.lock();
        let subscriptions: usize = state.counts.values().sum();
        (state.topics.len() as u64, subscriptions as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_counted_bounded_and_end() {
        let registry = Registry::default();
        let (now, leaf) = (Instant::now(), NodeId([1; 32]));
        for number in 0..MAX_OF_LEAF {
            registry.add(&number.to_string(), leaf, now).unwrap();
        }
        assert!(registry.add("more", leaf, now).is_err());
        let (_, first) = registry.add("0", leaf, now).unwrap();
        assert_eq!(registry.held(), (64, MAX_OF_LEAF as u64));
        let (_, second) = registry.add("0", leaf, now).unwrap();
        assert!(!registry.remove("0", &leaf, Some(&first)), "replaced");
        assert!(registry.remove("0", &leaf, Some(&second)));
        assert!(registry.renew("1", &leaf, now + LEASE / 2));
        let ended = registry.sweep(now + LEASE);
        assert!(!ended.contains(&"1".to_owned()));
        assert_eq!(registry.held().1, 1);
        assert!(registry.get("2").is_none() && registry.get("1").is_some());
    }

    #[test]
    fn a_leaf_that_stalled_is_left_alone_for_a_while() {
        let registry = Registry::default();
        let (now, leaf) = (Instant::now(), NodeId([1; 32]));
        registry.pause(leaf, now);
        assert!(registry.add("t", leaf, now).is_err());
        assert!(registry.add("t", NodeId([2; 32]), now).is_ok());
        assert!(registry.add("t", leaf, now + PAUSE).is_ok());
    }
}
