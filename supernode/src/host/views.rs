//! What this peer tells of shards and hot keys.

use std::collections::HashMap;

use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_overlay::peer::Peer;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use tokio::time::Instant;

use super::Host;
use crate::heat::{Heavy, Kind, Top, TopicName, Word};
use crate::relay::FlowFigures;
use crate::service::IndexService;

/// Most entries of a [`wire::Hot`].
pub(crate) const MAX_HOT: usize = 256;
/// Longest name told of what is under a key, characters.
const MAX_NAME: usize = 64;

impl Host {
    /// This peer's part of each shard; empty while it has no index, or has not
    /// counted yet.
    pub(super) async fn shard_parts(&self) -> wire::ShardParts {
        let Some(service) = self.inner.reach.role.service() else {
            return wire::ShardParts::default();
        };
        let parts = service.shard_parts().await;
        let Some(held) = parts.held else {
            return wire::ShardParts::default();
        };
        let ago = Instant::now().saturating_duration_since(held.at);
        let per_s = parts.done.per_s.iter();
        wire::ShardParts {
            records: held.tally.records.to_vec(),
            copies: held.tally.copies.to_vec(),
            bytes: held.tally.bytes.to_vec(),
            counted_ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
            operations: parts.done.operations.to_vec(),
            operations_milli_per_s: per_s.map(|rate| (rate * 1000.0) as u64).collect(),
            unconfirmed: held.unconfirmed.map(u64::from).to_vec(),
            settling: held.settling,
        }
    }

    /// What gave this peer most work of late.
    pub(super) async fn hot(&self, ask: &wire::HotAsk) -> wire::Hot {
        let service = self.inner.reach.role.service();
        let (Some(kind), Some(service)) = (Kind::named(&ask.kind), service) else {
            return wire::Hot::default();
        };
        let limit = (ask.limit as usize).min(MAX_HOT);
        let (heat, now_ms) = (service.heat(), self.now_ms());
        let name = kind.as_str();
        match kind {
            Kind::Key => {
                let words = words_by_key(&service, now_ms);
                let what = |id: &[u8; 32]| what(&service, &words, &Key(*id), now_ms);
                told(name, heat.keys(now_ms, limit), |id| id.to_vec(), what)
            }
            Kind::Term => {
                let bytes = |word: &Word| word.to_string().into_bytes();
                told(name, heat.terms(now_ms, limit), bytes, |_| String::new())
            }
            Kind::Publisher => {
                let top = heat.publishers(now_ms, limit);
                told(name, top, |id| id.to_vec(), |_| String::new())
            }
            Kind::Topic => {
                let bytes = |topic: &TopicName| topic.to_string().into_bytes();
                let top = self.inner.reach.role.hot_topics(limit);
                told(name, top, bytes, |_| String::new())
            }
            Kind::Flow => {
                let top = match self.inner.reach.role.relay() {
                    Some(relay) => relay.top(limit).await,
                    None => None,
                };
                let top = top.unwrap_or_default();
                told(name, top, FlowFigures::ends, FlowFigures::to_string)
            }
        }
    }
}

fn told<I>(
    kind: &str,
    top: Top<I>,
    id: impl Fn(&I) -> Vec<u8>,
    what: impl Fn(&I) -> String,
) -> wire::Hot {
    let entry = |heavy: &Heavy<I>| wire::HotEntry {
        id: id(&heavy.id).into(),
        count: heavy.count,
        at_most: heavy.at_most,
        what: what(&heavy.id),
    };
    wire::Hot {
        kind: kind.to_owned(),
        entries: top.heavy.iter().map(entry).collect(),
        total: top.total,
        unlisted: top.unlisted,
    }
}

/// The words searched for most, by their keys: a key alone does not tell its word.
fn words_by_key(service: &IndexService<Peer>, now_ms: u64) -> HashMap<Key, String> {
    let top = service.heat().terms(now_ms, MAX_HOT);
    let words = top.heavy.iter().map(|heavy| heavy.id.to_string());
    let keyed = words.map(|word| match word.strip_suffix('*') {
        Some(prefix) => (keys::term_prefix(prefix), word),
        None => (keys::term(&word), word),
    });
    keyed.collect()
}

/// What is under `key`, in words, as far as this peer holds it.
fn what(
    service: &IndexService<Peer>,
    words: &HashMap<Key, String>,
    key: &Key,
    now_ms: u64,
) -> String {
    if let Some(word) = words.get(key) {
        return format!("items with {}", cut(word));
    }
    let held = service.index().get(key, now_ms, 1, false);
    let record = held.first().and_then(|signed| Record::trusted(signed).ok());
    record.map_or_else(String::new, |record| in_words(&record))
}

fn in_words(record: &Record) -> String {
    let by = record.publisher.short();
    match &record.body.payload {
        Some(Payload::Value(value)) if value.name.is_empty() => {
            format!("content of {} bytes", value.data.len())
        }
        Some(Payload::Value(value)) => format!("value {} by {by}", cut(&value.name)),
        Some(Payload::Provider(provider)) => {
            let content = NodeId::from_slice(&provider.content);
            format!(
                "providers of {}",
                content.map_or_else(String::new, |c| c.short())
            )
        }
        Some(Payload::Location(_)) => format!("where {by} is"),
        Some(Payload::Letter(_)) => format!("a message of {by} for who is away"),
        Some(Payload::Item(item)) => format!("item {} by {by}", cut(&item.name)),
        None => String::new(),
    }
}

/// Names come from anybody.
fn cut(name: &str) -> String {
    let shown = name.chars().take(MAX_NAME);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
