//! The operators' gRPC control plane, `canopy.control.v1`: any peer that serves
//! it answers for the whole overlay.
//!
//! It reads what the peer knows and asks the others for the rest, a bounded time.
//! It must never hold up the data plane, nor guess what it was not told.
//!
//! | file | idea |
//! |---|---|
//! | `poll` | one question to all who serve, asked once for all who want answers |
//! | `survey` | everybody's figures |
//! | `balance` | how evenly work is spread, and what a loss would mean |
//! | `page` | order and pages of any list |
//! | `list` | super-nodes by filter and order |
//! | `shards`, `hot` | where records and work lie |
//! | `board` | what the dashboard shows |
//! | `desk` | what all who look at the overlay share |
//! | `leaves` | leaves by their homes |
//! | `placement` | why a super-node has its share |
//! | `overview` | the overlay in one page |
//! | `access` | who may call |
//! | `act` | what this peer does at an operator's word |
//! | `plan`, `rebalance` | what a change would move; plans, and applying them |
//! | `enact` | decrees of the network's operator |
//! | `explain` | how an election went |
//! | `locate` | who owns a key |
//! | `log` | what happened, with revisions |
//! | `watch` | streams of load and events, and what becomes of slow readers |
//! | `convert` | from what is known to messages |
//! | `service` | the calls |

mod access;
mod act;
mod balance;
#[cfg(feature = "cli")]
mod board;
mod convert;
mod desk;
mod enact;
mod explain;
mod hot;
mod leaves;
mod list;
mod locate;
mod log;
mod overview;
mod page;
mod placement;
mod plan;
mod poll;
mod rebalance;
mod service;
mod shards;
mod survey;
mod watch;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use canopy_proto::control::DESCRIPTOR;
use canopy_proto::control::control_server::{ControlServer, SERVICE_NAME};
use tokio::sync::watch::channel as watch_channel;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use access::Access;

pub use access::AccessError;
#[cfg(feature = "cli")]
pub(crate) use board::Board;
pub(crate) use desk::Place as DeskPlace;
#[cfg(feature = "cli")]
pub(crate) use enact::{policy_of, told};

use crate::host::Host;
use crate::rpc::tls::{Authority, Tls};
use crate::rpc::{self, Port, ServeError};
use crate::secret::{open_to_others, read_text};

/// Largest request, bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Longest file of certificates and a key, bytes.
const MAX_PEM: u64 = 256 * 1024;
/// Largest reply, bytes.
pub const MAX_REPLY: usize = 4 * 1024 * 1024;

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody else could connect.
    #[error("the control plane would be open to other machines on {0}; use e.g. 127.0.0.1:{port}, or give both --control-tls and --control-access", port = .0.port())]
    Open(SocketAddr),
    /// Certificates of callers say nothing without the other files.
    #[error(
        "--control-client-ca needs both --control-tls and --control-access: give those, with a line `NAME view|operate certificate` for each caller"
    )]
    Alone,
    /// The access file cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The certificate or its key cannot be used.
    #[error("cannot use {path} for TLS: {reason}; it has to hold a certificate chain and its private key, as PEM, readable by its owner alone", path = .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificates that vouch for those of callers cannot be used.
    #[error("cannot use {path} as --control-client-ca: {reason}; it has to hold certificates, as PEM", path = .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
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

/// Where the control plane listens, and to whom.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Any address but loopback needs both files below; port 0: any.
    pub listen: SocketAddr,
    /// Certificate chain and private key, PEM; `None`: plain text.
    pub tls: Option<PathBuf>,
    /// Who may call: a line for each caller, `NAME view|operate TOKEN`, or
    /// `certificate` in the place of a token. `None`: whoever can connect may do
    /// anything.
    pub access: Option<PathBuf>,
    /// Certificates, PEM, that vouch for those of callers; needs the other two.
    pub client_ca: Option<PathBuf>,
}

impl Default for ControlConfig {
    /// Any port of loopback, for everybody on this machine.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
            access: None,
            client_ca: None,
        }
    }
}

/// A control plane that listens and does not serve yet.
#[derive(Debug)]
pub struct Control {
    port: Port,
    tls: Option<Tls>,
    access: Access,
}

impl Control {
    /// Listens where `config` says.
    ///
    /// # Errors
    /// It would be open to other machines, a file cannot be used, or the address
    /// cannot be listened on.
    pub async fn bind(config: ControlConfig) -> Result<Self, ControlError> {
        let addr = config.listen;
        let guarded = config.tls.is_some() && config.access.is_some();
        if !guarded && !addr.ip().to_canonical().is_loopback() {
            return Err(ControlError::Open(addr));
        }
        if config.client_ca.is_some() && !guarded {
            return Err(ControlError::Alone);
        }
        let authority = match &config.client_ca {
            Some(path) => Some(read_authority(path)?),
            None => None,
        };
        let tls = match &config.tls {
            Some(path) => Some(read_tls(path, authority.is_some())?),
            None => None,
        };
        let access = match &config.access {
            Some(path) => Access::read(path, authority)?,
            None => Access::Anybody,
        };
        let failed = |source| ControlError::Bind { addr, source };
        let port = Port::listen(addr).await.map_err(failed)?;
        Ok(Self { port, tls, access })
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
        // Health and reflection tell nothing of the overlay, and ask nobody.
        let api = rpc::Api {
            routes: Routes::new(InterceptedService::new(server, self.access)),
            names: vec![SERVICE_NAME],
            descriptors: vec![DESCRIPTOR],
            close,
            tls: self.tls,
        };
        Ok(api.serve(self.port, closing).await?)
    }
}

/// Reads and tries a certificate chain and its key.
fn read_tls(path: &Path, asks: bool) -> Result<Tls, ControlError> {
    let failed = |reason: String| ControlError::Tls {
        path: path.to_owned(),
        reason,
    };
    let mode = open_to_others(path).map_err(|error| failed(error.to_string()))?;
    if let Some(mode) = mode {
        return Err(failed(format!("other users can read it (mode {mode:o})")));
    }
    let pem = read_text(path, MAX_PEM).map_err(|error| failed(error.to_string()))?;
    Tls::of(&pem, asks).map_err(failed)
}

/// Reads the certificates that vouch for those of callers.
fn read_authority(path: &Path) -> Result<Authority, ControlError> {
    let failed = |reason: String| ControlError::Authority {
        path: path.to_owned(),
        reason,
    };
    let pem = read_text(path, MAX_PEM).map_err(|error| failed(error.to_string()))?;
    Authority::of(&pem).map_err(failed)
}
