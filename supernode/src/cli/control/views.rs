//! Commands that show where records, work and leaves lie.

use std::cmp::Reverse;
use std::process::ExitCode;

use canopy_proto::control as pb;
use pb::get_shard_request::Which;

use super::super::args::ExplainArgs;
use super::super::failure::Failure;
use super::super::output::{print, print_json};
use super::super::view_args::{HotArgs, LeafSort, LeavesArgs, ShardsArgs};
use super::repeat::{Told, show};
use super::{client, failed, heat, json, places};

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

/// Leaves asked for in one call.
const LEAVES: u32 = 500;

/// `supernode leaves`.
pub(in super::super) async fn leaves(args: LeavesArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let home = args.home.unwrap_or_default();
    show(args.watch, args.ask.json, async || {
        let request = pb::ListLeavesRequest {
            home: home.clone(),
            ..Default::default()
        };
        let mut listed = all_leaves(&mut client, request, args.limit as usize).await?;
        sort(&mut listed.leaves, args.sort);
        let told = Told::new(&listed, places::leaves(&listed))?;
        Ok(told.of_unknown(!listed.next_page_token.is_empty()))
    })
    .await
}

/// As many pages as hold `limit` leaves.
async fn all_leaves(
    client: &mut client::Client,
    mut request: pb::ListLeavesRequest,
    limit: usize,
) -> Result<pb::ListLeavesReply, Failure> {
    let mut before: Vec<pb::Leaf> = Vec::new();
    loop {
        request.page_size = LEAVES.min((limit - before.len()) as u32);
        let reply = client.list_leaves(request.clone()).await;
        let mut reply = reply.map_err(failed)?.into_inner();
        before.append(&mut reply.leaves);
        if reply.next_page_token.is_empty() || before.len() >= limit {
            reply.leaves = before;
            return Ok(reply);
        }
        request.page_token = reply.next_page_token;
    }
}

fn sort(leaves: &mut [pb::Leaf], by: LeafSort) {
    let home = |leaf: &pb::Leaf| leaf.homes.iter().find(|home| home.confirmed).cloned();
    let home = |leaf: &pb::Leaf| home(leaf).unwrap_or_default();
    match by {
        LeafSort::Id => {}
        LeafSort::Rtt => leaves.sort_by_key(|leaf| Reverse(home(leaf).round_trip_us)),
        LeafSort::Since => leaves.sort_by_key(|leaf| Reverse(home(leaf).since_ms)),
        LeafSort::Candidate => leaves.sort_by_key(|leaf| !leaf.candidate),
    }
}

/// `supernode explain --placement`.
pub(super) async fn placement(args: ExplainArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::ExplainPlacementRequest {
        node_id: args.which,
    };
    let reply = client.explain_placement(request).await;
    let explained = reply.map_err(failed)?.into_inner();
    match args.ask.json {
        true => print_json(&json(&explained)?),
        false => print(&places::placement(&explained)),
    }
}
