//! What happened, numbered, so that a reader can go on where it was.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::event::{Event, Events, unix_ms};

/// Events kept.
pub(super) const KEPT: usize = 4096;
/// Events read in one go.
const BATCH: usize = 64;

/// A bounded history of events.
#[derive(Debug)]
pub(super) struct Log {
    /// Tells this history from those of other peers and earlier starts.
    pub(super) id: u64,
    state: Mutex<State>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first; the last one's revision is `latest`.
    events: VecDeque<Arc<Event>>,
    latest: u64,
}

impl State {
    /// The first revision that is kept; one more than the latest if none is.
    fn oldest(&self) -> u64 {
        self.latest + 1 - self.events.len() as u64
    }
}

/// What a reader gets.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// Events with their revisions; none: nothing new.
    Events(Vec<(u64, Arc<Event>)>),
    /// What follows is not kept any more; the oldest that is.
    Gone(u64),
}

impl Log {
    /// Writes down what happens from now on, until it happens no more.
    pub(super) fn of(happening: broadcast::Receiver<Event>) -> Arc<Self> {
        let log = Arc::new(Self::new(unix_ms()));
        let writer = Arc::downgrade(&log);
        tokio::spawn(async move {
            let mut events = Events::new(happening);
            while let Some(event) = events.next().await {
                match writer.upgrade() {
                    Some(log) => log.write(event),
                    None => return,
                }
            }
        });
        log
    }

    fn new(id: u64) -> Self {
        Self {
            id,
            state: Mutex::default(),
            latest: watch::Sender::new(0),
        }
    }

    fn write(&self, event: Event) {
        let latest = {
            let mut state = self.state.lock();
            if state.events.len() >= KEPT {
                state.events.pop_front();
            }
            state.events.push_back(Arc::new(event));
            state.latest += 1;
            state.latest
        };
        self.latest.send_replace(latest);
    }

    /// The first and the last revision that are kept.
    pub(super) fn span(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.oldest(), state.latest)
    }

    /// Changes with every event.
    pub(super) fn latest(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Some of what came after `revision`.
    pub(super) fn after(&self, revision: u64) -> Read {
        let state = self.state.lock();
        let oldest = state.oldest();
        if revision + 1 < oldest {
            return Read::Gone(oldest);
        }
        let skip = usize::try_from(revision + 1 - oldest).unwrap_or(usize::MAX);
        let events = state.events.iter().skip(skip).take(BATCH).cloned();
        Read::Events((revision + 1..).zip(events).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn written(count: u64) -> Log {
        let log = Log::new(1);
        for at_ms in 1..=count {
            let message = String::new();
            log.write(Event {
                at_ms,
                kind: EventKind::Warning { message },
            });
        }
        log
    }

    fn read(log: &Log, revision: u64) -> Vec<u64> {
        match log.after(revision) {
            Read::Events(events) => {
                assert!(
                    events
                        .iter()
                        .all(|(revision, event)| *revision == event.at_ms)
                );
                events.into_iter().map(|(revision, _)| revision).collect()
            }
            Read::Gone(oldest) => panic!("gone up to {oldest}"),
        }
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_is_told_what_is_gone() {
        assert_eq!(read(&written(0), 0), [] as [u64; 0]);
        assert_eq!(written(0).span(), (1, 0));
        let log = written(3);
        assert_eq!((read(&log, 0), read(&log, 2)), (vec![1, 2, 3], vec![3]));
        assert_eq!(read(&log, 3), [] as [u64; 0]);
        let log = written(KEPT as u64 + 10);
        assert_eq!(log.span(), (11, KEPT as u64 + 10));
        assert_eq!(log.after(9), Read::Gone(11));
        assert_eq!(read(&log, 10)[0], 11);
        assert_eq!(read(&log, 10).len(), BATCH);
    }
}
