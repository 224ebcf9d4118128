//! A topic with many subscribers, all peers real and in this one process: whether
//! every subscriber gets every post once and in order, how fast, and that a slow
//! subscriber slows its publisher and fills no memory.
//!
//! `cargo bench -p canopy-leaf --bench topic -- 1000 5`: subscribers, super-nodes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::keyspace::{Key, NodeId};
use canopy_leaf::{Builder, Identity, Leaf, PeerAddr, Preset, Stand, Subscription, Topology};
use canopy_overlay::calls::Calls;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

const TOPIC: &str = "news";
const PUBLISHERS: usize = 4;
/// Posts of each publisher.
const POSTS: u64 = 25;
const POST: usize = 1024;
/// Peers that start or subscribe at once.
const AT_ONCE: usize = 16;
/// Posts to a topic with one slow subscriber, and how long it takes over each.
const SLOW_POSTS: u64 = 200;
const SLOWNESS: Duration = Duration::from_millis(20);

fn common(builder: Builder, operator: &Identity) -> Builder {
    builder
        .network("bench")
        .topology(Topology::Hybrid)
        .operator(operator.node_id())
        .preset(Preset::Wan)
}

async fn super_node(operator: &Identity, secret: u8, peer: Option<&PeerAddr>) -> Leaf {
    let identity = Identity::from_secret([secret; 32]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let designation = Mandate {
        network: "bench".into(),
        term: u64::from(secret),
        candidate: identity.node_id(),
        basis: Basis::Designated,
        capacity_bps: 100_000_000,
        issued_ms: now_ms,
        expires_ms: now_ms + 3_600_000,
        beacon: Key::default(),
        ballots: Vec::new(),
        officer: operator.node_id(),
        assembly: Vec::new(),
        domain: String::new(),
        deputy: false,
    }
    .designate(operator);
    let mut builder = Leaf::builder().identity(identity).designation(designation);
    if let Some(peer) = peer {
        builder = builder.peer(peer.clone());
    }
    common(builder, operator).start().await.unwrap()
}

fn address(leaf: &Leaf) -> PeerAddr {
    leaf.status().listen.to_string().parse().unwrap()
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads all posts of a subscription; each publisher's come once and in order.
async fn read(mut posts: Subscription, count: usize, pause: Duration) {
    let mut last: BTreeMap<NodeId, u64> = BTreeMap::new();
    for _ in 0..count {
        let post = posts.next().await.expect("a subscriber that reads");
        let last = last.entry(post.publisher).or_insert(post.number - 1);
        assert_eq!((post.number, post.missed), (*last + 1, 0));
        *last = post.number;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Posts one after the other; how long each took.
async fn publish(leaf: &Leaf, topic: &str, count: u64, subscribers: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let posted = leaf.broadcast(topic, vec![7; POST]).await.unwrap();
        assert_eq!((posted.reached, posted.given_up), (subscribers, 0));
        took.push(begun.elapsed());
    }
    took
}

/// Resident memory of this process, MiB.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4 / 1024
}

fn quantile(took: &mut [Duration], of: f64) -> Duration {
    took.sort_unstable();
    let place = (took.len() as f64 * of) as usize;
    took[place.min(took.len() - 1)]
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let subscribers = numbers.next().unwrap_or(1000);
    let hosts = numbers.next().unwrap_or(5);
    let operator = Identity::from_secret([1; 32]);
    let mut super_nodes = vec![super_node(&operator, 9, None).await];
    let first = address(&super_nodes[0]);
    for secret in (10..).take(hosts - 1) {
        super_nodes.push(super_node(&operator, secret, Some(&first)).await);
    }
    until("all super-nodes know each other", || {
        let all = |leaf: &Leaf| leaf.node().placement().len() == hosts;
        super_nodes.iter().all(all)
    })
    .await;
    let begun = Instant::now();
    let peers: Vec<PeerAddr> = super_nodes.iter().map(address).collect();
    let leaves: Vec<Leaf> = stream::iter(0..subscribers)
        .map(|place| {
            let builder = Leaf::builder().peer(peers[place % hosts].clone());
            common(builder.stand(Stand::Never), &operator).start()
        })
        .buffer_unordered(AT_ONCE)
        .map(|leaf| leaf.unwrap())
        .collect()
        .await;
    until("all leaves have homes", || {
        leaves.iter().all(|leaf| leaf.status().homes.len() == 2)
    })
    .await;
    println!(
        "{subscribers} leaves at {hosts} super-nodes in {:.1?}",
        begun.elapsed()
    );

    let begun = Instant::now();
    let subscribed: Vec<Subscription> = stream::iter(&leaves)
        .map(|leaf| leaf.subscribe(TOPIC))
        .buffer_unordered(AT_ONCE)
        .map(|subscription| subscription.unwrap())
        .collect()
        .await;
    println!("subscribed in {:.1?}, {} MiB", begun.elapsed(), memory());

    let count = PUBLISHERS * POSTS as usize;
    let reads: Vec<_> = subscribed
        .into_iter()
        .map(|posts| tokio::spawn(read(posts, count, Duration::ZERO)))
        .collect();
    let begun = Instant::now();
    let publishers = &leaves[..PUBLISHERS];
    let all = subscribers as u64;
    let took = publishers
        .iter()
        .map(|leaf| publish(leaf, TOPIC, POSTS, all));
    let mut took: Vec<Duration> = join_all(took).await.into_iter().flatten().collect();
    let passed = begun.elapsed();
    for read in join_all(reads).await {
        read.expect("every post came once and in order");
    }
    let pushes = count * subscribers;
    println!(
        "{count} posts of {PUBLISHERS} publishers: {pushes} deliveries, each once and in order, in {passed:.1?}: {:.0} a second; a post took {:.0?} in the median, {:.0?} at the 99th percentile; {} MiB",
        pushes as f64 / passed.as_secs_f64(),
        quantile(&mut took, 0.5),
        quantile(&mut took, 0.99),
        memory(),
    );

    let slow = leaves[1].subscribe("slow").await.unwrap();
    let fast = leaves[2].subscribe("slow").await.unwrap();
    let slow = tokio::spawn(read(slow, SLOW_POSTS as usize, SLOWNESS));
    let fast = tokio::spawn(read(fast, SLOW_POSTS as usize, Duration::ZERO));
    let begun = Instant::now();
    publish(&leaves[0], "slow", SLOW_POSTS, 2).await;
    let passed = begun.elapsed();
    slow.await.unwrap();
    fast.await.unwrap();
    println!(
        "{SLOW_POSTS} posts to a subscriber that takes {SLOWNESS:?} over each and one that does not: {:.0} a second, where it reads {:.0}; {} wait for it at most; {} MiB",
        SLOW_POSTS as f64 / passed.as_secs_f64(),
        1.0 / SLOWNESS.as_secs_f64(),
        canopy_leaf::routing::WAITING,
        memory(),
    );
}
