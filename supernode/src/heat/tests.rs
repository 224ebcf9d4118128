//! The sketch against a naive count of the same stream.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const START: u64 = 1_800_000_000_000;

fn key(n: u64) -> Key {
    Key::hash("heat", &[&n.to_le_bytes()])
}

/// Counts everything, with the weights that the sketch should have.
#[derive(Default)]
struct Naive(HashMap<[u8; 32], Vec<u64>>);

impl Naive {
    fn weight(at: u64, now: u64) -> f64 {
        (-((now - at) as f64) / HALF_LIFE.as_millis() as f64).exp2()
    }

    fn count(&self, id: &[u8; 32], now: u64) -> f64 {
        let times = self.0.get(id).map_or(&[][..], Vec::as_slice);
        times.iter().map(|at| Self::weight(*at, now)).sum()
    }

    fn total(&self, now: u64) -> f64 {
        self.0.keys().map(|id| self.count(id, now)).sum()
    }
}

/// A tolerance for sums of many rounded numbers.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs()))
}

/// Whether what is told holds of what happened.
fn check(heat: &Heat, naive: &Naive, now: u64, limit: usize) {
    let top = heat.keys(now, limit);
    assert!(near(top.total, naive.total(now)), "{top:?}");
    assert!(top.heavy.is_sorted_by(|a, b| a.count >= b.count));
    for heavy in &top.heavy {
        let truth = naive.count(&heavy.id, now);
        let slack = 1e-6 * (1.0 + truth);
        assert!(heavy.count <= truth + slack, "{heavy:?} is {truth}");
        assert!(heavy.at_most + slack >= truth, "{heavy:?} is {truth}");
    }
    for id in naive.0.keys() {
        let listed = top.heavy.iter().any(|heavy| heavy.id == *id);
        let truth = naive.count(id, now);
        assert!(
            listed || truth <= top.unlisted + 1e-6 * (1.0 + truth),
            "{truth} is not listed: {}",
            top.unlisted
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Few keys and many, in any order, over seconds and over hours.
    #[test]
    fn bounds_hold_of_any_stream(
        stream in prop::collection::vec((0u64..6000, 0u64..3), 1..8000),
        pace in prop::sample::select(vec![0u64, 1, 40, 20_000]),
        limit in 1usize..300,
    ) {
        let (heat, mut naive) = (Heat::default(), Naive::default());
        let mut now = START;
        for (n, often) in stream {
            // A few keys come again and again.
            let key = key(if often == 0 { n } else { n % 7 });
            now += pace;
            heat.operation(&key, now);
            naive.0.entry(key.0).or_default().push(now);
        }
        check(&heat, &naive, now + 1_000, limit);
    }
}

#[test]
fn a_few_keys_are_counted_exactly_and_fade_by_half() {
    let heat = Heat::default();
    for n in 0..5 {
        for _ in 0..(n + 1) * 100 {
            heat.operation(&key(n), START);
        }
    }
    let half = HALF_LIFE.as_millis() as u64;
    for (later, faded) in [(0, 1.0), (half, 0.5), (3 * half, 0.125)] {
        let top = heat.keys(START + later, 3);
        let counts: Vec<f64> = top.heavy.iter().map(|heavy| heavy.count).collect();
        let wanted = [500.0, 400.0, 300.0].map(|count| count * faded);
        assert!(
            counts.iter().zip(wanted).all(|(a, b)| near(*a, b)),
            "{top:?}"
        );
        assert!(
            top.heavy
                .iter()
                .all(|heavy| near(heavy.at_most, heavy.count))
        );
        assert!(near(top.total, 1500.0 * faded) && near(top.unlisted, 200.0 * faded));
    }
    // Nothing is left after a day, and it counts on.
    heat.operation(&key(9), START + 86_400_000);
    let top = heat.keys(START + 86_400_000, 10);
    assert_eq!((top.heavy[0].id, top.heavy.len()), (key(9).0, 1));
}

#[test]
fn a_key_that_becomes_hot_among_many_cold_ones_is_found() {
    let (heat, mut naive) = (Heat::default(), Naive::default());
    for n in 0..50_000u64 {
        let key = if n > 25_000 && n % 50 == 0 {
            key(1 << 40)
        } else {
            key(n)
        };
        heat.operation(&key, START + n / 10);
        naive.0.entry(key.0).or_default().push(START + n / 10);
    }
    check(&heat, &naive, START + 5_000, 10);
    assert_eq!(heat.keys(START + 5_000, 1).heavy[0].id, key(1 << 40).0);
}

#[test]
fn a_clock_that_is_set_back_fades_nothing_and_breaks_nothing() {
    let heat = Heat::default();
    heat.operation(&key(1), START);
    heat.operation(&key(1), START - 3_600_000);
    let top = heat.keys(START - 3_600_000, 1);
    assert!(near(top.heavy[0].count, 2.0), "{top:?}");
}

#[test]
fn many_threads_are_read_as_one() {
    let heat = Heat::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..1_000 {
                    heat.operation(&key(n % 4), START);
                }
            });
        }
    });
    let top = heat.keys(START, 4);
    assert!(top.heavy.iter().all(|heavy| near(heavy.count, 2_000.0)));
    let operations: u64 = heat.shards().operations.iter().sum();
    assert_eq!(operations, 8_000);
}

#[test]
fn words_are_told_as_they_are_searched_for() {
    let heat = Heat::default();
    let long = "ü".repeat(64);
    for word in [
        Word::whole("panda"),
        Word::whole("panda"),
        Word::beginning("pan"),
        Word::whole(&long),
    ] {
        heat.search(word, START);
    }
    let top = heat.terms(START, 10);
    let words: Vec<String> = top.heavy.iter().map(|heavy| heavy.id.to_string()).collect();
    assert_eq!(words[0], "panda");
    assert!(words.contains(&"pan*".to_owned()) && words.contains(&"ü".repeat(32)));
}

#[test]
fn rates_of_shards_follow_what_is_done() {
    let heat = Heat::default();
    let start = Instant::now();
    heat.tick(start);
    let (busy, key) = (shard_of(&key(1)), key(1));
    for second in 1..=60 {
        for _ in 0..100 {
            heat.operation(&key, START);
        }
        heat.tick(start + Duration::from_secs(second));
    }
    let rates = heat.shards();
    assert!(
        (rates.per_s[busy] - 100.0).abs() < 7.0,
        "{}",
        rates.per_s[busy]
    );
    assert_eq!(rates.operations[busy], 6_000);
    heat.tick(start + Duration::from_secs(60) + HALF_LIFE);
    assert!(heat.shards().per_s[busy] < 51.0);
    assert!((0..SHARDS).all(|shard| shard == busy || rates.per_s[shard] == 0.0));
}
