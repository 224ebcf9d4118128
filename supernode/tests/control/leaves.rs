//! Leaves by home, and a share explained: what is told equals what peers know
//! themselves.

use std::collections::BTreeMap;

use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_proto::control as pb;
use canopy_supernode::host::Host;
use tonic::Code;

use crate::overlay::{Manned, host, three, until, within};

async fn page(of: &Manned, request: pb::ListLeavesRequest) -> pb::ListLeavesReply {
    let reply = of.client.clone().list_leaves(request).await;
    reply.unwrap().into_inner()
}

/// All pages, one after the other.
async fn all(of: &Manned, home: &str, page_size: u32) -> Vec<pb::Leaf> {
    let mut request = pb::ListLeavesRequest {
        page_size,
        home: home.to_owned(),
        ..Default::default()
    };
    let mut leaves = Vec::new();
    loop {
        let reply = page(of, request.clone()).await;
        assert!(reply.leaves.len() <= page_size as usize);
        leaves.extend(reply.leaves);
        if reply.next_page_token.is_empty() {
            return leaves;
        }
        request.page_token = reply.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_are_listed_with_their_homes_and_why_they_are_no_candidates() {
    let operator = Identity::from_secret([51; 32]);
    let serving = three(&operator).await;
    let mut leaves: Vec<Host> = Vec::new();
    for n in 0..5 {
        let joined = &serving[n as usize % 3].host;
        leaves.push(host(&operator, 100 + n, None, "", &[joined]).await);
    }
    let homes = |leaf: &Host| leaf.peer().homes().borrow().clone();
    until("each leaf has two homes", async || {
        leaves.iter().all(|leaf| homes(leaf).len() == 2)
    })
    .await;
    let truth = || -> BTreeMap<String, Vec<NodeId>> {
        let known = leaves
            .iter()
            .map(|leaf| (leaf.peer().fabric().node_id(), homes(leaf)));
        known
            .map(|(node, homes)| (node.to_string(), homes))
            .collect()
    };
    let by_id = |id: &str| {
        let mut all = leaves.iter();
        let found = all.find(|leaf| leaf.peer().fabric().node_id().to_string() == id);
        found.expect("one of them")
    };
    // What a leaf says of itself.
    let failed = |id: &str| -> Vec<String> {
        let criteria = by_id(id).status().criteria.into_iter();
        let failed = criteria.filter(|criterion| !criterion.pass);
        failed.map(|criterion| criterion.name).collect()
    };
    let asked = &serving[1];
    // A home may not have heard yet what the other one is.
    until(
        "all leaves are told with the homes that they have",
        async || {
            let told = all(asked, "", 2).await;
            let told = told.iter().map(|leaf| {
                let homes = leaf.homes.iter();
                let confirmed = homes.filter(|home| home.confirmed);
                let homes = confirmed.map(|home| home.node_id.parse().unwrap());
                (leaf.node_id.clone(), homes.collect::<Vec<NodeId>>())
            });
            told.collect::<BTreeMap<_, _>>() == truth()
        },
    )
    .await;
    for leaf in all(asked, "", 100).await {
        let listen = by_id(&leaf.node_id).peer().local_addr().unwrap();
        assert_eq!(leaf.addr, listen.to_string());
        assert!(
            leaf.agent.starts_with("canopy") && leaf.wire_version == 1,
            "{leaf:?}"
        );
        assert!(
            leaf.homes
                .iter()
                .all(|home| home.since_ms > 0 && home.round_trip_us > 0)
        );
        assert!(leaf.homes[0].first && !leaf.homes[1].first);
    }
    // They become candidates in time, but for one.
    let cordoned = leaves[0].status().node_id.to_string();
    leaves[0].cordon(true).unwrap();
    until(
        "all say whether they are candidates, and why not",
        async || {
            let told = all(asked, "", 100).await;
            told.iter().all(|leaf| {
                let names = leaf.failed.iter().map(|criterion| criterion.name.clone());
                let names: Vec<String> = names.collect();
                let right = names == failed(&leaf.node_id) && leaf.candidate == names.is_empty();
                let cordoned =
                    leaf.node_id != cordoned || names.contains(&"not_cordoned".to_owned());
                right && cordoned
            })
        },
    )
    .await;
    // One home's, by the beginning of its id.
    let home = serving[0].host.status().node_id;
    let there = all(asked, &home.to_string()[..8], 1).await;
    let wanted = leaves
        .iter()
        .filter(|leaf| homes(leaf).contains(&home))
        .count();
    assert_eq!(
        (there.len(), serving[0].host.status().leaves as usize),
        (wanted, wanted)
    );

    let refused = async |home: &str, page_token: &str, page_size| {
        let request = pb::ListLeavesRequest {
            page_size,
            page_token: page_token.to_owned(),
            home: home.to_owned(),
        };
        let status = asked
            .client
            .clone()
            .list_leaves(request)
            .await
            .expect_err("refused");
        assert!(!status.message().is_empty());
        status.code()
    };
    let other = format!("{}/{home}", "0".repeat(64));
    assert_eq!(refused("", "", 501).await, Code::InvalidArgument);
    assert_eq!(refused("", "nonsense", 1).await, Code::InvalidArgument);
    assert_eq!(refused("", &other, 1).await, Code::InvalidArgument);
    assert_eq!(refused("me", "", 1).await, Code::InvalidArgument);
    assert_eq!(refused(&"0".repeat(64), "", 1).await, Code::NotFound);
    for leaf in leaves {
        within(leaf.close()).await;
    }
    for one in serving {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_explained_by_anybody_alike() {
    let operator = Identity::from_secret([52; 32]);
    let serving = three(&operator).await;
    let explain = async |of: &Manned, node_id: &str| {
        let node_id = node_id.to_owned();
        let request = pb::ExplainPlacementRequest { node_id };
        let reply = of.client.clone().explain_placement(request).await;
        reply.map(tonic::Response::into_inner)
    };
    let id = serving[2].host.status().node_id.to_string();
    let told = explain(&serving[0], &id[..8]).await.unwrap();
    assert_eq!(told, explain(&serving[2], &id).await.unwrap());
    assert_eq!(
        (told.seats, told.total_seats, told.due_ppm),
        (240, 480, 500_000)
    );
    assert_eq!(
        (told.keys_ppm, told.copies_without, told.moved_ppm),
        (1_000_000, 2, 0)
    );
    assert!(told.why.starts_with("3 serve"), "{}", told.why);
    let domains: Vec<&str> = told
        .domains
        .iter()
        .map(|part| part.domain.as_str())
        .collect();
    assert_eq!(domains, ["rack-1", "rack-2"]);
    for (wrong, code) in [
        ("me", Code::InvalidArgument),
        (&"0".repeat(64), Code::NotFound),
    ] {
        assert_eq!(
            explain(&serving[0], wrong)
                .await
                .expect_err("refused")
                .code(),
            code
        );
    }
    for one in serving {
        one.close().await;
    }
}
