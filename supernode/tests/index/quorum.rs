//! Reads and writes through several index services, some of them failing.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::*;
use canopy_core::identity::Identity;
use canopy_core::keyspace::keys;
use canopy_core::placement::R;
use canopy_core::record::Record;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, Consistency, request, response};
use canopy_supernode::service::ServiceConfig;
use proptest::prelude::*;

const ONE: Consistency = Consistency::One;
const QUORUM: Consistency = Consistency::Quorum;

#[tokio::test(start_paused = true)]
async fn a_write_through_anybody_is_read_through_anybody() {
    let net = Net::of(6);
    let record = value("a", 1);
    assert_eq!(net.put(2, std::slice::from_ref(&record)).await, [None]);
    for n in 1..=6 {
        for consistency in [ONE, QUORUM] {
            let reply = net.get(n, record.id(), consistency).await.unwrap();
            assert_eq!(reply.records, std::slice::from_ref(&record.signed));
            let owner = net.placement().owners(&record.id(), R).contains(&node(n));
            assert_eq!(reply.owners.is_empty(), owner);
        }
    }
    until("three copies", || net.copies(&record) == R).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_vouch_for_its_copy_asks_others() {
    let net = Net::of(6);
    let record = value("a", 1);
    assert_eq!(net.put(2, std::slice::from_ref(&record)).await, [None]);
    until("three copies", || net.copies(&record) == R).await;
    let owners = net.placement().owners(&record.id(), R);
    for settled in [false, true] {
        for n in 1..=6 {
            let owner = owners.contains(&node(n));
            let reply = net.copy(n, record.id()).await.unwrap();
            assert_eq!(reply.records, std::slice::from_ref(&record.signed));
            assert_eq!(reply.owners.is_empty(), owner);
            // All have just joined, and may lack records.
            assert_eq!(reply.copy, owner && settled, "node {n}");
        }
        tokio::time::sleep(ServiceConfig::default().settle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_with_a_node_that_dies_unwarned() {
    let net = Net::of(5);
    let mut acknowledged = Vec::new();
    for n in 0..60 {
        if n == 30 {
            net.kill(3);
        }
        let record = value(&format!("n{n}"), 1);
        let through = [1, 2, 4, 5][n % 4];
        if net.put(through, std::slice::from_ref(&record)).await == [None] {
            acknowledged.push(record);
        }
        // Reads go on while it is dead and nobody has noticed.
        let earlier = &acknowledged[n % acknowledged.len()];
        let reply = net.get(through, earlier.id(), QUORUM).await.unwrap();
        assert_eq!(reply.records, std::slice::from_ref(&earlier.signed));
    }
    assert_eq!(acknowledged.len(), 60);
    net.leave(3);
    until("three copies of all", || {
        acknowledged.iter().all(|record| net.copies(record) == R)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_two_owners_cannot_take_is_refused() {
    let net = Net::of(3);
    net.kill(2);
    let first = value("a", 1);
    assert_eq!(net.put(1, &[first]).await, [None]);
    net.kill(3);
    let refused = net.put(1, &[value("b", 1)]).await.remove(0).unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    let read = net.get(1, value("c", 1).id(), QUORUM).await.unwrap_err();
    assert_eq!(read.code(), Code::Unavailable);
    // One miss is no proof: the two that are gone may have it.
    let read = net.get(1, value("c", 1).id(), ONE).await.unwrap_err();
    assert_eq!(read.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn bad_records_are_refused_one_by_one() {
    let net = Net::of(3);
    let good = value("a", 2);
    let mut forged = value("b", 1);
    forged.signed.signature = good.signed.signature.clone();
    let payload = good.body.payload.clone().unwrap();
    let foreign = Record::sign(&publisher(), "other", 1, NOW, 60, payload).unwrap();
    let codes = |refusals: Vec<Option<wire::Refusal>>| -> Vec<Option<Code>> {
        refusals.into_iter().map(|r| r.map(|r| r.code())).collect()
    };
    let refusals = net.put(1, &[forged, good, foreign]).await;
    assert_eq!(
        codes(refusals),
        [Some(Code::Invalid), None, Some(Code::Network)]
    );
    let stale = net.put(2, &[value("a", 1)]).await;
    assert_eq!(codes(stale), [Some(Code::Invalid)]);
}

#[tokio::test(start_paused = true)]
async fn local_writes_are_taken_from_super_nodes_only() {
    let net = Net::of(3);
    let put = |local| {
        request::Kind::Put(wire::Put {
            records: vec![value("a", 1).signed],
            local,
        })
    };
    let service = net.service(1);
    let refused = service.handle(LEAF, put(true)).await;
    assert!(matches!(refused, response::Kind::Refusal(r) if r.code() == Code::NotServing));
    let taken = service.handle(node(2), put(true)).await;
    assert!(matches!(taken, response::Kind::Put(reply) if reply.outcomes[0].refusal.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_removal_hides_a_value_from_every_reader() {
    let net = Net::of(4);
    assert_eq!(net.put(1, &[value("a", 1)]).await, [None]);
    assert_eq!(net.put(2, &[removal("a", 2)]).await, [None]);
    for n in 1..=4 {
        let reply = net.get(n, value("a", 1).id(), QUORUM).await.unwrap();
        assert!(reply.records.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_owner_is_repaired_by_a_quorum_read() {
    let net = Net::of(3);
    let (old, new) = (value("a", 1), value("a", 2));
    assert_eq!(net.put(1, std::slice::from_ref(&old)).await, [None]);
    until("copies", || net.copies(&old) == 3).await;
    // Two owners alone have the new one.
    for n in [1, 2] {
        let (_, ack) = net.service(n).index().put(vec![new.clone()], NOW);
        ack.await.unwrap();
    }
    let reply = net.get(3, new.id(), QUORUM).await.unwrap();
    assert_eq!(reply.records, std::slice::from_ref(&new.signed));
    until("repair", || net.copies(&new) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn owners_that_differ_are_not_believed_before_the_third_is_asked() {
    let net = Net::of(4);
    let (old, new) = (value("a", 1), value("a", 2));
    let owners = net.placement().owners(&new.id(), R);
    let outsider = (1..=4).find(|n| !owners.contains(&node(*n))).unwrap();
    until("settled", || {
        (1..=4).all(|n| !net.service(n).stats().settling)
    })
    .await;
    for (owner, record) in [(owners[0], &old), (owners[2], &new)] {
        let service = net.service(owner.0[0]);
        let (_, ack) = service.index().put(vec![record.clone()], NOW);
        ack.await.unwrap();
    }
    let reply = net.get(outsider, new.id(), QUORUM).await.unwrap();
    assert_eq!(reply.records, std::slice::from_ref(&new.signed));
}

#[tokio::test(start_paused = true)]
async fn a_slow_owner_is_hedged() {
    let net = Net::of(4);
    let record = value("a", 1);
    assert_eq!(net.put(1, std::slice::from_ref(&record)).await, [None]);
    until("copies", || net.copies(&record) == 3).await;
    let owners = net.placement().owners(&record.id(), R);
    let outsider = (1..=4).find(|n| !owners.contains(&node(*n))).unwrap();
    net.slow(owners[0].0[0], Duration::from_millis(1500));
    let began = tokio::time::Instant::now();
    let reply = net.get(outsider, record.id(), ONE).await.unwrap();
    assert_eq!(reply.records, [record.signed]);
    assert!(reply.hedged);
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!(net.service(outsider).stats().hedged, 1);
}

#[tokio::test(start_paused = true)]
async fn owners_that_are_all_slow_are_not_asked_for_twice_the_work() {
    let net = Net::of(4);
    let record = value("a", 1);
    assert_eq!(net.put(1, std::slice::from_ref(&record)).await, [None]);
    until("copies", || net.copies(&record) == 3).await;
    let owners = net.placement().owners(&record.id(), R);
    let outsider = (1..=4).find(|n| !owners.contains(&node(*n))).unwrap();
    for owner in &owners {
        net.slow(owner.0[0], Duration::from_millis(1500));
    }
    let reads = (0..100).map(|_| net.get(outsider, record.id(), QUORUM));
    for reply in futures_util::future::join_all(reads).await {
        assert_eq!(reply.unwrap().records, std::slice::from_ref(&record.signed));
    }
    let hedged = net.service(outsider).stats().hedged;
    assert!((1..=5 + 100 / 10).contains(&hedged), "{hedged} hedged");
}

#[tokio::test(start_paused = true)]
async fn an_owner_answers_from_its_own_copy_without_a_call() {
    let net = Net::of(3);
    let record = value("a", 1);
    assert_eq!(net.put(1, std::slice::from_ref(&record)).await, [None]);
    until("copies", || net.copies(&record) == 3).await;
    let get = request::Kind::Get(wire::Get {
        key: record.id().to_bytes(),
        ..Default::default()
    });
    let answer = net.service(2).try_now(LEAF, &get);
    assert!(matches!(answer, Some(response::Kind::Get(reply)) if reply.records.len() == 1));
    let ping = request::Kind::Ping(wire::Ping::default());
    assert!(matches!(
        net.service(2).try_now(LEAF, &ping),
        Some(response::Kind::Pong(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn providers_of_all_owners_are_joined() {
    let net = Net::of(5);
    let content = [7; 32];
    let records: Vec<Record> = (1..=4)
        .map(|n| {
            let payload = Payload::Provider(wire::Provider {
                content: content.to_vec().into(),
                size: 1,
            });
            Record::sign(&Identity::from_secret([n; 32]), "net", 1, NOW, 60, payload).unwrap()
        })
        .collect();
    // Each half is known to one owner only.
    let owners = net.placement().owners(&keys::provider(&content), R);
    for (owner, half) in owners.iter().zip(records.chunks(2)) {
        let service = net.service(owner.0[0]);
        let (_, ack) = service.index().put(half.to_vec(), NOW);
        ack.await.unwrap();
    }
    let reply = net.get(1, keys::provider(&content), QUORUM).await.unwrap();
    assert_eq!(reply.records.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_search_is_answered_by_the_owners_of_its_terms() {
    let net = Net::of(8);
    let items = [
        item("rust book", "systems programming"),
        item("go book", "systems"),
        item("東京の地図", ""),
    ];
    assert_eq!(net.put(1, &items).await, [None, None, None]);
    for n in 1..=8 {
        assert_eq!(net.search(n, "systems rust").await.unwrap(), ["rust book"]);
        assert_eq!(net.search(n, "sys*").await.unwrap().len(), 2);
        assert_eq!(net.search(n, "京の").await.unwrap(), ["東京の地図"]);
        assert_eq!(net.search(n, "図").await.unwrap(), ["東京の地図"]);
        assert_eq!(net.search(n, "pro* book").await.unwrap(), ["rust book"]);
        assert!(net.search(n, "absent").await.unwrap().is_empty());
    }
    let short = net.search(1, "a*").await.unwrap_err();
    assert_eq!(short.code(), Code::Malformed);
    assert_eq!(net.search(1, "").await.unwrap_err().code(), Code::Malformed);
}

#[tokio::test(start_paused = true)]
async fn an_item_is_no_longer_found_by_terms_it_lost() {
    let net = Net::of(12);
    let now = |words: &str, sequence| {
        let payload = item("report", words).body.payload.unwrap();
        Record::sign(&publisher(), "net", sequence, NOW, 60, payload).unwrap()
    };
    let old = now("draft alpha beta gamma delta", 1);
    assert_eq!(net.put(1, &[old]).await, [None]);
    assert_eq!(net.search(2, "gamma").await.unwrap(), ["report"]);
    assert_eq!(net.put(3, &[now("final", 2)]).await, [None]);
    for word in ["draft", "alpha", "beta", "gamma", "delta"] {
        let owners = net.placement().owners(&keys::term(word), R);
        until("the old version is gone", || {
            let holds_old = |n: u8| net.service(n).index().term_count(word) > 0;
            owners.iter().all(|owner| {
                let id = item("report", "").id();
                let index = net.service(owner.0[0]).index().clone();
                !holds_old(owner.0[0])
                    || index
                        .version(&id)
                        .is_none_or(|version| version.sequence == 2)
            })
        })
        .await;
        assert!(net.search(2, word).await.unwrap().is_empty());
    }
    assert_eq!(net.search(2, "final").await.unwrap(), ["report"]);
}

#[tokio::test(start_paused = true)]
async fn searches_go_on_when_an_owner_dies() {
    let net = Net::of(5);
    assert_eq!(net.put(1, &[item("rust book", "")]).await, [None]);
    let owners = net.placement().owners(&keys::term("rust"), R);
    let alive = (1..=5).find(|n| *n != owners[0].0[0]).unwrap();
    net.kill(owners[0].0[0]);
    assert_eq!(net.search(alive, "rust").await.unwrap(), ["rust book"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_put_is_cut_into_frames() {
    let net = Net::of(3);
    let data = vec![1; 60_000];
    let records: Vec<Record> = (0..40)
        .map(|n| {
            let payload = Payload::Value(wire::Value {
                name: format!("big{n}"),
                data: data.clone().into(),
            });
            Record::sign(&publisher(), "net", 1, NOW, 60, payload).unwrap()
        })
        .collect();
    let refusals = net.put(1, &records).await;
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put { through: u8, name: u8 },
    Remove { through: u8, name: u8 },
    Read { through: u8, name: u8 },
    Kill { n: u8 },
    Join,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0u8..8, 0u8..6);
    prop_oneof![
        6 => at().prop_map(|(through, name)| Step::Put { through, name }),
        2 => at().prop_map(|(through, name)| Step::Remove { through, name }),
        4 => at().prop_map(|(through, name)| Step::Read { through, name }),
        1 => (0u8..8).prop_map(|n| Step::Kill { n }),
        1 => Just(Step::Join),
        2 => Just(Step::Wait),
    ]
}

/// What a reader may see of one name: the last acknowledged write, or one after
/// it that was not acknowledged. `None` is a removal.
#[derive(Default)]
struct Model {
    sequence: u64,
    acknowledged: u64,
    writes: BTreeMap<u64, Option<Record>>,
}

impl Model {
    fn allows(&self, seen: Option<&wire::Signed>) -> bool {
        let later = self.writes.range(self.acknowledged..);
        let mut later = later.map(|(_, write)| write.as_ref().map(|record| &record.signed));
        (self.acknowledged == 0 && seen.is_none()) || later.any(|write| write == seen)
    }
}

async fn play(steps: Vec<Step>) {
    let net = Net::of(5);
    let mut alive: Vec<u8> = (1..=5).collect();
    let mut next = 6;
    let mut names: BTreeMap<u8, Model> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Put { through, name } | Step::Remove { through, name } => {
                let model = names.entry(name).or_default();
                model.sequence += 1;
                let text = format!("n{name}");
                let (record, kept) = match step {
                    Step::Put { .. } => {
                        let record = value(&text, model.sequence);
                        (record.clone(), Some(record))
                    }
                    _ => (removal(&text, model.sequence), None),
                };
                model.writes.insert(model.sequence, kept);
                let through = alive[usize::from(through) % alive.len()];
                if net.put(through, &[record]).await == [None] {
                    model.acknowledged = model.sequence;
                }
            }
            Step::Read { through, name } => {
                let through = alive[usize::from(through) % alive.len()];
                check(&net, through, name, names.entry(name).or_default()).await;
            }
            // One failure at a time is what three copies are for.
            Step::Kill { n } if alive.len() > 4 => {
                let n = alive.remove(usize::from(n) % alive.len());
                net.kill(n);
                net.leave(n);
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Step::Kill { .. } => {}
            Step::Join => {
                net.join(next);
                alive.push(next);
                next += 1;
            }
            Step::Wait => tokio::time::sleep(Duration::from_secs(3)).await,
        }
    }
    for through in alive {
        for (name, model) in &names {
            check(&net, through, *name, model).await;
        }
    }
}

async fn check(net: &Net, through: u8, name: u8, model: &Model) {
    let key = value(&format!("n{name}"), 1).id();
    let reply = net.get(through, key, QUORUM).await.unwrap();
    let seen = |records: &[wire::Signed], how| {
        let shown = |signed: &&wire::Signed| !Record::trusted(signed).unwrap().body.removed;
        assert!(
            model.allows(records.first().filter(shown)),
            "{name}: {how} {records:?} after {:?} of {:?}",
            model.acknowledged,
            model.writes.keys()
        );
    };
    seen(&reply.records, "through one");
    // A leaf takes what two hold alike, nothing where none of them has anything, and
    // the word of one who asked others.
    let mut copies = Vec::new();
    let owners = net.placement().owners(&key, R);
    for owner in &owners {
        let reply = net.copy(owner.0[0], key).await.unwrap();
        match reply.copy {
            true => copies.push(reply.records),
            false => seen(&reply.records, "of one asked for a copy"),
        }
    }
    for records in &copies {
        let alike = copies.iter().filter(|other| *other == records).count();
        let enough = if records.is_empty() { owners.len() } else { 2 };
        if alike >= enough {
            seen(records, "of the owners' copies");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn readers_see_every_acknowledged_write(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(steps));
    }
}
