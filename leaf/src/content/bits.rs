//! Which pieces are there: a set of small numbers that grows as it must.

use super::layout::MAX_PIECES;

/// A set of pieces, none of them over [`MAX_PIECES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    /// The first `count` pieces.
    pub(super) fn first(count: u32) -> Self {
        let mut bits = Self::default();
        (0..count).for_each(|piece| {
            bits.set(piece);
        });
        bits
    }

    /// What [`Bits::to_bytes`] gave; what is over the limit is left out.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut bits = Self::default();
        let most = MAX_PIECES.div_ceil(8) as usize;
        for (place, byte) in bytes.iter().take(most).enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                bits.set(place as u32 * 8 + bit);
            }
        }
        bits
    }

    /// The first piece is the lowest bit of the first byte.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        let byte = self.bytes.get(piece as usize / 8);
        byte.is_some_and(|byte| byte & (1 << (piece % 8)) != 0)
    }

    /// False: it is in there already, or over the limit.
    pub(super) fn set(&mut self, piece: u32) -> bool {
        if piece >= MAX_PIECES || self.has(piece) {
            return false;
        }
        let place = piece as usize / 8;
        if self.bytes.len() <= place {
            self.bytes.resize(place + 1, 0);
        }
        self.bytes[place] |= 1 << (piece % 8);
        self.count += 1;
        true
    }

    /// False: it was not in there.
    pub(super) fn clear(&mut self, piece: u32) -> bool {
        if !self.has(piece) {
            return false;
        }
        self.bytes[piece as usize / 8] &= !(1 << (piece % 8));
        self.count -= 1;
        true
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let end = self.bytes.len() as u32 * 8;
        (0..end).filter(|piece| self.has(*piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_the_same_after_a_journey_and_never_over_the_limit() {
        let mut bits = Bits::default();
        for piece in [0, 7, 8, 1000] {
            assert!(bits.set(piece));
            assert!(!bits.set(piece));
        }
        assert!(!bits.set(MAX_PIECES));
        let same = Bits::from_bytes(&bits.to_bytes());
        assert_eq!((&same, same.count()), (&bits, 4));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 7, 8, 1000]);
        assert!(bits.clear(8));
        assert!(!bits.clear(8) && !bits.clear(5000));
        assert_eq!(bits.count(), 3);
        assert_eq!(Bits::first(9).to_bytes(), [0xff, 1]);
        let long = vec![0xff; MAX_PIECES as usize];
        assert_eq!(Bits::from_bytes(&long).count(), MAX_PIECES as usize);
    }
}
