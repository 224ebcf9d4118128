//! Commands that ask a running host's control plane.
//!
//! | file | what it does |
//! |---|---|
//! | `client` | finds the control plane and connects to it |
//! | `decree` | what the operator decrees |
//! | `plan` | plans, and applying them |
//! | `show`, `tell`, `heat`, `places` | answers as people read them |
//! | `views` | commands that show where records and work lie |
//! | `repeat` | an answer once, or again and again |

mod client;
mod decree;
#[cfg(test)]
mod golden;
mod heat;
mod places;
mod plan;
mod repeat;
pub(super) mod show;
mod tell;
mod views;

pub(super) use client::{Client, connect};
pub(super) use decree::{ban, decrees, designate, policy, unban, undesignate};
pub(super) use plan::{apply, plan};

use std::process::ExitCode;

use canopy_proto::control as pb;
use pb::explain_election_request::Which;
use pb::locate_request::What;
use pb::watch_events_reply::What as Happened;
use serde::Serialize;
use tonic::Status;

use super::args::{
    ActArgs, DrainArgs, ElectionsArgs, EventsArgs, ExplainArgs, LocateArgs, MembersArgs, Sort,
    StatusArgs,
};
use super::decree_args::ElectArgs;
use super::failure::Failure;
use super::output::{note, print, print_json, write_to};
use super::program::interrupted;
use repeat::{Told, show as show_again};

pub(super) use views::{hot, leaves, shards};

/// Super-nodes asked for in one call.
const PAGE: u32 = 500;

/// `supernode status`.
pub(super) async fn status(args: StatusArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    show_again(args.watch, args.ask.json, async || {
        let reply = client.get_overview(pb::GetOverviewRequest {}).await;
        let overview = reply.map_err(failed)?.into_inner();
        Told::new(&overview, show::overview(&overview))
    })
    .await
}

/// `supernode members`.
pub(super) async fn members(args: MembersArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    if let Some(node_id) = &args.node {
        return show_again(args.watch, args.ask.json, async || {
            let node_id = node_id.clone();
            let reply = client.get_super_node(pb::GetSuperNodeRequest { node_id });
            let reply = reply.await.map_err(failed)?.into_inner();
            Told::new(&reply, show::super_node(&reply))
        })
        .await;
    }
    let (order_by, descending) = args.sort.order();
    show_again(args.watch, args.ask.json, async || {
        let request = pb::ListSuperNodesRequest {
            order_by: order_by.to_owned(),
            descending,
            ..Default::default()
        };
        let listed = listed(&mut client, request, args.limit as usize).await?;
        let told = Told::new(&listed, show::super_nodes(&listed))?;
        Ok(told.of_more(listed.super_nodes.len(), listed.total))
    })
    .await
}

/// As many pages as hold `limit` super-nodes.
async fn listed(
    client: &mut client::Client,
    mut request: pb::ListSuperNodesRequest,
    limit: usize,
) -> Result<pb::ListSuperNodesReply, Failure> {
    let mut before: Vec<pb::SuperNode> = Vec::new();
    loop {
        request.page_size = PAGE.min((limit - before.len()) as u32);
        let reply = client.list_super_nodes(request.clone()).await;
        let mut reply = reply.map_err(failed)?.into_inner();
        before.append(&mut reply.super_nodes);
        if reply.next_page_token.is_empty() || before.len() >= limit {
            reply.super_nodes = before;
            return Ok(reply);
        }
        request.page_token = reply.next_page_token;
    }
}

/// `supernode elections`.
pub(super) async fn elections(args: ElectionsArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::ListElectionsRequest { limit: args.limit };
    show_again(args.watch, args.ask.json, async || {
        let reply = client.list_elections(request).await;
        let listed = reply.map_err(failed)?.into_inner();
        Told::new(&listed, tell::elections(&listed))
    })
    .await
}

/// `supernode explain`.
pub(super) async fn explain(args: ExplainArgs) -> Result<ExitCode, Failure> {
    if args.placement {
        return views::placement(args).await;
    }
    let mut client = client::connect(&args.ask).await?;
    let which = match args.which.parse() {
        Ok(term) => Which::Term(term),
        Err(_) => Which::NodeId(args.which),
    };
    let request = pb::ExplainElectionRequest { which: Some(which) };
    let reply = client.explain_election(request).await;
    let explained = reply.map_err(failed)?.into_inner();
    if args.ask.json {
        return print_json(&json(&explained)?);
    }
    print(&tell::explained(&explained, args.ballots))
}

/// `supernode locate`.
pub(super) async fn locate(args: LocateArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let of = args.what;
    let value = of.value.and_then(|parts| {
        let [publisher, name] = <[String; 2]>::try_from(parts).ok()?;
        Some(pb::ValueName { publisher, name })
    });
    let what = (of.key.map(What::Key))
        .or(value.map(What::Value))
        .or(of.content.map(What::Content))
        .or(of.provider.map(What::Provider))
        .or(of.term.map(What::Term))
        .or(of.node.map(What::NodeId));
    let reply = client.locate(pb::LocateRequest { what }).await;
    let located = reply.map_err(failed)?.into_inner();
    if args.ask.json {
        return print_json(&json(&located)?);
    }
    print(&tell::located(&located))
}

