use canopy_core::identity::Identity;
use canopy_core::text;
use canopy_proto::wire::filter::Op;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn identity(n: u8) -> Identity {
    Identity::from_secret([n; 32])
}

fn value(publisher: u8, name: &str, sequence: u64, data: &str) -> Record {
    let payload = Payload::Value(wire::Value {
        name: name.into(),
        data: Bytes::copy_from_slice(data.as_bytes()),
    });
    Record::sign(&identity(publisher), "net", sequence, NOW, 60, payload).unwrap()
}

fn item(name: &str, words: &str, issued_ms: u64) -> Record {
    let payload = Payload::Item(wire::Item {
        name: name.into(),
        text: words.into(),
        terms: text::item_terms(name, words),
        size: words.len() as u64,
        media_type: "text/plain".into(),
        attributes: [("lang".to_owned(), "de".to_owned())].into(),
        ..Default::default()
    });
    Record::sign(&identity(1), "net", issued_ms, issued_ms, 60, payload).unwrap()
}

fn provider(publisher: u8, sequence: u64) -> Record {
    let payload = Payload::Provider(wire::Provider {
        content: Bytes::from_static(&[9; 32]),
        size: 1,
    });
    Record::sign(&identity(publisher), "net", sequence, NOW, 60, payload).unwrap()
}

fn put(index: &Index, record: &Record) -> Outcome {
    let (mut outcomes, ack) = index.put(vec![record.clone()], NOW);
    ack.wait().unwrap();
    outcomes.remove(0)
}

fn search(index: &Index, words: &str) -> Vec<String> {
    let query = text::query(words);
    let query = wire::Search {
        terms: query.terms,
        prefixes: query.prefixes,
        ..Default::default()
    };
    names(&index.search(&query, NOW).unwrap())
}

fn names(page: &Page) -> Vec<String> {
    let hits = page.hits.iter();
    hits.map(|hit| {
        let record = Record::trusted(hit.record.as_ref().unwrap()).unwrap();
        match record.body.payload {
            Some(Payload::Item(item)) => item.name,
            other => panic!("{other:?} is no item"),
        }
    })
    .collect()
}

#[test]
fn a_higher_sequence_wins_whatever_the_order() {
    let index = Index::in_memory(Limits::default());
    let (old, new) = (value(1, "a", 1, "old"), value(1, "a", 2, "new"));
    assert_eq!(put(&index, &new), Outcome::Stored);
    assert_eq!(put(&index, &old), Outcome::Superseded(2));
    assert_eq!(put(&index, &new), Outcome::AlreadyHave);
    assert_eq!(index.get(&new.id(), NOW, 9, false), vec![new.signed]);
}

#[test]
fn replicas_agree_on_two_bodies_of_one_sequence() {
    let (one, two) = (value(1, "a", 1, "one"), value(1, "a", 1, "two"));
    let (left, right) = (
        Index::in_memory(Limits::default()),
        Index::in_memory(Limits::default()),
    );
    put(&left, &one);
    put(&left, &two);
    put(&right, &two);
    put(&right, &one);
    let id = one.id();
    assert_eq!(left.one(&id, NOW, false), right.one(&id, NOW, false));
}

#[test]
fn a_removal_hides_until_it_expires() {
    let index = Index::in_memory(Limits::default());
    let record = value(1, "a", 1, "data");
    let payload = record.body.payload.clone().unwrap();
    let removal = Record::sign_removal(&identity(1), "net", 2, NOW, 90, payload).unwrap();
    let id = record.id();
    put(&index, &record);
    put(&index, &removal);
    assert_eq!(put(&index, &record), Outcome::Superseded(2));
    assert_eq!(index.one(&id, NOW, false), None);
    assert_eq!(index.one(&id, NOW, true), Some(removal.signed));
    assert_eq!(index.sweep(NOW + 90_000), 1);
    assert_eq!(index.held(), Held::default());
}

