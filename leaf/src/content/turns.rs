//! Whose ask is answered next, and with which of its pieces: a state machine
//! without sockets or clock.
//!
//! So few pieces go out at a time that each is soon whole and can be passed on by
//! who got it. What was sent least often goes first, then what the fewest of those
//! who watch have: so a slow line sends every piece once before it sends one
//! twice, and those who fetch bring them to each other meanwhile.

use std::collections::HashMap;

use blake3::Hash;
use canopy_core::keyspace::NodeId;

use super::bits::Bits;

/// Pieces that go out at a time.
const UPLOADS: usize = 4;
/// Asks that wait, in all and of one peer; more are told to come later.
const WAITING: usize = 256;
const WAITING_OF_ONE: usize = 8;

/// Names an ask.
pub(super) type Ticket = u64;

/// One that waits for its turn.
#[derive(Debug)]
struct Ask {
    ticket: Ticket,
    peer: NodeId,
    content: Hash,
    pieces: Vec<u32>,
}

/// What became of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This piece goes out now; [`Turns::over`] must follow.
    Send(u32),
    /// The asker has all of it by now.
    Nothing,
}

/// All asks of other leaves to this one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    next: Ticket,
    waiting: Vec<Ask>,
    /// Pieces that go out now.
    busy: usize,
    contents: HashMap<Hash, Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// How often each piece went out, or is going.
    sent: HashMap<u32, u32>,
    watchers: HashMap<NodeId, Bits>,
}

impl Turns {
    /// Has an ask wait for its turn. `None`: too many wait.
    pub(super) fn enter(
        &mut self,
        peer: NodeId,
        content: Hash,
        pieces: Vec<u32>,
    ) -> Option<Ticket> {
        let own = self.waiting.iter().filter(|ask| ask.peer == peer).count();
        if self.waiting.len() >= WAITING || own >= WAITING_OF_ONE {
            return None;
        }
        self.next += 1;
        self.waiting.push(Ask {
            ticket: self.next,
            peer,
            content,
            pieces,
        });
        Some(self.next)
    }

    /// The asker waits no more. False: it had its turn.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|ask| ask.ticket != ticket);
        self.waiting.len() < before
    }

    /// The next turn, if there is room and somebody waits.
    pub(super) fn next(&mut self) -> Option<(Ticket, Turn)> {
        let empty = Content::default();
        let mut best: Option<(usize, (u32, usize), u32)> = None;
        for (place, ask) in self.waiting.iter().enumerate() {
            let content = self.contents.get(&ask.content).unwrap_or(&empty);
            let Some((rank, piece)) = content.best(&ask.peer, &ask.pieces) else {
                let ask = self.waiting.remove(place);
                return Some((ask.ticket, Turn::Nothing));
            };
            if best.is_none_or(|(_, least, _)| rank < least) {
                best = Some((place, rank, piece));
            }
        }
        let (place, _, piece) = best.filter(|_| self.busy < UPLOADS)?;
        // In order, so that among equals who came first goes first.
        let ask = self.waiting.remove(place);
        self.busy += 1;
        if let Some(content) = self.contents.get_mut(&ask.content) {
            *content.sent.entry(piece).or_default() += 1;
        }
        Some((ask.ticket, Turn::Send(piece)))
    }

    /// A piece has gone out, or broke off.
    pub(super) fn over(&mut self, content: &Hash, piece: u32, whole: bool) {
        self.busy = self.busy.saturating_sub(1);
        let content = self.contents.get_mut(content);
        let sent = content.and_then(|content| content.sent.get_mut(&piece));
        if let (Some(sent), false) = (sent, whole) {
            *sent = sent.saturating_sub(1);
        }
    }

    /// A peer fetches, and has these so far.
    pub(super) fn watch(&mut self, peer: NodeId, content: Hash, have: Bits) {
        let content = self.contents.entry(content).or_default();
        content.watchers.insert(peer, have);
    }

    pub(super) fn gained(&mut self, peer: &NodeId, content: &Hash, pieces: &[u32]) {
        let content = self.contents.get_mut(content);
        if let Some(have) = content.and_then(|content| content.watchers.get_mut(peer)) {
            pieces.iter().for_each(|piece| {
                have.set(*piece);
            });
        }
    }

    /// A peer fetches no more. What was sent is counted for as long as anybody
    /// watches.
    pub(super) fn unwatch(&mut self, peer: &NodeId, content: &Hash) {
        if let Some(known) = self.contents.get_mut(content) {
            known.watchers.remove(peer);
            if known.watchers.is_empty() {
                self.contents.remove(content);
            }
        }
    }

    /// Those who fetch a content.
    pub(super) fn watchers(&self, content: &Hash) -> Vec<NodeId> {
        let content = self.contents.get(content);
        let watchers = content.map(|content| content.watchers.keys().copied());
        watchers.into_iter().flatten().collect()
    }
}

