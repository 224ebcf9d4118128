//! Commands that ask a running host's control plane.
//!
//! | file | what it does |
//! |---|---|
//! | `client` | finds the control plane and connects to it |
//! | `show` | answers as people read them |

mod client;
mod show;

use std::process::ExitCode;

use canopy_proto::control as pb;
use serde::Serialize;
use tonic::Status;

use super::args::{AskArgs, MembersArgs, Sort};
use super::failure::Failure;
use super::output::{note, print, print_json};

/// Super-nodes asked for in one call.
const PAGE: u32 = 500;

/// `supernode status`.
pub(super) async fn status(args: AskArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args).await?;
    let reply = client.get_overview(pb::GetOverviewRequest {}).await;
    let overview = reply.map_err(failed)?.into_inner();
    if args.json {
        return print_json(&json(&overview)?);
    }
    print(&show::overview(&overview))
}

/// `supernode members`.
pub(super) async fn members(args: MembersArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(&args.ask).await?;
    if let Some(node_id) = args.node {
        let reply = client.get_super_node(pb::GetSuperNodeRequest { node_id });
        let reply = reply.await.map_err(failed)?.into_inner();
        if args.ask.json {
            return print_json(&json(&reply)?);
        }
        return print(&show::super_node(&reply));
    }
    let (order_by, descending) = args.sort.order();
    let mut request = pb::ListSuperNodesRequest {
        order_by: order_by.to_owned(),
        descending,
        ..Default::default()
    };
    let mut listed: Option<pb::ListSuperNodesReply> = None;
    let limit = args.limit as usize;
    loop {
        let so_far = listed.as_ref().map_or(0, |all| all.super_nodes.len());
        request.page_size = PAGE.min((limit - so_far) as u32);
        let reply = client.list_super_nodes(request.clone()).await;
        let mut reply = reply.map_err(failed)?.into_inner();
        if let Some(before) = listed.take() {
            reply.super_nodes.splice(0..0, before.super_nodes);
        }
        let more = !reply.next_page_token.is_empty() && reply.super_nodes.len() < limit;
        request.page_token.clone_from(&reply.next_page_token);
        listed = Some(reply);
        if !more {
            break;
        }
    }
    let listed = listed.unwrap_or_default();
    if args.ask.json {
        return print_json(&json(&listed)?);
    }
    let shown = print(&show::super_nodes(&listed));
    if listed.super_nodes.len() < listed.total as usize {
        note(&format!(
            "{} of {}; the rest with --limit",
            listed.super_nodes.len(),
            listed.total
        ));
    }
    shown
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
