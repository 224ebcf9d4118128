//! Leaves, and who owns which part of the keyspace, as people read them.

use std::time::Duration;

use canopy_proto::control as pb;

use super::super::human::{duration, short};
use super::super::table::Column;
use super::show::{Page, freshness, rate};
use crate::event::unix_ms;

/// Parts of a placement that are shown of each kind.
const PARTS: usize = 8;
/// Digits of a leaf's id: as many as commands want at least.
const LEAF: usize = 8;
/// Digits of a home.
const HOME: usize = 5;

/// A row for each leaf.
pub(super) fn leaves(of: &pb::ListLeavesReply) -> String {
    rows(of, unix_ms())
}

fn rows(of: &pb::ListLeavesReply, now_ms: u64) -> String {
    let columns = [
        Column::Left("LEAF"),
        Column::Left("ADDRESS"),
        Column::Left("HOMES"),
        Column::Right("FOR"),
        Column::Right("RTT"),
        Column::Left("VER"),
        Column::Left("CANDIDATE"),
    ];
    let row = |leaf: &pb::Leaf| {
        let homes = leaf.homes.iter();
        let homes: Vec<&str> = homes.map(|home| digits(&home.node_id, HOME)).collect();
        let home = leaf.homes.iter().find(|home| home.confirmed);
        let since = home.map_or(now_ms, |home| home.since_ms);
        vec![
            digits(&leaf.node_id, LEAF).to_owned(),
            leaf.addr.clone(),
            homes.join(","),
            largest_unit(Duration::from_millis(now_ms.saturating_sub(since))),
            home.map_or_else(|| "-".to_owned(), |home| rtt(home.round_trip_us)),
            leaf.agent.trim_start_matches("canopy/").to_owned(),
            candidate(leaf),
        ]
    };
    let mut page = Page::default();
    if of.leaves.is_empty() {
        page.0.push_str("no leaf has a home there\n");
    }
    page.table(&columns, &of.leaves.iter().map(row).collect::<Vec<_>>());
    freshness(&mut page, of.freshness.as_ref());
    page.0.trim_start().to_owned()
}

fn digits(id: &str, count: usize) -> &str {
    id.get(..count).unwrap_or(id)
}

