//! The tree of hashes below a BLAKE3 hash, and what it proves: a size, a piece.
//!
//! One group of the tree is one piece, so that of a content 64 bytes a piece are
//! kept. Nothing that another leaf says is believed without a proof.

use std::io::{self, Read};
use std::ops::Range;

use bao_tree::io::BaoContentItem;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::{DecodeResponseIter, ReadAt, encode_ranges_validated, outboard};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode};
use blake3::Hash;
use bytes::Bytes;

use super::layout::{MAX_PIECES, PIECE};

/// Bytes of a BLAKE3 chunk.
const CHUNK: u64 = 1024;
/// One group is one piece.
const GROUP: BlockSize = BlockSize::from_chunk_log(10);
/// Two hashes.
const PAIR: usize = 64;
/// Largest blob, bytes.
const MAX_SIZE: u64 = MAX_PIECES as u64 * PIECE;
/// Most bytes that a piece takes with its proof: no tree has more levels.
pub(super) const MAX_ENCODED: usize = PIECE as usize + 64 * PAIR;
/// Most bytes of the proof of a size.
pub(super) const MAX_PROOF: usize = CHUNK as usize + 64 * PAIR;

/// The hashes within one blob: all, or those that proofs have told so far.
#[derive(Clone, Debug)]
pub(super) struct Tree(PreOrderMemOutboard<Vec<u8>>);

/// Two hashes of a tree, and where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Number of the pair in the tree, parents first.
    pub(super) place: u32,
    pub(super) hashes: [u8; PAIR],
}

/// A piece whose proof holds.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) data: Bytes,
    /// The hashes that led to it.
    pub(super) pairs: Vec<Pair>,
}

impl Tree {
    /// Of a blob of which nothing is known but its proved size.
    pub(super) fn empty(root: Hash, size: u64) -> Self {
        let tree = BaoTree::new(size, GROUP);
        let data = vec![0; usize::try_from(tree.outboard_size()).unwrap_or(0)];
        Self(PreOrderMemOutboard { root, tree, data })
    }

    /// Hashes all of a blob.
    pub(super) fn hash(data: impl Read, size: u64) -> io::Result<Self> {
        let mut this = Self::empty(Hash::from([0; 32]), size);
        this.0.root = outboard(data, this.0.tree, &mut this.0)?;
        Ok(this)
    }

    /// The same again from what [`Tree::pairs`] gave; `None`: it has another size.
    pub(super) fn of_pairs(root: Hash, size: u64, pairs: &[u8]) -> Option<Self> {
        let mut this = Self::empty(root, size);
        (this.0.data.len() == pairs.len()).then(|| {
            this.0.data.copy_from_slice(pairs);
            this
        })
    }

    /// All hashes.
    pub(super) fn pairs(&self) -> &[u8] {
        &self.0.data
    }

    pub(super) fn root(&self) -> Hash {
        self.0.root
    }

    pub(super) fn size(&self) -> u64 {
        self.0.tree.size()
    }

    /// Takes in what a proof told; which of it is new.
    pub(super) fn learn(&mut self, pairs: Vec<Pair>) -> Vec<Pair> {
        let new = pairs.into_iter().filter(|pair| {
            let begin = pair.place as usize * PAIR;
            let own = self.0.data.get_mut(begin..begin + PAIR);
            own.is_some_and(|own| {
                let new = *own != pair.hashes;
                own.copy_from_slice(&pair.hashes);
                new
            })
        });
        new.collect()
    }

    /// A piece of `data` with its proof. An error also where the data is not what
    /// was hashed, any more or yet.
    pub(super) fn prove(&self, data: impl ReadAt, piece: u32) -> io::Result<Vec<u8>> {
        self.encode(data, &chunks_of(piece))
    }

    /// Proves how large the blob is.
    pub(super) fn prove_size(&self, data: impl ReadAt) -> io::Result<Vec<u8>> {
        self.encode(data, &last_chunk(self.size()))
    }

    fn encode(&self, data: impl ReadAt, chunks: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut encoded = Vec::new();
        encode_ranges_validated(data, &self.0, &ranges(chunks), &mut encoded)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(encoded)
    }

    /// Checks a piece and its proof. `None`: it is not what the hash stands for.
    pub(super) fn check(&self, piece: u32, encoded: &[u8]) -> Option<Proved> {
        check(self.root(), self.0.tree, &chunks_of(piece), encoded)
    }
}

/// Whether `proof` shows that what `root` is the hash of has `size` bytes.
///
/// The last chunk is hashed with its number and its length, and the shape of the
/// tree follows from the size: no other size has the same last chunk at the end
/// of the same path.
pub(super) fn is_size(root: Hash, size: u64, proof: &[u8]) -> bool {
    if size > MAX_SIZE || proof.len() > MAX_PROOF {
        return false;
    }
    let tree = BaoTree::new(size, GROUP);
    check(root, tree, &last_chunk(size), proof).is_some()
}

fn chunks_of(piece: u32) -> Range<u64> {
    let chunks = PIECE / CHUNK;
    let begin = u64::from(piece) * chunks;
    begin..begin + chunks
}

fn last_chunk(size: u64) -> Range<u64> {
    let count = size.div_ceil(CHUNK).max(1);
    count - 1..count
}

