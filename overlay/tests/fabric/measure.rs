//! Measurements, the uplink limit and dial-back between real endpoints.

use std::time::Duration;

use crate::support::{Peer, SOON, ping, pong, within};
use canopy_overlay::fabric::{MeasureError, MeasurePlan};

fn plan(share_mbit: u64) -> MeasurePlan {
    MeasurePlan {
        share_bps: share_mbit * 1_000_000,
        duration: Duration::from_millis(2000),
        term: 1,
    }
}

fn mbit(bits: u64) -> f64 {
    bits as f64 / 1e6
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_uplink_is_what_a_juror_measures() {
    let juror = Peer::bind(1);
    let candidate = Peer::bind_with(2, |config| config.uplink_bps = Some(20_000_000));
    let session = juror.connect(&candidate).await;
    let measured = within(session.measure(&plan(60))).await.unwrap();
    let (up, down) = (mbit(measured.up_bps), mbit(measured.down_bps));
    // Headers take some of the 20; the other way is not limited.
    assert!((16.0..=20.0).contains(&up), "{measured:?}");
    assert!((40.0..=66.0).contains(&down), "{measured:?}");
    // The session did not suffer.
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_below_the_line_is_met_both_ways() {
    let (juror, candidate) = (Peer::bind(1), Peer::bind(2));
    let session = juror.connect(&candidate).await;
    let measured = within(session.measure(&plan(10))).await.unwrap();
    let (up, down) = (mbit(measured.up_bps), mbit(measured.down_bps));
    assert!((8.5..=11.0).contains(&up), "{measured:?}");
    assert!((8.5..=11.0).contains(&down), "{measured:?}");
    assert!(!measured.rtt.is_zero());
    // What measured the line is told apart from what carried something.
    for peer in [&juror, &candidate] {
        let (measuring, all) = (peer.fabric.bytes_measuring(), peer.fabric.bytes_sent());
        assert!(measuring > 2_000_000, "{measuring} of {all}");
        assert!(all - measuring < all / 4, "{measuring} of {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jurors_share_a_limited_uplink_and_none_starves() {
    let candidate = Peer::bind_with(2, |config| config.uplink_bps = Some(20_000_000));
    let jurors: Vec<Peer> = (10..14).map(Peer::bind).collect();
    let mut sessions = Vec::new();
    for juror in &jurors {
        sessions.push(juror.connect(&candidate).await);
    }
    let plan = plan(20);
    let measured = sessions.iter().map(|session| session.measure(&plan));
    let measured = within(futures_util::future::join_all(measured)).await;
    let ups: Vec<f64> = measured
        .into_iter()
        .map(|m| mbit(m.unwrap().up_bps))
        .collect();
    let sum: f64 = ups.iter().sum();
    assert!((15.0..=21.0).contains(&sum), "{ups:?}");
    assert!(ups.iter().all(|up| *up > 0.5), "{ups:?}");
}

#[tokio::test]
async fn a_candidate_that_does_not_admit_is_not_measured() {
    let (juror, candidate) = (Peer::bind(1), Peer::bind(2));
    let session = juror.connect(&candidate).await;
    let other_term = MeasurePlan {
        term: 2,
        ..plan(10)
    };
    let refused = within(session.measure(&other_term)).await.unwrap_err();
    assert!(matches!(refused, MeasureError::Refused(_)), "{refused}");
    for bad in [
        MeasurePlan {
            share_bps: 0,
            ..plan(1)
        },
        plan(2_001),
        MeasurePlan {
            duration: Duration::from_secs(6),
            ..plan(1)
        },
    ] {
        let refused = within(session.measure(&bad)).await.unwrap_err();
        assert!(matches!(refused, MeasureError::Plan(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_candidate_at_its_limit_says_so() {
    let juror = Peer::bind(1);
    let candidate = Peer::bind_with(2, |config| config.limits.measurements = 0);
    let session = juror.connect(&candidate).await;
    let refused = within(session.measure(&plan(10))).await.unwrap_err();
    assert!(matches!(refused, MeasureError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn dial_back_reaches_the_expected_peer_only() {
    let (a, b, c) = (Peer::bind(1), Peer::bind(2), Peer::bind(3));
    let session = a.connect(&b).await;
    let addr = b.fabric.local_addr().unwrap();
    assert!(within(a.fabric.dial_back(addr, b.node_id(), SOON)).await);
    assert!(!within(a.fabric.dial_back(addr, c.node_id(), SOON)).await);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = silent.local_addr().unwrap();
    let short = Duration::from_millis(300);
    assert!(!within(a.fabric.dial_back(nobody, b.node_id(), short)).await);
    // No session came of it, and the one in place stays.
    assert_eq!(b.ups(), 1);
    assert_eq!(session.request(ping("x"), SOON).await, Ok(pong("x")));
}
