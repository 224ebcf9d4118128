//! What the dashboard shows, as JSON: the messages of the API, made once for all
//! who look within a moment.
//!
//! It must never cost more because more look, and a viewer learns nothing here
//! that the API would not tell who may only look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopy_core::election::law::LawConfig;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::desk::Desk;
use super::hot::Wanted;
use super::log::Read;
use super::overview::overview;
use super::shards::Shards;
use super::survey::{Picture, Seen};
use super::watch::{Sampler, event};
use super::{convert, explain};
use crate::event::unix_ms;
use crate::host::Host;

/// A state younger than this is shown to the next one who looks.
const FRESH: Duration = Duration::from_millis(900);
/// The same of elections, which ask others for more.
const ELECTIONS_FRESH: Duration = Duration::from_secs(2);
/// Elections listed.
const ELECTIONS: u32 = 32;
/// Explanations kept for those who look next.
const EXPLAINED: usize = 16;
/// Super-nodes shown one by one: the busiest.
const SHOWN: usize = 200;
/// Events told in one answer: the last.
const EVENTS: u64 = 200;

/// The overlay at a moment, as far as it was reached.
#[derive(Serialize)]
struct State {
    bands: Bands,
    overview: pb::GetOverviewReply,
    load: pb::LoadSample,
    /// The busiest, with those that were not reached before them.
    super_nodes: Vec<pb::SuperNode>,
    deputies: Vec<pb::SuperNode>,
    shards: Vec<pb::Shard>,
    hot: pb::TopKeysReply,
}

/// Where the overlay shrinks below, grows above, and what a loss may leave at most;
/// thousandths of the capacity.
#[derive(Serialize)]
struct Bands {
    shrink: u64,
    grow: u64,
    survive: u64,
}

impl Bands {
    fn of(law: &LawConfig) -> Self {
        Self {
            shrink: law.shrink_milli,
            grow: law.grow_milli,
            survive: law.survive_milli,
        }
    }
}

/// Events after a revision.
#[derive(Serialize)]
struct Happened {
    history: pb::History,
    events: Vec<pb::Event>,
}

/// Whatever was asked for last, and when.
type Kept = (Instant, Result<Bytes, Status>);

/// Answers viewers from one host.
#[derive(Debug)]
pub(crate) struct Board {
    host: Host,
    desk: Arc<Desk>,
    state: Mutex<(Sampler, Option<(Instant, Bytes)>)>,
    /// By term; 0: the list.
    elections: Mutex<HashMap<u64, Kept>>,
}

impl Board {
    /// Call within a tokio runtime.
    pub(crate) fn new(host: Host) -> Self {
        Self {
            desk: Desk::of(&host),
            host,
            state: Mutex::default(),
            elections: Mutex::default(),
        }
    }

    /// The overlay now: `{bands, overview, load, super_nodes, deputies, shards,
    /// hot}`.
    pub(crate) async fn state(&self) -> Result<Bytes, Status> {
        let mut state = self.state.lock().await;
        if let Some((at, made)) = &state.1
            && at.elapsed() < FRESH
        {
            return Ok(made.clone());
        }
        let desk = &self.desk;
        let members = desk.survey.members().await.ok_or_else(closing)?;
        let law = self.host.peer().look(|core, _| core.overlay_law());
        let law = law.await.ok_or_else(closing)?;
        let wanted = Wanted::of(&pb::TopKeysRequest::default())?;
        let (picture, shards, hot) = tokio::join!(
            desk.survey.take(),
            desk.shards.take(members.iter()),
            desk.hot.take(&wanted, &members),
        );
        let picture = picture.ok_or_else(closing)?;
        let load = state.0.sample(&picture);
        let made = json(&self.state_of(Bands::of(&law), &picture, load, &shards, hot))?;
        state.1 = Some((Instant::now(), made.clone()));
        Ok(made)
    }

