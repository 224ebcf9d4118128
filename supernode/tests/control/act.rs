//! Cordon and drain: what they change, what they refuse, and that nothing is lost.

use canopy_core::identity::Identity;
use canopy_core::keyspace::keys;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire::{self, request, response};
use canopy_supernode::host::Host;
use canopy_supernode::status::Role;
use tonic::Code;

use crate::overlay::{BOUND, Manned, host, publisher, three, until, within, write};

async fn drain(of: &Manned, request: pb::DrainRequest) -> Result<Vec<pb::DrainProgress>, Code> {
    let reply = of.client.clone().drain(request).await;
    let mut stream = reply.map_err(|status| status.code())?.into_inner();
    let mut all = Vec::new();
    while let Some(progress) = within(stream.message()).await.map_err(|s| s.code())? {
        all.push(progress);
    }
    Ok(all)
}

async fn has(host: &Host, name: &str) -> bool {
    let key = keys::value(&publisher().node_id(), name);
    let get = wire::Get {
        key: key.to_bytes(),
        ..Default::default()
    };
    let answer = host
        .call(host.node_id(), request::Kind::Get(get), BOUND)
        .await;
    match answer.expect("an answer") {
        response::Kind::Get(reply) => reply.records.len() == 1,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_host_hands_over_all_it_has_while_reads_go_on() {
    let operator = Identity::from_secret([21; 32]);
    let mut all = three(&operator).await;
    let hosts: Vec<&Host> = all.iter().map(|one| &one.host).collect();
    let fourth = host(&operator, 9, Some(30_000_000), "rack-9", &hosts).await;
    until("all know the fourth", async || {
        all.iter().all(|one| one.host.placement().len() == 4) && fourth.placement().len() == 4
    })
    .await;
    all.push(Manned::by(fourth).await);
    write(&all[0].host, 400).await;
    let drained = all.remove(1);
    let id = drained.host.node_id();
    let planned = pb::DrainRequest {
        node_id: id.to_string()[..8].to_owned(),
        dry_run: true,
        ..Default::default()
    };
    let plan = drain(&drained, planned).await.unwrap();
    assert_eq!(
        (plan.len(), plan[0].phase.as_str(), plan[0].others),
        (1, "planned", 3)
    );
    assert!(plan[0].records > 0 && drained.host.role() == Role::SuperNode);
    assert!(!drained.host.figures().cordoned);

    let mut events = drained.host.events();
    let reader = all[0].host.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let reads = tokio::spawn(async move {
        let (mut done, mut lost) = (0, 0);
        while !*stopped.borrow() {
            for n in 0..400 {
                lost += usize::from(!has(&reader, &format!("value {n}")).await);
                done += 1;
            }
        }
        (done, lost)
    });
    let request = pb::DrainRequest {
        caller: "ada".into(),
        ..Default::default()
    };
    let progress = drain(&drained, request.clone()).await.unwrap();
    assert_eq!(progress.last().unwrap().phase, "done");
    assert!(drained.host.role() != Role::SuperNode && drained.host.figures().cordoned);
    stop.send_replace(true);
    let (done, lost) = reads.await.unwrap();
    assert!(done >= 400 && lost == 0, "{lost} of {done} reads lost");
    for n in 0..400 {
        assert!(has(&all[1].host, &format!("value {n}")).await, "{n}");
    }
    // Told with the caller's name.
    loop {
        let event = within(events.recv()).await.unwrap();
        if event.kind.to_string() == "drain by ada" {
            break;
        }
    }
    // Again: it is drained.
    let again = drain(&drained, request).await.unwrap();
    assert_eq!((again.len(), again[0].phase.as_str()), (1, "done"));
    // Three are left: one more would be too few for three copies.
    let refused = drain(&all[0], pb::DrainRequest::default()).await;
    assert_eq!(refused, Err(Code::FailedPrecondition));
    drained.close().await;
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cordoned_takes_no_leaf_and_the_last_one_is_not_drained() {
    let operator = Identity::from_secret([22; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let cordon = async |request: pb::CordonRequest, on: bool| {
        let mut client = one.client.clone();
        let reply = match on {
            true => client.cordon(request).await,
            false => client.uncordon(request).await,
        };
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| status.code())
    };
    let plain = pb::CordonRequest::default;
    let dry = pb::CordonRequest {
        dry_run: true,
        ..plain()
    };
    assert!(cordon(dry, true).await.unwrap().changed);
    assert!(cordon(plain(), true).await.unwrap().changed);
    until("it is cordoned", async || one.host.figures().cordoned).await;
    assert!(!cordon(plain(), true).await.unwrap().changed);
    let leaf = host(&operator, 2, None, "", &[&one.host]).await;
    until("the leaf knows who serves", async || {
        leaf.placement().len() == 1
    })
    .await;
    // What is asked is answered; that it is a home is not.
    assert_eq!(one.host.status().leaves, 0);
    assert!(cordon(plain(), false).await.unwrap().changed);
    until("it has a home", async || one.host.status().leaves == 1).await;

    let another = pb::CordonRequest {
        node_id: "0".repeat(64),
        ..plain()
    };
    assert_eq!(cordon(another, true).await, Err(Code::FailedPrecondition));
    let caller = pb::CordonRequest {
        caller: "a\nb".into(),
        ..plain()
    };
    assert_eq!(cordon(caller, true).await, Err(Code::InvalidArgument));
    let forced = pb::DrainRequest {
        force: true,
        ..Default::default()
    };
    assert_eq!(drain(&one, forced).await, Err(Code::FailedPrecondition));
    assert_eq!(one.host.role(), Role::SuperNode);
    within(leaf.close()).await;
    one.close().await;
}
