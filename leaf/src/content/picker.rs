//! Whom to ask for which piece next: a state machine without sockets or clock.
//!
//! Of the pieces that are missing, the rarest go first: those that the fewest of
//! the known peers have. Then what few have is soon with many, and no peer is
//! left the only one that others wait for. An ask names several of them, and the
//! peer that is asked chooses, because it knows better what it has sent to whom
//! (see `turns`).

use std::collections::{BTreeMap, HashMap};

use canopy_core::keyspace::NodeId;

use super::bits::Bits;

/// Asks under way to one peer: the next one is on its way while a piece comes.
pub(super) const ASKS: usize = 2;
/// Pieces that one ask names.
pub(super) const CANDIDATES: usize = 64;

/// What to do with a piece that a peer begins to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Take it.
    Take,
    /// It is here, or comes from another peer: stop it.
    Have,
    /// It was not among those that were asked for.
    Unasked,
}

/// The state of one fetch.
#[derive(Debug, Default)]
pub(super) struct Picker {
    pieces: u32,
    have: Bits,
    /// Pieces that come, and from whom.
    coming: HashMap<u32, NodeId>,
    /// How many of the peers have each piece.
    holders: Vec<u16>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    have: Bits,
    asks: usize,
}

impl Picker {
    /// Of so many pieces, some of which are there already.
    pub(super) fn new(pieces: u32, have: Bits) -> Self {
        Self {
            pieces,
            have,
            holders: vec![0; pieces as usize],
            ..Self::default()
        }
    }

    /// There are more pieces than were known.
    pub(super) fn grow(&mut self, pieces: u32) {
        let known = self.pieces;
        self.pieces = pieces.max(known);
        self.holders.resize(self.pieces as usize, 0);
        for peer in self.peers.values() {
            for piece in known..self.pieces {
                self.holders[piece as usize] += u16::from(peer.have.has(piece));
            }
        }
    }

    pub(super) fn missing(&self) -> usize {
        (self.pieces as usize).saturating_sub(self.have.count())
    }

    /// A peer that has these; replaces what was known of it.
    pub(super) fn join(&mut self, peer: NodeId, have: Bits) {
        self.leave(&peer);
        for piece in have.iter().take_while(|piece| *piece < self.pieces) {
            self.holders[piece as usize] += 1;
        }
        self.peers.insert(peer, Peer { have, asks: 0 });
    }

    /// A peer got further pieces.
    pub(super) fn gained(&mut self, peer: &NodeId, pieces: &[u32]) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        for piece in pieces {
            if known.have.set(*piece) && *piece < self.pieces {
                self.holders[*piece as usize] += 1;
            }
        }
    }

    /// A peer has some of these no more, as it says itself.
    pub(super) fn lost(&mut self, peer: &NodeId, pieces: &[u32]) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        for piece in pieces {
            if known.have.clear(*piece) && *piece < self.pieces {
                self.holders[*piece as usize] -= 1;
            }
        }
    }

    /// A peer is gone, and what it was sending is missing again.
    pub(super) fn leave(&mut self, peer: &NodeId) {
        let Some(gone) = self.peers.remove(peer) else {
            return;
        };
        for piece in gone.have.iter().take_while(|piece| *piece < self.pieces) {
            self.holders[piece as usize] -= 1;
        }
        self.coming.retain(|_, from| from != peer);
    }

    /// What to ask of this peer now, the rarest first; `None`: nothing, until
    /// something changes. `salt` decides among equals, so that those who fetch the
    /// same ask for different pieces.
    pub(super) fn ask(&mut self, peer: &NodeId, salt: u64) -> Option<Vec<u32>> {
        let known = self.peers.get_mut(peer)?;
        if known.asks >= ASKS {
            return None;
        }
        let (have, coming) = (&self.have, &self.coming);
        let open =
            |piece: &u32| *piece < self.pieces && !have.has(*piece) && !coming.contains_key(piece);
        let mut open: Vec<(u16, u64, u32)> = known
            .have
            .iter()
            .filter(open)
            .map(|piece| (self.holders[piece as usize], mixed(piece, salt), piece))
            .collect();
        if open.is_empty() {
            return None;
        }
        if open.len() > CANDIDATES {
            open.select_nth_unstable(CANDIDATES - 1);
            open.truncate(CANDIDATES);
        }
        open.sort_unstable();
        known.asks += 1;
        Some(open.into_iter().map(|(.., piece)| piece).collect())
    }

    /// A peer begins to send one of the pieces that it was asked for.
    pub(super) fn begun(&mut self, peer: &NodeId, asked: &[u32], piece: u32) -> Begun {
        if !asked.contains(&piece) {
            return Begun::Unasked;
        }
        if self.have.has(piece) || self.coming.contains_key(&piece) {
            return Begun::Have;
        }
        self.coming.insert(piece, *peer);
        Begun::Take
    }

    /// An ask is over, however it ended; `piece` is the one it brought or was
    /// bringing.
    pub(super) fn over(&mut self, peer: &NodeId, piece: Option<u32>) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.asks = known.asks.saturating_sub(1);
        }
        let from = piece.and_then(|piece| self.coming.get(&piece));
        if let (Some(piece), Some(from)) = (piece, from)
            && from == peer
        {
            self.coming.remove(&piece);
        }
    }

    /// A piece is here, proved and on disk. False: it was before.
    pub(super) fn got(&mut self, piece: u32) -> bool {
        self.coming.remove(&piece);
        self.have.set(piece)
    }
}

