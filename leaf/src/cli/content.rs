//! `leaf share`, `unshare`, `shares` and `fetch`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_server::Leaf as _;
use canopy_proto::leaf::{fetch_update, share_update};
use canopy_supernode::cli::human::bytes;
use canopy_supernode::cli::output::{note, print, print_json};
use canopy_supernode::cli::program::interrupted;
use futures_util::stream::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use tonic::{Code, Request, Status};

use super::args::{FetchArgs, ShareArgs, SharesArgs, UnshareArgs};
use super::backend::Backend;
use super::failure::{Failure, from_status};

/// What a stream of the API brings.
type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn share(args: ShareArgs) -> Result<ExitCode, Failure> {
    let closing = interrupted()?;
    let path = absolute(&args.path)?;
    // Who shares must be there for others.
    let mut backend = match args.stay {
        true => Backend::stay(args.upload.over(args.common.settings()?)).await?,
        false => Backend::Daemon(Backend::daemon(&args.common).await?),
    };
    let ask = pb::ShareRequest {
        path: text(&path)?.to_owned(),
    };
    let updates: Result<Incoming<pb::ShareUpdate>, Status> = match &mut backend {
        Backend::Daemon(client) => {
            let reply = client.share(ask).await;
            reply.map(|reply| reply.into_inner().boxed())
        }
        Backend::Joined(service, _) => {
            let reply = service.share(Request::new(ask)).await;
            reply.map(tonic::Response::into_inner)
        }
    };
    let shared = shared(updates, args.common.json).await;
    let shown = shared.and_then(|shared| match args.common.json {
        true => print_json(&in_json(&shared)),
        false => print(&format!("{}\n", shared.content)),
    });
    if let (Ok(_), Backend::Joined(..)) = (&shown, &backend) {
        note("shared until interrupted");
        closing.await;
    }
    backend.close().await;
    shown
}

/// Shows how far it is; what came of it.
async fn shared(
    updates: Result<Incoming<pb::ShareUpdate>, Status>,
    quiet: bool,
) -> Result<pb::SharedContent, Failure> {
    let mut updates = updates.map_err(|status| from_status(&status))?;
    let bar = bar(quiet, HASHING);
    while let Some(update) = updates.next().await {
        match update.map_err(|status| from_status(&status))?.what {
            Some(share_update::What::Hashed(count)) => bar.set_position(count),
            Some(share_update::What::Shared(shared)) => {
                bar.finish_and_clear();
                return Ok(shared);
            }
            None => {}
        }
    }
    Err(Failure::unreachable("the leaf closed before it was shared"))
}

pub(super) async fn unshare(args: UnshareArgs) -> Result<ExitCode, Failure> {
    let mut client = Backend::daemon(&args.common).await?;
    let content = args.content.to_string();
    let reply = client.unshare(pb::UnshareRequest { content }).await;
    let found = reply.map_err(|status| from_status(&status))?.into_inner();
    if !found.found {
        return Err(Failure::nothing("this leaf does not share that"));
    }
    match args.common.json {
        true => print_json(&json!({ "content": args.content.to_string() })),
        false => print(&format!("{} is shared no more\n", args.content)),
    }
}

pub(super) async fn shares(args: SharesArgs) -> Result<ExitCode, Failure> {
    let mut client = Backend::daemon(&args.common).await?;
    let reply = client.list_shares(pb::ListSharesRequest {}).await;
    let reply = reply.map_err(|status| from_status(&status))?.into_inner();
    let stats = reply.stats.unwrap_or_default();
    if args.common.json {
        let shares: Vec<Json> = reply.shares.iter().map(in_json).collect();
        return print_json(&json!({
            "shares": shares,
            "uploaded": stats.uploaded,
            "downloaded": stats.downloaded,
            "pieces": stats.pieces,
            "refused": stats.refused,
        }));
    }
    for shared in &reply.shares {
        let partly = if shared.whole { "" } else { ", being fetched" };
        print(&format!(
            "{}  {}, {} file(s){partly}  {}\n",
            shared.content,
            bytes(shared.bytes),
            shared.files,
            shared.path
        ))?;
    }
    let (sent, came) = (bytes(stats.uploaded), bytes(stats.downloaded));
    note(&format!("sent {sent}, fetched {came} since the leaf began"));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn fetch(args: FetchArgs) -> Result<ExitCode, Failure> {
    let content = args.content.to_string();
    let to = args.to.unwrap_or_else(|| PathBuf::from(&content[..16]));
    let to = absolute(&to)?;
    let ask = pb::FetchRequest {
        content,
        to: text(&to)?.to_owned(),
    };
    let mut backend = Backend::find(&args.common).await?;
    let updates: Result<Incoming<pb::FetchUpdate>, Status> = match &mut backend {
        Backend::Daemon(client) => {
            let reply = client.fetch(ask).await;
            reply.map(|reply| reply.into_inner().boxed())
        }
        Backend::Joined(service, _) => {
            let reply = service.fetch(Request::new(ask)).await;
            reply.map(tonic::Response::into_inner)
        }
    };
    let fetched = fetched(updates, args.common.json).await;
    backend.close().await;
    let fetched = fetched?;
    match args.common.json {
        true => print_json(&in_json(&fetched)),
        false => print(&format!(
            "{}, {} file(s): {}\n",
            bytes(fetched.bytes),
            fetched.files,
            fetched.path
        )),
    }
}

/// Shows how far it is, in JSON a line each; what came of it.
async fn fetched(
    updates: Result<Incoming<pb::FetchUpdate>, Status>,
    as_json: bool,
) -> Result<pb::SharedContent, Failure> {
    let mut updates = updates.map_err(|status| failed(&status))?;
    let bar = bar(as_json, FETCHING);
    while let Some(update) = updates.next().await {
        match update.map_err(|status| failed(&status))?.what {
            Some(fetch_update::What::Progress(progress)) => {
                if as_json {
                    print_json(&json!({
                        "bytes": progress.bytes,
                        "total": progress.total,
                        "providers": progress.providers,
                        "rate": progress.rate,
                        "refused": progress.refused,
                    }))?;
                }
                bar.set_length(progress.total);
                bar.set_position(progress.bytes);
                let rate = bytes(progress.rate);
                bar.set_message(format!("{rate}/s from {} leaves", progress.providers));
            }
            Some(fetch_update::What::Fetched(fetched)) => {
                bar.finish_and_clear();
                return Ok(fetched);
            }
            None => {}
        }
    }
    Err(Failure::unreachable(
        "the leaf closed before all was there; fetch again: what has come is kept",
    ))
}

fn failed(status: &Status) -> Failure {
    match status.code() {
        Code::NotFound => Failure::nothing(status.message()),
        Code::AlreadyExists => Failure::usage(status.message()),
        _ => from_status(status),
    }
}

/// The leaf may run in another folder.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path);
    absolute.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn text(path: &Path) -> Result<&str, Failure> {
    let why = || Failure::usage(format!("{} is no UTF-8 text; rename it", path.display()));
    path.to_str().ok_or_else(why)
}

fn in_json(shared: &pb::SharedContent) -> Json {
    json!({
        "content": shared.content,
        "path": shared.path,
        "bytes": shared.bytes,
        "files": shared.files,
        "whole": shared.whole,
    })
}

/// On standard error, and only where that is a terminal.
fn bar(hidden: bool, template: &str) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    // A wrong template would show in the test below; the default serves too.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

const HASHING: &str = "{spinner} hashed {bytes}, {bytes_per_sec}";
const FETCHING: &str = "{bar:40} {bytes}/{total_bytes}, {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_bars_are_well_formed() {
        for template in [HASHING, FETCHING] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