#[test]
fn a_value_under_its_hash_cannot_be_removed_by_another() {
    let index = Index::in_memory(Limits::default());
    let record = value(1, "", 5, "data");
    let payload = record.body.payload.clone().unwrap();
    let removal = Record::sign_removal(&identity(2), "net", 9, NOW, 90, payload).unwrap();
    put(&index, &record);
    let refused = Outcome::Refused(Refused::SharedRemoval);
    assert_eq!(put(&index, &removal), refused);
    assert!(index.one(&record.id(), NOW, false).is_some());
}

#[test]
fn what_has_expired_is_not_served() {
    let index = Index::in_memory(Limits::default());
    let record = value(1, "a", 1, "data");
    put(&index, &record);
    put(&index, &item("thing", "word", NOW));
    let later = NOW + 60_000;
    assert!(index.get(&record.id(), later, 9, true).is_empty());
    let query = wire::Search {
        terms: vec!["word".into()],
        ..Default::default()
    };
    assert!(index.search(&query, later).unwrap().hits.is_empty());
    assert_eq!(index.sweep(later), 2);
}

#[test]
fn a_provider_key_lists_every_publisher_once() {
    let index = Index::in_memory(Limits::default());
    for publisher in 1..=3 {
        put(&index, &provider(publisher, 1));
        put(&index, &provider(publisher, 2));
    }
    let key = keys::provider(&[9; 32]);
    assert_eq!(index.get(&key, NOW, 9, false).len(), 3);
    assert_eq!(index.get(&key, NOW, 2, false).len(), 2);
    let payload = provider(2, 1).body.payload.unwrap();
    let gone = Record::sign_removal(&identity(2), "net", 3, NOW, 60, payload).unwrap();
    put(&index, &gone);
    assert_eq!(index.get(&key, NOW, 9, false).len(), 2);
}

#[test]
fn quotas_refuse_new_records_and_let_refreshes_pass() {
    let limits = Limits {
        publisher_records: 2,
        records: 3,
        ..Limits::default()
    };
    let index = Index::in_memory(limits);
    put(&index, &value(1, "a", 1, ""));
    put(&index, &value(1, "b", 1, ""));
    let refused = Outcome::Refused(Refused::PublisherRecords(2));
    assert_eq!(put(&index, &value(1, "c", 1, "")), refused);
    assert_eq!(put(&index, &value(1, "a", 2, "")), Outcome::Stored);
    assert_eq!(put(&index, &value(2, "a", 1, "")), Outcome::Stored);
    let full = Outcome::Refused(Refused::Full);
    assert_eq!(put(&index, &value(3, "a", 1, "")), full);
}

#[test]
fn a_full_term_takes_no_new_items_and_keeps_the_rest() {
    let limits = Limits {
        postings_per_term: 2,
        ..Limits::default()
    };
    let index = Index::in_memory(limits);
    put(&index, &item("one", "hot", NOW));
    put(&index, &item("two", "hot", NOW));
    assert_eq!(put(&index, &item("three", "hot", NOW)), Outcome::Stored);
    assert_eq!(search(&index, "hot").len(), 2);
    assert_eq!(search(&index, "three"), ["three"]);
    assert_eq!(index.held().full_terms, 1);
    assert!(matches!(
        put(&index, &item("hot", "", NOW)),
        Outcome::Refused(Refused::TermsFull(_))
    ));
    assert_eq!(put(&index, &item("one", "hot", NOW + 1)), Outcome::Stored);
    assert_eq!(search(&index, "hot one"), ["one"]);
}

#[test]
fn names_rank_above_text_and_the_exact_name_first() {
    let index = Index::in_memory(Limits::default());
    put(&index, &item("notes", "about rust books", NOW));
    put(&index, &item("rust handbook", "", NOW));
    put(&index, &item("rust", "", NOW));
    put(&index, &item("other", "thing", NOW));
    assert_eq!(search(&index, "rust"), ["rust", "rust handbook", "notes"]);
    assert_eq!(search(&index, "hand* rust"), ["rust handbook"]);
    assert!(search(&index, "rust thing").is_empty());
}

#[test]
fn equal_scores_are_ordered_by_freshness() {
    let index = Index::in_memory(Limits::default());
    for age in [5, 1, 3] {
        put(&index, &item(&format!("n{age}"), "word", NOW - age));
    }
    assert_eq!(search(&index, "word"), ["n1", "n3", "n5"]);
}

