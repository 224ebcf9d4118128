//! Requests through the fabric against a bare QUIC echo of the same sizes and
//! settings, taking turns in one run so that both see the same machine.
//!
//! `cargo bench -p canopy-overlay --bench session`; prints medians and ratios.
#![allow(clippy::unwrap_used)]

mod bare;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bare::{
    BODY, BURST, SINGLE, bare, bare_burst, bare_cold, bare_listener, bare_single, config, median,
    micros,
};
use canopy_core::identity::Identity;
use canopy_overlay::fabric::{Answer, Fabric, FabricConfig, Service, Session, Target};
use canopy_proto::wire;
use quinn::Endpoint;
use wire::{request, response};

const ROUNDS: usize = 15;
const COLD: usize = 500;
const COLD_EACH: usize = 40;

struct Echo;

impl Service for Echo {
    fn request(&self, _from: &Session, request: request::Kind) -> Answer {
        match request {
            request::Kind::Ping(ping) => Answer::Now(response::Kind::Pong(wire::Pong {
                payload: ping.payload,
            })),
            _ => Answer::refuse(wire::refusal::Code::NotServing, "pings only"),
        }
    }

    fn notify(&self, _from: &Session, _message: wire::CoreMessage) {}
}

async fn fabric_cold(sessions: &[(Fabric, Session)], payload: &bytes::Bytes) -> Duration {
    let start = Instant::now();
    let lanes = sessions.iter().map(|(_, session)| async move {
        for _ in 0..COLD_EACH {
            ask(session, payload).await;
        }
    });
    futures_util::future::join_all(lanes).await;
    start.elapsed()
}

async fn cold(listen: &Endpoint, target: &Target, payload: &bytes::Bytes) {
    let (mut streams, mut sessions) = (Vec::new(), Vec::new());
    for number in 0..COLD as u32 {
        streams.push(bare(listen).await);
        let mut secret = [4; 32];
        secret[..4].copy_from_slice(&number.to_le_bytes());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = FabricConfig::new(Identity::from_secret(secret), listen, "bench");
        let fabric = Fabric::bind(config, Arc::new(Echo)).unwrap();
        let session = fabric
            .connect(target, Duration::from_secs(10))
            .await
            .unwrap();
        sessions.push((fabric, session));
    }
    let (mut ratios, mut bares, mut fabrics) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let rate = |time: Duration| (COLD * COLD_EACH) as f64 / time.as_secs_f64() / 1e3;
        let bare = rate(bare_cold(&mut streams, COLD_EACH).await);
        let fabric = rate(fabric_cold(&sessions, payload).await);
        ratios.push(fabric / bare);
        bares.push(bare);
        fabrics.push(fabric);
    }
    println!(
        "{COLD} sessions x 1 in flight, {BODY} B: bare {:.0} k/s, fabric {:.0} k/s, ratio {:.2}",
        median(bares),
        median(fabrics),
        median(ratios)
    );
}

async fn ask(session: &Session, payload: &bytes::Bytes) {
    let ping = request::Kind::Ping(wire::Ping {
        payload: payload.clone(),
    });
    let answer = session.request(ping, Duration::from_secs(10)).await;
    assert!(matches!(answer, Ok(response::Kind::Pong(_))));
}

async fn fabric_single(session: &Session, payload: &bytes::Bytes) -> Vec<Duration> {
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let start = Instant::now();
        ask(session, payload).await;
        times.push(start.elapsed());
    }
    times
}

async fn fabric_burst(session: &Session, payload: &bytes::Bytes, depth: usize) -> Duration {
    let start = Instant::now();
    let lanes = (0..depth).map(|_| async {
        for _ in 0..BURST / depth {
            ask(session, payload).await;
        }
    });
    futures_util::future::join_all(lanes).await;
    start.elapsed()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let listen = bare_listener();
    let (mut send, mut recv, _dial) = bare(&listen).await;
    let asked = Fabric::bind(config(2), Arc::new(Echo)).unwrap();
    let asking = Fabric::bind(config(3), Arc::new(Echo)).unwrap();
    let target = Target::peer(asked.node_id(), asked.local_addr().unwrap());
    let session = asking
        .connect(&target, Duration::from_secs(10))
        .await
        .unwrap();
    let payload = bytes::Bytes::from(vec![7; BODY]);

    let (mut bare_p50, mut fabric_p50) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_p50.push(micros(median(bare_single(&mut send, &mut recv).await)));
        fabric_p50.push(micros(median(fabric_single(&session, &payload).await)));
    }
    let (bare, fabric) = (median(bare_p50), median(fabric_p50));
    println!(
        "one at a time, {BODY} B, p50: bare {bare:.1} us, fabric {fabric:.1} us, ratio {:.2}",
        fabric / bare
    );

    for depth in [16, 64, 256] {
        let (mut ratios, mut bares, mut fabrics) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let rate = |time: Duration| BURST as f64 / time.as_secs_f64() / 1e3;
            let bare = rate(bare_burst(&mut send, &mut recv, depth).await);
            let fabric = rate(fabric_burst(&session, &payload, depth).await);
            ratios.push(fabric / bare);
            bares.push(bare);
            fabrics.push(fabric);
        }
        println!(
            "{depth} in flight, {BODY} B: bare {:.0} k/s, fabric {:.0} k/s, ratio {:.2}",
            median(bares),
            median(fabrics),
            median(ratios)
        );
    }
    cold(&listen, &target, &payload).await;
}
