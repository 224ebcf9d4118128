//! What an app does while processes die: it writes and reads without a pause,
//! and remembers everything that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_client::LeafClient;
use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::daemon::Daemon;

/// Time between two requests of one kind.
const PACE: Duration = Duration::from_millis(20);
/// Reads at a time when everything is read.
const AT_ONCE: usize = 16;

/// What was acknowledged: (publisher, name) and the value.
pub(crate) type Known = BTreeMap<(String, String), String>;

/// Requests that go on in the background.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Reads>,
    writer: JoinHandle<(Known, u32)>,
}

/// How the reads went.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) ok: u32,
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Reads {
    fn fail(&mut self, begin: Instant, name: &str, what: &str) {
        let after = begin.elapsed().as_secs_f64();
        self.failures
            .push(format!("{name} after {after:.1} s: {what}"));
    }
}

impl Traffic {
    /// Reads what is known, and writes new values named after `label`.
    pub(crate) fn start(daemon: &Daemon, known: &Known, label: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = daemon.client.clone();
        let reader = tokio::spawn(read(client.clone(), known.clone(), stop.clone()));
        let names = (daemon.node_id.clone(), label.to_owned());
        let writer = tokio::spawn(write(client, names, stop.clone()));
        Self {
            stop,
            reader,
            writer,
        }
    }

    /// Ends it: adds what was acknowledged to `known`, and fails if any read
    /// did not give the value it should have.
    pub(crate) async fn end(self, known: &mut Known) {
        self.stop.store(true, Ordering::Relaxed);
        let reads = self.reader.await.expect("the reader ends");
        let (written, refused) = self.writer.await.expect("the writer ends");
        println!(
            "       {} reads, the slowest {:?}; {} writes, {refused} refused",
            reads.ok,
            reads.slowest,
            written.len()
        );
        assert_eq!(reads.failures, Vec::<String>::new());
        assert!(reads.ok > 0 && !written.is_empty());
        known.extend(written);
    }
}

async fn read(mut client: LeafClient<Channel>, known: Known, stop: Arc<AtomicBool>) -> Reads {
    let mut reads = Reads::default();
    let begin = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    for ((publisher, name), value) in known.iter().cycle() {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let get = pb::GetRequest {
            publisher: publisher.clone(),
            name: name.clone(),
            ..pb::GetRequest::default()
        };
        let start = Instant::now();
        let reply = client.get(get).await;
        reads.slowest = reads.slowest.max(start.elapsed());
        match reply.map(|reply| reply.into_inner().value) {
            Ok(Some(found)) if found.data == value.as_bytes() => reads.ok += 1,
            Ok(other) => reads.fail(begin, name, &format!("{other:?}")),
            Err(error) => reads.fail(begin, name, &error.to_string()),
        }
    }
    reads
}

async fn write(
    mut client: LeafClient<Channel>,
    (publisher, label): (String, String),
    stop: Arc<AtomicBool>,
) -> (Known, u32) {
    let mut written = Known::new();
    let mut refused = 0;
    let mut pace = tokio::time::interval(PACE);
    for i in 0.. {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{label} {i}");
        let put = pb::PutRequest {
            name: name.clone(),
            data: name.clone().into_bytes(),
            ttl_s: 0,
        };
        match client.put(put).await {
            Ok(_) => drop(written.insert((publisher.clone(), name.clone()), name)),
            Err(_) => refused += 1,
        }
    }
    (written, refused)
}

/// Every known value is read from `daemon`.
pub(crate) async fn all_there(daemon: &Daemon, known: &Known) {
    let reads = known.iter().map(async |((publisher, name), value)| {
        let found = daemon.get(publisher, name).await;
        (name, value, found)
    });
    let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
    while let Some((name, value, found)) = reads.next().await {
        match found {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{name}"),
            Err(error) => {
                let (status, nodes) = (daemon.status().await, daemon.super_nodes().await);
                let own = status.node_id;
                panic!(
                    "{name}: {error}; {own} is {} and knows {nodes:?}",
                    status.role
                );
            }
        }
    }
}
