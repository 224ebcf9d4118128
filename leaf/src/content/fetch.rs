//! One fetch: finds who has the content, asks all of them, and writes what is
//! proved.

use std::collections::{HashMap, HashSet};
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use blake3::Hash;
use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::bits::Bits;
use super::error::FetchError;
use super::hub::{Hub, is_ban};
use super::picker::Picker;
use super::progress::{Progress, Rate};
use super::source::Source;
use super::store::Store;
use super::work::{End, work};
use crate::node::Node;

/// Fetches of one leaf at a time.
const FETCHES: usize = 32;
/// Others that one fetch asks at a time.
const PEERS: usize = 32;
/// Others that one fetch remembers.
const KNOWN: usize = 256;
/// Pieces that are in memory at a time.
const IN_MEMORY: usize = 24;
/// Pauses between looks into the index; the last one again and again.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// Pause before one that was lost is tried again; doubles, up to a minute.
const AGAIN: Duration = Duration::from_secs(1);
/// How long nobody at all may be found.
const NOBODY: Duration = Duration::from_secs(10);
/// How long nothing may come while nobody is linked to...
const ALONE: Duration = Duration::from_secs(60);
/// ...and while others are, who may wait for pieces themselves.
const STALLED: Duration = Duration::from_secs(300);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);

/// A content that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its hash.
    pub content: Hash,
    /// The file or folder.
    pub path: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many files; 1 where it is one.
    pub files: usize,
}

/// A fetch under way. Await it for the outcome, and read [`Fetch::next`] meanwhile
/// for its progress. When it is dropped it ends, and what has come is kept.
#[derive(Debug)]
pub struct Fetch {
    progress: watch::Receiver<Progress>,
    task: JoinHandle<Result<Fetched, FetchError>>,
    abort: AbortOnDrop,
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fetch {
    /// How far it is, now.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// How far it is, when that has changed; `None`: it has ended, await it.
    pub async fn next(&mut self) -> Option<Progress> {
        self.progress.changed().await.ok()?;
        Some(*self.progress.borrow_and_update())
    }
}

impl IntoFuture for Fetch {
    type Output = Result<Fetched, FetchError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let outcome = self.task.await;
            drop(self.abort);
            outcome.unwrap_or(Err(FetchError::Closed))
        })
    }
}

/// Begins to fetch.
pub(crate) fn start<N: Node>(
    hub: Result<Arc<Hub<N>>, FetchError>,
    content: Hash,
    to: PathBuf,
) -> Fetch {
    let (tell, progress) = watch::channel(Progress::default());
    let task = tokio::spawn(async move { run(hub?, content, to, tell).await });
    let abort = AbortOnDrop(task.abort_handle());
    Fetch {
        progress,
        task,
        abort,
    }
}

/// What all parts of one fetch share.
pub(super) struct Ctx<N: Node> {
    pub(super) hub: Arc<Hub<N>>,
    pub(super) content: Hash,
    pub(super) store: Store,
    pub(super) state: Mutex<State>,
    /// Held while the size is noted.
    pub(super) begun: Mutex<Option<Arc<Source>>>,
    /// Changes with everything that may give somebody something to do.
    pub(super) changed: watch::Sender<()>,
    pub(super) memory: Semaphore,
    found: mpsc::Sender<NodeId>,
}

#[derive(Default)]
pub(super) struct State {
    /// Known with the size.
    pub(super) source: Option<Arc<Source>>,
    pub(super) picker: Picker,
    /// What no other peer can mend.
    pub(super) failed: Option<FetchError>,
    pub(super) linked: usize,
    pub(super) last: String,
}

impl<N: Node> Ctx<N> {
    pub(super) fn source(&self) -> Option<Arc<Source>> {
        self.state.lock().source.clone()
    }

    pub(super) fn fail(&self, error: FetchError) {
        self.state.lock().failed.get_or_insert(error);
        self.changed.send_replace(());
    }

    /// Others who may have some of it.
    pub(super) fn found(&self, peer: NodeId) {
        // Whoever does not fit will be named again, or is in the index.
        let _ = self.found.try_send(peer);
    }

