//! How much a relay forwards with one busy core, beside a bare forwarder with
//! the same batches (GRO, GSO) and no idea of flows, in turns within one run.
//!
//! Both are judged by the processor time of their own thread, so that senders
//! and receivers on the same machine, and whatever else it does, do not count.
//! Run with `cargo bench -p canopy-supernode --bench relay`.

#![allow(clippy::unwrap_used, reason = "a bench may stop")]

use std::collections::HashMap;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::bind_udp;
use canopy_overlay::fabric::link::frame::{self, HEADER, Side};
use canopy_supernode::relay::{Counts, Limits, Opened, Relay};
use noq_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::sync::oneshot;

/// What QUIC sends at first, and the relay's header.
const PAYLOAD: usize = 1_200;
const DATAGRAM: usize = PAYLOAD + HEADER;
/// Datagrams that a sender hands to the kernel at once.
const AT_ONCE: usize = 40;
const LASTS: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// Sockets that flows are spread over.
const MAX_SENDERS: usize = 200;

fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A forwarder on a thread of its own; it tells its processor time at the end.
struct Forwarder {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Duration>,
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn relay(flows: usize, counts: Arc<Counts>) -> (Forwarder, Vec<Opened>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let limits = Limits {
                flows_per_peer: flows,
                total_bps: Some(1_000_000_000_000),
                ..Limits::default()
            };
            let relay = Relay::bind(any(), limits, counts, None).unwrap();
            let mut opened = Vec::new();
            for _ in 0..flows {
                let flow = relay.open(NodeId([1; 32]), NodeId([2; 32])).await;
                opened.push(flow.unwrap());
            }
            tell.send((relay.addr(), opened)).unwrap();
            let _ = stopped.await;
        });
        thread_cpu()
    });
    let (addr, opened) = told.recv().unwrap();
    (Forwarder { addr, stop, thread }, opened)
}

/// Sends what comes from each sender to `to`, and knows nothing else.
fn bare(senders: &[SocketAddr], to: SocketAddr) -> Forwarder {
    let (stop, mut stopped) = oneshot::channel();
    let socket = bind_udp(any()).unwrap();
    let addr = socket.local_addr().unwrap();
    let routes: HashMap<SocketAddr, SocketAddr> = senders.iter().map(|s| (*s, to)).collect();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let state = UdpSocketState::new((&socket).into()).unwrap();
            let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
            let mut buffer = vec![0; 8 * 65_536];
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    ready = socket.readable() => ready.unwrap(),
                }
                for _ in 0..16 {
                    let mut metas = [RecvMeta::default(); 8];
                    let mut parts = buffer.chunks_mut(65_536);
                    let mut slices: [IoSliceMut<'_>; 8] =
                        std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap()));
                    let received = socket.try_io(Interest::READABLE, || {
                        state.recv((&socket).into(), &mut slices, &mut metas)
                    });
                    let Ok(count) = received else { break };
                    for (bytes, meta) in buffer.chunks(65_536).zip(&metas[..count]) {
                        let transmit = Transmit {
                            destination: routes[&meta.addr],
                            ecn: meta.ecn,
                            contents: &bytes[..meta.len],
                            segment_size: Some(meta.stride),
                            src_ip: meta.dst_ip,
                        };
                        while let Err(error) = socket.try_io(Interest::WRITABLE, || {
                            state.try_send((&socket).into(), &transmit)
                        }) {
                            if error.kind() != ErrorKind::WouldBlock {
                                break;
                            }
                            socket.writable().await.unwrap();
                        }
                    }
                }
            }
        });
        thread_cpu()
    });
    Forwarder { addr, stop, thread }
}

