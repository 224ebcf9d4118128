//! One question to all who serve, asked for everybody who wants the answers.
//!
//! One round is under way at a time and takes a second at most. Who failed is left
//! alone for a while, so that a dead peer slows down one answer and no more;
//! answers that are young enough are not asked for again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply, request, response};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::survey::Member;
use crate::host::Host;

/// Longest wait for one peer.
const DEADLINE: Duration = Duration::from_millis(500);
/// Longest wait for all.
const PATIENCE: Duration = Duration::from_secs(1);
/// Peers asked at once.
const AT_ONCE: usize = 64;
/// Peers asked in one round; of more, those asked longest ago.
const MOST: usize = 1024;
/// How long one that failed is not asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// An answer, and when it came.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) told: Arc<T>,
    pub(super) at: Instant,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            told: self.told.clone(),
            at: self.at,
        }
    }
}

impl<T> Known<T> {
    /// How old the answer is.
    pub(super) fn age_ms(&self) -> u64 {
        millis(Instant::now().saturating_duration_since(self.at))
    }
}

pub(super) fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// What each of those who serve said, or why it said nothing.
pub(super) type Answers<T> = HashMap<NodeId, Result<Known<T>, String>>;

/// Reads an answer; an error says why it is none, without saying whose.
type Read<T> = fn(inspect_reply::What) -> Result<T, String>;

/// Asks one question.
#[derive(Debug)]
pub(super) struct Poll<T> {
    host: Host,
    ask: inspect::What,
    read: Read<T>,
    /// Answers younger than this are not asked for again.
    fresh: Duration,
    heard: Mutex<Heard<T>>,
}

#[derive(Debug)]
struct Heard<T> {
    known: HashMap<NodeId, Known<T>>,
    failed: HashMap<NodeId, (String, Instant)>,
}

impl<T> Poll<T> {
    pub(super) fn new(host: Host, ask: inspect::What, read: Read<T>, fresh: Duration) -> Self {
        let heard = Heard {
            known: HashMap::new(),
            failed: HashMap::new(),
        };
        Self {
            host,
            ask,
            read,
            fresh,
            heard: Mutex::new(heard),
        }
    }

    /// What those of `members` say who serve.
    pub(super) async fn take(&self, members: impl Iterator<Item = &Member>) -> Answers<T> {
        let mut heard = self.heard.lock().await;
        let serving: BTreeSet<NodeId> = members
            .filter(|member| member.serves())
            .map(|member| member.node)
            .collect();
        heard.known.retain(|node, _| serving.contains(node));
        heard.failed.retain(|node, _| serving.contains(node));
        let due = heard.due(&serving, self.fresh);
        let asked = due.into_iter().map(|node| (node, self.ask.clone()));
        // Past the deadline those who are left are asked first the next time.
        for (node, answer) in ask_all(&self.host, asked).await {
            let told = answer.map_err(reason).and_then(self.read);
            heard.hear(node, told);
        }
        let answer = |node: NodeId| match (heard.known.get(&node), heard.failed.get(&node)) {
            (Some(known), _) => Ok(known.clone()),
            (None, Some((reason, _))) => Err(reason.clone()),
            (None, None) => Err("not asked yet".to_owned()),
        };
        serving.iter().map(|node| (*node, answer(*node))).collect()
    }
}

impl<T> Heard<T> {
    /// Whom to ask, those first of whom nothing was heard for longest.
    fn due(&self, serving: &BTreeSet<NodeId>, fresh: Duration) -> Vec<NodeId> {
        let mut due: Vec<(Option<Instant>, NodeId)> = serving
            .iter()
            .filter(|node| {
                let failed = self.failed.get(node);
                failed.is_none_or(|(_, at)| at.elapsed() >= PAUSE)
            })
            .map(|node| (self.known.get(node).map(|known| known.at), *node))
            .filter(|(at, _)| at.is_none_or(|at| at.elapsed() >= fresh))
            .collect();
        due.sort_unstable();
        due.truncate(MOST);
        due.into_iter().map(|(_, node)| node).collect()
    }

    fn hear(&mut self, node: NodeId, told: Result<T, String>) {
        let at = Instant::now();
        match told {
            Ok(told) => {
                let told = Arc::new(told);
                self.known.insert(node, Known { told, at });
                self.failed.remove(&node);
            }
            Err(reason) => {
                self.known.remove(&node);
                self.failed.insert(node, (reason, at));
            }
        }
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
        CallError::Malformed(_) => WRONG_KIND.to_owned(),
    }
}

/// Why an answer is none.
pub(super) const WRONG_KIND: &str = "gave an answer of the wrong kind";

/// Asks a peer on behalf of the operator: another, or this one.
async fn inspect(
    host: &Host,
    node: NodeId,
    what: inspect::What,
) -> Result<inspect_reply::What, CallError> {
    if node == host.node_id() {
        let told = host.inspect(what).await;
        return told.ok_or_else(|| CallError::Unreachable {
            peer: node,
            reason: "it is closing".to_owned(),
        });
    }
    let ask = request::Kind::Inspect(wire::Inspect { what: Some(what) });
    // Opening a session takes its own time, beside the answer's.
    let answer = timeout(DEADLINE, host.call(node, ask, DEADLINE)).await;
    let answer = answer.map_err(|_| CallError::Deadline(node))??;
    match answer {
        response::Kind::Inspect(reply) => reply.what.ok_or(CallError::Malformed(node)),
        _ => Err(CallError::Malformed(node)),
    }
}
