//! What other leaves ask of this one: to be told what it has, and to be sent
//! pieces, in turn and within the upload limit.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use blake3::Hash;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::link::{RecvStream, SendStream};
use canopy_proto::wire;
use canopy_proto::wire::content_no::Why;
use canopy_proto::wire::content_opening::What;
use canopy_proto::wire::content_reply;
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::bits::Bits;
use super::frame;
use super::hub::Hub;
use super::picker::CANDIDATES;
use super::source::Source;
use super::turns::{Ticket, Turn, Turns};
use crate::node::Node;

/// A stream that says nothing at first is dropped.
const FIRST: Duration = Duration::from_secs(10);
/// Longest wait of an ask for its turn; then it is told to come again.
const WAIT: Duration = Duration::from_secs(20);
/// Most who watch at a time, all contents together.
const WATCHERS: usize = 512;
/// Others that one message names.
const PEERS: usize = 32;
/// Pieces that one message names.
pub(super) const NEWS: usize = 4096;
/// Bytes that go out at once: the limit is kept, and uploads share it, by these.
const GRAIN: usize = 16 * 1024;

/// Whose turn it is, and who waits to hear it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    turns: Turns,
    waiting: HashMap<Ticket, (Hash, oneshot::Sender<Turn>)>,
    watching: usize,
}

impl Desk {
    /// Tells all whose turn it is.
    fn pump(&mut self) {
        while let Some((ticket, turn)) = self.turns.next() {
            let Some((content, tell)) = self.waiting.remove(&ticket) else {
                continue;
            };
            if let (Err(_), Turn::Send(piece)) = (tell.send(turn), turn) {
                self.turns.over(&content, piece, false);
            }
        }
    }
}

