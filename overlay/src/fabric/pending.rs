//! Requests of ours that wait for their answer: a table of slots, reused.
//!
//! One timer a session serves all deadlines, so that a request costs no timer
//! of its own. A request is in exactly one slot from its start to its result.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use canopy_proto::wire::response;
use parking_lot::Mutex;

use super::error::{CloseReason, RequestError};

/// Bits of a request id that name the slot; the rest tell uses of it apart.
const SLOT_BITS: u32 = 12;
/// Most requests under way.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;
/// An idle table keeps at most this many slots.
const KEEP: usize = 16;

type Outcome = Result<response::Kind, RequestError>;

/// See the module.
#[derive(Debug)]
pub(super) struct Pending {
    table: Mutex<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    uses: u32,
    /// No deadline lies before this.
    earliest: Option<Instant>,
    closed: Option<CloseReason>,
}

#[derive(Debug)]
struct Slot {
    id: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting {
        deadline: Instant,
        waker: Option<Waker>,
    },
    Done(Outcome),
}

impl Pending {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            table: Mutex::default(),
            limit: limit.min(MAX_SLOTS),
        }
    }

    /// Opens a slot; the request id to send.
    pub(super) fn start(&self, deadline: Instant) -> Result<u32, RequestError> {
        let mut table = self.table.lock();
        if let Some(reason) = &table.closed {
            return Err(RequestError::Closed(reason.clone()));
        }
        if table.in_flight >= self.limit {
            return Err(RequestError::Busy);
        }
        let state = State::Waiting {
            deadline,
            waker: None,
        };
        Ok(table.open(deadline, state))
    }

    /// The result of `id`, once; afterwards the slot is free.
    pub(super) fn poll(&self, id: u32, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut table = self.table.lock();
        match table.slot(id).map(|slot| &mut slot.state) {
            Some(State::Waiting { waker, .. }) => {
                match waker {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            Some(State::Done(_)) => match table.release(id) {
                Some(State::Done(outcome)) => Poll::Ready(outcome),
                _ => Poll::Ready(Err(RequestError::Malformed)),
            },
            _ => Poll::Ready(Err(RequestError::Malformed)),
        }
    }

    /// Gives up on `id`; whether its answer was still awaited.
    pub(super) fn forget(&self, id: u32) -> bool {
        matches!(self.table.lock().release(id), Some(State::Waiting { .. }))
    }

    /// Hands an outcome to whoever waits for `id`. Late answers are dropped.
    pub(super) fn finish(&self, id: u32, outcome: Outcome) {
        let mut table = self.table.lock();
        let waker = table.slot(id).and_then(|slot| slot.finish(outcome));
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// When [`Self::expire`] must be called at the latest.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.table.lock().earliest
    }

    /// Ends every request whose deadline has passed; their ids.
    pub(super) fn expire(&self, now: Instant) -> Vec<u32> {
        let mut expired = Vec::new();
        let mut wakers = Vec::new();
        let mut table = self.table.lock();
        let mut earliest = None;
        for slot in &mut table.slots {
            let State::Waiting { deadline, .. } = slot.state else {
                continue;
            };
            if deadline <= now {
                expired.push(slot.id);
                wakers.extend(slot.finish(Err(RequestError::Deadline)));
            } else {
                earliest = Some(earliest.map_or(deadline, |e: Instant| e.min(deadline)));
            }
        }
        table.earliest = earliest;
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
        expired
    }

    /// Ends every request, and every one to come.
    pub(super) fn close(&self, reason: &CloseReason) {
        let mut table = self.table.lock();
        table.closed = Some(reason.clone());
        let failed: Vec<Waker> = table
            .slots
            .iter_mut()
            .filter_map(|slot| slot.finish(Err(RequestError::Closed(reason.clone()))))
            .collect();
        drop(table);
        failed.into_iter().for_each(Waker::wake);
    }

    /// Requests under way.
    pub(super) fn len(&self) -> usize {
        self.table.lock().in_flight
    }
}

impl Table {
    fn open(&mut self, deadline: Instant, state: State) -> u32 {
        self.in_flight += 1;
        self.uses = self.uses.wrapping_add(1);
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        let id = (self.uses << SLOT_BITS) | index;
        let slot = Slot { id, state };
        match self.slots.get_mut(index as usize) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        id
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        let index = id as usize & (MAX_SLOTS - 1);
        self.slots.get_mut(index).filter(|slot| slot.id == id)
    }

    fn release(&mut self, id: u32) -> Option<State> {
        let slot = self.slot(id)?;
        let state = std::mem::replace(&mut slot.state, State::Free);
        if matches!(state, State::Free) {
            return None;
        }
        self.in_flight -= 1;
        if self.in_flight == 0 && self.slots.len() > KEEP {
            self.slots = Vec::new();
            self.free = Vec::new();
        } else {
            self.free.push(id & (MAX_SLOTS as u32 - 1));
        }
        Some(state)
    }
}

impl Slot {
    /// The waker to call, if the slot was waiting.
    fn finish(&mut self, outcome: Outcome) -> Option<Waker> {
        let State::Waiting { waker, .. } = &mut self.state else {
            return None;
        };
        let waker = waker.take();
        self.state = State::Done(outcome);
        waker
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopy_proto::wire::Pong;
    use std::time::Duration;

    fn pong() -> Outcome {
        Ok(response::Kind::Pong(Pong::default()))
    }

    #[test]
    fn an_answer_reaches_its_own_request_only() {
        let pending = Pending::new(8);
        let cx = &mut Context::from_waker(Waker::noop());
        let soon = Instant::now() + Duration::from_secs(5);
        let (a, b) = (pending.start(soon).unwrap(), pending.start(soon).unwrap());
        pending.finish(b, pong());
        assert!(pending.poll(a, cx).is_pending());
        assert_eq!(pending.poll(b, cx), Poll::Ready(pong()));
        assert!(pending.forget(a));

        // The slot is used again; the answer to its earlier use is dropped.
        let c = pending.start(soon).unwrap();
        pending.finish(a, pong());
        assert!(pending.poll(c, cx).is_pending());
    }

    #[test]
    fn slots_are_bounded_and_come_back() {
        let pending = Pending::new(100);
        let soon = Instant::now() + Duration::from_secs(5);
        for _ in 0..3 {
            let ids: Vec<u32> = (0..100).map(|_| pending.start(soon).unwrap()).collect();
            assert_eq!(pending.start(soon), Err(RequestError::Busy));
            assert!(ids.into_iter().all(|id| pending.forget(id)));
            assert_eq!(pending.len(), 0);
        }
        assert!(pending.table.lock().slots.is_empty());
    }

    #[test]
    fn deadlines_expire_in_their_order() {
        let pending = Pending::new(8);
        let cx = &mut Context::from_waker(Waker::noop());
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let late = pending.start(at(9)).unwrap();
        let early = pending.start(at(3)).unwrap();
        assert_eq!(pending.earliest(), Some(at(3)));
        assert_eq!(pending.expire(at(4)), vec![early]);
        assert_eq!(
            pending.poll(early, cx),
            Poll::Ready(Err(RequestError::Deadline))
        );
        assert_eq!(pending.earliest(), Some(at(9)));
        pending.close(&CloseReason::TimedOut);
        let closed = RequestError::Closed(CloseReason::TimedOut);
        assert_eq!(pending.poll(late, cx), Poll::Ready(Err(closed.clone())));
        assert_eq!(pending.start(at(9)), Err(closed));
    }
}
