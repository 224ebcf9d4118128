//! Deadlines, cancellation, limits, and peers that misbehave or vanish.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Peer, SOON, ping, pong, within};
use bytes::{BufMut, BytesMut};
use canopy_core::identity::Identity;
use canopy_overlay::fabric::{
    CloseReason, DialError, FabricConfig, NotifyError, RequestError, yardstick,
};
use canopy_proto::{Message, limits, wire};
use wire::request;

#[tokio::test]
async fn an_answer_may_take_a_while() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    assert_eq!(
        session.request(ping("later"), SOON).await,
        Ok(pong("later"))
    );
}

#[tokio::test]
async fn a_deadline_ends_the_request_here_and_there() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let asked = session.request(ping("never"), Duration::from_millis(50));
    assert_eq!(within(asked).await, Err(RequestError::Deadline));
    within(b.cancelled()).await;
    assert_eq!(session.in_flight(), 0);
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test]
async fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let patient = session.request(ping("never"), Duration::from_secs(3600));
    let hasty = async {
        tokio::task::yield_now().await;
        session
            .request(ping("never"), Duration::from_millis(50))
            .await
    };
    let first = futures_util::future::select(Box::pin(patient), Box::pin(hasty));
    let futures_util::future::Either::Right((outcome, _)) = within(first).await else {
        panic!("the patient one ended first")
    };
    assert_eq!(outcome, Err(RequestError::Deadline));
}

#[tokio::test]
async fn a_dropped_request_is_cancelled_at_the_peer() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let mut asked = Box::pin(session.request(ping("never"), SOON));
    // Polled once, it is on its way.
    assert!(crate::support::started(asked.as_mut()));
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
    drop(asked);
    within(b.cancelled()).await;
    assert_eq!(session.in_flight(), 0);
}

#[tokio::test]
async fn what_is_under_way_is_dropped_with_its_session() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let asked = session.request(ping("never"), SOON);
    let end = async {
        within(b.up()).await;
        assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
        session.close("over");
    };
    let (outcome, ()) = within(futures_util::future::join(asked, end)).await;
    let over = CloseReason::Local("over".into());
    assert_eq!(outcome, Err(RequestError::Closed(over)));
    within(b.cancelled()).await;
}

#[tokio::test]
async fn a_refusal_and_a_failure_come_back_as_such() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    for (text, code) in [
        ("refuse", wire::refusal::Code::Quota),
        ("panic", wire::refusal::Code::Internal),
    ] {
        let outcome = session.request(ping(text), SOON).await;
        let Err(RequestError::Refused(no)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(no.code(), code);
    }
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test]
async fn requests_past_the_limit_are_busy_and_come_back() {
    let a = Peer::bind_with(1, |config| config.limits.in_flight = 4);
    let b = Peer::bind(2);
    let session = a.connect(&b).await;
    let mut held: Vec<_> = (0..4)
        .map(|_| Box::pin(session.request(ping("never"), SOON)))
        .collect();
    for asked in &mut held {
        assert!(crate::support::started(asked.as_mut()));
    }
    assert_eq!(
        session.request(ping("x"), SOON).await,
        Err(RequestError::Busy)
    );
    drop(held);
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test]
async fn a_peer_serves_no_more_than_it_may() {
    let a = Peer::bind(1);
    let b = Peer::bind_with(2, |config| config.limits.serving = 2);
    let session = a.connect(&b).await;
    let mut held: Vec<_> = (0..2)
        .map(|_| Box::pin(session.request(ping("never"), SOON)))
        .collect();
    for asked in &mut held {
        assert!(crate::support::started(asked.as_mut()));
    }
    let outcome = session.request(ping("never"), SOON).await;
    let Err(RequestError::Refused(no)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(no.code(), wire::refusal::Code::Busy);
    // What is answered at once still is.
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test]
async fn oversize_messages_never_leave() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let largest = "x".repeat(64 * 1024 - 16);
    assert_eq!(
        session.request(ping(&largest), SOON).await,
        Ok(pong(&largest))
    );
    let asked = session.request(ping(&"x".repeat(64 * 1024 + 16)), SOON);
    assert!(matches!(asked.await, Err(RequestError::TooLarge { .. })));
    let kind = wire::core_message::Kind::Gossip(vec![0; 16 * 1024 + 16].into());
    let message = wire::CoreMessage { kind: Some(kind) };
    let told = session.notify(&message);
    assert!(matches!(told, Err(NotifyError::TooLarge { .. })));
}

