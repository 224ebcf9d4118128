//! Timed traffic between a juror and a candidate, both ways at once.
//!
//! It runs on a connection of its own, because a session's windows (64 KiB)
//! would cap it, and on the same sockets, because the lines are what is
//! measured. The receiver of each direction counts what arrived between the
//! ramp and the end by its own clock; what arrives late does not count.
//!
//! ```text
//! juror                                candidate
//!   Plan on a bidirectional stream  ->   admitted? (Service::admit_measure)
//!                                   <-   verdict
//!   paced bytes on a stream         ->   counted
//!   counted                         <-   paced bytes on a stream
//!                                   <-   count, on the first stream
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use canopy_core::keyspace::NodeId;
use quinn::congestion::CubicConfig;
use quinn::{Connection, ConnectionId, Incoming, RecvStream, SendStream, TransportConfig, VarInt};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Inner;
use super::dial::{close, handshake, identify};
use super::error::{DialError, MeasureError};
use super::session::{Session, close_code};
use super::tls;
use super::transport;
use super::uplink::Bucket;

/// Protocol of measuring connections.
pub(super) const ALPN: &[u8] = b"canopy-measure/1";
/// Longest measurement.
pub const MAX_DURATION: Duration = Duration::from_secs(5);
/// Shortest measurement.
pub const MIN_DURATION: Duration = Duration::from_millis(50);
/// Largest share, bits a second.
pub const MAX_SHARE_BPS: u64 = 2_000_000_000;

/// The first quarter is not counted: congestion control is still finding the rate.
const RAMP: u32 = 4;
/// Both sides get ready and report within this beside the measurement itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Flow-control window, bytes: 1 Gbit/s at a round trip of 64 ms.
const WINDOW: u32 = 8 * 1024 * 1024;
/// Beginning of the connection ids that announce a measurement, so that the
/// listener can choose windows and limits before the handshake.
const TAG: [u8; 8] = *b"\xc4canopym";
/// Encoded size of a plan.
const PLAN: usize = 20;
/// Largest piece written at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a juror asks of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurePlan {
    /// Traffic each way, bits a second; at most [`MAX_SHARE_BPS`].
    pub share_bps: u64,
    /// How long: [`MIN_DURATION`] to [`MAX_DURATION`], in whole milliseconds.
    pub duration: Duration,
    /// The election's term that the measurement is for.
    pub term: u64,
}

/// What a juror measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Goodput candidate to juror, bits a second.
    pub up_bps: u64,
    /// Goodput juror to candidate, bits a second, by the candidate's count; no
    /// more than the juror sent.
    pub down_bps: u64,
    /// Smallest round trip.
    pub rtt: Duration,
    /// Lost packets a million, of those that the juror sent.
    pub loss_ppm: u32,
}

impl MeasurePlan {
    fn check(&self) -> Result<(), MeasureError> {
        if !(MIN_DURATION..=MAX_DURATION).contains(&self.duration) {
            return Err(MeasureError::Plan("50 ms to 5 s are allowed"));
        }
        if !(1..=MAX_SHARE_BPS).contains(&self.share_bps) {
            return Err(MeasureError::Plan("a share of up to 2 Gbit/s is allowed"));
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PLAN);
        out.put_u64(self.share_bps);
        // Checked: at most 5 000.
        out.put_u32(self.duration.as_millis() as u32);
        out.put_u64(self.term);
        out
    }

    fn decode(mut bytes: &[u8]) -> Self {
        Self {
            share_bps: bytes.get_u64(),
            duration: Duration::from_millis(bytes.get_u32().into()),
            term: bytes.get_u64(),
        }
    }
}

/// Settings of a measuring connection.
pub(super) fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .max_idle_timeout(transport::idle_timeout(PATIENCE));
    config
}

/// A connection id that announces a measurement.
pub(super) fn tagged_id() -> ConnectionId {
    let mut id = [0; 20];
    id[..TAG.len()].copy_from_slice(&TAG);
    if SysRng.try_fill_bytes(&mut id[TAG.len()..]).is_err() {
        // Packet protection of the first flight needs no secret; see RFC 9001, 5.2.
        tracing::warn!("fabric.measure.no_randomness");
    }
    ConnectionId::new(&id)
}

