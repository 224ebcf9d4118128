//! Shards and hot keys: what is told equals what was written and read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, keys};
use canopy_core::record::Record;
use canopy_core::text;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::{self, Consistency, request, response};
use canopy_supernode::heat::{HALF_LIFE, shard_of};
use pb::get_shard_request::Which;
use tonic::Code;

use crate::overlay::{BOUND, Manned, host, publisher, three, unix_ms, until, within, write};

async fn shards(of: &Manned, request: pb::ListShardsRequest) -> pb::ListShardsReply {
    let reply = of.client.clone().list_shards(request).await;
    reply.unwrap().into_inner()
}

async fn all_shards(of: &Manned) -> Vec<pb::Shard> {
    shards(of, pb::ListShardsRequest::default()).await.shards
}

async fn top(of: &Manned, kind: &str) -> pb::TopKeysReply {
    let request = pb::TopKeysRequest {
        kind: kind.to_owned(),
        limit: 256,
    };
    of.client
        .clone()
        .top_keys(request)
        .await
        .unwrap()
        .into_inner()
}

/// What a host answers itself.
async fn ask(of: &Manned, request: request::Kind) -> response::Kind {
    let answer = of.host.call(of.host.node_id(), request, BOUND);
    within(answer).await.expect("answered")
}

async fn read(of: &Manned, key: &Key) {
    let get = wire::Get {
        key: key.to_bytes(),
        consistency: Consistency::One.into(),
        ..Default::default()
    };
    match ask(of, request::Kind::Get(get)).await {
        response::Kind::Get(reply) => assert_eq!(reply.records.len(), 1),
        other => panic!("{other:?}"),
    }
}

