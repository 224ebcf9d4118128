//! Asks several owners, no more of them than needed: the first few at once,
//! another one when an answer does not settle the matter, or is late and the
//! budget pays for one more.

use std::sync::Arc;

use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire::{request, response};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::Inner;
use super::stats::add;

/// What an answer means for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Settled; ask nobody else.
    Done,
    /// Wait for those under way.
    Wait,
    /// Ask one more.
    More,
}

/// Asks `peers` in order, `first` of them at once, and hands each answer to
/// `judge`. Returns whether it hedged. Answers still under way at the end are
/// dropped.
pub(super) async fn gather<C: Calls>(
    inner: &Arc<Inner<C>>,
    peers: &[NodeId],
    first: usize,
    request: &request::Kind,
    mut judge: impl FnMut(NodeId, Result<response::Kind, CallError>) -> Verdict,
) -> bool {
    inner.budget.earn();
    let mut left = peers.iter().copied();
    let mut under_way = FuturesUnordered::new();
    let mut silent: Vec<NodeId> = Vec::new();
    let mut hedged = false;
    // Who was asked last as a hedge, and when.
    let mut hedge: Option<(NodeId, Instant)> = None;
    let mut patience = inner.config.hedge_min;
    for peer in left.by_ref().take(first) {
        patience = patience.max(inner.latencies.hedge_after(&peer));
        silent.push(peer);
        under_way.push(ask(inner, peer, request.clone()));
    }
    loop {
        if under_way.is_empty() {
            match left.next() {
                Some(peer) => {
                    silent.push(peer);
                    under_way.push(ask(inner, peer, request.clone()));
                }
                None => return hedged,
            }
        }
        let mut hedges = false;
        let more = tokio::select! {
            biased;
            Some((peer, answer)) = under_way.next() => {
                silent.retain(|other| *other != peer);
                let soon = |(asked, at): &mut (NodeId, Instant)| {
                    *asked == peer && at.elapsed() <= inner.config.read_deadline / 2
                };
                if answer.is_ok() && hedge.take_if(soon).is_some() {
                    inner.budget.give_back(1);
                }
                match judge(peer, answer) {
                    Verdict::Done => {
                        if hedged {
                            silent.iter().for_each(|peer| inner.latencies.overtaken(*peer));
                        }
                        return hedged;
                    }
                    Verdict::Wait => false,
                    Verdict::More => true,
                }
            }
            () = tokio::time::sleep(patience), if left.len() > 0 => {
                let pays = inner.budget.hedge();
                if pays && !hedged {
                    add(&inner.counters.hedged, 1);
                }
                hedged |= pays;
                hedges = pays;
                pays
            }
        };
        if more && let Some(peer) = left.next() {
            patience = inner.latencies.hedge_after(&peer);
            silent.push(peer);
            if hedges {
                hedge = Some((peer, Instant::now()));
            }
            under_way.push(ask(inner, peer, request.clone()));
        }
    }
}

async fn ask<C: Calls>(
    inner: &Arc<Inner<C>>,
    peer: NodeId,
    request: request::Kind,
) -> (NodeId, Result<response::Kind, CallError>) {
    if peer == inner.me() {
        let own = match &request {
            request::Kind::Get(get) => inner.get_local(get),
            request::Kind::Search(search) => inner.search_local(search),
            _ => return (peer, Err(CallError::Malformed(peer))),
        };
        return (
            peer,
            own.map_err(|refusal| CallError::Refused { peer, refusal }),
        );
    }
    inner.spread.count(&peer);
    let began = Instant::now();
    let deadline = inner.config.read_deadline;
    let answer = inner.calls.call(peer, request, deadline).await;
    match &answer {
        Ok(_) | Err(CallError::Refused { .. }) => inner.latencies.answered(peer, began.elapsed()),
        Err(_) => inner.latencies.failed(peer),
    }
    (peer, answer)
}
