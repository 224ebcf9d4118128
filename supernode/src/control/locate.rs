//! Who owns a key, by which seats, and how a read would go.

use std::collections::BTreeSet;
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId, keys};
use canopy_core::placement::{Placement, R};
use canopy_core::text;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use pb::locate_request::What;
use tonic::Status;

use crate::host::Host;
use crate::status::Role;

/// Super-nodes listed past the last owner.
const BEYOND: usize = 3;

/// `Locate`.
pub(super) fn locate(host: &Host, request: pb::LocateRequest) -> Result<pb::LocateReply, Status> {
    let key = key_of(request)?;
    let placement = host.placement();
    let owners = placement.owners(&key, R);
    Ok(pb::LocateReply {
        key: key.to_string(),
        path: path(host, &owners),
        owners: owners.len() as u32,
        holders: holders(host, &placement, &key, &owners),
    })
}

fn key_of(request: pb::LocateRequest) -> Result<Key, Status> {
    let digits = |field: &str, text: &str| {
        text.parse::<NodeId>()
            .map(|id| id.0)
            .map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
    };
    match request.what {
        Some(What::Key(key)) => Ok(Key(digits("key", &key)?)),
        Some(What::Value(of)) => {
            let publisher = NodeId(digits("publisher", &of.publisher)?);
            Ok(keys::value(&publisher, &of.name))
        }
        Some(What::Content(hash)) => Ok(Key::hash("content", &[&digits("content", &hash)?])),
        Some(What::Provider(hash)) => Ok(keys::provider(&digits("provider", &hash)?)),
        Some(What::Term(word)) => match &text::query(&word).terms[..] {
            [term] => Ok(keys::term(term)),
            terms => Err(Status::invalid_argument(format!(
                "term: {word:?} is {} search terms; ask for one word",
                terms.len()
            ))),
        },
        Some(What::NodeId(node)) => Ok(keys::location(&NodeId(digits("node_id", &node)?))),
        None => Err(Status::invalid_argument(
            "give one of key, value, content, provider, term and node_id",
        )),
    }
}

/// The closest super-nodes, up to the last owner and a few more.
fn holders(host: &Host, placement: &Placement, key: &Key, owners: &[NodeId]) -> Vec<pb::Holder> {
    let mut count = R + BEYOND;
    let mut closest = placement.closest(key, count);
    // Owners of distinct domains may sit farther out.
    while count < placement.len() && !all_in(owners, &closest) {
        count *= 2;
        closest = placement.closest(key, count);
    }
    let last = closest.iter().rposition(|(_, node)| owners.contains(node));
    closest.truncate(last.map_or(0, |last| last + 1 + BEYOND));
    let mut domains = BTreeSet::new();
    let holders = closest.into_iter().map(|(seat, node)| {
        let domain = placement
            .get(&node)
            .map_or_else(Default::default, |m| m.domain.clone());
        let owner = owners.contains(&node);
        let taken = !domain.is_empty() && !domains.insert(domain.clone());
        let session = host.peer().fabric().session(&node);
        pb::Holder {
            node_id: node.to_string(),
            owner,
            why: why(owner, taken).to_owned(),
            domain: domain.to_string(),
            seat: seat.to_string(),
            distance: seat.distance(key).to_string(),
            round_trip_us: session.map_or(0, |session| micros(session.rtt())),
        }
    });
    holders.collect()
}

fn all_in(owners: &[NodeId], closest: &[(Key, NodeId)]) -> bool {
    let has = |owner: &NodeId| closest.iter().any(|(_, node)| node == owner);
    owners.iter().all(has)
}

fn why(owner: bool, domain_taken: bool) -> &'static str {
    match (owner, domain_taken) {
        (true, false) => "among the closest, in a failure domain of its own",
        (true, true) => "among the closest; there are too few failure domains for all copies",
        (false, true) => "a closer one of the same failure domain comes first",
        (false, false) => "three others are closer",
    }
}

fn micros(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(u64::MAX)
}

fn path(host: &Host, owners: &[NodeId]) -> Vec<String> {
    let own = host.node_id();
    let serves = host.role() == Role::SuperNode;
    let short = |nodes: &[NodeId]| -> String {
        let short: Vec<String> = nodes.iter().map(NodeId::short).collect();
        short.join(", ")
    };
    if owners.is_empty() {
        return vec!["nobody serves that this peer knows of: nothing can be read".to_owned()];
    }
    let others: Vec<NodeId> = owners.iter().copied().filter(|node| *node != own).collect();
    let mut path = Vec::new();
    if serves && owners.contains(&own) {
        path.push("this peer owns the key: it reads its own copy".to_owned());
        if !others.is_empty() {
            let more = "what may change is compared with that of one more owner of";
            path.push(format!("{more} {}", short(&others)));
        }
    } else {
        path.push(format!(
            "one hop, to the owner that is due of {}",
            short(owners)
        ));
        path.push("if it is slow or gone, the next owner is asked as well".to_owned());
    }
    path
}