/// Whether a dialler announces a measurement.
pub(super) fn is_announced(incoming: &Incoming) -> bool {
    incoming.orig_dst_cid().starts_with(&TAG)
}

/// The juror's side.
pub(super) async fn run(
    inner: &Inner,
    session: &Session,
    plan: &MeasurePlan,
) -> Result<Measured, MeasureError> {
    plan.check()?;
    let whole = measure(inner, session, plan);
    let result = timeout(plan.duration + PATIENCE, whole).await;
    let result = result.unwrap_or(Err(MeasureError::Timeout));
    tracing::debug!(candidate = ?session.peer(), ?plan, ?result, "fabric.measure.done");
    result
}

async fn measure(
    inner: &Inner,
    session: &Session,
    plan: &MeasurePlan,
) -> Result<Measured, MeasureError> {
    // The way that the session takes, be it a carrier.
    let addr = [session.0.connection.remote_address()];
    let dialled = handshake(&inner.endpoint, &inner.measure_client, &addr).await;
    let connection = CloseAfter(dialled.map_err(dial_failure)?);
    identify(&connection.0, Some(session.peer())).map_err(dial_failure)?;
    let (mut send, mut recv) = connection.0.open_bi().await.map_err(broken)?;
    send.write_all(&plan.encode()).await.map_err(broken)?;
    let mut verdict = [0];
    recv.read_exact(&mut verdict)
        .await
        .map_err(|error| match error {
            quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(lost)) => {
                dial_failure(lost.into())
            }
            other => broken(other),
        })?;
    if verdict != [1] {
        return Err(MeasureError::Refused(
            "it did not admit the measurement".into(),
        ));
    }
    let (sent, counted) = exchange(inner, &connection.0, plan).await?;
    let mut report = [0; 8];
    recv.read_exact(&mut report).await.map_err(broken)?;
    let path = connection.0.stats().path;
    let min_rtt = connection.0.min_rtt();
    let lost = path.lost_packets.saturating_mul(1_000_000) / path.sent_packets.max(1);
    Ok(Measured {
        up_bps: goodput(counted, plan),
        down_bps: goodput(u64::from_be_bytes(report).min(sent), plan),
        // Acknowledgement delays can eat up a loopback's round trip.
        rtt: if min_rtt.is_zero() { path.rtt } else { min_rtt },
        loss_ppm: u32::try_from(lost).unwrap_or(1_000_000).min(1_000_000),
    })
}

/// The candidate's side, from before the handshake.
pub(super) fn serve(inner: &Arc<Inner>, slots: &Arc<Semaphore>, incoming: Incoming) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        return incoming.refuse();
    };
    let server = Arc::clone(&inner.measure_server);
    let Ok(connecting) = incoming.accept_with(server) else {
        return;
    };
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let served = async {
            let connection = CloseAfter(connecting.await.map_err(broken)?);
            be_measured(&inner, &connection.0).await
        };
        let served = timeout(MAX_DURATION + 2 * PATIENCE, served).await;
        if let Ok(Err(error)) = served {
            tracing::debug!(%error, "fabric.measure.not_served");
        }
        drop(slot);
    });
}

async fn be_measured(inner: &Inner, connection: &Connection) -> Result<(), MeasureError> {
    let peer = tls::peer_of(connection).ok_or(MeasureError::WrongIdentity)?;
    let (mut send, mut recv) = connection.accept_bi().await.map_err(broken)?;
    let mut plan = [0; PLAN];
    recv.read_exact(&mut plan).await.map_err(broken)?;
    let plan = MeasurePlan::decode(&plan);
    if plan.check().is_err() || !admitted(inner, peer, &plan) {
        send.write_all(&[0]).await.map_err(broken)?;
        send.finish().map_err(broken)?;
        let _ = send.stopped().await;
        return Ok(());
    }
    send.write_all(&[1]).await.map_err(broken)?;
    let (_, counted) = exchange(inner, connection, &plan).await?;
    send.write_all(&counted.to_be_bytes())
        .await
        .map_err(broken)?;
    send.finish().map_err(broken)?;
    let _ = connection.closed().await;
    Ok(())
}