#[tokio::test]
async fn a_full_queue_refuses_instead_of_growing() {
    let a = Peer::bind_with(1, |config| config.limits.queue_bytes = 100_000);
    let b = Peer::bind(2);
    let session = a.connect(&b).await;
    let kind = wire::core_message::Kind::Gossip(vec![0; 16_000].into());
    let message = wire::CoreMessage { kind: Some(kind) };
    // Nothing is written while this task does not yield.
    let told = (0..100).map(|_| session.notify(&message));
    let accepted = told.take_while(Result::is_ok).count();
    assert_eq!(accepted, 6);
    assert_eq!(session.notify(&message), Err(NotifyError::Busy));
    for _ in 0..accepted {
        within(b.message()).await;
    }
    assert_eq!(session.notify(&message), Ok(()));
}

#[tokio::test]
async fn a_full_peer_is_busy() {
    let b = Peer::bind_with(2, |config| config.limits.sessions = 1);
    let (a, c) = (Peer::bind(1), Peer::bind(3));
    let session = a.connect(&b).await;
    let refused = within(c.fabric.connect(&b.target(), SOON)).await;
    assert!(matches!(refused, Err(DialError::Busy(_))), "{refused:?}");
    session.close("make room");
    within(b.down()).await;
    c.connect(&b).await;
}

