//! The client against super-nodes that are slow, dead, busy or lying. Time is
//! tokio's paused clock, so nothing really waits.

use std::time::Duration;

use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{NodeId, keys};
use canopy_core::placement::R;
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code;
use tokio::time::Instant;

use super::testing::{Mode, NETWORK, NOW, Net, location};
use super::*;
use crate::node::Node;

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn me() -> Identity {
    Identity::from_secret([9; 32])
}

fn client(net: &Net) -> Client<Net> {
    Client::new(net.clone(), me(), DEFAULT_TIMEOUT)
}

/// A client and its network of six, with the owners of the value `n`.
pub(super) fn six() -> (Client<Net>, Net, Vec<NodeId>) {
    let net = Net::new(&me(), 6);
    let owners = net
        .placement()
        .owners(&keys::value(&me().node_id(), "n"), R);
    (client(&net), net, owners)
}

async fn put(client: &Client<Net>, data: &'static str) -> Result<Stored, Error> {
    client
        .put("n", Bytes::from_static(data.as_bytes()), Some(HOUR))
        .await
}

async fn get(client: &Client<Net>) -> Result<Option<Value>, Error> {
    client.get(client.node_id(), "n", Consistency::Quorum).await
}

pub(super) fn value_record(identity: &Identity, name: &str, sequence: u64) -> Record {
    let value = wire::Value {
        name: name.into(),
        data: Bytes::from_static(b"other"),
    };
    Record::sign(identity, NETWORK, sequence, NOW, 60, Payload::Value(value)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_put_is_read_back_from_two_owners_at_once() {
    let (client, net, owners) = six();
    assert_eq!(get(&client).await, Ok(None));
    let stored = put(&client, "hello").await.unwrap();
    let value = get(&client).await.unwrap().unwrap();
    assert_eq!(
        (value.data.as_ref(), value.sequence),
        (&b"hello"[..], stored.sequence)
    );
    // That there is nothing all of them must say.
    let asked = [&owners[..], &owners[..1], &owners[..2]].concat();
    assert_eq!(net.take_asked(), asked);
    client.remove("n").await.unwrap();
    assert_eq!(get(&client).await, Ok(None));
    assert_eq!(client.stats().failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_owner_is_overtaken_by_a_hedge_and_soon_asked_last() {
    let (client, net, owners) = six();
    net.set(owners[0], Mode::Silent);
    let begun = Instant::now();
    let stored = put(&client, "hello").await.unwrap();
    assert!(stored.hedged);
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    for _ in 0..12 {
        assert!(get(&client).await.unwrap().is_some());
    }
    net.take_asked();
    for _ in 0..6 {
        assert!(!get(&client).await.unwrap().unwrap().hedged);
    }
    assert!(!net.take_asked().contains(&owners[0]));
    assert!(client.stats().hedged >= 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_is_asked_at_once_when_one_fails_or_is_busy() {
    for mode in [
        Mode::Gone,
        Mode::Refuses(Code::Busy),
        Mode::Refuses(Code::NotServing),
    ] {
        let (client, net, owners) = six();
        net.set(owners[0], mode);
        let begun = Instant::now();
        put(&client, "hello").await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(net.take_asked(), owners[..2]);
        assert_eq!((client.stats().retried, client.stats().hedged), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_owner_is_asked_first_again_and_a_failed_one_last() {
    let (client, net, owners) = six();
    net.set(owners[0], Mode::Refuses(Code::Busy));
    put(&client, "hello").await.unwrap();
    net.take_asked();
    get(&client).await.unwrap();
    assert_eq!(net.take_asked(), owners);

    // Two fail, the third is gone as well: the others are asked before those
    // that failed lately.
    net.set_all(&Mode::Gone);
    get(&client).await.unwrap_err();
    net.take_asked();
    net.set_all(&Mode::Well(Duration::ZERO));
    get(&client).await.unwrap();
    let asked = net.take_asked();
    assert_eq!(asked.len(), 1);
    net.set(asked[0], Mode::Gone);
    get(&client).await.unwrap();
    let asked = net.take_asked();
    assert!(
        !owners.contains(&asked[0]) || asked[0] == owners[0],
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn others_forward_when_all_owners_are_gone() {
    let (client, net, owners) = six();
    owners.iter().for_each(|owner| net.set(*owner, Mode::Gone));
    put(&client, "hello").await.unwrap();
    assert!(!owners.contains(net.take_asked().last().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_two_ends_the_request_and_one_does_not() {
    let (client, net, owners) = six();
    net.set(owners[0], Mode::Refuses(Code::Invalid));
    put(&client, "hello").await.unwrap();
    net.set_all(&Mode::Refuses(Code::Quota));
    net.take_asked();
    let error = put(&client, "hello").await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                code: Code::Quota,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(net.take_asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_known_is_waited_for_and_then_named() {
    let net = Net::new(&me(), 0);
    let client = client(&net);
    let begun = Instant::now();
    let error = put(&client, "hello").await.unwrap_err();
    assert!(matches!(error, Error::NoSuperNode { .. }), "{error}");
    assert!(
        (8..=10).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );

    let joining = net.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        joining.join(NodeId([1; 32]));
    });
    put(&client, "hello").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_overlay_ends_at_the_deadline_with_the_last_reason() {
    let (client, net, _) = six();
    for (mode, reason) in [
        (Mode::Gone, "connection refused"),
        (Mode::Silent, "in time"),
    ] {
        net.set_all(&mode);
        let begun = Instant::now();
        let error = get(&client).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable { last, .. } if last.contains(reason)),
            "{error}"
        );
        assert!(begun.elapsed() <= DEFAULT_TIMEOUT, "{:?}", begun.elapsed());
    }
    assert_eq!(client.stats().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lie_is_not_believed_and_the_next_owner_answers() {
    let (client, net, owners) = six();
    put(&client, "hello").await.unwrap();
    let stranger = Identity::from_secret([8; 32]);
    let mut forged = value_record(&stranger, "n", NOW * 2).signed;
    forged.signer = me().node_id().to_bytes();
    let lies = [
        // Another's value, another name, a forged signature.
        value_record(&stranger, "n", NOW * 2).signed,
        value_record(&me(), "m", NOW * 2).signed,
        forged,
    ];
    for lie in lies {
        net.set(owners[0], Mode::Lies(lie));
        let value = get(&client).await.unwrap().unwrap();
        assert_eq!(value.data.as_ref(), b"hello");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_peer_itself_says_where_it_is() {
    let (client, net, _) = six();
    let (peer, stranger) = (
        Identity::from_secret([5; 32]),
        Identity::from_secret([8; 32]),
    );
    let locate = async || client.locate(peer.node_id(), |home| net.addrs(home)).await;
    assert_eq!(locate().await, Ok(None));
    net.store(&location(&peer, &[1, 99]));
    let found = locate().await.unwrap().unwrap();
    let homes: Vec<NodeId> = found.homes.iter().map(|home| home.node_id).collect();
    assert_eq!(homes, [NodeId([1; 32]), NodeId([99; 32])]);
    let known: Vec<usize> = found.homes.iter().map(|home| home.addrs.len()).collect();
    assert_eq!(known, [1, 0]);

    // Another's location, one that another signed, and a value of its own.
    let mut forged = location(&stranger, &[66]).signed;
    forged.signer = peer.node_id().to_bytes();
    let value = value_record(&peer, "n", NOW).signed;
    for lie in [location(&stranger, &[66]).signed, forged, value] {
        let liar = keys::location(&peer.node_id());
        let liar = net.placement().owners(&liar, R)[0];
        net.set(liar, Mode::Lies(lie));
        assert_eq!(locate().await, Ok(Some(found.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_location_that_ended_or_leads_nowhere_is_none() {
    let (client, net, _) = six();
    let peer = Identity::from_secret([5; 32]);
    let locate = async || client.locate(peer.node_id(), |_| Vec::new()).await;
    net.store(&location(&peer, &[]));
    assert_eq!(locate().await, Ok(None));
    net.store(&location(&peer, &[1]));
    assert!(locate().await.unwrap().is_some());
    net.forward(HOUR);
    assert_eq!(locate().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_later_sequence_in_place_is_overtaken_once() {
    let (client, net, _) = six();
    net.store(&value_record(&me(), "n", NOW + 5_000));
    let stored = put(&client, "hello").await.unwrap();
    assert_eq!(stored.sequence, NOW + 5_001);
    assert_eq!(get(&client).await.unwrap().unwrap().data.as_ref(), b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_made_up_sequence_leaves_room_for_further_writes() {
    let (client, net, owners) = six();
    net.set(owners[0], Mode::Claims(u64::MAX));
    let stored = put(&client, "hello").await.unwrap();
    assert_eq!(stored.sequence, NOW);
    assert!(!net.take_asked().is_empty());
    // Within reason it is believed.
    net.set_all(&Mode::Claims(NOW + 60_000));
    let stored = put(&client, "hello").await.unwrap();
    assert_eq!(stored.sequence, NOW + 60_001);
}

/// How far from the super-nodes' clocks the value `n` was issued, milliseconds.
fn issued_off(net: &Net) -> u64 {
    let id = keys::value(&me().node_id(), "n");
    net.issued_ms(&id).unwrap().abs_diff(net.true_ms())
}

#[tokio::test(start_paused = true)]
async fn who_writes_with_a_wrong_clock_issues_by_that_of_the_super_nodes() {
    // Ahead of them it would be in the future, behind them it would be over.
    for off in [3_600_000, -2 * 3_600_000, 12_000] {
        let (client, net, _) = six();
        net.set_off(off);
        let first = put(&client, "hello").await.unwrap();
        assert!(issued_off(&net) < 1_000, "{off}");
        // Two have refused; now it is known.
        assert_eq!(net.take_asked().len(), 3, "{off}");
        let second = put(&client, "again").await.unwrap();
        assert_eq!(net.take_asked().len(), 1, "{off}");
        assert_eq!(get(&client).await.unwrap().unwrap().data, "again");
        // Sequences are readings of the own clock, whatever others say.
        let own = NOW.saturating_add_signed(off);
        assert!(first.sequence.abs_diff(own) < 1_000 && first.sequence < second.sequence);
        // The clock is put right, and nothing is corrected any more.
        net.set_off(0);
        put(&client, "right").await.unwrap();
        assert!(issued_off(&net) < 1_000, "{off}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_super_node_with_a_wrong_clock_moves_nobody() {
    for ahead in [-86_400_000, 86_400_000] {
        let (client, net, owners) = six();
        net.set(owners[0], Mode::Ahead(ahead));
        for _ in 0..20 {
            put(&client, "hello").await.unwrap();
            assert!(issued_off(&net) < 1_000, "{ahead}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_wrong_clock_is_issued_anew() {
    let (client, net, _) = six();
    net.set_off(3_600_000);
    let items = ["red panda", "giant panda"].map(Item::new);
    let stored = client.publish_all(&items, Some(HOUR)).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert_eq!(net.stored(), 2);
    // A record that is wrong by itself is refused all the same.
    let long = Item::new("x".repeat(2_000));
    assert!(client.publish(&long, Some(HOUR)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_reads_with_a_clock_that_is_behind_finds_what_was_just_written() {
    let (client, net, _) = six();
    put(&client, "hello").await.unwrap();
    net.set_off(-3_600_000);
    assert_eq!(get(&client).await.unwrap().unwrap().data, "hello");
}

#[tokio::test(start_paused = true)]
async fn sequences_rise_within_one_millisecond() {
    let (client, _, _) = six();
    let first = put(&client, "a").await.unwrap().sequence;
    let second = put(&client, "b").await.unwrap().sequence;
    assert_eq!((first, second), (NOW, NOW + 1));
}

#[tokio::test(start_paused = true)]
async fn a_value_too_large_or_nameless_is_refused_before_anything_is_sent() {
    let (client, net, _) = six();
    let data = Bytes::from(vec![0; 64 * 1024 + 1]);
    let error = client.put("n", data, Some(HOUR)).await.unwrap_err();
    assert!(matches!(error, Error::Record(_)), "{error}");
    assert_eq!(
        client.put("", Bytes::new(), Some(HOUR)).await,
        Err(Error::EmptyName)
    );
    assert!(net.take_asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn content_is_read_by_its_hash_alone() {
    let (client, _, _) = six();
    let (hash, _) = client
        .put_content(Bytes::from_static(b"abc"), Some(HOUR))
        .await
        .unwrap();
    assert_eq!(
        client
            .get_content(hash)
            .await
            .unwrap()
            .unwrap()
            .data
            .as_ref(),
        b"abc"
    );
    assert_eq!(client.get_content(blake3::hash(b"no")).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn providers_are_found_by_the_hash() {
    let (client, _, _) = six();
    let hash = blake3::hash(b"abc");
    client.provide(hash, 3, None).await.unwrap();
    let found = client.find_providers(hash, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].node_id, found[0].size), (client.node_id(), 3));
    assert_eq!(
        client.find_providers(blake3::hash(b"no"), 10).await,
        Ok(vec![])
    );
}

#[tokio::test(start_paused = true)]
async fn many_items_go_in_bounded_batches_and_are_all_found() {
    let (client, net, owners) = six();
    net.set(owners[0], Mode::Gone);
    let items: Vec<Item> = (0..1_000)
        .map(|i| Item::new(format!("file-{i}")).text("panda"))
        .collect();
    let results = client.publish_all(&items, Some(HOUR)).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(net.stored(), 1_000);
    let puts = net.take_puts();
    assert_eq!(puts.iter().sum::<usize>(), 1_000);
    assert!(puts.iter().all(|count| *count <= 128), "{puts:?}");
    assert!(puts.len() < 50, "{puts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_bad_item_does_not_spoil_its_batch() {
    let (client, _, _) = six();
    let items = [Item::new("a"), Item::new("!"), Item::new("b")];
    let results = client.publish_all(&items, Some(HOUR)).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(Error::Record(_))));
}

#[tokio::test(start_paused = true)]
async fn a_search_pages_to_its_end_and_what_is_unpublished_is_gone() {
    let (client, _, _) = six();
    let items: Vec<Item> = (0..5).map(|i| Item::new(format!("panda {i}"))).collect();
    client.publish_all(&items, Some(HOUR)).await;
    let mut query = Some(Query::parse("pan*").unwrap().limit(2));
    let mut names = Vec::new();
    while let Some(asked) = query {
        let page = client.search(&asked).await.unwrap();
        assert_eq!((page.total, page.rejected), (5, 0));
        names.extend(page.hits.into_iter().map(|hit| hit.item.name));
        query = page.next;
    }
    names.sort();
    assert_eq!(
        names,
        ["panda 0", "panda 1", "panda 2", "panda 3", "panda 4"]
    );

    assert_eq!(client.unpublish("panda 3").await, Ok(true));
    assert_eq!(client.unpublish("panda 3").await, Ok(false));
    let left = client
        .search(&Query::parse("panda").unwrap())
        .await
        .unwrap();
    assert_eq!(left.total, 4);
}

#[tokio::test(start_paused = true)]
async fn a_slow_overlay_is_not_asked_for_twice_the_work() {
    let (client, net, _) = six();
    net.set_all(&Mode::Well(Duration::from_millis(1_500)));
    for _ in 0..300 {
        put(&client, "hello").await.unwrap();
    }
    let hedged = client.stats().hedged;
    assert!(hedged <= 5 + 300 / 10, "{hedged} hedges");
}

/// Begins `count` reads at once: how many were answered, and how many requests
/// they took.
async fn reads_at_once(client: &Client<Net>, net: &Net, count: usize) -> (usize, usize) {
    net.take_asked();
    let reads = (0..count).map(|_| get(client));
    let answers = futures_util::future::join_all(reads).await;
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    (answered, net.take_asked().len())
}

#[tokio::test(start_paused = true)]
async fn late_answers_are_waited_for_when_the_budget_is_spent() {
    let (client, net, _) = six();
    put(&client, "hello").await.unwrap();
    // Longer than an attempt is given where another can follow.
    net.set_all(&Mode::Well(Duration::from_secs(4)));
    let (answered, asked) = reads_at_once(&client, &net, 100).await;
    assert!(answered >= 90, "{answered} answered");
    assert!(asked <= 200 + 8 + 100 / 10, "{asked} requests");
}

#[tokio::test(start_paused = true)]
async fn one_silent_owner_does_not_use_the_budget_up() {
    let (client, net, owners) = six();
    put(&client, "hello").await.unwrap();
    net.set(owners[0], Mode::Silent);
    for i in 0..300 {
        if i % 20 == 0 {
            // It lives an hour.
            put(&client, "hello").await.unwrap();
        }
        assert!(get(&client).await.unwrap().is_some());
        // Long enough that what went wrong before is forgiven.
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    let hedged = client.stats().hedged;
    assert!(hedged > 5 + 300 / 10, "{hedged} hedges");
}

#[tokio::test(start_paused = true)]
async fn retries_of_what_was_refused_stay_within_the_budget() {
    let (client, net, _) = six();
    put(&client, "hello").await.unwrap();
    for code in [Code::Unavailable, Code::Busy] {
        net.set_all(&Mode::Refuses(code));
        let (answered, asked) = reads_at_once(&client, &net, 100).await;
        assert_eq!(answered, 0);
        assert!(asked <= 200 + 8 + 100 / 10, "{asked} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_costs_no_budget() {
    let (client, net, owners) = six();
    put(&client, "hello").await.unwrap();
    net.set(owners[0], Mode::Gone);
    net.set(owners[1], Mode::Gone);
    let (answered, _) = reads_at_once(&client, &net, 100).await;
    assert_eq!(answered, 100);
}

#[test]
fn futures_are_send() {
    fn send<T: Send>(_: &T) {}
    let (client, _, _) = six();
    send(&put(&client, "x"));
    send(&get(&client));
    send(&client.search(&Query::parse("x").unwrap()));
    send(&client.publish_all(&[], None));
}
