//! From what is known to the messages of the API.

use canopy_core::election::mandate::Basis;
use canopy_core::keyspace::NodeId;
use canopy_proto::control as pb;
use canopy_proto::wire;
use tokio::time::Instant;
use tonic::Status;

use super::poll::{Answers, Known, millis};
use super::survey::{Figures, Member, Picture, Seen};

/// Super-nodes named in a [`pb::Freshness`].
pub(super) const MAX_MISSING: usize = 100;
/// Digits that an abbreviated node id has at least.
const SHORTEST: usize = 8;

pub(super) fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Founded => "founded",
        Basis::Elected => "elected",
        Basis::Recognised => "recognised",
        Basis::Designated => "designated",
    }
}

pub(super) const BASES: [Basis; 4] = [
    Basis::Founded,
    Basis::Elected,
    Basis::Recognised,
    Basis::Designated,
];

/// The dimension that figures are worst in, and how bad.
pub(super) fn worst(of: &wire::Utilisation) -> (u32, &'static str) {
    let dimensions = [
        (of.connections_milli, "connections"),
        (of.operations_milli, "operations"),
        (of.bytes_milli, "bytes"),
        (of.memory_milli, "memory"),
        (of.cpu_milli, "cpu"),
    ];
    // Of equals, the first in this order.
    dimensions
        .into_iter()
        .rev()
        .max_by_key(|(milli, _)| *milli)
        .unwrap_or_default()
}

pub(super) fn operations(of: &wire::Operations) -> pb::Operations {
    pb::Operations {
        total: total(of),
        puts_stored: of.puts_stored,
        puts_refused: of.puts_refused,
        local_puts: of.local_puts,
        gets_found: of.gets_found,
        gets_none: of.gets_none,
        local_reads: of.local_reads,
        searches: of.searches,
        refused: of.refused,
    }
}

pub(super) fn total(of: &wire::Operations) -> u64 {
    let kinds = [
        of.puts_stored,
        of.puts_refused,
        of.local_puts,
        of.gets_found,
        of.gets_none,
        of.local_reads,
        of.searches,
        of.refused,
    ];
    // They come from outside.
    kinds.into_iter().fold(0, u64::saturating_add)
}

pub(super) fn utilisation(of: &wire::Utilisation) -> pb::Utilisation {
    pb::Utilisation {
        worst_milli: worst(of).0,
        connections_milli: of.connections_milli,
        operations_milli: of.operations_milli,
        bytes_milli: of.bytes_milli,
        memory_milli: of.memory_milli,
        cpu_milli: of.cpu_milli,
    }
}

pub(super) fn figures(of: &wire::Figures) -> pb::Figures {
    let held = of.held.unwrap_or_default();
    pb::Figures {
        uptime_ms: of.uptime_us / 1000,
        version: of.agent.clone(),
        role: of.role.clone(),
        utilisation: of.utilisation.as_ref().map(utilisation),
        leaves: of.leaves,
        sessions: of.sessions,
        records: held.records,
        record_bytes: held.bytes,
        items: held.items,
        operations: of.operations.as_ref().map(operations),
        operations_per_s: of.operations_per_s,
        sent_bytes: of.sent_bytes,
        sent_bps: of.sent_bps,
        settling: of.settling,
        election: of.election,
        failure: of.failure.clone(),
        control: of.control.clone(),
        cordoned: of.cordoned,
    }
}

/// `seats`: of all who serve.
pub(super) fn super_node(seen: &Seen, seats: u64) -> pb::SuperNode {
    let member = &seen.member;
    let own = if member.serves() { member.seats } else { 0 };
    let share = u64::from(own) * 1_000_000 / seats.max(1);
    pb::SuperNode {
        node_id: member.node.to_string(),
        state: member.state.as_str().to_owned(),
        basis: basis(member.basis).to_owned(),
        addrs: member.addrs.iter().map(ToString::to_string).collect(),
        capacity_bps: member.capacity_bps,
        seats: own,
        share_ppm: share as u32,
        domain: member.domain.to_string(),
        term: member.term,
        issued_ms: member.issued_ms,
        expires_ms: member.expires_ms,
        figures: seen.figures.as_ref().map(|known| figures(&known.figures)),
        figures_age_ms: seen.figures.as_ref().map_or(0, age_ms),
    }
}

pub(super) fn age_ms(known: &Figures) -> u64 {
    millis(Instant::now().saturating_duration_since(known.at))
}

/// How complete a round of answers is; `age_ms` tells how old one is.
pub(super) fn completeness<T>(
    answers: &Answers<T>,
    age_ms: impl Fn(&Known<T>) -> u64,
) -> pb::Freshness {
    let known = || answers.values().filter_map(|answer| answer.as_ref().ok());
    let mut missing: Vec<pb::Missing> = answers
        .iter()
        .filter_map(|(node, answer)| {
            Some(pb::Missing {
                node_id: node.to_string(),
                reason: answer.as_ref().err()?.clone(),
            })
        })
        .collect();
    missing.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    missing.truncate(MAX_MISSING);
    pb::Freshness {
        reached: known().count() as u32,
        of: answers.len() as u32,
        oldest_ms: known().map(age_ms).max().unwrap_or(0),
        missing,
    }
}

/// How complete a picture is, in what is asked of those who serve.
pub(super) fn freshness(picture: &Picture) -> pb::Freshness {
    let serving = || picture.serving();
    let known = || serving().filter_map(|seen| seen.figures.as_ref());
    let missing = serving().filter_map(|seen| {
        Some(pb::Missing {
            node_id: seen.member.node.to_string(),
            reason: seen.missing.clone()?,
        })
    });
    pb::Freshness {
        reached: known().count() as u32,
        of: serving().count() as u32,
        oldest_ms: known().map(age_ms).max().unwrap_or(0),
        missing: missing.take(MAX_MISSING).collect(),
    }
}

/// Seats of all who serve.
pub(super) fn seats(picture: &Picture) -> u64 {
    picture
        .serving()
        .map(|seen| u64::from(seen.member.seats))
        .sum()
}

/// The member that `text` names: an id, or a beginning of it that nobody else's
/// has.
pub(super) fn find<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    text: &str,
) -> Result<&'a Member, Status> {
    let wanted = text.to_ascii_lowercase();
    let id = wanted.parse::<NodeId>();
    let digits = wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if id.is_err() && !(digits && (SHORTEST..64).contains(&wanted.len())) {
        let why = "is no node id; give its 64 hexadecimal digits, or the first 8 or more";
        return Err(Status::invalid_argument(format!("node_id: {text:?} {why}")));
    }
    let mut found = members.into_iter().filter(|member| match &id {
        Ok(id) => *id == member.node,
        Err(_) => member.node.to_string().starts_with(&wanted),
    });
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (None, _) => Err(Status::not_found(format!(
            "no super-node or deputy {text} is known here; list them with ListSuperNodes"
        ))),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!(
            "node_id: {text} is the beginning of more than one id; give more digits"
        ))),
    }
}
