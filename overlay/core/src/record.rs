//! What the index holds: records signed by their publisher, sequenced,
//! expiring, and checked by every holder.

use std::collections::BTreeSet;

use canopy_proto::wire::record::Payload;
use canopy_proto::{limits, wire};
use prost::Message;

use crate::identity::{Domain, Identity, SignatureError, open};
use crate::keyspace::{Key, NodeId, keys};
use crate::text;

/// Longest name of a value or item, bytes.
pub const MAX_NAME: usize = 1024;
/// Most terms of an item.
pub const MAX_TERMS: usize = 64;
/// Longest term, bytes.
pub const MAX_TERM: usize = 64;
/// Characters of a term that its prefix key is made of; shorter terms have
/// none. One character is enough in scripts written without spaces, whose terms
/// are pairs.
pub const PREFIX_CHARS: usize = 3;
/// Longest lifetime, seconds (30 days).
pub const MAX_TTL_S: u32 = 30 * 24 * 3600;
/// How far ahead of a holder's clock a publisher's may be, milliseconds: what is
/// issued later would be held longer than any lifetime.
pub const MAX_CLOCK_AHEAD_MS: u64 = 10_000;

const WHOLE: &str = "the record's size in bytes";
const NAME: &str = "the name's size in bytes";

/// Why a record was refused. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not signed by its publisher.
    #[error("record: {0}")]
    Signature(#[from] SignatureError),
    /// Signed by another than the publisher it names.
    #[error("record: signed by another peer than its publisher")]
    Publisher,
    /// Made for another network.
    #[error("record: made for network {0:?}")]
    Network(String),
    /// Its lifetime is over.
    #[error("record: expired; publish it again")]
    Expired,
    /// Issued in the future: one of the two clocks is off.
    #[error("record: issued {0} ms in the future; check the clocks")]
    Future(u64),
    /// Larger than allowed.
    #[error("record: {what} is {size}, the limit is {limit}; make it smaller")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size, bytes or entries.
        size: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A part is missing or malformed.
    #[error("record: {0}")]
    Shape(&'static str),
}

/// A verified record, with the signed form that is stored and passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who signed it.
    pub publisher: NodeId,
    /// The decoded body.
    pub body: wire::Record,
    /// What was signed.
    pub signed: wire::Signed,
}

impl Record {
    /// Makes and signs a record; fails where [`Record::open`] would refuse it.
    pub fn sign(
        identity: &Identity,
        network: &str,
        sequence: u64,
        now_ms: u64,
        ttl_s: u32,
        payload: Payload,
    ) -> Result<Self, RecordError> {
        let body = wire::Record {
            network: network.to_owned(),
            publisher: identity.node_id().to_bytes(),
            sequence,
            issued_ms: now_ms,
            ttl_s,
            removed: false,
            payload: Some(payload),
        };
        Self::sign_body(identity, body, now_ms)
    }

    /// Makes and signs the removal of what `payload` names. It hides earlier
    /// sequences for `ttl_s` seconds.
    pub fn sign_removal(
        identity: &Identity,
        network: &str,
        sequence: u64,
        now_ms: u64,
        ttl_s: u32,
        payload: Payload,
    ) -> Result<Self, RecordError> {
        let body = wire::Record {
            network: network.to_owned(),
            publisher: identity.node_id().to_bytes(),
            sequence,
            issued_ms: now_ms,
            ttl_s,
            removed: true,
            payload: Some(payload),
        };
        Self::sign_body(identity, body, now_ms)
    }

    fn sign_body(
        identity: &Identity,
        body: wire::Record,
        now_ms: u64,
    ) -> Result<Self, RecordError> {
        check(&body, &body.network, now_ms)?;
        let signed = identity.sign(Domain::Record, &body);
        at_most(WHOLE, signed.encoded_len(), limits::RECORD)?;
        Ok(Self {
            publisher: identity.node_id(),
            body,
            signed,
        })
    }

