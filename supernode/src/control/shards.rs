//! Shards of the keyspace: who owns their keys, by the placement, and what the
//! owners have of them, by their own count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Placement, R};
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply};
use parking_lot::Mutex;
use pb::get_shard_request::Which;
use tonic::Status;

use super::convert;
use super::page::{Order, Page, ValueOf, number, rate, size};
use super::poll::{Answers, Known, Poll, WRONG_KIND};
use super::survey::Member;
use crate::heat::{SHARDS, shard_of};
use crate::host::Host;

/// Counts younger than this are not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// Keys of a shard whose owners are looked for.
const SAMPLES: usize = 64;
/// Owners told of one shard.
const MAX_OWNERS: usize = 1000;

/// What to order by, in the words of the API.
const ORDERS: [(&str, ValueOf<pb::Shard>); 6] = [
    ("shard", |shard| number(shard.shard)),
    ("operations", |shard| rate(shard.operations_per_s)),
    ("records", |shard| number(shard.records)),
    ("copies", |shard| number(shard.copies)),
    ("bytes", |shard| number(shard.bytes)),
    ("owners", |shard| number(shard.owners)),
];

fn id(shard: &pb::Shard) -> String {
    format!("{:02x}", shard.shard)
}

/// Who owns how many of the [`SAMPLES`] keys of each shard.
#[derive(Debug)]
pub(super) struct Layout {
    placement: Placement,
    owned: Vec<BTreeMap<NodeId, u32>>,
}

impl Layout {
    fn of(placement: Placement) -> Self {
        let owned = (0..SHARDS).map(|shard| {
            let mut owned: BTreeMap<NodeId, u32> = BTreeMap::new();
            for sample in 0..SAMPLES {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&[shard as u8, (sample * 256 / SAMPLES) as u8]);
                for owner in placement.owner_set(&Key(key)).iter() {
                    *owned.entry(*owner).or_default() += 1;
                }
            }
            owned
        });
        Self {
            owned: owned.collect(),
            placement,
        }
    }
}

/// What all super-nodes have of all shards, at a moment.
pub(super) struct Shards {
    layout: Arc<Layout>,
    parts: Answers<wire::ShardParts>,
}

/// Asks for shards, for one control plane.
#[derive(Debug)]
pub(super) struct ShardSurvey {
    host: Host,
    poll: Poll<wire::ShardParts>,
    /// The last one, for as long as nobody comes or goes.
    layout: Mutex<Option<Arc<Layout>>>,
}

impl ShardSurvey {
    pub(super) fn new(host: Host) -> Self {
        let ask = inspect::What::Shards(wire::ShardsAsk {});
        Self {
            poll: Poll::new(host.clone(), ask, read, FRESH),
            host,
            layout: Mutex::default(),
        }
    }

    pub(super) async fn take(&self, members: impl Iterator<Item = &Member>) -> Shards {
        let parts = self.poll.take(members).await;
        let placement = self.host.placement();
        let mut last = self.layout.lock();
        let layout = match last
            .take()
            .filter(|l| l.placement.same_snapshot(&placement))
        {
            Some(layout) => layout,
            None => Arc::new(Layout::of(placement)),
        };
        *last = Some(layout.clone());
        Shards { layout, parts }
    }
}

fn read(what: inspect_reply::What) -> Result<wire::ShardParts, String> {
    let inspect_reply::What::Shards(parts) = what else {
        return Err(WRONG_KIND.to_owned());
    };
    let lists = [
        &parts.records,
        &parts.copies,
        &parts.bytes,
        &parts.operations,
        &parts.operations_milli_per_s,
        &parts.unconfirmed,
    ];
    match lists {
        lists if lists.iter().all(|list| list.len() == SHARDS) => Ok(parts),
        lists if lists.iter().all(|list| list.is_empty()) => {
            Err("has not counted its records yet; ask again".to_owned())
        }
        _ => Err(WRONG_KIND.to_owned()),
    }
}

fn age_ms(known: &Known<wire::ShardParts>) -> u64 {
    known.age_ms().saturating_add(known.told.counted_ms_ago)
}

/// One super-node's part, as it was told; counts come from outside.
fn owner(
    node: NodeId,
    shard: usize,
    owned: u32,
    known: Option<&Known<wire::ShardParts>>,
) -> pb::ShardOwner {
    let part = pb::ShardOwner {
        node_id: node.to_string(),
        share_milli: owned * 1000 / SAMPLES as u32,
        ..Default::default()
    };
    let Some(known) = known else { return part };
    let told = &known.told;
    pb::ShardOwner {
        reached: true,
        records: told.records[shard],
        copies: told.copies[shard],
        bytes: told.bytes[shard],
        operations: told.operations[shard],
        operations_per_s: told.operations_milli_per_s[shard] as f64 / 1000.0,
        unconfirmed: told.unconfirmed[shard],
        settling: told.settling,
        age_ms: age_ms(known),
        ..part
    }
}

impl Shards {
    pub(super) fn freshness(&self) -> pb::Freshness {
        convert::completeness(&self.parts, age_ms)
    }

