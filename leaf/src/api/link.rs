//! Links over the API: one call is one link, with a stream each way.

use std::pin::Pin;
use std::time::{Duration, Instant};

use canopy_overlay::fabric::link::{Link, LinkError, Path, RecvStream, SendStream};
use canopy_proto::leaf as pb;
use canopy_proto::leaf::{link_input, link_output, link_path};
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::convert;
use crate::leaf::Leaf;
use crate::node::Node;

/// Largest piece of data in one message, bytes.
const MAX_DATA: usize = 1024 * 1024;
/// Bytes read from a stream at a time.
const PIECE: usize = 64 * 1024;
/// Messages that wait for a slow reader; the link waits then.
const WAITING: usize = 8;
/// Longest wait for the other side to hear that all was read.
const PARTING: Duration = Duration::from_secs(3);
/// Most round trips of one call.
const MAX_PINGS: u32 = 1000;

/// What a call of Link answers.
pub(super) type Outputs = Pin<Box<dyn Stream<Item = Result<pb::LinkOutput, Status>> + Send>>;
/// What a call of Ping answers.
pub(super) type Pings = Pin<Box<dyn Stream<Item = Result<pb::PingReply, Status>> + Send>>;

type Told = mpsc::Sender<Result<pb::LinkOutput, Status>>;

/// Serves one call of Link.
pub(super) fn link<N: Node>(leaf: Leaf<N>, input: Streaming<pb::LinkInput>) -> Outputs {
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let work = async {
            let outcome = join(&leaf, input, &tell).await;
            if let Err(status) = outcome {
                // The caller may be gone.
                let _ = tell.send(Err(status)).await;
            }
        };
        tokio::select! {
            () = work => {}
            // Nobody reads any more: then nobody needs the link.
            () = tell.closed() => {}
        }
    });
    Box::pin(receiver(told))
}

fn receiver<T: Send + 'static>(told: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(told, |mut told| async move {
        let next = told.recv().await?;
        Some((next, told))
    })
}

async fn join<N: Node>(
    leaf: &Leaf<N>,
    mut input: Streaming<pb::LinkInput>,
    tell: &Told,
) -> Result<(), Status> {
    let first = input.message().await?.and_then(|input| input.what);
    let link = match first {
        Some(link_input::What::Open(open)) => {
            let node = convert::node_id("node_id", &open.node_id)?;
            leaf.connect(node, &open.protocol).await.map_err(status)?
        }
        Some(link_input::What::Accept(accept)) => {
            let mut acceptor = leaf.accept(&accept.protocol).map_err(status)?;
            let link = acceptor.next().await;
            link.ok_or_else(|| Status::unavailable("this leaf is closing"))?
        }
        _ => {
            let why = "the first message says whom to reach, or what to accept";
            return Err(Status::invalid_argument(why));
        }
    };
    let up = link_output::What::Up(pb::LinkUp {
        node_id: link.peer().to_string(),
        path: Some(path(link.path())),
    });
    say(tell, up).await?;
    let outcome = converse(&link, input, tell).await;
    // Then the other side had read all, and said all, before it ended the link.
    if link.finished() { Ok(()) } else { outcome }
}

/// Both ways at once. A stream that ends is not proof that an app has read it,
/// and who closes a QUIC connection takes away what was not read: each side says
/// so with a second, empty stream, and who has heard it ends the link. Not before
/// its own has arrived, for the close itself may be lost; nor much later, because
/// the other side may have gone by then.
async fn converse(link: &Link, input: Streaming<pb::LinkInput>, tell: &Told) -> Result<(), Status> {
    let send = link.open_uni().await.map_err(status)?;
    let ((), all_read) = tokio::try_join!(put_in(input, send), take_out(link, tell))?;
    link.accept_uni().await.map_err(status)?;
    // Either way both sides have all.
    let _ = tokio::time::timeout(PARTING, all_read.stopped()).await;
    link.finish();
    Ok(())
}

async fn say(tell: &Told, what: link_output::What) -> Result<(), Status> {
    let output = pb::LinkOutput { what: Some(what) };
    let told = tell.send(Ok(output)).await;
    told.map_err(|_| Status::cancelled("the caller has gone"))
}

