//! Elections and keys as people read them.

use std::time::Duration;

use canopy_proto::control as pb;

use super::super::human::{duration, short};
use super::super::table::Column;
use super::show::{Page, freshness, rate};

/// Contenders shown of one election.
const CONTENDERS: usize = 32;

fn yes_no(of: bool) -> String {
    if of { "yes" } else { "no" }.to_owned()
}

fn bps(of: u64) -> String {
    rate(of as f64)
}

/// When something was, before now by this machine's clock.
fn ago(at_ms: u64) -> String {
    let passed = crate::event::unix_ms().saturating_sub(at_ms);
    format!("{} ago", duration(Duration::from_millis(passed)))
}

/// A row for each election.
pub(super) fn elections(of: &pb::ListElectionsReply) -> String {
    let columns = [
        Column::Right("TERM"),
        Column::Left("OPENED"),
        Column::Left("OFFICER"),
        Column::Right("PLACES"),
        Column::Right("RACED"),
        Column::Right("ELECTED"),
        Column::Left("REASON"),
    ];
    let rows: Vec<Vec<String>> = of
        .elections
        .iter()
        .map(|one| {
            let count = |what: fn(&pb::Contender) -> bool| {
                let all = one.contenders.iter();
                all.filter(|contender| what(contender)).count().to_string()
            };
            let mut reason = one.reason.clone();
            if one.running {
                reason.insert_str(0, "under way: ");
            }
            vec![
                one.term.to_string(),
                ago(one.opened_ms),
                short(&one.officer).to_owned(),
                one.places.to_string(),
                count(|contender| contender.race.is_some()),
                count(|contender| contender.elected),
                reason,
            ]
        })
        .collect();
    let mut page = Page::default();
    if rows.is_empty() {
        page.0
            .push_str("nobody who was reached remembers an election\n");
    }
    page.table(&columns, &rows);
    freshness(&mut page, of.freshness.as_ref());
    page.0.trim_start().to_owned()
}

/// All that is known of a term.
pub(super) fn explained(of: &pb::ExplainElectionReply, ballots: bool) -> String {
    let mut page = Page::default();
    for one in &of.elections {
        election(&mut page, one);
    }
    if of.elections.is_empty() {
        page.line("term", &of.term.to_string());
        page.line("officer", "nobody who was reached remembers the election");
    }
    for mandate in &of.mandates {
        page.0.push('\n');
        explained_mandate(&mut page, mandate, ballots);
    }
    page.0
}

fn election(page: &mut Page, of: &pb::Election) {
    page.line("term", &of.term.to_string());
    let office = if of.founding { "chair" } else { "officer" };
    page.line(office, &of.officer);
    let opened = format!(
        "{}, for {} places: {}",
        ago(of.opened_ms),
        of.places,
        of.reason
    );
    page.line("opened", &opened);
    let closed = match (of.running, of.closed_ms) {
        (true, _) => "it is under way".to_owned(),
        (false, 0) => "it was broken off".to_owned(),
        (false, at) => {
            let took = Duration::from_millis(at.saturating_sub(of.opened_ms));
            format!("after {}", duration(took))
        }
    };
    page.line("closed", &closed);
    let columns = [
        Column::Left("CANDIDATE"),
        Column::Right("CLAIM"),
        Column::Right("SCORE"),
        Column::Left("ELECTED"),
        Column::Left("WHY"),
    ];
    let rows: Vec<Vec<String>> = of
        .contenders
        .iter()
        .take(CONTENDERS)
        .map(|one| {
            let race = one.race.as_ref();
            let or_dash = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), bps);
            vec![
                short(&one.node_id).to_owned(),
                or_dash(race.map(|race| race.claim_bps)),
                or_dash(race.map(|race| race.score_bps)),
                yes_no(one.elected),
                one.why.clone(),
            ]
        })
        .collect();
    page.table(&columns, &rows);
    for one in of.contenders.iter().take(CONTENDERS) {
        if let Some(race) = one.race.as_ref().filter(|race| !race.levels.is_empty()) {
            levels(page, &one.node_id, race);
        }
    }
}

fn levels(page: &mut Page, node_id: &str, race: &pb::Race) {
    let columns = [
        Column::Left("RACE OF"),
        Column::Right("LEVEL"),
        Column::Right("SHARE"),
        Column::Right("JURY"),
        Column::Right("BALLOTS"),
        Column::Right("SAT OUT"),
        Column::Right("MEDIAN"),
        Column::Left("CARRIED"),
    ];
    let rows: Vec<Vec<String>> = race
        .levels
        .iter()
        .flat_map(|level| level.findings.iter().map(move |found| (level, found)))
        .map(|(level, found)| {
            let decisive = (level.level, found.jury) == (race.decisive_level, race.decisive_jury);
            let mark = if decisive { " (counts)" } else { "" };
            vec![
                short(node_id).to_owned(),
                level.level.to_string(),
                bps(level.share_bps),
                found.jury.to_string(),
                found.ballots.to_string(),
                found.sat_out.to_string(),
                bps(found.median_bps),
                format!("{}{mark}", yes_no(found.carried)),
            ]
        })
        .collect();
    page.table(&columns, &rows);
}

