//! Soft state kept up: what is said again, and what is dropped.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use canopy_core::keyspace::keys;
use canopy_core::placement::R;
use canopy_overlay::calls::Calls;
use tokio::sync::Semaphore;

use super::super::Inner;
use super::RENEW;
use super::registry::Topic;

/// How often it is looked whether the owners of topics have changed.
const LOOK: Duration = Duration::from_millis(500);
/// How often what is over is dropped, in looks.
const SWEEP: u32 = 10;
/// Topics that are said again at a time.
const AT_ONCE: usize = 32;
/// Times that a home asks on for what it missed.
const ROUNDS: usize = 32;

/// Runs until the router is gone.
pub(in super::super) async fn keep<C: Calls>(router: Weak<Inner<C>>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        ticks.tick().await;
        let Some(inner) = router.upgrade() else {
            return;
        };
        if !inner.serves(&inner.me()) {
            inner.registry.clear();
            inner.owned.clear();
            continue;
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(SWEEP) {
            inner.owned.sweep();
            for topic in inner.registry.sweep(Instant::now()) {
                tokio::spawn(Arc::clone(&inner).end(topic));
            }
        }
        for topic in inner.registry.topics() {
            if inner.is_due(&topic) && !topic.renewing.swap(true, Relaxed) {
                let (inner, turns) = (Arc::clone(&inner), Arc::clone(&turns));
                tokio::spawn(async move {
                    // It is never closed.
                    let _turn = turns.acquire().await;
                    inner.say_again(&topic).await;
                    topic.renewing.store(false, Relaxed);
                });
            }
        }
    }
}

impl<C: Calls> Inner<C> {
    /// Whether the owners of `topic` must hear of this home again. The first time
    /// is the business of whoever subscribed.
    fn is_due(&self, topic: &Topic) -> bool {
        let key = keys::topic(self.calls.network(), &topic.name);
        let owners = self.calls.placement().owners(&key, R);
        let standing = topic.standing.lock();
        let old = |said: Instant| said.elapsed() >= RENEW || standing.owners != owners;
        standing.said.is_some_and(old)
    }

    /// Says to the owners that this home wants the topic, and brings its leaves
    /// what they missed.
    async fn say_again(self: &Arc<Self>, topic: &Topic) {
        for _ in 0..ROUNDS {
            let told = self.ask_owners(topic, false, &topic.heard()).await;
            let Some((missed, more)) = told.map(|told| told.missed()) else {
                return;
            };
            for (id, posts) in missed {
                let publisher = topic.publisher(id);
                let _turn = publisher.turn.lock().await;
                let heard = *publisher.heard.lock();
                let new = |at| heard.is_none_or(|heard| at > heard);
                let posts: Vec<_> = posts.into_iter().filter(|post| new(post.at)).collect();
                if posts.is_empty() {
                    continue;
                }
                self.push_all(topic, &posts).await;
                *publisher.heard.lock() = posts.last().map(|post| post.at).max(heard);
            }
            if !more {
                return;
            }
        }
    }
}
