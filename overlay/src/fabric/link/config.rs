//! What links are told when they start, and the QUIC settings of a link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::identity::Identity;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{ClientConfig, ServerConfig, TransportConfig, VarInt};

use super::super::error::BindError;
use super::super::tls;

/// How links are opened and taken.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// Where the socket listens, UDP. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// Never show an address to another leaf: relayed paths only.
    pub relay_only: bool,
    /// Links and offers at once, in all. Default 4096.
    pub links: usize,
    /// Offers of one peer that were not taken up yet. Default 16.
    pub offers_per_peer: usize,
}

impl LinksConfig {
    /// The usual limits, at `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            relay_only: false,
            links: 4096,
            offers_per_peer: 16,
        }
    }
}

/// Longest name of a protocol, bytes.
pub const MAX_PROTOCOL: usize = 128;

/// A link lives through the loss of all its paths for this long.
const IDLE: Duration = Duration::from_secs(45);
/// A quiet path says something this often.
pub(super) const KEEP_ALIVE: Duration = Duration::from_millis(1_500);
/// A direct path is given up when it was silent for this long; the relay takes
/// over.
pub(super) const PATH_IDLE: Duration = Duration::from_millis(4_000);
/// Bytes in flight on one stream. `noq` ends a connection where more than 1024
/// pieces of a stream wait for others before them, as when every other packet is
/// lost over a relay at its limit: of packets of 1 200 bytes this gives 900.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes in flight on all of a link.
const LINK_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes of buffered datagrams.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Streams of each kind that the other side may have open.
const STREAMS: u32 = 256;
/// Paths of a link at once: over relays, and those that are tried directly.
const PATHS: u32 = 12;
/// Addresses that the other side may be reached at.
const ADDRESSES: u8 = 8;
/// Before it was measured; a lost first packet is sent again after thrice that.
const INITIAL_RTT: Duration = Duration::from_millis(100);

fn transport() -> Arc<TransportConfig> {
    let idle = VarInt::from_u32(IDLE.as_millis() as u32);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle.into()))
        .default_path_keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_multipath_paths(PATHS)
        .max_remote_nat_traversal_addresses(ADDRESSES)
        .initial_rtt(INITIAL_RTT);
    Arc::new(transport)
}

/// The protocol is part of the handshake: a relay or home that names another
/// one to the peer than the caller did joins nobody.
fn alpn(protocol: &str) -> Vec<u8> {
    [b"canopy-link/1/", protocol.as_bytes()].concat()
}

pub(super) fn client(identity: &Identity, protocol: &str) -> Result<ClientConfig, BindError> {
    let tls = tls::client(identity, &alpn(protocol)).map_err(BindError::tls)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(BindError::tls)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

pub(super) fn server(identity: &Identity, protocol: &str) -> Result<ServerConfig, BindError> {
    let tls = tls::server(identity, &alpn(protocol)).map_err(BindError::tls)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(BindError::tls)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}
