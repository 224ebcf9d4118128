//! The leaf's gRPC API, `canopy.leaf.v1`: loopback only, with health and
//! reflection.
//!
//! It has no credentials, so it must never listen where another machine can
//! connect.

mod content;
pub(crate) mod convert;
mod events;
mod link;
mod routing;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;

use canopy_proto::leaf::DESCRIPTOR;
use canopy_proto::leaf::leaf_server::{LeafServer, SERVICE_NAME};
use canopy_supernode::rpc::{self, Port, ServeError};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::leaf::Leaf;
use crate::node::Node;

pub use service::{MAX_ITEMS, Service};

/// Largest request and reply, bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
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
    /// It ended by itself.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// An API that listens and does not serve yet.
#[derive(Debug)]
pub struct Api {
    port: Port,
}

impl Api {
    /// Listens on `addr`, which must be loopback; port 0: any.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ApiError> {
        if !addr.ip().to_canonical().is_loopback() {
            return Err(ApiError::NotLoopback(addr));
        }
        let failed = |source| ApiError::Bind { addr, source };
        let port = Port::listen(addr).await.map_err(failed)?;
        Ok(Self { port })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Serves `leaf` until `closing` resolves, then finishes what is under way.
    pub async fn serve<N: Node>(
        self,
        leaf: Leaf<N>,
        closing: impl Future<Output = ()>,
    ) -> Result<(), ApiError> {
        let (close, closed) = watch::channel(false);
        let server = LeafServer::new(Service::new(leaf, closed))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let api = rpc::Api {
            routes: Routes::new(server),
            names: vec![SERVICE_NAME],
            descriptors: vec![DESCRIPTOR],
            close,
            tls: None,
        };
        Ok(api.serve(self.port, closing).await?)
    }
}
