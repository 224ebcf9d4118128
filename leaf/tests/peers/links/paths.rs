//! The paths of links between leaves of one process, on loopback.

use canopy_leaf::settings::Stand;
use canopy_leaf::{Identity, Leaf, Link, LinkError, Path, RecvStream, SendStream};
use canopy_supernode::host::Host;

use crate::common::{BOUND, host, hot, until, within};

const MEGABYTE: usize = 1_000_000;

async fn leaf(hosts: &[&Host], operator: &Identity, relay_only: bool) -> Leaf {
    let mut builder = Leaf::builder().stand(Stand::Never);
    for host in hosts {
        let addr = host.peer().local_addr().expect("bound").to_string();
        builder = builder.peer(addr.parse().expect("an address"));
    }
    let builder = builder.operator(operator.node_id()).relay_only(relay_only);
    builder.start().await.expect("it starts")
}

/// Waits until others find `leaf`.
async fn found(by: &Leaf, leaf: &Leaf) {
    until(async || by.locate(leaf.node_id()).await.ok().flatten()).await;
}

/// Both ends of a link from one leaf to the other.
pub(crate) async fn linked(from: &Leaf, to: &Leaf, protocol: &str) -> (Link, Link) {
    found(from, to).await;
    let mut acceptor = to.accept(protocol).expect("nobody else accepts it");
    let dialled = async {
        from.connect(to.node_id(), protocol)
            .await
            .expect("it is there")
    };
    let taken = async { acceptor.next().await.expect("it runs") };
    within(async { tokio::join!(dialled, taken) }).await
}

/// Different bytes everywhere, so that a piece in the wrong place shows.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

/// Sends `data` one way over `send`, and back what came.
async fn echo((mut send, mut recv): (SendStream, RecvStream)) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(Some(count)) = recv.read(&mut piece).await {
        if send.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}

pub(crate) async fn there_and_back(link: &Link, data: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = link.open().await.expect("the link is up");
    let write = async {
        send.write_all(data).await.expect("written");
        send.finish().expect("once");
    };
    let read = async { recv.read_to_end(2 * data.len()).await.expect("read") };
    let ((), came) = within(async { tokio::join!(write, read) }).await;
    came
}

