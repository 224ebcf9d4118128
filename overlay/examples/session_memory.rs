//! Resident memory of an idle session, against a bare QUIC connection with the
//! same settings. Both ends live in this process, so figures are for the pair.
//!
//! `cargo run --release -p canopy-overlay --example session_memory [bare|fabric] [count]`
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_overlay::fabric::{Answer, Fabric, FabricConfig, Service, Session, Target, yardstick};
use canopy_proto::wire;
use quinn::Endpoint;

struct Refuse;

impl Service for Refuse {
    fn request(&self, _from: &Session, _request: wire::request::Kind) -> Answer {
        Answer::refuse(wire::refusal::Code::NotServing, "this peer serves nothing")
    }

    fn notify(&self, _from: &Session, _message: wire::CoreMessage) {}
}

fn config(number: u32) -> FabricConfig {
    let mut secret = [9; 32];
    secret[..4].copy_from_slice(&number.to_le_bytes());
    let listen = "127.0.0.1:0".parse().unwrap();
    FabricConfig::new(Identity::from_secret(secret), listen, "memory")
}

/// Resident memory, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn settle() -> u64 {
    tokio::time::sleep(Duration::from_secs(1)).await;
    resident()
}

fn report(what: &str, before: u64, after: u64, count: u32) {
    let each = (after - before) as f64 / f64::from(count);
    println!("{what}: {each:.1} KiB a pair, {count} pairs");
}

/// One listener; each dialler has an endpoint of its own, made beforehand, so
/// that sockets and keys are not counted.
async fn bare(count: u32) {
    let (server, _) = yardstick(&config(0)).unwrap();
    let listen = Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listen.local_addr().unwrap();
    let diallers: Vec<_> = (1..=count)
        .map(|n| {
            let (_, client) = yardstick(&config(n)).unwrap();
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            (client, endpoint)
        })
        .collect();
    let before = settle().await;
    let mut held = Vec::new();
    for (client, endpoint) in diallers {
        let dial = endpoint
            .connect_with(client, addr, "canopy.invalid")
            .unwrap();
        let accept = async { listen.accept().await.unwrap().await.unwrap() };
        let (ours, theirs) = tokio::join!(dial, accept);
        let (ours, theirs) = (ours.unwrap(), theirs);
        let (mut send, recv) = ours.open_bi().await.unwrap();
        send.write_all(&[1; 100]).await.unwrap();
        let (mut reply, mut read) = theirs.accept_bi().await.unwrap();
        read.read_exact(&mut [0; 100]).await.unwrap();
        reply.write_all(&[1; 100]).await.unwrap();
        held.push((endpoint, ours, theirs, send, recv, reply, read));
    }
    report("bare", before, settle().await, count);
}

async fn fabric(count: u32) {
    let listen = Fabric::bind(config(0), Arc::new(Refuse)).unwrap();
    let target = Target::peer(listen.node_id(), listen.local_addr().unwrap());
    let diallers: Vec<_> = (1..=count)
        .map(|n| Fabric::bind(config(n), Arc::new(Refuse)).unwrap())
        .collect();
    let before = settle().await;
    for dialler in &diallers {
        dialler
            .connect(&target, Duration::from_secs(10))
            .await
            .unwrap();
    }
    report("fabric", before, settle().await, count);
    assert_eq!(listen.session_count(), count as usize);
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "fabric".into());
    let count = args.next().and_then(|n| n.parse().ok()).unwrap_or(500);
    match what.as_str() {
        "bare" => bare(count).await,
        _ => fabric(count).await,
    }
}
