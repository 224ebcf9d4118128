//! Streams of load and events.
//!
//! A stream does its work when its reader takes something: one that does not read
//! holds what its connection buffers and nothing else, and costs no time. When it
//! reads again and is too far behind, it is told so and dropped.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_proto::control as pb;
use futures_util::stream::{self, StreamExt};
use pb::watch_events_reply::What;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tonic::Status;

use super::desk::Desk;
use super::log::{Log, Read};
use super::survey::{Picture, Seen};
use super::{convert, overview};
use crate::event::{Event, unix_ms};

/// Streams to all readers together.
const MAX_WATCHERS: usize = 256;
/// Milliseconds between two samples: usual, least, most.
const INTERVALS: (u32, u32, u32) = (1000, 500, 3_600_000);
/// Super-nodes in a sample.
const MAX_LOADS: usize = 1000;
/// Samples that a reader may miss...
const MISSED: u32 = 5;
/// ...and the time that it may be behind in any case.
const BEHIND: Duration = Duration::from_secs(10);

/// A stream to one reader.
pub(super) type Stream<T> = Pin<Box<dyn stream::Stream<Item = Result<T, Status>> + Send>>;

/// Admits a bounded number of streams, and ends them all when the control plane
/// closes.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    closed: watch::Receiver<bool>,
}

impl Gate {
    pub(super) fn new(closed: watch::Receiver<bool>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_WATCHERS)),
            closed,
        }
    }

    pub(super) fn admit<T: 'static>(&self, stream: Stream<T>) -> Result<Stream<T>, Status> {
        Ok(self.hold(self.place()?, stream))
    }

    /// Room for one stream.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_WATCHERS} watchers are there already; end one, or ask another host"
            ))
        })
    }

    /// `stream`, in the place that it holds until it ends.
    pub(super) fn hold<T: 'static>(
        &self,
        place: OwnedSemaphorePermit,
        stream: Stream<T>,
    ) -> Stream<T> {
        let mut closed = self.closed.clone();
        let close = async move {
            // An error says that the control plane is gone, which is the same.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        let held = stream.map(move |item| {
            let _ = &place;
            item
        });
        Box::pin(held.take_until(Box::pin(close)))
    }
}

/// What a node had done when it was last looked at.
#[derive(Clone, Copy, Debug)]
struct Before {
    uptime_us: u64,
    operations: u64,
    sent_bytes: u64,
    /// What was told then, operations and bits a second.
    rates: (f64, f64),
}

/// Makes samples; rates are from one to the next.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    before: HashMap<NodeId, Before>,
}

struct Loads {
    desk: Arc<Desk>,
    ticks: Interval,
    sampler: Sampler,
    due: Option<Instant>,
    over: bool,
}

/// A sample every interval.
pub(super) fn loads(
    desk: Arc<Desk>,
    request: &pb::WatchLoadRequest,
) -> Result<Stream<pb::LoadSample>, Status> {
    let (usual, least, most) = INTERVALS;
    let every = match request.interval_ms {
        0 => usual,
        ms if (least..=most).contains(&ms) => ms,
        ms => {
            return Err(Status::invalid_argument(format!(
                "interval_ms: {ms} is not within {least} and {most}"
            )));
        }
    };
    let mut ticks = interval(Duration::from_millis(every.into()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let loads = Loads {
        desk,
        ticks,
        sampler: Sampler::default(),
        due: None,
        over: false,
    };
    Ok(Box::pin(stream::unfold(loads, |mut loads| async move {
        let item = loads.next().await?;
        Some((item, loads))
    })))
}

impl Loads {
    async fn next(&mut self) -> Option<Result<pb::LoadSample, Status>> {
        if self.over {
            return None;
        }
        if let Some(slow) = self.behind() {
            self.over = true;
            return Some(Err(slow));
        }
        self.ticks.tick().await;
        let Some(picture) = self.desk.survey.take().await else {
            self.over = true;
            return Some(Err(Status::unavailable(
                "this peer is closing; ask another",
            )));
        };
        self.due = Some(Instant::now() + self.ticks.period());
        Some(Ok(self.sampler.sample(&picture)))
    }

    /// Whether the reader let too many samples pass.
    fn behind(&self) -> Option<Status> {
        let late = Instant::now().saturating_duration_since(self.due?);
        let period = self.ticks.period();
        (late > BEHIND.max(period * MISSED)).then(|| {
            let missed = late.as_millis() / period.as_millis().max(1);
            Status::resource_exhausted(format!(
                "this watcher did not read for {missed} samples and is dropped; watch again, with a longer interval_ms"
            ))
        })
    }
}

impl Sampler {
    /// Everybody's load now.
    pub(super) fn sample(&mut self, picture: &Picture) -> pb::LoadSample {
        let mut serving: Vec<&Seen> = picture.serving().collect();
        let busy = |seen: &Seen| {
            let figures = &seen.figures.as_ref()?.figures;
            Some(convert::worst(figures.utilisation.as_ref()?).0)
        };
        serving.sort_by_key(|seen| (std::cmp::Reverse(busy(seen)), seen.member.node));
        let before = std::mem::take(&mut self.before);
        let loads = serving
            .into_iter()
            .map(|seen| self.load(seen, before.get(&seen.member.node)));
        let loads: Vec<pb::NodeLoad> = loads.collect();
        pb::LoadSample {
            at_ms: unix_ms(),
            utilisation_milli: overview::utilisation(picture),
            imbalance: overview::imbalances(picture),
            super_nodes: loads.into_iter().take(MAX_LOADS).collect(),
            freshness: Some(convert::freshness(picture)),
        }
    }

    fn load(&mut self, seen: &Seen, before: Option<&Before>) -> pb::NodeLoad {
        let mut load = pb::NodeLoad {
            node_id: seen.member.node.to_string(),
            capacity_bps: seen.member.capacity_bps,
            ..Default::default()
        };
        let Some(known) = &seen.figures else {
            return load;
        };
        let figures = &known.figures;
        let mut now = Before {
            uptime_us: figures.uptime_us,
            operations: figures.operations.as_ref().map_or(0, convert::total),
            sent_bytes: figures.sent_bytes,
            rates: (figures.operations_per_s, figures.sent_bps),
        };
        now.rates = rates(&now, before);
        self.before.insert(seen.member.node, now);
        load.utilisation = figures.utilisation.as_ref().map(convert::utilisation);
        (load.operations_per_s, load.sent_bps) = now.rates;
        load.operations = now.operations;
        load.leaves = figures.leaves;
        load.records = figures.held.map_or(0, |held| held.records);
        load.age_ms = convert::age_ms(known);
        load
    }
}

/// Operations and bits a second since `before`; where there is none, or the peer
/// was started since, as it tells them itself.
fn rates(now: &Before, before: Option<&Before>) -> (f64, f64) {
    let Some(before) = before else {
        return now.rates;
    };
    if now.uptime_us == before.uptime_us {
        // The same figures once more.
        return before.rates;
    }
    let passed = now.uptime_us.checked_sub(before.uptime_us);
    let done = now.operations.checked_sub(before.operations);
    let sent = now.sent_bytes.checked_sub(before.sent_bytes);
    match (passed, done, sent) {
        (Some(passed), Some(done), Some(sent)) => {
            let seconds = passed as f64 / 1e6;
            (done as f64 / seconds, sent as f64 * 8.0 / seconds)
        }
        _ => now.rates,
    }
}

struct Reader {
    log: Arc<Log>,
    latest: watch::Receiver<u64>,
    revision: u64,
    waiting: VecDeque<pb::WatchEventsReply>,
    history_only: bool,
    over: bool,
}

/// History, and then what happens.
pub(super) fn events(
    log: Arc<Log>,
    request: &pb::WatchEventsRequest,
) -> Result<Stream<pb::WatchEventsReply>, Status> {
    let latest_change = log.latest();
    let (oldest, latest) = log.span();
    let same = request.log == 0 || request.log == log.id;
    if same && request.revision > latest {
        return Err(Status::out_of_range(format!(
            "revision {} has not been reached: the latest is {latest}; give `log` as well to be told of a restart",
            request.revision
        )));
    }
    let gone = !same || request.revision + 1 < oldest;
    let history = pb::History {
        log: log.id,
        oldest,
        latest,
        gone: gone && request.revision > 0,
    };
    let reader = Reader {
        revision: if gone { oldest - 1 } else { request.revision },
        log,
        latest: latest_change,
        waiting: VecDeque::from([pb::WatchEventsReply {
            what: Some(What::History(history)),
        }]),
        history_only: request.history_only,
        over: false,
    };
    Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    })))
}

