//! A network with an operator: one designated host, and leaves that use it.

use crate::common::{UPLINK, leaf, within};
use canopy_core::election::mandate::seats_for;
use canopy_leaf::event::{Event, EventKind};
use canopy_leaf::settings::{Settings, Stand};
use canopy_leaf::{Identity, Item, NodeId, Query};
use canopy_overlay::calls::Calls;
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};
use tokio::sync::broadcast;

/// The one host of a network.
async fn host(operator: &Identity, process_cpu: bool) -> Host {
    crate::common::host(operator, 9, &[], process_cpu).await
}

/// A peer that joins by `host`, and all that happens to it.
async fn newcomer(host: &Host, operator: Option<NodeId>) -> (Host, broadcast::Receiver<Event>) {
    let addr = host.peer().local_addr().expect("bound").to_string();
    let setup = Setup {
        settings: Settings {
            operator,
            peers: vec![addr.parse().expect("an address")],
            stand: Some(Stand::Never),
            ..Settings::default()
        },
        ..Setup::default()
    };
    let plan = setup.plan().await.expect("valid");
    Host::start_watched(plan).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_write_read_and_search_through_one_designated_host() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, true).await;
    let (a, b) = (leaf(&host, &operator).await, leaf(&host, &operator).await);
    within(a.put("greeting", "hello")).await.unwrap();
    let value = within(b.get_from(a.node_id(), "greeting")).await.unwrap();
    assert_eq!(value.unwrap().data, "hello");
    within(a.publish(&Item::new("red-panda.txt").text("eats bamboo")))
        .await
        .unwrap();
    let page = within(b.search(&Query::parse("bamboo").unwrap())).await;
    assert_eq!(page.unwrap().hits[0].item.name, "red-panda.txt");
    // Nobody else was elected: all three copies are one.
    let serving: Vec<NodeId> = host.placement().members().map(|m| m.node).collect();
    assert_eq!(serving, [host.node_id()]);
    within(a.close()).await;
    within(b.close()).await;
    within(host.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_another_operator_is_refused_and_told_why() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, false).await;
    for stranger in [None, Some(NodeId([7; 32]))] {
        let (stranger, mut events) = newcomer(&host, stranger).await;
        let message = within(async {
            loop {
                match events.recv().await.expect("it runs").kind {
                    EventKind::Warning { message } => return message,
                    _ => continue,
                }
            }
        });
        let message = message.await;
        assert!(message.contains("the operator keys differ"), "{message}");
        assert!(stranger.status().super_nodes.is_empty());
        within(stranger.close()).await;
    }
    within(host.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_tells_how_many_bytes_it_sends_and_how_long_it_computes() {
    let operator = Identity::from_secret([1; 32]);
    for process_cpu in [true, false] {
        let host = host(&operator, process_cpu).await;
        let leaf = leaf(&host, &operator).await;
        let data = vec![b'x'; 60_000];
        let hash = within(leaf.put_content(data)).await.unwrap();
        let mut load = host.load();
        let seen = within(async {
            loop {
                let sent = host.peer().fabric().bytes_sent();
                leaf.get_content(hash).await.unwrap().unwrap();
                // A packet is counted after it is sent: the answer may be here first.
                while host.peer().fabric().bytes_sent() < sent + 60_000 {
                    tokio::task::yield_now().await;
                }
                let load = *load.borrow_and_update();
                if load.bytes > 0 && (load.cpu > 0 || !process_cpu) {
                    return load;
                }
            }
        });
        let seen = seen.await;
        assert_eq!(seen.cpu > 0, process_cpu, "{seen:?}");
        within(leaf.close()).await;
        within(host.close()).await;
    }
}

/// Waits until `host` gives `node` that many seats.
async fn seats(host: &Host, node: NodeId, wanted: u32) {
    let mut changes = host.peer().placement_changes();
    let known = || host.placement().get(&node).map(|member| member.seats);
    while known() != Some(wanted) {
        within(changes.changed()).await.expect("it runs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_designation_is_renewed_while_the_host_serves() {
    let operator = Identity::from_secret([1; 32]);
    let host = host(&operator, false).await;
    let node = host.node_id();
    let leaf = leaf(&host, &operator).await;
    let watcher = newcomer(&host, Some(operator.node_id())).await.0;
    seats(&watcher, node, seats_for(UPLINK)).await;
    within(leaf.put("kept", "through")).await.unwrap();
    let terms = Terms {
        network: "canopy".into(),
        node,
        capacity_bps: 3 * UPLINK,
        days: 2,
        zone: String::new(),
    };
    let later = (host.peer().status().term + 1) * 1000;
    let next = Designation::sign(&operator, &terms, None, later).unwrap();
    host.designate(next.signed().clone());
    seats(&host, node, seats_for(3 * UPLINK)).await;
    seats(&watcher, node, seats_for(3 * UPLINK)).await;
    let value = within(leaf.get("kept")).await.unwrap();
    assert_eq!(value.unwrap().data, "through");
    within(leaf.close()).await;
    within(watcher.close()).await;
    within(host.close()).await;
}
