//! Plans: made from what is known now, kept for a while, and applied only in the
//! world that they were made in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use canopy_core::decree::{Decree, Order, Policy};
use canopy_core::election::law::{self, LawConfig, Need};
use canopy_core::election::mandate::{Basis, seats_for};
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Member as Placed, Placement};
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire;
use parking_lot::Mutex;
use pb::plan_rebalance_request::Change;
use prost::Message;
use tonic::Status;

use super::enact::policy_of;
use super::plan::{self, Carrier, Carriers, LeafShift, Shares};
use super::survey::{Picture, Seen};
use super::{act, convert, enact};
use crate::event::unix_ms;
use crate::host::Host;

/// Plans kept.
const MAX_PLANS: usize = 16;
/// Moves told of each kind.
const MAX_MOVES: usize = 1000;
/// Largest capacity that can be planned, bits a second.
const MAX_BPS: u64 = 1_000_000_000_000;

/// The last plans that were made here, oldest first.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<VecDeque<Arc<Kept>>>);

#[derive(Debug)]
struct Kept {
    plan: pb::Plan,
    world: World,
    leaves: Vec<LeafShift>,
    own_leaves: u32,
}

/// What a plan stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct World {
    placement: u64,
    decrees: Key,
}

/// What a change makes of the super-nodes.
struct Outline {
    placement: Placement,
    capacities: BTreeMap<NodeId, u64>,
    steps: Vec<String>,
    by: Option<NodeId>,
    /// Whose leaves move, and who gets them; nobody: all that are not where they
    /// are due.
    leaver: Option<NodeId>,
    newcomers: Vec<NodeId>,
    leaves_stay: bool,
}

impl Plans {
    /// `PlanRebalance`.
    pub(super) async fn plan(
        &self,
        host: &Host,
        picture: &Picture,
        request: pb::PlanRebalanceRequest,
    ) -> Result<pb::PlanRebalanceReply, Status> {
        let change = request.change.clone().ok_or_else(|| {
            Status::invalid_argument(
                "change: give one of level, step_down, designate, undesignate and policy",
            )
        })?;
        let placement = host.placement();
        let world = world(host, &placement).await?;
        let carriers = carriers(picture);
        let policy = match &change {
            Change::Policy(policy) => policy_of(policy),
            _ => Policy::default(),
        };
        policy
            .check()
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let law = host.peer().look(move |core, _| core.law_by(&policy)).await;
        let law = law.ok_or_else(closing)?;
        let outline = outline(host, picture, &placement, &change, &law)?;
        let after = outline.placement.clone();
        // Thousands of look-ups: not on a thread that answers others.
        let shares = tokio::task::spawn_blocking(move || plan::shares(&placement, &after));
        let shares = shares
            .await
            .map_err(|_| Status::internal("the plan failed here; see the log"))?;
        let leaves = leaf_moves(&carriers, &outline);
        let then = plan::after(&carriers, &outline.capacities, &shares, &leaves);
        let now_ms = unix_ms();
        let version = version(&world, &request, now_ms);
        let name = |node: &NodeId| names(&outline.newcomers, node);
        let plan = pb::Plan {
            version,
            change: Some(request),
            made_ms: now_ms,
            by: outline.by.map_or_else(String::new, |node| node.to_string()),
            steps: outline.steps.clone(),
            shards: shard_moves(&carriers, &shares, name),
            leaves: leaves
                .iter()
                .take(MAX_MOVES)
                .map(|shift| pb::LeafMove {
                    from: name(&shift.from),
                    to: name(&shift.to),
                    leaves: shift.leaves,
                })
                .collect(),
            before: Some(effect(&carriers, &shares.before, name)),
            after: Some(effect(&then, &shares.after, name)),
        };
        let own = carriers.get(&host.node_id());
        let kept = Arc::new(Kept {
            plan: plan.clone(),
            world,
            leaves,
            own_leaves: own.map_or(0, |own| own.leaves as u32),
        });
        let mut plans = self.0.lock();
        if plans.len() == MAX_PLANS {
            plans.pop_front();
        }
        plans.push_back(kept);
        Ok(pb::PlanRebalanceReply {
            plan: Some(plan),
            freshness: Some(convert::freshness(picture)),
        })
    }

