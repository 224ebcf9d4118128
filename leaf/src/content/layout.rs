//! What a content consists of, and how its pieces are numbered: those of what
//! its hash is the hash of first; if that is a manifest, those of each file after
//! them, in the manifest's order.

use blake3::Hash;

use super::manifest::Entry;

/// Bytes of a piece, the last of a file apart. It is what a provider that lies
/// costs at most, and what a leaf can pass on: at 20 Mbit/s it takes 0.4 s. Smaller
/// ones cost more requests and longer lists of who has what; 1 GiB has 1 024.
pub const PIECE: u64 = 1024 * 1024;
/// Most pieces of one content: 256 GiB, or that many small files and less.
pub const MAX_PIECES: u32 = 256 * 1024;

/// One file, or the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// Where it is within the folder; empty: it is what the hash is the hash of.
    pub(super) path: String,
    pub(super) hash: Hash,
    pub(super) size: u64,
    /// Number of its first piece.
    pub(super) first: u32,
}

/// All blobs of a content, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    blobs: Vec<Blob>,
    pieces: u32,
    bytes: u64,
}

/// A piece within its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which blob.
    pub(super) blob: usize,
    /// Number of the piece within it.
    pub(super) piece: u32,
}

/// Pieces of `size` bytes; more than are allowed where it is too much.
pub(super) fn pieces(size: u64) -> u32 {
    u32::try_from(size.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

impl Layout {
    /// Of a file, or of a manifest that is not read yet. `None`: it is too large.
    pub(super) fn of(root: Hash, size: u64) -> Option<Self> {
        let mut layout = Self {
            blobs: Vec::new(),
            pieces: 0,
            bytes: 0,
        };
        layout.add(String::new(), root, size)?;
        Some(layout)
    }

    /// Of a folder. `None`: it is too large.
    pub(super) fn with(mut self, entries: &[Entry]) -> Option<Self> {
        for entry in entries {
            self.add(entry.path.clone(), entry.hash, entry.size)?;
        }
        Some(self)
    }

    fn add(&mut self, path: String, hash: Hash, size: u64) -> Option<()> {
        let first = self.pieces;
        let end = first.checked_add(pieces(size));
        self.pieces = end.filter(|end| *end <= MAX_PIECES)?;
        self.bytes = self.bytes.checked_add(size)?;
        self.blobs.push(Blob {
            path,
            hash,
            size,
            first,
        });
        Some(())
    }

    pub(super) fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    pub(super) fn root(&self) -> &Blob {
        &self.blobs[0]
    }

    pub(super) fn pieces(&self) -> u32 {
        self.pieces
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn place(&self, piece: u32) -> Option<Place> {
        if piece >= self.pieces {
            return None;
        }
        // The last that begins at or before it; empty ones begin where the next does.
        let blob = self.blobs.partition_point(|blob| blob.first <= piece) - 1;
        Some(Place {
            blob,
            piece: piece - self.blobs[blob].first,
        })
    }

    /// Bytes of a piece.
    pub(super) fn size_of(&self, piece: u32) -> u64 {
        self.place(piece).map_or(0, |place| {
            let begin = u64::from(place.piece) * PIECE;
            (self.blobs[place.blob].size - begin).min(PIECE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_one_blob_and_empty_files_have_none() {
        let hash = blake3::hash(b"");
        let entry = |path: &str, size| Entry {
            path: path.into(),
            size,
            hash,
        };
        let files = [
            entry("a", 0),
            entry("b", PIECE),
            entry("c", 0),
            entry("d", 2 * PIECE + 1),
            entry("e", 0),
        ];
        let layout = Layout::of(hash, 10).unwrap().with(&files).unwrap();
        let places: Vec<_> = (0..layout.pieces())
            .map(|piece| {
                let place = layout.place(piece).unwrap();
                (place.blob, place.piece, layout.size_of(piece))
            })
            .collect();
        let all = [
            (0, 0, 10),
            (2, 0, PIECE),
            (4, 0, PIECE),
            (4, 1, PIECE),
            (4, 2, 1),
        ];
        assert_eq!(places, all);
        assert_eq!(layout.place(5), None);
        assert_eq!(layout.bytes(), 10 + 3 * PIECE + 1);
    }

    #[test]
    fn what_is_too_large_has_no_layout() {
        let (hash, most) = (blake3::hash(b""), u64::from(MAX_PIECES) * PIECE);
        assert!(Layout::of(hash, most).is_some());
        assert!(Layout::of(hash, most + 1).is_none());
        assert!(Layout::of(hash, u64::MAX).is_none());
        let entry = Entry {
            path: "a".into(),
            size: most,
            hash,
        };
        assert!(Layout::of(hash, 1).unwrap().with(&[entry]).is_none());
    }
}
