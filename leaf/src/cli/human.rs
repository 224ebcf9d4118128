//! Replies as people read them: tables that fit 80 columns, colour on a
//! terminal only (the stream decides).

use std::fmt::Write;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_supernode::cli::human::{bytes, duration, short};
use canopy_supernode::cli::output::{BAD, BOLD, GOOD};
use canopy_supernode::cli::table::{Column, WIDTH, cut, render};

use crate::settings::Bandwidth;

/// A rate, or a dash for none.
fn rate(bps: u64) -> String {
    match bps {
        0 => "-".to_owned(),
        bps => Bandwidth(bps).to_string(),
    }
}

/// Everything about a leaf.
pub(super) fn status(status: &pb::StatusReply) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{BOLD}{name:<12}{BOLD:#} {}", cut(&value, WIDTH - 13));
    };
    line("node", status.node_id.clone());
    line("role", status.role.clone());
    line("listen", status.listen.clone());
    line(
        "network",
        format!("{} ({})", status.network, status.topology),
    );
    line("up", duration(Duration::from_secs(status.uptime_s)));
    line("capacity", rate(status.capacity_bps));
    line("leaves", status.leaves.to_string());
    let stats = status.requests.unwrap_or_default();
    line(
        "requests",
        format!(
            "{} ok, {} failed, {} hedged, {} retried",
            stats.ok, stats.failed, stats.hedged, stats.retried
        ),
    );
    let published = format!("{} kept, {} refreshed", stats.kept, stats.refreshed);
    line("published", published);
    line("super-nodes", status.super_node_count.to_string());
    section(&mut out, &homes(status));
    section(&mut out, &super_nodes(status));
    section(&mut out, &criteria(status));
    out
}

fn section(out: &mut String, table: &str) {
    if !table.is_empty() {
        out.push('\n');
        out.push_str(table);
    }
}

fn homes(status: &pb::StatusReply) -> String {
    let columns = [
        Column::Left("HOME"),
        Column::Left("ADDRESS"),
        Column::Right("ROUND TRIP"),
    ];
    let row = |home: &pb::Home| {
        let trip = match home.round_trip_us {
            0 => "-".to_owned(),
            us => format!("{:.1} ms", us as f64 / 1e3),
        };
        vec![short(&home.node_id).to_owned(), home.addr.clone(), trip]
    };
    render(&columns, &status.homes.iter().map(row).collect::<Vec<_>>())
}

fn super_nodes(status: &pb::StatusReply) -> String {
    /// More would scroll the rest away; `--json` lists up to 200.
    const SHOWN: usize = 20;
    let columns = [
        Column::Left("SUPER-NODE"),
        Column::Right("CAPACITY"),
        Column::Right("SEATS"),
        Column::Left("DOMAIN"),
    ];
    let row = |node: &pb::SuperNode| {
        let id = short(&node.node_id).to_owned();
        vec![
            id,
            rate(node.capacity_bps),
            node.seats.to_string(),
            node.domain.clone(),
        ]
    };
    let rows: Vec<_> = status.super_nodes.iter().take(SHOWN).map(row).collect();
    let mut table = render(&columns, &rows);
    let more = (status.super_node_count as usize).saturating_sub(rows.len());
    if more > 0 && !rows.is_empty() {
        let _ = writeln!(table, "... and {more} more");
    }
    table
}

fn criteria(status: &pb::StatusReply) -> String {
    let columns = [
        Column::Left("CRITERION"),
        Column::Left("VALUE"),
        Column::Left("NEEDED"),
        Column::Left("MET"),
    ];
    let row = |criterion: &pb::Criterion| {
        let met = if criterion.pass { "yes" } else { "no" }.to_owned();
        let (name, value) = (criterion.name.clone(), criterion.value.clone());
        vec![name, value, criterion.threshold.clone(), met]
    };
    let table = render(
        &columns,
        &status.criteria.iter().map(row).collect::<Vec<_>>(),
    );
    let mut out = String::new();
    for line in table.lines() {
        let _ = match line {
            line if line.ends_with(" no") => writeln!(out, "{BAD}{line}{BAD:#}"),
            line if line.ends_with(" yes") => writeln!(out, "{GOOD}{line}{GOOD:#}"),
            line => writeln!(out, "{line}"),
        };
    }
    out
}

