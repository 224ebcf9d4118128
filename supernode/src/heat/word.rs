//! A word or a name, or the beginning of one, in a fixed room: it is counted
//! without an allocation.

use std::fmt;

use canopy_core::record::MAX_TERM;
use canopy_proto::limits;

/// What was searched for.
pub type Word = Text<MAX_TERM>;
/// The name of a topic.
pub type TopicName = Text<{ limits::TOPIC }>;

/// Text of at most `ROOM` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const ROOM: usize> {
    text: [u8; ROOM],
    len: u16,
    /// Only the beginning is known.
    begins: bool,
}

impl<const ROOM: usize> Text<ROOM> {
    const FITS: () = assert!(ROOM <= u16::MAX as usize);

    /// The whole of it; what is over `ROOM` bytes is cut.
    pub fn whole(text: &str) -> Self {
        Self::new(text, false)
    }

    /// What it begins with; cut as in [`Text::whole`].
    pub fn beginning(text: &str) -> Self {
        Self::new(text, true)
    }

    fn new(word: &str, begins: bool) -> Self {
        const { Self::FITS };
        let mut end = word.len().min(ROOM);
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = [0; ROOM];
        text[..end].copy_from_slice(&word.as_bytes()[..end]);
        Self {
            text,
            // At most ROOM.
            len: end as u16,
            begins,
        }
    }
}

impl<const ROOM: usize> Default for Text<ROOM> {
    fn default() -> Self {
        Self::whole("")
    }
}

impl<const ROOM: usize> fmt::Display for Text<ROOM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.text[..usize::from(self.len)]);
        let more = if self.begins { "*" } else { "" };
        write!(f, "{text}{more}")
    }
}

impl<const ROOM: usize> fmt::Debug for Text<ROOM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
