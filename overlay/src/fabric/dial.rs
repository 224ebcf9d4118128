//! Dialling: one dial a peer at a time, its addresses tried one after another
//! without waiting for the slow ones.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_proto::wire::refusal::Code;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::error::DialError;
use super::hello::{self, HelloError};
use super::registry::Entered;
use super::session::{Session, close_code};
use super::target::Target;
use super::{Inner, tls};

/// The next address is tried after this, while the one before may still answer.
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses tried.
const MAX_ADDRS: usize = 8;

type Outcome = Result<Session, DialError>;
type Key = (Option<NodeId>, Vec<SocketAddr>);

/// Dials under way; whoever else wants the same peer waits for their outcome.
#[derive(Default)]
pub(super) struct Dials(Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>);

/// See [`super::Fabric::connect`].
pub(super) async fn connect(inner: &Arc<Inner>, target: &Target, deadline: Duration) -> Outcome {
    let until = Instant::now() + deadline;
    if let Some(session) = target.id.and_then(|id| inner.registry.get(&id)) {
        return Ok(session);
    }
    if target.id == Some(inner.config.identity.node_id()) {
        return Err(DialError::Myself);
    }
    if target.addrs.is_empty() {
        return Err(DialError::NoAddress);
    }
    loop {
        if inner.registry.is_closed() {
            return Err(DialError::Closed);
        }
        let mut outcome = join(inner, target, until);
        let settled = timeout_at(until, outcome.wait_for(Option::is_some)).await;
        match settled {
            Err(_) => return Err(DialError::Timeout),
            // Another caller's deadline was shorter than ours: dial again.
            Ok(Ok(result))
                if matches!(*result, Some(Err(DialError::Timeout))) && Instant::now() < until => {}
            Ok(Ok(result)) => return result.clone().unwrap_or(Err(DialError::Closed)),
            Ok(Err(_)) => return Err(DialError::Closed),
        }
    }
}

/// The dial for `target` that is under way, or a new one.
fn join(inner: &Arc<Inner>, target: &Target, until: Instant) -> watch::Receiver<Option<Outcome>> {
    // A known peer is dialled once, whatever addresses its callers know.
    let addrs = target
        .id
        .map_or_else(|| target.addrs.clone(), |_| Vec::new());
    let key = (target.id, addrs);
    let mut dials = inner.dials.0.lock();
    if let Some(outcome) = dials.get(&key) {
        return outcome.clone();
    }
    let (settle, outcome) = watch::channel(None);
    dials.insert(key.clone(), outcome.clone());
    let (inner, target) = (Arc::clone(inner), target.clone());
    tokio::spawn(async move {
        let result = timeout_at(until, dial(&inner, &target)).await;
        let result = result.unwrap_or(Err(DialError::Timeout));
        if let Err(error) = &result {
            tracing::debug!(%target, %error, "fabric.dial.failed");
        }
        inner.dials.0.lock().remove(&key);
        settle.send_replace(Some(result));
    });
    outcome
}

async fn dial(inner: &Arc<Inner>, target: &Target) -> Outcome {
    let connection = reach(inner, target).await?;
    let peer = match identify(&connection, target.id) {
        Ok(peer) if peer == inner.config.identity.node_id() => Err(DialError::Myself),
        other => other,
    }
    .inspect_err(|_| close(&connection, close_code::PROBE, "another peer was expected"))?;
    // An address without an id may turn out to be a peer that we know.
    if let Some(session) = inner.registry.get(&peer) {
        close(&connection, close_code::PROBE, "a session is open");
        return Ok(session);
    }
    if let Some(no) = inner.banned(&peer) {
        close(&connection, close_code::REFUSED, &no.message);
        return Err(no.into());
    }
    let contact = inner.contact.load_full();
    match hello::dial(&inner.config, &contact, &connection, peer).await {
        Ok((agreed, streams)) => {
            let session = Session::new(inner, connection, agreed, false);
            match inner.open(session.clone(), streams, None) {
                Entered::Current(_) => Ok(session),
                Entered::Loses(current) => {
                    session.end(super::CloseReason::Superseded);
                    Ok(current)
                }
                Entered::Closed => Err(DialError::Closed),
            }
        }
        Err(HelloError::Broken(lost)) if superseded(&lost) => inner
            .registry
            .get(&peer)
            .ok_or_else(|| DialError::Busy("a crossing dial won and ended".into())),
        Err(HelloError::Broken(lost)) => Err(lost.into()),
        Err(HelloError::Cut) => Err(DialError::Unreachable("the peer cut the stream".into())),
        Err(HelloError::Refused(no)) => {
            close(&connection, close_code::CLOSED, "refused");
            Err(no.into())
        }
        Err(HelloError::Refuse(no)) => {
            close(&connection, close_code::REFUSED, &no.message);
            Err(no.into())
        }
    }
}