/// How much of a count is left of what was done between `from` and `to`, now.
fn faded(count: f64, from: Instant, to: Instant) -> (f64, f64) {
    let left = |at: Instant| (-at.elapsed().as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
    // The clock of the count ticks in milliseconds.
    (count * left(from) * 0.999, count * left(to) * 1.001)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_and_hot_keys_are_what_was_written_and_read() {
    let operator = Identity::from_secret([41; 32]);
    let all = three(&operator).await;
    const VALUES: usize = 300;
    let began = Instant::now();
    write(&all[0].host, VALUES).await;
    let wrote = Instant::now();
    // What each shard holds: values, and where the hosts are.
    let value = |n: usize| keys::value(&publisher().node_id(), &format!("value {n}"));
    let places = all.iter().map(|one| keys::location(&one.host.node_id()));
    let mut truth: HashMap<u32, u64> = HashMap::new();
    for key in (0..VALUES).map(value).chain(places) {
        *truth.entry(shard_of(&key) as u32).or_default() += 1;
    }
    for asked in &all {
        until("every shard has its records in three copies", async || {
            let told = all_shards(asked).await;
            assert_eq!(told.len(), 256);
            told.iter().all(|shard| {
                let records = truth.get(&shard.shard).copied().unwrap_or(0);
                (shard.records, shard.copies) == (records, 3 * records)
            })
        })
        .await;
    }
    let held: u64 = all
        .iter()
        .map(|one| one.host.index_stats().unwrap().held.bytes)
        .sum();
    let told = all_shards(&all[0]).await;
    assert_eq!(told.iter().map(|shard| shard.bytes).sum::<u64>(), held);
    assert!(
        told.iter()
            .all(|shard| (shard.owners, shard.reached) == (3, 3))
    );

    // A known workload: the first key 400 times, the second 200, the third 100,
    // each third of it at each host, all of which own all keys.
    let before = all_shards(&all[0]).await;
    let began_reads = Instant::now();
    for (n, times) in [(0, 400), (1, 200), (2, 100)] {
        for time in 0..times {
            read(&all[time % 3], &value(n)).await;
        }
    }
    let ended = Instant::now();
    let mut done: HashMap<u32, u64> = HashMap::new();
    for (n, times) in [(0, 400), (1, 200), (2, 100)] {
        *done.entry(shard_of(&value(n)) as u32).or_default() += times;
    }
    let asked = &all[1];
    until("operations by shard are those", async || {
        let now = all_shards(asked).await;
        now.iter().zip(&before).all(|(now, before)| {
            now.operations - before.operations == done.get(&now.shard).copied().unwrap_or(0)
        })
    })
    .await;
    // Rates follow with the hosts' next reports.
    let busy = shard_of(&value(0)) as u32;
    until("a busy shard has a rate", async || {
        all_shards(asked).await[busy as usize].operations_per_s > 0.0
    })
    .await;

    let hot = top(asked, "key").await;
    assert_eq!(u128::from(hot.half_life_ms), HALF_LIFE.as_millis());
    let freshness = hot.freshness.unwrap();
    assert_eq!((freshness.reached, freshness.of), (3, 3));
    // Up to a second old, and each written to three owners at the start.
    let older = Duration::from_millis(freshness.oldest_ms + 100);
    for (n, times) in [(0_usize, 400.0), (1, 200.0), (2, 100.0)] {
        let key = &hot.keys[n];
        assert_eq!(key.id, value(n).to_string());
        assert_eq!(key.super_nodes, 3);
        let name = format!("value value {n} by {}", publisher().node_id().short());
        assert_eq!(key.what, name);
        let (least, _) = faded(times, began_reads, ended);
        let (_, most) = faded(times, began_reads, ended + older);
        let (written, _) = faded(3.0, began, wrote);
        assert!(key.at_most >= least + written, "{key:?} {least}");
        assert!(key.count <= most + 3.0, "{key:?} {most}");
        // All keys that there are fit.
        assert!(
            (key.at_most - key.count).abs() < 1e-6 * key.count,
            "{key:?}"
        );
    }
    // Whoever wrote, and how much.
    let writers = top(asked, "publisher").await;
    let (least, most) = faded(VALUES as f64, began, wrote + Duration::from_secs(2));
    let writer = &writers.keys[0];
    assert_eq!(writer.id, publisher().node_id().to_string());
    assert!(
        (least..=most).contains(&writer.count),
        "{writer:?} {least} {most}"
    );

    // One shard, and one key's.
    let get = async |which: Which| {
        let request = pb::GetShardRequest { which: Some(which) };
        asked.client.clone().get_shard(request).await
    };
    let shard = get(Which::Key(value(0).to_string()))
        .await
        .unwrap()
        .into_inner();
    let of = shard.shard.unwrap();
    assert_eq!(of.shard, busy);
    assert!(of.first.starts_with(&format!("{busy:02x}00")) && of.last.ends_with("ff"));
    assert_eq!(shard.owners.len(), 3);
    assert!(
        shard
            .owners
            .iter()
            .all(|owner| owner.share_milli == 1000 && owner.copies == of.records)
    );
    assert_eq!(
        shard.owners.iter().map(|owner| owner.records).sum::<u64>(),
        of.records
    );
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_are_searched_for_are_hot_and_items_count_under_each_word() {
    let operator = Identity::from_secret([42; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let item = |name: &str| {
        let payload = Payload::Item(wire::Item {
            name: name.to_owned(),
            terms: text::item_terms(name, ""),
            ..Default::default()
        });
        Record::sign(&publisher(), "canopy", 1, unix_ms(), 3600, payload).unwrap()
    };
    let items = ["red panda", "red fox"].map(item);
    let put = wire::Put {
        records: items.iter().map(|item| item.signed.clone()).collect(),
        local: false,
    };
    ask(&one, request::Kind::Put(put)).await;
    let mut truth: HashMap<u32, u64> = HashMap::new();
    let places = items.iter().flat_map(Record::placement_keys);
    for key in places.chain([keys::location(&one.host.node_id())]) {
        *truth.entry(shard_of(&key) as u32).or_default() += 1;
    }
    until("items count under all their keys", async || {
        let told = all_shards(&one).await;
        told.iter()
            .all(|shard| truth.get(&shard.shard).copied().unwrap_or(0) == shard.copies)
    })
    .await;
    let search = async |words: &[&str], prefixes: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let search = wire::Search {
            terms: owned(words),
            prefixes: owned(prefixes),
            ..Default::default()
        };
        ask(&one, request::Kind::Search(search)).await
    };
    for _ in 0..30 {
        search(&["panda"], &[]).await;
    }
    for _ in 0..10 {
        search(&[], &["fox"]).await;
    }
    let hot = top(&one, "term").await;
    let words: Vec<&str> = hot.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(words, ["panda", "fox*"]);
    assert!(
        (29.0..=30.0).contains(&hot.keys[0].count),
        "{:?}",
        hot.keys[0]
    );
    let keys = top(&one, "").await;
    let panda = keys::term("panda").to_string();
    let panda = keys.keys.iter().find(|key| key.id == panda).unwrap();
    assert_eq!(
        (panda.kind.as_str(), panda.what.as_str()),
        ("key", "items with panda")
    );
    assert_eq!(keys.totals.len(), 5);
    one.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_lack_copies_until_three_super_nodes_have_them() {
    let operator = Identity::from_secret([43; 32]);
    let first = host(&operator, 1, Some(20_000_000), "", &[]).await;
    let second = host(&operator, 2, Some(20_000_000), "", &[&first]).await;
    until("both know both", async || {
        first.placement().len() == 2 && second.placement().len() == 2
    })
    .await;
    write(&first, 100).await;
    let asked = Manned::by(first).await;
    let lacking = async || {
        let mut client = asked.client.clone();
        let overview = client.get_overview(pb::GetOverviewRequest {}).await;
        let replication = overview.unwrap().into_inner().replication.unwrap();
        let request = pb::ListShardsRequest {
            under_replicated: true,
            ..Default::default()
        };
        let listed = shards(&asked, request).await;
        (replication, listed)
    };
    until("all shards that hold something lack a copy", async || {
        let (replication, listed) = lacking().await;
        replication.shards > 40
            && replication.under_replicated_shards == replication.shards
            && listed.total == replication.shards
    })
    .await;
    let (_, listed) = lacking().await;
    assert!(
        listed.shards[0].why.starts_with("2 of the 3"),
        "{:?}",
        listed.shards[0]
    );
    let third = host(&operator, 3, Some(20_000_000), "", &[&asked.host, &second]).await;
    until("no shard lacks a copy any more", async || {
        let (replication, listed) = lacking().await;
        replication.shards > 40 && replication.under_replicated_shards == 0 && listed.total == 0
    })
    .await;
    until("three copies of each record are counted", async || {
        let all = all_shards(&asked).await;
        let copies: u64 = all.iter().map(|shard| shard.copies).sum();
        copies >= 300 && all.iter().all(|shard| shard.copies == 3 * shard.records)
    })
    .await;
    within(third.close()).await;
    within(second.close()).await;
    asked.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_shown_is_refused_and_says_what_can() {
    let operator = Identity::from_secret([44; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let list = async |change: fn(&mut pb::ListShardsRequest)| {
        let mut request = pb::ListShardsRequest::default();
        change(&mut request);
        let reply = one.client.clone().list_shards(request).await;
        let status = reply.expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    for (refused, words) in [
        (list(|r| r.page_size = u32::MAX).await, "several pages"),
        (
            list(|r| r.page_token = "nonsense".into()).await,
            "begin again",
        ),
        (
            list(|r| r.page_token = "records/up/00/n0".into()).await,
            "begin again",
        ),
        (
            list(|r| r.order_by = "heat".into()).await,
            "operations, records",
        ),
    ] {
        assert_eq!(refused.0, Code::InvalidArgument);
        assert!(refused.1.contains(words), "{}", refused.1);
    }
    for (which, code) in [
        (Some(Which::Shard(256)), Code::NotFound),
        (Some(Which::Key("ab".into())), Code::InvalidArgument),
        (None, Code::InvalidArgument),
    ] {
        let reply = one
            .client
            .clone()
            .get_shard(pb::GetShardRequest { which })
            .await;
        assert_eq!(reply.expect_err("refused").code(), code);
    }
    for (kind, limit) in [("flows", 1), ("key", 257)] {
        let kind = kind.to_owned();
        let reply = one
            .client
            .clone()
            .top_keys(pb::TopKeysRequest { kind, limit })
            .await;
        assert_eq!(reply.expect_err("refused").code(), Code::InvalidArgument);
    }
    one.close().await;
}
