//! The task that owns the core.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use canopy_core::node::{Core, Input};
use canopy_core::time::Time;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::carry::Carrier;
use super::{Command, Inner, Permits, file};

/// Inputs taken in one go before timers and outputs have their turn.
const BURST: usize = 256;
/// A change of state is shown at most this much later.
const STATUS_AFTER: Duration = Duration::from_millis(50);
/// The roster is written at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The core and what it needs to act.
pub(super) struct Task {
    inner: Arc<Inner>,
    core: Core,
    receiver: mpsc::UnboundedReceiver<Command>,
    carrier: Carrier,
    roster_file: Option<PathBuf>,
    save_at: Option<Instant>,
    status_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(
        inner: Arc<Inner>,
        core: Core,
        receiver: mpsc::UnboundedReceiver<Command>,
        permits: Permits,
        roster_file: Option<PathBuf>,
    ) -> Self {
        let carrier = Carrier::new(inner.clone(), permits);
        Self {
            inner,
            core,
            receiver,
            carrier,
            roster_file,
            save_at: None,
            status_at: None,
        }
    }

    /// Runs until the peer is closed.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BURST);
        let done = loop {
            self.carry_out();
            let wake = self.wake_at();
            tokio::select! {
                count = self.receiver.recv_many(&mut batch, BURST) => {
                    if count == 0 {
                        break None;
                    }
                }
                () = sleep_until(wake) => {}
            }
            let now = self.inner.now();
            if !batch.is_empty() || self.core.next_timeout().is_some_and(|at| at <= now.at) {
                self.status_at
                    .get_or_insert_with(|| Instant::now() + STATUS_AFTER);
            }
            if let Some(done) = self.take(&mut batch) {
                break Some(done);
            }
            self.core.timeout(self.inner.now());
            self.tell_status();
            self.save_if_due().await;
        };
        self.carry_out();
        self.save().await;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn take(&mut self, batch: &mut Vec<Command>) -> Option<oneshot::Sender<()>> {
        for command in batch.drain(..) {
            let now = self.inner.now();
            match command {
                Command::Input(input) => {
                    if matches!(input, Input::Message { .. }) {
                        self.inner.inputs.messages.fetch_sub(1, Ordering::Relaxed);
                    }
                    self.core.handle(now, input);
                }
                Command::Dialled {
                    node,
                    addrs,
                    result,
                } => {
                    if let Some(input) = self.carrier.dialled(node, &addrs, result) {
                        self.core.handle(now, input);
                    }
                }
                Command::Look(look) => look(&self.core, now),
                Command::Close(done) => return Some(done),
            }
            self.carry_out();
        }
        None
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll() {
            if self.carrier.carry(output) {
                self.save_at
                    .get_or_insert_with(|| Instant::now() + SAVE_EVERY);
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let epoch = Instant::from_std(self.inner.epoch);
        let timer = self
            .core
            .next_timeout()
            .map(|Time(at)| epoch + Duration::from_micros(at));
        let far = Instant::now() + Duration::from_secs(3600);
        [timer, self.save_at, self.status_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    /// Shows the state to others, soon after it may have changed.
    fn tell_status(&mut self) {
        if self.status_at.is_some_and(|at| at <= Instant::now()) {
            self.status_at = None;
            self.inner
                .status
                .store(Arc::new(self.core.status(self.inner.now())));
        }
    }

    async fn save_if_due(&mut self) {
        if self.save_at.is_some_and(|at| at <= Instant::now()) {
            self.save().await;
        }
    }

    async fn save(&mut self) {
        self.save_at = None;
        if let Some(path) = &self.roster_file
            && let Err(error) = file::write(path, &self.core.save()).await
        {
            tracing::warn!(path = %path.display(), %error, "peer.save: the known super-nodes were not saved");
        }
    }
}
