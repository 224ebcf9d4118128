//! Plans: what they say is what comes of them, and an old one is refused.

use canopy_core::decree::{Order, Policy};
use canopy_core::identity::Identity;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_supernode::host::Host;
use canopy_supernode::status::Role;
use pb::plan_rebalance_request::Change;
use prost::Message;
use tonic::Code;

use crate::enact::Desk;
use crate::overlay::{Manned, host, three, until, within, write};

async fn plan(at: &Manned, change: Change) -> Result<pb::Plan, tonic::Status> {
    let request = pb::PlanRebalanceRequest {
        change: Some(change),
    };
    let mut client = at.client.clone();
    let reply = within(client.plan_rebalance(request)).await?;
    Ok(reply.into_inner().plan.unwrap())
}

async fn apply(
    at: &Manned,
    plan: &pb::Plan,
    change: impl FnOnce(&mut pb::ApplyRebalanceRequest),
) -> Result<pb::ApplyRebalanceReply, tonic::Status> {
    let mut request = pb::ApplyRebalanceRequest {
        plan_version: plan.version.clone(),
        caller: "ada".into(),
        ..Default::default()
    };
    change(&mut request);
    let mut client = at.client.clone();
    let reply = within(client.apply_rebalance(request)).await;
    reply.map(tonic::Response::into_inner)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, tonic::Status>, says: &str) -> Code {
    let status = outcome.unwrap_err();
    assert!(status.message().contains(says), "{}", status.message());
    status.code()
}