impl Content {
    /// The piece that spreads the content best, and how well: less is better.
    fn best(&self, peer: &NodeId, pieces: &[u32]) -> Option<((u32, usize), u32)> {
        let own = self.watchers.get(peer);
        let open = pieces
            .iter()
            .filter(|piece| own.is_none_or(|own| !own.has(**piece)));
        let ranked = open.map(|piece| {
            let sent = self.sent.get(piece).copied().unwrap_or(0);
            let holders = self.watchers.values().filter(|have| have.has(*piece));
            ((sent, holders.count()), *piece)
        });
        ranked.min_by_key(|(rank, _)| *rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn content() -> Hash {
        blake3::hash(b"content")
    }

    #[test]
    fn every_piece_goes_out_once_before_one_goes_twice() {
        let mut turns = Turns::default();
        for peer in [A, B] {
            turns.watch(peer, content(), Bits::default());
        }
        let mut sent = Vec::new();
        for round in 0..8 {
            let peer = if round % 2 == 0 { A } else { B };
            turns.enter(peer, content(), (0..8).collect()).unwrap();
            let Some((_, Turn::Send(piece))) = turns.next() else {
                panic!("it is free");
            };
            sent.push(piece);
            turns.over(&content(), piece, true);
            turns.gained(&peer, &content(), &[piece]);
        }
        sent.sort_unstable();
        assert_eq!(sent, (0..8).collect::<Vec<_>>());
        // A has four; of the others, all were sent once.
        turns.enter(A, content(), (0..8).collect()).unwrap();
        let Some((_, Turn::Send(piece))) = turns.next() else {
            panic!("it is free");
        };
        assert_eq!(piece % 2, 1);
    }

    #[test]
    fn a_piece_that_broke_off_was_not_sent() {
        let mut turns = Turns::default();
        turns.watch(A, content(), Bits::default());
        turns.enter(A, content(), vec![5]).unwrap();
        assert_eq!(turns.next(), Some((1, Turn::Send(5))));
        turns.over(&content(), 5, false);
        turns.enter(A, content(), vec![4, 5]).unwrap();
        turns.enter(A, content(), vec![4, 5]).unwrap();
        assert_eq!(turns.next(), Some((2, Turn::Send(4))));
        assert_eq!(turns.next(), Some((3, Turn::Send(5))));
    }

    #[test]
    fn asks_are_bounded_and_what_is_had_is_not_sent() {
        let mut turns = Turns::default();
        turns.watch(A, content(), Bits::first(3));
        turns.enter(A, content(), vec![0, 1, 2]).unwrap();
        assert_eq!(turns.next(), Some((1, Turn::Nothing)));
        let tickets: Vec<_> = (0..100)
            .map_while(|_| turns.enter(A, content(), vec![7]))
            .collect();
        assert_eq!(tickets.len(), WAITING_OF_ONE);
        assert!(turns.enter(B, content(), vec![7]).is_some());
        let sent = std::iter::from_fn(|| turns.next()).count();
        assert_eq!(sent, UPLOADS);
        assert!(turns.give_up(tickets[7]) && !turns.give_up(tickets[0]));
        turns.unwatch(&A, &content());
        assert!(turns.contents.is_empty());
    }
}
