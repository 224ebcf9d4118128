//! Shards and hot keys as people read them.

use canopy_proto::control as pb;

use super::super::human::{bytes, short};
use super::super::table::Column;
use super::show::{Page, freshness, number, per_cent};

/// Owners of a shard that are shown.
const OWNERS: usize = 24;

/// A row for each shard.
pub(super) fn shards(of: &pb::ListShardsReply) -> String {
    let columns = [
        Column::Left("SHARD"),
        Column::Right("OWNERS"),
        Column::Right("RECORDS"),
        Column::Right("COPIES"),
        Column::Right("SIZE"),
        Column::Right("OPS/S"),
        Column::Right("OPERATIONS"),
        Column::Left("STATE"),
    ];
    let row = |shard: &pb::Shard| {
        vec![
            format!("{:02x}", shard.shard),
            shard.owners.to_string(),
            shard.records.to_string(),
            shard.copies.to_string(),
            bytes(shard.bytes),
            number(shard.operations_per_s),
            shard.operations.to_string(),
            state(shard).to_owned(),
        ]
    };
    let mut page = Page::default();
    if of.shards.is_empty() {
        page.0.push_str("no shard lacks copies\n");
    }
    page.table(&columns, &of.shards.iter().map(row).collect::<Vec<_>>());
    freshness(&mut page, of.freshness.as_ref());
    page.0.trim_start().to_owned()
}

fn state(of: &pb::Shard) -> &'static str {
    match of {
        of if of.under_replicated => "lacks copies",
        of if of.reached < of.owners => "unknown",
        of if of.copies == 0 => "empty",
        _ => "ok",
    }
}

/// A shard, and what each owner has of it.
pub(super) fn shard(reply: &pb::GetShardReply) -> String {
    let mut page = Page::default();
    let of = reply.shard.clone().unwrap_or_default();
    page.line(
        "shard",
        &format!("{:02x}, a 256th of the keyspace", of.shard),
    );
    page.line("first key", &of.first);
    page.line("last key", &of.last);
    let held = format!(
        "{} in {} copies, {}",
        of.records,
        of.copies,
        bytes(of.bytes)
    );
    page.line("records", &held);
    let done = format!(
        "{}/s, {} in all",
        number(of.operations_per_s),
        of.operations
    );
    page.line("operations", &done);
    page.line("state", state(&of));
    if !of.why.is_empty() {
        page.line("why", &of.why);
    }
    let columns = [
        Column::Left("OWNER"),
        Column::Right("SHARE"),
        Column::Right("RECORDS"),
        Column::Right("COPIES"),
        Column::Right("SIZE"),
        Column::Right("OPS/S"),
        Column::Right("UNCONFIRMED"),
        Column::Left("DOMAIN"),
    ];
    let row = |owner: &pb::ShardOwner| {
        let or_dash = |text: String| if owner.reached { text } else { "-".to_owned() };
        vec![
            short(&owner.node_id).to_owned(),
            per_cent(owner.share_milli),
            or_dash(owner.records.to_string()),
            or_dash(owner.copies.to_string()),
            or_dash(bytes(owner.bytes)),
            or_dash(number(owner.operations_per_s)),
            or_dash(owner.unconfirmed.to_string()),
            owner.domain.clone(),
        ]
    };
    let shown = reply.owners.iter().take(OWNERS);
    page.table(&columns, &shown.map(row).collect::<Vec<_>>());
    let more = reply.owners.len().saturating_sub(OWNERS);
    if more > 0 {
        page.0.push_str(&format!("and {more} more\n"));
    }
    freshness(&mut page, reply.freshness.as_ref());
    page.0
}

