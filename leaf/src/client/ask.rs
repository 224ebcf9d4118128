//! How one request finds an answer: attempts, hedges, back-off, a deadline.
//!
//! This is the only place that sends. It never decides what an answer means:
//! the caller judges each one.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Owners, Placement, R};
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::Client;
use super::error::{Error, is_verdict};
use super::health::{Class, HEDGE_MAX};

/// Super-nodes tried in one round: the owners and two others, who forward.
const ROUND: usize = R + 2;
/// Requests of one operation under way at once.
const AT_ONCE: usize = 3;
/// Longest wait for one super-node, if the budget then pays for a hedge.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The same, if it then pays for a retry: longer than answers take of an overlay
/// that is slow as a whole.
const SILENCE: Duration = Duration::from_secs(5);
/// First pause between rounds; doubles up to [`BACK_OFF_MAX`].
pub(super) const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// As many super-nodes must give a verdict before it is believed.
const VERDICTS: usize = 2;

/// What the caller makes of one answer.
pub(super) enum Judgement<T> {
    /// This is it.
    Good(T),
    /// The request itself is refused; another super-node is asked whether it
    /// agrees.
    Verdict(Code, String),
    /// Forged, malformed or useless: ask another.
    Bad(String),
}

impl<T> Judgement<T> {
    pub(super) fn map<U>(self, good: impl FnOnce(T) -> U) -> Judgement<U> {
        match self {
            Judgement::Good(value) => Judgement::Good(good(value)),
            Judgement::Verdict(code, message) => Judgement::Verdict(code, message),
            Judgement::Bad(reason) => Judgement::Bad(reason),
        }
    }
}

/// An answer, and how it came.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// What the caller's judgement made of it.
    pub(super) value: T,
    /// This client, or the super-node, asked a second one because the first
    /// was slow.
    pub(super) hedged: bool,
}

/// One request to be answered by any of several super-nodes.
pub(super) struct Ask<'a, J> {
    pub(super) class: Class,
    /// Its owners are asked first.
    pub(super) key: &'a Key,
    pub(super) request: wire::request::Kind,
    pub(super) judge: J,
    /// When to give up.
    pub(super) deadline: Instant,
}

/// What one round over the super-nodes came to.
enum Round<T> {
    Answered(Answer<T>),
    Refused(Error),
    Nothing,
}

/// What is known of an operation across its rounds.
struct Progress {
    begun: Instant,
    asked: u32,
    /// The attempt before may have cost others work: the next one is paid for
    /// by the budget.
    owes: bool,
    /// Requests that the budget has paid for: those sent because another one was
    /// late, and those because it was refused.
    hedges: u32,
    retries: u32,
    last: Option<String>,
}