fn rtt(us: u64) -> String {
    match us as f64 / 1e3 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// A duration in its largest unit, e.g. `3 h`.
fn largest_unit(of: Duration) -> String {
    let text = duration(of);
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn candidate(of: &pb::Leaf) -> String {
    match (of.candidate, &of.failed[..]) {
        (true, _) => "yes".to_owned(),
        (false, []) => "no".to_owned(),
        (false, [one]) => format!("no: {}", one.name),
        (false, [first, more @ ..]) => format!("no: {} +{}", first.name, more.len()),
    }
}

/// Millionths as per cent.
fn per_cent(ppm: u32) -> String {
    format!("{:.1} %", f64::from(ppm) / 1e4)
}

/// Why a super-node has its share.
pub(super) fn placement(of: &pb::ExplainPlacementReply) -> String {
    let mut page = Page::default();
    page.line("node", &of.node_id);
    page.line("domain", domain(&of.domain));
    page.line("capacity", &rate(of.capacity_bps as f64));
    let seats = format!("{} of {}: {}", of.seats, of.total_seats, of.seats_why);
    page.line("seats", &seats);
    let share = format!(
        "{} of all copies; due are {}",
        per_cent(of.copies_ppm),
        per_cent(of.due_ppm)
    );
    page.line("share", &share);
    page.line("why", &of.why);
    let ranks: Vec<String> = of.rank_ppm.iter().map(|ppm| per_cent(*ppm)).collect();
    let keys = format!(
        "{} of all: as first, second, third owner {}",
        per_cent(of.keys_ppm),
        ranks.join(", ")
    );
    page.line("keys", &keys);
    let spread = format!(
        "{} of its keys have each copy in another domain",
        per_cent(of.spread_ppm)
    );
    page.line("spread", &spread);
    let moved = format!(
        "{} of all keys would get another owner, and have {} copies",
        per_cent(of.moved_ppm),
        of.copies_without
    );
    page.line("if it left", &moved);
    table(&mut page, "OTHER COPIES IN", &of.domains, |part| {
        domain(&part.domain).to_owned()
    });
    let node = |part: &pb::PlacementPart| short(&part.node_id).to_owned();
    table(&mut page, "NEIGHBOUR", &of.neighbours, node);
    table(&mut page, "HEIR", &of.heirs, node);
    page.0
}

fn domain(of: &str) -> &str {
    if of.is_empty() { "one of its own" } else { of }
}

fn table(
    page: &mut Page,
    heading: &'static str,
    parts: &[pb::PlacementPart],
    name: impl Fn(&pb::PlacementPart) -> String,
) {
    let of = if heading == "HEIR" {
        "OF ALL KEYS"
    } else {
        "OF ITS KEYS"
    };
    let columns = [
        Column::Left(heading),
        Column::Right(of),
        Column::Left("DOMAIN"),
    ];
    let shown = parts.iter().take(PARTS);
    let rows: Vec<Vec<String>> = shown
        .map(|part| {
            let domain = if part.node_id.is_empty() {
                ""
            } else {
                &part.domain
            };
            vec![name(part), per_cent(part.ppm), domain.to_owned()]
        })
        .collect();
    let columns = if parts.iter().any(|part| !part.node_id.is_empty()) {
        &columns[..]
    } else {
        &columns[..2]
    };
    page.table(columns, &rows);
    let more = parts.len().saturating_sub(PARTS);
    if more > 0 {
        page.0.push_str(&format!("and {more} more\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{partial, pinned};
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn leaf(digit: &str, addr: &str, failed: &[&str]) -> pb::Leaf {
        let home = |digit: &str, confirmed, first| pb::LeafHome {
            node_id: digit.repeat(64),
            confirmed,
            first,
            since_ms: if confirmed { NOW - 12_000_000 } else { 0 },
            round_trip_us: if confirmed { 12_345 } else { 0 },
        };
        let criterion = |name: &&str| pb::Criterion {
            name: (*name).to_owned(),
            value: "0".into(),
            threshold: "1".into(),
            pass: false,
        };
        pb::Leaf {
            node_id: digit.repeat(64),
            addr: addr.into(),
            agent: "canopy/0.1.0".into(),
            wire_version: 1,
            homes: vec![home("a", true, true), home("b", false, false)],
            candidate: failed.is_empty(),
            claim_bps: 20_000_000,
            failed: failed.iter().map(criterion).collect(),
        }
    }

    #[test]
    fn the_table_of_leaves() {
        let listed = pb::ListLeavesReply {
            leaves: vec![
                leaf("1", "203.0.113.7:4477", &[]),
                leaf("2", "198.51.100.201:54321", &["uptime", "reachable"]),
            ],
            homes: 4,
            freshness: partial(),
            ..Default::default()
        };
        pinned(&rows(&listed, NOW), include_str!("golden/leaves.txt"));
    }

    #[test]
    fn a_share_explained() {
        let part = |digit: &str, domain: &str, ppm| pb::PlacementPart {
            node_id: digit.repeat(64),
            domain: domain.into(),
            ppm,
        };
        let of = pb::ExplainPlacementReply {
            node_id: "a".repeat(64),
            domain: "rack-1".into(),
            capacity_bps: 64_000_000,
            seats: 256,
            seats_why: "one for each 250 kbit/s of capacity".into(),
            total_seats: 2_560,
            due_ppm: 100_000,
            copies_ppm: 97_812,
            keys_ppm: 293_436,
            rank_ppm: vec![98_000, 97_000, 98_436],
            why: "it has what its seats make due".into(),
            spread_ppm: 1_000_000,
            domains: vec![part("", "rack-2", 612_000), part("", "", 388_000)],
            neighbours: vec![part("b", "rack-2", 410_000), part("c", "rack-3", 202_000)],
            moved_ppm: 293_436,
            heirs: vec![part("b", "rack-2", 40_000)],
            copies_without: 3,
        };
        pinned(&placement(&of), include_str!("golden/placement.txt"));
    }
}
