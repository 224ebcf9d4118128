//! What watchers of a control plane cost those who read: reads a second while a
//! hundred watch the load, ten of whom do not read what they are sent, against reads
//! while nobody watches, taking turns in one run; and what memory grows by.
//!
//! `cargo bench -p canopy-leaf --bench watchers`; prints medians and their ratio.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canopy_leaf::{Builder, Hash, Identity, Leaf, PeerAddr, Preset, Stand, Topology};
use canopy_proto::control::control_client::ControlClient;
use canopy_proto::control::{LoadSample, WatchLoadRequest};
use canopy_supernode::control::{Control, ControlConfig};
use canopy_supernode::designation::{Designation, Terms};
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Channel;

const HOSTS: u8 = 3;
const WATCHERS: usize = 100;
const IDLE: usize = 10;
/// Streams a connection; a tool or a page would have a few.
const SHARED: usize = 10;
/// Reads under way at a time.
const DEPTH: usize = 16;
const ROUNDS: usize = 9;
const PHASE: Duration = Duration::from_secs(3);
/// As often as may be asked for.
const EVERY_MS: u32 = 500;
/// Bytes that who does not read is sent before its stream waits.
const WINDOW: u32 = 2048;

fn common(builder: Builder, operator: &Identity) -> Builder {
    let builder = builder.network("bench").topology(Topology::Hybrid);
    builder.operator(operator.node_id()).preset(Preset::Local)
}

/// A super-node that serves from the start.
async fn host(operator: &Identity, secret: u8, known: Option<&PeerAddr>) -> Leaf {
    let identity = Identity::from_secret([secret; 32]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let terms = Terms {
        network: "bench".into(),
        node: identity.node_id(),
        capacity_bps: 100_000_000,
        days: 1,
        zone: String::new(),
    };
    let made = Designation::sign(operator, &terms, None, now.as_millis() as u64).unwrap();
    let builder = Leaf::builder().identity(identity);
    let mut builder = builder.designation(made.signed().clone());
    if let Some(known) = known {
        builder = builder.peer(known.clone());
    }
    common(builder, operator).start().await.unwrap()
}

/// Reads for a while: how many a second.
async fn reads(leaf: &Leaf, hash: Hash) -> f64 {
    let until = Instant::now() + PHASE;
    let lanes = (0..DEPTH).map(|_| async {
        let mut done = 0_u64;
        while Instant::now() < until {
            assert!(leaf.get_content(hash).await.unwrap().is_some());
            done += 1;
        }
        done
    });
    let done: u64 = futures_util::future::join_all(lanes).await.iter().sum();
    done as f64 / PHASE.as_secs_f64()
}

/// Watchers of one control plane, until this is dropped.
struct Watchers {
    reading: JoinSet<()>,
    _idle: Vec<Streaming<LoadSample>>,
}

impl Watchers {
    async fn open(addr: SocketAddr, samples: &Arc<AtomicU64>) -> Self {
        let mut watchers = Self {
            reading: JoinSet::new(),
            _idle: Vec::new(),
        };
        for n in 0..WATCHERS / SHARED {
            let endpoint = Channel::from_shared(format!("http://{addr}")).unwrap();
            let endpoint = endpoint.initial_stream_window_size(WINDOW);
            let channel = endpoint.connect().await.unwrap();
            for _ in 0..SHARED {
                let mut client = ControlClient::new(channel.clone());
                let request = WatchLoadRequest {
                    interval_ms: EVERY_MS,
                };
                let mut stream = client.watch_load(request).await.unwrap().into_inner();
                if n < IDLE / SHARED {
                    watchers._idle.push(stream);
                    continue;
                }
                let samples = samples.clone();
                watchers.reading.spawn(async move {
                    while let Ok(Some(_)) = stream.message().await {
                        samples.fetch_add(1, Relaxed);
                    }
                });
            }
        }
        watchers
    }
}

/// Resident memory of this process, bytes; 0 where the system does not tell it so.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let operator = Identity::from_secret([8; 32]);
    let first = host(&operator, 20, None).await;
    let peer: PeerAddr = first.status().listen.to_string().parse().unwrap();
    let mut hosts = vec![first];
    for n in 1..HOSTS {
        hosts.push(host(&operator, 20 + n, Some(&peer)).await);
    }
    while hosts
        .iter()
        .any(|host| host.status().super_node_count != u32::from(HOSTS))
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reader = Leaf::builder().peer(peer).stand(Stand::Never);
    let reader = common(reader, &operator).start().await.unwrap();
    let hash = reader.put_content(vec![7; 200]).await.unwrap();
    let control = Control::bind(ControlConfig::default()).await.unwrap();
    let addr = control.addr();
    let serving = tokio::spawn(control.serve(hosts[0].node().clone(), std::future::pending()));

    let samples = Arc::new(AtomicU64::new(0));
    reads(&reader, hash).await;
    let begun = resident();
    let (mut without, mut with, mut ratios, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let alone = reads(&reader, hash).await;
        let watchers = Watchers::open(addr, &samples).await;
        let watched = reads(&reader, hash).await;
        most = most.max(resident());
        drop(watchers);
        without.push(alone);
        with.push(watched);
        ratios.push(watched / alone);
    }
    println!(
        "reads a second: {:.0} alone, {:.0} with {WATCHERS} watchers ({IDLE} of them not reading), ratio {:.3}",
        median(without),
        median(with),
        median(ratios)
    );
    println!(
        "{} samples were read; memory grew by {:.1} MB to {:.1} MB",
        samples.load(Relaxed),
        most.saturating_sub(begun) as f64 / 1e6,
        most as f64 / 1e6
    );
    serving.abort();
    reader.close().await;
    for host in hosts {
        host.close().await;
    }
}
