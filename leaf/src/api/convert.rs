//! Between the SDK's types and those of the API.

use canopy_core::keyspace::NodeId;
use canopy_proto::leaf as pb;
use canopy_proto::wire::refusal::Code;
use tonic::Status;

use crate::client::{
    ClientStats, Error, Hash, Hit, Item, Located, Location, Page, Provider, Stored, Value,
};
use crate::status;

/// The gRPC code that tells a program what to do; the message tells a person.
pub(super) fn error(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NoSuperNode { .. } | Error::Unavailable { .. } => Status::unavailable(message),
        Error::Refused { code, .. } => match code {
            Code::Quota | Code::Busy => Status::resource_exhausted(message),
            Code::Unavailable | Code::NotServing | Code::Deadline | Code::Internal => {
                Status::unavailable(message)
            }
            Code::Malformed => Status::invalid_argument(message),
            Code::Banned => Status::permission_denied(message),
            _ => Status::failed_precondition(message),
        },
        Error::Record(_) | Error::Query(_) | Error::EmptyName | Error::Unsearchable(_) => {
            Status::invalid_argument(message)
        }
        Error::Superseded { .. } => Status::aborted(message),
        Error::PublicationsFull { .. } => Status::resource_exhausted(message),
        Error::Publications(_) => Status::internal(message),
    }
}

pub(super) fn node_id(field: &str, text: &str) -> Result<NodeId, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

pub(super) fn hash(text: &str) -> Result<Hash, Status> {
    Hash::from_hex(text).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Status::invalid_argument(format!(
            "{shown:?} is no BLAKE3 hash; give 64 hexadecimal digits"
        ))
    })
}

pub(super) fn value(value: Value) -> pb::Value {
    pb::Value {
        publisher: value.publisher.to_string(),
        name: value.name,
        data: value.data.into(),
        sequence: value.sequence,
        issued_ms: value.issued_ms,
        expires_ms: value.expires_ms,
    }
}

pub(super) fn item(item: pb::Item) -> Result<Item, Status> {
    let mut out = Item::new(item.name)
        .text(item.text)
        .words(item.words)
        .media_type(item.media_type)
        .size(item.size);
    out.attributes = item.attributes.into_iter().collect();
    if !item.content.is_empty() {
        out.content = Some(hash(&item.content)?);
    }
    Ok(out)
}

/// As it is sent, to this API or from it.
pub(crate) fn item_to_proto(item: Item) -> pb::Item {
    pb::Item {
        content: item
            .content
            .map(|hash| hash.to_string())
            .unwrap_or_default(),
        name: item.name,
        text: item.text,
        attributes: item.attributes.into_iter().collect(),
        size: item.size,
        media_type: item.media_type,
        words: item.words,
    }
}

pub(super) fn outcome(result: Result<Stored, Status>) -> pb::PublishOutcome {
    match result {
        Ok(stored) => pb::PublishOutcome {
            sequence: stored.sequence,
            ..pb::PublishOutcome::default()
        },
        Err(status) => pb::PublishOutcome {
            sequence: 0,
            error: status.message().to_owned(),
            code: status.code() as i32,
        },
    }
}

pub(super) fn page(page: Page) -> pb::SearchReply {
    pb::SearchReply {
        hits: page.hits.into_iter().map(hit).collect(),
        next: page
            .next
            .map(|query| query.cursor().to_vec())
            .unwrap_or_default(),
        total: page.total,
    }
}

fn hit(hit: Hit) -> pb::Hit {
    pb::Hit {
        publisher: hit.publisher.to_string(),
        item: Some(item_to_proto(hit.item)),
        score: hit.score,
        sequence: hit.sequence,
        issued_ms: hit.issued_ms,
        expires_ms: hit.expires_ms,
    }
}

pub(super) fn provider(provider: Provider) -> pb::Provider {
    pb::Provider {
        node_id: provider.node_id.to_string(),
        size: provider.size,
        expires_ms: provider.expires_ms,
    }
}

pub(super) fn location(location: Location) -> pb::Location {
    let home = |home: Located| pb::Located {
        node_id: home.node_id.to_string(),
        addrs: home.addrs.iter().map(ToString::to_string).collect(),
    };
    pb::Location {
        node_id: location.node_id.to_string(),
        homes: location.homes.into_iter().map(home).collect(),
        sequence: location.sequence,
        issued_ms: location.issued_ms,
        expires_ms: location.expires_ms,
    }
}

pub(super) fn status(status: status::Status, stats: ClientStats) -> pb::StatusReply {
    let home = |home: status::Home| pb::Home {
        node_id: home.node_id.to_string(),
        addr: home.addr.map(|addr| addr.to_string()).unwrap_or_default(),
        round_trip_us: home.round_trip_us,
    };
    let super_node = |node: status::SuperNode| pb::SuperNode {
        node_id: node.node_id.to_string(),
        capacity_bps: node.capacity_bps,
        seats: node.seats,
        domain: node.domain,
    };
    let criterion = |criterion: status::Criterion| pb::Criterion {
        name: criterion.name,
        value: criterion.value,
        threshold: criterion.threshold,
        pass: criterion.pass,
    };
    pb::StatusReply {
        node_id: status.node_id.to_string(),
        role: status.role.as_str().to_owned(),
        homes: status.homes.into_iter().map(home).collect(),
        super_nodes: status.super_nodes.into_iter().map(super_node).collect(),
        super_node_count: status.super_node_count,
        capacity_bps: status.capacity_bps,
        criteria: status.criteria.into_iter().map(criterion).collect(),
        listen: status.listen.to_string(),
        network: status.network,
        topology: status.topology.as_str().to_owned(),
        uptime_s: status.uptime_s,
        leaves: status.leaves,
        requests: Some(pb::ClientStats {
            ok: stats.ok,
            failed: stats.failed,
            hedged: stats.hedged,
            retried: stats.retried,
            kept: stats.kept,
            refreshed: stats.refreshed,
        }),
    }
}
