//! What waits to be written to a session: one buffer that every sender encodes
//! straight into, and that the session's task takes whole.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;

use super::frame::{FrameKind, HEADER, put_header};

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    buffer: BytesMut,
    /// Size of the batch before: the next buffer starts with as much, so that
    /// a busy session does not grow it step by step.
    last: usize,
    writer: Option<Waker>,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
        }
    }

    /// Queues a frame unless the queue is full, and wakes the writer. `size` is
    /// the message's encoded length.
    pub(super) fn push(
        &self,
        kind: FrameKind,
        id: u32,
        message: &impl Message,
        size: usize,
    ) -> Result<(), Full> {
        let mut state = self.state.lock();
        if !state.buffer.is_empty() && state.buffer.len() + HEADER + size > self.limit {
            return Err(Full);
        }
        state.append(kind, id, message, size);
        let waker = state.writer.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Queues an answer or a cancellation: bounded by the requests they belong
    /// to, and never refused.
    pub(super) fn push_bounded(
        &self,
        kind: FrameKind,
        id: u32,
        message: &impl Message,
        size: usize,
    ) {
        let mut state = self.state.lock();
        state.append(kind, id, message, size);
        let waker = state.writer.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// As [`Self::push_bounded`], from the session's own task, which looks at
    /// the queue anyway before it sleeps.
    pub(super) fn push_from_task(
        &self,
        kind: FrameKind,
        id: u32,
        message: &impl Message,
        size: usize,
    ) {
        self.state.lock().append(kind, id, message, size);
    }

    /// Bytes queued.
    pub(super) fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Everything queued, as one piece.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let mut state = self.state.lock();
        if state.buffer.is_empty() {
            match &state.writer {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => state.writer = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let batch = std::mem::take(&mut state.buffer);
        state.last = batch.len();
        Poll::Ready(batch.freeze())
    }
}

impl State {
    fn append(&mut self, kind: FrameKind, id: u32, message: &impl Message, size: usize) {
        if self.buffer.capacity() == 0 {
            let start = self.last.clamp(128, 16 * 1024);
            self.buffer.reserve(start.max(HEADER + size));
        } else {
            self.buffer.reserve(HEADER + size);
        }
        put_header(&mut self.buffer, kind, id, size);
        message.encode_raw(&mut self.buffer);
    }
}
