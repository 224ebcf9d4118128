//! Placement at 10 000 super-nodes of 256 seats: looking up owners, a join, a
//! leave, and the memory of a snapshot.

use std::hint::black_box;
use std::sync::Arc;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Member, Placement, R};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const NODES: u64 = 10_000;
const SEATS: u32 = 256;
/// Enough keys that a lookup finds its bucket out of the processor's caches.
const KEYS: u64 = 1 << 20;

fn member(number: u64, zones: u64) -> Member {
    let domain = match zones {
        0 => Arc::from(""),
        zones => Arc::from(format!("zone-{}", number % zones)),
    };
    Member {
        node: NodeId(Key::hash("bench node", &[&number.to_le_bytes()]).0),
        seats: SEATS,
        domain,
    }
}

fn lookups(c: &mut Criterion) {
    let keys: Vec<Key> = (0..KEYS)
        .map(|n| Key::hash("bench key", &[&n.to_le_bytes()]))
        .collect();
    let mut keys = keys.iter().cycle();
    let mut next = || keys.next().copied().unwrap_or_default();
    for (nodes, zones) in [(NODES, 0), (NODES, 100), (NODES, 3), (NODES, 1), (100, 0)] {
        let placement: Placement = (0..nodes).map(|n| member(n, zones)).collect();
        println!(
            "{nodes} super-nodes of {SEATS} seats: a snapshot takes {:.1} MiB",
            placement.memory_bytes() as f64 / (1 << 20) as f64
        );
        let name = format!("owner_set/{nodes} nodes/{zones} zones");
        c.bench_function(&name, |b| {
            b.iter(|| black_box(placement.owner_set(&next())))
        });
        if zones == 0 {
            c.bench_function(&format!("owners/{nodes} nodes"), |b| {
                b.iter(|| black_box(placement.owners(&next(), R)))
            });
        }
    }
}

fn changes(c: &mut Criterion) {
    let members: Vec<_> = (0..NODES).map(|n| member(n, 100)).collect();
    let placement: Placement = members.iter().cloned().collect();
    let joiner = member(NODES, 100);
    c.bench_function("join", |b| {
        b.iter(|| placement.with(black_box(joiner.clone())))
    });
    let leaver = members[NODES as usize / 2].node;
    c.bench_function("leave", |b| {
        b.iter(|| placement.without(black_box(&leaver)))
    });
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("10 000 nodes", |b| {
        b.iter_batched(
            || members.clone(),
            |members| members.into_iter().collect::<Placement>(),
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, lookups, changes);
criterion_main!(benches);
