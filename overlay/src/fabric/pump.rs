//! A session's one task: reads frames, answers them, writes what is queued,
//! and ends requests whose deadline passed.
//!
//! Reading, writing and the deadlines take turns within one task, so that an
//! idle session costs one task and a burst of requests is answered in one write.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use canopy_proto::{limits, wire};
use parking_lot::Mutex;
use prost::Message;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use super::error::{CloseReason, RequestError};
use super::frame::{Decoder, Frame, FrameKind};
use super::hello::Streams;
use super::service::{Answer, Service, refusal};
use super::session::{Session, close_code};
use wire::refusal::Code;

/// Pieces taken from the stream at a time.
const CHUNKS: usize = 8;
/// Answers of ours that may wait in the queue before requests are refused, bytes.
const ANSWER_BYTES: usize = 4 * limits::FRAME;
/// Reading pauses for a turn of writing when this much is queued, bytes: a
/// stream's window, so that there is something to write.
const TURN_BYTES: usize = 64 * 1024;
/// Past this the peer ignores the refusals; the session ends.
const ANSWER_BYTES_END: usize = 2 * ANSWER_BYTES;

/// Why an answer is withheld.
const UNREAD: &str = "too many answers wait for you; read them first";

/// Runs the session to its end; why it ended.
pub(super) async fn run(
    session: &Session,
    streams: Streams,
    service: Arc<dyn Service>,
    most: usize,
) -> CloseReason {
    let serving = Serving {
        session: session.clone(),
        tasks: Arc::default(),
        most,
    };
    let read = read(&serving, streams.recv, streams.decoder, service);
    let write = write(session, streams.send);
    let sweep = sweep(session);
    tokio::select! {
        biased;
        () = session.closing() => session.close_reason().unwrap_or(CloseReason::Superseded),
        reason = read => reason,
        reason = write => reason,
        never = sweep => match never {},
    }
}

/// Requests of the peer's that are being answered by tasks.
struct Serving {
    session: Session,
    tasks: Arc<Mutex<HashMap<u32, AbortHandle>>>,
    most: usize,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for (_, task) in self.tasks.lock().drain() {
            task.abort();
        }
    }
}

async fn read(
    serving: &Serving,
    mut recv: RecvStream,
    mut decoder: Decoder,
    service: Arc<dyn Service>,
) -> CloseReason {
    loop {
        // Also what came right behind the hello.
        if let Err(reason) = drain(serving, &mut decoder, &*service) {
            return reason;
        }
        // The stream never says "no more" while the peer keeps it full.
        if serving.session.0.outbox.len() > TURN_BYTES {
            tokio::task::yield_now().await;
        }
        let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
        let count = match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => return CloseReason::Peer("the stream ended".into()),
            Err(error) => return read_failure(error),
        };
        for chunk in chunks.into_iter().take(count) {
            decoder.push(chunk);
            if let Err(reason) = drain(serving, &mut decoder, &*service) {
                return reason;
            }
        }
    }
}

fn drain(
    serving: &Serving,
    decoder: &mut Decoder,
    service: &dyn Service,
) -> Result<(), CloseReason> {
    let malformed = |text: String| CloseReason::Malformed(text);
    while let Some(frame) = decoder.next().map_err(|e| malformed(e.to_string()))? {
        take(serving, frame, service)?;
    }
    Ok(())
}

fn take(serving: &Serving, frame: Frame, service: &dyn Service) -> Result<(), CloseReason> {
    let malformed = |text: &str| CloseReason::Malformed(text.to_owned());
    let session = &serving.session;
    let size = frame.body.len();
    match frame.kind {
        FrameKind::Request => {
            let request = wire::Request::decode(frame.body)
                .map_err(|_| malformed("a request that cannot be decoded"))?;
            serving.request(frame.id, request, size, service)
        }
        FrameKind::Response => {
            let response = wire::Response::decode(frame.body)
                .map_err(|_| malformed("a response that cannot be decoded"))?;
            session.0.pending.finish(frame.id, outcome(response));
            Ok(())
        }
        FrameKind::Notify => {
            let message = wire::CoreMessage::decode(frame.body)
                .map_err(|_| malformed("a message that cannot be decoded"))?;
            match &message.kind {
                // From a newer version; the sender expects nothing.
                None => Ok(()),
                Some(kind) if size > limits::core(kind) + 8 => {
                    Err(malformed("a message over the limit of its kind"))
                }
                Some(_) => {
                    service.notify(session, message);
                    Ok(())
                }
            }
        }
        FrameKind::Cancel => {
            if let Some(task) = serving.tasks.lock().remove(&frame.id) {
                task.abort();
            }
            Ok(())
        }
        FrameKind::Hello | FrameKind::Refusal => Err(malformed("a second hello")),
    }
}

fn outcome(response: wire::Response) -> Result<wire::response::Kind, RequestError> {
    match response.kind {
        Some(wire::response::Kind::Refusal(no)) => Err(RequestError::Refused(no)),
        Some(kind) => Ok(kind),
        None => Err(RequestError::Malformed),
    }
}

