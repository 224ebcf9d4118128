//! The reckoning: every published item, looked for by every living peer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::fleet::Fleet;
use super::load::find;
use super::publish::Published;
use super::show::Show;

/// Searches under way at once, over all peers.
const AT_ONCE: usize = 32;
/// Times that each is tried.
const TRIES: usize = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// How many items everybody found, and what was missed, in words.
pub(super) async fn find_all(
    fleet: &Arc<Fleet>,
    items: &[Published],
    show: &Show,
) -> (usize, Vec<String>) {
    let seekers: Vec<usize> = fleet.alive().map(|mate| mate.index).collect();
    let bar = show.progress("found again", items.len() * seekers.len());
    // Item by item: should it be stopped, whole items are done.
    let pairs = (0..items.len()).flat_map(|item| seekers.iter().map(move |seeker| (item, *seeker)));
    let missed: Vec<(usize, String)> = stream::iter(pairs)
        .map(|(item, seeker)| {
            let bar = bar.clone();
            async move {
                let outcome = seek(fleet, seeker, &items[item]).await;
                bar.inc(1);
                outcome.err().map(|reason| (item, reason))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |missed| missed)
        .collect()
        .await;
    bar.finish_and_clear();
    let items_missed: BTreeSet<usize> = missed.iter().map(|(item, _)| *item).collect();
    let reasons = missed.into_iter().map(|(_, reason)| reason).collect();
    (items.len() - items_missed.len(), reasons)
}

async fn seek(fleet: &Fleet, seeker: usize, item: &Published) -> Result<(), String> {
    let mate = &fleet.mates[seeker];
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match find(fleet, mate, item).await {
            Ok(_) => return Ok(()),
            Err(reason) => last = reason,
        }
    }
    Err(format!("#{seeker:02}: {last}"))
}