/// An order of the pieces that differs from salt to salt (splitmix64).
fn mixed(piece: u32, salt: u64) -> u64 {
    let mut x = salt ^ (u64::from(piece) << 32 | u64::from(piece));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const C: NodeId = NodeId([3; 32]);

    fn of(pieces: &[u32]) -> Bits {
        let mut bits = Bits::default();
        pieces.iter().for_each(|piece| {
            bits.set(*piece);
        });
        bits
    }

    #[test]
    fn the_rarest_missing_piece_goes_first_and_none_is_asked_for_twice() {
        let mut picker = Picker::new(5, of(&[0]));
        picker.join(A, Bits::first(5));
        picker.join(B, of(&[1, 2, 3]));
        picker.join(C, of(&[1, 2]));
        let asked = picker.ask(&A, 7).unwrap();
        assert_eq!(asked[..2], [4, 3]);
        assert!(!asked.contains(&0));
        assert_eq!(picker.begun(&A, &asked, 4), Begun::Take);
        assert_eq!(picker.begun(&A, &asked, 0), Begun::Unasked);
        let again = picker.ask(&A, 7).unwrap();
        assert!(!again.contains(&4));
        // Two are under way.
        assert_eq!(picker.ask(&A, 7), None);
        let of_b = picker.ask(&B, 7).unwrap();
        assert_eq!(picker.begun(&B, &of_b, 3), Begun::Take);
        assert_eq!(picker.begun(&A, &again, 3), Begun::Have);
        assert!(picker.got(3) && !picker.got(3));
        picker.over(&B, Some(3));
        assert_eq!(picker.missing(), 3);
    }

    #[test]
    fn what_a_peer_was_sending_is_missing_again_when_it_leaves() {
        let mut picker = Picker::new(1, Bits::default());
        picker.join(A, Bits::first(1));
        picker.join(B, Bits::first(1));
        let asked = picker.ask(&A, 0).unwrap();
        assert_eq!(picker.begun(&A, &asked, 0), Begun::Take);
        assert_eq!(picker.ask(&B, 0), None);
        picker.leave(&A);
        assert_eq!(picker.ask(&B, 0), Some(vec![0]));
        // The ask of one that has left changes nothing any more.
        assert_eq!(picker.begun(&B, &[0], 0), Begun::Take);
        picker.over(&A, Some(0));
        assert_eq!(picker.begun(&A, &[0], 0), Begun::Have);
    }

    #[test]
    fn what_peers_have_counts_once_the_pieces_are_known() {
        let mut picker = Picker::new(1, Bits::default());
        picker.join(A, of(&[0, 2]));
        picker.gained(&A, &[1, 1, 9]);
        assert_eq!(picker.ask(&A, 0), Some(vec![0]));
        picker.got(0);
        picker.over(&A, Some(0));
        assert_eq!(picker.missing(), 0);
        picker.grow(4);
        assert_eq!(picker.missing(), 3);
        let mut asked = picker.ask(&A, 0).unwrap();
        asked.sort_unstable();
        assert_eq!(asked, [1, 2]);
        picker.lost(&A, &[1, 2, 3]);
        picker.over(&A, None);
        assert_eq!(picker.ask(&A, 0), None);
    }

    #[test]
    fn an_ask_is_bounded_and_differs_between_those_who_ask() {
        let mut picker = Picker::new(1000, Bits::default());
        picker.join(A, Bits::first(1000));
        let one = picker.ask(&A, 1).unwrap();
        let other = picker.ask(&A, 2).unwrap();
        assert_eq!((one.len(), other.len()), (CANDIDATES, CANDIDATES));
        assert_ne!(one[..8], other[..8]);
    }
}