impl Serving {
    fn request(
        &self,
        id: u32,
        request: wire::Request,
        size: usize,
        service: &dyn Service,
    ) -> Result<(), CloseReason> {
        let queued = self.session.0.outbox.len();
        let answer = match request.kind {
            None => Answer::refuse(Code::Malformed, "this version does not know the request"),
            Some(kind) if size > limits::request(&kind) + 8 => {
                Answer::refuse(Code::Malformed, "the request is over the limit of its kind")
            }
            Some(_) if queued > ANSWER_BYTES_END => {
                let text = "it sends requests and does not read the answers";
                return Err(CloseReason::Malformed(text.into()));
            }
            Some(_) if queued > ANSWER_BYTES => Answer::refuse(Code::Busy, UNREAD),
            Some(kind) => service.request(&self.session, kind),
        };
        match answer {
            Answer::Now(kind) => self.answer_now(id, kind),
            Answer::Later(mut future) => {
                // Often it is ready at once; then no task is needed.
                let mut probe = Context::from_waker(Waker::noop());
                match future.as_mut().poll(&mut probe) {
                    Poll::Ready(kind) => self.answer_now(id, kind),
                    Poll::Pending => self.answer_later(id, future),
                }
            }
        }
        Ok(())
    }

    fn answer_now(&self, id: u32, kind: wire::response::Kind) {
        let (response, size) = fitted(kind);
        let outbox = &self.session.0.outbox;
        outbox.push_from_task(FrameKind::Response, id, &response, size);
    }

    fn answer_later(
        &self,
        id: u32,
        future: Pin<Box<dyn Future<Output = wire::response::Kind> + Send>>,
    ) {
        let mut tasks = self.tasks.lock();
        if tasks.len() >= self.most || tasks.contains_key(&id) {
            drop(tasks);
            return self.answer_now(
                id,
                refusal(Code::Busy, "too many requests under way on this session"),
            );
        }
        let running = Arc::clone(&self.tasks);
        let session = self.session.clone();
        let task = tokio::spawn(async move {
            let mut reply = Reply {
                session,
                running,
                id,
                kind: None,
            };
            reply.kind = Some(future.await);
        });
        tasks.insert(id, task.abort_handle());
    }
}

/// Sends the answer when its task ends, also when it panicked; not when it was
/// cancelled.
struct Reply {
    session: Session,
    running: Arc<Mutex<HashMap<u32, AbortHandle>>>,
    id: u32,
    kind: Option<wire::response::Kind>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.running.lock().remove(&self.id).is_none() {
            return;
        }
        let failed = || refusal(Code::Internal, "the request failed here; see the log");
        let outbox = &self.session.0.outbox;
        let kind = match self.kind.take() {
            Some(_) if outbox.len() > ANSWER_BYTES => refusal(Code::Busy, UNREAD),
            kind => kind.unwrap_or_else(failed),
        };
        let (response, size) = fitted(kind);
        outbox.push_bounded(FrameKind::Response, self.id, &response, size);
    }
}

/// A response that fits into a frame, and its encoded length.
fn fitted(kind: wire::response::Kind) -> (wire::Response, usize) {
    let response = wire::Response { kind: Some(kind) };
    let size = response.encoded_len();
    if size <= limits::FRAME {
        return (response, size);
    }
    let kind = Some(refusal(Code::Internal, "the answer is larger than a frame"));
    let response = wire::Response { kind };
    let size = response.encoded_len();
    (response, size)
}

async fn write(session: &Session, mut send: SendStream) -> CloseReason {
    loop {
        let batch = std::future::poll_fn(|cx| session.0.outbox.poll_take(cx)).await;
        if let Err(error) = send.write_chunk(batch).await {
            return write_failure(error);
        }
    }
}

/// Never ends; ends requests whose deadline has passed.
async fn sweep(session: &Session) -> std::convert::Infallible {
    let shared = &session.0;
    let mut timer: Option<(Instant, Pin<Box<Sleep>>)> = None;
    std::future::poll_fn(|cx| {
        loop {
            let Some(earliest) = shared.pending.earliest() else {
                // The next request wakes this task through the queue.
                timer = None;
                return Poll::Pending;
            };
            let (at, sleep) = timer.get_or_insert_with(|| {
                (
                    earliest,
                    Box::pin(tokio::time::sleep_until(earliest.into())),
                )
            });
            if *at != earliest {
                *at = earliest;
                sleep.as_mut().reset(earliest.into());
            }
            ready!(sleep.as_mut().poll(cx));
            timer = None;
            for id in shared.pending.expire(Instant::now()) {
                shared.outbox.push_bounded(FrameKind::Cancel, id, &(), 0);
            }
        }
    })
    .await
}

fn read_failure(error: ReadError) -> CloseReason {
    match error {
        ReadError::ConnectionLost(lost) => lost_reason(lost),
        ReadError::Reset(_) => CloseReason::Peer("the stream was reset".into()),
        other => CloseReason::Transport(other.to_string()),
    }
}

fn write_failure(error: WriteError) -> CloseReason {
    match error {
        WriteError::ConnectionLost(lost) => lost_reason(lost),
        WriteError::Stopped(_) => CloseReason::Peer("the stream was stopped".into()),
        other => CloseReason::Transport(other.to_string()),
    }
}

/// What a lost connection means for the session.
pub(super) fn lost_reason(lost: ConnectionError) -> CloseReason {
    match lost {
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            match u64::from(close.error_code) {
                code if code == u64::from(close_code::SUPERSEDED) => CloseReason::Superseded,
                _ => CloseReason::Peer(text),
            }
        }
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::LocallyClosed => CloseReason::Local("the fabric closed".into()),
        other => CloseReason::Transport(other.to_string()),
    }
}
