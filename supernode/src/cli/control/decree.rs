//! Commands by which an operator decrees for the whole overlay: what is signed
//! here, with a key that stays here, and what came of it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use canopy_core::decree::{Banned, Decree, Order, Policy};
use canopy_core::identity::Identity;
use canopy_proto::control as pb;
use canopy_proto::wire;
use prost::Message;

use super::super::args::DesignateArgs;
use super::super::decree_args::{
    BanArgs, BanWhat, DecreesArgs, PolicyArgs, PolicySet, SignArgs, UnbanArgs, UndesignateArgs,
};
use super::super::failure::Failure;
use super::super::human::{duration, short};
use super::super::output::{print, print_json};
use super::super::table::Column;
use super::client::{self, Client};
use super::repeat::{Told, show};
use super::show::{Page, per_cent, rate};
use super::{caller, failed, json};
use crate::control::policy_of;
use crate::designation::{DAY_MS, Designation, Terms};
use crate::event::unix_ms;
use crate::secret;

/// `supernode ban`.
pub(in super::super) async fn ban(args: BanArgs) -> Result<ExitCode, Failure> {
    let (what, reason) = (banned(&args.what), args.reason);
    decree(&args.sign, |_| Ok(Order::Ban { what, reason })).await
}

/// `supernode unban`.
pub(in super::super) async fn unban(args: UnbanArgs) -> Result<ExitCode, Failure> {
    let what = banned(&args.what);
    decree(&args.sign, |_| Ok(Order::Unban(what))).await
}

fn banned(of: &BanWhat) -> Banned {
    match (of.peer, of.publisher, of.content) {
        (Some(node), ..) => Banned::Peer(node),
        (_, Some(node), _) => Banned::Publisher(node),
        // One of the three is there.
        (.., hash) => Banned::Content(hash.unwrap_or_default().0),
    }
}

/// `supernode designate`, of a host that hears of it through the overlay.
pub(in super::super) async fn designate(args: DesignateArgs) -> Result<ExitCode, Failure> {
    let sign = SignArgs {
        ask: args.ask,
        operator_key: args.operator_key,
        days: args.days,
        dry_run: args.dry_run,
    };
    let (node, capacity_bps, days, zone) = (args.node, args.capacity.0, args.days, args.zone);
    decree(&sign, |desk: &Desk| {
        let terms = Terms {
            network: desk.network.clone(),
            node,
            capacity_bps,
            days,
            zone,
        };
        let made = Designation::sign(&desk.operator, &terms, None, unix_ms())
            .map_err(|error| Failure::usage(format!("such a designation {error}")))?;
        Ok(Order::Designate {
            host: node,
            mandate: Box::new(made.signed().clone()),
        })
    })
    .await
}

/// `supernode undesignate`.
pub(in super::super) async fn undesignate(args: UndesignateArgs) -> Result<ExitCode, Failure> {
    let host = args.node;
    decree(&args.sign, |_| Ok(Order::Undesignate(host))).await
}

/// `supernode policy`.
pub(in super::super) async fn policy(args: PolicyArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let reply = client.get_policy(pb::GetPolicyRequest {}).await;
    let held = reply.map_err(failed)?.into_inner();
    if args.set == PolicySet::default() {
        return match args.ask.json {
            true => print_json(&json(&held)?),
            false => print(&shown_policy(&held)),
        };
    }
    let Some(operator_key) = args.operator_key else {
        return Err(Failure::usage(
            "a policy is set by the operator: give --operator-key FILE",
        ));
    };
    let policy = changed_policy(&held.set.unwrap_or_default(), &args.set);
    policy
        .check()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let sign = SignArgs {
        ask: args.ask,
        operator_key,
        days: args.days,
        dry_run: args.dry_run,
    };
    decree(&sign, |_| Ok(Order::Policy(policy))).await
}

pub(super) fn changed_policy(held: &pb::Policy, set: &PolicySet) -> Policy {
    let held = match set.reset {
        true => Policy::default(),
        false => policy_of(held),
    };
    Policy {
        ratio: set.ratio.or(held.ratio),
        band_milli: set.band.or(held.band_milli),
        grow_milli: set.grow.or(held.grow_milli),
        shrink_milli: set.shrink.or(held.shrink_milli),
        survive_milli: set.survive.or(held.survive_milli),
        per_address: set.per_address.or(held.per_address),
        per_prefix: set.per_network.or(held.per_prefix),
    }
}

/// Where an operator signs: the key, and what a host says of the network.
pub(super) struct Desk {
    pub(super) operator: Identity,
    pub(super) network: String,
    in_force: Vec<pb::Decree>,
}

