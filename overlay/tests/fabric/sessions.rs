//! Sessions between real endpoints over loopback.

use std::time::Duration;

use crate::support::{Peer, SOON, ping, pong, within};
use canopy_overlay::fabric::{CloseReason, DialError, Fabric, RequestError, Target};
use canopy_proto::wire;

#[tokio::test]
async fn both_sides_ask_and_answer_on_one_session() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    assert_eq!(session.peer(), b.node_id());
    assert!(!session.inbound());
    assert_eq!(
        session.observed_addr(),
        Some(a.fabric.local_addr().unwrap())
    );
    assert!(session.clock_offset_ms().abs() < 1000);
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));

    let back = within(b.up()).await;
    assert!(back.inbound());
    assert_eq!(back.peer(), a.node_id());
    assert_eq!(back.contact(), &*a.fabric.contact());
    assert_eq!(back.request(ping("y"), SOON).await, Ok(pong("y")));
}

#[tokio::test]
async fn messages_arrive_in_order() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    for n in 0..100u8 {
        let kind = wire::core_message::Kind::Gossip(vec![n; 1000].into());
        session
            .notify(&wire::CoreMessage { kind: Some(kind) })
            .unwrap();
    }
    for n in 0..100u8 {
        let message = within(b.message()).await;
        let kind = wire::core_message::Kind::Gossip(vec![n; 1000].into());
        assert_eq!(message.kind, Some(kind));
    }
}

#[tokio::test]
async fn many_requests_share_a_session_and_each_gets_its_answer() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let asked = (0..500).map(|n| {
        let session = session.clone();
        async move {
            let text = format!("{n}");
            assert_eq!(session.request(ping(&text), SOON).await, Ok(pong(&text)));
        }
    });
    within(futures_util::future::join_all(asked)).await;
    assert_eq!(session.in_flight(), 0);
}

#[tokio::test]
async fn both_sides_pull_much_at_once_and_neither_stalls() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let there = a.connect(&b).await;
    let back = within(b.up()).await;
    let large = "x".repeat(60_000);
    let lanes = [&there, &back, &there, &back, &there, &back].map(|session| {
        let large = &large;
        async move {
            for _ in 0..100 {
                let answer = session.request(ping(large), SOON).await;
                assert!(answer == Ok(pong(large)));
            }
        }
    });
    within(futures_util::future::join_all(lanes)).await;
}

#[tokio::test]
async fn another_identity_than_expected_is_refused() {
    let (a, b, c) = (Peer::bind(1), Peer::bind(2), Peer::bind(3));
    let target = Target::peer(c.node_id(), b.fabric.local_addr().unwrap());
    let expected = DialError::WrongIdentity {
        expected: c.node_id(),
        found: b.node_id(),
    };
    assert_eq!(a.fabric.connect(&target, SOON).await.unwrap_err(), expected);
}

#[tokio::test]
async fn another_network_is_refused_with_its_words() {
    let a = Peer::bind(1);
    let b = Peer::bind_with(2, |config| config.network = "elsewhere".into());
    let error = a.fabric.connect(&b.target(), SOON).await.unwrap_err();
    let DialError::Network(text) = error else {
        panic!("{error}")
    };
    assert!(
        text.contains("elsewhere") && text.contains("test"),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_there_is_a_timeout() {
    let a = Peer::bind(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = Target::from(silent.local_addr().unwrap());
    let dial = a.fabric.connect(&target, Duration::from_millis(300));
    assert_eq!(within(dial).await.unwrap_err(), DialError::Timeout);
}

#[tokio::test]
async fn crossing_dials_settle_on_one_session() {
    for round in 0..8 {
        let (a, b) = (Peer::bind(10 + round), Peer::bind(100 - round));
        let (to_b, to_a) = (b.target(), a.target());
        let (x, y) = within(futures_util::future::join(
            a.fabric.connect(&to_b, SOON),
            b.fabric.connect(&to_a, SOON),
        ))
        .await;
        let (x, y) = (x.unwrap(), y.unwrap());
        // Whatever was handed out works.
        assert_eq!(x.request(ping("x"), SOON).await, Ok(pong("x")));
        assert_eq!(y.request(ping("y"), SOON).await, Ok(pong("y")));
        assert_eq!((a.fabric.session_count(), b.fabric.session_count()), (1, 1));
        let held = a.fabric.session(&b.node_id()).unwrap();
        let other = b.fabric.session(&a.node_id()).unwrap();
        assert_ne!(held.inbound(), other.inbound());
    }
}

#[tokio::test]
async fn concurrent_connects_share_one_dial() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let target = b.target();
    let dials = (0..20).map(|_| a.fabric.connect(&target, SOON));
    let sessions = within(futures_util::future::join_all(dials)).await;
    assert!(sessions.iter().all(Result::is_ok));
    assert_eq!(b.ups(), 1);
}

#[tokio::test]
async fn a_closed_session_says_why_on_both_sides() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    within(b.up()).await;
    session.close("enough");
    assert_eq!(
        within(session.closed()).await,
        CloseReason::Local("enough".into())
    );
    let (peer, reason) = within(b.down()).await;
    assert_eq!(
        (peer, reason),
        (a.node_id(), CloseReason::Peer("enough".into()))
    );
    let closed = session.request(ping("x"), SOON).await.unwrap_err();
    assert_eq!(
        closed,
        RequestError::Closed(CloseReason::Local("enough".into()))
    );
    assert_eq!(b.fabric.session_count(), 0);
}

#[tokio::test]
async fn a_closed_fabric_dials_no_more() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    a.connect(&b).await;
    let fabric: Fabric = a.fabric.clone();
    within(fabric.close()).await;
    let error = fabric.connect(&b.target(), SOON).await.unwrap_err();
    assert_eq!(error, DialError::Closed);
}
