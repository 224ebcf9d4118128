//! The leaf's gRPC API, `canopy.leaf.v1`: loopback only, with health and
//! reflection.
//!
//! It has no credentials, so it must never listen where another machine can
//! connect.

pub(crate) mod convert;
mod events;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use canopy_proto::leaf::DESCRIPTOR;
use canopy_proto::leaf::leaf_server::LeafServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::leaf::Leaf;
use crate::node::Node;

pub use service::{MAX_ITEMS, Service};

/// Largest request and reply, bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Requests under way on one connection.
const MAX_STREAMS: u32 = 256;
/// How long requests under way may take after the leaf began to close.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the API does not run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody else could connect.
    #[error("the API has no credentials and listens on loopback only, not on {0}; use e.g. 127.0.0.1:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error(
        "cannot open the API on {addr}: {source}; stop what uses it, or give another with --api"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// It failed while it ran.
    #[error("the API failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The description of the services cannot be offered.
    #[error("the API cannot describe itself: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// An API that listens and does not serve yet.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Api {
    /// Listens on `addr`, which must be loopback; port 0: any.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ApiError> {
        if !addr.ip().to_canonical().is_loopback() {
            return Err(ApiError::NotLoopback(addr));
        }
        let failed = |source| ApiError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves `leaf` until `closing` resolves, then finishes what is under way.
    pub async fn serve<N: Node>(
        self,
        leaf: Leaf<N>,
        closing: impl Future<Output = ()>,
    ) -> Result<(), ApiError> {
        let (close, closed) = watch::channel(false);
        let (reporter, health) = tonic_health::server::health_reporter();
        let service = Service::new(leaf, closed.clone());
        let server = LeafServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        reporter.set_serving::<LeafServer<Service<N>>>().await;
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTOR)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = described().build_v1()?;
        // Python's client, among others, asks for the older one only.
        let reflection_alpha = described().build_v1alpha()?;
        let mut stop = closed.clone();
        let serve = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(health)
            .add_service(reflection)
            .add_service(reflection_alpha)
            .add_service(server)
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener), async move {
                // An error says that the sender is gone, which is the same.
                let _ = stop.wait_for(|closing| *closing).await;
            });
        tokio::pin!(serve);
        tokio::select! {
            outcome = &mut serve => return Ok(outcome?),
            () = closing => {}
        }
        reporter.set_not_serving::<LeafServer<Service<N>>>().await;
        close.send_replace(true);
        match tokio::time::timeout(DRAIN, serve).await {
            Ok(outcome) => Ok(outcome?),
            // Those that remain are cut off when the listener's task ends.
            Err(_) => Ok(()),
        }
    }
}
