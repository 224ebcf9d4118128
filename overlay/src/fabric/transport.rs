//! The tuned QUIC settings of sessions. Each number was measured over loopback
//! against the library's default; the defaults buffer megabytes a connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canopy_core::identity::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, ServerConfig,
    TransportConfig, VarInt,
};

use super::config::FabricConfig;
use super::error::BindError;
use super::tls;

/// Streams a session's peer may have open; one carries the frames.
const STREAMS: u32 = 8;
/// Bytes in flight on one stream.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes in flight on all streams of a session, each way.
const SESSION_WINDOW: u32 = 256 * 1024;
/// Bytes of buffered datagrams.
const DATAGRAM_BUFFER: usize = 16 * 1024;

/// Settings of a session's connection.
pub(super) fn session(idle: Duration, keep_alive: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(SESSION_WINDOW))
        .send_window(u64::from(SESSION_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(None)
        .max_idle_timeout(idle_timeout(idle))
        .keep_alive_interval(Some(keep_alive));
    transport
}

/// The time-out as QUIC carries it: milliseconds, at most about 50 days here.
pub(super) fn idle_timeout(idle: Duration) -> Option<quinn::IdleTimeout> {
    let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    Some(VarInt::from_u32(millis).into())
}

/// The client half of a protocol.
pub(super) fn client(
    identity: &Identity,
    alpn: &[u8],
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, BindError> {
    let tls = tls::client(identity, alpn).map_err(BindError::tls)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(BindError::tls)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

/// The server half of a protocol.
pub(super) fn server(
    config: &FabricConfig,
    alpn: &[u8],
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, BindError> {
    let tls = tls::server(&config.identity, alpn).map_err(BindError::tls)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(BindError::tls)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::clone(transport))
        .max_incoming(config.limits.pending_handshakes.max(1))
        .incoming_buffer_size(16 * 1024);
    Ok(server)
}

/// The bare QUIC settings of a session, both halves: what benchmarks compare
/// the fabric with.
#[doc(hidden)]
pub fn yardstick(config: &FabricConfig) -> Result<(ServerConfig, ClientConfig), BindError> {
    let transport = Arc::new(session(config.idle_timeout, config.keep_alive));
    let server = server(config, tls::ALPN, &transport)?;
    let client = client(&config.identity, tls::ALPN, &transport)?;
    Ok((server, client))
}

/// Settings of the endpoint. Reset key and connection ids follow from the
/// identity: a peer that restarts at its address can tell others that their
/// sessions are gone, and they learn it with their next packet instead of by
/// time-out.
pub(super) fn endpoint(identity: &Identity) -> EndpointConfig {
    let key = |what| blake3::derive_key(what, &identity.secret());
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key("canopy 2026 stateless reset"))));
    let ids = key("canopy 2026 connection ids");
    config.cid_generator(move || {
        Box::new(Ids {
            key: ids,
            start: SystemTime::now(),
            count: 0,
        })
    });
    config
}

/// Connection ids that look random without the key. The library's own ids
/// carry a mark of the running process, and packets without it get no reset.
struct Ids {
    key: [u8; 32],
    start: SystemTime,
    count: u64,
}

/// Bytes of a connection id.
const ID: usize = 8;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let since = self.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&since.as_nanos().to_le_bytes());
        hasher.update(&self.count.to_le_bytes());
        ConnectionId::new(&hasher.finalize().as_bytes()[..ID])
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0)
            .update(data)
            .finalize_xof()
            .fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        let given: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        // The hash type compares in constant time.
        match expected == blake3::Hash::from_bytes(given) {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}
