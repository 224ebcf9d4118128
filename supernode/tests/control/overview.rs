//! Overview, list and one super-node, while all answer and when one is gone.

use canopy_core::identity::Identity;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_supernode::host::Host;
use tokio::time::{Duration, Instant};
use tonic::Code;

use crate::overlay::{CAPACITIES, Manned, host, three, until, within, write};

async fn overview(of: &Manned) -> pb::GetOverviewReply {
    let ask = of
        .client
        .clone()
        .get_overview(pb::GetOverviewRequest {})
        .await;
    ask.unwrap().into_inner()
}

async fn list(of: &Manned, request: pb::ListSuperNodesRequest) -> pb::ListSuperNodesReply {
    let ask = of.client.clone().list_super_nodes(request).await;
    ask.unwrap().into_inner()
}

/// What a host sent, by its own count.
fn sent(one: &Manned) -> u64 {
    let fabric = one.host.peer().fabric();
    fabric.bytes_sent() - fabric.bytes_measuring()
}

fn operations(host: &Host) -> u64 {
    host.index_stats().unwrap().operations()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_says_of_all_what_they_count_themselves() {
    let operator = Identity::from_secret([9; 32]);
    let all = three(&operator).await;
    write(&all[0].host, 300).await;
    let held = |one: &Manned| one.host.index_stats().unwrap().held.records;
    // The third copy follows the acknowledgement; hosts publish where they are.
    until("three copies", async || {
        held(&all[0]) > 300 && all.iter().all(|one| held(one) == held(&all[0]))
    })
    .await;
    for asked in &all {
        // Figures may be half a second old; soon nothing is done any more.
        let everybody = pb::ListSuperNodesRequest::default();
        until("the list is the truth", async || {
            let listed = list(asked, everybody.clone()).await.super_nodes;
            listed.iter().all(|node| {
                let one = all
                    .iter()
                    .find(|one| one.host.node_id().to_string() == node.node_id);
                let truth = one.unwrap();
                let figures = node.figures.as_ref().unwrap();
                figures.operations.unwrap().total == operations(&truth.host)
                    && figures.records == held(truth)
                    && figures.leaves == truth.host.status().leaves
            })
        })
        .await;
        // Bytes are sent all the time: what is told is between two looks.
        until("bytes are those that were sent", async || {
            let before: Vec<u64> = all.iter().map(sent).collect();
            let listed = list(asked, everybody.clone()).await.super_nodes;
            all.iter().zip(before).all(|(one, before)| {
                let id = one.host.node_id().to_string();
                let told = listed.iter().find(|node| node.node_id == id);
                let told = told.unwrap().figures.as_ref().unwrap().sent_bytes;
                (before..=sent(one)).contains(&told)
            })
        })
        .await;
        let listed = list(asked, everybody).await.super_nodes;
        let stored = |node: &pb::SuperNode| node.figures.as_ref().unwrap().operations;
        let stored = listed.iter().filter_map(stored);
        let stored: u64 = stored.map(|done| done.puts_stored).sum();
        assert!(
            (300..320).contains(&stored),
            "{stored} with three locations"
        );
        let sum = |of: fn(&pb::Figures) -> u64| -> u64 {
            listed
                .iter()
                .filter_map(|node| node.figures.as_ref())
                .map(of)
                .sum()
        };
        let totals = overview(asked).await.totals.unwrap();
        assert_eq!(totals.records, sum(|figures| figures.records));
        let reply = overview(asked).await;
        assert_eq!(reply.node_id, asked.host.node_id().to_string());
        assert_eq!(
            (reply.role.as_str(), reply.topology.as_str()),
            ("super-node", "elected")
        );
        let counts = reply.counts.unwrap();
        assert_eq!(
            (counts.super_nodes, counts.designated, counts.down),
            (3, 3, 0)
        );
        assert_eq!(
            reply.totals.unwrap().capacity_bps,
            CAPACITIES.iter().sum::<u64>()
        );
        let replication = reply.replication.unwrap();
        assert_eq!((replication.wanted, replication.possible), (3, 3));
        assert_eq!(reply.domain_count, 3);
        // Two are left: no room for three copies.
        assert!(reply.domains.iter().all(|loss| !loss.survives));
        assert_eq!(reply.domains[0].domain, "rack-3");
        let records = reply
            .imbalance
            .iter()
            .find(|one| one.of == "records")
            .unwrap();
        // Each has them all, and the weakest a sixth of the capacity.
        assert!((records.max_over_mean - 2.0).abs() < 1e-6, "{records:?}");
        let freshness = reply.freshness.unwrap();
        assert_eq!((freshness.reached, freshness.of), (3, 3));
        assert!(freshness.missing.is_empty() && freshness.oldest_ms < 5_000);

        let request = pb::ListSuperNodesRequest {
            order_by: "capacity".into(),
            descending: true,
            page_size: 2,
            ..Default::default()
        };
        let first = list(asked, request.clone()).await;
        assert_eq!((first.super_nodes.len(), first.total), (2, 3));
        let rest = list(
            asked,
            pb::ListSuperNodesRequest {
                page_token: first.next_page_token,
                ..request
            },
        )
        .await;
        assert_eq!(rest.next_page_token, "");
        let listed: Vec<_> = [first.super_nodes, rest.super_nodes].concat();
        for (node, (one, capacity)) in listed.iter().rev().zip(all.iter().zip(CAPACITIES)) {
            assert!(!node.figures.as_ref().unwrap().control.is_empty());
            assert_eq!(node.node_id, one.host.node_id().to_string());
            assert_eq!(
                (node.capacity_bps, node.basis.as_str()),
                (capacity, "designated")
            );
        }
        assert_eq!(listed[0].share_ppm, 500_000);
    }
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_makes_the_answer_partial_and_not_slow() {
    let operator = Identity::from_secret([8; 32]);
    let mut all = three(&operator).await;
    let dead = all.pop().unwrap();
    let id = dead.host.node_id().to_string();
    dead.host.abort();
    let asked = Instant::now();
    let reply = overview(&all[0]).await;
    // Its session may be gone already, and the failure detector may have noticed.
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let freshness = reply.freshness.unwrap();
    if reply.counts.unwrap().super_nodes == 3 {
        assert_eq!((freshness.reached, freshness.of), (2, 3));
        assert_eq!(freshness.missing[0].node_id, id);
        assert!(!freshness.missing[0].reason.is_empty());
    }
    until("it is down", async || {
        overview(&all[0]).await.counts.unwrap().down == 1
    })
    .await;
    let ask = pb::GetSuperNodeRequest {
        node_id: id[..10].to_owned(),
    };
    let reply = all[1]
        .client
        .get_super_node(ask)
        .await
        .unwrap()
        .into_inner();
    let node = reply.super_node.unwrap();
    assert_eq!(node.node_id, id);
    assert!(node.figures.is_none() || node.state == "serving");
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_serve_answers_for_the_overlay_too() {
    let operator = Identity::from_secret([7; 32]);
    let serving = host(&operator, 1, Some(20_000_000), "", &[]).await;
    let waiting = host(&operator, 2, None, "", &[&serving]).await;
    until("it knows who serves", async || {
        waiting.placement().len() == 1
    })
    .await;
    let waiting = Manned::by(waiting).await;
    let reply = within(overview(&waiting)).await;
    assert_ne!(reply.role, "super-node");
    assert_eq!(reply.counts.unwrap().super_nodes, 1);
    let freshness = reply.freshness.unwrap();
    assert_eq!((freshness.reached, freshness.of), (1, 1), "{freshness:?}");
    waiting.close().await;
    within(serving.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_calls_are_refused_with_their_codes() {
    let operator = Identity::from_secret([6; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let mut client = one.client.clone();
    let mut get = async |node_id: &str| {
        let node_id = node_id.to_owned();
        let status = client
            .get_super_node(pb::GetSuperNodeRequest { node_id })
            .await;
        status.err().map(|status| status.code())
    };
    let id = one.host.node_id().to_string();
    assert_eq!(get(&id).await, None);
    assert_eq!(get(&id[..8].to_uppercase()).await, None);
    assert_eq!(get(&"0".repeat(64)).await, Some(Code::NotFound));
    assert_eq!(get(&id[..7]).await, Some(Code::InvalidArgument));
    assert_eq!(get("me").await, Some(Code::InvalidArgument));
    let huge = pb::ListSuperNodesRequest {
        page_size: 1_000_000,
        ..Default::default()
    };
    let refused = one.client.clone().list_super_nodes(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("ask for several pages"));
    let unknown = pb::GetSuperNodeRequest {
        node_id: "0".repeat(64),
    };
    let refused = client.get_super_node(unknown).await.unwrap_err();
    assert!(refused.message().contains("list them with ListSuperNodes"));
    one.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_watched_and_turns_when_it_closes() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let operator = Identity::from_secret([5; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let mut health = HealthClient::new(one.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest {
        service: "canopy.control.v1.Control".into(),
    };
    let mut watched = health.watch(request).await.unwrap().into_inner();
    let first = within(watched.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let closing = tokio::spawn(one.close());
    let next = within(watched.message()).await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    drop((watched, health));
    within(closing).await.unwrap();
}
