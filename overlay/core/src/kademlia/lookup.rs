//! An iterative lookup: ask the closest known, learn closer ones, until the
//! closest have all answered.
//!
//! It sends nothing itself. [`Lookup::next_step`] says whom to ask,
//! [`Lookup::answered`] and [`Lookup::failed`] say how that went; the caller
//! keeps the clock and turns silence into `failed`. Whatever the answers, it
//! ends after [`MAX_ASKED`] questions, and a peer that tells of others that do
//! not exist is not followed further.

use crate::keyspace::{Key, NodeId};

use super::Peer;

/// Questions under way at once (Kademlia's alpha).
pub const ALPHA: usize = 3;

/// Most questions of one lookup. A network of a million super-nodes takes about
/// a third of that.
pub const MAX_ASKED: usize = 32;

/// Most peers that are taken from one answer; the rest is ignored.
pub const MAX_ANSWER: usize = 16;

/// Most peers that a lookup keeps in mind; the farthest are dropped.
const MAX_KNOWN: usize = 64;

/// So many dead ends from one source, and nothing more it said is followed.
const MAX_DEAD_ENDS: usize = 2;

const _: () = assert!(MAX_KNOWN > MAX_ASKED);

/// What a lookup wants now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this peer for the closest it knows; then come back at once.
    Ask(Peer),
    /// Enough is under way; come back after an answer or a failure.
    Wait,
    /// It is over; see [`Lookup::result`].
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    distance: Key,
    peer: Peer,
    /// Who told of it; `None`: known from the start.
    source: Option<NodeId>,
    /// Questions on the way to it, its own included.
    hops: u8,
    state: State,
}

/// The search for the peers with the seats closest to a key.
#[derive(Clone, Debug)]
pub struct Lookup {
    me: NodeId,
    target: Key,
    want: usize,
    /// By distance. What was asked is never dropped.
    candidates: Vec<Candidate>,
    asked: usize,
}

impl Lookup {
    /// A search by `me` for the `want` others closest to `target` (at most
    /// [`MAX_ASKED`]), starting from `known`: the closest of its own table.
    /// Whether `me` itself is closer than those is for the caller to compare.
    pub fn new(
        me: NodeId,
        target: Key,
        want: usize,
        known: impl IntoIterator<Item = Peer>,
    ) -> Self {
        let mut lookup = Self {
            me,
            target,
            want: want.min(MAX_ASKED),
            candidates: Vec::new(),
            asked: 0,
        };
        for peer in known.into_iter().take(MAX_KNOWN) {
            lookup.learn(peer, None, 1);
        }
        lookup
    }

    /// Whom to ask, if anybody. An [`Step::Ask`] counts as asked.
    pub fn next_step(&mut self) -> Step {
        let in_flight = self.in_state(State::Asked).count();
        if in_flight >= ALPHA {
            return Step::Wait;
        }
        let may_ask = self.asked < MAX_ASKED;
        let live = self.candidates.iter_mut();
        let closest = live.filter(|c| c.state != State::Failed).take(self.want);
        let fresh = closest.into_iter().find(|c| c.state == State::Fresh);
        match fresh {
            Some(candidate) if may_ask => {
                candidate.state = State::Asked;
                self.asked += 1;
                Step::Ask(candidate.peer)
            }
            _ if in_flight > 0 => Step::Wait,
            _ => Step::Done,
        }
    }

    /// `node` answered with the closest peers it knows, itself not counted. What
    /// was not asked for is ignored, and so is all past [`MAX_ANSWER`].
    pub fn answered(&mut self, node: &NodeId, closer: impl IntoIterator<Item = Peer>) {
        let Some(hops) = self.settle(node, State::Answered) else {
            return;
        };
        for peer in closer.into_iter().take(MAX_ANSWER) {
            self.learn(peer, Some(*node), hops.saturating_add(1));
        }
    }

    /// `node` did not answer, or with something unreadable.
    pub fn failed(&mut self, node: &NodeId) {
        if self.settle(node, State::Failed).is_none() {
            return;
        }
        let source = self.candidates.iter().find(|c| c.peer.node == *node);
        let Some(source) = source.and_then(|c| c.source) else {
            return;
        };
        let told = |c: &Candidate, state| c.source == Some(source) && c.state == state;
        let ends = |state| self.candidates.iter().filter(|c| told(c, state)).count();
        let (dead, alive) = (ends(State::Failed), ends(State::Answered));
        if dead >= MAX_DEAD_ENDS && dead > alive {
            self.candidates.retain(|c| !told(c, State::Fresh));
        }
    }

    /// The closest peers that answered, closest first, at most as many as were
    /// wanted. What never answered is not in it, however close it claims to be.
    pub fn result(&self) -> Vec<Peer> {
        let answered = self.in_state(State::Answered);
        answered.take(self.want).map(|c| c.peer).collect()
    }

    /// What was looked for.
    pub fn target(&self) -> Key {
        self.target
    }

    /// Questions asked so far.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Questions on the way to the closest peer that answered, its own
    /// included: 1 if it was known from the start; 0 without a result.
    pub fn hops(&self) -> usize {
        let mut answered = self.in_state(State::Answered);
        answered.next().map_or(0, |c| usize::from(c.hops))
    }

    fn in_state(&self, state: State) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(move |c| c.state == state)
    }

    /// Moves a candidate that was asked on; its hops.
    fn settle(&mut self, node: &NodeId, state: State) -> Option<u8> {
        let mut asked = self.candidates.iter_mut();
        let candidate = asked.find(|c| c.peer.node == *node && c.state == State::Asked)?;
        candidate.state = state;
        Some(candidate.hops)
    }

    fn learn(&mut self, peer: Peer, source: Option<NodeId>, hops: u8) {
        let known = |c: &Candidate| c.peer.node == peer.node;
        if peer.node == self.me || self.candidates.iter().any(known) {
            return;
        }
        let Some(seat) = peer.closest_seat(&self.target) else {
            return;
        };
        let candidate = Candidate {
            distance: seat.distance(&self.target),
            peer,
            source,
            hops,
            state: State::Fresh,
        };
        let at = self
            .candidates
            .partition_point(|c| c.distance < candidate.distance);
        self.candidates.insert(at, candidate);
        if self.candidates.len() > MAX_KNOWN {
            // There is one, because fewer than MAX_KNOWN are ever asked.
            let farthest = self
                .candidates
                .iter()
                .rposition(|c| c.state == State::Fresh);
            farthest.map(|at| self.candidates.remove(at));
        }
    }
}
