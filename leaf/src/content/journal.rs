//! What a fetch has on disk already, noted piece by piece, so that one that was
//! cut off goes on where it was.
//!
//! A note is appended after the data it speaks of is written. What it says is
//! checked against the data before it counts, so a note may be wrong, doubled or
//! cut off.

use blake3::Hash;

use super::tree::{MAX_PROOF, Pair};

/// What the file begins with.
const MAGIC: &[u8] = b"canopy fetch 1\n";
/// More pairs than any piece's proof has.
const MAX_PAIRS: usize = 64;

/// What is fetched, and how large it proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) root: Hash,
    pub(super) size: u64,
    pub(super) proof: Vec<u8>,
}

/// A piece is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) piece: u32,
    /// Hashes that its proof told first.
    pub(super) pairs: Vec<Pair>,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&(self.proof.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.proof);
        out
    }
}

impl Note {
    pub(super) fn encode(&self) -> Vec<u8> {
        let pairs = &self.pairs[..self.pairs.len().min(MAX_PAIRS)];
        let mut out = self.piece.to_be_bytes().to_vec();
        out.push(pairs.len() as u8);
        for pair in pairs {
            out.extend_from_slice(&pair.place.to_be_bytes());
            out.extend_from_slice(&pair.hashes);
        }
        out
    }
}

/// Reads a file of notes: the head, the notes that are whole, and how many bytes
/// these take. `None`: it is no such file.
pub(super) fn decode(data: &[u8]) -> Option<(Head, Vec<Note>, usize)> {
    let mut rest = data.strip_prefix(MAGIC)?;
    let root: [u8; 32] = *take(&mut rest)?;
    let size = u64::from_be_bytes(*take(&mut rest)?);
    let length = u32::from_be_bytes(*take(&mut rest)?) as usize;
    let proof = rest.get(..length).filter(|_| length <= MAX_PROOF)?.to_vec();
    rest = &rest[length..];
    let root = Hash::from(root);
    let mut notes = Vec::new();
    let mut whole = rest;
    while let Some(note) = note(&mut rest) {
        notes.push(note);
        whole = rest;
    }
    Some((Head { root, size, proof }, notes, data.len() - whole.len()))
}

fn note(rest: &mut &[u8]) -> Option<Note> {
    let piece = u32::from_be_bytes(*take(rest)?);
    let [count] = *take(rest)?;
    let mut pair = || {
        Some(Pair {
            place: u32::from_be_bytes(*take(rest)?),
            hashes: *take(rest)?,
        })
    };
    let pairs: Option<Vec<Pair>> = (0..count).map(|_| pair()).collect();
    Some(Note {
        piece,
        pairs: pairs?,
    })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notes_are_read_up_to_where_they_were_cut_off() {
        let head = Head {
            root: blake3::hash(b"x"),
            size: 77,
            proof: vec![1, 2, 3],
        };
        let pair = |place| Pair {
            place,
            hashes: [place as u8; 64],
        };
        let notes = [(5, vec![pair(0), pair(9)]), (0, vec![])];
        let notes = notes.map(|(piece, pairs)| Note { piece, pairs });
        let mut data = head.encode();
        assert_eq!(decode(&data), Some((head.clone(), vec![], data.len())));
        let begin = data.len();
        notes.iter().for_each(|note| data.extend(note.encode()));
        let all = (head.clone(), notes.to_vec(), data.len());
        assert_eq!(decode(&data), Some(all));
        let first = begin + notes[0].encode().len();
        for cut in begin..data.len() {
            let (same, read, whole) = decode(&data[..cut]).unwrap();
            assert_eq!(same, head);
            let (count, end) = if cut < first { (0, begin) } else { (1, first) };
            assert_eq!((read.len(), whole), (count, end));
        }
        assert_eq!(decode(&data[..begin - 1]), None);
    }

    proptest! {
        #[test]
        fn no_input_is_a_panic(data: Vec<u8>) {
            let _ = decode(&data);
            let _ = decode(&[MAGIC, &data[..]].concat());
        }
    }
}
