//! Dial-back: does a peer answer at an address, when dialled from a socket it
//! has never seen?

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use quinn::Endpoint;
use tokio::time::timeout;

use super::Inner;
use super::dial::{close, handshake, identify};
use super::error::DialError;
use super::session::close_code;
use super::{socket, transport};

/// How long the other side may take to hear that the probe is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// See [`super::Fabric::dial_back`].
pub(super) async fn dial_back(
    inner: &Inner,
    addr: SocketAddr,
    expected: NodeId,
    deadline: Duration,
) -> bool {
    let probed = timeout(deadline, probe(inner, addr, expected)).await;
    let result = probed.unwrap_or(Err(DialError::Timeout));
    tracing::debug!(%addr, peer = ?expected, ?result, "fabric.dial_back");
    result.is_ok()
}

async fn probe(inner: &Inner, addr: SocketAddr, expected: NodeId) -> Result<(), DialError> {
    let failed = |error: std::io::Error| DialError::Unreachable(error.to_string());
    let runtime =
        quinn::default_runtime().ok_or_else(|| failed(std::io::ErrorKind::Unsupported.into()))?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = socket::bind(any).map_err(failed)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        transport::endpoint(&inner.config.identity),
        None,
        inner.line.wrap(socket, None, &*runtime).map_err(failed)?,
        Arc::clone(&runtime),
    )
    .map_err(failed)?;
    let connection = handshake(&endpoint, &inner.client, &[addr]).await?;
    let found = identify(&connection, Some(expected)).map(|_| ());
    close(&connection, close_code::PROBE, "dial-back");
    tokio::spawn(async move {
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    });
    found
}