/// `supernode events`.
pub(super) async fn events(args: EventsArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::WatchEventsRequest {
        log: 0,
        revision: args.after,
        history_only: !args.follow,
    };
    let reply = client.watch_events(request).await;
    let mut stream = reply.map_err(failed)?.into_inner();
    let stopped = interrupted()?;
    tokio::pin!(stopped);
    loop {
        let next = tokio::select! {
            () = &mut stopped => return Ok(ExitCode::SUCCESS),
            next = stream.message() => next.map_err(failed)?,
        };
        let Some(reply) = next else {
            return Ok(ExitCode::SUCCESS);
        };
        match reply.what {
            Some(Happened::Event(event)) => {
                let line = tell::event(&event, args.ask.json);
                write_to(anstream::stdout().lock(), line.as_bytes())?;
            }
            Some(Happened::History(history)) if history.gone => note(&format!(
                "what came before revision {} is gone",
                history.oldest
            )),
            _ => {}
        }
    }
}

/// `supernode cordon` and `supernode uncordon`.
pub(super) async fn cordon(args: ActArgs, on: bool) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::CordonRequest {
        node_id: args.node.unwrap_or_default(),
        dry_run: args.dry_run,
        caller: caller(),
    };
    let reply = match on {
        true => client.cordon(request).await,
        false => client.uncordon(request).await,
    };
    let reply = reply.map_err(failed)?.into_inner();
    if args.ask.json {
        return print_json(&json(&reply)?);
    }
    print(&tell::cordoned(&reply, on, args.dry_run))
}

/// `supernode step-down`.
pub(super) async fn step_down(args: DrainArgs) -> Result<ExitCode, Failure> {
    let DrainArgs { act, force } = args;
    let mut client = client::connect(&act.ask).await?;
    let request = pb::StepDownRequest {
        node_id: act.node.unwrap_or_default(),
        dry_run: act.dry_run,
        caller: caller(),
        force,
    };
    let reply = client.step_down(request).await;
    let reply = reply.map_err(failed)?.into_inner();
    if act.ask.json {
        return print_json(&json(&reply)?);
    }
    print(&tell::stepped_down(&reply, act.dry_run))
}

/// `supernode elect`.
pub(super) async fn elect(args: ElectArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    let request = pb::CallElectionRequest {
        places: args.places,
        dry_run: args.dry_run,
        caller: caller(),
    };
    let reply = client.call_election(request).await;
    let reply = reply.map_err(failed)?.into_inner();
    if args.ask.json {
        return print_json(&json(&reply)?);
    }
    print(&tell::called(&reply, args.dry_run))
}

/// `supernode drain`.
pub(super) async fn drain(args: DrainArgs) -> Result<ExitCode, Failure> {
    let DrainArgs { act, force } = args;
    let mut client = client::connect(&act.ask).await?;
    let request = pb::DrainRequest {
        node_id: act.node.unwrap_or_default(),
        dry_run: act.dry_run,
        caller: caller(),
        force,
    };
    let reply = client.drain(request).await;
    let mut stream = reply.map_err(failed)?.into_inner();
    let mut done = false;
    while let Some(progress) = stream.message().await.map_err(failed)? {
        done = progress.phase != "draining";
        match act.ask.json {
            true => print_json(&json(&progress)?)?,
            false => print(&tell::draining(&progress))?,
        };
    }
    match done {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::unreachable(
            "the host closed before it was drained; what it holds stays on its disk",
        )),
    }
}

/// Whom the host names in its events.
fn caller() -> String {
    let user = std::env::var("USER").unwrap_or_default();
    let user: String = user.chars().filter(|c| !c.is_control()).take(16).collect();
    match user.is_empty() {
        true => "supernode".to_owned(),
        false => user,
    }
}

impl Sort {
    /// In the words of the API, and whether the largest comes first.
    fn order(self) -> (&'static str, bool) {
        match self {
            Sort::Capacity => ("capacity", true),
            Sort::Utilisation => ("utilisation", true),
            Sort::Operations => ("operations", true),
            Sort::Records => ("records", true),
            Sort::Leaves => ("leaves", true),
            Sort::Seats => ("seats", true),
            Sort::Term => ("term", true),
            Sort::Domain => ("domain", false),
            Sort::Expires => ("expires", false),
            Sort::Id => ("node_id", false),
        }
    }
}

fn json(reply: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(reply)
        .map_err(|error| Failure::local(format!("the answer cannot be written: {error}")))
}

/// What an answer other than the one asked for means to a user.
fn failed(status: Status) -> Failure {
    match status.code() {
        tonic::Code::NotFound => Failure::nothing(status.message()),
        _ => Failure::of_status(
            &status,
            "what answers there is no control plane of this version; check --control, or restart the host",
        ),
    }
}
