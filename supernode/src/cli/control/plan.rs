//! `supernode plan` and `supernode apply`.

use std::process::ExitCode;

use canopy_core::decree::Order;
use canopy_proto::control as pb;
use pb::plan_rebalance_request::Change;
use prost::Message;

use super::super::args::AskArgs;
use super::super::decree_args::{ApplyArgs, PlanArgs, PlanChange};
use super::super::failure::Failure;
use super::super::human::short;
use super::super::output::{note, print, print_json};
use super::super::table::Column;
use super::client::{self, Client};
use super::decree::{Desk, changed_policy, words};
use super::show::{Page, freshness, per_cent, rate};
use super::{caller, failed, json};
use crate::control::policy_of;
use crate::designation::{Designation, Terms};
use crate::event::unix_ms;

/// Moves shown of each kind.
const MOVES: usize = 10;

/// `supernode plan`.
pub(in super::super) async fn plan(args: PlanArgs) -> Result<ExitCode, Failure> {
    let (ask, mut client, change) = asked(args.change).await?;
    let request = pb::PlanRebalanceRequest {
        change: Some(change),
    };
    let reply = client.plan_rebalance(request).await;
    let reply = reply.map_err(failed)?.into_inner();
    if ask.json {
        return print_json(&json(&reply)?);
    }
    let plan = reply.plan.unwrap_or_default();
    let shown = print(&planned(&plan, reply.freshness.as_ref()));
    note(&format!("apply it with `supernode apply {}`", plan.version));
    shown
}

async fn asked(change: PlanChange) -> Result<(AskArgs, Client, Change), Failure> {
    match change {
        PlanChange::Level(ask) => {
            let (ask, client) = connected(ask).await?;
            Ok((ask, client, Change::Level(pb::LevelLeaves {})))
        }
        PlanChange::StepDown(of) => {
            let (ask, client) = connected(of.ask).await?;
            Ok((ask, client, Change::StepDown(of.node)))
        }
        PlanChange::Undesignate(of) => {
            let (ask, client) = connected(of.ask).await?;
            Ok((ask, client, Change::Undesignate(of.node)))
        }
        PlanChange::Designate(of) => {
            let (ask, client) = connected(of.ask).await?;
            let planned = pb::PlannedHost {
                node_id: of.node.to_string(),
                capacity_bps: of.capacity.0,
                domain: of.zone,
            };
            Ok((ask, client, Change::Designate(planned)))
        }
        PlanChange::Policy(of) => {
            let (ask, mut client) = connected(of.ask).await?;
            let reply = client.get_policy(pb::GetPolicyRequest {}).await;
            let held = reply.map_err(failed)?.into_inner().set;
            let policy = changed_policy(&held.unwrap_or_default(), &of.set);
            let policy = pb::Policy {
                ratio: policy.ratio,
                band_milli: policy.band_milli,
                grow_milli: policy.grow_milli,
                shrink_milli: policy.shrink_milli,
                survive_milli: policy.survive_milli,
                per_address: policy.per_address,
                per_prefix: policy.per_prefix,
            };
            Ok((ask, client, Change::Policy(policy)))
        }
    }
}

async fn connected(ask: AskArgs) -> Result<(AskArgs, Client), Failure> {
    let client = client::connect(&ask).await?;
    Ok((ask, client))
}

/// `supernode apply`.
pub(in super::super) async fn apply(args: ApplyArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let mut request = pb::ApplyRebalanceRequest {
        plan_version: args.version,
        dry_run: true,
        caller: caller(),
        decree: Vec::new(),
        force: args.force,
    };
    let reply = client.apply_rebalance(request.clone()).await;
    let mut reply = reply.map_err(failed)?.into_inner();
    let plan = reply.plan.clone().unwrap_or_default();
    let change = plan.change.and_then(|change| change.change);
    let decreed = matches!(
        change,
        Some(Change::Policy(_) | Change::Designate(_) | Change::Undesignate(_))
    );
    if let (true, Some(change)) = (decreed, change) {
        match &args.operator_key {
            Some(key) => {
                let desk = Desk::open(&mut client, key).await?;
                let order = order(&desk, change, args.days)?;
                request.decree = desk.sign(order, args.days).encode_to_vec();
            }
            None if args.dry_run => {}
            None => {
                return Err(Failure::usage(
                    "this plan takes the operator's word: give --operator-key FILE",
                ));
            }
        }
    }
    if !args.dry_run || !request.decree.is_empty() {
        request.dry_run = args.dry_run;
        let applied = client.apply_rebalance(request).await;
        reply = applied.map_err(failed)?.into_inner();
    }
    match args.ask.json {
        true => print_json(&json(&reply)?),
        false => print(&applied(&reply, args.dry_run)),
    }
}

