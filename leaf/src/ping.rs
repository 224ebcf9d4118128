//! Measuring the way to another leaf: a few bytes over a link, there and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_overlay::fabric::link::{Acceptor, Link, LinkError, Path, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What such links are opened for.
pub(crate) const PROTOCOL: &str = "canopy/ping/1";
/// Bytes there and back.
const SIZE: usize = 8;
/// Links that are answered at a time.
const MAX_LINKS: usize = 64;
/// Answers on one link: nobody measures for ever.
const MAX_ANSWERS: usize = 10_000;
/// A link on which nothing is asked for this long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// One round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// How long it took.
    pub round_trip: Duration,
    /// The path that was in use when the answer came.
    pub path: Path,
}

/// A link to measure by; it ends when this is dropped.
#[derive(Debug)]
pub struct Pinger {
    link: Link,
    send: SendStream,
    recv: RecvStream,
    count: u64,
}

impl Pinger {
    pub(crate) async fn open(link: Link) -> Result<Self, LinkError> {
        let (send, recv) = link.open().await?;
        Ok(Self {
            link,
            send,
            recv,
            count: 0,
        })
    }

    /// The link underneath.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// There and back, once.
    ///
    /// # Errors
    /// The link has ended, or no answer came within ten seconds.
    pub async fn ping(&mut self) -> Result<Pinged, LinkError> {
        self.count += 1;
        let (began, sent) = (Instant::now(), self.count.to_be_bytes());
        let broken = |error: String| LinkError::Broken(error);
        let work = async {
            let written = self.send.write_all(&sent).await;
            written.map_err(|error| broken(error.to_string()))?;
            let mut came = [0; SIZE];
            let read = self.recv.read_exact(&mut came).await;
            read.map_err(|error| broken(error.to_string()))?;
            match came == sent {
                true => Ok(()),
                false => Err(broken("the other leaf answered something else".into())),
            }
        };
        let peer = self.link.peer();
        let outcome = timeout(ANSWER, work).await;
        outcome.map_err(|_| LinkError::Timeout(peer))??;
        Ok(Pinged {
            round_trip: began.elapsed(),
            path: self.link.path(),
        })
    }
}

/// Answers whoever measures, until the leaf has no links any more.
pub(crate) async fn answer(mut acceptor: Acceptor) {
    let places = Arc::new(Semaphore::new(MAX_LINKS));
    while let Some(link) = acceptor.next().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            link.close("too many leaves measure the way here");
            continue;
        };
        tokio::spawn(async move {
            if let Err(error) = echo(&link).await {
                tracing::debug!(peer = ?link.peer(), %error, "ping.end");
            }
            drop(place);
        });
    }
}

async fn echo(link: &Link) -> Result<(), LinkError> {
    let broken = |error: String| LinkError::Broken(error);
    let silent = |_| broken("nothing was asked for long".into());
    let (mut send, mut recv) = timeout(IDLE, link.accept()).await.map_err(silent)??;
    for _ in 0..MAX_ANSWERS {
        let mut came = [0; SIZE];
        let read = timeout(IDLE, recv.read_exact(&mut came)).await;
        read.map_err(silent)?.map_err(|e| broken(e.to_string()))?;
        let written = send.write_all(&came).await;
        written.map_err(|error| broken(error.to_string()))?;
    }
    Ok(())
}
