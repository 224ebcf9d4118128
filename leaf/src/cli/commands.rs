//! The commands of one request: put, get, rm, unpublish, search, locate,
//! status.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::limits;
use serde_json::{Value as Json, json};

use super::args::{GetArgs, LocateArgs, NameArgs, PutArgs, SearchArgs, StatusArgs};
use super::backend::Backend;
use super::failure::{Failure, NOTHING};
use super::human;
use crate::client::Query;
use crate::node::unix_ms;
use canopy_supernode::cli::output::write_to;
pub(super) use canopy_supernode::cli::output::{note, print, print_json};

pub(super) async fn put(args: PutArgs) -> Result<ExitCode, Failure> {
    let data = match args.value.as_str() {
        "-" => read_value(std::io::stdin().lock())?,
        value => value.as_bytes().to_vec(),
    };
    if data.len() > limits::VALUE {
        return Err(Failure::usage(
            "the value is over 64 KiB; split it, or publish it as a file",
        ));
    }
    if args.name.is_empty() {
        return Err(Failure::usage("a name must not be empty"));
    }
    let ttl_s = seconds(args.ttl)?;
    let mut backend = Backend::find(&args.common).await?;
    let put = pb::PutRequest {
        name: args.name.clone(),
        data,
        ttl_s,
    };
    let reply = backend.put(put).await;
    backend.close().await;
    let reply = reply?;
    match args.common.json {
        true => print_json(&json!({
            "name": args.name,
            "publisher": reply.publisher,
            "sequence": reply.sequence,
            "content": reply.content,
        })),
        false => print(&format!(
            "stored {:?} under {}\n",
            args.name, reply.publisher
        )),
    }
}

pub(super) async fn get(args: GetArgs) -> Result<ExitCode, Failure> {
    let mut backend = Backend::find(&args.common).await?;
    let publisher = args.publisher.map(|id| id.to_string()).unwrap_or_default();
    let get = pb::GetRequest {
        publisher: publisher.clone(),
        name: args.name.clone(),
        one: args.one,
        ..pb::GetRequest::default()
    };
    let reply = backend.get(get).await;
    backend.close().await;
    match (reply?.value, args.common.json) {
        (Some(value), true) => print_json(&value_json(&value)),
        (Some(value), false) => print_bytes(&value.data),
        (None, json) => {
            if json {
                print_json(&Json::Null)?;
            }
            let whose = match publisher.as_str() {
                "" => "this leaf; --publisher reads another's",
                id => id,
            };
            Err(Failure::nothing(format!(
                "there is no value {:?} of {whose}",
                args.name
            )))
        }
    }
}

pub(super) async fn remove(args: NameArgs) -> Result<ExitCode, Failure> {
    let mut backend = Backend::find(&args.common).await?;
    let remove = pb::RemoveRequest {
        name: args.name.clone(),
        ..pb::RemoveRequest::default()
    };
    let reply = backend.remove(remove).await;
    backend.close().await;
    let sequence = reply?.sequence;
    match args.common.json {
        true => print_json(&json!({ "name": args.name, "sequence": sequence })),
        false => print(&format!("removed {:?}\n", args.name)),
    }
}

pub(super) async fn unpublish(args: NameArgs) -> Result<ExitCode, Failure> {
    let mut backend = Backend::find(&args.common).await?;
    let name = args.name.clone();
    let reply = backend.unpublish(pb::UnpublishRequest { name }).await;
    backend.close().await;
    let found = reply?.found;
    if args.common.json {
        print_json(&json!({ "name": args.name, "found": found }))?;
    }
    match found {
        false => Err(Failure::nothing(format!(
            "this leaf has no item {:?}",
            args.name
        ))),
        true if args.common.json => Ok(ExitCode::SUCCESS),
        true => print(&format!("unpublished {:?}\n", args.name)),
    }
}