    /// `ApplyRebalance`.
    pub(super) async fn apply(
        &self,
        host: &Host,
        request: pb::ApplyRebalanceRequest,
        caller: &str,
    ) -> Result<pb::ApplyRebalanceReply, Status> {
        let caller = act::named(caller)?;
        let kept = self.find(&request.plan_version)?;
        if world(host, &host.placement()).await? != kept.world {
            return Err(Status::failed_precondition(
                "the overlay has changed since this plan was made: others serve, or something was decreed; make another with `supernode plan`",
            ));
        }
        let change = kept.plan.change.clone().and_then(|of| of.change);
        let (changed, note) = match change {
            Some(Change::Level(_)) => level(host, &kept, &request, caller)?,
            Some(Change::StepDown(_)) => {
                let step_down = pb::StepDownRequest {
                    node_id: kept.plan.by.clone(),
                    dry_run: request.dry_run,
                    caller: caller.to_owned(),
                    force: request.force,
                };
                let reply = act::step_down(host, &step_down, caller)?;
                (reply.changed, reply.note)
            }
            Some(change) => decreed(host, &change, &request, caller).await?,
            None => return Err(Status::internal("a plan of nothing was kept")),
        };
        Ok(pb::ApplyRebalanceReply {
            plan: Some(kept.plan.clone()),
            changed,
            note,
        })
    }

    fn find(&self, version: &str) -> Result<Arc<Kept>, Status> {
        let plans = self.0.lock();
        let found = plans.iter().find(|kept| kept.plan.version == version);
        found.cloned().ok_or_else(|| {
            Status::failed_precondition(format!(
                "no plan of version {:?} is kept here: a host keeps the last {MAX_PLANS} that it made; make another with `supernode plan`",
                version.chars().take(32).collect::<String>()
            ))
        })
    }
}

fn closing() -> Status {
    Status::unavailable("this peer is closing; ask another")
}

async fn world(host: &Host, placement: &Placement) -> Result<World, Status> {
    let digest = host.peer().look(|core, _| core.decrees().digest()).await;
    Ok(World {
        placement: placement.version(),
        decrees: digest.ok_or_else(closing)?,
    })
}

fn version(world: &World, request: &pb::PlanRebalanceRequest, now_ms: u64) -> String {
    let parts: [&[u8]; 4] = [
        &world.placement.to_le_bytes(),
        &world.decrees.0,
        &request.encode_to_vec(),
        &now_ms.to_le_bytes(),
    ];
    let mut version = Key::hash("plan", &parts).to_string();
    version.truncate(16);
    version
}

/// What everybody carries, by its own count.
fn carriers(picture: &Picture) -> Carriers {
    let carrier = |seen: &Seen| {
        let known = seen.figures.as_ref().map(|known| &known.figures);
        // They come from outside.
        let sane = |of: f64| if of.is_finite() { of.max(0.0) } else { 0.0 };
        Carrier {
            capacity_bps: seen.member.capacity_bps,
            utilisation_milli: known.map(|figures| {
                let used = figures.utilisation.as_ref();
                used.map_or(0, |used| convert::worst(used).0)
            }),
            records: known.map_or(0.0, |f| f.held.map_or(0.0, |held| held.records as f64)),
            operations: known.map_or(0.0, |f| sane(f.operations_per_s)),
            leaves: known.map_or(0.0, |f| f64::from(f.leaves)),
        }
    };
    let serving = picture.serving();
    serving
        .map(|seen| (seen.member.node, carrier(seen)))
        .collect()
}

