//! Everybody's figures: who serves is known, how they fare is asked of them.
//!
//! One survey is under way at a time, and all who want one share it. It ends
//! after [`PATIENCE`], whoever has not answered: whoever failed is left alone for
//! a while, so that a dead peer slows down one answer and no more.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::election::mandate::Basis;
use canopy_core::keyspace::NodeId;
use canopy_core::node::Core;
use canopy_core::roster::Entry;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply, request, response};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::host::Host;

/// Figures younger than this are not asked for again.
const FRESH: Duration = Duration::from_millis(250);
/// A picture younger than this is given to the next one who asks.
const SHARED: Duration = Duration::from_millis(200);
/// Longest wait for one peer.
const DEADLINE: Duration = Duration::from_millis(500);
/// Longest wait for all.
const PATIENCE: Duration = Duration::from_secs(1);
/// Peers asked at once.
const AT_ONCE: usize = 64;
/// Peers asked in one survey; of more, those asked longest ago.
const MOST: usize = 1024;
/// How long one that failed is not asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Who holds a mandate, as this peer knows it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) state: State,
    pub(super) basis: Basis,
    pub(super) capacity_bps: u64,
    pub(super) seats: u32,
    pub(super) domain: Arc<str>,
    pub(super) term: u64,
    pub(super) issued_ms: u64,
    pub(super) expires_ms: u64,
}

/// What a mandate is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Serving,
    Down,
    Deputy,
    Released,
}

impl State {
    pub(super) const ALL: [State; 4] =
        [State::Serving, State::Down, State::Deputy, State::Released];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Down => "down",
            State::Deputy => "deputy",
            State::Released => "released",
        }
    }
}

impl Member {
    fn of(entry: &Entry) -> Self {
        Self {
            node: entry.node(),
            addrs: entry.addrs().to_vec(),
            state: match entry {
                entry if entry.release.is_some() => State::Released,
                entry if entry.deputy => State::Deputy,
                entry if entry.down => State::Down,
                _ => State::Serving,
            },
            basis: entry.basis,
            capacity_bps: entry.capacity_bps,
            seats: entry.seats,
            domain: entry.domain.clone(),
            term: entry.term,
            issued_ms: entry.issued_ms,
            expires_ms: entry.expires_ms,
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.state == State::Serving
    }
}

/// A member, and how it fares by its own word.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) member: Member,
    pub(super) figures: Option<Known>,
    /// Why there are no figures, of one that should have some.
    pub(super) missing: Option<String>,
}

/// Figures, and when they came.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) figures: Arc<wire::Figures>,
    pub(super) at: Instant,
}

/// The overlay at a moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// By node id.
    pub(super) seen: Vec<Seen>,
}

impl Picture {
    pub(super) fn serving(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.member.serves())
    }
}

/// Takes surveys for one control plane.
#[derive(Debug)]
pub(super) struct Survey {
    host: Host,
    state: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    known: HashMap<NodeId, Known>,
    failed: HashMap<NodeId, (String, Instant)>,
    /// The last picture, for all who want one within a moment.
    last: Option<(Instant, Arc<Picture>)>,
}

