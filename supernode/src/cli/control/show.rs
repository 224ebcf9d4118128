//! Answers of the control plane as people read them: 80 columns, colour on a
//! terminal only (the stream decides).

use std::fmt::Write;
use std::time::Duration;

use canopy_proto::control as pb;

use super::super::human::{bytes, duration, short};
use super::super::output::{BAD, BOLD, GOOD};
use super::super::table::{Column, WIDTH, cut, render};
use crate::settings::Bandwidth;

/// Failure domains shown.
const DOMAINS: usize = 8;
/// Missing super-nodes shown.
const MISSING: usize = 8;

/// Thousandths as per cent.
pub(in crate::cli) fn per_cent(milli: impl Into<u64>) -> String {
    let milli = milli.into();
    match milli {
        0..100 => format!("{:.1} %", milli as f64 / 10.0),
        _ => format!("{} %", milli / 10),
    }
}

/// A number a second, short.
pub(in crate::cli) fn number(of: f64) -> String {
    match of {
        n if n < 10.0 => format!("{n:.1}"),
        n if n < 10_000.0 => format!("{n:.0}"),
        n if n < 1e7 => format!("{:.0} k", n / 1e3),
        n => format!("{:.0} M", n / 1e6),
    }
}

pub(in crate::cli) fn rate(bps: f64) -> String {
    Bandwidth(bps.clamp(0.0, 1e15) as u64).to_string()
}

/// Lines and tables, one below the other.
#[derive(Default)]
pub(super) struct Page(pub(super) String);

impl Page {
    pub(super) fn line(&mut self, name: &str, value: &str) {
        let value = cut(value, WIDTH - 13);
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{BOLD}{name:<12}{BOLD:#} {value}");
    }

    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        if !rows.is_empty() {
            self.0.push('\n');
            self.0.push_str(&render(columns, rows));
        }
    }
}

/// The overlay in one page.
pub(super) fn overview(of: &pb::GetOverviewReply) -> String {
    let mut page = Page(String::new());
    let counts = of.counts.unwrap_or_default();
    let totals = of.totals.unwrap_or_default();
    page.line("network", &format!("{} ({})", of.network, of.topology));
    page.line("asked", &format!("{}, {}", short(&of.node_id), of.role));
    page.line(
        "super-nodes",
        &format!(
            "{} serve ({} designated), {} down, {} deputies",
            counts.super_nodes, counts.designated, counts.down, counts.deputies
        ),
    );
    page.line("leaves", &format!("{} homes given", counts.leaf_homes));
    page.line("capacity", &rate(totals.capacity_bps as f64));
    if let (Some(milli), Some(worst)) = (of.utilisation_milli, &of.worst) {
        page.line(
            "utilisation",
            &format!(
                "{} mean, {} at {} ({})",
                per_cent(milli),
                per_cent(worst.utilisation_milli),
                short(&worst.node_id),
                worst.dimension
            ),
        );
    }
    let operations = totals.operations.unwrap_or_default();
    page.line(
        "operations",
        &format!(
            "{}/s, {} in all, {} refused",
            number(totals.operations_per_s),
            operations.total,
            operations.refused
        ),
    );
    page.line(
        "sent",
        &format!(
            "{}, {} in all",
            rate(totals.sent_bps),
            bytes(totals.sent_bytes)
        ),
    );
    let replication = of.replication.unwrap_or_default();
    page.line(
        "records",
        &format!(
            "{} copies, {}; {} of {} copies possible, {} settling",
            totals.records,
            bytes(totals.record_bytes),
            replication.possible,
            replication.wanted,
            replication.settling
        ),
    );
    page.line(
        "shards",
        &format!(
            "{} of {} that have records lack copies of some",
            replication.under_replicated_shards, replication.shards
        ),
    );
    if !of.elections.is_empty() {
        let terms: Vec<String> = of.elections.iter().map(u64::to_string).collect();
        page.line("elections", &format!("under way: {}", terms.join(", ")));
    }
    balance(&mut page, &of.imbalance);
    domains(&mut page, of);
    freshness(&mut page, of.freshness.as_ref());
    page.0
}

fn balance(page: &mut Page, imbalance: &[pb::Imbalance]) {
    let columns = [
        Column::Left("BALANCE"),
        Column::Right("MAX/MEAN"),
        Column::Right("P99/P50"),
        Column::Right("GINI"),
    ];
    let rows: Vec<Vec<String>> = imbalance
        .iter()
        .map(|one| {
            vec![
                one.of.clone(),
                format!("{:.2}", one.max_over_mean),
                one.p99_over_p50
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                format!("{:.2}", one.gini),
            ]
        })
        .collect();
    page.table(&columns, &rows);
}

