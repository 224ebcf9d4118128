//! Commands that show where records and work lie.

use std::process::ExitCode;

use canopy_proto::control as pb;
use pb::get_shard_request::Which;

use super::super::failure::Failure;
use super::super::view_args::{HotArgs, ShardsArgs};
use super::repeat::{Told, show};
use super::{client, failed, heat};

/// `supernode shards`.
pub(in super::super) async fn shards(args: ShardsArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    if let Some(named) = &args.shard {
        let request = pb::GetShardRequest {
            which: Some(which(named)),
        };
        return show(args.watch, args.ask.json, async || {
            let reply = client.get_shard(request.clone()).await;
            let reply = reply.map_err(failed)?.into_inner();
            Told::new(&reply, heat::shard(&reply))
        })
        .await;
    }
    let (order_by, descending) = args.sort.order();
    let request = pb::ListShardsRequest {
        page_size: args.limit,
        order_by: order_by.to_owned(),
        descending,
        under_replicated: args.lacking,
        ..Default::default()
    };
    show(args.watch, args.ask.json, async || {
        let reply = client.list_shards(request.clone()).await;
        let reply = reply.map_err(failed)?.into_inner();
        let told = Told::new(&reply, heat::shards(&reply))?;
        Ok(told.of_more(reply.shards.len(), reply.total))
    })
    .await
}

/// Two digits are what the keys of a shard begin with; the host judges the rest.
fn which(named: &str) -> Which {
    match u8::from_str_radix(named, 16) {
        Ok(shard) if named.len() == 2 => Which::Shard(shard.into()),
        _ => Which::Key(named.to_owned()),
    }
}

/// `supernode hot`.
pub(in super::super) async fn hot(args: HotArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::TopKeysRequest {
        kind: args.kind.unwrap_or_default(),
        limit: args.limit,
    };
    show(args.watch, args.ask.json, async || {
        let reply = client.top_keys(request.clone()).await;
        let reply = reply.map_err(failed)?.into_inner();
        Told::new(&reply, heat::hot(&reply))
    })
    .await
}
