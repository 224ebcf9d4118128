//! The yardstick of the benchmarks: a bare QUIC echo with the fabric's own
//! transport settings, and what turns its times into figures.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::time::{Duration, Instant};

use canopy_core::identity::Identity;
use canopy_overlay::fabric::{FabricConfig, yardstick};
use quinn::{Endpoint, RecvStream, SendStream};

/// Size of every body.
pub const BODY: usize = 200;
/// Requests timed one at a time in a round.
pub const SINGLE: usize = 2_000;
/// Requests of a pipelined round.
pub const BURST: usize = 40_000;

pub fn config(secret: u8) -> FabricConfig {
    let listen = "127.0.0.1:0".parse().unwrap();
    FabricConfig::new(Identity::from_secret([secret; 32]), listen, "bench")
}

/// A bare listener that echoes everything it is sent.
pub fn bare_listener() -> Endpoint {
    let (server, _) = yardstick(&config(1)).unwrap();
    let listen = Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
    let accept = listen.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accept.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                let (mut send, mut recv) = connection.accept_bi().await.unwrap();
                while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024, true).await {
                    if send.write_chunk(chunk.bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    listen
}

/// A stream to a bare listener, from a socket of its own.
pub async fn bare(listen: &Endpoint) -> (SendStream, RecvStream, Endpoint) {
    let (_, client) = yardstick(&config(2)).unwrap();
    let dial = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listen.local_addr().unwrap();
    let connecting = dial.connect_with(client, addr, "canopy.invalid").unwrap();
    let (send, recv) = connecting.await.unwrap().open_bi().await.unwrap();
    (send, recv, dial)
}

/// One request at a time on each connection.
pub async fn bare_cold(
    streams: &mut [(SendStream, RecvStream, Endpoint)],
    each: usize,
) -> Duration {
    let start = Instant::now();
    let lanes = streams.iter_mut().map(|(send, recv, _)| async move {
        let mut body = [7; BODY];
        for _ in 0..each {
            send.write_all(&body).await.unwrap();
            recv.read_exact(&mut body).await.unwrap();
        }
    });
    futures_util::future::join_all(lanes).await;
    start.elapsed()
}

pub async fn bare_single(send: &mut SendStream, recv: &mut RecvStream) -> Vec<Duration> {
    let mut body = [7; BODY];
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let start = Instant::now();
        send.write_all(&body).await.unwrap();
        recv.read_exact(&mut body).await.unwrap();
        times.push(start.elapsed());
    }
    times
}

/// `depth` bodies under way at a time, each written by itself.
pub async fn bare_burst(send: &mut SendStream, recv: &mut RecvStream, depth: usize) -> Duration {
    let start = Instant::now();
    let slots = tokio::sync::Semaphore::new(depth);
    let write = async {
        for _ in 0..BURST {
            slots.acquire().await.unwrap().forget();
            send.write_all(&[7; BODY]).await.unwrap();
        }
    };
    let read = async {
        let mut body = [0; BODY];
        for _ in 0..BURST {
            recv.read_exact(&mut body).await.unwrap();
            slots.add_permits(1);
        }
    };
    tokio::join!(write, read);
    start.elapsed()
}

pub fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