/// From the caller to the other leaf.
async fn put_in(mut input: Streaming<pb::LinkInput>, mut send: SendStream) -> Result<(), Status> {
    while let Some(message) = input.message().await? {
        let Some(link_input::What::Data(data)) = message.what else {
            return Err(Status::invalid_argument(
                "only data follows the first message",
            ));
        };
        if data.len() > MAX_DATA {
            return Err(Status::out_of_range(
                "data over 1 MiB; send several messages",
            ));
        }
        send.write_all(&data).await.map_err(ended)?;
    }
    send.finish().map_err(ended)
}

/// From the other leaf to the caller; the stream that says that all was read.
async fn take_out(link: &Link, tell: &Told) -> Result<SendStream, Status> {
    let mut paths = link.paths();
    let mut recv: Option<RecvStream> = None;
    loop {
        let next = async {
            match &mut recv {
                None => link.accept_uni().await.map(Taken::Stream),
                Some(recv) => recv
                    .read_chunk(PIECE)
                    .await
                    .map(Taken::Piece)
                    .map_err(|error| LinkError::Broken(error.to_string())),
            }
        };
        tokio::select! {
            changed = paths.changed() => {
                if changed.is_ok() {
                    let now = paths.borrow_and_update().path();
                    say(tell, link_output::What::Path(path(now))).await?;
                }
            }
            taken = next => match taken.map_err(status)? {
                Taken::Stream(stream) => recv = Some(stream),
                Taken::Piece(Some(piece)) => {
                    say(tell, link_output::What::Data(piece.to_vec())).await?;
                }
                Taken::Piece(None) => break,
            }
        }
    }
    let mut all_read = link.open_uni().await.map_err(status)?;
    all_read.finish().map_err(ended)?;
    Ok(all_read)
}

enum Taken {
    Stream(RecvStream),
    Piece(Option<bytes::Bytes>),
}

/// Serves one call of Ping.
pub(super) fn ping<N: Node>(leaf: Leaf<N>, ask: pb::PingRequest) -> Result<Pings, Status> {
    let node = convert::node_id("node_id", &ask.node_id)?;
    if ask.count > MAX_PINGS {
        let why = format!(
            "{} round trips in one call, the limit is {MAX_PINGS}",
            ask.count
        );
        return Err(Status::invalid_argument(why));
    }
    let pause = Duration::from_millis(match ask.interval_ms {
        0 => 1000,
        millis => millis.into(),
    });
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let began = Instant::now();
        let work = async {
            let mut pinger = leaf.ping(node).await?;
            for round in 0..ask.count.max(1) {
                if round > 0 {
                    tokio::time::sleep(pause).await;
                }
                let pinged = pinger.ping().await?;
                let reply = pb::PingReply {
                    round_trip_us: micros(pinged.round_trip),
                    path: Some(path(pinged.path)),
                    at_us: micros(began.elapsed()),
                };
                if tell.send(Ok(reply)).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            outcome = work => if let Err(error) = outcome {
                // The caller may be gone.
                let _ = tell.send(Err(status(error))).await;
            },
            () = tell.closed() => {}
        }
    });
    Ok(Box::pin(receiver(told)))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn path(path: Path) -> pb::LinkPath {
    let what = match path {
        Path::Relayed(relay) => link_path::What::Relay(relay.to_string()),
        Path::Direct(addr) => link_path::What::Direct(addr.to_string()),
    };
    pb::LinkPath { what: Some(what) }
}

fn ended(error: impl std::fmt::Display) -> Status {
    status(LinkError::Broken(error.to_string()))
}

/// A failure as gRPC tells it.
fn status(error: LinkError) -> Status {
    let text = error.to_string();
    match error {
        LinkError::Myself | LinkError::Protocol(_) => Status::invalid_argument(text),
        LinkError::Taken(_) => Status::already_exists(text),
        LinkError::Unknown(_) => Status::not_found(text),
        LinkError::Refused { .. } | LinkError::WrongIdentity { .. } => {
            Status::failed_precondition(text)
        }
        LinkError::Busy => Status::resource_exhausted(text),
        LinkError::Socket(_) => Status::internal(text),
        LinkError::NoRelay { .. }
        | LinkError::Timeout(_)
        | LinkError::Broken(_)
        | LinkError::Closed => Status::unavailable(text),
    }
}
