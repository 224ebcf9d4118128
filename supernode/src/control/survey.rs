//! Everybody's figures: who serves is known, how they fare is asked of them.
//!
//! One survey is under way at a time, and all who want one share it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::election::mandate::Basis;
use canopy_core::keyspace::NodeId;
use canopy_core::node::Core;
use canopy_core::roster::Entry;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::poll::{Known, Poll, WRONG_KIND};
use crate::host::Host;

/// Figures younger than this are not asked for again.
const FRESH: Duration = Duration::from_millis(250);
/// A picture younger than this is given to the next one who asks.
const SHARED: Duration = Duration::from_millis(200);
/// Who holds a mandate, as this peer knows it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) state: State,
    pub(super) basis: Basis,
    pub(super) capacity_bps: u64,
    pub(super) seats: u32,
    pub(super) domain: Arc<str>,
    pub(super) term: u64,
    pub(super) issued_ms: u64,
    pub(super) expires_ms: u64,
}

/// What a mandate is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Serving,
    Down,
    Deputy,
    Released,
    Barred,
}

impl State {
    pub(super) const ALL: [State; 5] = [
        State::Serving,
        State::Down,
        State::Deputy,
        State::Released,
        State::Barred,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Down => "down",
            State::Deputy => "deputy",
            State::Released => "released",
            State::Barred => "barred",
        }
    }
}

impl Member {
    fn of(entry: &Entry) -> Self {
        Self {
            node: entry.node(),
            addrs: entry.addrs().to_vec(),
            state: match entry {
                entry if entry.barred => State::Barred,
                entry if entry.release.is_some() => State::Released,
                entry if entry.deputy => State::Deputy,
                entry if entry.down => State::Down,
                _ => State::Serving,
            },
            basis: entry.basis,
            capacity_bps: entry.capacity_bps,
            seats: entry.seats,
            domain: entry.domain.clone(),
            term: entry.term,
            issued_ms: entry.issued_ms,
            expires_ms: entry.expires_ms,
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.state == State::Serving
    }
}

/// A member, and how it fares by its own word.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) member: Member,
    pub(super) figures: Option<Figures>,
    /// Why there are no figures, of one that should have some.
    pub(super) missing: Option<String>,
}

/// Figures, and when they came.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) figures: Arc<wire::Figures>,
    pub(super) at: Instant,
}

/// The overlay at a moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// By node id.
    pub(super) seen: Vec<Seen>,
    /// What the rest may carry after a lost failure domain, by the policy in force,
    /// thousandths.
    pub(super) survive_milli: u64,
}

impl Picture {
    pub(super) fn serving(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.member.serves())
    }
}

/// Takes surveys for one control plane.
#[derive(Debug)]
pub(super) struct Survey {
    host: Host,
    poll: Poll<wire::Figures>,
    /// The last picture, for all who want one within a moment.
    last: Mutex<Option<(Instant, Arc<Picture>)>>,
}

impl Survey {
    pub(super) fn new(host: Host) -> Self {
        let ask = inspect::What::Figures(wire::FiguresAsk {});
        Self {
            poll: Poll::new(host.clone(), ask, read, FRESH),
            host,
            last: Mutex::default(),
        }
    }

    /// All who hold a mandate, with fresh figures of those who serve, as far as
    /// they answer in time. `None`: the peer has ended.
    pub(super) async fn take(&self) -> Option<Arc<Picture>> {
        let mut last = self.last.lock().await;
        if let Some((at, last)) = &*last
            && at.elapsed() < SHARED
        {
            return Some(last.clone());
        }
        let members = self.members().await?;
        let law = self.host.peer().look(|core, _| core.overlay_law()).await?;
        let mut answers = self.poll.take(members.iter()).await;
        let seen = members.into_iter().map(|member| {
            let (figures, missing) = match answers.remove(&member.node) {
                Some(Ok(Known { told, at })) => (Some(Figures { figures: told, at }), None),
                Some(Err(reason)) => (None, Some(reason)),
                None => (None, None),
            };
            Seen {
                member,
                figures,
                missing,
            }
        });
        let picture = Arc::new(Picture {
            seen: seen.collect(),
            survive_milli: law.survive_milli,
        });
        *last = Some((Instant::now(), picture.clone()));
        Some(picture)
    }

    /// All who hold a mandate, without their figures. `None`: the peer has ended.
    pub(super) async fn members(&self) -> Option<Vec<Member>> {
        let all = |core: &Core| core.roster().entries().map(Member::of).collect();
        let members = self.host.peer().look(move |core, _| all(core));
        members.await
    }
}

fn read(what: inspect_reply::What) -> Result<wire::Figures, String> {
    match what {
        inspect_reply::What::Figures(figures) => Ok(figures),
        _ => Err(WRONG_KIND.to_owned()),
    }
}
