//! Events as the API sends them.

use canopy_core::keyspace::NodeId;
use canopy_proto::leaf as pb;
use canopy_proto::leaf::event::Kind;

use crate::event::{Event, EventKind};

pub(super) fn to_proto(event: Event) -> pb::Event {
    pb::Event {
        at_ms: event.at_ms,
        kind: Some(kind(event.kind)),
    }
}

fn texts(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(NodeId::to_string).collect()
}

fn kind(kind: EventKind) -> Kind {
    match kind {
        EventKind::RoleChanged { from, to } => Kind::RoleChanged(pb::RoleChanged {
            from: from.as_str().to_owned(),
            to: to.as_str().to_owned(),
        }),
        EventKind::ElectionOpened {
            term,
            wanted,
            candidates,
            reason,
        } => Kind::ElectionOpened(pb::ElectionOpened {
            term,
            wanted,
            candidates: texts(&candidates),
            reason,
        }),
        EventKind::Measured {
            term,
            candidate,
            level,
            share_bps,
            ballots,
            median_bps,
        } => Kind::Measured(pb::Measured {
            term,
            candidate: candidate.to_string(),
            level,
            share_bps,
            ballots,
            median_bps,
        }),
        EventKind::Raced {
            term,
            candidate,
            score_bps,
        } => Kind::Raced(pb::Raced {
            term,
            candidate: candidate.to_string(),
            score_bps,
        }),
        EventKind::ElectionClosed { term, elected } => Kind::ElectionClosed(pb::ElectionClosed {
            term,
            elected: texts(&elected),
        }),
        EventKind::SuperNodeUp {
            node_id,
            capacity_bps,
            seats,
            term,
        } => Kind::SuperNodeUp(pb::SuperNodeUp {
            node_id: node_id.to_string(),
            capacity_bps,
            seats,
            term,
        }),
        EventKind::SuperNodeDown { node_id, reason } => Kind::SuperNodeDown(pb::SuperNodeDown {
            node_id: node_id.to_string(),
            reason,
        }),
        EventKind::HomeAttached { node_id, slot } => Kind::HomeAttached(pb::HomeAttached {
            node_id: node_id.to_string(),
            slot,
        }),
        EventKind::HomeLost { node_id } => Kind::HomeLost(pb::HomeLost {
            node_id: node_id.to_string(),
        }),
        EventKind::Operated { action, caller } => Kind::Operated(pb::Operated { action, caller }),
        EventKind::Decreed {
            says,
            subject,
            sequence,
        } => Kind::Decreed(pb::Decreed {
            says,
            subject,
            sequence,
        }),
        EventKind::Warning { message } => Kind::Warning(pb::Warning { message }),
        EventKind::Lagged { missed } => Kind::Lagged(pb::Lagged { missed }),
    }
}
