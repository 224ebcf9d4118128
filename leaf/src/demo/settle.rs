//! Waiting for the overlay: the first answer, agreement on who serves, and a
//! successor.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use canopy_core::placement::{Placement, R};

use super::fleet::{DESIGNATED, Fleet, Mate};
use super::watch::Watch;
use crate::settings::Topology;
use crate::status::Role;

/// How often the peers are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Nothing may change for this long before the overlay counts as settled.
const QUIET: Duration = Duration::from_millis(1_000);

/// Waits until a super-node has answered a leaf. False: not within `limit`.
pub(super) async fn first_answer(fleet: &Fleet, limit: Duration) -> bool {
    let wait = async {
        let mate = until(|| fleet.alive().find(|mate| !mate.placement().is_empty())).await;
        while mate.leaf.get("first").await.is_err() {}
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// Waits until all peers agree on who serves, those serve, and nothing has
/// changed for a while; with elections, until there are enough of them and one
/// in reserve. Returns what they agree on; after `limit` without agreement, what
/// the first living peer knows.
pub(super) async fn agreed(fleet: &Fleet, watch: &Watch, limit: Duration) -> Placement {
    let mut seen: Option<(Vec<(NodeId, u32)>, Instant)> = None;
    let quiet = match fleet.topology {
        Topology::Pure => QUIET * 4,
        Topology::Elected | Topology::Hybrid => QUIET,
    };
    let settled = until(|| {
        let now = members(fleet.alive().next()?);
        let same = fleet.alive().all(|mate| members(mate) == now);
        // In a pure overlay election follows election until all had their turn.
        let busy = fleet.topology == Topology::Pure && watch.electing();
        if !same || busy || !enough(fleet, &now) {
            seen = None;
            return None;
        }
        match &seen {
            Some((before, since)) if *before == now => (since.elapsed() >= quiet).then_some(()),
            _ => {
                seen = Some((now, Instant::now()));
                None
            }
        }
    });
    if tokio::time::timeout(limit, settled).await.is_err() {
        tracing::warn!("the peers did not agree on who serves in {limit:?}");
    }
    let first = fleet.alive().next().map(Mate::placement);
    first.unwrap_or_default()
}

fn members(mate: &Mate) -> Vec<(NodeId, u32)> {
    let placement = mate.placement();
    let members = placement.members();
    members.map(|member| (member.node, member.seats)).collect()
}

fn enough(fleet: &Fleet, members: &[(NodeId, u32)]) -> bool {
    let serve = |(id, _): &(NodeId, u32)| fleet.by_id(id).is_some_and(Mate::serves);
    if members.is_empty() || !members.iter().all(serve) {
        return false;
    }
    match fleet.topology {
        Topology::Elected => {
            let candidate = |mate: &Mate| matches!(mate.role(), Role::Candidate | Role::Leaf);
            let reserve = fleet.alive().any(|mate| mate.role() == Role::Deputy);
            members.len() >= R && (reserve || !fleet.alive().any(candidate))
        }
        Topology::Hybrid => members.len() == DESIGNATED,
        Topology::Pure => true,
    }
}

/// Waits until a peer serves that is none of `before`, and every other living
/// peer places keys on it.
pub(super) async fn successor<'a>(fleet: &'a Fleet, before: &BTreeSet<NodeId>) -> &'a Mate {
    until(|| {
        let mut new = fleet
            .alive()
            .filter(|mate| !before.contains(&mate.id()) && mate.serves());
        new.find(|mate| everybody_places(fleet, &mate.id(), true))
    })
    .await
}

/// Waits until no living peer places keys on `dead`.
pub(super) async fn dropped(fleet: &Fleet, dead: &NodeId) {
    until(|| everybody_places(fleet, dead, false).then_some(())).await;
}

fn everybody_places(fleet: &Fleet, node: &NodeId, wanted: bool) -> bool {
    fleet
        .alive()
        .all(|mate| mate.placement().get(node).is_some() == wanted)
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        if let Some(found) = look() {
            return found;
        }
    }
}