/// A connection over UDP or, where that is not answered, by a carrier: whichever
/// comes first.
async fn reach(inner: &Arc<Inner>, target: &Target) -> Result<Connection, DialError> {
    let udp = handshake(&inner.endpoint, &inner.client, &target.addrs);
    let carried = async {
        tokio::time::sleep(inner.carriers.patience()).await;
        by_carrier(inner, target).await
    };
    let (mut udp, mut carried) = (pin!(udp), pin!(carried));
    tokio::select! {
        biased;
        reached = &mut udp => match reached {
            // Nothing answered, or the system would not send.
            Err(error @ (DialError::Timeout | DialError::Unreachable(_))) => {
                let reached = carried.await.map_err(|_| error);
                reached.inspect(|_| inner.carriers.learn(false))
            }
            reached => reached.inspect(|_| inner.carriers.learn(true)),
        },
        reached = &mut carried => match reached {
            Ok(connection) => {
                inner.carriers.learn(false);
                Ok(connection)
            }
            Err(error) => {
                tracing::debug!(%target, %error, "fabric.dial.by_carrier");
                udp.await
            }
        },
    }
}

/// The same over carriers to the addresses of `target`.
async fn by_carrier(inner: &Arc<Inner>, target: &Target) -> Result<Connection, DialError> {
    let attempts = target.addrs.iter().map(|addr| async move {
        let pipe = inner.carriers.open(*addr, target.id).await?;
        handshake(&inner.endpoint, &inner.client, &[pipe.addr]).await
    });
    first(attempts).await
}

/// The first of `addrs` where a handshake succeeds; else the last failure.
pub(super) async fn handshake(
    endpoint: &Endpoint,
    client: &ClientConfig,
    addrs: &[SocketAddr],
) -> Result<Connection, DialError> {
    let attempts = addrs.iter().map(|addr| async move {
        let connecting = endpoint
            .connect_with(client.clone(), *addr, tls::SERVER_NAME)
            .map_err(|error| DialError::Unreachable(error.to_string()))?;
        connecting.await.map_err(DialError::from)
    });
    first(attempts).await
}

/// The first attempt that succeeds, each begun without waiting for the slow ones
/// before it; else the last failure.
async fn first<F>(attempts: impl Iterator<Item = F>) -> Result<Connection, DialError>
where
    F: Future<Output = Result<Connection, DialError>>,
{
    let mut attempts: FuturesUnordered<_> = attempts
        .take(MAX_ADDRS)
        .zip(0u32..)
        .map(|(attempt, turn)| async move {
            if turn > 0 {
                tokio::time::sleep(STAGGER * turn).await;
            }
            attempt.await
        })
        .collect();
    let mut failure = DialError::NoAddress;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Who answered, if it is whom we expect.
pub(super) fn identify(
    connection: &Connection,
    expected: Option<NodeId>,
) -> Result<NodeId, DialError> {
    let none = || DialError::Unreachable("the peer showed no key".into());
    let found = tls::peer_of(connection).ok_or_else(none)?;
    match expected {
        Some(expected) if expected != found => Err(DialError::WrongIdentity { expected, found }),
        _ => Ok(found),
    }
}

pub(super) fn close(connection: &Connection, code: u32, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(256)];
    connection.close(VarInt::from_u32(code), reason);
}

fn superseded(lost: &ConnectionError) -> bool {
    matches!(lost, ConnectionError::ApplicationClosed(close)
        if close.error_code == VarInt::from_u32(close_code::SUPERSEDED))
}

impl From<ConnectionError> for DialError {
    fn from(lost: ConnectionError) -> Self {
        match lost {
            ConnectionError::TimedOut => Self::Timeout,
            ConnectionError::LocallyClosed => Self::Closed,
            ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Busy("it refuses connections at the moment".into())
            }
            ConnectionError::ApplicationClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason).into_owned();
                match close.error_code {
                    code if code == VarInt::from_u32(close_code::BUSY) => Self::Busy(text),
                    code if code == VarInt::from_u32(close_code::REFUSED) => {
                        Self::Refused(hello::refusal(Code::Malformed, text))
                    }
                    _ => Self::Unreachable(text),
                }
            }
            other => Self::Unreachable(other.to_string()),
        }
    }
}
