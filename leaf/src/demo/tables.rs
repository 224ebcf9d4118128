//! The demo's tables: the elected, and the shards that they were given.

use std::collections::BTreeMap;

use canopy_core::keyspace::NodeId;
use canopy_core::placement::{Member, Placement};

use super::balance::{KEYS, Owned};
use super::fleet::Fleet;
use super::show::{BOLD, GOOD, Show, bar};
use super::summary::Summary;
use crate::settings::Bandwidth;

/// Columns of a drawn bar.
const WIDTH: usize = 24;

/// Members of a placement, strongest line first.
pub(super) fn by_rank<'a>(fleet: &Fleet, placement: &'a Placement) -> Vec<&'a Member> {
    let mut members: Vec<&Member> = placement.members().collect();
    let rank = |member: &&Member| {
        fleet
            .by_id(&member.node)
            .map(|mate| (mate.rank, mate.index))
    };
    members.sort_by_key(rank);
    members
}

/// Who serves, and with what.
pub(super) fn elected(
    fleet: &Fleet,
    placement: &Placement,
    capacity: &BTreeMap<NodeId, u64>,
    show: &Show,
) {
    let strongest = fleet.mates.iter().map(|mate| mate.uplink.0).max();
    let strongest = strongest.unwrap_or(1) as f64;
    show.line(format!(
        "  {BOLD}peer  {:>12}  {:>12}  {:>4}  {:>5}{BOLD:#}",
        "true uplink", "elected with", "rank", "seats"
    ));
    for member in by_rank(fleet, placement) {
        let Some(mate) = fleet.by_id(&member.node) else {
            continue;
        };
        let elected = capacity.get(&member.node).copied().unwrap_or(0);
        show.line(format!(
            "  #{:<4} {:>12}  {:>12}  {:>4}  {:>5}  {GOOD}{}{GOOD:#}",
            format!("{:02}", mate.index),
            mate.uplink.to_string(),
            Bandwidth(elected).to_string(),
            mate.rank,
            member.seats,
            bar(elected as f64, strongest, WIDTH),
        ));
    }
}

/// How [`KEYS`] random keys fall on them.
pub(super) fn shards(
    fleet: &Fleet,
    placement: &Placement,
    owned: &BTreeMap<NodeId, Owned>,
    show: &Show,
) {
    let seats: u32 = placement.members().map(|member| member.seats).sum();
    let percent = |part: u64| part as f64 * 100.0 / KEYS as f64;
    show.line(format!(
        "  {BOLD}peer   of the seats   asked first   owner of{BOLD:#}"
    ));
    for member in by_rank(fleet, placement) {
        let Some(mate) = fleet.by_id(&member.node) else {
            continue;
        };
        let keys = owned.get(&member.node).copied().unwrap_or_default();
        show.line(format!(
            "  #{:<4} {:>11.1} %  {:>10.1} %  {:>7.1} %  {GOOD}{}{GOOD:#}",
            format!("{:02}", mate.index),
            f64::from(member.seats) * 100.0 / f64::from(seats.max(1)),
            percent(keys.first),
            percent(keys.any),
            bar(keys.first as f64, KEYS as f64, WIDTH),
        ));
    }
}

/// The end of the story.
pub(super) fn summary(summary: &Summary, show: &Show) {
    let row = |name: &str, value: String| show.line(format!("  {name:<22} {value}"));
    let after = |seconds: Option<f64>| match seconds {
        Some(seconds) => format!("{seconds:.2} s"),
        None => "-".to_owned(),
    };
    row(
        "first super-node",
        format!("{:.2} s after the start", summary.first_election_s),
    );
    row(
        "super-nodes",
        format!(
            "{}, lowest rank {} of {}",
            summary.elected.len(),
            summary
                .elected
                .iter()
                .map(|elected| elected.uplink_rank)
                .max()
                .unwrap_or(0),
            summary.leaves
        ),
    );
    row(
        "load, max over mean",
        format!(
            "{:.2} by capacity ({:.2} over random keys)",
            summary.load_max_over_mean, summary.load_max_over_mean_keys
        ),
    );
    row(
        "items",
        format!(
            "{} published, {} found by everybody",
            summary.items_published, summary.items_found
        ),
    );
    row(
        "requests",
        format!(
            "{} ok, {} failed, {} hedged",
            summary.requests_ok, summary.requests_failed, summary.requests_hedged
        ),
    );
    row("killed", summary.killed.to_string());
    row("death known to all", after(summary.noticed_s));
    row("successor served", after(summary.successor_s));
    row("seed", summary.seed.to_string());
}
