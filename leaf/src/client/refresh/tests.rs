//! Weeks of a leaf's life, on tokio's paused clock.

use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;

use super::super::testing::{Mode, NETWORK, Net};
use super::super::{Consistency, DEFAULT_TIMEOUT, Item, Query, VALUE_TTL};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn me() -> Identity {
    Identity::from_secret([9; 32])
}

fn keeping(net: &Net) -> Client<Net> {
    let list = Publications::in_memory(NETWORK, me().node_id());
    Client::keeping(net.clone(), me(), DEFAULT_TIMEOUT, list)
}

fn bytes(data: &'static str) -> Bytes {
    Bytes::from_static(data.as_bytes())
}

async fn get(client: &Client<Net>, name: &str) -> Option<Bytes> {
    let me = client.node_id();
    let value = client.get(me, name, Consistency::Quorum).await.unwrap();
    value.map(|value| value.data)
}

async fn found(client: &Client<Net>, query: &str) -> u64 {
    let query = Query::parse(query).unwrap();
    client.search(&query).await.unwrap().hits.len() as u64
}

#[tokio::test(start_paused = true)]
async fn what_has_no_lifetime_lives_on_and_the_rest_ends() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    client.put("kept", bytes("a"), None).await.unwrap();
    client.put("short", bytes("b"), Some(HOUR)).await.unwrap();
    let (content, _) = client.put_content(bytes("c"), None).await.unwrap();
    let item = Item::new("red panda");
    client.publish(&item, None).await.unwrap();
    let shared = blake3::hash(b"d");
    client.provide(shared, 1, None).await.unwrap();
    assert_eq!(client.stats().kept, 4);

    for _ in 0..30 * 24 {
        sleep(HOUR).await;
        assert!(get(&client, "kept").await.is_some());
        assert!(client.get_content(content).await.unwrap().is_some());
        assert_eq!(found(&client, "panda").await, 1);
        assert_eq!(client.find_providers(shared, 9).await.unwrap().len(), 1);
    }
    assert_eq!(get(&client, "short").await, None);
    // Three of a week, every 2.8 to 3.5 days; one of a day, every 10 to 12 hours.
    let refreshed = client.stats().refreshed;
    assert!(
        (3 * 8 + 60..=3 * 11 + 75).contains(&refreshed),
        "{refreshed}"
    );

    // What is taken back ends, each in its way.
    client.remove("kept").await.unwrap();
    assert_eq!(client.forget_content(content).await, Ok(true));
    assert_eq!(client.forget_content(content).await, Ok(false));
    assert_eq!(client.unpublish("red panda").await, Ok(true));
    client.unprovide(shared).await.unwrap();
    assert_eq!(client.stats().kept, 0);
    assert!(client.get_content(content).await.unwrap().is_some());
    sleep(VALUE_TTL).await;
    assert_eq!(client.stats().refreshed, refreshed);
    assert_eq!(get(&client, "kept").await, None);
    assert_eq!(client.get_content(content).await, Ok(None));
    assert_eq!(found(&client, "panda").await, 0);
    assert_eq!(client.find_providers(shared, 9).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_given_later_is_honoured() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    client.put("n", bytes("for ever"), None).await.unwrap();
    client.put("n", bytes("an hour"), Some(HOUR)).await.unwrap();
    assert_eq!(client.stats().kept, 0);
    sleep(VALUE_TTL).await;
    assert_eq!(get(&client, "n").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_changes_nothing() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    client.put("n", bytes("a"), None).await.unwrap();
    net.set_all(&Mode::Gone);
    client.remove("n").await.unwrap_err();
    client.put("n", bytes("b"), Some(HOUR)).await.unwrap_err();
    client.put("m", bytes("c"), None).await.unwrap_err();
    net.set_all(&Mode::Well(Duration::ZERO));
    assert_eq!(client.stats().kept, 1);
    sleep(VALUE_TTL * 2).await;
    assert_eq!(get(&client, "n").await, Some(bytes("a")));
    assert_eq!(get(&client, "m").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_later_write_of_another_device_is_never_replaced() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    client.put("n", bytes("here"), None).await.unwrap();
    client
        .publish(&Item::new("panda here"), None)
        .await
        .unwrap();
    sleep(DAY).await;
    let device = Client::new(net.clone(), me(), DEFAULT_TIMEOUT);
    let later = device.put("n", bytes("there"), None).await.unwrap();
    device.unpublish("panda here").await.unwrap();
    for _ in 0..6 {
        sleep(DAY).await;
        let found = client.get(me().node_id(), "n", Consistency::Quorum).await;
        let found = found.unwrap().unwrap();
        assert_eq!(
            (found.data, found.sequence),
            (bytes("there"), later.sequence)
        );
    }
    // Both were seen to have moved, and left to whoever moved them.
    assert_eq!((client.stats().kept, client.stats().refreshed), (0, 0));
    sleep(DAY * 2).await;
    assert_eq!(get(&client, "n").await, None);
    assert_eq!(found(&client, "panda").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_published_together_is_refreshed_little_by_little() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    let items: Vec<Item> = (0..1_000)
        .map(|i| Item::new(format!("panda {i}")))
        .collect();
    let results = client.publish_all(&items, None).await;
    assert!(results.iter().all(Result::is_ok));
    net.take_puts();
    let mut busy = 0;
    for _ in 0..7 * 24 {
        sleep(HOUR).await;
        let puts = net.take_puts();
        assert!(puts.iter().all(|count| *count <= BATCH), "{puts:?}");
        // A thousand over 17 hours are 59 an hour.
        assert!(puts.iter().sum::<usize>() <= 120, "{puts:?}");
        busy += usize::from(!puts.is_empty());
    }
    assert!(busy >= 16, "{busy} hours");
    assert!(client.stats().refreshed >= 1_000);
    assert_eq!(client.stats().kept, 1_000);
}

#[tokio::test(start_paused = true)]
async fn after_a_long_absence_all_is_published_again_at_a_bounded_rate() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    let items: Vec<Item> = (0..100).map(|i| Item::new(format!("panda {i}"))).collect();
    client.publish_all(&items, None).await;
    net.set_all(&Mode::Gone);
    sleep(VALUE_TTL + DAY).await;
    net.set_all(&Mode::Well(Duration::ZERO));
    assert_eq!(found(&client, "panda").await, 0);
    net.take_puts();
    let (begun, mut sent) = (tokio::time::Instant::now(), 0);
    while client.stats().refreshed < 100 {
        sleep(Duration::from_secs(10)).await;
        let puts: usize = net.take_puts().iter().sum();
        assert!(puts <= 11 * BATCH, "{puts} in ten seconds");
        sent += puts;
    }
    assert!(begun.elapsed() <= HOUR * 2, "{:?}", begun.elapsed());
    assert_eq!(sent, 100);
    let page = client
        .search(&Query::parse("panda").unwrap())
        .await
        .unwrap();
    assert_eq!(page.total, 100);
}

#[tokio::test(start_paused = true)]
async fn past_its_room_nothing_is_sent_and_the_error_says_what_to_do() {
    let net = Net::new(&me(), 6);
    let list = Publications::bounded(NETWORK, me().node_id(), 2_000);
    let client = Client::keeping(net.clone(), me(), DEFAULT_TIMEOUT, list);
    client
        .put("a", Bytes::from(vec![1; 1_000]), None)
        .await
        .unwrap();
    net.take_asked();
    let error = client.put("b", Bytes::from(vec![1; 1_000]), None).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::PublicationsFull { records: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("lifetime"), "{error}");
    assert_eq!(net.take_asked(), [] as [NodeId; 0]);
    // A lifetime needs no room, and neither does writing the same again.
    client
        .put("b", Bytes::from(vec![1; 1_000]), Some(HOUR))
        .await
        .unwrap();
    client
        .put("a", Bytes::from(vec![2; 1_000]), None)
        .await
        .unwrap();
    client.remove("a").await.unwrap();
    client
        .put("b", Bytes::from(vec![1; 1_000]), None)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_item_without_a_searchable_name_is_unpublished_where_it_is_kept() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    let item = Item::new("???").text("a red panda");
    client.publish(&item, None).await.unwrap();
    assert_eq!(found(&client, "panda").await, 1);
    assert_eq!(client.unpublish("???").await, Ok(true));
    assert_eq!(found(&client, "panda").await, 0);
    assert!(matches!(
        client.unpublish("???").await,
        Err(Error::Unsearchable(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_refreshes_nothing() {
    let net = Net::new(&me(), 6);
    let client = keeping(&net);
    client.put("n", bytes("a"), None).await.unwrap();
    drop(client);
    net.take_asked();
    sleep(VALUE_TTL).await;
    assert_eq!(net.take_asked(), [] as [NodeId; 0]);
}