/// Where a peer is found, and how old the news is at `now_ms`.
pub(super) fn location(location: &pb::Location, now_ms: u64) -> String {
    let columns = [Column::Left("HOME"), Column::Left("ADDRESS")];
    let row = |home: &pb::Located| {
        let addr = home.addrs.first().map_or("-", String::as_str);
        vec![short(&home.node_id).to_owned(), addr.to_owned()]
    };
    let mut out = render(
        &columns,
        &location.homes.iter().map(row).collect::<Vec<_>>(),
    );
    let age = Duration::from_millis(now_ms.saturating_sub(location.issued_ms));
    let _ = writeln!(out, "\ntold {} ago", duration(age));
    out
}

/// A page of a search.
pub(super) fn page(page: &pb::SearchReply) -> String {
    let columns = [
        Column::Left("NAME"),
        Column::Right("SIZE"),
        Column::Left("TYPE"),
        Column::Left("PUBLISHER"),
    ];
    let row = |hit: &pb::Hit| {
        let item = hit.item.clone().unwrap_or_default();
        vec![
            item.name,
            bytes(item.size),
            item.media_type,
            short(&hit.publisher).to_owned(),
        ]
    };
    render(&columns, &page.hits.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_a_page() {
        let id = "ab".repeat(32);
        let criterion = |name: &str, pass| pb::Criterion {
            name: name.into(),
            value: "12 s".into(),
            threshold: "60 s".into(),
            pass,
        };
        let reply = pb::StatusReply {
            node_id: id.clone(),
            role: "leaf".into(),
            homes: vec![pb::Home {
                node_id: id.clone(),
                addr: "127.0.0.1:4478".into(),
                round_trip_us: 1_250,
            }],
            super_nodes: vec![pb::SuperNode {
                node_id: id.clone(),
                capacity_bps: 20_000_000,
                seats: 64,
                domain: "rack-1".into(),
            }],
            super_node_count: 3,
            criteria: vec![criterion("uptime", false), criterion("dialled back", true)],
            listen: "127.0.0.1:4477".into(),
            network: "canopy".into(),
            topology: "elected".into(),
            uptime_s: 3_700,
            ..pb::StatusReply::default()
        };
        let text = anstream::adapter::strip_str(&status(&reply)).to_string();
        let expected = format!(
            "\
node         {id}
role         leaf
listen       127.0.0.1:4477
network      canopy (elected)
up           1 h 1 min
capacity     -
leaves       0
requests     0 ok, 0 failed, 0 hedged, 0 retried
published    0 kept, 0 refreshed
super-nodes  3

HOME        ADDRESS         ROUND TRIP
ababababab  127.0.0.1:4478      1.2 ms

SUPER-NODE   CAPACITY  SEATS  DOMAIN
ababababab  20 Mbit/s     64  rack-1
... and 2 more

CRITERION     VALUE  NEEDED  MET
uptime        12 s   60 s    no
dialled back  12 s   60 s    yes
"
        );
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn a_page_of_hits_reads_as_a_table() {
        let hit = |name: &str, size| pb::Hit {
            publisher: "cd".repeat(32),
            item: Some(pb::Item {
                name: name.into(),
                size,
                media_type: "text/plain".into(),
                ..pb::Item::default()
            }),
            ..pb::Hit::default()
        };
        let reply = pb::SearchReply {
            hits: vec![hit("docs/panda.txt", 48_211), hit("a", 7)],
            ..pb::SearchReply::default()
        };
        let expected = "\
NAME               SIZE  TYPE        PUBLISHER
docs/panda.txt  48.2 kB  text/plain  cdcdcdcdcd
a                   7 B  text/plain  cdcdcdcdcd
";
        assert_eq!(page(&reply), expected);
    }

    #[test]
    fn a_location_reads_as_a_table() {
        let home = |n: &str, addrs: &[&str]| pb::Located {
            node_id: n.repeat(32),
            addrs: addrs.iter().map(ToString::to_string).collect(),
        };
        let reply = pb::Location {
            homes: vec![
                home("ab", &["127.0.0.1:4478", "[::1]:4478"]),
                home("cd", &[]),
            ],
            issued_ms: 1_000,
            ..pb::Location::default()
        };
        let expected = "\
HOME        ADDRESS
ababababab  127.0.0.1:4478
cdcdcdcdcd  -

told 1 min 5 s ago
";
        assert_eq!(location(&reply, 66_000), expected);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
