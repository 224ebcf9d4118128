//! What gives most work now, over all super-nodes: what each of them counted of
//! late, put together with the bounds of its count.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use canopy_core::keyspace::Key;
use canopy_proto::control as pb;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply};
use futures_util::future::join_all;
use tonic::Status;

use super::convert;
use super::poll::{Known, Poll, WRONG_KIND};
use super::survey::Member;
use crate::heat::{HALF_LIFE, Kind};
use crate::host::{Host, MAX_HOT};

/// Counts younger than this are not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// Keys listed where no number is asked for.
const USUAL: u32 = 20;
/// What counts less is not hot: one operation of a minute ago.
const LEAST: f64 = 1.0 / 16.0;
/// Longest text of what is under a key, characters.
const MAX_WHAT: usize = 120;

/// Asks for hot keys, for one control plane.
#[derive(Debug)]
pub(super) struct HotSurvey(Vec<(Kind, Poll<wire::Hot>)>);

/// Which kinds are asked for, and how many of each.
pub(super) struct Wanted {
    kinds: Vec<Kind>,
    limit: usize,
}

impl Wanted {
    pub(super) fn of(request: &pb::TopKeysRequest) -> Result<Self, Status> {
        let kinds = match request.kind.as_str() {
            "" => Kind::ALL.to_vec(),
            name => vec![Kind::named(name).ok_or_else(|| {
                let names = Kind::ALL.map(Kind::as_str).join(", ");
                Status::invalid_argument(format!("kind: {name:?} is none of {names}"))
            })?],
        };
        let limit = match request.limit {
            0 => USUAL,
            limit if limit as usize <= MAX_HOT => limit,
            limit => {
                return Err(Status::invalid_argument(format!(
                    "limit: {limit} is over {MAX_HOT}, which is as many as are kept apart"
                )));
            }
        };
        Ok(Self {
            kinds,
            limit: limit as usize,
        })
    }
}

impl HotSurvey {
    pub(super) fn new(host: &Host) -> Self {
        let polls = Kind::ALL.map(|kind| {
            let ask = inspect::What::Hot(wire::HotAsk {
                kind: kind.as_str().to_owned(),
                limit: MAX_HOT as u32,
            });
            (kind, Poll::new(host.clone(), ask, read, FRESH))
        });
        Self(polls.into())
    }

    pub(super) async fn take(&self, wanted: &Wanted, members: &[Member]) -> pb::TopKeysReply {
        let polls = self
            .0
            .iter()
            .filter(|(kind, _)| wanted.kinds.contains(kind));
        let asked = polls.map(|(kind, poll)| async { (*kind, poll.take(members.iter()).await) });
        let mut reply = pb::TopKeysReply {
            half_life_ms: HALF_LIFE.as_millis() as u32,
            ..Default::default()
        };
        for (kind, answers) in join_all(asked).await {
            let told = answers.values().filter_map(|answer| answer.as_ref().ok());
            let told: Vec<&wire::Hot> = told.map(|known| &*known.told).collect();
            let (keys, total) = merge(kind, &told, wanted.limit);
            reply.keys.extend(keys);
            reply.totals.push(total);
            let freshness = convert::completeness(&answers, Known::age_ms);
            // The least complete of them.
            if reply
                .freshness
                .as_ref()
                .is_none_or(|f| freshness.reached < f.reached)
            {
                reply.freshness = Some(freshness);
            }
        }
        reply
    }
}

fn read(what: inspect_reply::What) -> Result<wire::Hot, String> {
    match what {
        inspect_reply::What::Hot(hot) if !hot.kind.is_empty() => Ok(hot),
        inspect_reply::What::Hot(_) => Err("has no index, or does not count this".to_owned()),
        _ => Err(WRONG_KIND.to_owned()),
    }
}

/// Counts come from outside.
fn sane(count: f64) -> f64 {
    if count.is_finite() {
        count.max(0.0)
    } else {
        0.0
    }
}

/// What several super-nodes say of one.
#[derive(Default)]
struct Sum {
    count: f64,
    at_most: f64,
    /// What those who list it would have counted unlisted at most.
    unlisted: f64,
    super_nodes: u32,
    what: String,
}