pub(super) async fn search(args: SearchArgs) -> Result<ExitCode, Failure> {
    let query = args.query.join(" ");
    // Refused here, a wrong query needs no daemon.
    Query::parse(&query).map_err(|error| Failure::usage(error.to_string()))?;
    let after = match &args.after {
        Some(cursor) => from_hex(cursor)
            .ok_or_else(|| Failure::usage("--after is no cursor; take it from the page before"))?,
        None => Vec::new(),
    };
    let mut backend = Backend::find(&args.common).await?;
    let search = pb::SearchRequest {
        query,
        limit: args.limit,
        after,
    };
    let reply = backend.search(search).await;
    backend.close().await;
    let page = reply?;
    let next = to_hex(&page.next);
    if args.common.json {
        let hits: Vec<Json> = page.hits.iter().map(hit_json).collect();
        return print_json(&json!({ "hits": hits, "total": page.total, "next": next }));
    }
    print(&human::page(&page))?;
    match (page.hits.len(), next.as_str()) {
        (0, _) => note("nothing found"),
        (_, "") => {}
        (count, next) => note(&format!(
            "{count} of {}; go on with --after {next}",
            page.total
        )),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn locate(args: LocateArgs) -> Result<ExitCode, Failure> {
    let node_id = args.node_id.to_string();
    let mut backend = Backend::find(&args.common).await?;
    let locate = pb::LocateRequest {
        node_id: node_id.clone(),
    };
    let reply = backend.locate(locate).await;
    backend.close().await;
    match (reply?.location, args.common.json) {
        (Some(location), true) => print_json(&location_json(&location)),
        (Some(location), false) => print(&human::location(&location, unix_ms())),
        (None, json) => {
            if json {
                print_json(&Json::Null)?;
            }
            Err(Failure::nothing(format!(
                "nobody has heard of {node_id} in the last hour"
            )))
        }
    }
}

pub(super) async fn status(args: StatusArgs) -> Result<ExitCode, Failure> {
    let mut backend = Backend::find(&args.common).await?;
    let reply = backend.status(pb::StatusRequest {}).await;
    backend.close().await;
    let reply = reply?;
    match args.common.json {
        true => print_json(&status_json(&reply)),
        false => print(&human::status(&reply)),
    }
}

/// Reads standard input, but not without end.
fn read_value(input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    input
        .take(limits::VALUE as u64 + 1)
        .read_to_end(&mut data)?;
    Ok(data)
}

/// Whole seconds for the API, where 0 stands for the default.
pub(super) fn seconds(ttl: Option<Duration>) -> Result<u32, Failure> {
    let Some(ttl) = ttl else {
        return Ok(0);
    };
    match u32::try_from(ttl.as_secs()) {
        Ok(0) => Err(Failure::usage("--ttl must be at least 1s")),
        Ok(seconds) if seconds <= canopy_core::record::MAX_TTL_S => Ok(seconds),
        _ => Err(Failure::usage("--ttl must be at most 30d")),
    }
}

fn value_json(value: &pb::Value) -> Json {
    let mut json = json!({
        "publisher": value.publisher,
        "name": value.name,
        "sequence": value.sequence,
        "issued_ms": value.issued_ms,
        "expires_ms": value.expires_ms,
    });
    match std::str::from_utf8(&value.data) {
        Ok(text) => json["value"] = text.into(),
        // JSON has no bytes.
        Err(_) => json["value_hex"] = to_hex(&value.data).into(),
    }
    json
}

fn hit_json(hit: &pb::Hit) -> Json {
    let item = hit.item.clone().unwrap_or_default();
    json!({
        "publisher": hit.publisher,
        "name": item.name,
        "text": item.text,
        "attributes": item.attributes,
        "content": item.content,
        "size": item.size,
        "media_type": item.media_type,
        "score": hit.score,
        "sequence": hit.sequence,
        "issued_ms": hit.issued_ms,
        "expires_ms": hit.expires_ms,
    })
}

fn location_json(location: &pb::Location) -> Json {
    json!({
        "node_id": location.node_id,
        "homes": location.homes.iter().map(|home| json!({
            "node_id": home.node_id,
            "addrs": home.addrs,
        })).collect::<Vec<_>>(),
        "sequence": location.sequence,
        "issued_ms": location.issued_ms,
        "expires_ms": location.expires_ms,
    })
}

fn status_json(status: &pb::StatusReply) -> Json {
    let stats = status.requests.unwrap_or_default();
    json!({
        "node_id": status.node_id,
        "role": status.role,
        "homes": status.homes.iter().map(|home| json!({
            "node_id": home.node_id,
            "addr": home.addr,
            "round_trip_us": home.round_trip_us,
        })).collect::<Vec<_>>(),
        "super_nodes": status.super_nodes.iter().map(|node| json!({
            "node_id": node.node_id,
            "capacity_bps": node.capacity_bps,
            "seats": node.seats,
            "domain": node.domain,
        })).collect::<Vec<_>>(),
        "super_node_count": status.super_node_count,
        "capacity_bps": status.capacity_bps,
        "criteria": status.criteria.iter().map(|criterion| json!({
            "name": criterion.name,
            "value": criterion.value,
            "threshold": criterion.threshold,
            "pass": criterion.pass,
        })).collect::<Vec<_>>(),
        "listen": status.listen,
        "network": status.network,
        "topology": status.topology,
        "uptime_s": status.uptime_s,
        "leaves": status.leaves,
        "requests": {
            "ok": stats.ok,
            "failed": stats.failed,
            "hedged": stats.hedged,
            "retried": stats.retried,
            "kept": stats.kept,
            "refreshed": stats.refreshed,
        },
    })
}

/// Exactly these bytes.
fn print_bytes(data: &[u8]) -> Result<ExitCode, Failure> {
    write_to(std::io::stdout().lock(), data)
}

/// For a command that did part of its work.
pub(super) fn partly() -> ExitCode {
    ExitCode::from(NOTHING)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    match text.len() % 2 {
        0 => text.as_bytes().chunks(2).map(pair).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_to_one_byte_past_the_limit() {
        let endless = std::io::repeat(b'x');
        assert_eq!(read_value(endless).unwrap().len(), limits::VALUE + 1);
    }

    #[test]
    fn lifetimes_stay_within_what_records_allow() {
        assert_eq!(seconds(None).unwrap(), 0);
        assert_eq!(seconds(Some(Duration::from_secs(60))).unwrap(), 60);
        assert!(seconds(Some(Duration::from_millis(10))).is_err());
        assert!(seconds(Some(Duration::from_secs(31 * 24 * 3600))).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_printed_as_digits() {
        let value = pb::Value {
            data: vec![0xff, 0],
            ..pb::Value::default()
        };
        assert_eq!(value_json(&value)["value_hex"], "ff00");
        assert_eq!(from_hex("ff00"), Some(value.data));
        assert_eq!(from_hex("f"), None);
        assert_eq!(from_hex("é"), None);
    }
}
