//! Leaves that reach their super-node by TCP only: everything works all the same.

use std::net::SocketAddr;

use canopy_leaf::settings::Stand;
use canopy_leaf::{Identity, Leaf, Path};
use canopy_overlay::calls::Calls;
use canopy_supernode::host::Host;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::paths::{bytes, linked, serve_echo, there_and_back};
use crate::common::{host, until, within};

/// A way to a host that only TCP can take, until it is cut.
async fn way_to(host: &Host) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let to = host.peer().local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            streams.spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    (addr, task.abort_handle())
}

async fn leaf_by(addr: SocketAddr, operator: &Identity) -> Leaf {
    let builder = Leaf::builder().stand(Stand::Never).relay_only(true);
    let builder = builder.peer(addr.to_string().parse().expect("an address"));
    let builder = builder.operator(operator.node_id());
    builder.start().await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_without_udp_reads_writes_and_links_by_a_carrier() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, 7, &[], false).await;
    let udp = host.peer().local_addr().expect("bound");
    let ((way, _uncut), (other_way, cut)) = tokio::join!(way_to(&host), way_to(&host));
    let (free, without, cut_later) = tokio::join!(
        leaf_by(udp, &operator),
        leaf_by(way, &operator),
        leaf_by(other_way, &operator)
    );
    until(async || (host.peer().fabric().carriers().open == 2).then_some(())).await;
    within(without.put("greeting", "by TCP"))
        .await
        .expect("put");
    let read = free.get_from(without.node_id(), "greeting");
    let found = within(read).await.expect("read").expect("it was put");
    assert_eq!(found.data, &b"by TCP"[..]);

    let data = bytes(1_000_000);
    for (from, to) in [(&without, &free), (&free, &without), (&without, &cut_later)] {
        let (here, there) = linked(from, to, "echo").await;
        serve_echo(there.clone());
        assert_eq!(there_and_back(&here, &data).await, data);
        assert_eq!(here.path(), Path::Relayed(host.peer().node_id()));
        here.close("done");
    }

    // A link outlives its carrier: here UDP works again.
    let (here, there) = linked(&free, &cut_later, "echo").await;
    serve_echo(there.clone());
    assert_eq!(there_and_back(&here, &data).await, data);
    cut.abort();
    assert_eq!(there_and_back(&here, &data).await, data);
    tokio::join!(free.close(), without.close(), cut_later.close());
    host.close().await;
}
