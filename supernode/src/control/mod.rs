//! The operators' gRPC control plane, `canopy.control.v1`: any peer that serves
//! it answers for the whole overlay.
//!
//! It reads what the peer knows and asks the others for the rest, a bounded time.
//! It must never hold up the data plane, nor guess what it was not told.
//!
//! | file | idea |
//! |---|---|
//! | `survey` | everybody's figures, asked for once for all who want them |
//! | `balance` | how evenly work is spread, and what a loss would mean |
//! | `list` | filter, order, pages |
//! | `overview` | the overlay in one page |
//! | `act` | cordon and drain |
//! | `explain` | how an election went |
//! | `locate` | who owns a key |
//! | `log` | what happened, with revisions |
//! | `watch` | streams of load and events, and what becomes of slow readers |
//! | `convert` | from what is known to messages |
//! | `service` | the calls |

mod act;
mod balance;
mod convert;
mod explain;
mod list;
mod locate;
mod log;
mod overview;
mod service;
mod survey;
mod watch;

use std::future::Future;
use std::net::SocketAddr;

use canopy_proto::control::DESCRIPTOR;
use canopy_proto::control::control_server::{ControlServer, SERVICE_NAME};
use tokio::sync::watch::channel as watch_channel;
use tonic::service::Routes;

use crate::host::Host;
use crate::rpc::{self, Port, ServeError};

/// Largest request, bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Largest reply, bytes.
pub const MAX_REPLY: usize = 4 * 1024 * 1024;

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody else could connect.
    #[error("the control plane listens on loopback only, not on {0}; use e.g. 127.0.0.1:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error(
        "cannot open the control plane on {addr}: {source}; stop what uses it, or give another with --control"
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

/// A control plane that listens and does not serve yet.
#[derive(Debug)]
pub struct Control {
    port: Port,
}

impl Control {
    /// Listens on `addr`; port 0: any.
    ///
    /// # Errors
    /// The address is not loopback, or cannot be listened on.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ControlError> {
        if !addr.ip().to_canonical().is_loopback() {
            return Err(ControlError::NotLoopback(addr));
        }
        let failed = |source| ControlError::Bind { addr, source };
        let port = Port::listen(addr).await.map_err(failed)?;
        Ok(Self { port })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Serves what `host` knows until `closing` resolves, then finishes what is
    /// under way.
    ///
    /// # Errors
    /// It ended by itself.
    pub async fn serve(
        self,
        host: Host,
        closing: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        host.announce_control(self.addr());
        let (close, closed) = watch_channel(false);
        let server = ControlServer::new(service::Service::new(host, closed))
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_REPLY);
        let api = rpc::Api {
            routes: Routes::new(server),
            names: vec![SERVICE_NAME],
            descriptors: vec![DESCRIPTOR],
            close,
        };
        Ok(api.serve(self.port, closing).await?)
    }
}
