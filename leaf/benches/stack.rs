//! Reads through the whole stack (SDK, core's placement, fabric, index, and all
//! the way back) against a bare QUIC echo of the same size, taking turns in one
//! run so that both see the same machine.
//!
//! `cargo bench -p canopy-leaf --bench stack`; prints medians and ratios.
#![allow(clippy::unwrap_used)]

#[path = "../../overlay/benches/bare/mod.rs"]
mod bare;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bare::{
    BODY, BURST, SINGLE, bare, bare_burst, bare_cold, bare_listener, bare_single, median, micros,
};
use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::keyspace::Key;
use canopy_leaf::{Hash, Identity, Leaf, PeerAddr, Preset, Stand, Topology};

const ROUNDS: usize = 9;
const LEAVES: usize = 200;
const EACH: usize = 40;

/// A super-node that serves from the start, and nobody else who could.
async fn super_node(operator: &Identity) -> Leaf {
    let identity = Identity::from_secret([9; 32]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let designation = Mandate {
        network: "bench".into(),
        term: 1,
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
    let builder = Leaf::builder().identity(identity).designation(designation);
    common(builder, operator).start().await.unwrap()
}

fn common(builder: canopy_leaf::Builder, operator: &Identity) -> canopy_leaf::Builder {
    builder
        .network("bench")
        .topology(Topology::Hybrid)
        .operator(operator.node_id())
        .preset(Preset::Wan)
}

async fn leaf(operator: &Identity, peer: &PeerAddr) -> Leaf {
    let builder = Leaf::builder().peer(peer.clone()).stand(Stand::Never);
    common(builder, operator).start().await.unwrap()
}

async fn read(leaf: &Leaf, hash: Hash) {
    let value = leaf.get_content(hash).await.unwrap();
    assert_eq!(value.unwrap().data.len(), BODY);
}

async fn stack_single(leaf: &Leaf, hash: Hash) -> Vec<Duration> {
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let start = Instant::now();
        read(leaf, hash).await;
        times.push(start.elapsed());
    }
    times
}

async fn stack_burst(leaf: &Leaf, hash: Hash, depth: usize) -> Duration {
    let start = Instant::now();
    let lanes = (0..depth).map(|_| async {
        for _ in 0..BURST / depth {
            read(leaf, hash).await;
        }
    });
    futures_util::future::join_all(lanes).await;
    start.elapsed()
}

async fn stack_cold(leaves: &[Leaf], hash: Hash) -> Duration {
    let start = Instant::now();
    let lanes = leaves.iter().map(|leaf| async move {
        for _ in 0..EACH {
            read(leaf, hash).await;
        }
    });
    futures_util::future::join_all(lanes).await;
    start.elapsed()
}

/// Medians of rates, thousands a second, and of their ratio.
fn report(what: &str, rounds: &[(f64, f64)]) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(rounds.iter().map(pick).collect());
    let (bare, stack) = (of(|r| r.0), of(|r| r.1));
    println!(
        "{what}, {BODY} B: bare {bare:.1} k/s, stack {stack:.1} k/s, ratio {:.2}",
        of(|r| r.1 / r.0)
    );
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64() / 1e3
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let operator = Identity::from_secret([8; 32]);
    let server = super_node(&operator).await;
    let peer: PeerAddr = server.status().listen.to_string().parse().unwrap();
    let reader = leaf(&operator, &peer).await;
    let hash = reader.put_content(vec![7; BODY]).await.unwrap();
    let listen = bare_listener();
    let (mut send, mut recv, _dial) = bare(&listen).await;

    let (mut bares, mut stacks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bares.push(micros(median(bare_single(&mut send, &mut recv).await)));
        stacks.push(micros(median(stack_single(&reader, hash).await)));
    }
    let (bare_p50, stack_p50) = (median(bares), median(stacks));
    println!(
        "one at a time, {BODY} B, p50: bare {bare_p50:.1} us, stack {stack_p50:.1} us, ratio {:.2}",
        stack_p50 / bare_p50
    );

    for depth in [16, 64, 256] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let bare = bare_burst(&mut send, &mut recv, depth).await;
            let stack = stack_burst(&reader, hash, depth).await;
            rounds.push((rate(BURST, bare), rate(BURST, stack)));
        }
        report(&format!("{depth} in flight"), &rounds);
    }

    let (mut streams, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..LEAVES {
        streams.push(bare(&listen).await);
        leaves.push(leaf(&operator, &peer).await);
    }
    stack_cold(&leaves, hash).await;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let bare = bare_cold(&mut streams, EACH).await;
        let stack = stack_cold(&leaves, hash).await;
        rounds.push((rate(LEAVES * EACH, bare), rate(LEAVES * EACH, stack)));
    }
    report(&format!("{LEAVES} sessions x 1 in flight"), &rounds);
}
