//! Kills super-nodes without warning, and times what follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use rand::RngExt;
use rand::rngs::StdRng;

use super::fleet::{Fleet, Mate};
use super::settle;
use super::show::{BAD, GOOD, Show};
use super::watch::Watch;
use crate::settings::Topology;

/// A successor or a placement without the dead one is waited for this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// One death and what followed.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) node: NodeId,
    /// Operations of its index until then.
    pub(super) operations: u64,
    pub(super) successor: Option<NodeId>,
    pub(super) successor_after: Option<Duration>,
    pub(super) noticed_after: Option<Duration>,
}

/// Kills one of those who serve, drawn by `random`. Nothing is done where only
/// one serves: nobody could answer.
pub(super) async fn kill_one(
    fleet: &Arc<Fleet>,
    random: &mut StdRng,
    watch: &Watch,
    show: &Show,
) -> Option<Death> {
    let mut serving: Vec<&Mate> = fleet.alive().filter(|mate| mate.serves()).collect();
    if serving.len() < 2 {
        show.line(format!("{BAD}nobody killed{BAD:#}: only one serves"));
        return None;
    }
    serving.sort_by_key(|mate| (mate.rank, mate.index));
    let before: BTreeSet<NodeId> = serving.iter().map(|mate| mate.id()).collect();
    let victim = serving[random.random_range(0..serving.len())];
    let node = victim.id();
    let operations = victim.operations();
    show.line(format!(
        "{BAD}killed{BAD:#} {} without a word, while {} serve",
        fleet.name(&node),
        serving.len()
    ));
    let at = Instant::now();
    victim.kill();

    let dropped = async {
        let done = tokio::time::timeout(PATIENCE, settle::dropped(fleet, &node)).await;
        done.ok().map(|()| at.elapsed())
    };
    let (noticed_after, successor) = tokio::join!(dropped, succeed(fleet, &before, at));
    tell(fleet, &node, at, noticed_after, watch, show);
    if let Some((node, after)) = successor {
        show.line(format!(
            "{GOOD}{} serves in its place{GOOD:#} after {:.2} s, and all know it",
            fleet.name(&node),
            after.as_secs_f64()
        ));
    }
    Some(Death {
        node,
        operations,
        successor: successor.map(|(node, _)| node),
        successor_after: successor.map(|(_, after)| after),
        noticed_after,
    })
}

/// Only elections bring successors: designated hosts, and peers of which every
/// able one serves, are all there are.
async fn succeed(
    fleet: &Fleet,
    before: &BTreeSet<NodeId>,
    at: Instant,
) -> Option<(NodeId, Duration)> {
    if fleet.topology != Topology::Elected {
        return None;
    }
    let found = tokio::time::timeout(PATIENCE, settle::successor(fleet, before)).await;
    found.ok().map(|mate| (mate.id(), at.elapsed()))
}

fn tell(
    fleet: &Fleet,
    dead: &NodeId,
    at: Instant,
    dropped_after: Option<Duration>,
    watch: &Watch,
    show: &Show,
) {
    if let Some((by, when)) = watch.noticed(dead) {
        let after = when.saturating_duration_since(at).as_secs_f64();
        let rest = match dropped_after {
            Some(all) => format!("all have by {:.2} s", all.as_secs_f64()),
            None => "not all have".to_owned(),
        };
        show.line(format!(
            "{} noticed first, after {after:.2} s; {rest}",
            fleet.name(&by)
        ));
    }
}
