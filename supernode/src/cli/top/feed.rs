//! Asks the control plane for what the screen shows, again and again, and goes on
//! when it does not answer.

use std::time::{Duration, Instant};

use canopy_proto::control as pb;
use pb::explain_election_request::Which;
use pb::watch_events_reply::What;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::super::control::Client;
use super::paint::Bands;

/// Pause before asking again one that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often elections are asked for: they ask all super-nodes.
const ELECTIONS_EVERY: Duration = Duration::from_secs(5);
/// Super-nodes asked for: the busiest.
const NODES: u32 = 200;
/// Elections asked for.
const ELECTIONS: u32 = 50;

/// What the screen is told.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// Everybody's load, and what the overlay is at that moment.
    Look(Box<Look>),
    /// The last elections.
    Elections(pb::ListElectionsReply),
    /// How the election went that the screen asked for.
    Explained(Box<pb::ExplainElectionReply>),
    /// What happened; `anew`: in another log than before.
    Event { event: pb::Event, anew: bool },
    /// Why there is no news; what was known may be old.
    Trouble(String),
}

/// The overlay at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) load: pb::LoadSample,
    pub(super) overview: pb::GetOverviewReply,
    pub(super) bands: Bands,
    pub(super) nodes: Vec<pb::SuperNode>,
    /// All of them, in order.
    pub(super) shards: Vec<pb::Shard>,
    pub(super) hot: pb::TopKeysReply,
}

/// Feeds the screen until it is gone.
pub(super) async fn run(
    client: Client,
    interval_ms: u32,
    news: mpsc::Sender<News>,
    want: watch::Receiver<Option<u64>>,
) {
    let looks = again(&news, async || {
        look(client.clone(), interval_ms, &news).await
    });
    let elections = again(&news, async || {
        elections(client.clone(), &news, want.clone()).await
    });
    let mut log = (0, 0);
    let events = again(&news, async || {
        events(client.clone(), &news, &mut log).await
    });
    tokio::join!(looks, elections, events);
}

/// Does it over and over, with a pause, for as long as anybody listens.
async fn again(news: &mpsc::Sender<News>, mut what: impl AsyncFnMut() -> Result<(), Status>) {
    while !news.is_closed() {
        if let Err(status) = what().await {
            let trouble = News::Trouble(status.message().to_owned());
            // A closed channel ends the loop above.
            let _ = news.send(trouble).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(
    mut client: Client,
    interval_ms: u32,
    news: &mpsc::Sender<News>,
) -> Result<(), Status> {
    let request = pb::WatchLoadRequest { interval_ms };
    let mut samples = client.watch_load(request).await?.into_inner();
    while let Some(load) = samples.message().await? {
        let overview = client.get_overview(pb::GetOverviewRequest {}).await?;
        let request = pb::ListSuperNodesRequest {
            page_size: NODES,
            order_by: "utilisation".to_owned(),
            descending: true,
            ..Default::default()
        };
        let listed = client.list_super_nodes(request).await?.into_inner();
        let shards = client.list_shards(pb::ListShardsRequest::default()).await?;
        let hot = client.top_keys(pb::TopKeysRequest::default()).await?;
        let policy = client.get_policy(pb::GetPolicyRequest {}).await?;
        let policy = policy.into_inner().in_force.unwrap_or_default();
        let look = Look {
            bands: Bands::of(&policy),
            load,
            overview: overview.into_inner(),
            nodes: listed.super_nodes,
            shards: shards.into_inner().shards,
            hot: hot.into_inner(),
        };
        if news.send(News::Look(Box::new(look))).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn elections(
    mut client: Client,
    news: &mpsc::Sender<News>,
    mut want: watch::Receiver<Option<u64>>,
) -> Result<(), Status> {
    let mut listed_at: Option<Instant> = None;
    loop {
        if listed_at.is_none_or(|at| at.elapsed() >= ELECTIONS_EVERY) {
            let request = pb::ListElectionsRequest { limit: ELECTIONS };
            let listed = client.list_elections(request).await?.into_inner();
            listed_at = Some(Instant::now());
            if news.send(News::Elections(listed)).await.is_err() {
                return Ok(());
            }
        }
        let term = *want.borrow_and_update();
        if let Some(term) = term {
            let request = pb::ExplainElectionRequest {
                which: Some(Which::Term(term)),
            };
            match client.explain_election(request).await {
                Ok(reply) => {
                    let explained = News::Explained(Box::new(reply.into_inner()));
                    if news.send(explained).await.is_err() {
                        return Ok(());
                    }
                }
                // Nobody remembers it any more; the list will say so.
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        tokio::select! {
            changed = want.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(ELECTIONS_EVERY) => {}
        }
    }
}

/// `log` is the log and the revision to go on after.
async fn events(
    mut client: Client,
    news: &mpsc::Sender<News>,
    log: &mut (u64, u64),
) -> Result<(), Status> {
    let request = pb::WatchEventsRequest {
        log: log.0,
        revision: log.1,
        history_only: false,
    };
    let mut stream = client.watch_events(request).await?.into_inner();
    let mut anew = false;
    while let Some(reply) = stream.message().await? {
        match reply.what {
            Some(What::History(history)) => {
                anew = history.log != log.0;
                log.0 = history.log;
            }
            Some(What::Event(event)) => {
                log.1 = event.revision;
                let told = News::Event { event, anew };
                anew = false;
                if news.send(told).await.is_err() {
                    break;
                }
            }
            None => {}
        }
    }
    Ok(())
}
