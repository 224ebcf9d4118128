//! A content of which this leaf has some or all, as others are served from it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use blake3::Hash;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use bao_tree::io::sync::ReadAt;

use super::bits::Bits;
use super::layout::{Layout, PIECE, Place};
use super::manifest::MAX_MANIFEST;
use super::tree::{Pair, Proved, Tree};

/// Where the data is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// The file that the hash is the hash of, if it is no manifest.
    pub(super) root: PathBuf,
    /// The folder that a manifest's paths begin in.
    pub(super) files: PathBuf,
}

impl Paths {
    pub(super) fn of(&self, path: &str) -> PathBuf {
        match path.is_empty() {
            true => self.root.clone(),
            // Part by part: systems differ in what divides them.
            false => path
                .split('/')
                .fold(self.files.clone(), |at, part| at.join(part)),
        }
    }
}

/// A content, or as much of it as there is.
#[derive(Debug)]
pub(super) struct Source {
    root: Hash,
    state: RwLock<State>,
    /// How many pieces have come.
    news: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    layout: Layout,
    /// One for each blob.
    trees: Vec<Tree>,
    /// The manifest, where the content is a folder.
    manifest: Option<Bytes>,
    proof: Vec<u8>,
    paths: Paths,
    have: Bits,
    /// Bytes of them.
    bytes: u64,
    /// Pieces in the order in which they came.
    came: Vec<u32>,
    /// Why it is served no more.
    ended: Option<String>,
}

/// What others are told first.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) size: u64,
    pub(super) proof: Vec<u8>,
    pub(super) have: Bits,
    /// Pieces of [`Source::since`] that these cover.
    pub(super) told: usize,
}

impl Source {
    /// A content that is all there.
    pub(super) fn whole(
        layout: Layout,
        trees: Vec<Tree>,
        manifest: Option<Bytes>,
        paths: Paths,
    ) -> io::Result<Self> {
        let mut this = Self::new(layout, trees, Vec::new(), paths);
        let state = this.state.get_mut();
        state.manifest = manifest;
        state.have = Bits::first(state.layout.pieces());
        state.bytes = state.layout.bytes();
        let data = state.open(0)?;
        state.proof = state.trees[0].prove_size(data)?;
        Ok(this)
    }

    /// A content whose size is known by this proof, and nothing else of it.
    pub(super) fn nothing_of(layout: Layout, proof: Vec<u8>, paths: Paths) -> Self {
        let root = layout.root();
        let tree = Tree::empty(root.hash, root.size);
        Self::new(layout, vec![tree], proof, paths)
    }

    fn new(layout: Layout, trees: Vec<Tree>, proof: Vec<u8>, paths: Paths) -> Self {
        Self {
            root: layout.root().hash,
            news: watch::Sender::new(0),
            state: RwLock::new(State {
                layout,
                trees,
                manifest: None,
                proof,
                paths,
                have: Bits::default(),
                bytes: 0,
                came: Vec::new(),
                ended: None,
            }),
        }
    }

    pub(super) fn root(&self) -> Hash {
        self.root
    }

    pub(super) fn layout(&self) -> Layout {
        self.state.read().layout.clone()
    }

    pub(super) fn pieces(&self) -> u32 {
        self.state.read().layout.pieces()
    }

    /// Bytes in all, as far as they are known.
    pub(super) fn bytes(&self) -> u64 {
        self.state.read().layout.bytes()
    }

    /// Bytes that are there.
    pub(super) fn come(&self) -> u64 {
        self.state.read().bytes
    }

    /// The file or folder.
    pub(super) fn place(&self) -> PathBuf {
        let state = self.state.read();
        match &state.manifest {
            Some(_) => state.paths.files.clone(),
            None => state.paths.root.clone(),
        }
    }

    /// How many files it has; 1 where it is one.
    pub(super) fn files(&self) -> usize {
        let state = self.state.read();
        let manifest = usize::from(state.manifest.is_some());
        state.layout.blobs().len() - manifest
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        self.state.read().have.has(piece)
    }

    pub(super) fn have(&self) -> Bits {
        self.state.read().have.clone()
    }

    /// The manifest, where it is a folder's.
    pub(super) fn manifest(&self) -> Option<Bytes> {
        self.state.read().manifest.clone()
    }

    pub(super) fn paths(&self) -> Paths {
        self.state.read().paths.clone()
    }

    pub(super) fn is_whole(&self) -> bool {
        let state = self.state.read();
        state.have.count() == state.layout.pieces() as usize
    }

    /// Where the whole of what the hash is the hash of is, if it is not known yet
    /// whether that is a manifest, and it is not too large for one.
    pub(super) fn unread(&self) -> Option<PathBuf> {
        let state = self.state.read();
        let size = state.layout.root().size;
        let open = state.manifest.is_none() && (1..=MAX_MANIFEST).contains(&size);
        let whole = state.have.count() == state.layout.pieces() as usize;
        (open && whole).then(|| state.paths.root.clone())
    }