fn admitted(inner: &Inner, peer: NodeId, plan: &MeasurePlan) -> bool {
    // A stranger without a session is no juror.
    let known = inner.registry.get(&peer).is_some();
    let admitted = known && inner.service.admit_measure(peer, plan);
    tracing::debug!(juror = ?peer, ?plan, admitted, "fabric.measure.asked");
    admitted
}

/// Sends and counts at the same time; bytes sent, and bytes that arrived while
/// they counted.
async fn exchange(
    inner: &Inner,
    connection: &Connection,
    plan: &MeasurePlan,
) -> Result<(u64, u64), MeasureError> {
    let mut out = connection.open_uni().await.map_err(broken)?;
    let send = async {
        let sent = send_paced(&mut out, plan, &inner.line.measuring).await;
        // What is still buffered would only compete with the report.
        let _ = out.reset(VarInt::from_u32(0));
        sent
    };
    let count = async {
        let start = Instant::now();
        let first = timeout(plan.duration, connection.accept_uni()).await;
        match first {
            Ok(Ok(mut stream)) => count(&mut stream, plan).await,
            Ok(Err(lost)) => Err(broken(lost)),
            Err(_) => {
                debug_assert!(start.elapsed() >= plan.duration);
                Ok(0)
            }
        }
    };
    let (sent, counted) = futures_util::future::join(send, count).await;
    Ok((sent?, counted?))
}

async fn send_paced(
    out: &mut SendStream,
    plan: &MeasurePlan,
    counter: &AtomicU64,
) -> Result<u64, MeasureError> {
    let start = tokio::time::Instant::now();
    let end = start + plan.duration;
    let bucket = Bucket::new(plan.share_bps, start.into());
    let piece = bucket.batch().clamp(1_200, ZEROS.len());
    let mut sent = 0;
    while tokio::time::Instant::now() < end {
        if let Err(wait) = bucket.take(piece, Instant::now()) {
            tokio::time::sleep(wait).await;
            continue;
        }
        let bytes = Bytes::from_static(&ZEROS[..piece]);
        match tokio::time::timeout_at(end, out.write_chunk(bytes)).await {
            Ok(written) => written.map_err(broken)?,
            // The line is slower than the share; the window was full at the end.
            Err(_) => break,
        }
        sent += piece as u64;
        counter.fetch_add(piece as u64, Ordering::Relaxed);
    }
    Ok(sent)
}

/// Bytes that arrive between the ramp and the end, from the first byte on.
async fn count(stream: &mut RecvStream, plan: &MeasurePlan) -> Result<u64, MeasureError> {
    let start = tokio::time::Instant::now();
    let (ramp, end) = (start + plan.duration / RAMP, start + plan.duration);
    let mut counted = 0;
    loop {
        match tokio::time::timeout_at(end, stream.read_chunk(usize::MAX, false)).await {
            Err(_) | Ok(Ok(None) | Err(quinn::ReadError::Reset(_))) => return Ok(counted),
            Ok(Ok(Some(chunk))) if tokio::time::Instant::now() >= ramp => {
                counted += chunk.bytes.len() as u64;
            }
            Ok(Ok(Some(_))) => {}
            Ok(Err(error)) => return Err(broken(error)),
        }
    }
}

/// Bits a second of what was counted; a burst may not lift it over the share.
fn goodput(counted: u64, plan: &MeasurePlan) -> u64 {
    let window = plan.duration - plan.duration / RAMP;
    let bits = u128::from(counted) * 8_000_000 / window.as_micros().max(1);
    u64::try_from(bits).unwrap_or(u64::MAX).min(plan.share_bps)
}

/// Closes the connection when its work is done or given up.
struct CloseAfter(Connection);

impl Drop for CloseAfter {
    fn drop(&mut self) {
        close(&self.0, close_code::CLOSED, "measured");
    }
}

fn broken(error: impl std::fmt::Display) -> MeasureError {
    MeasureError::Broken(error.to_string())
}

fn dial_failure(error: DialError) -> MeasureError {
    match error {
        DialError::Timeout => MeasureError::Timeout,
        DialError::WrongIdentity { .. } => MeasureError::WrongIdentity,
        DialError::Busy(text) => MeasureError::Refused(text),
        other => broken(other),
    }
}
