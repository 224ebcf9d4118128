//! Strangers at the TCP port: bounded, counted, and in nobody's way.

use std::time::Duration;

use canopy_proto::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::super::service::{Answer, Service};
use super::super::{Fabric, FabricConfig, Session, Target};
use super::*;

const SOON: Duration = Duration::from_secs(20);

struct Nobody;

impl Service for Nobody {
    fn request(&self, _from: &Session, _request: wire::request::Kind) -> Answer {
        Answer::refuse(wire::refusal::Code::NotServing, "nothing")
    }

    fn notify(&self, _from: &Session, _message: wire::CoreMessage) {}
}

fn fabric(secret: u8) -> Fabric {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = FabricConfig::new(Identity::from_secret([secret; 32]), listen, "test");
    Fabric::bind(config, Arc::new(Nobody)).expect("free ports")
}

async fn tcp(to: &Fabric) -> TcpStream {
    let addr = to.local_addr().expect("bound");
    TcpStream::connect(addr).await.expect("it listens")
}

/// A carrier of somebody who then does as they like.
async fn carrier(to: &Fabric, secret: u8) -> TlsStream<TcpStream> {
    let client = tls::client(&Identity::from_secret([secret; 32]), ALPN).expect("a key");
    let name = tls::SERVER_NAME.try_into().expect("a name");
    let connector = TlsConnector::from(Arc::new(client));
    let stream = connector.connect(name, tcp(to).await).await;
    stream.expect("they shake hands")
}

/// Waits until the other side has closed.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut came = Vec::new();
    // How it ended is all the same.
    let _ = timeout(SOON, stream.read_to_end(&mut came))
        .await
        .expect("it ends in time");
}

async fn until(fabric: &Fabric, seen: impl Fn(CarrierStats) -> bool) {
    let look = async {
        while !seen(fabric.carriers()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, look).await.expect("in time");
}

/// Whether peers still come by UDP.
async fn serves(host: &Fabric) {
    let (leaf, addr) = (fabric(99), host.local_addr().expect("bound"));
    let target = Target::peer(host.node_id(), addr);
    let session = leaf.connect(&target, SOON).await.expect("it answers");
    assert!(!session.carried());
    leaf.close().await;
}

#[tokio::test]
async fn what_is_no_frame_ends_the_carrier_and_is_counted() {
    let host = fabric(1);
    let mut stream = carrier(&host, 2).await;
    until(&host, |stats| stats.open == 1).await;
    stream.write_all(&[9, 0, 1, 0]).await.expect("sent");
    closed(&mut stream).await;
    let stats = host.carriers();
    assert_eq!((stats.open, stats.malformed), (0, 1));
    // A datagram that means nothing to anybody does no harm.
    let mut stream = carrier(&host, 2).await;
    for channel in [1, 2] {
        stream
            .write_all(&[channel, 0, 2, 7, 7])
            .await
            .expect("sent");
    }
    stream.flush().await.expect("sent");
    until(&host, |stats| stats.received == 4).await;
    assert_eq!(host.carriers().open, 1);
    serves(&host).await;
}

#[tokio::test]
async fn who_speaks_something_else_is_turned_away() {
    let host = fabric(3);
    let mut stream = tcp(&host).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    closed(&mut stream).await;
    until(&host, |stats| stats.refused == 1).await;
    assert_eq!(host.carriers().open, 0);
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_are_bounded() {
    let host = fabric(4);
    let mut silent = Vec::new();
    for _ in 0..accept::PENDING {
        silent.push(tcp(&host).await);
    }
    let mut one_more = tcp(&host).await;
    closed(&mut one_more).await;
    assert_eq!(host.carriers().refused, 1);
    serves(&host).await;
    // There is room again once they are gone.
    drop(silent);
    until(&host, |stats| stats.refused > accept::PENDING as u64).await;
    carrier(&host, 5).await;
    until(&host, |stats| stats.accepted == 1).await;
}

#[tokio::test]
async fn who_never_reads_loses_what_is_sent_and_nobody_waits() {
    let host = fabric(6);
    let _deaf = carrier(&host, 7).await;
    until(&host, |stats| stats.open == 1).await;
    let carriers = &host.inner.carriers;
    let addr = {
        let table = carriers.table.read();
        table.by_number.values().next().expect("one").addr
    };
    let datagram = [0; 1_200];
    let before = host.carriers();
    // Until the queue is full and stays so.
    let lost = async {
        for _ in 0..100 {
            for _ in 0..1_000 {
                carriers.send(&addr, Channel::Relay, &datagram, datagram.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, lost).await.expect("nobody waits");
    let stats = host.carriers();
    // Queue, buffers of the system on both sides, and no more.
    assert!(stats.sent - before.sent < 16_000_000, "{stats:?}");
    assert!(stats.dropped > 50_000, "{stats:?}");
    serves(&host).await;
}

#[test]
fn addresses_that_stand_for_carriers_are_nobodys() {
    let is = |addr: &str| stands_for_carrier(&addr.parse().expect("an address"));
    assert!(is("240.0.0.1:1") && is("[::ffff:240.1.2.3]:1"));
    assert!(!is("203.0.113.1:1") && !is("[fd00::1]:1") && !is("255.255.255.255:1"));
    // Numbers come round, past those that are in use.
    let mut table = Table {
        last: 0x00ff_fffe,
        ..Table::default()
    };
    let (pipe, _queue) = Pipe::new(
        NodeId([1; 32]),
        ([240, 0, 0, 0], 1).into(),
        ([127, 0, 0, 1], 1).into(),
        true,
    );
    table.by_number.insert(0xf000_0000, Arc::new(pipe));
    assert_eq!(table.next_number(), 0xf0ff_ffff);
    assert_eq!(table.next_number(), 0xf000_0001);
}
