//! One file from a leaf with a slow line to many that fetch it at once, all peers
//! real and in this one process: how often the line carries it, how long that
//! takes, and how much memory.
//!
//! `cargo bench -p canopy-leaf --bench share -- 1024 10 20`: MiB, leaves that fetch,
//! Mbit/s of the line. Of the disk it takes the file once more for each.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::keyspace::Key;
use canopy_leaf::{Bandwidth, Builder, Identity, Leaf, PeerAddr, Preset, Stand, Topology};
use futures_util::future::join_all;

const MIB: u64 = 1024 * 1024;

fn common(builder: Builder, operator: &Identity) -> Builder {
    builder
        .network("bench")
        .topology(Topology::Hybrid)
        .operator(operator.node_id())
        .preset(Preset::Local)
}

async fn super_node(operator: &Identity) -> Leaf {
    let identity = Identity::from_secret([9; 32]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let designation = Mandate {
        network: "bench".into(),
        term: 9,
        candidate: identity.node_id(),
        basis: Basis::Designated,
        capacity_bps: 1_000_000_000,
        issued_ms: now_ms,
        expires_ms: now_ms + 24 * 3_600_000,
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

async fn leaf(peer: &PeerAddr, operator: &Identity, upload: Option<u64>) -> Leaf {
    let mut builder = Leaf::builder().peer(peer.clone()).stand(Stand::Never);
    if let Some(upload) = upload {
        builder = builder.upload(Bandwidth(upload));
    }
    let leaf = common(builder, operator).start().await.unwrap();
    let begun = Instant::now();
    while !matches!(leaf.locate(leaf.node_id()).await, Ok(Some(_))) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    leaf
}

/// The most memory that this process had, MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let size = numbers.next().unwrap_or(64) * MIB;
    let count = numbers.next().unwrap_or(10);
    let line = numbers.next().unwrap_or(20) * 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; MIB as usize];
    for _ in 0..size / MIB {
        random.fill(&mut piece);
        file.write_all(&piece).unwrap();
    }
    let operator = Identity::from_secret([1; 32]);
    let host = super_node(&operator).await;
    let peer: PeerAddr = host.status().listen.to_string().parse().unwrap();
    let seeder = leaf(&peer, &operator, Some(line)).await;
    let leaves = join_all((0..count).map(|_| leaf(&peer, &operator, None))).await;
    let begun = Instant::now();
    let shared = seeder.share(&path).await.unwrap();
    println!(
        "{} MiB hashed and announced in {:.1?}",
        size / MIB,
        begun.elapsed()
    );

    let begun = Instant::now();
    let fetches = leaves.iter().enumerate().map(|(number, leaf)| {
        let fetch = leaf.fetch(shared.content, dir.path().join(number.to_string()));
        async move {
            let fetched = fetch.await.unwrap();
            assert_eq!(fetched.bytes, size);
            begun.elapsed()
        }
    });
    let mut took = join_all(fetches).await;
    took.sort_unstable();
    let least = Duration::from_secs_f64(size as f64 * 8.0 / line as f64);
    let sent = seeder.content_stats().uploaded as f64 / size as f64;
    let pieces: u64 = leaves.iter().map(|leaf| leaf.content_stats().pieces).sum();
    println!(
        "{count} leaves had it after {:.1?} to {:.1?}, where the line takes {least:.1?} to send it once; the seeder sent it {sent:.3} times; {pieces} pieces came, {} of them once more than needed; at most {} MiB of memory for all",
        took[0],
        took[took.len() - 1],
        pieces - count * size.div_ceil(MIB),
        peak(),
    );
    for number in 0..count {
        let mut hasher = blake3::Hasher::new();
        let mut copy = std::fs::File::open(dir.path().join(number.to_string())).unwrap();
        std::io::copy(&mut copy, &mut hasher).unwrap();
        assert_eq!(hasher.finalize(), shared.content);
    }
    println!("all copies have the right hash");
}