fn merge(kind: Kind, told: &[&wire::Hot], limit: usize) -> (Vec<pb::HotKey>, pb::HotTotal) {
    let unlisted: f64 = told.iter().map(|hot| sane(hot.unlisted)).sum();
    let mut sums: HashMap<&Bytes, Sum> = HashMap::new();
    for hot in told {
        for entry in hot.entries.iter().take(MAX_HOT) {
            let sum = sums.entry(&entry.id).or_default();
            let count = sane(entry.count);
            sum.count += count;
            sum.at_most += sane(entry.at_most).max(count);
            sum.unlisted += sane(hot.unlisted);
            sum.super_nodes += 1;
            if sum.what.is_empty() {
                sum.what = entry.what.chars().take(MAX_WHAT).collect();
            }
        }
    }
    let mut keys: Vec<pb::HotKey> = sums
        .into_iter()
        .filter_map(|(id, sum)| {
            Some(pb::HotKey {
                kind: kind.as_str().to_owned(),
                id: id_text(kind, id)?,
                what: sum.what,
                count: sum.count,
                // Those who do not list it may have counted some all the same.
                at_most: sum.at_most + (unlisted - sum.unlisted).max(0.0),
                per_s: per_s(sum.count),
                super_nodes: sum.super_nodes,
            })
        })
        .collect();
    keys.sort_by(|a, b| b.count.total_cmp(&a.count).then_with(|| a.id.cmp(&b.id)));
    let listed = keys
        .iter()
        .take(limit)
        .filter(|key| key.count >= LEAST)
        .count();
    let cut = keys[listed..].iter().map(|key| key.at_most);
    let total = told.iter().map(|hot| sane(hot.total)).sum();
    let total = pb::HotTotal {
        kind: kind.as_str().to_owned(),
        count: total,
        per_s: per_s(total),
        unlisted_at_most: cut.fold(unlisted, f64::max),
    };
    keys.truncate(listed);
    (keys, total)
}

/// The steady rate whose faded count this is.
fn per_s(count: f64) -> f64 {
    count * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64()
}

fn id_text(kind: Kind, id: &[u8]) -> Option<String> {
    match kind {
        Kind::Key | Kind::Publisher => Key::from_slice(id).map(|key| key.to_string()),
        Kind::Flow => {
            let (opener, other) = id.split_at_checked(32)?;
            let (opener, other) = (Key::from_slice(opener)?, Key::from_slice(other)?);
            Some(format!("{opener}{other}"))
        }
        Kind::Term | Kind::Topic => {
            let text = String::from_utf8(id.to_vec()).ok()?;
            let shown = text.chars().take(MAX_WHAT);
            Some(
                shown
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(unlisted: f64, entries: &[(u8, f64, f64)]) -> wire::Hot {
        let entry = |(id, count, at_most): &(u8, f64, f64)| wire::HotEntry {
            id: vec![*id; 32].into(),
            count: *count,
            at_most: *at_most,
            what: format!("value {id}"),
        };
        wire::Hot {
            kind: "key".into(),
            entries: entries.iter().map(entry).collect(),
            total: 100.0,
            unlisted,
        }
    }

    #[test]
    fn counts_add_up_and_so_do_their_bounds() {
        let told = [
            hot(2.0, &[(1, 50.0, 51.0), (2, 10.0, 10.0)]),
            hot(3.0, &[(1, 20.0, 22.0), (3, 12.0, 14.0)]),
            hot(0.0, &[(3, 0.25, 0.25)]),
        ];
        let told: Vec<&wire::Hot> = told.iter().collect();
        let (keys, total) = merge(Kind::Key, &told, 2);
        let seen: Vec<(&str, f64, f64, u32)> = keys
            .iter()
            .map(|key| (&key.id[..2], key.count, key.at_most, key.super_nodes))
            .collect();
        assert_eq!(seen, [("01", 70.0, 73.0, 2), ("03", 12.25, 16.25, 2)]);
        assert_eq!(keys[0].what, "value 1");
        // The third was cut: it counts 13 at most.
        assert_eq!((total.count, total.unlisted_at_most), (300.0, 13.0));
    }

    #[test]
    fn what_makes_no_sense_counts_for_nothing() {
        let mut wrong = hot(f64::NAN, &[(1, f64::INFINITY, -1.0), (2, -5.0, 1.0)]);
        wrong.entries[1].id = Bytes::from_static(b"short");
        let (keys, total) = merge(Kind::Key, &[&wrong], 10);
        assert!(keys.is_empty() && total.unlisted_at_most == 0.0);
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let refused = |kind: &str, limit| {
            let kind = kind.to_owned();
            let request = pb::TopKeysRequest { kind, limit };
            let status = Wanted::of(&request).err().expect("refused");
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        };
        assert!(refused("peer", 1).contains("key, term, publisher, topic, flow"));
        assert!(refused("key", 257).contains("256"));
    }
}
