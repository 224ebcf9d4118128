//! Real files become items, published by all peers in turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::text;
use futures_util::stream::{self, StreamExt};

use super::DemoError;
use super::fleet::Fleet;
use super::show::Show;
use crate::cli::scan::{self, Found};
use crate::client::{Item, MAX_QUERY_TERMS, Query, QueryError};

/// Publishers at work at a time.
const AT_ONCE: usize = 8;
/// Items a publisher hands over in one call.
const BATCH: usize = 16;
/// Times that a publish is tried again.
const RETRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// An item of the overlay, and how to ask for it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) name: String,
    /// Number of the peer that published it.
    pub(super) publisher: usize,
    pub(super) query: Query,
}

/// What became of the files.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) items: Vec<Published>,
    pub(super) bytes: u64,
    /// Files that were not acknowledged, and why.
    pub(super) failed: Vec<(String, String)>,
}

/// Lists the files of a folder.
pub(super) async fn list(folder: PathBuf) -> Result<Vec<Found>, DemoError> {
    let list = move || -> Result<Vec<Found>, DemoError> {
        let found = scan::scan(std::slice::from_ref(&folder), false)?;
        match found.is_empty() {
            true => Err(DemoError::Empty(folder)),
            false => Ok(found),
        }
    };
    aside(list).await?
}

/// Reads files; those without a word that could find them are left out.
pub(super) async fn read(files: Vec<Found>) -> Result<Vec<Item>, DemoError> {
    aside(move || files.iter().filter_map(describe).collect()).await
}

/// Does what waits for the disk beside what waits for the network.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DemoError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| DemoError::Home(format!("the scan broke off: {error}")))
}

fn describe(found: &Found) -> Option<Item> {
    match scan::describe(found) {
        Ok(item) => (!text::terms(&item.name).is_empty()).then_some(item),
        Err(error) => {
            tracing::warn!(path = %found.path.display(), %error, "left out");
            None
        }
    }
}

/// The words of an item's name, as somebody would type them.
fn query_of(name: &str) -> Result<Query, QueryError> {
    let mut terms = text::terms(name);
    terms.truncate(MAX_QUERY_TERMS);
    Ok(Query::parse(&terms.join(" "))?.limit(crate::client::MAX_LIMIT))
}

/// Publishes all, spread over the living peers, and waits for acknowledgement.
pub(super) async fn publish(fleet: &Arc<Fleet>, items: Vec<Item>, show: &Show) -> Tally {
    let bar = show.progress("published", items.len());
    let alive: Vec<usize> = fleet.alive().map(|mate| mate.index).collect();
    let mut batches: Vec<(usize, Vec<Item>)> = alive.iter().map(|i| (*i, Vec::new())).collect();
    let publishers = batches.len().max(1);
    for (number, item) in items.into_iter().enumerate() {
        if let Some((_, batch)) = batches.get_mut(number % publishers) {
            batch.push(item);
        }
    }
    let work = batches.iter().flat_map(|(publisher, items)| {
        let parts = items.chunks(BATCH);
        parts.map(|part| (*publisher, part.to_vec()))
    });
    let outcomes = stream::iter(work.collect::<Vec<_>>())
        .map(|(publisher, part)| {
            let (fleet, bar) = (fleet.clone(), bar.clone());
            async move {
                let tally = publish_part(&fleet, publisher, part).await;
                bar.inc((tally.items.len() + tally.failed.len()) as u64);
                tally
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut tally = outcomes
        .fold(Tally::default(), |mut sum, part| async move {
            sum.items.extend(part.items);
            sum.failed.extend(part.failed);
            sum.bytes += part.bytes;
            sum
        })
        .await;
    // The seed picks by place in this list, whoever was done first.
    tally.items.sort_by(|a, b| a.name.cmp(&b.name));
    bar.finish_and_clear();
    tally
}

async fn publish_part(fleet: &Fleet, publisher: usize, mut items: Vec<Item>) -> Tally {
    let mut tally = Tally::default();
    for attempt in 0..=RETRIES {
        let outcomes = fleet.mates[publisher].leaf.publish_all(&items).await;
        let mut again = Vec::new();
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match (outcome, query_of(&item.name)) {
                (Ok(_), Ok(query)) => {
                    tally.bytes += item.size;
                    tally.items.push(Published {
                        name: item.name,
                        publisher,
                        query,
                    });
                }
                (Err(error), _) if attempt == RETRIES => {
                    tally.failed.push((item.name, error.to_string()));
                }
                (Err(_), _) => again.push(item),
                (Ok(_), Err(error)) => tally.failed.push((item.name, error.to_string())),
            }
        }
        if again.is_empty() {
            break;
        }
        items = again;
        tokio::time::sleep(PAUSE).await;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_asked_for_by_the_words_of_its_name() {
        let query = query_of("docs/Red Panda.md").unwrap();
        assert_eq!(query, Query::parse("docs red panda md").unwrap().limit(100));
        let long: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
        assert!(query_of(&long.join("/")).is_ok());
    }
}
