//! The upload limit: grants bytes at a rate, in the order in which they are asked
//! for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Time that nobody used is not saved up for longer.
const BURST: Duration = Duration::from_millis(50);

/// A rate for all uploads of a leaf together.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; `None`: unlimited.
    rate: Option<u64>,
    /// When what was granted has gone out.
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bits_per_second: Option<u64>) -> Self {
        Self {
            rate: bits_per_second.map(|bits| (bits / 8).max(1)),
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may go out.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(rate) = self.rate else {
            return;
        };
        let at = {
            let mut free = self.free.lock();
            let now = Instant::now();
            let begin = (*free).max(now.checked_sub(BURST).unwrap_or(now));
            *free = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn all_who_take_share_one_rate() {
        let pace = Pace::new(Some(8_000_000));
        let begun = Instant::now();
        let takes = (0..10).map(|_| async {
            for _ in 0..10 {
                pace.take(10_000).await;
            }
        });
        join_all(takes).await;
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(940), "{took:?}");
        assert!(took < Duration::from_millis(1010), "{took:?}");
        Pace::new(None).take(usize::MAX).await;
    }
}