/// Sends in turn from each socket, as fast as the kernel takes it, and counts
/// what arrives: bytes, and GiB for each second of the forwarder's processor time.
fn measure(
    forwarder: Forwarder,
    sends: Vec<(Arc<UdpSocket>, Vec<u8>)>,
    sink: &Arc<UdpSocket>,
) -> (u64, f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(AtomicU64::new(0));
    let receiver = {
        let (sink, stop, arrived) = (sink.clone(), stop.clone(), arrived.clone());
        std::thread::spawn(move || {
            let state = UdpSocketState::new((&*sink).into()).unwrap();
            let mut buffer = vec![0; 16 * 65_536];
            while !stop.load(Ordering::Relaxed) {
                let mut metas = [RecvMeta::default(); 16];
                let mut slices: Vec<_> = buffer.chunks_mut(65_536).map(IoSliceMut::new).collect();
                match state.recv((&*sink).into(), &mut slices, &mut metas) {
                    Ok(count) => {
                        let bytes: usize = metas[..count].iter().map(|meta| meta.len).sum();
                        arrived.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                    Err(_) => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        })
    };
    let states: Vec<_> = sends
        .iter()
        .map(|(socket, _)| UdpSocketState::new((&**socket).into()).unwrap())
        .collect();
    let until = Instant::now() + LASTS;
    let mut sent: u64 = 0;
    while Instant::now() < until {
        for ((socket, bytes), state) in sends.iter().zip(&states) {
            let transmit = Transmit {
                destination: forwarder.addr,
                ecn: None,
                contents: bytes,
                segment_size: Some(DATAGRAM),
                src_ip: None,
            };
            if state.try_send((&**socket).into(), &transmit).is_ok() {
                sent += bytes.len() as u64;
            }
            // What is in flight is kept below what fits the buffers.
            while sent.saturating_sub(arrived.load(Ordering::Relaxed)) > 1_500_000 {
                std::thread::yield_now();
                if Instant::now() > until {
                    break;
                }
                if sent > arrived.load(Ordering::Relaxed) + 1_500_000 {
                    std::thread::sleep(Duration::from_micros(20));
                    // What was lost is not waited for.
                    sent = sent.saturating_sub(20_000);
                }
            }
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let _ = forwarder.stop.send(());
    let cpu = forwarder.thread.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    receiver.join().unwrap();
    let arrived = arrived.load(Ordering::Relaxed);
    let rate = arrived as f64 / cpu.as_secs_f64() / (1u64 << 30) as f64;
    (arrived, rate)
}

fn senders(flows: usize) -> Vec<Arc<UdpSocket>> {
    let count = flows.min(MAX_SENDERS);
    (0..count)
        .map(|_| Arc::new(bind_udp(any()).unwrap()))
        .collect()
}

fn bind(socket: &UdpSocket, to: SocketAddr, opened: &Opened, side: Side) {
    let key = &opened.keys[side.index()];
    let frame = frame::bind(opened.flow, side, 1, key);
    socket.send_to(&frame, to).unwrap();
}

/// Its rate, and what the relay counted over what arrived.
fn run_relay(flows: usize) -> (f64, f64) {
    let counts = Arc::new(Counts::default());
    let (forwarder, opened) = relay(flows, Arc::clone(&counts));
    let (senders, sink) = (senders(flows), Arc::new(bind_udp(any()).unwrap()));
    let mut sends = Vec::new();
    for (place, flow) in opened.iter().enumerate() {
        let sender = &senders[place % senders.len()];
        bind(sender, forwarder.addr, flow, Side::Opener);
        bind(&sink, forwarder.addr, flow, Side::Other);
        let one = [
            frame::header(flow.flow, Side::Opener).as_slice(),
            &[7; PAYLOAD],
        ]
        .concat();
        sends.push((sender.clone(), one.repeat(AT_ONCE)));
        if place % 100 == 99 {
            // No burst that the buffers do not hold.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let (arrived, rate) = measure(forwarder, sends, &sink);
    // Without their headers.
    let payload = arrived as f64 * PAYLOAD as f64 / DATAGRAM as f64;
    (rate, counts.read().bytes as f64 / payload)
}

fn run_bare(flows: usize) -> f64 {
    let (senders, sink) = (senders(flows), Arc::new(bind_udp(any()).unwrap()));
    let addrs: Vec<_> = senders.iter().map(|s| s.local_addr().unwrap()).collect();
    let forwarder = bare(&addrs, sink.local_addr().unwrap());
    let sends = (0..flows).map(|place| {
        let sender = senders[place % senders.len()].clone();
        (sender, vec![7; AT_ONCE * DATAGRAM])
    });
    measure(forwarder, sends.collect(), &sink).1
}

fn main() {
    // `cargo test` runs benches to see that they work.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    println!("GiB forwarded in a second of one processor, {DATAGRAM}-byte datagrams;");
    println!("bytes that the relay counted over those that arrived");
    println!(
        "{:>6} {:>8} {:>8} {:>8} {:>8}",
        "flows", "relay", "bare", "ratio", "counted"
    );
    for flows in [1, 10, 1_000] {
        let (mut relays, mut counted, mut bares) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (rate, meter) = run_relay(flows);
            relays.push(rate);
            counted.push(meter);
            bares.push(run_bare(flows));
        }
        let median = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (relay, bare, counted) = (median(relays), median(bares), median(counted));
        println!(
            "{flows:>6} {relay:>8.2} {bare:>8.2} {:>8.2} {counted:>8.4}",
            relay / bare
        );
    }
}
