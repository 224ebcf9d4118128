//! What one node's index does a second: checking, durable puts, reads, searches.
//!
//! Set `CANOPY_BENCH_ITEMS` for another size of the large set (1 000 000).

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has nothing to say"
)]

use std::hint::black_box;

use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_core::text;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_supernode::heat::Heat;
use canopy_supernode::index::{Index, Limits};
use canopy_supernode::store::Store;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

const NOW: u64 = 1_800_000_000_000;
const VOCABULARY: usize = 50_000;

/// A small generator, so that every run draws the same.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % limit
    }
}

/// Words by Zipf's law: the n-th is drawn in proportion to 1/n.
struct Words {
    sums: Vec<f64>,
}

impl Words {
    fn new() -> Self {
        let mut sum = 0.0;
        let sums = (1..=VOCABULARY).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    fn draw(&self, draw: &mut Draw) -> String {
        let at = draw.below(1 << 30) as f64 / f64::from(1 << 30) * self.sums[VOCABULARY - 1];
        format!("word{}", self.sums.partition_point(|sum| *sum < at))
    }
}

/// A record that only its publisher's signature is missing from.
fn unsigned(payload: Payload, sequence: u64) -> Record {
    let publisher = NodeId(*blake3::hash(&(sequence % 64).to_le_bytes()).as_bytes());
    let body = wire::Record {
        network: "net".into(),
        publisher: publisher.to_bytes(),
        sequence,
        issued_ms: NOW - sequence,
        ttl_s: 86_400,
        removed: false,
        payload: Some(payload),
    };
    let signed = wire::Signed {
        body: body.encode_to_vec().into(),
        signer: publisher.to_bytes(),
        signature: Bytes::from_static(&[7; 64]),
    };
    Record {
        publisher,
        body,
        signed,
    }
}

fn value(n: u64) -> Record {
    let payload = Payload::Value(wire::Value {
        name: format!("value {n}"),
        data: vec![n as u8; 120].into(),
    });
    unsigned(payload, n)
}

fn item(n: u64, words: &Words, draw: &mut Draw) -> Record {
    let name = format!("{} {} {n}", words.draw(draw), words.draw(draw));
    let text: Vec<String> = (0..6).map(|_| words.draw(draw)).collect();
    let text = text.join(" ");
    let payload = Payload::Item(wire::Item {
        terms: text::item_terms(&name, &text),
        name,
        text,
        ..Default::default()
    });
    unsigned(payload, n)
}

struct Data {
    index: Index,
    ids: Vec<Key>,
    queries: Vec<wire::Search>,
    _dir: Option<tempfile::TempDir>,
}

/// `count` items, on disk if `durable`, and queries of two words that some item
/// has both of.
fn data(count: u64, durable: bool) -> Data {
    let limits = Limits {
        publisher_records: count,
        publisher_bytes: 1 << 40,
        postings_per_term: count as usize,
        cache_bytes: 2 << 30,
        ..Limits::default()
    };
    let dir = durable.then(|| tempfile::tempdir().unwrap());
    let index = match &dir {
        Some(dir) => Index::open(Store::open(dir.path()).unwrap(), limits, NOW).unwrap(),
        None => Index::in_memory(limits),
    };
    let (words, mut draw) = (Words::new(), Draw(1));
    let (mut ids, mut queries) = (Vec::new(), Vec::new());
    let began = std::time::Instant::now();
    for from in (0..count).step_by(1000) {
        let records: Vec<Record> = (from..from + 1000)
            .map(|n| item(n, &words, &mut draw))
            .collect();
        ids.extend(records.iter().map(Record::id));
        let Some(Payload::Item(some)) = &records[0].body.payload else {
            unreachable!("items only");
        };
        queries.push(wire::Search {
            terms: some
                .terms
                .iter()
                .filter(|t| t.starts_with('w'))
                .take(2)
                .cloned()
                .collect(),
            limit: 10,
            ..Default::default()
        });
        index.put(records, NOW).1.wait().unwrap();
    }
    queries.retain(|query| query.terms.len() == 2);
    let took = began.elapsed().as_secs_f64();
    eprintln!("{count} items in {took:.1} s, {:?}", index.held());
    Data {
        index,
        ids,
        queries,
        _dir: dir,
    }
}

fn check(c: &mut Criterion) {
    let identity = Identity::from_secret([1; 32]);
    let payload = value(1).body.payload.unwrap();
    let record = Record::sign(&identity, "net", 1, NOW, 60, payload).unwrap();
    c.bench_function("record/verify", |b| {
        b.iter(|| Record::open(black_box(&record.signed), "net", NOW).unwrap());
    });
    c.bench_function("record/terms", |b| {
        b.iter(|| {
            text::item_terms(
                black_box("The HTTPServer handbook"),
                "東京の地図 and more words",
            )
        });
    });
}

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("put durable");
    for batch in [1u64, 16, 256] {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            publisher_records: u64::MAX,
            publisher_bytes: u64::MAX,
            records: u64::MAX,
            ..Limits::default()
        };
        let index = Index::open(Store::open(dir.path()).unwrap(), limits, NOW).unwrap();
        let mut next = 0;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("{batch} at a time"), |b| {
            b.iter_batched(
                || {
                    next += batch;
                    (next..next + batch).map(value).collect::<Vec<_>>()
                },
                |records| index.put(records, NOW).1.wait().unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion, name: &str, data: &Data) {
    let mut draw = Draw(7);
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("get, cached", |b| {
        b.iter(|| {
            let id = &data.ids[draw.below(data.ids.len())];
            data.index.get(id, NOW, 1, false)
        });
    });
    let hot = data.ids[0];
    group.bench_function("get, hot", |b| {
        b.iter(|| data.index.get(black_box(&hot), NOW, 1, false))
    });
    // As a super-node does it, which counts what is busy.
    let heat = Heat::default();
    group.bench_function("get, cached, counted", |b| {
        b.iter(|| {
            let id = &data.ids[draw.below(data.ids.len())];
            heat.operation(id, NOW);
            data.index.get(id, NOW, 1, false)
        });
    });
    group.bench_function("get, hot, counted", |b| {
        b.iter(|| {
            heat.operation(black_box(&hot), NOW);
            data.index.get(black_box(&hot), NOW, 1, false)
        })
    });
    group.bench_function("search, two terms", |b| {
        b.iter(|| {
            let query = &data.queries[draw.below(data.queries.len())];
            data.index.search(query, NOW).unwrap()
        });
    });
    let prefix = wire::Search {
        prefixes: vec!["word123".into()],
        limit: 10,
        ..Default::default()
    };
    group.bench_function("search, prefix", |b| {
        b.iter(|| data.index.search(black_box(&prefix), NOW).unwrap());
    });
    group.finish();
}

fn hundred_thousand(c: &mut Criterion) {
    reads(c, "100 000 items", &data(100_000, false));
}

fn million(c: &mut Criterion) {
    let count = std::env::var("CANOPY_BENCH_ITEMS").ok();
    let count = count
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000);
    reads(c, &format!("{count} items"), &data(count, true));
}

criterion_group!(benches, check, puts, hundred_thousand, million);
criterion_main!(benches);
