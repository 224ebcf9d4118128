//! Group commit: one thread takes every batch that waits, writes them as one
//! and syncs once. The next group gathers while the disk is busy, so groups
//! grow with the load and an idle store adds no wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::disk::Disk;
use super::{Change, Counted, Done, MAX_WAITING, StoreError};

/// Most bytes in one group: a commit that a waiting writer does not notice.
const MAX_GROUP: usize = 8 * 1024 * 1024;

struct Batch {
    changes: Vec<Change>,
    size: usize,
    done: Done,
}

#[derive(Debug)]
pub(super) struct Writer {
    /// Taken when the store is dropped; the thread then ends.
    queue: Mutex<Option<Sender<Batch>>>,
    waiting: Arc<AtomicUsize>,
    /// The first failure; the database takes no writes after it.
    failed: Arc<OnceLock<StoreError>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(disk: Arc<Disk>, counted: Counted) -> Result<Self, StoreError> {
        let (queue, batches) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(OnceLock::new());
        let (freed, fails) = (Arc::clone(&waiting), Arc::clone(&failed));
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&disk, &batches, &freed, &fails, &counted))
            .map_err(|error| StoreError::Io {
                path: "the writer thread".into(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            waiting,
            failed,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.get().cloned()
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed) as u64
    }

    pub(super) fn queue(&self, changes: Vec<Change>, done: Done) {
        let size = changes.iter().map(Change::size).sum();
        if self.waiting.fetch_add(size, Ordering::Relaxed) + size > MAX_WAITING {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return done(Err(StoreError::Busy));
        }
        let batch = Batch {
            changes,
            size,
            done,
        };
        let sent = match &*self.queue.lock() {
            Some(queue) => queue.send(batch).map_err(|unsent| unsent.0),
            None => Err(batch),
        };
        if let Err(batch) = sent {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            (batch.done)(Err(StoreError::Closed));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

fn run(
    disk: &Disk,
    batches: &Receiver<Batch>,
    waiting: &AtomicUsize,
    failed: &OnceLock<StoreError>,
    counted: &Counted,
) {
    while let Ok(first) = batches.recv() {
        let mut size = first.size;
        let mut group = vec![first];
        while size < MAX_GROUP
            && let Ok(next) = batches.try_recv()
        {
            size += next.size;
            group.push(next);
        }
        let changes = group.iter_mut().flat_map(|batch| batch.changes.drain(..));
        let began = Instant::now();
        let result = disk.commit(changes);
        counted.commits.record(began.elapsed().as_secs_f64());
        match &result {
            Ok(()) => counted.written.increment(size as u64),
            Err(error) => {
                tracing::error!(%error, batches = group.len(), "writing records failed");
                counted.failures.increment(1);
                failed.get_or_init(|| error.clone());
            }
        }
        waiting.fetch_sub(size, Ordering::Relaxed);
        for batch in group {
            (batch.done)(result.clone());
        }
    }
}