impl<C: Calls> Client<C> {
    /// Asks until an answer is judged good, a verdict is certain or the
    /// deadline passes. The placement is read anew for each round.
    pub(super) async fn ask<T, J>(&self, ask: Ask<'_, J>) -> Result<Answer<T>, Error>
    where
        J: Fn(NodeId, wire::response::Kind) -> Judgement<T> + Sync,
        T: Send,
    {
        self.inner.budget.earn();
        self.ask_further(ask, false).await
    }

    /// The same for an operation that has asked before, and `owes` what the next
    /// request costs: the one before was refused.
    pub(super) async fn ask_further<T, J>(
        &self,
        ask: Ask<'_, J>,
        owes: bool,
    ) -> Result<Answer<T>, Error>
    where
        J: Fn(NodeId, wire::response::Kind) -> Judgement<T> + Sync,
        T: Send,
    {
        let mut progress = Progress {
            begun: Instant::now(),
            asked: 0,
            owes,
            hedges: 0,
            retries: 0,
            last: None,
        };
        let mut pause = BACK_OFF;
        loop {
            // Without budget it waits: other operations fill it again.
            let round = match self.pays(&mut progress) {
                true => self.round(&ask, &mut progress).await,
                false => Round::Nothing,
            };
            match round {
                Round::Answered(answer) => {
                    self.inner.counters.ok();
                    return Ok(answer);
                }
                Round::Refused(error) => {
                    self.inner.counters.failed();
                    return Err(error);
                }
                Round::Nothing => {}
            }
            let wake = Instant::now() + self.jittered(pause);
            if wake >= ask.deadline {
                self.inner.counters.failed();
                return Err(progress.give_up(self.inner.calls.trouble()));
            }
            sleep_until(wake).await;
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }

    /// Whether a further attempt may be sent.
    fn pays(&self, progress: &mut Progress) -> bool {
        if progress.owes && self.inner.budget.retry() {
            progress.owes = false;
            progress.retries += 1;
        }
        !progress.owes
    }

    /// Half to the whole of `pause`, so that clients that failed together do not
    /// come back together: no two have the same sequence of pauses.
    pub(super) fn jittered(&self, pause: Duration) -> Duration {
        let count = self.inner.pauses.fetch_add(1, Relaxed);
        let hash = blake3::hash(&count.to_le_bytes());
        let [low, high, ..] = hash.as_bytes();
        pause.mul_f64(0.5 + f64::from(u16::from_le_bytes([*low, *high])) / 131_072.0)
    }

    /// The owners of `key` as this client knows them, in the order in which to ask
    /// them, and how many of them, from the first on, are well.
    pub(super) fn owners(&self, key: &Key) -> (Owners, usize) {
        let targets = Targets::new(self, key, Class::Read);
        let (mut owners, well) = (targets.owners, targets.well);
        // Two are asked: the second one is chosen like the first.
        if let Some(others) = owners.get_mut(1..well) {
            self.inner.spread.order(&targets.placement, others);
        }
        (owners, well)
    }

    /// Whom to ask first for a batch of `key`, if anybody serves.
    pub(super) fn coordinator(&self, key: &Key) -> Option<NodeId> {
        Targets::new(self, key, Class::Bulk).next()
    }

    /// Tries each of its targets at most once.
    async fn round<T, J>(&self, ask: &Ask<'_, J>, progress: &mut Progress) -> Round<T>
    where
        J: Fn(NodeId, wire::response::Kind) -> Judgement<T> + Sync,
        T: Send,
    {
        let mut waiting = Targets::new(self, ask.key, ask.class);
        let mut under_way = FuturesUnordered::new();
        let mut silent: Vec<NodeId> = Vec::new();
        let mut verdicts = 0;
        let mut hedge_at = Instant::now();
        let mut hedges: Vec<NodeId> = Vec::new();
        // The first is sent at once, as is the one after a failure; a hedge
        // only when its time has come.
        let mut due = true;
        loop {
            if due
                && self.pays(progress)
                && let Some(node) = waiting.next()
            {
                progress.count(&self.inner.counters);
                hedge_at = Instant::now() + self.inner.health.hedge_after(&node, ask.class);
                silent.push(node);
                under_way.push(self.attempt(node, ask));
            }
            due = false;
            if under_way.is_empty() {
                return Round::Nothing;
            }
            let may_hedge = under_way.len() < AT_ONCE && !waiting.exhausted();
            let (node, outcome) = tokio::select! {
                biased;
                Some(done) = under_way.next() => done,
                () = sleep_until(hedge_at), if may_hedge => {
                    hedge_at = Instant::now() + BACK_OFF;
                    if self.inner.budget.hedge() && let Some(node) = waiting.next() {
                        hedges.push(node);
                        progress.hedges += 1;
                        self.inner.counters.hedged();
                        progress.asked += 1;
                        hedge_at = Instant::now() + self.inner.health.hedge_after(&node, ask.class);
                        silent.push(node);
                        under_way.push(self.attempt(node, ask));
                    }
                    continue;
                }
            };
            silent.retain(|other| *other != node);
            due = true;
            match outcome {
                Ok((value, took)) => {
                    let of_use = of_use(took, progress.hedges, progress.retries);
                    self.inner.budget.give_back(of_use);
                    silent
                        .iter()
                        .for_each(|node| self.inner.health.overtaken(node));
                    if hedges.contains(&node) && !silent.is_empty() {
                        self.inner.counters.overtaken();
                    }
                    let hedged = !hedges.is_empty();
                    return Round::Answered(Answer { value, hedged });
                }
                Err(Failure::Verdict { code, message }) => {
                    // Two are wanted.
                    progress.owes = false;
                    verdicts += 1;
                    progress.last = Some(message.clone());
                    if verdicts >= VERDICTS || (waiting.exhausted() && under_way.is_empty()) {
                        let peer = node;
                        return Round::Refused(Error::Refused {
                            peer,
                            code,
                            message,
                        });
                    }
                }
                Err(Failure::Late(reason)) => {
                    progress.owes = false;
                    progress.hedges += 1;
                    progress.last = Some(reason);
                }
                Err(Failure::Silent(reason)) => {
                    progress.owes = false;
                    progress.retries += 1;
                    progress.last = Some(reason);
                }
                Err(Failure::Free(reason)) => {
                    progress.owes = false;
                    progress.last = Some(reason);
                }
                Err(Failure::Other(reason)) => {
                    progress.owes = true;
                    progress.last = Some(reason);
                }
            }
        }
    }

    /// Returns when an answer is late and the budget has paid for another
    /// request. Until then it is waited for: whoever throws late answers away
    /// and asks again keeps a slow overlay slow.
    async fn give_up(&self, node: NodeId) -> Failure {
        let begun = Instant::now();
        sleep(ATTEMPT).await;
        loop {
            if self.inner.budget.hedge() {
                return Failure::Late(CallError::Deadline(node).to_string());
            }
            if begun.elapsed() >= SILENCE && self.inner.budget.retry() {
                return Failure::Silent(CallError::Deadline(node).to_string());
            }
            sleep(BACK_OFF).await;
        }
    }

    /// Asks one super-node and judges its answer; also says how long that took.
    pub(super) async fn attempt<T, J>(
        &self,
        node: NodeId,
        ask: &Ask<'_, J>,
    ) -> (NodeId, Result<(T, Duration), Failure>)
    where
        J: Fn(NodeId, wire::response::Kind) -> Judgement<T> + Sync,
        T: Send,
    {
        let begun = Instant::now();
        let patience = ask.deadline.saturating_duration_since(begun);
        let calls = &self.inner.calls;
        self.inner.spread.count(&node);
        // The fabric keeps the deadline.
        let call = calls.call(node, ask.request.clone(), patience);
        let outcome = tokio::select! {
            biased;
            outcome = call => outcome,
            late = self.give_up(node) => {
                self.inner.health.silent(&node);
                return (node, Err(late));
            }
        };
        let health = &self.inner.health;
        let failure = match outcome {
            Ok(response) => match (ask.judge)(node, response) {
                Judgement::Good(value) => {
                    let took = begun.elapsed();
                    health.answered(&node, ask.class, took);
                    return (node, Ok((value, took)));
                }
                Judgement::Verdict(code, message) => {
                    return (node, Err(Failure::Verdict { code, message }));
                }
                Judgement::Bad(reason) => Failure::Other(format!("{}: {reason}", node.short())),
            },
            Err(CallError::Refused { peer, refusal }) => match refusal.code() {
                code if is_verdict(code) => {
                    // It did its work: no reason to ask it last.
                    return (
                        node,
                        Err(Failure::Verdict {
                            code,
                            message: refusal.message,
                        }),
                    );
                }
                code => {
                    let reason = format!("{} refused: {}", peer.short(), refusal.message);
                    match code {
                        // No fault: it is well, and asked again next time.
                        Code::Busy => return (node, Err(Failure::Other(reason))),
                        Code::NotServing => Failure::Free(reason),
                        _ => Failure::Other(reason),
                    }
                }
            },
            Err(error @ CallError::Busy(_)) => {
                return (node, Err(Failure::Free(error.to_string())));
            }
            Err(error @ CallError::Deadline(_)) => {
                health.silent(&node);
                return (node, Err(Failure::Other(error.to_string())));
            }
            Err(error @ CallError::Unreachable { .. }) => Failure::Free(error.to_string()),
            Err(error) => Failure::Other(error.to_string()),
        };
        health.failed(&node);
        (node, Err(failure))
    }
}

/// Why one attempt gave no good answer.
pub(super) enum Failure {
    Verdict {
        code: Code,
        message: String,
    },
    /// It cost nobody work.
    Free(String),
    /// It took too long, and the budget has paid for a hedge in its place.
    Late(String),
    /// It took much too long, and the budget has paid for a retry.
    Silent(String),
    Other(String),
}

impl Progress {
    fn count(&mut self, counters: &super::stats::Counters) {
        if self.asked > 0 {
            counters.retried();
        }
        self.asked += 1;
    }

    fn give_up(self, why: Option<String>) -> Error {
        let waited = self.begun.elapsed();
        match self.last {
            None => Error::NoSuperNode { waited, why },
            Some(last) => Error::Unavailable {
                asked: self.asked,
                waited,
                last: match why {
                    Some(why) => format!("{last}; {why}"),
                    None => last,
                },
            },
        }
    }
}

/// How many of the `hedges` and `retries` that were paid for show that not all
/// super-nodes are slow: an answer that took `took` came in the place of one that was
/// late, or of none.
pub(super) fn of_use(took: Duration, hedges: u32, retries: u32) -> u32 {
    let within = |limit: Duration, paid: u32| if took <= limit { paid } else { 0 };
    within(HEDGE_MAX, hedges) + within(SILENCE / 2, retries)
}

/// Whom to ask, in order: the owners, of whom the closest that is not busy with
/// this client's requests goes first; then a few others, who forward; and last
/// those that failed lately. The others are looked up only when the owners gave
/// out, which is rare.
struct Targets<'a, C> {
    client: &'a Client<C>,
    placement: Placement,
    key: &'a Key,
    /// Those that are well, in order, before those that failed lately.
    owners: Owners,
    /// How many are well.
    well: usize,
    /// How many were given out.
    given: usize,
    more: VecDeque<NodeId>,
    extended: bool,
}

impl<'a, C: Calls> Targets<'a, C> {
    fn new(client: &'a Client<C>, key: &'a Key, class: Class) -> Self {
        let placement = client.inner.calls.placement();
        let mut owners = placement.owner_set(key);
        let penalised = |node: &NodeId| client.inner.health.penalised(node);
        owners.sort_by_key(penalised);
        let well = owners.partition_point(|node| !penalised(node));
        // A batch was put together for the closest.
        if class != Class::Bulk {
            client.inner.spread.order(&placement, &mut owners[..well]);
        }
        Self {
            client,
            placement,
            key,
            owners,
            well,
            given: 0,
            more: VecDeque::new(),
            extended: false,
        }
    }

    /// The next one to ask.
    fn next(&mut self) -> Option<NodeId> {
        if self.given < self.well {
            self.given += 1;
            return self.owners.get(self.given - 1).copied();
        }
        if !self.extended {
            self.extend();
        }
        self.more.pop_front()
    }

    /// Whether nobody is left.
    fn exhausted(&self) -> bool {
        let more = match self.extended {
            true => !self.more.is_empty(),
            false => self.placement.len() > self.well,
        };
        self.given == self.well && !more
    }

    fn extend(&mut self) {
        self.extended = true;
        let mut more = others(&self.placement, self.key, &self.owners);
        more.extend(&self.owners[self.well..]);
        // Stable: the order within each half stays.
        more.sort_by_key(|node| self.client.inner.health.penalised(node));
        self.more.extend(more);
    }
}

/// Super-nodes beside the owners: a few that the key picks, so that clients
/// spread over all of them.
fn others(placement: &Placement, key: &Key, owners: &[NodeId]) -> Vec<NodeId> {
    let count = ROUND.saturating_sub(owners.len());
    let start = key.prefix() as usize % placement.len().max(1);
    let members = || placement.members().map(|member| member.node);
    members()
        .skip(start)
        .chain(members().take(start))
        .filter(|node| !owners.contains(node))
        .take(count)
        .collect()
}
