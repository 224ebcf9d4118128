//! Sessions by carriers: TCP gets through to the other peer, and UDP does not.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Peer, SOON, ping, pong, within};
use canopy_overlay::fabric::{CloseReason, DialError, MeasurePlan, Session, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A way to a peer that only TCP can take.
struct Way {
    addr: SocketAddr,
    task: AbortHandle,
}

impl Way {
    async fn to(peer: &Peer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, to) = (
            listener.local_addr().unwrap(),
            peer.fabric.local_addr().unwrap(),
        );
        let task = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                streams.spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self {
            addr,
            task: task.abort_handle(),
        }
    }

    async fn connect(&self, from: &Peer, to: &Peer) -> Result<Session, DialError> {
        let target = Target::peer(to.node_id(), self.addr);
        within(from.fabric.connect(&target, SOON)).await
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answers(session: &Session) {
    let answer = session.request(ping("there?"), SOON).await;
    assert_eq!(answer.unwrap(), pong("there?"));
}

#[tokio::test]
async fn a_peer_that_udp_does_not_reach_is_reached_by_a_carrier() {
    let (leaf, host) = (Peer::bind(1), Peer::bind(2));
    let way = Way::to(&host).await;
    let session = way.connect(&leaf, &host).await.unwrap();
    answers(&session).await;
    let theirs = within(host.up()).await;
    within(answers(&theirs)).await;

    // Nobody is told what stands for the carrier.
    assert!(session.carried() && theirs.carried());
    assert_eq!(session.remote_addr(), way.addr);
    assert!(theirs.remote_addr().ip().is_loopback());
    assert_eq!(session.observed_addr(), None);
    assert_eq!(theirs.observed_addr(), None);
    assert_eq!(leaf.fabric.carriers().opened, 1);
    assert_eq!(host.fabric.carriers().accepted, 1);

    // It is known now that UDP gets no answer: the next one is not waited for.
    let other = Peer::bind(3);
    let way = Way::to(&other).await;
    let began = Instant::now();
    answers(&way.connect(&leaf, &other).await.unwrap()).await;
    assert!(began.elapsed() < Duration::from_millis(1_500));
    leaf.fabric.close().await;
}

#[tokio::test]
async fn where_udp_works_there_is_no_carrier() {
    let (leaf, host) = (Peer::bind(4), Peer::bind(5));
    let session = leaf.connect(&host).await;
    answers(&session).await;
    assert!(!session.carried());
    assert_eq!(leaf.fabric.carriers().opened, 0);
    assert_eq!(host.fabric.carriers().open, 0);
}

#[tokio::test]
async fn a_session_ends_with_its_carrier_and_can_be_opened_anew() {
    let (leaf, host) = (Peer::bind(6), Peer::bind(7));
    let way = Way::to(&host).await;
    way.connect(&leaf, &host).await.unwrap();
    within(host.up()).await;
    drop(way);
    for peer in [&leaf, &host] {
        let (_, reason) = within(peer.down()).await;
        assert!(matches!(reason, CloseReason::Transport(_)), "{reason}");
    }
    let way = Way::to(&host).await;
    answers(&way.connect(&leaf, &host).await.unwrap()).await;
}

#[tokio::test]
async fn much_goes_through_a_carrier_in_both_directions() {
    let (leaf, host) = (Peer::bind(8), Peer::bind(9));
    let way = Way::to(&host).await;
    let session = way.connect(&leaf, &host).await.unwrap();
    let plan = MeasurePlan {
        share_bps: 20_000_000,
        duration: Duration::from_millis(500),
        term: 1,
    };
    let measured = within(session.measure(&plan)).await.unwrap();
    assert!(measured.up_bps > 10_000_000, "{measured:?}");
    assert!(measured.down_bps > 10_000_000, "{measured:?}");
    let stats = host.fabric.carriers();
    assert!(
        stats.received > 500_000 && stats.sent > 500_000,
        "{stats:?}"
    );
}

#[tokio::test]
async fn carriers_are_bounded_in_all_and_by_address() {
    let one_in_all = Peer::bind_with(10, |config| config.limits.carriers = 1);
    // A carrier and the session over it.
    let two_an_address = Peer::bind_with(11, |config| {
        config.limits.count_loopback = true;
        config.limits.sessions_per_address = 2;
    });
    let none = Peer::bind_with(12, |config| config.carriers = false);
    let (first, second) = (Peer::bind(13), Peer::bind(14));
    for host in [&one_in_all, &two_an_address] {
        let way = Way::to(host).await;
        let session = way.connect(&first, host).await.unwrap();
        let target = Target::peer(host.node_id(), way.addr);
        let refused = second.fabric.connect(&target, Duration::from_secs(4)).await;
        assert_eq!(refused.unwrap_err(), DialError::Timeout);
        assert_eq!(host.fabric.carriers().refused, 1);
        answers(&session).await;
    }
    let target = Target::peer(none.node_id(), none.fabric.local_addr().unwrap());
    let open = TcpStream::connect(target.addrs[0]).await;
    assert!(open.is_err());
}

#[tokio::test]
async fn a_carrier_to_somebody_else_is_not_taken() {
    let (leaf, host, other) = (Peer::bind(15), Peer::bind(16), Peer::bind(17));
    let way = Way::to(&host).await;
    let target = Target::peer(other.node_id(), way.addr);
    let refused = leaf.fabric.connect(&target, Duration::from_secs(4)).await;
    assert!(refused.is_err());
    assert_eq!(leaf.fabric.carriers().opened, 0);
}