pub(crate) fn serve_echo(link: Link) {
    tokio::spawn(async move {
        while let Ok(streams) = link.accept().await {
            tokio::spawn(echo(streams));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_starts_over_the_relay_and_moves_to_a_direct_path() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, 2, &[], false).await;
    let hosts = [&host];
    let (a, b) = tokio::join!(
        leaf(&hosts, &operator, false),
        leaf(&hosts, &operator, false)
    );
    let (here, there) = linked(&a, &b, "echo").await;
    assert_eq!((here.peer(), there.peer()), (b.node_id(), a.node_id()));
    serve_echo(there.clone());
    let data = bytes(MEGABYTE);
    assert_eq!(there_and_back(&here, b"first").await, b"first");
    // The handshake at least went over the relay.
    assert!(host.relayed().bytes > 2_400, "{:?}", host.relayed());

    let (one, other) = within(async { tokio::join!(here.direct(), there.direct()) }).await;
    one.and(other).expect("both go direct");
    there_and_back(&here, b"settled").await;
    let before = host.relayed().bytes;
    assert_eq!(there_and_back(&here, &data).await, data);
    let relayed = host.relayed().bytes - before;
    assert!(relayed < 3_000, "{relayed} bytes still went over the relay");

    here.send_datagram(&b"ping"[..]).expect("it fits");
    assert_eq!(
        within(there.read_datagram()).await.expect("it comes"),
        &b"ping"[..]
    );
    here.close("done");
    let why = within(there.closed()).await;
    assert!(why.contains("done"), "{why}");
    tokio::join!(a.close(), b.close());
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_address_stays_on_the_relay_which_counts_every_byte() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, 3, &[], false).await;
    let hosts = [&host];
    let (a, b) = tokio::join!(
        leaf(&hosts, &operator, true),
        leaf(&hosts, &operator, false)
    );
    let (here, there) = linked(&a, &b, "echo").await;
    serve_echo(there.clone());
    let data = bytes(MEGABYTE);
    let before = host.relayed().bytes;
    assert_eq!(there_and_back(&here, &data).await, data);
    let relayed = host.relayed().bytes - before;
    assert!(relayed as usize > 2 * MEGABYTE, "{relayed}");
    let flows = hot(&host, "flow").await;
    let [(ends, of_late)] = &flows[..] else {
        panic!("{flows:?}")
    };
    assert_eq!(*ends, [a.node_id().0, b.node_id().0].concat());
    let carried = host.relayed().bytes as f64;
    assert!((0.1 * carried..=carried).contains(of_late), "{of_late}");
    let relay = Path::Relayed(host.peer().fabric().node_id());
    assert_eq!((here.path(), there.path()), (relay, relay));
    tokio::join!(a.close(), b.close());
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_outlives_the_relay_that_carried_it() {
    let operator = Identity::from_secret([1; 32]);
    let first = host(&operator, 4, &[], false).await;
    let second = host(&operator, 5, &[&first], false).await;
    let hosts = [&first, &second];
    let (a, b) = tokio::join!(leaf(&hosts, &operator, true), leaf(&hosts, &operator, true));
    for leaf in [&a, &b] {
        until(async || (leaf.status().homes.len() == 2).then_some(())).await;
    }
    let (here, there) = linked(&a, &b, "file").await;
    let Path::Relayed(relay) = here.path() else {
        panic!("{:?}", here.path());
    };
    let data = bytes(6 * MEGABYTE);
    let mut send = here.open_uni().await.expect("the link is up");
    let expected = data.clone();
    let sending = tokio::spawn(async move {
        send.write_all(&data).await.expect("written");
        send.finish().expect("once");
        send.stopped().await
    });
    let mut recv = within(there.accept_uni()).await.expect("it comes");
    let mut came = vec![0; 64 * 1024];
    let count = within(recv.read(&mut came))
        .await
        .expect("read")
        .expect("more");
    came.truncate(count);
    let lost = hosts
        .into_iter()
        .find(|h| h.peer().fabric().node_id() == relay);
    lost.expect("one of the two").abort();
    let rest = within(recv.read_to_end(expected.len()))
        .await
        .expect("all of it");
    came.extend(rest);
    assert!(
        came == expected,
        "{} of {} bytes",
        came.len(),
        expected.len()
    );
    within(sending)
        .await
        .expect("no panic")
        .expect("all was taken");
    assert_ne!(here.path(), Path::Relayed(relay));
    tokio::join!(a.close(), b.close());
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_nobody_wants_is_refused_with_the_reason() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, 6, &[], false).await;
    let hosts = [&host];
    let (a, b) = tokio::join!(
        leaf(&hosts, &operator, false),
        leaf(&hosts, &operator, false)
    );
    found(&a, &b).await;
    let refused = |error| matches!(error, LinkError::NoRelay { .. } | LinkError::Refused { .. });
    // It has opened no links at all yet.
    let error = within(a.connect(b.node_id(), "chat"))
        .await
        .expect_err("closed");
    assert!(refused(error.clone()), "{error}");
    let _other = b.accept("other").expect("nobody else accepts it");
    let error = within(a.connect(b.node_id(), "chat"))
        .await
        .expect_err("another one");
    assert!(
        error.to_string().contains("does not accept \"chat\""),
        "{error}"
    );
    let error = within(a.connect(a.node_id(), "chat"))
        .await
        .expect_err("itself");
    assert_eq!(error, LinkError::Myself);
    let nobody = Identity::from_secret([77; 32]).node_id();
    let error = within(a.connect(nobody, "chat")).await.expect_err("nobody");
    assert_eq!(error, LinkError::Unknown(nobody));
    assert!(b.accept("").is_err() && b.accept("other").is_err());
    // Refused flows are not kept.
    until(async || (host.relayed().flows == 0).then_some(())).await;
    let measured = within(async {
        let mut pinger = a.ping(b.node_id()).await?;
        pinger.ping().await
    });
    assert!(measured.await.expect("an answer").round_trip < BOUND);
    tokio::join!(a.close(), b.close());
    host.close().await;
}