    fn state_of(
        &self,
        bands: Bands,
        picture: &Picture,
        load: pb::LoadSample,
        shards: &Shards,
        hot: pb::TopKeysReply,
    ) -> State {
        let seats = convert::seats(picture);
        let mut shown: Vec<&Seen> = picture.seen.iter().collect();
        let busy = |seen: &Seen| {
            let figures = &seen.figures.as_ref()?.figures;
            Some(convert::worst(figures.utilisation.as_ref()?).0)
        };
        shown.sort_by_key(|seen| match (seen.member.serves(), busy(seen)) {
            (true, Some(milli)) => (1, u32::MAX - milli),
            (true, None) => (0, 0),
            (false, _) => (2, 0),
        });
        let (holders, deputies): (Vec<&Seen>, Vec<&Seen>) = shown
            .into_iter()
            .partition(|seen| seen.member.state != super::survey::State::Deputy);
        let list = |all: Vec<&Seen>| {
            let some = all.into_iter().take(SHOWN);
            some.map(|seen| convert::super_node(seen, seats)).collect()
        };
        State {
            bands,
            overview: pb::GetOverviewReply {
                network: self.host.network().to_owned(),
                topology: self.host.topology().as_str().to_owned(),
                node_id: self.host.node_id().to_string(),
                role: self.host.role().as_str().to_owned(),
                at_ms: unix_ms(),
                ..overview(picture, shards)
            },
            load,
            super_nodes: list(holders),
            deputies: list(deputies),
            shards: shards.all(),
            hot,
        }
    }

    /// What happened after `revision` of `log`; 0 and 0: what is kept. Of much,
    /// the last: `{history, events}`.
    pub(crate) fn events(&self, log: u64, revision: u64) -> Result<Bytes, Status> {
        let kept = &self.desk.log;
        let (oldest, latest) = kept.span();
        let same = log == kept.id && revision <= latest;
        let gone = revision > 0 && (!same || revision + 1 < oldest);
        let from = if same { revision } else { 0 };
        let mut from = from.max(oldest - 1).max(latest.saturating_sub(EVENTS));
        let mut events = Vec::new();
        while from < latest
            && let Read::Events(some) = kept.after(from)
            && let Some((last, _)) = some.last()
        {
            from = *last;
            events.extend(some.iter().map(|(revision, one)| event(*revision, one)));
        }
        json(&Happened {
            history: pb::History {
                log: kept.id,
                oldest,
                latest: from,
                gone,
            },
            events,
        })
    }

    /// The last elections, as `ListElections` answers.
    pub(crate) async fn elections(&self) -> Result<Bytes, Status> {
        let ask = async {
            let members = self.desk.survey.members().await.ok_or_else(closing)?;
            let request = pb::ListElectionsRequest { limit: ELECTIONS };
            json(&explain::list(&self.host, &members, &request).await?)
        };
        self.kept(0, ask).await
    }

    /// How an election went, as `ExplainElection` answers.
    pub(crate) async fn election(&self, term: u64) -> Result<Bytes, Status> {
        let ask = async {
            let members = self.desk.survey.members().await.ok_or_else(closing)?;
            json(&explain::explain(&self.host, &members, term).await?)
        };
        self.kept(term, ask).await
    }

    /// What `ask` gave for `term` a moment ago, or gives now. One at a time asks:
    /// viewers together do not ask the overlay more often than one could.
    async fn kept(
        &self,
        term: u64,
        ask: impl Future<Output = Result<Bytes, Status>>,
    ) -> Result<Bytes, Status> {
        let mut kept = self.elections.lock().await;
        kept.retain(|_, (at, _)| at.elapsed() < ELECTIONS_FRESH);
        if let Some((_, made)) = kept.get(&term) {
            return made.clone();
        }
        let made = ask.await;
        if kept.len() < EXPLAINED {
            kept.insert(term, (Instant::now(), made.clone()));
        }
        made
    }
}

fn closing() -> Status {
    Status::unavailable("this peer is closing; ask another")
}

fn json(of: &impl Serialize) -> Result<Bytes, Status> {
    let made = serde_json::to_vec(of);
    made.map(Bytes::from)
        .map_err(|error| Status::internal(format!("the answer cannot be written: {error}")))
}
