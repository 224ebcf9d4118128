//! Messages and posts from leaf to leaf, over super-nodes of an operator, on
//! loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{BOUND, host, hot, leaf, leaf_as, until, within};
use canopy_core::identity::Domain;
use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_leaf::client::MAX_MESSAGE;
use canopy_leaf::{Ended, Identity, Leaf, SendError, Sent, Subscription};
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request};
use canopy_supernode::host::Host;
use futures_util::future::join_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_delivered_over_a_home_or_told_as_not() {
    let operator = Identity::from_secret([1; 32]);
    let first = host(&operator, 11, &[], false).await;
    let second = host(&operator, 12, &[&first], false).await;
    let third = host(&operator, 13, &[&first], false).await;
    let (a, b) = (leaf(&first, &operator).await, leaf(&third, &operator).await);
    until(async || a.locate(b.node_id()).await.ok()?).await;
    until(async || b.locate(a.node_id()).await.ok()?).await;

    let (mut at_a, mut at_b) = (a.messages(), b.messages());
    let chat = async {
        assert_eq!(a.send(b.node_id(), "hello").await, Ok(Sent::Delivered));
        at_a.next().await.unwrap()
    };
    let answer = async {
        let message = at_b.next().await.unwrap();
        assert_eq!(message.from, a.node_id());
        assert_eq!(&message.data[..], b"hello");
        let big = vec![7; MAX_MESSAGE];
        assert_eq!(b.send(message.from, big).await, Ok(Sent::Delivered));
    };
    let (answer, ()) = within(async { tokio::join!(chat, answer) }).await;
    assert_eq!((answer.from, answer.data.len()), (b.node_id(), MAX_MESSAGE));
    let hosts = [&first, &second, &third];
    let carried = hosts.map(|host| host.router().stats().messages_delivered);
    // Each crossed one super-node.
    assert_eq!(carried.iter().sum::<u64>(), 2);

    let large = within(a.send(b.node_id(), vec![7; MAX_MESSAGE + 1])).await;
    assert!(matches!(large, Err(SendError::TooLarge { .. })));
    let nobody = within(a.send(NodeId([2; 32]), "x")).await;
    assert!(matches!(nobody, Err(SendError::NoSuchPeer(_))));

    // In another's name.
    let victim = Identity::from_secret([77; 32]);
    let envelope = wire::Envelope {
        network: "canopy".into(),
        to: b.node_id().to_bytes(),
        id: vec![1; 16].into(),
        ttl_s: 60,
        ..Default::default()
    };
    let forged = request::Kind::Deliver(wire::Deliver {
        envelope: Some(victim.sign(Domain::Envelope, &envelope)),
        homes: Vec::new(),
    });
    for host in hosts {
        let node = host.node_id();
        let told = a.node().call(node, forged.clone(), BOUND).await;
        let Err(CallError::Refused { refusal, .. }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(refusal.code(), Code::Invalid);
    }

    within(a.close()).await;
    within(b.close()).await;
    for host in hosts {
        within(host.close()).await;
    }
}

/// Letters that all hosts hold, copies counted.
fn letters(hosts: &[Host]) -> u64 {
    let stats = hosts.iter().filter_map(Host::index_stats);
    stats.map(|stats| stats.held.letters).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_to_who_is_away_is_kept_and_collected_once() {
    let operator = Identity::from_secret([1; 32]);
    let hosts = hosts(&operator, 3).await;
    let a = settled(&hosts[0], &operator, 3).await;
    let away = Identity::from_secret([55; 32]);
    let to = away.node_id();
    for number in 0..3 {
        let sent = within(a.send(to, format!("letter {number}"))).await;
        assert!(matches!(sent, Ok(Sent::Kept { .. })), "{sent:?}");
    }
    // Nobody else is told of them.
    let ask = |key: Key| {
        request::Kind::Get(wire::Get {
            key: key.to_bytes(),
            mailbox: true,
            ..Default::default()
        })
    };
    let peek = a
        .node()
        .call(hosts[0].node_id(), ask(keys::mailbox(&to)), BOUND);
    let Err(CallError::Refused { refusal, .. }) = within(peek).await else {
        panic!("it told");
    };
    assert_eq!(refusal.code(), Code::Invalid);

    // It is there, and does not listen yet.
    let b = leaf_as(&hosts[1], &operator, away).await;
    let sent = within(a.send(to, "letter 3")).await;
    assert!(matches!(sent, Ok(Sent::Kept { .. })), "{sent:?}");
    assert!(letters(&hosts) >= 8);
    let mut messages = b.messages();
    for number in 0..4 {
        let message = within(messages.next()).await.expect("a message");
        assert_eq!(message.from, a.node_id());
        assert_eq!(&message.data[..], format!("letter {number}").as_bytes());
    }
    // What was taken is removed, and what is sent once it can be found comes at once.
    until(async || (letters(&hosts) == 0).then_some(())).await;
    until(async || a.locate(to).await.ok().flatten().map(drop)).await;
    let (sent, message) = within(async { tokio::join!(a.send(to, "now"), messages.next()) }).await;
    assert_eq!((sent, message.is_some()), (Ok(Sent::Delivered), true));

    // One sender cannot fill a mailbox.
    let other = Identity::from_secret([56; 32]).node_id();
    for _ in 0..32 {
        let sent = within(a.send(other, "x")).await;
        assert!(matches!(sent, Ok(Sent::Kept { .. })), "{sent:?}");
    }
    let sent = within(a.send(other, "x")).await;
    assert!(matches!(sent, Err(SendError::MailboxFull(_))), "{sent:?}");
    close(vec![a, b], hosts).await;
}

/// So many hosts that know each other.
async fn hosts(operator: &Identity, count: u8) -> Vec<Host> {
    let mut hosts = vec![host(operator, 11, &[], false).await];
    for secret in 12..11 + count {
        let next = host(operator, secret, &[&hosts[0]], false).await;
        hosts.push(next);
    }
    let known = async || {
        let all = |host: &Host| host.placement().len() == usize::from(count);
        hosts.iter().all(all).then_some(())
    };
    until(known).await;
    hosts
}

/// A leaf with two homes that knows all hosts.
async fn settled(host: &Host, operator: &Identity, count: usize) -> Leaf {
    let leaf = leaf(host, operator).await;
    until(async || {
        let status = leaf.status();
        let all = leaf.node().placement().len() == count;
        (status.homes.len() == 2 && all).then_some(())
    })
    .await;
    leaf
}

/// Reads until `count` posts have come, and checks that each publisher's came
/// once and in order.
async fn read(mut posts: Subscription, count: usize) -> Subscription {
    let mut next: BTreeMap<NodeId, u64> = BTreeMap::new();
    for _ in 0..count {
        let post = within(posts.next()).await.expect("it reads");
        let expected = next.entry(post.publisher).or_insert(1);
        assert_eq!((post.number, post.missed), (*expected, 0));
        assert_eq!(&post.data[..], format!("post {expected}").as_bytes());
        *expected += 1;
    }
    posts
}

async fn post(leaf: &Leaf, topic: &str, numbers: std::ops::RangeInclusive<u64>) -> (u64, u64) {
    let mut total = (0, 0);
    for number in numbers {
        let posted = within(leaf.broadcast(topic, format!("post {number}"))).await;
        let posted = posted.expect("an owner takes it");
        total = (total.0 + posted.reached, total.1 + posted.given_up);
    }
    total
}

async fn close(leaves: Vec<Leaf>, hosts: Vec<Host>) {
    within(join_all(leaves.iter().map(Leaf::close))).await;
    within(join_all(hosts.iter().map(Host::close))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_gets_every_post_once_and_in_order() {
    let operator = Identity::from_secret([1; 32]);
    let hosts = hosts(&operator, 4).await;
    let mut leaves = Vec::new();
    for place in 0..6 {
        leaves.push(settled(&hosts[place % 4], &operator, 4).await);
    }
    let (a, b) = (&leaves[0], &leaves[1]);
    // Nobody is there yet; a later subscriber does not hear of it.
    assert_eq!(post(a, "other", 1..=1).await, (0, 0));
    let subscribed = leaves.iter().map(|leaf| leaf.subscribe("news"));
    let subscribed = within(join_all(subscribed)).await;
    let subscribed = subscribed.into_iter().map(|s| s.expect("a home takes it"));
    let reads = join_all(subscribed.map(|posts| read(posts, 60)));
    let (one, two, rest) =
        within(async { tokio::join!(post(a, "news", 1..=30), post(b, "news", 1..=30), reads) })
            .await;
    assert_eq!((one, two), ((180, 0), (180, 0)));
    // 60 posts were taken once and brought to six leaves, whoever did that.
    let mut of_late = 0.0;
    for host in &hosts {
        let topics = hot(host, "topic").await;
        let news = topics.iter().filter(|(topic, _)| topic == b"news");
        of_late += news.map(|(_, count)| count).sum::<f64>();
    }
    assert!((42.0..=420.0).contains(&of_late), "{of_late}");

    // Who comes later hears what is posted later.
    drop(rest);
    let late = within(a.subscribe("other")).await.expect("a home takes it");
    let posted = within(a.broadcast("other", "post 2")).await.expect("taken");
    assert_eq!((posted.reached, posted.given_up), (1, 0));
    let mut late = late;
    let second = within(late.next()).await.expect("a post");
    assert_eq!((second.number, second.missed), (2, 0));
    // Nobody wants the news any more.
    until(async || (post(b, "news", 31..=31).await.0 == 0).then_some(())).await;
    close(leaves, hosts).await;
    assert_eq!(within(late.next()).await, Err(Ended::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_outlive_the_homes_and_owners_that_carry_them() {
    let operator = Identity::from_secret([1; 32]);
    let hosts = hosts(&operator, 5).await;
    let mut leaves = Vec::new();
    for host in &hosts {
        leaves.push(settled(host, &operator, 5).await);
    }
    let publisher = settled(&hosts[0], &operator, 5).await;
    let subscribed = leaves.iter().map(|leaf| leaf.subscribe("news"));
    let mut reads = Vec::new();
    for posts in within(join_all(subscribed)).await {
        reads.push(tokio::spawn(read(posts.expect("a home takes it"), 90)));
    }
    let abort = |node: NodeId| {
        let host = hosts.iter().find(|host| host.node_id() == node);
        host.expect("one of them").abort();
    };
    post(&publisher, "news", 1..=30).await;
    let owners = publisher
        .node()
        .placement()
        .owners(&keys::topic("canopy", "news"), 3);
    // The one that takes the posts.
    abort(owners[0]);
    post(&publisher, "news", 31..=60).await;
    // A home, in the middle of it.
    let homes = leaves.iter().map(|leaf| leaf.status().homes[0].node_id);
    let home = homes.into_iter().find(|home| *home != owners[0]);
    let home = home.expect("a home that lives");
    let kill = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        abort(home);
    };
    tokio::join!(post(&publisher, "news", 61..=90), kill);
    for read in reads {
        within(read).await.expect("all came, once and in order");
    }
    leaves.push(publisher);
    let left = hosts.into_iter();
    let left = left.filter(|host| ![owners[0], home].contains(&host.node_id()));
    close(leaves, left.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_publishers_up_and_is_dropped() {
    let operator = Identity::from_secret([1; 32]);
    let hosts = hosts(&operator, 3).await;
    let mut leaves = Vec::new();
    for host in &hosts {
        leaves.push(settled(host, &operator, 3).await);
    }
    let mut subscribed = Vec::new();
    for leaf in &leaves {
        subscribed.push(
            within(leaf.subscribe("news"))
                .await
                .expect("a home takes it"),
        );
    }
    let mut lazy = subscribed.pop().expect("three");
    let count = canopy_leaf::routing::WAITING as u64 + 20;
    let reads = join_all(
        subscribed
            .into_iter()
            .map(|posts| read(posts, count as usize)),
    );
    let (posted, reads) =
        within(async { tokio::join!(post(&leaves[0], "news", 1..=count), reads) }).await;
    // The one post that it had no room for was not lost to the others.
    assert_eq!(posted, (2 * count + count - 20, 1));
    drop(reads);
    for number in 1..=count - 20 {
        let post = within(lazy.next()).await.expect("what it had room for");
        assert_eq!(post.number, number);
    }
    assert_eq!(within(lazy.next()).await, Err(Ended::TooSlow));
    close(leaves, hosts).await;
}