    /// Owners of keys of a shard, and whoever has something of it.
    fn parts(&self, shard: usize) -> Vec<pb::ShardOwner> {
        let owned = &self.layout.owned[shard];
        let known = |node: &NodeId| self.parts.get(node).and_then(|answer| answer.as_ref().ok());
        let nodes: BTreeSet<NodeId> = owned.keys().chain(self.parts.keys()).copied().collect();
        let part = |node: NodeId| {
            let share = owned.get(&node).copied().unwrap_or(0);
            owner(node, shard, share, known(&node))
        };
        let parts = nodes.into_iter().map(part);
        parts
            .filter(|part| part.share_milli > 0 || part.copies > 0 || part.operations > 0)
            .collect()
    }

    pub(super) fn all(&self) -> Vec<pb::Shard> {
        (0..SHARDS)
            .map(|shard| self.one(shard, &self.parts(shard)))
            .collect()
    }

    fn one(&self, shard: usize, parts: &[pb::ShardOwner]) -> pb::Shard {
        let sum =
            |of: fn(&pb::ShardOwner) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
        let owners = parts
            .iter()
            .filter(|part| part.share_milli > 0 || part.copies > 0);
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        (first[0], last[0]) = (shard as u8, shard as u8);
        let told = pb::Shard {
            shard: shard as u32,
            first: Key(first).to_string(),
            last: Key(last).to_string(),
            owners: owners.clone().count() as u32,
            reached: owners.clone().filter(|part| part.reached).count() as u32,
            records: sum(|part| part.records),
            copies: sum(|part| part.copies),
            bytes: sum(|part| part.bytes),
            operations: sum(|part| part.operations),
            operations_per_s: parts.iter().map(|part| part.operations_per_s).sum(),
            unconfirmed: sum(|part| part.unconfirmed),
            ..Default::default()
        };
        let settling = owners.filter(|part| part.settling).count();
        let why = lacks(self.layout.placement.len(), settling, &told);
        pb::Shard {
            under_replicated: why.is_some(),
            why: why.unwrap_or_default(),
            ..told
        }
    }

    /// Shards that have records, and those of them that are under-replicated.
    pub(super) fn replication(&self) -> (u32, u32) {
        let all = self.all();
        let count = |what: fn(&pb::Shard) -> bool| all.iter().filter(|shard| what(shard)).count();
        let (held, lacking) = (
            count(|shard| shard.copies > 0),
            count(|shard| shard.under_replicated),
        );
        (held as u32, lacking as u32)
    }
}

/// Why a copy of a record may be missing; `None`: none is, as far as is known.
fn lacks(serving: usize, settling: usize, of: &pb::Shard) -> Option<String> {
    match of {
        of if of.copies == 0 => None,
        _ if serving < R => Some(format!(
            "{serving} of the {R} super-nodes that hold a copy each serve"
        )),
        of if of.unconfirmed > 0 => Some(format!(
            "{} records have an owner that has not confirmed its copy",
            of.unconfirmed
        )),
        _ if settling > 0 => Some(format!(
            "{settling} owners have just taken keys over, and may lack records"
        )),
        _ => None,
    }
}

/// A list that was asked for, checked before anybody is asked.
pub(super) struct Query {
    page: Page<pb::Shard>,
    lacking: bool,
}

impl Query {
    pub(super) fn of(request: &pb::ListShardsRequest) -> Result<Self, Status> {
        let most = SHARDS as u32;
        let size = size(request.page_size, most, most)?;
        let order = Order::of(&ORDERS, id, &request.order_by, request.descending)?;
        Ok(Self {
            page: Page::of(order, &request.page_token, size)?,
            lacking: request.under_replicated,
        })
    }

    pub(super) fn page(&self, shards: &Shards) -> pb::ListShardsReply {
        let all = shards.all();
        let passing = all
            .iter()
            .filter(|shard| shard.under_replicated || !self.lacking);
        let cut = self.page.cut(passing);
        pb::ListShardsReply {
            shards: cut.entries.into_iter().cloned().collect(),
            next_page_token: cut.next,
            total: cut.total,
            freshness: Some(shards.freshness()),
        }
    }
}

/// Which shard is asked for.
pub(super) fn wanted(request: &pb::GetShardRequest) -> Result<usize, Status> {
    match &request.which {
        Some(Which::Shard(shard)) => match *shard as usize {
            shard if shard < SHARDS => Ok(shard),
            shard => Err(Status::not_found(format!(
                "shard: there is no {shard}; they are 0 to {}",
                SHARDS - 1
            ))),
        },
        Some(Which::Key(key)) => match key.parse::<Key>() {
            Ok(key) => Ok(shard_of(&key)),
            Err(error) => Err(Status::invalid_argument(format!("key: {error}"))),
        },
        None => Err(Status::invalid_argument("give a shard or a key")),
    }
}

/// One shard with its owners.
pub(super) fn get(shards: &Shards, shard: usize) -> pb::GetShardReply {
    let mut owners = shards.parts(shard);
    let told = shards.one(shard, &owners);
    owners.sort_by_key(|owner| (std::cmp::Reverse(owner.share_milli), owner.node_id.clone()));
    owners.truncate(MAX_OWNERS);
    for owner in &mut owners {
        let node = owner.node_id.parse::<NodeId>().ok();
        let member = node.and_then(|node| shards.layout.placement.get(&node));
        owner.domain = member.map_or_else(String::new, |member| member.domain.to_string());
    }
    pb::GetShardReply {
        shard: Some(told),
        owners,
        freshness: Some(shards.freshness()),
    }
}