    /// Checks signature, limits, network and clock of a record from outside that
    /// is to be held here.
    pub fn open(signed: &wire::Signed, network: &str, now_ms: u64) -> Result<Self, RecordError> {
        let record = Self::read(signed, network, now_ms)?;
        let issued_ms = record.body.issued_ms;
        if issued_ms > now_ms.saturating_add(MAX_CLOCK_AHEAD_MS) {
            return Err(RecordError::Future(issued_ms - now_ms));
        }
        Ok(record)
    }

    /// As [`Record::open`] for a record that others hold: they judged by their
    /// clocks when it was issued. One whose own clock is behind can read it.
    pub fn read(signed: &wire::Signed, network: &str, now_ms: u64) -> Result<Self, RecordError> {
        at_most(WHOLE, signed.encoded_len(), limits::RECORD)?;
        let (signer, body) = open::<wire::Record>(Domain::Record, signed)?;
        if body.publisher != signer.0.as_slice() {
            return Err(RecordError::Publisher);
        }
        check(&body, network, now_ms)?;
        Ok(Self {
            publisher: signer,
            body,
            signed: signed.clone(),
        })
    }

    /// As [`Record::read`] for a record whose signature the caller has checked
    /// before, over the very same bytes.
    pub fn reopen(signed: &wire::Signed, network: &str, now_ms: u64) -> Result<Self, RecordError> {
        let record = Self::trusted(signed)?;
        if record.body.publisher != record.publisher.0.as_slice() {
            return Err(RecordError::Publisher);
        }
        check(&record.body, network, now_ms)?;
        Ok(record)
    }

    /// Reads a record that this node checked before it stored it.
    pub fn trusted(signed: &wire::Signed) -> Result<Self, RecordError> {
        let publisher = NodeId::from_slice(&signed.signer).ok_or(SignatureError::Signer)?;
        let body = wire::Record::decode(signed.body.clone()).map_err(|_| SignatureError::Body)?;
        Ok(Self {
            publisher,
            body,
            signed: signed.clone(),
        })
    }

    /// Names the record: later sequences of the same id replace earlier ones.
    pub fn id(&self) -> Key {
        let payload = self.body.payload.as_ref();
        payload.map_or_else(Key::default, |payload| id_of(&self.publisher, payload))
    }

    /// The keys whose owners hold this record: one for most kinds, one for each
    /// term and each term's prefix for an item.
    pub fn placement_keys(&self) -> Vec<Key> {
        match &self.body.payload {
            Some(Payload::Provider(p)) => p
                .content
                .as_ref()
                .try_into()
                .map(|hash| vec![keys::provider(hash)])
                .unwrap_or_default(),
            Some(Payload::Item(item)) => {
                let prefixes: BTreeSet<&str> =
                    item.terms.iter().filter_map(|t| prefix_of(t)).collect();
                let terms = item.terms.iter().map(|term| keys::term(term));
                terms
                    .chain(prefixes.into_iter().map(keys::term_prefix))
                    .collect()
            }
            Some(Payload::Letter(letter)) => NodeId::from_slice(&letter.to)
                .map(|to| vec![keys::mailbox(&to)])
                .unwrap_or_default(),
            _ => vec![self.id()],
        }
    }

    /// The first of [`Record::placement_keys`], without working out the others.
    pub fn first_key(&self) -> Option<Key> {
        match &self.body.payload {
            Some(Payload::Provider(p)) => {
                let content = p.content.as_ref().try_into().ok()?;
                Some(keys::provider(content))
            }
            Some(Payload::Item(item)) => item.terms.first().map(|term| keys::term(term)),
            Some(Payload::Letter(letter)) => Some(keys::mailbox(&NodeId::from_slice(&letter.to)?)),
            _ => Some(self.id()),
        }
    }

    /// When it ends, milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        expires_ms(&self.body)
    }
}

/// Names the record in which `publisher` says `payload`; see [`Record::id`].
pub fn id_of(publisher: &NodeId, payload: &Payload) -> Key {
    match payload {
        Payload::Value(v) if v.name.is_empty() => keys::content_value(&v.data),
        Payload::Value(v) => keys::value(publisher, &v.name),
        Payload::Provider(p) => Key::hash("provider record", &[&publisher.0, &p.content]),
        Payload::Item(i) => Key::hash("item record", &[&publisher.0, i.name.as_bytes()]),
        Payload::Location(_) => keys::location(publisher),
        Payload::Letter(l) => Key::hash("letter record", &[&l.from, &l.to, &l.id]),
    }
}

