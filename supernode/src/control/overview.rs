//! The overlay in one page.

use canopy_core::election::mandate::Basis;
use canopy_core::placement::R;
use canopy_proto::control as pb;
use canopy_proto::wire;

use super::balance::{self, Part, Tenant};
use super::convert;
use super::shards::Shards;
use super::survey::{Picture, Seen, State};

/// Failure domains listed.
const MAX_DOMAINS: usize = 100;

/// How much of something a super-node carries.
type LoadOf = fn(&wire::Figures) -> f64;

/// What the overlay is, apart from who answers.
pub(super) fn overview(picture: &Picture, shards: &Shards) -> pb::GetOverviewReply {
    let domains = losses(picture);
    pb::GetOverviewReply {
        counts: Some(counts(picture)),
        totals: Some(totals(picture)),
        utilisation_milli: utilisation(picture),
        worst: worst(picture),
        imbalance: imbalances(picture),
        replication: Some(replication(picture, shards)),
        domain_count: domains.len() as u32,
        domains: domains.into_iter().take(MAX_DOMAINS).collect(),
        elections: elections(picture),
        freshness: Some(convert::freshness(picture)),
        ..Default::default()
    }
}

/// Those who serve and were reached.
fn known(picture: &Picture) -> impl Iterator<Item = (&Seen, &wire::Figures)> {
    picture
        .serving()
        .filter_map(|seen| Some((seen, &*seen.figures.as_ref()?.figures)))
}

fn counts(picture: &Picture) -> pb::Counts {
    let count =
        |what: &dyn Fn(&Seen) -> bool| picture.seen.iter().filter(|seen| what(seen)).count() as u32;
    let state = |state| count(&|seen| seen.member.state == state);
    pb::Counts {
        super_nodes: state(State::Serving),
        designated: count(&|seen| seen.member.serves() && seen.member.basis == Basis::Designated),
        down: state(State::Down),
        deputies: state(State::Deputy),
        leaf_homes: known(picture)
            .map(|(_, figures)| u64::from(figures.leaves))
            .sum(),
    }
}

fn totals(picture: &Picture) -> pb::Totals {
    let mut totals = pb::Totals {
        capacity_bps: picture
            .serving()
            .map(|seen| seen.member.capacity_bps)
            .fold(0, u64::saturating_add),
        ..Default::default()
    };
    let mut sum = pb::Operations::default();
    for (_, figures) in known(picture) {
        if let Some(done) = &figures.operations {
            add(&mut sum, &convert::operations(done));
        }
        let held = figures.held.unwrap_or_default();
        totals.operations_per_s += figures.operations_per_s;
        totals.sent_bps += figures.sent_bps;
        totals.sent_bytes = totals.sent_bytes.saturating_add(figures.sent_bytes);
        totals.records = totals.records.saturating_add(held.records);
        totals.record_bytes = totals.record_bytes.saturating_add(held.bytes);
    }
    totals.operations = Some(sum);
    totals
}

fn add(sum: &mut pb::Operations, more: &pb::Operations) {
    let pairs = [
        (&mut sum.total, more.total),
        (&mut sum.puts_stored, more.puts_stored),
        (&mut sum.puts_refused, more.puts_refused),
        (&mut sum.local_puts, more.local_puts),
        (&mut sum.gets_found, more.gets_found),
        (&mut sum.gets_none, more.gets_none),
        (&mut sum.local_reads, more.local_reads),
        (&mut sum.searches, more.searches),
        (&mut sum.refused, more.refused),
    ];
    for (sum, more) in pairs {
        *sum = sum.saturating_add(more);
    }
}

fn tenants(picture: &Picture) -> Vec<Tenant<'_>> {
    known(picture)
        .map(|(seen, figures)| Tenant {
            domain: &seen.member.domain,
            capacity_bps: seen.member.capacity_bps,
            utilisation_milli: figures
                .utilisation
                .as_ref()
                .map_or(0, |used| convert::worst(used).0),
        })
        .collect()
}

pub(super) fn utilisation(picture: &Picture) -> Option<u32> {
    let tenants = tenants(picture);
    let weight = |tenant: &Tenant<'_>| u128::from(tenant.capacity_bps.max(1));
    let capacity: u128 = tenants.iter().map(weight).sum();
    let load = |tenant: &Tenant<'_>| weight(tenant) * u128::from(tenant.utilisation_milli);
    let mean = tenants
        .iter()
        .map(load)
        .sum::<u128>()
        .checked_div(capacity)?;
    Some(u32::try_from(mean).unwrap_or(u32::MAX))
}

fn worst(picture: &Picture) -> Option<pb::WorstSuperNode> {
    let busy = known(picture).filter_map(|(seen, figures)| {
        let (milli, dimension) = convert::worst(figures.utilisation.as_ref()?);
        Some((milli, dimension, seen.member.node))
    });
    let (utilisation_milli, dimension, node) = busy.max_by_key(|(milli, ..)| *milli)?;
    Some(pb::WorstSuperNode {
        node_id: node.to_string(),
        utilisation_milli,
        dimension: dimension.to_owned(),
    })
}

pub(super) fn imbalances(picture: &Picture) -> Vec<pb::Imbalance> {
    let kinds: [(&str, LoadOf); 4] = [
        ("operations", |figures| figures.operations_per_s),
        ("sent", |figures| figures.sent_bps),
        ("records", |figures| {
            figures.held.map_or(0.0, |held| held.records as f64)
        }),
        ("leaves", |figures| f64::from(figures.leaves)),
    ];
    let of = |(name, load): (&str, LoadOf)| {
        let parts: Vec<Part> = known(picture)
            .map(|(seen, figures)| Part {
                capacity_bps: seen.member.capacity_bps,
                // It comes from outside.
                load: Some(load(figures))
                    .filter(|load| load.is_finite())
                    .unwrap_or(0.0)
                    .max(0.0),
            })
            .collect();
        let found = balance::imbalance(&parts)?;
        Some(pb::Imbalance {
            of: name.to_owned(),
            max_over_mean: found.max_over_mean,
            p99_over_p50: found.p99_over_p50,
            gini: found.gini,
            super_nodes: parts.len() as u32,
        })
    };
    kinds.into_iter().filter_map(of).collect()
}

fn replication(picture: &Picture, shards: &Shards) -> pb::Replication {
    let (held, under_replicated_shards) = shards.replication();
    let serving = picture.serving().count();
    pb::Replication {
        wanted: R as u32,
        possible: serving.min(R) as u32,
        settling: known(picture)
            .filter(|(_, figures)| figures.settling)
            .count() as u32,
        under_replicated_shards,
        shards: held,
    }
}

fn losses(picture: &Picture) -> Vec<pb::DomainLoss> {
    let limit = picture.survive_milli;
    let losses = balance::losses(&tenants(picture));
    losses
        .into_iter()
        .map(|loss| pb::DomainLoss {
            survives: loss.rest_milli.is_some_and(|milli| milli <= limit)
                && loss.left as usize >= R,
            domain: loss.domain,
            super_nodes: loss.super_nodes,
            capacity_bps: loss.capacity_bps,
            rest_utilisation_milli: loss.rest_milli,
        })
        .collect()
}

fn elections(picture: &Picture) -> Vec<u64> {
    let mut terms: Vec<u64> = known(picture)
        .map(|(_, figures)| figures.election)
        .filter(|term| *term > 0)
        .collect();
    terms.sort_unstable();
    terms.dedup();
    terms
}
