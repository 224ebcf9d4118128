//! An election explained, by who ran it and by anybody else; and whose a key is.

use canopy_core::election::tally;
use canopy_core::identity::Identity;
use canopy_core::keyspace::keys;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_supernode::host::{Host, Setup};
use canopy_supernode::settings::{Bandwidth, Preset, Settings, Stand};
use pb::explain_election_request::Which;
use pb::locate_request::What;
use tonic::Code;

use crate::overlay::{Manned, three, until, within};

/// Peers that elect among themselves, and join by the first.
async fn electorate(count: u8) -> Vec<Host> {
    let mut peers: Vec<Host> = Vec::new();
    for n in 1..=count {
        let first = peers
            .first()
            .map(|first| first.peer().local_addr().unwrap());
        let setup = Setup {
            settings: Settings {
                peers: first
                    .iter()
                    .map(|addr| addr.to_string().parse().unwrap())
                    .collect(),
                preset: Some(Preset::Local),
                stand: Some(Stand::Always),
                uplink: Some(Bandwidth(20_000_000)),
                network: Some("explained".to_owned()),
                ..Settings::default()
            },
            identity: Some(Identity::from_secret([n; 32])),
            ..Setup::default()
        };
        peers.push(Host::start(setup.plan().await.unwrap()).await.unwrap());
    }
    peers
}

async fn explain(of: &Manned, which: Which) -> pb::ExplainElectionReply {
    let request = pb::ExplainElectionRequest { which: Some(which) };
    let reply = of.client.clone().explain_election(request).await;
    within(async { reply.unwrap().into_inner() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_explained_by_anybody_with_criteria_ballots_and_losers() {
    let peers = electorate(5).await;
    until("all know who serves", async || {
        peers.iter().all(|peer| peer.placement().len() >= 3)
    })
    .await;
    let mut manned = Vec::new();
    for peer in peers {
        manned.push(Manned::by(peer).await);
    }
    let elected = manned[4].host.placement().members().next().unwrap().node;
    let id = elected.to_string();
    for asked in &manned {
        // Whoever is asked may not have heard yet that the election is closed.
        let mut explained = pb::ExplainElectionReply::default();
        until("it is closed", async || {
            explained = explain(asked, Which::NodeId(id.clone())).await;
            explained.elections.iter().any(|one| one.closed_ms > 0)
        })
        .await;
        let election = &explained.elections[0];
        assert_eq!(election.term, explained.term);
        let won = election
            .contenders
            .iter()
            .find(|one| one.node_id == id)
            .unwrap();
        assert!(won.elected && won.why.contains("elected"), "{won:?}");
        let race = won.race.as_ref().unwrap();
        assert!(race.pass && race.score_bps >= race.floor_bps && !race.levels.is_empty());
        assert!(election.contenders.iter().all(|one| !one.why.is_empty()));

        let mandate = explained
            .mandates
            .iter()
            .find(|one| one.node_id == id)
            .unwrap();
        assert_eq!(mandate.capacity_bps, race.score_bps);
        assert!(mandate.signers.contains(&mandate.officer) || mandate.officer == id);
        assert!(mandate.ballots.len() >= 3);
        assert!(mandate.ballots.iter().all(|ballot| ballot.voter != id));
        let measured = mandate.ballots.len() as u64 * mandate.median_bps;
        assert_eq!(mandate.capacity_bps, tally::discounted(measured));
        assert!(mandate.criteria.len() >= 12);
        assert!(
            mandate.criteria.iter().all(|criterion| criterion.pass),
            "{mandate:?}"
        );
        let again = explain(asked, Which::Term(explained.term)).await;
        assert_eq!(again.elections[0].contenders, election.contenders);
    }
    let serving = manned.iter().find(|one| one.host.node_id() == elected);
    let mut client = serving.unwrap().client.clone();
    let listed = client
        .list_elections(pb::ListElectionsRequest::default())
        .await;
    assert!(!listed.unwrap().into_inner().elections.is_empty());
    let unknown = pb::ExplainElectionRequest {
        which: Some(Which::Term(u64::MAX)),
    };
    let refused = client.explain_election(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let nothing = pb::ExplainElectionRequest { which: None };
    let refused = client.explain_election(nothing).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for one in manned {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_located_as_placement_has_it() {
    let all = three(&Identity::from_secret([4; 32])).await;
    let host = &all[0].host;
    let locate = async |what: Option<What>| {
        let reply = all[0]
            .client
            .clone()
            .locate(pb::LocateRequest { what })
            .await;
        reply.map(tonic::Response::into_inner)
    };
    let name = pb::ValueName {
        publisher: host.node_id().to_string(),
        name: "greeting".into(),
    };
    let found = locate(Some(What::Value(name))).await.unwrap();
    let key = keys::value(&host.node_id(), "greeting");
    assert_eq!((found.key.clone(), found.owners), (key.to_string(), 3));
    let owners: Vec<String> = host
        .placement()
        .owners(&key, 3)
        .iter()
        .map(ToString::to_string)
        .collect();
    let told: Vec<String> = found
        .holders
        .iter()
        .filter(|h| h.owner)
        .map(|h| h.node_id.clone())
        .collect();
    assert_eq!(told, owners);
    assert!(
        found
            .holders
            .is_sorted_by_key(|holder| holder.distance.clone())
    );
    assert!(found.path[0].contains("its own copy"), "{:?}", found.path);
    let same = locate(Some(What::Key(found.key.clone()))).await.unwrap();
    assert_eq!(same.holders.len(), found.holders.len());
    for what in [
        None,
        Some(What::Key("12".into())),
        Some(What::Term("two words".into())),
        Some(What::NodeId("me".into())),
    ] {
        let refused = locate(what).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    for one in all {
        one.close().await;
    }
}