/// The beginning of `term` that its prefix key is made of, if it is long enough.
pub fn prefix_of(term: &str) -> Option<&str> {
    let chars = match term.chars().next().is_some_and(text::is_unspaced) {
        true => 1,
        false => PREFIX_CHARS,
    };
    let (end, last) = term.char_indices().nth(chars - 1)?;
    Some(&term[..end + last.len_utf8()])
}

fn expires_ms(body: &wire::Record) -> u64 {
    body.issued_ms.saturating_add(u64::from(body.ttl_s) * 1000)
}

fn check(body: &wire::Record, network: &str, now_ms: u64) -> Result<(), RecordError> {
    if body.network != network {
        return Err(RecordError::Network(
            body.network.chars().take(64).collect(),
        ));
    }
    at_most(
        "the lifetime in seconds",
        body.ttl_s as usize,
        MAX_TTL_S as usize,
    )?;
    if expires_ms(body) <= now_ms {
        return Err(RecordError::Expired);
    }
    match body
        .payload
        .as_ref()
        .ok_or(RecordError::Shape("has no payload"))?
    {
        Payload::Value(value) => {
            at_most(NAME, value.name.len(), MAX_NAME)?;
            at_most("the value's size in bytes", value.data.len(), limits::VALUE)
        }
        Payload::Provider(provider) if provider.content.len() != 32 => Err(RecordError::Shape(
            "a provider's content hash is not 32 bytes",
        )),
        Payload::Provider(_) => Ok(()),
        Payload::Item(item) => check_item(item),
        Payload::Letter(letter) => check_letter(body, letter),
        Payload::Location(location) => {
            at_most("the number of homes", location.homes.len(), 8)?;
            match location.homes.iter().all(|home| home.len() == 32) {
                true => Ok(()),
                false => Err(RecordError::Shape("a home is not a node id")),
            }
        }
    }
}

/// Its sender alone publishes a letter; its addressee may remove it as well.
fn check_letter(body: &wire::Record, letter: &wire::Letter) -> Result<(), RecordError> {
    if letter.from.len() != 32 || letter.to.len() != 32 || letter.id.len() != 16 {
        return Err(RecordError::Shape(
            "a letter is not named by two peers and an id",
        ));
    }
    let of_sender = body.publisher == letter.from;
    let of_addressee = body.removed && body.publisher == letter.to;
    if !(of_sender || of_addressee) {
        return Err(RecordError::Shape(
            "a letter is published by its sender, and removed by sender or addressee",
        ));
    }
    if letter.envelope.is_none() != body.removed {
        return Err(RecordError::Shape(
            "a letter has an envelope, and its removal none",
        ));
    }
    // A removal must find a later one.
    match body.removed || body.sequence < u64::MAX {
        true => Ok(()),
        false => Err(RecordError::Shape("a letter has the last of all sequences")),
    }
}