/// What the change makes of who serves.
fn outline(
    host: &Host,
    picture: &Picture,
    placement: &Placement,
    change: &Change,
    law: &LawConfig,
) -> Result<Outline, Status> {
    let serving = || picture.serving().map(|seen| &seen.member);
    let mut outline = Outline {
        placement: placement.clone(),
        capacities: serving().map(|m| (m.node, m.capacity_bps)).collect(),
        steps: Vec::new(),
        by: None,
        leaver: None,
        newcomers: Vec::new(),
        leaves_stay: false,
    };
    match change {
        Change::Level(_) => outline
            .steps
            .push("each host that is asked to sends away the leaves that it has too many".into()),
        Change::StepDown(text) => {
            let node = convert::find(serving(), text)?.node;
            outline.by = Some(node);
            outline.leave(node, "lays its role down, and hands over all it holds");
        }
        Change::Undesignate(text) => {
            let member = convert::find(serving(), text)?;
            if member.basis != Basis::Designated {
                return Err(Status::failed_precondition(format!(
                    "{} was elected, not designated; have it step down instead",
                    member.node
                )));
            }
            outline.leave(
                member.node,
                "serves no more by designation, and hands over all",
            );
        }
        Change::Designate(planned) => {
            let node: NodeId = planned
                .node_id
                .parse()
                .map_err(|error| Status::invalid_argument(format!("node_id: {error}")))?;
            if !(1..=MAX_BPS).contains(&planned.capacity_bps) {
                return Err(Status::invalid_argument(
                    "capacity_bps: give bits a second, 1 to 10^12",
                ));
            }
            let domain = match planned.domain.is_empty() {
                true => node.short(),
                false => planned.domain.chars().take(64).collect(),
            };
            outline.join(node, planned.capacity_bps, &domain);
            outline
                .steps
                .push(format!("{} serves by designation", node.short()));
        }
        Change::Policy(_) => outline.obey(host, picture, law),
    }
    Ok(outline)
}

impl Outline {
    fn leave(&mut self, node: NodeId, what: &str) {
        self.placement = self.placement.without(&node);
        self.capacities.remove(&node);
        self.leaver = Some(node);
        self.steps.push(format!("{} {what}", node.short()));
    }

    fn join(&mut self, node: NodeId, capacity_bps: u64, domain: &str) {
        self.placement = self.placement.without(&node).with(Placed {
            node,
            seats: seats_for(capacity_bps),
            domain: domain.into(),
        });
        self.capacities.insert(node, capacity_bps);
        self.newcomers.push(node);
    }

    /// What the law asks for first, by the new policy. Who would be elected nobody
    /// knows: it is taken to be like those who serve.
    fn obey(&mut self, host: &Host, picture: &Picture, law: &LawConfig) {
        match law::need(&overview(host, picture), law) {
            Need::Hold => {
                self.leaves_stay = true;
                self.steps.push("the number of super-nodes stays".into());
            }
            Need::Shrink { node, reason } => self.leave(node, &format!("is let go: {reason}")),
            Need::Grow { count, reasons } => {
                let mut capacities: Vec<u64> = self.capacities.values().copied().collect();
                capacities.sort_unstable();
                let usual = capacities.get(capacities.len() / 2).copied();
                for i in 0..count as u64 {
                    let node = NodeId(Key::hash("planned", &[&i.to_le_bytes()]).0);
                    self.join(node, usual.unwrap_or(1), &format!("new {i}"));
                }
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.steps.push(format!(
                    "{count} more are elected if so many stand: {}",
                    reasons.join(", ")
                ));
            }
        }
    }
}