#[test]
fn filters_look_at_fields_and_attributes() {
    let index = Index::in_memory(Limits::default());
    put(&index, &item("short", "word", NOW));
    put(&index, &item("long", "word and much more", NOW));
    let hits = |field: &str, op: Op, value: &str| {
        let query = wire::Search {
            terms: vec!["word".into()],
            filters: vec![wire::Filter {
                field: field.into(),
                op: op.into(),
                value: value.into(),
            }],
            ..Default::default()
        };
        names(&index.search(&query, NOW).unwrap())
    };
    assert_eq!(hits("size", Op::Greater, "9"), ["long"]);
    assert_eq!(hits("size", Op::LessOrEqual, "4"), ["short"]);
    assert_eq!(hits("name", Op::NotEqual, "long"), ["short"]);
    assert_eq!(hits("lang", Op::Equal, "de").len(), 2);
    assert_eq!(hits("absent", Op::Equal, "").len(), 0);
    assert_eq!(hits("absent", Op::NotEqual, "x").len(), 2);
}

#[test]
fn pages_follow_each_other_while_items_arrive() {
    let index = Index::in_memory(Limits::default());
    for n in 0..50 {
        put(&index, &item(&format!("old{n}"), "word", NOW - n));
    }
    let mut query = wire::Search {
        terms: vec!["word".into()],
        limit: 7,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = index.search(&query, NOW).unwrap();
        seen.extend(names(&page));
        // Newer items rank first, on a page that has been read.
        let n = seen.len();
        put(&index, &item(&format!("new{n}"), "word", NOW + 1));
        if page.next.is_empty() {
            break;
        }
        query.after = page.next;
    }
    let expected: Vec<String> = (0..50).map(|n| format!("old{n}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_page_of_large_items_fits_a_frame() {
    let index = Index::in_memory(Limits::default());
    for n in 0..30 {
        let text = format!("word {}", "x".repeat(40_000));
        put(&index, &item(&format!("n{n}"), &text, NOW - n));
    }
    let mut query = wire::Search {
        terms: vec!["word".into()],
        ..Default::default()
    };
    let mut seen = 0;
    loop {
        let page = index.search(&query, NOW).unwrap();
        let size: usize = page.hits.iter().map(Message::encoded_len).sum();
        assert!(size < wire_limits::FRAME / 2);
        seen += page.hits.len();
        if page.next.is_empty() {
            break;
        }
        query.after = page.next;
    }
    assert_eq!(seen, 30);
}

#[test]
fn queries_over_a_limit_are_refused() {
    let index = Index::in_memory(Limits::default());
    let run = |terms: Vec<String>, after: &'static [u8]| {
        let query = wire::Search {
            terms,
            after: Bytes::from_static(after),
            ..Default::default()
        };
        index.search(&query, NOW).map(|_| ())
    };
    assert_eq!(run(vec![], b""), Err(SearchError::Empty));
    assert_eq!(
        run(vec!["a".into(); 1000], b""),
        Err(SearchError::TooMany(1000))
    );
    assert_eq!(run(vec!["a".repeat(65)], b""), Err(SearchError::Term));
    assert_eq!(run(vec!["a".into()], b"\x01\x01"), Err(SearchError::Cursor));
}

#[test]
fn items_and_records_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Index::open(Store::open(dir.path()).unwrap(), Limits::default(), NOW).unwrap();
    let index = open();
    put(&index, &item("rust", "book", NOW));
    put(&index, &item("rust", "handbook", NOW + 1));
    put(&index, &provider(2, 1));
    let held = index.held();
    drop(index);
    let index = open();
    assert_eq!(index.held(), held);
    assert_eq!(search(&index, "handbook"), ["rust"]);
    assert!(search(&index, "book").is_empty());
    let key = keys::provider(&[9; 32]);
    assert_eq!(index.get(&key, NOW, 9, false).len(), 1);
}