impl Survey {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            state: Mutex::default(),
        }
    }

    /// All who hold a mandate, with fresh figures of those who serve, as far as
    /// they answer in time. `None`: the peer has ended.
    pub(super) async fn take(&self) -> Option<Arc<Picture>> {
        let mut state = self.state.lock().await;
        if let Some((at, last)) = &state.last
            && at.elapsed() < SHARED
        {
            return Some(last.clone());
        }
        let members = self.members().await?;
        let own = self.host.node_id();
        state.keep(&members);
        let figures = Arc::new(self.host.figures());
        let at = Instant::now();
        state.known.insert(own, Known { figures, at });
        let asked = state.due(&members, own);
        self.ask(&mut state, asked).await;
        let seen = members.into_iter().map(|member| {
            let figures = state.known.get(&member.node).cloned();
            let failed = state.failed.get(&member.node);
            let missing = match (&figures, member.serves()) {
                (None, true) => Some(
                    failed.map_or_else(|| "not asked yet".to_owned(), |(reason, _)| reason.clone()),
                ),
                _ => None,
            };
            Seen {
                member,
                figures,
                missing,
            }
        });
        let picture = Arc::new(Picture {
            seen: seen.collect(),
        });
        state.last = Some((Instant::now(), picture.clone()));
        Some(picture)
    }

    /// All who hold a mandate, without their figures. `None`: the peer has ended.
    pub(super) async fn members(&self) -> Option<Vec<Member>> {
        let all = |core: &Core| core.roster().entries().map(Member::of).collect();
        let members = self.host.peer().look(move |core, _| all(core));
        members.await
    }

    async fn ask(&self, state: &mut Heard, asked: Vec<NodeId>) {
        let ask = inspect::What::Figures(wire::FiguresAsk {});
        let asked = asked.into_iter().map(|node| (node, ask.clone()));
        // Past the deadline those who are left are asked first the next time.
        for (node, answer) in ask_all(&self.host, asked).await {
            let at = Instant::now();
            let answer = match answer {
                Ok(inspect_reply::What::Figures(figures)) => Ok(figures),
                Ok(_) => Err(CallError::Malformed(node)),
                Err(error) => Err(error),
            };
            match answer {
                Ok(figures) => {
                    let figures = Arc::new(figures);
                    state.known.insert(node, Known { figures, at });
                    state.failed.remove(&node);
                }
                Err(error) => {
                    state.known.remove(&node);
                    state.failed.insert(node, (reason(error), at));
                }
            }
        }
    }
}

impl Heard {
    /// Forgets those who hold no mandate any more.
    fn keep(&mut self, members: &[Member]) {
        let serving: BTreeSet<NodeId> = members
            .iter()
            .filter(|member| member.serves())
            .map(|member| member.node)
            .collect();
        self.known.retain(|node, _| serving.contains(node));
        self.failed.retain(|node, _| serving.contains(node));
    }

    /// Whom to ask, those first of whom nothing was heard for longest.
    fn due(&self, members: &[Member], own: NodeId) -> Vec<NodeId> {
        let serving = members.iter().filter(|member| member.serves());
        let others = serving
            .map(|member| member.node)
            .filter(|node| *node != own);
        let mut due: Vec<(Option<Instant>, NodeId)> = others
            .filter(|node| {
                let failed = self.failed.get(node);
                failed.is_none_or(|(_, at)| at.elapsed() >= PAUSE)
            })
            .map(|node| (self.known.get(&node).map(|known| known.at), node))
            .filter(|(at, _)| at.is_none_or(|at| at.elapsed() >= FRESH))
            .collect();
        due.sort_unstable();
        due.truncate(MOST);
        due.into_iter().map(|(_, node)| node).collect()
    }
}

/// Asks others at once, for a second at most; those who are missing in the
/// outcome were not asked in time.
pub(super) async fn ask_all(
    host: &Host,
    asked: impl IntoIterator<Item = (NodeId, inspect::What)>,
) -> Vec<(NodeId, Result<inspect_reply::What, CallError>)> {
    let answers = stream::iter(asked)
        .map(|(node, what)| async move { (node, inspect(host, node, what).await) })
        .buffer_unordered(AT_ONCE);
    tokio::pin!(answers);
    let until = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        out.push(answer);
    }
    out
}

/// Why there was no answer, without saying whose.
pub(super) fn reason(error: CallError) -> String {
    match error {
        CallError::Deadline(_) => "did not answer in time".to_owned(),
        CallError::Unreachable { reason, .. } => format!("cannot be reached: {reason}"),
        CallError::Busy(_) => "too many requests are under way to it".to_owned(),
        CallError::Refused { refusal, .. } => format!("refused: {}", refusal.message),
        CallError::Malformed(_) => "gave an answer of the wrong kind".to_owned(),
    }
}

/// Asks another peer on behalf of the operator.
async fn inspect(
    host: &Host,
    node: NodeId,
    what: inspect::What,
) -> Result<inspect_reply::What, CallError> {
    let ask = request::Kind::Inspect(wire::Inspect { what: Some(what) });
    // Opening a session takes its own time, beside the answer's.
    let answer = timeout(DEADLINE, host.call(node, ask, DEADLINE)).await;
    let answer = answer.map_err(|_| CallError::Deadline(node))??;
    match answer {
        response::Kind::Inspect(reply) => reply.what.ok_or(CallError::Malformed(node)),
        _ => Err(CallError::Malformed(node)),
    }
}
