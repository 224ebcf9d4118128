//! The relay of a super-node: it forwards UDP between two leaves that cannot,
//! or will not, send to each other directly.
//!
//! It sees ciphertext only, and does no cryptography for it: links are QUIC from
//! leaf to leaf. A flow is given over an authenticated session; its two ends
//! prove themselves to the relay's socket, and anything else that comes there is
//! dropped and counted. It must never send to an address that did not prove
//! itself, nor more than it was sent.
//!
//! | file | idea |
//! |---|---|
//! | `flows` | the flows, without a socket: datagrams in, what to send out |
//! | `share` | limits, and fair shares of the line |
//! | `forward` | the socket, in one task |
//! | `service` | what leaves and other super-nodes ask |
//! | `counts` | what it did, in numbers |

mod counts;
mod flows;
mod forward;
mod service;
mod share;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::link::frame::{FlowId, FlowKey};
use canopy_overlay::fabric::{CarriedRelay, bind_udp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::heat::Top;
pub use counts::{Counts, Dropped, Refused, RelayStats};
pub use flows::{FlowFigures, Limits};
pub(crate) use service::RelayService;

use flows::{Drawn, Flows};
use forward::{Command, Forwarder};

/// Commands that may wait for the relay's task.
const MAX_WAITING: usize = 1024;

/// A relay that runs; a handle, cheap to clone. It ends with its last handle.
#[derive(Clone, Debug)]
pub struct Relay {
    commands: mpsc::Sender<Command>,
    addr: SocketAddr,
    mapped: Arc<Mutex<Option<SocketAddr>>>,
    counts: Arc<Counts>,
}

/// A flow that was opened, and the secrets of its ends: opener's, other's.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its name.
    pub flow: FlowId,
    /// What the ends prove themselves with.
    pub keys: [FlowKey; 2],
}

impl Relay {
    /// Opens the socket at `addr`, or at any free port where that is taken; takes
    /// what carriers bring as well. Call within a tokio runtime.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn bind(
        addr: SocketAddr,
        limits: Limits,
        counts: Arc<Counts>,
        carried: Option<CarriedRelay>,
    ) -> io::Result<Self> {
        let socket = bind_udp(addr).or_else(|error| match addr.port() {
            0 => Err(error),
            _ => bind_udp(SocketAddr::new(addr.ip(), 0)),
        })?;
        let addr = socket.local_addr()?;
        let (commands, asked) = mpsc::channel(MAX_WAITING);
        let flows = Flows::new(limits, Arc::clone(&counts), Instant::now());
        let forwarder = Forwarder::new(socket, carried, flows, Arc::clone(&counts), asked)?;
        tokio::spawn(forwarder.run());
        tracing::info!(%addr, "relay.bound");
        Ok(Self {
            commands,
            addr,
            mapped: Arc::default(),
            counts,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where a router lets in what is for it; `None`: nowhere, as far as is known.
    pub fn mapped(&self) -> Option<SocketAddr> {
        *self.mapped.lock()
    }

    /// Has leaves told of that from now on.
    pub fn set_mapped(&self, addr: Option<SocketAddr>) {
        *self.mapped.lock() = addr;
    }

    /// What it did.
    pub fn stats(&self) -> RelayStats {
        self.counts.read()
    }

    /// Makes a flow from `opener` to `other`.
    ///
    /// # Errors
    /// A limit is reached.
    pub async fn open(&self, opener: NodeId, other: NodeId) -> Result<Opened, Refused> {
        let opened = Opened {
            flow: FlowId(rand::random()),
            keys: [FlowKey(rand::random()), FlowKey(rand::random())],
        };
        let (done, outcome) = oneshot::channel();
        let command = Command::Open {
            opener,
            other,
            drawn: Drawn {
                flow: opened.flow,
                keys: opened.keys.clone(),
            },
            done,
        };
        let outcome = match self.commands.try_send(command) {
            Ok(()) => outcome.await.unwrap_or(Err(Refused::Closed)),
            Err(_) => Err(Refused::Busy),
        };
        outcome.inspect_err(|why| self.counts.refuse(*why))?;
        Ok(opened)
    }

    /// Ends a flow.
    pub async fn close(&self, flow: FlowId) {
        // An error says that the relay is gone, and all flows with it.
        let _ = self.commands.send(Command::Close(flow)).await;
    }

    /// Sets what the relay may carry in all, bits a second; `None`: no limit.
    pub fn limit(&self, bps: Option<u64>) {
        // It is set again with the next report.
        let _ = self.commands.try_send(Command::Limit(bps));
    }

    /// Ends the flows of all who are banned.
    pub fn expel(&self, bans: Arc<Bans>) {
        if !bans.is_empty() {
            // It is said again with the next report.
            let _ = self.commands.try_send(Command::Expel(bans));
        }
    }

    /// The flows that carried the most bytes of late, at most `limit`; `None`: the
    /// relay has ended.
    pub async fn top(&self, limit: usize) -> Option<Top<FlowFigures>> {
        let (told, figures) = oneshot::channel();
        let asked = self.commands.send(Command::Top { limit, told }).await;
        asked.ok()?;
        figures.await.ok()
    }
}
