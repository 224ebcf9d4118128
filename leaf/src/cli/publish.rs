//! `leaf publish`: reads files and sends them as items, in batches.

use std::process::ExitCode;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_supernode::cli::human::bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::PublishArgs;
use super::backend::Backend;
use super::commands::{note, partly, print, print_json, seconds};
use super::failure::Failure;

use super::scan::{self, Found, ScanError};
use crate::api::convert::item_to_proto;

/// Items in one call: a few hundred KiB at most.
const BATCH: usize = 64;
/// Failures named one by one; the rest are counted.
const NAMED: usize = 5;

/// What became of the files.
#[derive(Default)]
struct Tally {
    published: u64,
    bytes: u64,
    failed: Vec<(String, String)>,
}

pub(super) async fn publish(args: PublishArgs) -> Result<ExitCode, Failure> {
    let ttl_s = seconds(args.ttl)?;
    let (paths, all) = (args.paths.clone(), args.all);
    let found = tokio::task::spawn_blocking(move || scan::scan(&paths, all))
        .await
        .map_err(|error| Failure::local(format!("the scan broke off: {error}")))??;
    if found.is_empty() {
        return Err(Failure::nothing(
            "no file there; --all takes hidden and ignored ones",
        ));
    }
    let mut backend = Backend::find(&args.common).await?;
    let bar = progress(found.len() as u64, args.common.json);
    let outcome = send_all(&mut backend, found, ttl_s, &bar).await;
    bar.finish_and_clear();
    backend.close().await;
    report(&outcome?, args.common.json)
}

async fn send_all(
    backend: &mut Backend,
    found: Vec<Found>,
    ttl_s: u32,
    bar: &ProgressBar,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for batch in found.chunks(BATCH) {
        let batch = batch.to_vec();
        let described = tokio::task::spawn_blocking(move || describe_all(batch))
            .await
            .map_err(|error| Failure::local(format!("reading broke off: {error}")))?;
        let mut items = Vec::new();
        for (name, item) in described {
            match item {
                Ok(item) => items.push(item),
                Err(error) => tally.failed.push((name, error.to_string())),
            }
        }
        let names: Vec<(String, u64)> = items
            .iter()
            .map(|item| (item.name.clone(), item.size))
            .collect();
        let reply = backend.publish(pb::PublishRequest { items, ttl_s }).await?;
        for ((name, size), outcome) in names.into_iter().zip(reply.outcomes) {
            match outcome.error.is_empty() {
                true => {
                    tally.published += 1;
                    tally.bytes += size;
                }
                false => tally.failed.push((name, outcome.error)),
            }
        }
        bar.set_position(tally.published + tally.failed.len() as u64);
    }
    Ok(tally)
}

fn describe_all(batch: Vec<Found>) -> Vec<(String, std::io::Result<pb::Item>)> {
    let describe = |found: Found| {
        let item = scan::describe(&found).map(item_to_proto);
        (found.name, item)
    };
    batch.into_iter().map(describe).collect()
}

fn report(tally: &Tally, as_json: bool) -> Result<ExitCode, Failure> {
    if as_json {
        let failed: Vec<_> = tally
            .failed
            .iter()
            .map(|(name, error)| json!({ "name": name, "error": error }))
            .collect();
        print_json(&json!({
            "published": tally.published,
            "bytes": tally.bytes,
            "failed": failed,
        }))?;
    } else {
        let size = bytes(tally.bytes);
        print(&format!("published {} files, {size}\n", tally.published))?;
        for (name, error) in tally.failed.iter().take(NAMED) {
            note(&format!("not published: {name}: {error}"));
        }
        if tally.failed.len() > NAMED {
            note(&format!("... and {} more", tally.failed.len() - NAMED));
        }
    }
    match tally.failed.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(partly()),
    }
}

/// On standard error, and only where that is a terminal.
fn progress(files: u64, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(files);
    // A wrong template would show in the test below; the default serves too.
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

const TEMPLATE: &str = "{bar:40} {pos}/{len} files, {per_sec}, {eta} left";

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Unreadable { .. } => Self::local(error.to_string()),
            ScanError::TooMany | ScanError::Twice { .. } => Self::usage(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_bar_is_well_formed() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