/// What is hot, kind by kind.
pub(super) fn hot(of: &pb::TopKeysReply) -> String {
    let columns = [
        Column::Left("KIND"),
        Column::Right("COUNT"),
        Column::Right("UP TO"),
        Column::Right("PER S"),
        Column::Right("SEEN BY"),
        Column::Left("ID"),
        Column::Left("WHAT"),
    ];
    let row = |key: &pb::HotKey| {
        let id = match key.kind.as_str() {
            "term" | "topic" => key.id.as_str(),
            _ => short(&key.id),
        };
        vec![
            key.kind.clone(),
            number(key.count),
            number(key.at_most),
            number(key.per_s),
            key.super_nodes.to_string(),
            id.to_owned(),
            key.what.clone(),
        ]
    };
    let mut page = Page::default();
    if of.keys.is_empty() {
        page.0.push_str("nothing is hot\n");
    }
    page.table(&columns, &of.keys.iter().map(row).collect::<Vec<_>>());
    let columns = [
        Column::Left("ALL OF A KIND"),
        Column::Right("COUNT"),
        Column::Right("PER S"),
        Column::Right("OTHERS UP TO"),
    ];
    let row = |total: &pb::HotTotal| {
        vec![
            total.kind.clone(),
            number(total.count),
            number(total.per_s),
            number(total.unlisted_at_most),
        ]
    };
    page.table(&columns, &of.totals.iter().map(row).collect::<Vec<_>>());
    let seconds = f64::from(of.half_life_ms) / 1e3;
    page.0
        .push_str(&format!("\ncounts halve every {seconds} s"));
    freshness(&mut page, of.freshness.as_ref());
    page.0.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::golden::{partial, pinned};
    use super::*;

    fn one(shard: u32, copies: u64, lacks: bool) -> pb::Shard {
        pb::Shard {
            shard,
            first: format!("{shard:02x}{}", "0".repeat(62)),
            last: format!("{shard:02x}{}", "f".repeat(62)),
            owners: 12,
            reached: 12,
            records: copies / 3,
            copies,
            bytes: copies * 400,
            operations: copies * 1_000,
            operations_per_s: copies as f64 / 4.0,
            under_replicated: lacks,
            why: if lacks {
                "7 records have an owner that has not confirmed its copy"
            } else {
                ""
            }
            .into(),
            unconfirmed: if lacks { 7 } else { 0 },
        }
    }

    #[test]
    fn the_table_of_shards() {
        let mut unknown = one(255, 3, false);
        unknown.reached = 11;
        let listed = pb::ListShardsReply {
            shards: vec![
                one(0, 141_330, false),
                one(63, 12_000, true),
                one(64, 0, false),
                unknown,
            ],
            total: 256,
            freshness: partial(),
            ..Default::default()
        };
        pinned(&shards(&listed), include_str!("golden/shards.txt"));
    }

    #[test]
    fn one_shard_with_its_owners() {
        let owner = |digit: &str, reached| pb::ShardOwner {
            node_id: digit.repeat(64),
            domain: format!("rack-{digit}"),
            share_milli: 328,
            reached,
            records: 2_000,
            copies: 6_000,
            bytes: 2_400_000,
            operations: 6_000_000,
            operations_per_s: 1_500.0,
            unconfirmed: 7,
            settling: false,
            age_ms: 900,
        };
        let reply = pb::GetShardReply {
            shard: Some(one(63, 12_000, true)),
            owners: vec![owner("a", true), owner("b", false)],
            freshness: partial(),
        };
        pinned(&shard(&reply), include_str!("golden/shard.txt"));
    }

    #[test]
    fn what_is_hot() {
        let key = |kind: &str, id: &str, what: &str, count: f64| pb::HotKey {
            kind: kind.into(),
            id: id.into(),
            what: what.into(),
            count,
            at_most: count + 3.0,
            per_s: count * 0.0462,
            super_nodes: 3,
        };
        let total = |kind: &str, count| pb::HotTotal {
            kind: kind.into(),
            count,
            per_s: count * 0.0462,
            unlisted_at_most: 3.0,
        };
        let name = "value a-very-long-name-of-a-value-that-is-read-often by 4f3e2a1b0c";
        let reply = pb::TopKeysReply {
            keys: vec![
                key("key", &"3f".repeat(32), name, 48_120.0),
                key("key", &"a1".repeat(32), "", 210.5),
                key("term", "panda", "", 812.0),
                key("publisher", &"4f".repeat(32), "", 3.2),
                key("topic", "weather", "", 61.0),
                key("flow", &"4fa1".repeat(32), "4fa14fa14f to a14fa14fa1", 7e6),
            ],
            totals: vec![
                total("key", 61_002.0),
                total("term", 900.0),
                total("publisher", 3.2),
                total("topic", 61.0),
                total("flow", 7e6),
            ],
            half_life_ms: 15_000,
            freshness: partial(),
        };
        pinned(&hot(&reply), include_str!("golden/hot.txt"));
    }
}