fn explained_mandate(page: &mut Page, of: &pb::Mandate, ballots: bool) {
    page.line("mandate of", &of.node_id);
    let reserve = if of.deputy { ", in reserve" } else { "" };
    page.line("basis", &format!("{}, term {}{reserve}", of.basis, of.term));
    page.line("issued", &ago(of.issued_ms));
    page.line("officer", &of.officer);
    page.line(
        "capacity",
        &format!("{}, {} seats", bps(of.capacity_bps), of.seats),
    );
    if !of.ballots.is_empty() {
        let sum = format!("0.7 x {} x {}", of.ballots.len(), bps(of.median_bps));
        page.line("score", &format!("{sum} (ballots x median)"));
    }
    let signers: Vec<&str> = of.signers.iter().map(|signer| short(signer)).collect();
    page.line("signed by", &signers.join(", "));
    if of.criteria.is_empty() {
        page.line("criteria", "it does not tell how it met them");
    }
    let columns = [
        Column::Left("CRITERION"),
        Column::Left("VALUE"),
        Column::Left("WANTED"),
        Column::Left("PASS"),
    ];
    let row = |one: &pb::Criterion| {
        vec![
            one.name.clone(),
            one.value.clone(),
            one.threshold.clone(),
            yes_no(one.pass),
        ]
    };
    page.table(&columns, &of.criteria.iter().map(row).collect::<Vec<_>>());
    if !ballots {
        return;
    }
    let columns = [
        Column::Left("VOTER"),
        Column::Left("NETWORK"),
        Column::Right("SHARE"),
        Column::Right("UP"),
        Column::Right("DOWN"),
        Column::Right("RTT"),
        Column::Right("LOST"),
    ];
    let row = |one: &pb::Ballot| {
        vec![
            short(&one.voter).to_owned(),
            one.voter_prefix.clone(),
            bps(one.share_bps),
            bps(one.up_bps),
            bps(one.down_bps),
            format!("{:.1} ms", f64::from(one.round_trip_us) / 1e3),
            format!("{:.2} %", f64::from(one.loss_ppm) / 1e4),
        ]
    };
    page.table(&columns, &of.ballots.iter().map(row).collect::<Vec<_>>());
}

/// Who owns a key.
pub(super) fn located(of: &pb::LocateReply) -> String {
    let mut page = Page::default();
    page.line("key", &of.key);
    for (at, step) in of.path.iter().enumerate() {
        page.line(if at == 0 { "path" } else { "" }, step);
    }
    let columns = [
        Column::Left("SUPER-NODE"),
        Column::Left("OWNER"),
        Column::Left("SEAT"),
        Column::Left("DISTANCE"),
        Column::Right("RTT"),
        Column::Left("WHY"),
    ];
    let row = |one: &pb::Holder| {
        vec![
            short(&one.node_id).to_owned(),
            yes_no(one.owner),
            short(&one.seat).to_owned(),
            short(&one.distance).to_owned(),
            match one.round_trip_us {
                0 => "-".to_owned(),
                us => format!("{:.1} ms", us as f64 / 1e3),
            },
            one.why.clone(),
        ]
    };
    page.table(&columns, &of.holders.iter().map(row).collect::<Vec<_>>());
    page.0
}

/// What a cordon, or its end, changed.
pub(super) fn cordoned(of: &pb::CordonReply, on: bool, dry_run: bool) -> String {
    let what = if on { "cordoned" } else { "uncordoned" };
    let change = match (of.changed, dry_run) {
        (true, true) => format!("would be {what}"),
        (true, false) => format!("is {what}"),
        (false, _) => format!("was {what} already"),
    };
    let mut line = format!("{} {change}\n", short(&of.node_id));
    if !of.note.is_empty() {
        line.push_str(&format!("{}\n", of.note));
    }
    line
}

/// Who laid the role down.
pub(super) fn stepped_down(of: &pb::StepDownReply, dry_run: bool) -> String {
    let change = match (of.changed, dry_run) {
        (true, true) => "would step down",
        (true, false) => "steps down, and hands over what it holds",
        (false, _) => "has no role to lay down",
    };
    format!("{} {change}\n{}\n", short(&of.node_id), of.note)
}

/// The election that was called.
pub(super) fn called(of: &pb::CallElectionReply, dry_run: bool) -> String {
    let change = match (of.opened, dry_run) {
        (_, true) => "would be opened",
        (true, false) => "is under way; `supernode elections` tells what becomes of it",
        (false, false) => "is over, or was not opened: `supernode events` tells why",
    };
    format!(
        "the election of term {} {change}\n{} stand, {} deputies are called first\n",
        of.term, of.candidates, of.deputies
    )
}

/// How far a drain is, on a line.
pub(super) fn draining(of: &pb::DrainProgress) -> String {
    let id = short(&of.node_id);
    let mut line = match of.phase.as_str() {
        "planned" => format!(
            "{id} would send {} leaves elsewhere and hand {} records over to {} others\n",
            of.leaves, of.records, of.others
        ),
        "done" => format!("{id} is drained\n"),
        _ => format!(
            "{id} drains: {} leaves left, {} of {} records confirmed, {} copies sent\n",
            of.leaves, of.confirmed, of.records, of.sent
        ),
    };
    if !of.note.is_empty() {
        line.push_str(&format!("{}\n", of.note));
    }
    line
}

/// An event on a line: its revision, the time of day (UTC), and what it is.
pub(super) fn event(of: &pb::Event, as_json: bool) -> String {
    if as_json {
        let inner = of.json.strip_prefix('{').unwrap_or("}");
        return format!("{{\"revision\":{},{inner}\n", of.revision);
    }
    let seconds = of.at_ms / 1000 % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let time = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    format!("{:>6}  {time}  {}\n", of.revision, of.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_or_one_object() {
        let of = pb::Event {
            revision: 7,
            at_ms: 1_763_762_405_123,
            name: "warning".into(),
            text: "warning: look".into(),
            json: r#"{"at_ms":1763762405123,"event":"warning","message":"look"}"#.into(),
        };
        assert_eq!(event(&of, false), "     7  22:00:05  warning: look\n");
        let json: serde_json::Value = serde_json::from_str(&event(&of, true)).unwrap();
        assert_eq!(
            (&json["revision"], &json["message"]),
            (&7.into(), &"look".into())
        );
    }
}