/// The news of the other side, one message after the other.
pub(super) fn news_of(
    recv: RecvStream,
) -> impl Stream<Item = io::Result<wire::ContentNews>> + Send + Unpin {
    Box::pin(stream::unfold(Some(recv), |recv| async move {
        let mut recv = recv?;
        match frame::read(&mut recv).await {
            Ok(Some(news)) => Some((Ok(news), Some(recv))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl<N: Node> Hub<N> {
    pub(super) async fn answer(
        self: Arc<Self>,
        peer: NodeId,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> io::Result<()> {
        let opening: wire::ContentOpening = frame::expect(&mut recv, FIRST).await?;
        match opening.what {
            Some(What::Watch(watch)) => {
                let content = hash(&watch.content)?;
                self.watch(peer, content, send, recv).await
            }
            Some(What::Want(want)) => {
                let content = hash(&want.content)?;
                let what = match self.turn(peer, content, want.pieces, &send).await {
                    Ok(Some((source, piece))) => {
                        let whole = self.send(&source, piece, &mut send).await;
                        let mut desk = self.desk.lock();
                        desk.turns.over(&content, piece, whole.is_ok());
                        desk.pump();
                        return whole;
                    }
                    // The asker has gone.
                    Ok(None) => return Ok(()),
                    Err(why) => content_reply::What::No(wire::ContentNo { why: why.into() }),
                };
                frame::write(&mut send, &wire::ContentReply { what: Some(what) }).await
            }
            None => Err(bad("an opening of an unknown kind")),
        }
    }

    /// Waits for the turn of an ask. `None`: the asker waits no more.
    async fn turn(
        &self,
        peer: NodeId,
        content: Hash,
        mut pieces: Vec<u32>,
        send: &SendStream,
    ) -> Result<Option<(Arc<Source>, u32)>, Why> {
        let source = self.source(&content).filter(|_| !self.is_banned(&content));
        let source = source.ok_or(Why::Unknown)?;
        pieces.truncate(CANDIDATES);
        pieces.retain(|piece| source.has(*piece));
        if pieces.is_empty() {
            return Err(Why::None);
        }
        let (tell, mut told) = oneshot::channel();
        let ticket = {
            let mut desk = self.desk.lock();
            let ticket = desk.turns.enter(peer, content, pieces);
            let ticket = ticket.ok_or(Why::Busy)?;
            desk.waiting.insert(ticket, (content, tell));
            desk.pump();
            ticket
        };
        let (turn, gone) = tokio::select! {
            turn = timeout(WAIT, &mut told) => (turn.ok().and_then(Result::ok), false),
            _ = send.stopped() => (None, true),
        };
        let turn = turn.or_else(|| {
            let mut desk = self.desk.lock();
            desk.waiting.remove(&ticket);
            match desk.turns.give_up(ticket) {
                true => None,
                // It came at the same moment.
                false => told.try_recv().ok(),
            }
        });
        match turn {
            Some(Turn::Send(piece)) if gone => {
                let mut desk = self.desk.lock();
                desk.turns.over(&content, piece, false);
                desk.pump();
                Ok(None)
            }
            Some(Turn::Send(piece)) => Ok(Some((source, piece))),
            Some(Turn::Nothing) => Err(Why::None),
            None if gone => Ok(None),
            None => Err(Why::Busy),
        }
    }

    async fn send(
        &self,
        source: &Arc<Source>,
        piece: u32,
        send: &mut SendStream,
    ) -> io::Result<()> {
        let from = Arc::clone(source);
        let proved = tokio::task::spawn_blocking(move || from.prove(piece)).await;
        let encoded = match proved.map_err(io::Error::other)? {
            Ok(encoded) => encoded,
            Err(error) => {
                let content = source.root();
                tracing::warn!(%content, piece, %error, "content: what is shared is not on disk any more as it was; share it again");
                self.withdraw(&content, "what was shared has changed");
                let no = wire::ContentNo {
                    why: Why::Unknown.into(),
                };
                let what = Some(content_reply::What::No(no));
                return frame::write(send, &wire::ContentReply { what }).await;
            }
        };
        let head = wire::ContentPiece {
            index: piece,
            bytes: encoded.len() as u32,
        };
        let what = Some(content_reply::What::Piece(head));
        frame::write(send, &wire::ContentReply { what }).await?;
        for grain in encoded.chunks(GRAIN) {
            self.pace.take(grain.len()).await;
            frame::write_all(send, grain).await?;
            self.counts.uploaded.fetch_add(grain.len() as u64, Relaxed);
        }
        send.finish().map_err(io::Error::other)
    }

    /// Tells another leaf what this one has, and hears what that one has.
    async fn watch(
        self: Arc<Self>,
        peer: NodeId,
        content: Hash,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> io::Result<()> {
        let first: wire::ContentNews = frame::expect(&mut recv, FIRST).await?;
        let source = self.source(&content).filter(|_| !self.is_banned(&content));
        let Some(source) = source else {
            return end(&mut send, "this leaf has nothing of it").await;
        };
        if !self.is_allowed(content).await {
            return end(&mut send, "it is shared no more").await;
        }
        let Some(_watching) = Watching::begin(&self, peer, content, &first) else {
            return end(&mut send, "too many leaves fetch from this one").await;
        };
        // Whoever fetches will have some of it too.
        let fetch = self.fetches.lock().get(&content).cloned();
        if let Some(fetch) = fetch {
            // It looks into the index, too.
            let _ = fetch.try_send(peer);
        }
        let about = source.about();
        let (mut told, mut named) = (about.told, HashSet::from([peer]));
        let news = wire::ContentNews {
            size: about.size,
            proof: about.proof.into(),
            have: about.have.to_bytes().into(),
            peers: self.others(&content, &mut named),
            ..Default::default()
        };
        frame::write(&mut send, &news).await?;
        let (mut came, mut crowd) = (source.news(), self.crowd.subscribe());
        let mut heard = news_of(recv);
        loop {
            let more = match source.since(told, NEWS) {
                Ok(more) => more,
                Err(why) => return end(&mut send, &why).await,
            };
            let peers = self.others(&content, &mut named);
            if !more.is_empty() || !peers.is_empty() {
                told += more.len();
                let news = wire::ContentNews {
                    more,
                    peers,
                    ..Default::default()
                };
                frame::write(&mut send, &news).await?;
                continue;
            }
            tokio::select! {
                _ = came.changed() => {}
                _ = crowd.changed() => {}
                news = heard.next() => match news {
                    Some(news) => {
                        let mut desk = self.desk.lock();
                        desk.turns.gained(&peer, &content, &news?.more);
                        desk.pump();
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    /// Others who watch a content and were not named yet.
    fn others(&self, content: &Hash, named: &mut HashSet<NodeId>) -> Vec<bytes::Bytes> {
        let all = self.desk.lock().turns.watchers(content);
        let new = all.into_iter().filter(|node| named.insert(*node));
        new.take(PEERS).map(|node| node.to_bytes()).collect()
    }
}

/// A leaf is among those who watch for as long as this lives.
struct Watching<'a, N: Node> {
    hub: &'a Hub<N>,
    peer: NodeId,
    content: Hash,
}

impl<'a, N: Node> Watching<'a, N> {
    fn begin(
        hub: &'a Hub<N>,
        peer: NodeId,
        content: Hash,
        first: &wire::ContentNews,
    ) -> Option<Self> {
        let mut desk = hub.desk.lock();
        if desk.watching >= WATCHERS {
            return None;
        }
        desk.watching += 1;
        let have = Bits::from_bytes(&first.have);
        desk.turns.watch(peer, content, have);
        drop(desk);
        hub.crowd.send_replace(());
        Some(Self { hub, peer, content })
    }
}

impl<N: Node> Drop for Watching<'_, N> {
    fn drop(&mut self) {
        let mut desk = self.hub.desk.lock();
        desk.watching -= 1;
        desk.turns.unwatch(&self.peer, &self.content);
    }
}

async fn end(send: &mut SendStream, why: &str) -> io::Result<()> {
    let ended = why.to_owned();
    let news = wire::ContentNews {
        ended,
        ..Default::default()
    };
    frame::write(send, &news).await
}

fn hash(bytes: &[u8]) -> io::Result<Hash> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| bad("a hash is 32 bytes"))?;
    Ok(bytes.into())
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