fn ranges(chunks: &Range<u64>) -> ChunkRanges {
    ChunkRanges::from(ChunkNum(chunks.start)..ChunkNum(chunks.end))
}

fn check(root: Hash, tree: BaoTree, chunks: &Range<u64>, encoded: &[u8]) -> Option<Proved> {
    let ranges = ranges(chunks);
    let mut rest = encoded;
    let (mut data, mut pairs) = (None, Vec::new());
    for item in DecodeResponseIter::new(root, tree, &mut rest, &ranges) {
        match item.ok()? {
            BaoContentItem::Parent(parent) => {
                pairs.extend(pair(&tree, parent.node, &parent.pair));
            }
            BaoContentItem::Leaf(leaf) if leaf.offset == chunks.start * CHUNK => {
                data = Some(leaf.data);
            }
            BaoContentItem::Leaf(_) => return None,
        }
    }
    // What follows a proof is no proof.
    rest.is_empty().then_some(())?;
    Some(Proved { data: data?, pairs })
}

/// `None`: it is within a group, and not kept.
fn pair(tree: &BaoTree, node: TreeNode, pair: &(Hash, Hash)) -> Option<Pair> {
    let place = u32::try_from(tree.pre_order_offset(node)?).ok()?;
    let mut hashes = [0; PAIR];
    hashes[..32].copy_from_slice(pair.0.as_bytes());
    hashes[32..].copy_from_slice(pair.1.as_bytes());
    Some(Pair { place, hashes })
}

#[cfg(test)]
mod tests {
    use super::super::layout::pieces;
    use super::*;
    use proptest::prelude::*;

    fn data(size: usize) -> Vec<u8> {
        (0..size)
            .map(|place| (place / 7 + place / 4096) as u8)
            .collect()
    }

    const SIZES: [usize; 9] = [
        0,
        1,
        1024,
        1025,
        PIECE as usize,
        PIECE as usize + 1,
        3 * PIECE as usize,
        3 * PIECE as usize + 5000,
        5 * PIECE as usize - 1,
    ];

    #[test]
    fn every_piece_is_proved_and_a_tree_is_learnt_from_proofs() {
        for size in SIZES {
            let data = data(size);
            let tree = Tree::hash(&data[..], size as u64).unwrap();
            assert_eq!(tree.root(), blake3::hash(&data));
            let mut other = Tree::empty(tree.root(), size as u64);
            for piece in (0..pieces(size as u64)).rev() {
                let encoded = tree.prove(&data[..], piece).unwrap();
                assert!(encoded.len() <= MAX_ENCODED);
                let proved = other.check(piece, &encoded).unwrap();
                let begin = piece as usize * PIECE as usize;
                assert_eq!(proved.data, data[begin..size.min(begin + PIECE as usize)]);
                other.learn(proved.pairs.clone());
                assert!(other.learn(proved.pairs).is_empty());
                // Whoever has a piece can pass it on.
                assert_eq!(other.prove(&data[..], piece).unwrap(), encoded);
            }
            assert_eq!(other.pairs(), tree.pairs());
            let same = Tree::of_pairs(tree.root(), size as u64, tree.pairs());
            assert!(same.is_some());
        }
    }

    #[test]
    fn no_other_size_is_proved() {
        for size in SIZES {
            let data = data(size);
            let tree = Tree::hash(&data[..], size as u64).unwrap();
            let proof = tree.prove_size(&data[..]).unwrap();
            assert!(is_size(tree.root(), size as u64, &proof), "{size}");
            let size = size as u64;
            for other in [size + 1, size + PIECE, 2 * size + 1, u64::MAX] {
                assert!(!is_size(tree.root(), other, &proof), "{size} {other}");
            }
            for other in SIZES.into_iter().filter(|other| *other as u64 != size) {
                assert!(!is_size(tree.root(), other as u64, &proof));
            }
        }
    }

    #[test]
    fn what_changed_on_disk_is_not_served_and_what_changed_on_the_way_not_taken() {
        let mut data = data(3 * PIECE as usize);
        let tree = Tree::hash(&data[..], data.len() as u64).unwrap();
        let encoded = tree.prove(&data[..], 1).unwrap();
        for place in [0, 63, 64, 200, encoded.len() - 1] {
            let mut wrong = encoded.clone();
            wrong[place] ^= 1;
            assert!(tree.check(1, &wrong).is_none());
        }
        assert!(tree.check(0, &encoded).is_none());
        assert!(tree.check(1, &encoded[1..]).is_none());
        assert!(tree.check(1, &[&encoded[..], &[0]].concat()).is_none());
        data[PIECE as usize + 5] ^= 1;
        assert!(tree.prove(&data[..], 1).is_err());
        assert!(tree.prove(&data[..], 0).is_ok());
    }

    proptest! {
        #[test]
        fn no_proof_is_a_panic(size in 0..u64::MAX, proof: Vec<u8>, piece: u32) {
            let root = blake3::hash(b"x");
            prop_assert!(!is_size(root, size, &proof));
            let tree = Tree::empty(root, size % (1 << 24));
            prop_assert!(tree.check(piece, &proof).is_none());
        }
    }
}
