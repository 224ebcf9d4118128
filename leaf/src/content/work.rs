//! A fetch and one of those who have some of it: hears what it has, tells it what
//! has come, asks for pieces and checks them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::link::Link;
use canopy_proto::wire;
use canopy_proto::wire::content_no::Why;
use canopy_proto::wire::content_opening::What;
use canopy_proto::wire::content_reply;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::bits::Bits;
use super::fetch::{Ctx, blocking};
use super::frame;
use super::picker::Begun;
use super::serve::{NEWS, news_of};
use super::source::About;
use super::tree::{self, MAX_ENCODED};
use crate::node::Node;

/// How long the other side may take to say what it has.
const FIRST: Duration = Duration::from_secs(20);
/// How long an ask may wait for its turn there.
const TURN: Duration = Duration::from_secs(45);
/// How long a piece may take: 3 KiB a second.
const PIECE: Duration = Duration::from_secs(300);
/// Pause before who is busy is asked again, at random up to twice that.
const BUSY: Duration = Duration::from_millis(500);
/// Asks in a row that may fail.
const FAILURES: u32 = 3;

/// How it ended with one of them.
#[derive(Debug)]
pub(super) enum End {
    /// It sent what is wrong: it is asked no more.
    Lied,
    /// It is gone, or has nothing; later, perhaps.
    Lost {
        /// Why.
        why: String,
        /// It sent something before.
        useful: bool,
    },
}

impl End {
    fn lost(why: impl ToString) -> Self {
        let why = why.to_string();
        Self::Lost { why, useful: false }
    }
}

/// What became of one ask.
enum Asked {
    /// A piece came.
    Got,
    /// Nothing came of it, and that is no fault.
    Nothing,
    /// It failed.
    Failed(String),
    /// What came is wrong.
    Lied,
}

/// Asks one other leaf for as long as it has what is missing.
pub(super) async fn work<N: Node>(ctx: &Arc<Ctx<N>>, peer: NodeId) -> End {
    let mut useful = false;
    match talk(ctx, peer, &mut useful).await {
        Err(End::Lost { why, .. }) => End::Lost { why, useful },
        Err(End::Lied) | Ok(()) => {
            ctx.hub.counts.refused.fetch_add(1, Relaxed);
            tracing::warn!(peer = %peer, content = %ctx.content, "fetch: sent what is wrong, and is asked no more");
            End::Lied
        }
    }
}

/// Among those who are linked to, for as long as this lives.
struct Linked<'a, N: Node>(&'a Ctx<N>, NodeId);

impl<N: Node> Drop for Linked<'_, N> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.linked -= 1;
        state.picker.leave(&self.1);
        drop(state);
        // What it was sending another may send.
        self.0.changed.send_replace(());
    }
}

async fn talk<N: Node>(ctx: &Arc<Ctx<N>>, peer: NodeId, useful: &mut bool) -> Result<(), End> {
    let conn = ctx.hub.conn(peer).await.map_err(End::lost)?;
    let (mut send, mut recv) = conn.link.open().await.map_err(End::lost)?;
    let watch = wire::ContentWatch {
        content: ctx.content.as_bytes().to_vec().into(),
    };
    let opening = wire::ContentOpening {
        what: Some(What::Watch(watch)),
    };
    let own = ctx.source().map(|source| source.about());
    let mut told = own.as_ref().map_or(0, |own| own.told);
    frame::write(&mut send, &opening).await.map_err(End::lost)?;
    let first = first_news(own);
    frame::write(&mut send, &first).await.map_err(End::lost)?;
    let first = frame::expect(&mut recv, FIRST).await.map_err(End::lost)?;
    enter(ctx, peer, &first).await?;
    let _linked = Linked(ctx, peer);
    let source = ctx
        .source()
        .ok_or_else(|| End::lost("the fetch has ended"))?;
    let mut heard = news_of(recv);
    let (mut came, mut changed) = (source.news(), ctx.changed.subscribe());
    let mut asks: FuturesUnordered<Pin<Box<dyn Future<Output = Asked> + Send>>> =
        FuturesUnordered::new();
    let mut failures = 0;
    loop {
        loop {
            let asked = ctx.state.lock().picker.ask(&peer, rand::random());
            let Some(pieces) = asked else { break };
            let (ctx, link) = (Arc::clone(ctx), conn.link.clone());
            asks.push(Box::pin(
                async move { ask(&ctx, &link, peer, pieces).await },
            ));
        }
        let more = source.since(told, NEWS).map_err(End::lost)?;
        if !more.is_empty() {
            told += more.len();
            let news = wire::ContentNews {
                more,
                ..Default::default()
            };
            frame::write(&mut send, &news).await.map_err(End::lost)?;
        }
        tokio::select! {
            Some(asked) = asks.next() => match asked {
                Asked::Got => {
                    *useful = true;
                    failures = 0;
                }
                Asked::Nothing => {}
                Asked::Failed(why) => {
                    failures += 1;
                    if failures >= FAILURES {
                        return Err(End::lost(why));
                    }
                }
                Asked::Lied => return Err(End::Lied),
            },
            news = heard.next() => match news {
                Some(news) => hear(ctx, &peer, &news.map_err(End::lost)?)?,
                None => return Err(End::lost("the other leaf ended it")),
            },
            _ = came.changed() => {}
            _ = changed.changed() => {}
        }
    }
}

fn first_news(own: Option<About>) -> wire::ContentNews {
    let own = own.map(|own| wire::ContentNews {
        size: own.size,
        proof: own.proof.into(),
        have: own.have.to_bytes().into(),
        ..Default::default()
    });
    own.unwrap_or_default()
}