fn records(of: &Manned) -> u64 {
    of.host.figures().held.map_or(0, |held| held.records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_down_moves_what_was_planned_and_makes_older_plans_void() {
    let operator = Identity::from_secret([61; 32]);
    let mut desk = Desk(operator.clone(), 100);
    let mut all = three(&operator).await;
    let hosts: Vec<&Host> = all.iter().map(|one| &one.host).collect();
    let fourth = host(&operator, 9, Some(30_000_000), "rack-9", &hosts).await;
    until("all know the fourth", async || {
        all.iter().all(|one| one.host.placement().len() == 4) && fourth.placement().len() == 4
    })
    .await;
    all.push(Manned::by(fourth).await);
    write(&all[0].host, 300).await;
    until("every record has its copies", async || {
        // Beside the hosts' own: where they are found.
        all.iter().map(records).sum::<u64>() >= 900
    })
    .await;

    let id = all[3].host.node_id().to_string();
    let held = records(&all[3]);
    let made = plan(&all[0], Change::StepDown(id[..8].to_owned()))
        .await
        .unwrap();
    assert_eq!(made.by, id);
    let (before, after) = (made.before.clone().unwrap(), made.after.clone().unwrap());
    assert_eq!((before.super_nodes, after.super_nodes), (4, 3));
    assert!(made.shards.iter().all(|shift| shift.from == id));
    let planned: u64 = made.shards.iter().map(|shift| shift.records).sum();
    assert!(planned.abs_diff(held) <= 10, "{planned} of {held}");
    let nothing = plan(&all[0], Change::StepDown("0".repeat(8))).await;
    assert_eq!(nothing.unwrap_err().code(), Code::NotFound);
    let mut client = all[0].client.clone();
    let empty = client.plan_rebalance(pb::PlanRebalanceRequest::default());
    let empty = within(empty).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);

    // Only who is meant applies it, and only a plan that it made.
    let other = apply(&all[0], &made, |_| ()).await;
    assert_eq!(
        refused(other, "ask the control plane"),
        Code::FailedPrecondition
    );
    let unknown = apply(&all[3], &made, |_| ()).await;
    assert_eq!(refused(unknown, "supernode plan"), Code::FailedPrecondition);
    let own = plan(&all[3], Change::StepDown(id.clone())).await.unwrap();
    assert!(
        apply(&all[3], &own, |of| of.dry_run = true)
            .await
            .unwrap()
            .changed
    );

    // Something was decreed meanwhile: the world is another one.
    let policy = Policy {
        ratio: Some(50),
        ..Policy::default()
    };
    desk.decree(&all[3], Order::Policy(policy)).await;
    let stale = apply(&all[3], &own, |_| ()).await;
    assert_eq!(refused(stale, "has changed"), Code::FailedPrecondition);
    assert_eq!(all[3].host.role(), Role::SuperNode);

    let again = plan(&all[3], Change::StepDown(id.clone())).await.unwrap();
    assert!(apply(&all[3], &again, |_| ()).await.unwrap().changed);
    until(
        "it serves no more, and three have three copies",
        async || {
            all[3].host.role() != Role::SuperNode && all[..3].iter().all(|one| records(one) >= 300)
        },
    )
    .await;
    let stale = apply(&all[3], &again, |_| ()).await;
    assert_eq!(refused(stale, "has changed"), Code::FailedPrecondition);
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_planned_and_applied_with_the_operators_word_and_leaves_are_levelled() {
    let operator = Identity::from_secret([62; 32]);
    let mut desk = Desk(operator.clone(), 100);
    let all = three(&operator).await;
    let planned = pb::Policy {
        ratio: Some(55),
        ..Default::default()
    };
    let made = plan(&all[0], Change::Policy(planned)).await.unwrap();
    assert_eq!(made.before, made.after, "three are the fewest: {made:?}");
    let unsigned = apply(&all[0], &made, |_| ()).await;
    assert_eq!(refused(unsigned, "--operator-key"), Code::InvalidArgument);
    let wrong = desk.signed(Order::Policy(Policy::default()));
    let wrong = apply(&all[0], &made, |of| of.decree = wrong.encode_to_vec()).await;
    assert_eq!(refused(wrong, "what was planned"), Code::InvalidArgument);
    let policy = Policy {
        ratio: Some(55),
        ..Policy::default()
    };
    let right = desk.signed(Order::Policy(policy));
    let reply = apply(&all[0], &made, |of| of.decree = right.encode_to_vec()).await;
    assert!(reply.unwrap().changed);
    let contrary = pb::Policy {
        shrink_milli: Some(700),
        ..Default::default()
    };
    let contrary = plan(&all[0], Change::Policy(contrary)).await;
    assert_eq!(refused(contrary, "smaller"), Code::InvalidArgument);

    // Leaves that all went to one go where there is room.
    for one in &all[1..] {
        one.host.cordon(true).unwrap();
        until("it is cordoned", async || one.host.figures().cordoned).await;
    }
    let mut leaves = Vec::new();
    for secret in 70..76 {
        let leaf = host(&operator, secret, None, "", &[&all[0].host]).await;
        leaves.push(leaf);
    }
    until("all are at the first", async || {
        all[0].host.status().leaves == 6
    })
    .await;
    for one in &all[1..] {
        one.host.cordon(false).unwrap();
        until("it may take leaves again", async || {
            !one.host.figures().cordoned
        })
        .await;
    }
    let made = plan(&all[0], Change::Level(pb::LevelLeaves {}))
        .await
        .unwrap();
    let own = all[0].host.node_id().to_string();
    assert!(made.leaves.iter().all(|shift| shift.from == own));
    let moved: u32 = made.leaves.iter().map(|shift| shift.leaves).sum();
    // It has a sixth of the capacity: of six homes it is due one, of twelve two.
    assert!((4..=5).contains(&moved), "{:?}", made.leaves);
    let rest = apply(&all[1], &made, |_| ()).await;
    assert_eq!(refused(rest, "no plan"), Code::FailedPrecondition);
    let reply = apply(&all[0], &made, |_| ()).await.unwrap();
    assert!(reply.changed && reply.note.starts_with(&moved.to_string()));
    until("they have gone elsewhere", async || {
        let elsewhere: u32 = all[1..].iter().map(|one| one.host.status().leaves).sum();
        all[0].host.status().leaves < 6 && elsewhere >= moved
    })
    .await;
    for leaf in leaves {
        leaf.close().await;
    }
    for one in all {
        one.close().await;
    }
}