/// What the operator signs so that the plan is carried out.
fn order(desk: &Desk, change: Change, days: u32) -> Result<Order, Failure> {
    let unclear = || Failure::refused("the host keeps a plan that cannot be read; make another");
    match change {
        Change::Policy(policy) => Ok(Order::Policy(policy_of(&policy))),
        Change::Undesignate(node) => {
            let node = node.parse().map_err(|_| {
                Failure::usage("make the plan with the whole id of the host: it is signed")
            })?;
            Ok(Order::Undesignate(node))
        }
        Change::Designate(planned) => {
            let node = planned.node_id.parse().map_err(|_| unclear())?;
            let terms = Terms {
                network: desk.network.clone(),
                node,
                capacity_bps: planned.capacity_bps,
                days,
                zone: planned.domain,
            };
            let made = Designation::sign(&desk.operator, &terms, None, unix_ms())
                .map_err(|error| Failure::usage(format!("such a designation {error}")))?;
            Ok(Order::Designate {
                host: node,
                mandate: Box::new(made.signed().clone()),
            })
        }
        _ => Err(unclear()),
    }
}

fn applied(of: &pb::ApplyRebalanceReply, dry_run: bool) -> String {
    let version = of.plan.as_ref().map_or("", |plan| plan.version.as_str());
    let what = match (of.changed, dry_run) {
        (true, true) => "could be applied",
        (true, false) => "is applied",
        (false, _) => "has nothing to do here",
    };
    let mut line = format!("plan {version} {what}\n");
    if !of.note.is_empty() {
        line.push_str(&format!("{}\n", of.note));
    }
    line
}

/// A plan: what would happen, what it would bring, and what would move.
fn planned(of: &pb::Plan, fresh: Option<&pb::Freshness>) -> String {
    let mut page = Page::default();
    page.line("plan", &of.version);
    for (at, step) in of.steps.iter().enumerate() {
        page.line(if at == 0 { "steps" } else { "" }, step);
    }
    if let Some(Change::Policy(policy)) = of.change.as_ref().and_then(|c| c.change.as_ref()) {
        page.line("policy", &words(policy));
    }
    if !of.by.is_empty() {
        page.line("applied by", &of.by);
    }
    effects(&mut page, of);
    let columns = [
        Column::Left("SHARDS FROM"),
        Column::Left("TO"),
        Column::Right("SHARE"),
        Column::Right("RECORDS"),
    ];
    let or_nobody = |id: &str| match id {
        "" => "-".to_owned(),
        id => short(id).to_owned(),
    };
    let row = |one: &pb::ShardMove| {
        vec![
            or_nobody(&one.from),
            or_nobody(&one.to),
            format!("{:.2} %", f64::from(one.share_ppm) / 1e4),
            one.records.to_string(),
        ]
    };
    let shown = of.shards.iter().take(MOVES);
    page.table(&columns, &shown.map(row).collect::<Vec<_>>());
    let columns = [
        Column::Left("LEAVES FROM"),
        Column::Left("TO"),
        Column::Right("LEAVES"),
    ];
    let row = |one: &pb::LeafMove| {
        vec![
            or_nobody(&one.from),
            or_nobody(&one.to),
            one.leaves.to_string(),
        ]
    };
    let shown = of.leaves.iter().take(MOVES);
    page.table(&columns, &shown.map(row).collect::<Vec<_>>());
    let more = of.shards.len().saturating_sub(MOVES) + of.leaves.len().saturating_sub(MOVES);
    if more > 0 {
        page.0
            .push_str(&format!("{more} smaller moves; --json has them\n"));
    }
    freshness(&mut page, fresh);
    page.0
}

