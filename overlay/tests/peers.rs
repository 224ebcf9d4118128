//! Real peers on loopback: their own sockets, their own uplinks, nobody told
//! who is super-node.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::node::{self, Role, Stand};
use canopy_core::placement::R;
use canopy_core::preset::Preset;
use canopy_overlay::calls::Calls;
use canopy_overlay::fabric::FabricConfig;
use canopy_overlay::peer::{Peer, PeerConfig};
use canopy_proto::wire::Topology;

const MBIT: u64 = 1_000_000;

async fn start(index: u8, uplink_bps: u64, peers: &[SocketAddr]) -> Peer {
    let identity = Identity::from_secret([index; 32]);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut fabric = FabricConfig::new(identity, listen, "test");
    fabric.uplink_bps = Some(uplink_bps);
    let core = node::Config {
        network: "test".into(),
        topology: Topology::Elected,
        operator: None,
        stand: Stand::Auto,
        uplink_bps: Some(uplink_bps),
        zone: String::new(),
        addrs: Vec::new(),
        port: 0,
        peers: peers.iter().map(|addr| (None, *addr)).collect(),
        timing: Preset::Local.timings(),
        max_leaves: 1000,
        ratio: 40,
        floor_bps: MBIT,
        cache: 200,
        designation: None,
    };
    Peer::start(PeerConfig {
        fabric,
        core,
        roster_file: None,
    })
    .await
    .expect("loopback has free ports")
}

async fn serving(peers: &[Peer]) -> Vec<usize> {
    let is = |peer: &Peer| *peer.role().borrow() == Role::SuperNode;
    (0..peers.len()).filter(|i| is(&peers[*i])).collect()
}

/// Waits for placement changes of any peer until `done`.
async fn until(peers: &[Peer], limit: Duration, done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            let mut changes: Vec<_> = peers.iter().map(Peer::placement_changes).collect();
            let any = changes.iter_mut().map(|change| Box::pin(change.changed()));
            // A role changes just before or after the placement: look again soon.
            let _ = tokio::time::timeout(
                Duration::from_millis(100),
                futures_util::future::select_all(any),
            )
            .await;
        }
    };
    tokio::time::timeout(limit, wait).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_elect_the_strongest_and_replace_one_that_dies() {
    let first = start(1, 4 * MBIT, &[]).await;
    let addr = first.local_addr().expect("bound");
    let mut peers = vec![first];
    for i in 2..=8 {
        peers.push(start(i, 4 * MBIT * u64::from(i), &[addr]).await);
    }
    let founded = async || {
        serving(&peers).await.len() == R && peers.iter().all(|peer| peer.placement().len() == R)
    };
    until(&peers, Duration::from_secs(60), founded).await;
    let elected = serving(&peers).await;
    assert!(elected.iter().all(|i| *i >= 3), "elected {elected:?}");

    let dead = peers.remove(elected[0]);
    dead.abort();
    let replaced = async || {
        let mut alive = peers.iter().map(|peer| peer.placement());
        alive.all(|placement| placement.len() == R && placement.get(&dead.node_id()).is_none())
    };
    until(&peers, Duration::from_secs(60), replaced).await;
    for peer in &peers {
        peer.close().await;
    }
}
