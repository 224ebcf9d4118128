//! Searchable items: what an app publishes, and what a search finds.

use std::collections::BTreeMap;

use blake3::Hash;
use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use canopy_core::record::MAX_TERMS;
use canopy_core::text;
use canopy_proto::wire;

use super::query::Query;

/// Something to be found by its words. Its publisher and its name identify it:
/// publishing the same name again replaces it.
///
/// ```
/// use canopy_leaf::Item;
/// let item = Item::new("photos/panda.jpg")
///     .text("a red panda eats bamboo")
///     .attribute("author", "ann")
///     .media_type("image/jpeg")
///     .size(48_211);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Names the item among its publisher's; 1 to 1024 bytes.
    pub name: String,
    /// Its words are searchable beside those of the name.
    pub text: String,
    /// What filters ask for; at most 32.
    pub attributes: BTreeMap<String, String>,
    /// BLAKE3 hash of what it describes.
    pub content: Option<Hash>,
    /// Size of what it describes, bytes.
    pub size: u64,
    /// E.g. `text/plain`.
    pub media_type: String,
    /// Further text whose words are searchable, and which is not kept.
    pub words: String,
}

impl Item {
    /// An item of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Text that is kept with the item, and whose words find it. Keep it
    /// short: the item is stored once for each of its words.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Makes the words of `text` searchable without keeping the text.
    #[must_use]
    pub fn words(mut self, text: impl Into<String>) -> Self {
        self.words = text.into();
        self
    }

    /// Sets an attribute that filters can ask for.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// The BLAKE3 hash of what the item describes.
    #[must_use]
    pub fn content(mut self, hash: Hash) -> Self {
        self.content = Some(hash);
        self
    }

    /// The size of what the item describes, bytes.
    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// The media type of what the item describes.
    #[must_use]
    pub fn media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = media_type.into();
        self
    }

    /// The words that find it: of the name, the text and the further words, in
    /// this order, up to [`MAX_TERMS`].
    pub fn terms(&self) -> Vec<String> {
        let mut terms = text::terms(&self.name);
        for text in [&self.text, &self.words] {
            for word in text::terms(text) {
                if terms.len() >= MAX_TERMS {
                    break;
                }
                if !terms.contains(&word) {
                    terms.push(word);
                }
            }
        }
        terms.truncate(MAX_TERMS);
        terms
    }

    pub(crate) fn to_wire(&self) -> wire::Item {
        let hash = |hash: Hash| Bytes::copy_from_slice(hash.as_bytes());
        wire::Item {
            terms: self.terms(),
            name: self.name.clone(),
            text: self.text.clone(),
            attributes: self.attributes.clone(),
            content: self.content.map(hash).unwrap_or_default(),
            size: self.size,
            media_type: self.media_type.clone(),
        }
    }

    pub(crate) fn from_wire(item: wire::Item) -> Self {
        let content = item.content.as_ref().try_into().ok().map(Hash::from_bytes);
        Self {
            name: item.name,
            text: item.text,
            attributes: item.attributes,
            content,
            size: item.size,
            media_type: item.media_type,
            words: String::new(),
        }
    }
}

/// An item that a search found. Its signature has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Who published it.
    pub publisher: NodeId,
    /// What was published.
    pub item: Item,
    /// The words that find it.
    pub terms: Vec<String>,
    /// Rank; higher is better.
    pub score: f32,
    /// Later sequences replaced earlier ones.
    pub sequence: u64,
    /// When it was published, by the publisher's clock, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
}

/// One page of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Asks for the page after this one; absent on the last.
    pub next: Option<Query>,
    /// Items that match in all, as far as the super-node counted.
    pub total: u64,
    /// Hits left out because they were forged, expired or did not match.
    pub rejected: usize,
    /// More than one super-node was asked because the first was slow.
    pub hedged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_name_come_first_and_the_list_is_bounded() {
        let many: Vec<String> = (0..200).map(|i| format!("w{i}")).collect();
        let item = Item::new("Red-Panda")
            .text("panda eats")
            .words(many.join(" "));
        let terms = item.terms();
        assert_eq!(terms[..4], ["red", "panda", "eats", "w0"]);
        assert_eq!(terms.len(), MAX_TERMS);
    }

    #[test]
    fn an_item_survives_the_wire() {
        let item = Item::new("a b")
            .attribute("k", "v")
            .content(blake3::hash(b"x"))
            .size(7);
        let back = Item::from_wire(item.to_wire());
        assert_eq!(back.to_wire(), item.to_wire());
    }
}