impl Reader {
    async fn next(&mut self) -> Option<Result<pb::WatchEventsReply, Status>> {
        loop {
            if let Some(reply) = self.waiting.pop_front() {
                return Some(Ok(reply));
            }
            if self.over {
                return None;
            }
            self.latest.borrow_and_update();
            match self.log.after(self.revision) {
                Read::Gone(oldest) => {
                    self.over = true;
                    return Some(Err(Status::resource_exhausted(format!(
                        "this watcher did not read in time: events from {} to {} are gone; watch again after revision {}",
                        self.revision + 1,
                        oldest - 1,
                        oldest - 1
                    ))));
                }
                Read::Events(events) if !events.is_empty() => {
                    for (revision, event) in events {
                        self.revision = revision;
                        let what = Some(What::Event(self::event(revision, &event)));
                        self.waiting.push_back(pb::WatchEventsReply { what });
                    }
                }
                Read::Events(_) if self.history_only => return None,
                Read::Events(_) => self.latest.changed().await.ok()?,
            }
        }
    }
}

/// An event as the API tells it.
pub(super) fn event(revision: u64, of: &Event) -> pb::Event {
    let json = serde_json::to_value(of).unwrap_or_default();
    pb::Event {
        revision,
        at_ms: of.at_ms,
        name: json["event"].as_str().unwrap_or_default().to_owned(),
        text: of.kind.to_string(),
        json: json.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_time_between_two_samples_and_begin_anew_with_the_peer() {
        let at = |uptime_us, operations, sent_bytes| Before {
            uptime_us,
            operations,
            sent_bytes,
            rates: (7.0, 8.0),
        };
        let now = at(3_000_000, 500, 2_000);
        let before = at(1_000_000, 100, 1_000);
        assert_eq!(rates(&now, Some(&before)), (200.0, 4_000.0));
        assert_eq!(rates(&now, None), (7.0, 8.0));
        let restarted = at(900_000, 0, 0);
        assert_eq!(rates(&restarted, Some(&before)), (7.0, 8.0));
        let same = Before {
            rates: (1.0, 2.0),
            ..before
        };
        assert_eq!(rates(&before, Some(&same)), (1.0, 2.0));
    }

    #[tokio::test]
    async fn readers_beyond_the_limit_are_refused_until_one_ends() {
        let (close, closed) = watch::channel(false);
        let gate = Gate::new(closed);
        let endless = || -> Stream<u8> { Box::pin(stream::pending()) };
        let mut all: Vec<Stream<u8>> = (0..MAX_WATCHERS)
            .map(|_| gate.admit(endless()).unwrap())
            .collect();
        let refused = gate.admit(endless()).err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        all.pop();
        let mut last = gate.admit(endless()).unwrap();
        close.send_replace(true);
        assert!(last.next().await.is_none());
    }
}
