//! What is under way outlives the loss of its relay and of addresses.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::bed::{BOUND, Leaf, Process, SuperNode, until};
use crate::net::{Nat, Net};

const PIECE: usize = 64 * 1024;
/// How long a pipe may take to open before it is tried again.
const OPENING: Duration = Duration::from_secs(3);

/// Bytes of each transfer.
fn size() -> u64 {
    let mib = std::env::var("CANOPY_TEST_NAT_MIB").ok();
    mib.map_or(256, |mib| mib.parse().expect("a number")) << 20
}

/// Carries `size` bytes by `leaf pipe`, and lets `on_way` act at each part in ten
/// that has come; all bytes must come, in order. The longest silence after each.
fn carry(net: &Net, from: &Leaf, to: &Leaf, on_way: impl FnMut(u64)) -> Vec<Duration> {
    let size = size();
    let mut sink = Process::start(to.command(net, &["pipe", "--accept"]));
    // A pipe ends when both directions have.
    drop(sink.input.take());
    let (came, coming) = mpsc::sync_channel(16);
    let output = sink.output.take().expect("taken once");
    let reader = std::thread::spawn(|| pieces_of(output, came));
    let mut source = until("the pipe opens", || {
        let mut source = Process::start(from.command(net, &["connect", &to.id]));
        // It ends at once while nobody accepts.
        let input = source.input.as_mut().expect("open");
        input.write_all(b"begin").ok()?;
        let came = coming.recv_timeout(OPENING).ok()?;
        assert_eq!(came, b"begin");
        Some(source)
    });
    let input = source.input.take().expect("taken once");
    let writer = std::thread::spawn(move || write(input, size));
    let silences = check(size, &coming, on_way);
    writer.join().expect("all was written");
    reader.join().expect("all was read");
    silences
}

/// Writes `size` bytes, different everywhere, and ends.
fn write(mut input: impl Write, size: u64) {
    let (mut bytes, mut piece) = (blake3::Hasher::new().finalize_xof(), vec![0; PIECE]);
    for _ in 0..size / PIECE as u64 {
        bytes.fill(&mut piece);
        input.write_all(&piece).expect("the pipe takes it");
    }
}

/// Hands on what can be read; an empty piece is the end.
fn pieces_of(mut output: impl Read, came: mpsc::SyncSender<Vec<u8>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let count = output.read(&mut piece).expect("the pipe gives it");
        piece.truncate(count);
        if came.send(piece).is_err() || count == 0 {
            return;
        }
    }
}

/// Looks whether all that was written comes.
fn check(
    size: u64,
    coming: &mpsc::Receiver<Vec<u8>>,
    mut on_way: impl FnMut(u64),
) -> Vec<Duration> {
    let mut bytes = blake3::Hasher::new().finalize_xof();
    let mut wanted = vec![0; PIECE];
    let (mut received, mut silences) = (0, vec![Duration::ZERO]);
    loop {
        let since = Instant::now();
        let piece = coming.recv_timeout(BOUND).expect("it goes on");
        let last = silences.last_mut().expect("one");
        *last = since.elapsed().max(*last);
        if piece.is_empty() {
            break;
        }
        let wanted = &mut wanted[..piece.len()];
        bytes.fill(wanted);
        assert!(piece == wanted, "other bytes after {received}");
        let tenth = |at: u64| at * 10 / size;
        let before = tenth(received);
        received += piece.len() as u64;
        if tenth(received) > before && received < size {
            on_way(tenth(received));
            silences.push(Duration::ZERO);
        }
    }
    assert_eq!(received, size);
    silences
}

pub(crate) fn outlives_its_relay_and_its_addresses() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = SuperNode::pair(&net);
    let leaf = |nat| {
        let network = net.behind(nat, &net.internet);
        let leaf = Leaf::start(&net, &network, base.path(), &hosts);
        (leaf, network)
    };
    let (near, far) = (leaf(Nat::PortRestricted), leaf(Nat::PortRestricted));
    let (hidden, other) = (leaf(Nat::Symmetric), leaf(Nat::Symmetric));
    for (leaf, _) in [&near, &far, &hidden, &other] {
        until("two homes", || (leaf.homes(&net) == 2).then_some(()));
    }
    let hosts = RefCell::new(hosts.map(Some));
    let relayed = || {
        hosts
            .borrow_mut()
            .each_mut()
            .map(|h| h.as_mut().map_or(0, SuperNode::relayed))
    };

    // Directly, then from and to another address.
    let mut over_relays = [0; 2];
    let told = carry(&net, &near.0, &far.0, |tenth| match tenth {
        1 => over_relays = relayed(),
        3 => {
            let since = [0, 1].map(|host| relayed()[host] - over_relays[host]);
            println!("two tenths, direct: {since:?} bytes over the relays");
            // QUIC may say something of its own there.
            assert!(since.iter().sum::<u64>() < 1_000, "{since:?}");
            net.move_router(&near.1, &net.internet);
        }
        6 => net.move_router(&far.1, &net.internet),
        _ => {}
    });
    tell("direct: sender's address changed", &told[3..6]);
    tell("direct: receiver's address changed", &told[6..]);

    // Over the relay: the same, and then another relay.
    let before = relayed();
    let told = carry(&net, &hidden.0, &other.0, |tenth| match tenth {
        1 => net.move_router(&hidden.1, &net.internet),
        4 => net.move_router(&other.1, &net.internet),
        7 => {
            let now = relayed();
            let busy = usize::from(now[1] - before[1] > now[0] - before[0]);
            drop(hosts.borrow_mut()[busy].take());
        }
        _ => {}
    });
    tell("relayed: sender's address changed", &told[1..4]);
    tell("relayed: receiver's address changed", &told[4..7]);
    tell("relayed: the relay was killed", &told[7..]);
}

fn tell(what: &str, silences: &[Duration]) {
    let longest = silences.iter().max().copied().unwrap_or_default();
    println!("{what:<40}{:>8.2} s without a byte", longest.as_secs_f64());
}
