//! From a put's writes to its acknowledgement.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use canopy_core::keyspace::Key;
use tokio::sync::oneshot;

use crate::store::{Change, Store, StoreError};

type Told = Result<(), StoreError>;

/// Resolves when all records of a put are on disk, or none of its writes will be.
#[derive(Debug)]
pub struct Ack(oneshot::Receiver<Told>);

impl Ack {
    /// Waits on this thread; not to be called from an async task.
    pub fn wait(self) -> Told {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Future for Ack {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        let told = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(told.unwrap_or(Err(StoreError::Closed)))
    }
}

/// The writes of one put, gathered to be one batch.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Vec<Change>,
    durable: Vec<Arc<AtomicBool>>,
}

impl Pending {
    /// One more record; `durable` is set when it is on disk.
    pub(super) fn push(&mut self, id: Key, bytes: Bytes, durable: Arc<AtomicBool>) {
        self.changes.push(Change::Put(id, bytes));
        self.durable.push(durable);
    }

    /// Queues the batch.
    pub(super) fn write(self, store: &Store) -> Ack {
        let (tell, told) = oneshot::channel();
        let durable = self.durable;
        let done = move |result: Told| {
            if result.is_ok() {
                for flag in durable {
                    flag.store(true, Ordering::Release);
                }
            }
            // The caller may have stopped waiting.
            let _ = tell.send(result);
        };
        match self.changes.is_empty() {
            true => done(Ok(())),
            false => store.write(self.changes, Box::new(done)),
        }
        Ack(told)
    }
}