    pub(super) fn about(&self) -> About {
        let state = self.state.read();
        About {
            size: state.layout.root().size,
            proof: state.proof.clone(),
            have: state.have.clone(),
            told: state.came.len(),
        }
    }

    /// Pieces that came after so many, at most `most`; or why there will be none.
    pub(super) fn since(&self, told: usize, most: usize) -> Result<Vec<u32>, String> {
        let state = self.state.read();
        match &state.ended {
            Some(why) => Err(why.clone()),
            None => Ok(state.came.iter().skip(told).take(most).copied().collect()),
        }
    }

    /// Tells when there is more to tell.
    pub(super) fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }

    /// A piece with its proof. An error also where what is on disk is not what it
    /// was. Blocks.
    pub(super) fn prove(&self, piece: u32) -> io::Result<Vec<u8>> {
        let state = self.state.read();
        if let Some(why) = &state.ended {
            return Err(io::Error::other(why.clone()));
        }
        let place = state.layout.place(piece).filter(|_| state.have.has(piece));
        let place = place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.prove(place)
    }

    /// Whether a piece that is noted is on disk as it should be. Blocks.
    pub(super) fn is_there(&self, piece: u32) -> bool {
        let state = self.state.read();
        let place = state.layout.place(piece);
        place.is_some_and(|place| state.prove(place).is_ok())
    }

    /// Checks a piece that another leaf sent. `None`: it is wrong. Blocks.
    pub(super) fn check(&self, piece: u32, encoded: &[u8]) -> Option<Proved> {
        let state = self.state.read();
        let place = state.layout.place(piece)?;
        state.trees[place.blob].check(place.piece, encoded)
    }

    /// Where a piece belongs: a file, and bytes into it.
    pub(super) fn target(&self, piece: u32) -> Option<(PathBuf, u64)> {
        let state = self.state.read();
        let place = state.layout.place(piece)?;
        let path = state.paths.of(&state.layout.blobs()[place.blob].path);
        Some((path, u64::from(place.piece) * PIECE))
    }

    /// Takes in hashes that a proof told; which are new.
    pub(super) fn learn(&self, piece: u32, pairs: Vec<Pair>) -> Vec<Pair> {
        let mut state = self.state.write();
        match state.layout.place(piece) {
            Some(place) => state.trees[place.blob].learn(pairs),
            None => Vec::new(),
        }
    }

    /// A piece is on disk now.
    pub(super) fn gained(&self, piece: u32) {
        let mut state = self.state.write();
        if state.have.set(piece) {
            state.bytes += state.layout.size_of(piece);
            state.came.push(piece);
            let count = state.came.len();
            drop(state);
            self.news.send_replace(count);
        }
    }

    /// What is known to be a manifest lists these files.
    pub(super) fn unfold(&self, manifest: Bytes, layout: Layout) {
        let mut state = self.state.write();
        let known = state.trees.len();
        let further = layout.blobs()[known..].iter();
        let further: Vec<Tree> = further
            .map(|blob| Tree::empty(blob.hash, blob.size))
            .collect();
        state.trees.extend(further);
        state.layout = layout;
        state.manifest = Some(manifest);
    }

    /// Moves the data by `how`, while nobody reads it.
    pub(super) fn relocate(
        &self,
        to: Paths,
        how: impl FnOnce(&Paths) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.write();
        how(&state.paths)?;
        state.paths = to;
        Ok(())
    }

    /// Serves it no more.
    pub(super) fn end(&self, why: &str) {
        self.state.write().ended = Some(why.to_owned());
        self.news.send_modify(|_| {});
    }

    /// All hashes of all blobs, one after the other.
    pub(super) fn pairs(&self) -> Vec<u8> {
        let state = self.state.read();
        state.trees.iter().flat_map(Tree::pairs).copied().collect()
    }
}

impl State {
    fn prove(&self, place: Place) -> io::Result<Vec<u8>> {
        self.trees[place.blob].prove(self.open(place.blob)?, place.piece)
    }

    fn open(&self, blob: usize) -> io::Result<Data> {
        match &self.manifest {
            Some(manifest) if blob == 0 => Ok(Data::Memory(manifest.clone())),
            _ => Data::open(&self.paths.of(&self.layout.blobs()[blob].path)),
        }
    }
}

enum Data {
    Memory(Bytes),
    File(File),
}

impl Data {
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::File)
    }
}

impl ReadAt for Data {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(data) => (&data[..]).read_at(at, into),
            Self::File(file) => file.read_at(at, into),
        }
    }
}