fn domains(page: &mut Page, of: &pb::GetOverviewReply) {
    let columns = [
        Column::Left("LOSS OF"),
        Column::Right("SUPER-NODES"),
        Column::Right("CAPACITY"),
        Column::Right("REST AT"),
        Column::Left("SURVIVES"),
    ];
    let rows: Vec<Vec<String>> = of
        .domains
        .iter()
        .take(DOMAINS)
        .map(|loss| {
            vec![
                match loss.domain.as_str() {
                    "" => "one of its own".to_owned(),
                    domain => domain.to_owned(),
                },
                loss.super_nodes.to_string(),
                rate(loss.capacity_bps as f64),
                loss.rest_utilisation_milli
                    .map_or_else(|| "-".to_owned(), per_cent),
                if loss.survives { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    page.table(&columns, &rows);
    let more = (of.domain_count as usize).saturating_sub(rows.len());
    if more > 0 {
        let _ = writeln!(page.0, "and {more} more");
    }
}

pub(super) fn freshness(page: &mut Page, of: Option<&pb::Freshness>) {
    let Some(of) = of else { return };
    page.0.push('\n');
    let style = if of.reached == of.of { GOOD } else { BAD };
    let _ = writeln!(
        page.0,
        "{style}{} of {} super-nodes answered{style:#}; the oldest figures are {} ms old",
        of.reached, of.of, of.oldest_ms
    );
    for missing in of.missing.iter().take(MISSING) {
        let line = format!("{}: {}", short(&missing.node_id), missing.reason);
        let _ = writeln!(page.0, "  {}", cut(&line, WIDTH - 2));
    }
}

/// A table of super-nodes.
pub(super) fn super_nodes(of: &pb::ListSuperNodesReply) -> String {
    let columns = [
        Column::Left("ID"),
        Column::Left("STATE"),
        Column::Right("MBIT/S"),
        Column::Right("SHARE"),
        Column::Right("USED"),
        Column::Right("OPS/S"),
        Column::Right("RECORDS"),
        Column::Right("LEAVES"),
        Column::Left("DOMAIN"),
    ];
    let rows: Vec<Vec<String>> = of.super_nodes.iter().map(row).collect();
    if rows.is_empty() {
        return "nobody serves\n".to_owned();
    }
    let mut page = Page(render(&columns, &rows));
    freshness(&mut page, of.freshness.as_ref());
    page.0
}

fn row(of: &pb::SuperNode) -> Vec<String> {
    let figures = of.figures.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let used = figures.and_then(|figures| figures.utilisation);
    vec![
        short(&of.node_id).to_owned(),
        of.state.clone(),
        number(of.capacity_bps as f64 / 1e6),
        per_cent(u64::from(of.share_ppm) / 1000),
        or_dash(used.map(|used| per_cent(used.worst_milli))),
        or_dash(figures.map(|figures| number(figures.operations_per_s))),
        or_dash(figures.map(|figures| figures.records.to_string())),
        or_dash(figures.map(|figures| figures.leaves.to_string())),
        of.domain.clone(),
    ]
}

/// Everything about one.
pub(super) fn super_node(reply: &pb::GetSuperNodeReply) -> String {
    let mut page = Page(String::new());
    let of = reply.super_node.clone().unwrap_or_default();
    page.line("node", &of.node_id);
    page.line("state", &format!("{} ({})", of.state, of.basis));
    page.line("addresses", &of.addrs.join(", "));
    page.line("capacity", &rate(of.capacity_bps as f64));
    let share = per_cent(u64::from(of.share_ppm) / 1000);
    page.line("seats", &format!("{}, {share} of all", of.seats));
    page.line("domain", &of.domain);
    let lasts = Duration::from_millis(of.expires_ms.saturating_sub(of.issued_ms));
    page.line(
        "mandate",
        &format!("term {}, for {}", of.term, duration(lasts)),
    );
    let missing = reply.freshness.as_ref().and_then(|f| f.missing.first());
    let Some(figures) = of.figures else {
        let why = missing.map_or("it does not serve", |missing| missing.reason.as_str());
        page.line("figures", &format!("none: {why}"));
        return page.0;
    };
    page.line("figures", &format!("{} ms old", of.figures_age_ms));
    page.line("version", &figures.version);
    let cordoned = if figures.cordoned { ", cordoned" } else { "" };
    page.line("role", &format!("{}{cordoned}", figures.role));
    page.line("up", &duration(Duration::from_millis(figures.uptime_ms)));
    page.line(
        "homes",
        &format!("{} leaves, {} sessions", figures.leaves, figures.sessions),
    );
    page.line(
        "records",
        &format!(
            "{}, {}, {} items",
            figures.records,
            bytes(figures.record_bytes),
            figures.items
        ),
    );
    let operations = figures.operations.unwrap_or_default();
    page.line(
        "operations",
        &format!(
            "{}/s, {} in all",
            number(figures.operations_per_s),
            operations.total
        ),
    );
    page.line(
        "sent",
        &format!(
            "{}, {} in all",
            rate(figures.sent_bps),
            bytes(figures.sent_bytes)
        ),
    );
    if !figures.control.is_empty() {
        page.line("control", &figures.control);
    }
    if !figures.failure.is_empty() {
        page.line("trouble", &figures.failure);
    }
    if let Some(used) = figures.utilisation {
        let dimensions = [
            ("connections", used.connections_milli),
            ("operations", used.operations_milli),
            ("bytes", used.bytes_milli),
            ("memory", used.memory_milli),
            ("cpu", used.cpu_milli),
        ];
        let rows = dimensions.map(|(name, milli)| vec![name.to_owned(), per_cent(milli)]);
        page.table(&[Column::Left("DIMENSION"), Column::Right("USED")], &rows);
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::super::golden::{partial, pinned};
    use super::*;

    fn figures(milli: u32) -> pb::Figures {
        pb::Figures {
            uptime_ms: 3_723_000,
            version: "canopy/0.1.0".into(),
            role: "super-node".into(),
            utilisation: Some(pb::Utilisation {
                worst_milli: milli,
                connections_milli: 12,
                operations_milli: milli,
                bytes_milli: 170,
                memory_milli: 3,
                cpu_milli: 98,
            }),
            leaves: 41,
            sessions: 58,
            records: 120_431,
            record_bytes: 48_200_000,
            items: 90_000,
            operations: Some(pb::Operations {
                total: 1_204_311,
                refused: 12,
                ..Default::default()
            }),
            operations_per_s: 8_421.4,
            sent_bytes: 9_120_000_000,
            sent_bps: 12_300_000.0,
            settling: false,
            election: 0,
            failure: String::new(),
            control: "127.0.0.1:4481".into(),
            cordoned: false,
        }
    }

    fn node(digit: &str, state: &str, figures: Option<pb::Figures>) -> pb::SuperNode {
        pb::SuperNode {
            node_id: digit.repeat(64),
            state: state.into(),
            basis: "elected".into(),
            addrs: vec!["203.0.113.7:4477".into(), "[2001:db8::7]:4477".into()],
            capacity_bps: 64_000_000,
            seats: 256,
            share_ppm: 83_333,
            domain: "a-zone-with-a-long-name".into(),
            term: 31,
            issued_ms: 1_000_000,
            expires_ms: 605_800_000,
            figures_age_ms: 120,
            figures,
        }
    }

    #[test]
    fn the_table_of_super_nodes() {
        let listed = pb::ListSuperNodesReply {
            super_nodes: vec![
                node("a", "serving", Some(figures(421))),
                node("b", "serving", None),
                node("c", "deputy", None),
            ],
            total: 3,
            freshness: partial(),
            ..Default::default()
        };
        pinned(&super_nodes(&listed), include_str!("golden/members.txt"));
        let nobody = pb::ListSuperNodesReply::default();
        assert_eq!(super_nodes(&nobody), "nobody serves\n");
    }

    #[test]
    fn one_super_node() {
        let reply = pb::GetSuperNodeReply {
            super_node: Some(node("a", "serving", Some(figures(421)))),
            freshness: None,
        };
        pinned(&super_node(&reply), include_str!("golden/member.txt"));
        let unreached = pb::GetSuperNodeReply {
            super_node: Some(node("b", "serving", None)),
            freshness: partial(),
        };
        let text = super_node(&unreached);
        assert!(text.contains("did not answer in time"), "{text}");
    }

    #[test]
    fn the_overview() {
        let even = |of: &str, p99_over_p50| pb::Imbalance {
            of: of.into(),
            max_over_mean: 1.128,
            p99_over_p50,
            gini: 0.061,
            super_nodes: 11,
        };
        let loss = |domain: &str, rest_utilisation_milli, survives| pb::DomainLoss {
            domain: domain.into(),
            super_nodes: 4,
            capacity_bps: 256_000_000,
            rest_utilisation_milli,
            survives,
        };
        let overview = pb::GetOverviewReply {
            network: "canopy".into(),
            topology: "elected".into(),
            node_id: "a".repeat(64),
            role: "super-node".into(),
            at_ms: 0,
            counts: Some(pb::Counts {
                super_nodes: 12,
                designated: 2,
                down: 1,
                deputies: 2,
                leaf_homes: 961,
            }),
            totals: Some(pb::Totals {
                capacity_bps: 768_000_000,
                operations: figures(0).operations,
                operations_per_s: 70_110.0,
                sent_bytes: 9_120_000_000,
                sent_bps: 112_300_000.0,
                records: 1_445_172,
                record_bytes: 578_000_000,
            }),
            utilisation_milli: Some(392),
            worst: Some(pb::WorstSuperNode {
                node_id: "c".repeat(64),
                utilisation_milli: 471,
                dimension: "operations".into(),
            }),
            imbalance: vec![even("operations", Some(1.19)), even("leaves", None)],
            replication: Some(pb::Replication {
                wanted: 3,
                possible: 3,
                settling: 1,
                under_replicated_shards: 3,
                shards: 256,
            }),
            domains: vec![loss("rack-1", Some(588), true), loss("", None, false)],
            domain_count: 12,
            elections: vec![32, 33],
            freshness: partial(),
        };
        pinned(
            &super::overview(&overview),
            include_str!("golden/status.txt"),
        );
    }
}