#[test]
fn limits_that_were_lowered_take_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let open = |limits| Index::open(Store::open(dir.path()).unwrap(), limits, NOW).unwrap();
    let index = open(Limits::default());
    for n in 0..5 {
        put(&index, &item(&format!("{n}x"), "hot", NOW));
    }
    drop(index);
    let limits = Limits {
        publisher_records: 1,
        postings_per_term: 1,
        ..Limits::default()
    };
    let index = open(limits);
    assert_eq!(search(&index, "hot").len(), 5);
    let refused = put(&index, &item("new", "hot", NOW));
    assert_eq!(refused, Outcome::Refused(Refused::PublisherRecords(5)));
}

#[test]
fn a_small_cache_reads_the_rest_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        cache_bytes: 0,
        ..Limits::default()
    };
    let index = Index::open(Store::open(dir.path()).unwrap(), limits, NOW).unwrap();
    let records: Vec<Record> = (0..200)
        .map(|n| value(1, &format!("n{n}"), 1, "data"))
        .collect();
    let (_, ack) = index.put(records.clone(), NOW);
    ack.wait().unwrap();
    for record in records {
        let found = index.one(&record.id(), NOW, false);
        assert_eq!(found, Some(record.signed));
    }
}

#[test]
fn removed_items_leave_the_lists_in_the_end() {
    let index = Index::in_memory(Limits::default());
    for round in 0..3 {
        for n in 0..2500 {
            let record = item(&format!("n{n}"), &format!("word round{round}"), NOW + round);
            let (_, ack) = index.put(vec![record], NOW);
            ack.wait().unwrap();
        }
    }
    assert_eq!(index.term_count("word"), 7500);
    index.sweep(NOW);
    assert_eq!(index.term_count("word"), 2500);
    assert_eq!(index.term_count("round0"), 0);
    assert_eq!(search(&index, "n7 word"), ["n7"]);
}

#[test]
fn readers_and_writers_on_all_cores_see_whole_records() {
    let index = Index::in_memory(Limits::default());
    let writers_left = std::sync::atomic::AtomicUsize::new(3);
    let left = || writers_left.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (index, writers_left) = (&index, &writers_left);
            scope.spawn(move || {
                for n in 0..600 {
                    put(index, &item(&format!("{writer}n{n}"), "word", NOW - n));
                }
                writers_left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            let mut before = 0;
            while left() > 0 {
                let query = wire::Search {
                    terms: vec!["word".into()],
                    ..Default::default()
                };
                let page = index.search(&query, NOW).unwrap();
                assert!(page.total >= before, "{} after {before}", page.total);
                before = page.total;
                index.sweep(NOW);
            }
        });
    });
    assert_eq!(index.term_count("word"), 1800);
    assert_eq!(index.held().items, 1800);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model that looks at every item.
    #[test]
    fn a_search_finds_exactly_what_has_all_words(
        items in prop::collection::vec(prop::collection::btree_set(0u8..12, 1..6), 1..60),
        asked in prop::collection::btree_set(0u8..12, 1..4),
    ) {
        let index = Index::in_memory(Limits::default());
        for (n, words) in items.iter().enumerate() {
            let words: Vec<String> = words.iter().map(|w| format!("w{w}x")).collect();
            put(&index, &item(&format!("{n}"), &words.join(" "), NOW));
        }
        let words: Vec<String> = asked.iter().map(|w| format!("w{w}x")).collect();
        let mut found = search(&index, &words.join(" "));
        found.sort();
        let mut expected: Vec<String> = items.iter().enumerate()
            .filter(|(_, words)| words.is_superset(&asked))
            .map(|(n, _)| n.to_string())
            .collect();
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_query_is_answered_or_refused(
        terms in prop::collection::vec(".{0,8}", 0..20),
        prefixes in prop::collection::vec(".{0,8}", 0..4),
        after in prop::collection::vec(any::<u8>(), 0..60),
        limit in any::<u32>(),
    ) {
        let index = Index::in_memory(Limits::default());
        put(&index, &item("a", "b c d", NOW));
        let query = wire::Search { terms, prefixes, after: after.into(), limit, ..Default::default() };
        if let Ok(page) = index.search(&query, NOW) {
            prop_assert!(page.hits.len() <= MAX_PAGE);
        }
    }
}
