//! A term, or the beginning of one, in a fixed room: it is counted without an
//! allocation.

use std::fmt;

use canopy_core::record::MAX_TERM;

/// What was searched for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    text: [u8; MAX_TERM],
    len: u8,
    /// Only the beginning of a term.
    begins: bool,
}

const _: () = assert!(MAX_TERM <= u8::MAX as usize);

impl Word {
    /// A whole term; what is over [`MAX_TERM`] bytes is cut.
    pub fn term(term: &str) -> Self {
        Self::new(term, false)
    }

    /// What terms begin with; cut as in [`Word::term`].
    pub fn prefix(prefix: &str) -> Self {
        Self::new(prefix, true)
    }

    fn new(word: &str, begins: bool) -> Self {
        let mut end = word.len().min(MAX_TERM);
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = [0; MAX_TERM];
        text[..end].copy_from_slice(&word.as_bytes()[..end]);
        Self {
            text,
            // At most MAX_TERM.
            len: end as u8,
            begins,
        }
    }
}

impl Default for Word {
    fn default() -> Self {
        Self::term("")
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.text[..usize::from(self.len)]);
        let more = if self.begins { "*" } else { "" };
        write!(f, "{text}{more}")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