#[tokio::test]
async fn one_address_gets_its_share_of_sessions() {
    let b = Peer::bind_with(2, |config| {
        config.limits.sessions_per_address = 2;
        config.limits.count_loopback = true;
    });
    let peers: Vec<Peer> = (10..13).map(Peer::bind).collect();
    peers[0].connect(&b).await;
    let second = peers[1].connect(&b).await;
    let refused = within(peers[2].fabric.connect(&b.target(), SOON)).await;
    assert!(matches!(refused, Err(DialError::Busy(_))), "{refused:?}");
    second.close("make room");
    // The place is free once the peer has noticed.
    within(async {
        while peers[2].fabric.connect(&b.target(), SOON).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_aborted_peer_is_noticed_by_its_silence() {
    let brief = |config: &mut FabricConfig| {
        config.idle_timeout = Duration::from_millis(600);
        config.keep_alive = Duration::from_millis(200);
    };
    let (a, b) = (Peer::bind_with(1, brief), Peer::bind_with(2, brief));
    let session = a.connect(&b).await;
    within(b.up()).await;
    b.fabric.abort();
    let asked = session.request(ping("x"), Duration::from_millis(100));
    assert_eq!(within(asked).await, Err(RequestError::Deadline));
    assert_eq!(within(session.closed()).await, CloseReason::TimedOut);
    assert_eq!(within(a.down()).await, (b.node_id(), CloseReason::TimedOut));
}

#[tokio::test]
async fn a_restarted_peer_says_so_and_is_found_again() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    let (addr, target) = (b.fabric.local_addr().unwrap(), b.target());
    b.fabric.abort();
    within(b.fabric.close()).await;
    drop(b);
    let again = within(async {
        loop {
            if std::net::UdpSocket::bind(addr).is_ok() {
                return Peer::bind_with(2, |config| config.listen = addr);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The next packet on the old session is answered with a reset.
    let lost = within(session.request(ping("x"), SOON)).await;
    assert_eq!(lost, Err(RequestError::Closed(CloseReason::Reset)));
    within(a.down()).await;
    let session = within(a.fabric.connect(&target, SOON)).await.unwrap();
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
    drop(again);
}

/// A stream to `peer` from someone who speaks QUIC and TLS, and then `bytes`.
async fn babble(peer: &Peer, bytes: Vec<u8>) -> quinn::ConnectionError {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = FabricConfig::new(Identity::from_secret([77; 32]), listen, "test");
    let (_, client) = yardstick(&config).unwrap();
    let endpoint = quinn::Endpoint::client(listen).unwrap();
    let addr = peer.fabric.local_addr().unwrap();
    let connecting = endpoint
        .connect_with(client, addr, "canopy.invalid")
        .unwrap();
    let connection = within(connecting).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // The peer may hang up before it has read everything.
    let _ = send.write_all(&bytes).await;
    while let Ok(Some(_)) = within(recv.read_chunk(4096, true)).await {}
    within(connection.closed()).await
}

fn frame(kind: u8, id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u32(body.len() as u32);
    out.put_u8(kind);
    out.put_u32(id);
    out.put_slice(body);
    out.to_vec()
}

fn hello() -> Vec<u8> {
    let identity = Identity::from_secret([77; 32]);
    let contact = canopy_core::contact::Contact::sign(&identity, &[], "", 1);
    let hello = wire::Hello {
        version_min: 1,
        version_max: 1,
        network: "test".into(),
        topology: wire::Topology::Elected.into(),
        contact: Some(contact.signed.clone()),
        ..Default::default()
    };
    frame(0, 0, &hello.encode_to_vec())
}

#[tokio::test]
async fn garbage_ends_its_own_session_with_a_reason_and_no_other() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    within(b.up()).await;
    let after_hello = |bytes: Vec<u8>| [hello(), bytes].concat();
    let mut huge = frame(2, 1, &[]);
    huge[..4].copy_from_slice(&(limits::FRAME as u32 + 1).to_be_bytes());
    let cases = [
        vec![0xff; 5000],
        frame(2, 1, b""),
        frame(0, 0, &[0xff; 100]),
        after_hello(vec![0xff; 5000]),
        after_hello(huge),
        after_hello(frame(2, 1, &[0xff; 64])),
        after_hello(frame(3, 1, &[0xff; 64])),
        after_hello(frame(4, 0, &[0xff; 64])),
        after_hello(hello()),
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        let end = babble(&b, bytes).await;
        let quinn::ConnectionError::ApplicationClosed(close) = end else {
            panic!("case {number}: {end}")
        };
        assert!(!close.reason.is_empty(), "case {number}");
    }
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test]
async fn unknown_requests_and_late_answers_do_no_harm() {
    let (a, b) = (Peer::bind(1), Peer::bind(2));
    let session = a.connect(&b).await;
    // A kind that this version does not know, an answer nobody asked for, and a
    // message over the limit of its kind: only the last is a breach.
    let unknown = wire::Request { kind: None };
    let over = wire::CoreMessage {
        kind: Some(wire::core_message::Kind::Gossip(vec![0; 20_000].into())),
    };
    let bytes = [
        hello(),
        frame(2, 1, &unknown.encode_to_vec()),
        frame(3, 9, b""),
        frame(5, 9, b""),
        frame(4, 0, &over.encode_to_vec()),
    ]
    .concat();
    let end = babble(&b, bytes).await;
    let quinn::ConnectionError::ApplicationClosed(close) = end else {
        panic!("{end}")
    };
    assert!(String::from_utf8_lossy(&close.reason).contains("limit of its kind"));
    let get = request::Kind::Get(wire::Get::default());
    let outcome = session.request(get, SOON).await;
    assert!(matches!(outcome, Err(RequestError::Refused(_))));
}

#[tokio::test]
async fn a_port_in_use_is_said_to_be() {
    let a = Peer::bind(1);
    let listen = a.fabric.local_addr().unwrap();
    let config = FabricConfig::new(Identity::from_secret([2; 32]), listen, "test");
    let error = canopy_overlay::fabric::Fabric::bind(config, Arc::new(crate::support::Deaf));
    assert!(matches!(error, Err(canopy_overlay::fabric::BindError::InUse(addr)) if addr == listen));
}
