//! All that a leaf has to do with content: what it shares, the links it shares
//! them over, whose turn it is, what is announced.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use blake3::Hash;
use canopy_core::keyspace::{NodeId, keys};
use canopy_overlay::fabric::link::{Acceptor, Link, LinkError, Links};
use canopy_proto::wire::refusal::Code;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::kept::Kept;
use super::pace::Pace;
use super::serve::Desk;
use super::source::Source;
use crate::client::{Client, Error};
use crate::node::Node;

/// What links for content are opened for.
pub(super) const PROTOCOL: &str = "canopy/content/1";
/// How long opening a link may take.
const CONNECT: Duration = Duration::from_secs(10);
/// A link over which nothing is said for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Streams of one other leaf that are answered at a time.
const STREAMS: usize = 64;
/// Lifetime of the announcement of what was fetched: such leaves come and go.
const FETCHED_TTL: Duration = Duration::from_secs(600);
/// Pause after an announcement that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// What is offered is looked after so often, while others come for it: the operator
/// may have banned it.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const BANNED: &str = "the network's operator banned it";
/// Longest wait for taking announcements back when the leaf closes.
const PARTING: Duration = Duration::from_secs(3);

/// What was shared and fetched since the leaf began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) uploaded: AtomicU64,
    pub(super) downloaded: AtomicU64,
    pub(super) pieces: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Counts since the leaf began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentStats {
    /// Bytes of pieces that were sent to other leaves, proofs included.
    pub uploaded: u64,
    /// Bytes of pieces that came from other leaves, proofs included.
    pub downloaded: u64,
    /// Pieces that came and are on disk.
    pub pieces: u64,
    /// Pieces, and sizes, whose proof did not hold; who sent one is asked no more.
    pub refused: u64,
}

/// A link in use.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) link: Link,
    /// Held by whoever asks over it.
    uses: Arc<()>,
}

/// What others are sent of.
#[derive(Debug)]
struct Offered {
    source: Arc<Source>,
    /// When super-nodes were asked last whether it is banned.
    asked: Option<Instant>,
}

/// Whether a content, or who announces it, is banned.
pub(super) fn is_ban(error: &Error) -> bool {
    matches!(error, Error::Refused { code, .. } if *code == Code::Banned)
}

/// The content of one leaf.
pub(crate) struct Hub<N: Node> {
    pub(super) client: Client<N>,
    links: Links,
    pub(super) pace: Pace,
    pub(super) kept: Option<Kept>,
    pub(super) counts: Counts,
    pub(super) desk: Mutex<Desk>,
    /// Changes when somebody begins to watch.
    pub(super) crowd: watch::Sender<()>,
    sources: Mutex<HashMap<Hash, Offered>>,
    conns: Mutex<HashMap<NodeId, Conn>>,
    /// Fetches under way, and how they hear of others who have some of it.
    pub(super) fetches: Mutex<HashMap<Hash, mpsc::Sender<NodeId>>>,
    /// Those that announce what was fetched.
    announcers: Mutex<HashMap<Hash, AbortHandle>>,
}

impl<N: Node> Hub<N> {
    /// Serves other leaves over `links` from now on, at most so many bits a second.
    pub(super) fn open(
        client: Client<N>,
        links: Links,
        upload_bps: Option<u64>,
        kept: Option<Kept>,
    ) -> Result<Arc<Self>, LinkError> {
        let acceptor = links.accept(PROTOCOL)?;
        let hub = Arc::new(Self {
            client,
            links,
            pace: Pace::new(upload_bps),
            kept,
            counts: Counts::default(),
            desk: Mutex::default(),
            crowd: watch::Sender::new(()),
            sources: Mutex::default(),
            conns: Mutex::default(),
            fetches: Mutex::default(),
            announcers: Mutex::default(),
        });
        tokio::spawn(accept(acceptor, Arc::downgrade(&hub)));
        Ok(hub)
    }

    pub(crate) fn stats(&self) -> ContentStats {
        let counts = &self.counts;
        ContentStats {
            uploaded: counts.uploaded.load(Relaxed),
            downloaded: counts.downloaded.load(Relaxed),
            pieces: counts.pieces.load(Relaxed),
            refused: counts.refused.load(Relaxed),
        }
    }

    /// Whether the operator banned a content, as far as this peer knows: a leaf
    /// keeps no decrees.
    pub(super) fn is_banned(&self, content: &Hash) -> bool {
        let bans = self.client.calls().bans();
        bans.key(&keys::provider(content.as_bytes()))
    }

    /// Asks super-nodes whether a content is banned, unless they were asked lately,
    /// and offers it no more if it is. Who cannot be asked forbids nothing.
    pub(super) async fn is_allowed(&self, content: Hash) -> bool {
        let now = Instant::now();
        {
            let mut sources = self.sources.lock();
            let Some(offered) = sources.get_mut(&content) else {
                return false;
            };
            if offered.asked.is_some_and(|asked| now - asked < ASK_AGAIN) {
                return true;
            }
            offered.asked = Some(now);
        }
        let banned = match self.client.find_providers(content, 1).await {
            Ok(_) => false,
            Err(error) => is_ban(&error),
        };
        if banned {
            self.withdraw(&content, BANNED);
        }
        !banned
    }

    pub(super) fn source(&self, content: &Hash) -> Option<Arc<Source>> {
        let sources = self.sources.lock();
        sources
            .get(content)
            .map(|offered| Arc::clone(&offered.source))
    }