fn effects(page: &mut Page, of: &pb::Plan) {
    let (before, after) = (
        of.before.clone().unwrap_or_default(),
        of.after.clone().unwrap_or_default(),
    );
    let milli = |of: Option<u32>| of.map_or_else(|| "-".to_owned(), per_cent);
    let mut rows = Vec::new();
    let mut row = |name: &str, before: String, after: String| {
        rows.push(vec![name.to_owned(), before, after]);
    };
    row(
        "super-nodes",
        before.super_nodes.to_string(),
        after.super_nodes.to_string(),
    );
    row(
        "capacity",
        rate(before.capacity_bps as f64),
        rate(after.capacity_bps as f64),
    );
    row(
        "utilisation",
        milli(before.utilisation_milli),
        milli(after.utilisation_milli),
    );
    row(
        "busiest",
        milli(before.worst_milli),
        milli(after.worst_milli),
    );
    for kind in ["keys", "records", "operations", "leaves"] {
        let even = |effect: &pb::Effect| {
            let found = effect.imbalance.iter().find(|one| one.of == kind);
            found.map_or_else(|| "-".to_owned(), |one| format!("{:.2}", one.max_over_mean))
        };
        row(&format!("{kind} max/mean"), even(&before), even(&after));
    }
    let columns = [
        Column::Left("EFFECT"),
        Column::Right("NOW"),
        Column::Right("THEN"),
    ];
    page.table(&columns, &rows);
}

#[cfg(test)]
mod tests {
    use super::super::golden::pinned;
    use super::*;

    fn effect(super_nodes: u32, milli: u32, of: &[(&str, f64)]) -> pb::Effect {
        let even = |(of, max_over_mean): &(&str, f64)| pb::Imbalance {
            of: (*of).to_owned(),
            max_over_mean: *max_over_mean,
            p99_over_p50: None,
            gini: 0.1,
            super_nodes,
        };
        pb::Effect {
            super_nodes,
            capacity_bps: u64::from(super_nodes) * 64_000_000,
            utilisation_milli: Some(milli),
            worst_milli: Some(milli + 90),
            worst: "a1".repeat(32),
            imbalance: of.iter().map(even).collect(),
        }
    }

    #[test]
    fn a_plan_says_what_moves_and_what_it_brings() {
        let shard = |from: &str, to: &str, share_ppm, records| pb::ShardMove {
            from: from.repeat(32),
            to: to.repeat(32),
            share_ppm,
            records,
        };
        let plan = pb::Plan {
            version: "0123456789abcdef".into(),
            change: Some(pb::PlanRebalanceRequest {
                change: Some(Change::StepDown("a1".repeat(32))),
            }),
            made_ms: 0,
            by: "a1".repeat(32),
            steps: vec!["a1a1a1a1a1 lays its role down, and hands over all it holds".into()],
            shards: vec![
                shard("a1", "b2", 61_230, 80_412),
                shard("a1", "c3", 58_000, 76_000),
                shard("a1", "", 1_000, 1_300),
            ],
            leaves: vec![pb::LeafMove {
                from: "a1".repeat(32),
                to: "b2".repeat(32),
                leaves: 41,
            }],
            before: Some(effect(6, 392, &[("keys", 1.128), ("leaves", 2.4)])),
            after: Some(effect(5, 470, &[("keys", 1.141), ("leaves", 1.02)])),
        };
        pinned(&planned(&plan, None), include_str!("golden/plan.txt"));
        let reply = pb::ApplyRebalanceReply {
            plan: Some(plan),
            changed: true,
            note: "it stands again".into(),
        };
        assert_eq!(
            applied(&reply, false),
            "plan 0123456789abcdef is applied\nit stands again\n"
        );
    }
}