fn overview(host: &Host, picture: &Picture) -> law::Overview {
    let node = |seen: &Seen| {
        let figures = seen.figures.as_ref().map(|known| &known.figures);
        let used = figures.and_then(|figures| figures.utilisation.as_ref());
        law::SuperNode {
            node: seen.member.node,
            capacity_bps: seen.member.capacity_bps,
            utilisation_milli: used.map_or(0, |used| convert::worst(used).0),
            domain: seen.member.domain.clone(),
            leaves: figures.map_or(0, |figures| figures.leaves),
            designated: seen.member.basis == Basis::Designated,
            since_ms: seen.member.issued_ms,
        }
    };
    let super_nodes: Vec<law::SuperNode> = picture.serving().map(node).collect();
    // Most leaves have two homes.
    let homes: usize = super_nodes.iter().map(|s| s.leaves as usize).sum();
    law::Overview {
        topology: host.topology().into(),
        super_nodes,
        candidates: usize::MAX,
        leaves: homes.div_ceil(2),
        deputies: 0,
        in_flight: 0,
    }
}

fn leaf_moves(carriers: &Carriers, outline: &Outline) -> Vec<LeafShift> {
    if outline.leaves_stay {
        return Vec::new();
    }
    let mut moves = plan::level(carriers, &outline.capacities);
    match (outline.leaver, outline.newcomers.is_empty()) {
        (Some(leaver), _) => moves.retain(|shift| shift.from == leaver),
        (None, false) => moves.retain(|shift| outline.newcomers.contains(&shift.to)),
        (None, true) => {}
    }
    moves
}

/// As people know a super-node; those yet to be elected have no id.
fn names(newcomers: &[NodeId], node: &NodeId) -> String {
    let planned = |i: &u64| NodeId(Key::hash("planned", &[&i.to_le_bytes()]).0) == *node;
    let count = newcomers.len() as u64;
    match (0..count).find(planned) {
        Some(i) => format!("new {}", i + 1),
        None => node.to_string(),
    }
}

fn shard_moves(
    carriers: &Carriers,
    shares: &Shares,
    name: impl Fn(&NodeId) -> String,
) -> Vec<pb::ShardMove> {
    let copies = u64::from(shares.copies.max(1));
    let shifts = shares.shifts.iter().take(MAX_MOVES);
    let told = shifts.map(|shift| {
        let or_nobody = |node: Option<NodeId>| node.map_or_else(String::new, |node| name(&node));
        let records = shift.from.map_or(0.0, |from| {
            let all = carriers.get(&from).map_or(0.0, |c| c.records);
            plan::part(shares, &from, shift.samples, all)
        });
        pb::ShardMove {
            from: or_nobody(shift.from),
            to: or_nobody(shift.to),
            share_ppm: u32::try_from(u64::from(shift.samples) * 1_000_000 / copies)
                .unwrap_or(u32::MAX),
            records: records.round() as u64,
        }
    });
    told.collect()
}

fn effect(
    carriers: &Carriers,
    samples: &BTreeMap<NodeId, u32>,
    name: impl Fn(&NodeId) -> String,
) -> pb::Effect {
    let known: Vec<(&NodeId, u64, u64)> = carriers
        .iter()
        .filter_map(|(node, c)| Some((node, c.capacity_bps.max(1), c.utilisation_milli?.into())))
        .collect();
    let weight: u128 = known.iter().map(|(_, weight, _)| u128::from(*weight)).sum();
    let load: u128 = known
        .iter()
        .map(|(_, weight, milli)| u128::from(*weight) * u128::from(*milli))
        .sum();
    let worst = known.iter().max_by_key(|(_, _, milli)| *milli);
    let small = |of: u64| u32::try_from(of).unwrap_or(u32::MAX);
    let keys = |node: &NodeId| f64::from(samples.get(node).copied().unwrap_or(0));
    let even = [
        ("keys", plan::evenness(carriers, |node, _| keys(node))),
        ("records", plan::evenness(carriers, |_, c| c.records)),
        ("operations", plan::evenness(carriers, |_, c| c.operations)),
        ("leaves", plan::evenness(carriers, |_, c| c.leaves)),
    ];
    let imbalance = even.into_iter().filter_map(|(of, found)| {
        let found = found?;
        Some(pb::Imbalance {
            of: of.to_owned(),
            max_over_mean: found.max_over_mean,
            p99_over_p50: found.p99_over_p50,
            gini: found.gini,
            super_nodes: known.len() as u32,
        })
    });
    pb::Effect {
        super_nodes: carriers.len() as u32,
        capacity_bps: carriers
            .values()
            .fold(0, |sum, c| sum.saturating_add(c.capacity_bps)),
        utilisation_milli: load
            .checked_div(weight)
            .map(|milli| u32::try_from(milli).unwrap_or(u32::MAX)),
        worst_milli: worst.map(|(_, _, milli)| small(*milli)),
        worst: worst.map_or_else(String::new, |(node, ..)| name(node)),
        imbalance: imbalance.collect(),
    }
}

