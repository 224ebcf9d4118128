//! Listens to all peers at once, tells each thing that happened once, and
//! remembers who was measured to what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::fleet::Fleet;
use super::show::{BAD, BOLD, DIM, GOOD, Show};
use crate::event::{Event, EventKind};
use crate::settings::Bandwidth;
use crate::status::Role;

/// Warnings shown; the rest are likely the same.
const MAX_WARNINGS: usize = 5;

/// What was heard so far.
#[derive(Debug, Default)]
struct Heard {
    /// Term, candidate and level: an officer and its stand-in may both tell.
    levels: BTreeSet<(u64, NodeId, u32)>,
    races: BTreeSet<(u64, NodeId)>,
    opened: BTreeSet<(u64, NodeId)>,
    closed: BTreeSet<u64>,
    up: BTreeMap<NodeId, u64>,
    down: BTreeMap<NodeId, (NodeId, Instant)>,
    warnings: usize,
}

/// The listeners; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    heard: Arc<Mutex<Heard>>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Tells what happened since the peers started, and goes on.
    pub(super) fn over(fleet: &Arc<Fleet>, show: &Arc<Show>) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut tasks = JoinSet::new();
        for index in 0..fleet.mates.len() {
            let (fleet, show, heard) = (fleet.clone(), show.clone(), heard.clone());
            tasks.spawn(async move {
                let mate = &fleet.mates[index];
                let Some(mut events) = mate.events.lock().take() else {
                    return;
                };
                while let Some(event) = events.next().await {
                    if !mate.alive() {
                        return;
                    }
                    let line = heard.lock().take(&fleet, mate.id(), event);
                    if let Some(line) = line {
                        let at = fleet.begun.elapsed().as_secs_f64();
                        show.line(format!("{DIM}{at:7.2} s{DIM:#}  {line}"));
                    }
                }
            });
        }
        Self {
            heard,
            _tasks: tasks,
        }
    }

    /// Whether an election that was opened has not closed yet.
    pub(super) fn electing(&self) -> bool {
        let heard = self.heard.lock();
        let last = heard.opened.last().map(|(term, _)| *term);
        last.is_some_and(|term| !heard.closed.contains(&term))
    }

    /// Who first said that `dead` serves no more, and when.
    pub(super) fn noticed(&self, dead: &NodeId) -> Option<(NodeId, Instant)> {
        self.heard.lock().down.get(dead).copied()
    }
}

impl Heard {
    /// The line that tells of it, if it is new.
    fn take(&mut self, fleet: &Fleet, by: NodeId, event: Event) -> Option<String> {
        let name = |id: &NodeId| fleet.name(id);
        match event.kind {
            EventKind::ElectionOpened {
                term,
                wanted,
                candidates,
                reason,
            } => self.opened.insert((term, by)).then(|| {
                let officer = name(&by);
                let plan = match wanted {
                    0 => "a deputy will do".to_owned(),
                    wanted => format!("{wanted} to find, {} measured first", candidates.len()),
                };
                format!("{BOLD}election {term}{BOLD:#} opened by {officer}: {reason}; {plan}")
            }),
            EventKind::Measured {
                term,
                candidate,
                level,
                share_bps,
                ballots,
                median_bps,
            } => self.levels.insert((term, candidate, level)).then(|| {
                format!(
                    "measured {:<22} level {level:>2}: {ballots:>2} jurors at {:>11}, median {:>11}  {DIM}officer {}{DIM:#}",
                    name(&candidate),
                    Bandwidth(share_bps).to_string(),
                    Bandwidth(median_bps).to_string(),
                    name(&by),
                )
            }),
            EventKind::Raced {
                term,
                candidate,
                score_bps,
            } => self.races.insert((term, candidate)).then(|| match score_bps {
                0 => format!("{:<31} {BAD}too slow{BAD:#}", name(&candidate)),
                score => format!(
                    "{:<31} {GOOD}proved {}{GOOD:#}",
                    name(&candidate),
                    Bandwidth(score)
                ),
            }),
            EventKind::ElectionClosed { term, elected } => self.closed.insert(term).then(|| {
                let elected: Vec<String> = elected.iter().map(name).collect();
                let who = match elected.is_empty() {
                    true => "nobody".to_owned(),
                    false => elected.join(", "),
                };
                format!("{BOLD}election {term}{BOLD:#} closed: {who}")
            }),
            EventKind::SuperNodeUp { node_id, term, .. } => {
                let news = self.up.insert(node_id, term) != Some(term);
                // It may fall again.
                self.down.remove(&node_id);
                news.then(|| format!("{GOOD}super-node{GOOD:#} {} serves", name(&node_id)))
            }
            EventKind::SuperNodeDown { node_id, reason } => {
                let news = !self.down.contains_key(&node_id);
                self.down.entry(node_id).or_insert((by, Instant::now()));
                self.up.remove(&node_id);
                news.then(|| {
                    format!(
                        "{BAD}super-node{BAD:#} {} is out: {reason}  {DIM}says {}{DIM:#}",
                        name(&node_id),
                        name(&by)
                    )
                })
            }
            EventKind::RoleChanged { from, to } => match to {
                Role::Deputy => Some(format!("{} is held in reserve", name(&by))),
                Role::SuperNode if from == Role::Deputy => {
                    Some(format!("deputy {} takes up the role", name(&by)))
                }
                Role::Retiring => Some(format!("{} retires", name(&by))),
                _ => None,
            },
            EventKind::Operated { action, caller } => Some(format!(
                "{BOLD}{action}{BOLD:#} of {} by {caller}",
                name(&by)
            )),
            EventKind::Warning { message } => {
                self.warnings += 1;
                (self.warnings <= MAX_WARNINGS)
                    .then(|| format!("{BAD}warning{BAD:#} {}: {message}", name(&by)))
            }
            EventKind::Decreed { .. }
            | EventKind::HomeAttached { .. }
            | EventKind::HomeLost { .. }
            | EventKind::Lagged { .. } => None,
        }
    }
}