impl Desk {
    /// Asks the host what is in force, and whose key it takes.
    pub(super) async fn open(client: &mut Client, key: &Path) -> Result<Self, Failure> {
        let operator = secret::read(key)?;
        let reply = client.list_decrees(pb::ListDecreesRequest::default()).await;
        let listed = reply.map_err(failed)?.into_inner();
        if listed.operator.is_empty() {
            return Err(Failure::refused(
                "this overlay has no operator key, and only an operator decrees; make one with `supernode operator-key`, and start every peer with --operator PUBLIC_KEY",
            ));
        }
        if listed.operator != operator.node_id().to_string() {
            return Err(Failure::usage(format!(
                "{} is the key of {}, and this network's operator is {}; give that one's",
                key.display(),
                operator.node_id(),
                listed.operator
            )));
        }
        Ok(Self {
            operator,
            network: listed.network,
            in_force: listed.decrees,
        })
    }

    /// Signs a decree that is later than the one that it replaces.
    pub(super) fn sign(&self, order: Order, days: u32) -> wire::Signed {
        let now_ms = unix_ms();
        let mut decree = Decree {
            network: self.network.clone(),
            sequence: now_ms,
            issued_ms: now_ms,
            expires_ms: now_ms + u64::from(days) * DAY_MS,
            order,
        };
        let about = crate::control::told(&decree);
        let same = |held: &&pb::Decree| held.kind == about.kind && held.id == about.id;
        let held = self.in_force.iter().find(same);
        let after = held.map_or(0, |held| held.sequence + 1);
        decree.sequence = now_ms.max(after);
        if let (Order::Unban(_), Some(held)) = (&decree.order, held) {
            // What lifts a ban has to last as long, or that would be back.
            decree.expires_ms = decree.expires_ms.max(held.expires_ms);
        }
        decree.sign(&self.operator)
    }
}

async fn decree(
    args: &SignArgs,
    order: impl FnOnce(&Desk) -> Result<Order, Failure>,
) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let desk = Desk::open(&mut client, &args.operator_key).await?;
    let signed = desk.sign(order(&desk)?, args.days);
    let request = pb::EnactRequest {
        decree: signed.encode_to_vec(),
        dry_run: args.dry_run,
        caller: caller(),
    };
    let reply = client.enact(request).await.map_err(failed)?.into_inner();
    match args.ask.json {
        true => print_json(&json(&reply)?),
        false => print(&enacted(&reply, args.dry_run)),
    }
}

/// `supernode decrees`.
pub(in super::super) async fn decrees(args: DecreesArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let kind = args.kind.map_or("", |kind| kind.as_str()).to_owned();
    show(args.watch, args.ask.json, async || {
        let kind = kind.clone();
        let reply = client.list_decrees(pb::ListDecreesRequest { kind }).await;
        let listed = reply.map_err(failed)?.into_inner();
        Told::new(&listed, listed_decrees(&listed, unix_ms()))
    })
    .await
}

/// What a decree changed.
fn enacted(of: &pb::EnactReply, dry_run: bool) -> String {
    let decree = of.decree.clone().unwrap_or_default();
    let mut line = match decree.kind.as_str() {
        "policy" => "the policy".to_owned(),
        kind => format!("{} {kind} {}", decree.says, short(&decree.id)),
    };
    line.push_str(match (of.changed, dry_run) {
        (true, true) => " would be decreed",
        (true, false) => " is decreed",
        (false, _) => " is in force already",
    });
    if of.changed {
        line.push_str(&format!(" for {} super-nodes", of.super_nodes));
    }
    line.push('\n');
    if !of.note.is_empty() {
        line.push_str(&format!("{}\n", of.note));
    }
    line
}

/// A row for each decree.
fn listed_decrees(of: &pb::ListDecreesReply, now_ms: u64) -> String {
    if of.operator.is_empty() {
        return "this overlay has no operator key, and nobody decrees\n".to_owned();
    }
    if of.decrees.is_empty() {
        return "nothing is decreed\n".to_owned();
    }
    let columns = [
        Column::Left("DECREE"),
        Column::Left("OF"),
        Column::Left("ID"),
        Column::Right("AGE"),
        Column::Right("LEFT"),
        Column::Left("WHAT"),
    ];
    let row = |one: &pb::Decree| {
        let since = Duration::from_millis(now_ms.saturating_sub(one.issued_ms));
        let left = Duration::from_millis(one.expires_ms.saturating_sub(now_ms));
        let what = match (&one.policy, one.capacity_bps) {
            (Some(policy), _) => words(policy),
            (None, 0) => one.reason.clone(),
            (None, bps) => rate(bps as f64),
        };
        vec![
            one.says.clone(),
            one.kind.clone(),
            short(&one.id).to_owned(),
            duration(since),
            duration(left),
            what,
        ]
    };
    let mut page = Page::default();
    page.table(&columns, &of.decrees.iter().map(row).collect::<Vec<_>>());
    page.0.trim_start().to_owned()
}