    /// The size is known: from now on this leaf is a provider too.
    pub(super) fn know(&self, source: Arc<Source>) {
        {
            let mut state = self.state.lock();
            if state.source.is_some() {
                return;
            }
            state.picker.grow(source.pieces());
            for piece in source.have().iter() {
                state.picker.got(piece);
            }
            state.source = Some(Arc::clone(&source));
        }
        self.hub.offer(Arc::clone(&source));
        self.hub.announce(&source);
        self.changed.send_replace(());
    }

    /// Whether all is there.
    fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.source.is_some() && state.picker.missing() == 0
    }
}

/// What ends with the fetch, however it ends.
struct Open<N: Node> {
    hub: Arc<Hub<N>>,
    content: Hash,
    done: bool,
}

impl<N: Node> Drop for Open<N> {
    fn drop(&mut self) {
        self.hub.fetches.lock().remove(&self.content);
        if !self.done
            && self
                .hub
                .withdraw(&self.content, "the fetch of it was given up")
        {
            let (hub, content) = (Arc::clone(&self.hub), self.content);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { hub.client.unprovide(content).await });
            }
        }
    }
}

async fn run<N: Node>(
    hub: Arc<Hub<N>>,
    content: Hash,
    to: PathBuf,
    tell: watch::Sender<Progress>,
) -> Result<Fetched, FetchError> {
    if hub.is_banned(&content) {
        return Err(FetchError::Banned(content));
    }
    if let Some(own) = hub.source(&content).filter(|own| own.is_whole()) {
        return Err(FetchError::Own(own.place()));
    }
    let (found, mut new) = mpsc::channel(KNOWN);
    {
        let mut fetches = hub.fetches.lock();
        if fetches.len() >= FETCHES {
            return Err(FetchError::TooMany(FETCHES));
        }
        if fetches.contains_key(&content) {
            return Err(FetchError::Twice(content));
        }
        fetches.insert(content, found.clone());
    }
    let mut open = Open {
        hub: Arc::clone(&hub),
        content,
        done: false,
    };
    let at = to.clone();
    let opened = blocking(move || Store::open(content, &at)).await?;
    let (store, source) = opened;
    let ctx = Arc::new(Ctx {
        hub,
        content,
        store,
        state: Mutex::new(State {
            picker: Picker::new(0, Bits::default()),
            ..State::default()
        }),
        begun: Mutex::default(),
        changed: watch::Sender::new(()),
        memory: Semaphore::new(IN_MEMORY),
        found,
    });
    if let Some(source) = source {
        ctx.know(source);
    }
    gather(&ctx, &mut new, &tell).await?;
    let source = ctx.source().ok_or(FetchError::Closed)?;
    let (last, from) = (Arc::clone(&source), Arc::clone(&ctx));
    blocking(move || from.store.finish(&last)).await?;
    open.done = true;
    let manifest = source
        .manifest()
        .map_or(0, |manifest| manifest.len() as u64);
    Ok(Fetched {
        content,
        path: to,
        bytes: source.bytes() - manifest,
        files: source.files(),
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(FetchError::Closed))
}

/// One who was heard of.
#[derive(Default)]
struct Known {
    working: bool,
    failures: u32,
    /// Not before.
    next: Option<Instant>,
}

/// Asks all who have some of it until all is there.
async fn gather<N: Node>(
    ctx: &Arc<Ctx<N>>,
    new: &mut mpsc::Receiver<NodeId>,
    tell: &watch::Sender<Progress>,
) -> Result<(), FetchError> {
    let me = ctx.hub.client.node_id();
    let begun = Instant::now();
    let mut known: HashMap<NodeId, Known> = HashMap::new();
    // They sent what was wrong.
    let mut liars: HashSet<NodeId> = HashSet::new();
    let mut workers: JoinSet<(NodeId, End)> = JoinSet::new();
    let mut looks = LOOKS.iter();
    let mut look_at = begun;
    let mut looking: JoinSet<Result<Vec<NodeId>, FetchError>> = JoinSet::new();
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut rate = Rate::default();
    let (mut last_missing, mut last_gain) = (usize::MAX, begun);
    let mut changed = ctx.changed.subscribe();
    loop {
        if let Some(error) = ctx.state.lock().failed.take() {
            return Err(error);
        }
        let progress = tell_progress(ctx, tell, &mut rate, liars.len());
        if ctx.is_done() {
            return Ok(());
        }
        if progress != last_missing {
            (last_missing, last_gain) = (progress, Instant::now());
        }
        for (node, peer) in &mut known {
            let due = peer.next.is_none_or(|next| next <= Instant::now());
            if !peer.working && due && workers.len() < PEERS {
                peer.working = true;
                let (ctx, node) = (Arc::clone(ctx), *node);
                workers.spawn(async move { (node, work(&ctx, node).await) });
            }
        }
        give_up(ctx, begun, last_gain, known.len() + liars.len())?;
        tokio::select! {
            () = sleep_until(look_at), if looking.is_empty() => {
                look_at = Instant::now() + looks.next().copied().unwrap_or(LOOKS[4]);
                let ctx = Arc::clone(ctx);
                looking.spawn(async move {
                    let found = ctx.hub.client.find_providers(ctx.content, crate::client::MAX_LIMIT);
                    Ok(found.await?.into_iter().map(|provider| provider.node_id).collect())
                });
            }
            Some(found) = looking.join_next() => match found.unwrap_or(Err(FetchError::Closed)) {
                Ok(found) => for node in found {
                    enter(&mut known, &liars, me, node);
                },
                Err(FetchError::Overlay(error)) if is_ban(&error) => {
                    return Err(FetchError::Banned(ctx.content));
                }
                // Those who are known may do.
                Err(error) if known.is_empty() => return Err(error),
                Err(error) => ctx.state.lock().last = error.to_string(),
            },
            Some(node) = new.recv() => enter(&mut known, &liars, me, node),
            Some(ended) = workers.join_next() => {
                let Ok((node, end)) = ended else { continue };
                match end {
                    End::Lied => {
                        known.remove(&node);
                        liars.insert(node);
                        ctx.state.lock().last = format!("{} sent what is wrong", node.short());
                    }
                    End::Lost { why, useful } => if let Some(peer) = known.get_mut(&node) {
                        peer.failures = if useful { 1 } else { (peer.failures + 1).min(6) };
                        peer.working = false;
                        peer.next = Some(Instant::now() + AGAIN * (1 << peer.failures));
                        ctx.state.lock().last = why;
                    },
                }
            }
            _ = changed.changed() => {}
            _ = ticks.tick() => {}
        }
    }
}

fn enter(known: &mut HashMap<NodeId, Known>, liars: &HashSet<NodeId>, me: NodeId, node: NodeId) {
    if node != me && known.len() < KNOWN && !liars.contains(&node) {
        known.entry(node).or_default();
    }
}

/// Tells how far it is; how many pieces are missing.
fn tell_progress<N: Node>(
    ctx: &Ctx<N>,
    tell: &watch::Sender<Progress>,
    rate: &mut Rate,
    liars: usize,
) -> usize {
    let (source, missing, linked) = {
        let state = ctx.state.lock();
        let missing = state.picker.missing();
        (state.source.clone(), missing, state.linked)
    };
    let Some(source) = source else {
        return usize::MAX;
    };
    let progress = Progress {
        bytes: source.come(),
        total: source.bytes(),
        providers: linked,
        rate: rate.take(Instant::now(), source.come()),
        refused: liars,
    };
    tell.send_if_modified(|told| {
        let news = *told != progress;
        *told = progress;
        news
    });
    missing
}

fn give_up<N: Node>(
    ctx: &Ctx<N>,
    begun: Instant,
    last_gain: Instant,
    providers: usize,
) -> Result<(), FetchError> {
    let state = ctx.state.lock();
    if providers == 0 && begun.elapsed() > NOBODY && last_gain.elapsed() > NOBODY {
        return Err(FetchError::NoProvider(ctx.content));
    }
    let patience = if state.linked == 0 { ALONE } else { STALLED };
    match last_gain.elapsed() > patience {
        true => Err(FetchError::Stalled {
            content: ctx.content,
            providers,
            last: state.last.clone(),
        }),
        false => Ok(()),
    }
}