fn check_item(item: &wire::Item) -> Result<(), RecordError> {
    if item.name.is_empty() {
        return Err(RecordError::Shape("an item has no name"));
    }
    if item.terms.is_empty() {
        return Err(RecordError::Shape("an item has no searchable term"));
    }
    at_most(NAME, item.name.len(), MAX_NAME)?;
    at_most("the number of terms", item.terms.len(), MAX_TERMS)?;
    at_most("the number of attributes", item.attributes.len(), 32)?;
    let longest = item.terms.iter().map(String::len).max().unwrap_or(0);
    at_most("the size of a term in bytes", longest, MAX_TERM)?;
    if item.terms.iter().any(String::is_empty) {
        return Err(RecordError::Shape("an item has an empty term"));
    }
    if !matches!(item.content.len(), 0 | 32) {
        return Err(RecordError::Shape("an item's content hash is not 32 bytes"));
    }
    Ok(())
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), RecordError> {
    if size > limit {
        return Err(RecordError::TooLarge { what, size, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const NOW: u64 = 1_800_000_000_000;

    fn value(size: usize) -> Payload {
        Payload::Value(wire::Value {
            name: "n".into(),
            data: Bytes::from(vec![1; size]),
        })
    }

    fn identity() -> Identity {
        Identity::from_secret([3; 32])
    }

    #[test]
    fn a_record_opens_in_its_network_and_lifetime_only() {
        let record = Record::sign(&identity(), "net", 1, NOW, 60, value(10)).unwrap();
        assert_eq!(Record::open(&record.signed, "net", NOW), Ok(record.clone()));
        assert_eq!(Record::trusted(&record.signed), Ok(record.clone()));
        assert!(matches!(
            Record::open(&record.signed, "x", NOW),
            Err(RecordError::Network(_))
        ));
        assert_eq!(
            Record::open(&record.signed, "net", NOW + 60_000),
            Err(RecordError::Expired)
        );
        let early = NOW - MAX_CLOCK_AHEAD_MS - 1;
        assert!(matches!(
            Record::open(&record.signed, "net", early),
            Err(RecordError::Future(_))
        ));
        // Who only reads may have a clock that is behind.
        assert_eq!(Record::read(&record.signed, "net", early), Ok(record));
    }

    #[test]
    fn a_value_over_the_limit_is_refused_when_it_is_made() {
        let sign = |size| Record::sign(&identity(), "net", 1, NOW, 60, value(size));
        let open = |record: Record| Record::open(&record.signed, "net", NOW);
        assert!(sign(limits::VALUE).and_then(open).is_ok());
        assert!(matches!(
            sign(limits::VALUE + 1),
            Err(RecordError::TooLarge { .. })
        ));
    }

    #[test]
    fn an_item_over_the_limit_is_refused_when_it_is_made() {
        let sign = |size| {
            let item = wire::Item {
                name: "a".into(),
                terms: vec!["word".into()],
                text: "x".repeat(size),
                ..Default::default()
            };
            Record::sign(&identity(), "net", 1, NOW, 60, Payload::Item(item))
        };
        let open = |record: Record| Record::open(&record.signed, "net", NOW);
        assert!(sign(limits::VALUE).and_then(open).is_ok());
        assert!(matches!(
            sign(limits::RECORD),
            Err(RecordError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_letter_is_published_by_its_sender_and_removed_by_its_addressee_too() {
        let id = |secret| Identity::from_secret([secret; 32]);
        let letter = |removed: bool| {
            Payload::Letter(wire::Letter {
                from: id(1).node_id().to_bytes(),
                to: id(2).node_id().to_bytes(),
                id: Bytes::from_static(&[9; 16]),
                envelope: (!removed).then(wire::Signed::default),
            })
        };
        let sign = |by: u8| Record::sign(&id(by), "net", 5, NOW, 60, letter(false));
        let remove = |by: u8| Record::sign_removal(&id(by), "net", 6, NOW, 60, letter(true));
        let sent = sign(1).unwrap();
        assert_eq!(sent.placement_keys(), [keys::mailbox(&id(2).node_id())]);
        assert!(sign(2).is_err() && sign(3).is_err() && remove(3).is_err());
        assert_eq!(remove(1).unwrap().id(), sent.id());
        assert_eq!(remove(2).unwrap().id(), sent.id());
        let whole = Record::sign_removal(&id(2), "net", 6, NOW, 60, letter(false));
        assert!(whole.is_err());
    }

    #[test]
    fn an_item_is_placed_under_each_term_and_prefix_once() {
        let item = wire::Item {
            name: "a".into(),
            terms: vec!["canopy".into(), "canon".into(), "木".into()],
            ..Default::default()
        };
        let record = Record::sign(&identity(), "net", 1, NOW, 60, Payload::Item(item)).unwrap();
        assert_eq!(
            record.placement_keys(),
            vec![
                keys::term("canopy"),
                keys::term("canon"),
                keys::term("木"),
                keys::term_prefix("can"),
                keys::term_prefix("木")
            ]
        );
    }
}