/// Sends away what this host has too many.
fn level(
    host: &Host,
    kept: &Kept,
    request: &pb::ApplyRebalanceRequest,
    caller: &str,
) -> Result<(bool, String), Status> {
    let own = host.node_id();
    let moves: Vec<(NodeId, usize)> = kept
        .leaves
        .iter()
        .filter(|shift| shift.from == own)
        .map(|shift| (shift.to, shift.leaves as usize))
        .collect();
    if moves.is_empty() {
        let note = "this host has no leaf too many; ask those that the plan moves leaves from";
        return Ok((false, note.to_owned()));
    }
    let (then, now) = (kept.own_leaves, host.status().leaves);
    if then.abs_diff(now) > (then / 10).max(2) {
        return Err(Status::failed_precondition(format!(
            "this host had {then} leaves when the plan was made, and has {now}; make another with `supernode plan level`"
        )));
    }
    let count: usize = moves.iter().map(|(_, leaves)| leaves).sum();
    if !request.dry_run {
        host.operated(&format!("apply {}", kept.plan.version), caller);
        host.peer().move_leaves(moves);
    }
    Ok((
        true,
        format!("{count} leaves of this host are sent elsewhere"),
    ))
}

/// Has what the plan is about decreed, if that is what the decree says.
async fn decreed(
    host: &Host,
    change: &Change,
    request: &pb::ApplyRebalanceRequest,
    caller: &str,
) -> Result<(bool, String), Status> {
    if request.decree.is_empty() {
        return match request.dry_run {
            true => Ok((true, "it takes the operator's decree".to_owned())),
            false => Err(Status::invalid_argument(
                "decree: this plan takes the operator's word; `supernode apply --operator-key FILE` signs it",
            )),
        };
    }
    let signed = wire::Signed::decode(request.decree.as_slice());
    let signed = signed.map_err(|_| Status::invalid_argument("decree: it cannot be read"))?;
    let says = Decree::decode(&signed.body)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if !is_about(&says.order, change) {
        return Err(Status::invalid_argument(
            "decree: it says something else than the plan is about; sign what was planned",
        ));
    }
    let enact = pb::EnactRequest {
        decree: request.decree.clone(),
        dry_run: request.dry_run,
        caller: caller.to_owned(),
    };
    let reply = enact::enact(host, enact, caller).await?;
    Ok((reply.changed, reply.note))
}

fn is_about(order: &Order, change: &Change) -> bool {
    match (order, change) {
        (Order::Policy(policy), Change::Policy(planned)) => *policy == policy_of(planned),
        (Order::Undesignate(node), Change::Undesignate(planned)) => {
            planned.len() >= 8 && node.to_string().starts_with(&planned.to_ascii_lowercase())
        }
        (Order::Designate { host, mandate }, Change::Designate(planned)) => {
            let body = wire::Mandate::decode(mandate.body.clone());
            let capacity = body.is_ok_and(|body| body.capacity_bps == planned.capacity_bps);
            capacity && host.to_string() == planned.node_id.to_ascii_lowercase()
        }
        _ => false,
    }
}