/// What a policy sets, short.
pub(super) fn words(of: &pb::Policy) -> String {
    let milli = |of: u32| per_cent(of);
    let parts = [
        of.ratio.map(|n| format!("ratio {n}")),
        of.band_milli.map(|n| format!("band {}", milli(n))),
        of.grow_milli.map(|n| format!("grow {}", milli(n))),
        of.shrink_milli.map(|n| format!("shrink {}", milli(n))),
        of.survive_milli.map(|n| format!("survive {}", milli(n))),
        of.per_address.map(|n| format!("per address {n}")),
        of.per_prefix.map(|n| format!("per network {n}")),
    ];
    let set: Vec<String> = parts.into_iter().flatten().collect();
    match set.is_empty() {
        true => "as built in".to_owned(),
        false => set.join(", "),
    }
}

/// What elections go by, and what of it the operator set.
fn shown_policy(of: &pb::GetPolicyReply) -> String {
    let (set, all) = (of.set.unwrap_or_default(), of.in_force.unwrap_or_default());
    let count = |of: Option<u32>| of.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let milli = |of: Option<u32>| of.map_or_else(|| "-".to_owned(), per_cent);
    let by = |of: Option<u32>| match of {
        Some(_) => "operator",
        None => "built in",
    };
    let row = |name: &str, value: String, set: Option<u32>, what: &str| {
        let cells = [name, &value, by(set), what];
        cells.map(str::to_owned).to_vec()
    };
    let rows = [
        row("ratio", count(all.ratio), set.ratio, "leaves a super-node"),
        row(
            "band",
            milli(all.band_milli),
            set.band_milli,
            "how far the ratio may stray",
        ),
        row(
            "grow",
            milli(all.grow_milli),
            set.grow_milli,
            "one more above this utilisation",
        ),
        row(
            "shrink",
            milli(all.shrink_milli),
            set.shrink_milli,
            "one less below it",
        ),
        row(
            "survive",
            milli(all.survive_milli),
            set.survive_milli,
            "after a lost failure domain",
        ),
        row(
            "per-address",
            count(all.per_address),
            set.per_address,
            "super-nodes on one address",
        ),
        row(
            "per-network",
            count(all.per_prefix),
            set.per_prefix,
            "super-nodes in one network",
        ),
    ];
    let columns = [
        Column::Left("POLICY"),
        Column::Right("VALUE"),
        Column::Left("SET BY"),
        Column::Left("WHAT"),
    ];
    let mut page = Page::default();
    page.table(&columns, &rows);
    page.0.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::golden::pinned;
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn decree(says: &str, kind: &str, id: &str) -> pb::Decree {
        pb::Decree {
            says: says.into(),
            kind: kind.into(),
            id: id.repeat(64 / id.len().max(1)),
            sequence: 1,
            issued_ms: NOW - 3_600_000,
            expires_ms: NOW + 365 * DAY_MS,
            ..Default::default()
        }
    }

    fn set() -> pb::Policy {
        pb::Policy {
            ratio: Some(60),
            grow_milli: Some(550),
            ..Default::default()
        }
    }

    #[test]
    fn decrees_are_rows() {
        let reply = pb::ListDecreesReply {
            operator: "ab".repeat(32),
            network: "canopy".into(),
            decrees: vec![
                pb::Decree {
                    policy: Some(set()),
                    ..decree("policy", "policy", "")
                },
                pb::Decree {
                    capacity_bps: 100_000_000,
                    ..decree("designate", "host", "a1")
                },
                pb::Decree {
                    reason:
                        "floods the index with spam, and does not answer when it is asked to stop"
                            .into(),
                    ..decree("ban", "peer", "b2")
                },
                decree("unban", "publisher", "c3"),
            ],
        };
        pinned(
            &listed_decrees(&reply, NOW),
            include_str!("golden/decrees.txt"),
        );
        let nothing = pb::ListDecreesReply {
            decrees: Vec::new(),
            ..reply
        };
        assert_eq!(listed_decrees(&nothing, NOW), "nothing is decreed\n");
    }

    #[test]
    fn a_policy_says_who_set_what() {
        let reply = pb::GetPolicyReply {
            set: Some(set()),
            in_force: Some(pb::Policy {
                ratio: Some(60),
                band_milli: Some(200),
                grow_milli: Some(550),
                shrink_milli: Some(250),
                survive_milli: Some(900),
                per_address: Some(2),
                per_prefix: Some(16),
            }),
            sequence: 5,
        };
        pinned(&shown_policy(&reply), include_str!("golden/policy.txt"));
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let change = PolicySet {
            grow: Some(700),
            ..PolicySet::default()
        };
        let changed = changed_policy(&set(), &change);
        assert_eq!((changed.ratio, changed.grow_milli), (Some(60), Some(700)));
        let anew = changed_policy(
            &set(),
            &PolicySet {
                reset: true,
                ..change
            },
        );
        assert_eq!((anew.ratio, anew.grow_milli), (None, Some(700)));
    }

    #[test]
    fn a_decree_says_what_it_changed() {
        let reply = pb::EnactReply {
            decree: Some(decree("ban", "peer", "b2")),
            changed: true,
            super_nodes: 12,
            note: String::new(),
        };
        let told = enacted(&reply, false);
        assert_eq!(told, "ban peer b2b2b2b2b2 is decreed for 12 super-nodes\n");
    }
}
