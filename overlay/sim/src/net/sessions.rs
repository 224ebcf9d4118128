//! Who has a session with whom, and in what state it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being opened, or open; messages arrive from `from` (microseconds) on.
    Open {
        /// When the handshake is done.
        from: u64,
    },
    /// One side is gone, and the other has not noticed yet: what it sends is lost.
    Dead,
}

/// A session of two peers, the lower number first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) state: State,
    /// Tells this session from earlier ones of the same two.
    pub(crate) number: u32,
    /// When the last message arrives, each way: later ones do not overtake it.
    pub(crate) last: [u64; 2],
}

/// A hash for keys that are spread already. Nothing iterates over the map.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

pub(crate) type SpreadMap<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    by_pair: SpreadMap<u64, Session>,
    numbers: u32,
}

fn pair(a: u32, b: u32) -> u64 {
    (u64::from(a.min(b)) << 32) | u64::from(a.max(b))
}

impl Sessions {
    pub(crate) fn get(&self, a: u32, b: u32) -> Option<&Session> {
        self.by_pair.get(&pair(a, b))
    }

    pub(crate) fn get_mut(&mut self, a: u32, b: u32) -> Option<&mut Session> {
        self.by_pair.get_mut(&pair(a, b))
    }

    /// Opens a session in place of whatever there was; returns its number.
    pub(crate) fn open(&mut self, a: u32, b: u32, from: u64) -> u32 {
        self.numbers = self.numbers.wrapping_add(1);
        let session = Session {
            state: State::Open { from },
            number: self.numbers,
            last: [0; 2],
        };
        self.by_pair.insert(pair(a, b), session);
        self.numbers
    }

    pub(crate) fn remove(&mut self, a: u32, b: u32) -> Option<Session> {
        self.by_pair.remove(&pair(a, b))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_pair.len()
    }
}