/// Takes in the first that another leaf says: the size with its proof, and what it
/// has.
async fn enter<N: Node>(
    ctx: &Arc<Ctx<N>>,
    peer: NodeId,
    news: &wire::ContentNews,
) -> Result<(), End> {
    if !news.ended.is_empty() {
        return Err(End::lost(&news.ended));
    }
    if !tree::is_size(ctx.content, news.size, &news.proof) {
        return Err(End::Lied);
    }
    if ctx.source().is_none() {
        let (size, proof, of) = (news.size, news.proof.clone(), Arc::clone(ctx));
        let begun = blocking(move || {
            // Whoever comes second finds it begun.
            let mut begun = of.begun.lock();
            if begun.is_none() {
                *begun = Some(of.store.begin(size, &proof)?);
            }
            Ok(begun.clone())
        });
        match begun.await {
            Ok(Some(source)) => ctx.know(source),
            Ok(None) => {}
            Err(error) => ctx.fail(error),
        }
    }
    {
        let mut state = ctx.state.lock();
        state.linked += 1;
        state.picker.join(peer, Bits::from_bytes(&news.have));
    }
    name(ctx, news);
    Ok(())
}

fn hear<N: Node>(ctx: &Ctx<N>, peer: &NodeId, news: &wire::ContentNews) -> Result<(), End> {
    if !news.ended.is_empty() {
        return Err(End::lost(&news.ended));
    }
    if !news.more.is_empty() {
        ctx.state.lock().picker.gained(peer, &news.more);
    }
    name(ctx, news);
    Ok(())
}

fn name<N: Node>(ctx: &Ctx<N>, news: &wire::ContentNews) {
    let peers = news.peers.iter();
    for peer in peers.filter_map(|peer| NodeId::from_slice(peer)) {
        ctx.found(peer);
    }
}

/// Asks for one of these pieces, and takes it.
async fn ask<N: Node>(ctx: &Arc<Ctx<N>>, link: &Link, peer: NodeId, pieces: Vec<u32>) -> Asked {
    let mut taken = None;
    let asked = timeout(PIECE, take(ctx, link, peer, &pieces, &mut taken)).await;
    ctx.state.lock().picker.over(&peer, taken);
    ctx.changed.send_replace(());
    match asked {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => Asked::Failed(error.to_string()),
        Err(_) => Asked::Failed("a piece took over five minutes".into()),
    }
}

async fn take<N: Node>(
    ctx: &Arc<Ctx<N>>,
    link: &Link,
    peer: NodeId,
    pieces: &[u32],
    taken: &mut Option<u32>,
) -> io::Result<Asked> {
    let (mut send, mut recv) = link.open().await.map_err(io::Error::other)?;
    let want = wire::ContentWant {
        content: ctx.content.as_bytes().to_vec().into(),
        pieces: pieces.to_vec(),
    };
    let opening = wire::ContentOpening {
        what: Some(What::Want(want)),
    };
    frame::write(&mut send, &opening).await?;
    let reply: wire::ContentReply = frame::expect(&mut recv, TURN).await?;
    let piece = match reply.what {
        Some(content_reply::What::Piece(piece)) => piece,
        Some(content_reply::What::No(no)) => {
            return Ok(match no.why() {
                Why::Busy => {
                    sleep(BUSY.mul_f64(rand::random_range(1.0..2.0))).await;
                    Asked::Nothing
                }
                Why::None => {
                    ctx.state.lock().picker.lost(&peer, pieces);
                    Asked::Nothing
                }
                Why::Unknown => Asked::Failed("it has nothing of it any more".into()),
            });
        }
        None => return Ok(Asked::Lied),
    };
    let size = piece.bytes as usize;
    if size > MAX_ENCODED {
        return Ok(Asked::Lied);
    }
    let begun = ctx.state.lock().picker.begun(&peer, pieces, piece.index);
    match begun {
        Begun::Take => *taken = Some(piece.index),
        // To drop the stream stops it.
        Begun::Have => return Ok(Asked::Nothing),
        Begun::Unasked => return Ok(Asked::Lied),
    }
    let _memory = ctx.memory.acquire().await.map_err(io::Error::other)?;
    let mut encoded = vec![0; size];
    let mut got = 0;
    while got < size {
        let read = timeout(frame::SILENCE, recv.read(&mut encoded[got..])).await;
        let read = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        match read.map_err(io::Error::other)? {
            Some(count) => got += count,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    ctx.hub.counts.downloaded.fetch_add(size as u64, Relaxed);
    keep(ctx, piece.index, encoded).await
}

/// Checks what came, and writes it if it is right.
async fn keep<N: Node>(ctx: &Arc<Ctx<N>>, piece: u32, encoded: Vec<u8>) -> io::Result<Asked> {
    let Some(source) = ctx.source() else {
        return Ok(Asked::Nothing);
    };
    let (of, into) = (Arc::clone(ctx), Arc::clone(&source));
    let kept = blocking(move || {
        let Some(proved) = into.check(piece, &encoded) else {
            return Ok(false);
        };
        of.store.put(&into, piece, proved).map(|()| true)
    });
    match kept.await {
        Ok(true) => {
            ctx.hub.counts.pieces.fetch_add(1, Relaxed);
            let mut state = ctx.state.lock();
            state.picker.got(piece);
            state.picker.grow(source.pieces());
            Ok(Asked::Got)
        }
        Ok(false) => Ok(Asked::Lied),
        Err(error) => {
            ctx.fail(error);
            Ok(Asked::Nothing)
        }
    }
}