    pub(super) fn sources(&self) -> Vec<Arc<Source>> {
        let sources = self.sources.lock();
        let all = sources.values().map(|offered| Arc::clone(&offered.source));
        all.collect()
    }

    /// Serves a content from now on.
    pub(super) fn offer(&self, source: Arc<Source>) {
        let asked = None;
        let offered = Offered { source, asked };
        let content = offered.source.root();
        self.sources.lock().insert(content, offered);
    }

    /// Serves a content no more, and why.
    pub(super) fn withdraw(&self, content: &Hash, why: &str) -> bool {
        if let Some(announcer) = self.announcers.lock().remove(content) {
            announcer.abort();
        }
        let offered = self.sources.lock().remove(content);
        if let Some(offered) = &offered {
            offered.source.end(why);
        }
        offered.is_some()
    }

    /// Announces a content that is fetched, or was, for as long as it is offered.
    pub(super) fn announce(self: &Arc<Self>, source: &Source) {
        let (content, hub) = (source.root(), Arc::downgrade(self));
        let task = tokio::spawn(async move {
            while let Some(hub) = hub.upgrade() {
                let Some(source) = hub.source(&content) else {
                    return;
                };
                let ttl = Some(FETCHED_TTL);
                let announced = hub.client.provide(content, source.bytes(), ttl).await;
                drop(source);
                let pause = match announced {
                    Ok(_) => FETCHED_TTL.mul_f64(rand::random_range(0.4..0.5)),
                    Err(error) if is_ban(&error) => {
                        hub.withdraw(&content, BANNED);
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%content, %error, "content.announce");
                        AGAIN
                    }
                };
                drop(hub);
                sleep(pause).await;
            }
        });
        let before = self.announcers.lock().insert(content, task.abort_handle());
        if let Some(before) = before {
            before.abort();
        }
    }

    /// A link to another leaf: the one that is there, or a new one.
    pub(super) async fn conn(self: &Arc<Self>, peer: NodeId) -> Result<Conn, LinkError> {
        let known = self.conns.lock().get(&peer).cloned();
        match known {
            Some(known) => Ok(known),
            None => {
                let link = self.links.connect(peer, PROTOCOL, CONNECT).await?;
                Ok(self.keep(link))
            }
        }
    }

    /// Answers what is asked over a link, whoever opened it, until it ends.
    fn keep(self: &Arc<Self>, link: Link) -> Conn {
        let conn = Conn {
            link,
            uses: Arc::new(()),
        };
        self.conns.lock().insert(conn.link.peer(), conn.clone());
        tokio::spawn(answer(conn.clone(), Arc::downgrade(self)));
        conn
    }

    /// Forgets a link that nobody asks over. False: somebody does.
    fn let_go(&self, conn: &Conn) -> bool {
        let mut conns = self.conns.lock();
        let known = conns.get(&conn.link.peer());
        let known = known.is_some_and(|known| Arc::ptr_eq(&known.uses, &conn.uses));
        // Besides the list, the task that answers holds one.
        let idle = Arc::strong_count(&conn.uses) <= 1 + usize::from(known);
        if idle && known {
            conns.remove(&conn.link.peer());
        }
        idle
    }

    fn forget(&self, conn: &Conn) {
        let mut conns = self.conns.lock();
        let known = conns.get(&conn.link.peer());
        if known.is_some_and(|known| Arc::ptr_eq(&known.uses, &conn.uses)) {
            conns.remove(&conn.link.peer());
        }
    }

    /// Takes back the announcements of what was fetched, and of what is shared
    /// where that is not kept for the next run.
    pub(crate) async fn close(&self) {
        let ends: Vec<Hash> = self.sources.lock().keys().copied().collect();
        let ends = ends.into_iter().filter(|content| {
            let kept = self.kept.as_ref();
            !kept.is_some_and(|kept| kept.has(content))
        });
        let ends: Vec<Hash> = ends.collect();
        for content in &ends {
            self.withdraw(content, "this leaf is closing");
        }
        let all = ends.iter().map(|content| self.client.unprovide(*content));
        // Those that are not taken back in time end by themselves.
        let _ = timeout(PARTING, futures_util::future::join_all(all)).await;
    }
}

async fn accept<N: Node>(mut acceptor: Acceptor, hub: Weak<Hub<N>>) {
    while let Some(link) = acceptor.next().await {
        let Some(hub) = hub.upgrade() else {
            return;
        };
        if hub.client.calls().bans().peer(&link.peer()) {
            link.close("banned by the network's operator");
            continue;
        }
        hub.keep(link);
    }
}

async fn answer<N: Node>(conn: Conn, hub: Weak<Hub<N>>) {
    let places = Arc::new(Semaphore::new(STREAMS));
    loop {
        let next = timeout(IDLE, conn.link.accept()).await;
        let Some(hub) = hub.upgrade() else {
            break;
        };
        let (send, recv) = match next {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => break,
            Err(_) if places.available_permits() == STREAMS && hub.let_go(&conn) => break,
            Err(_) => continue,
        };
        // Over the limit both streams are dropped, which tells the other side.
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let peer = conn.link.peer();
            tokio::spawn(async move {
                if let Err(error) = hub.answer(peer, send, recv).await {
                    tracing::debug!(peer = %peer.short(), %error, "content.answer");
                }
                drop(place);
            });
        }
    }
    if let Some(hub) = hub.upgrade() {
        hub.forget(&conn);
    }
    conn.link.close("nothing is said any more");
}
