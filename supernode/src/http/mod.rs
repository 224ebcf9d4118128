//! The HTTP port of a peer: `/metrics` for Prometheus, `/healthz` and `/readyz`
//! for whoever looks after the process, and a super-node's dashboard.
//!
//! Read-only, without credentials: loopback unless the user says otherwise.
//! Whatever strangers do to it must cost a bounded amount and not touch the peer.

mod conn;
mod dashboard;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::host::Host;

/// What Prometheus' text is called.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the port does not serve.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error(
        "cannot open the HTTP port on {addr}: {source}; stop what uses it, or give another with --http"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What is told over HTTP. Must not wait.
pub trait Source: Send + Sync + 'static {
    /// The metrics of now, as text for Prometheus.
    fn metrics(&self) -> String;

    /// Whether the peer has joined.
    ///
    /// # Errors
    /// Why it has not, for people.
    fn ready(&self) -> Result<(), String>;
}

impl Source for Host {
    fn metrics(&self) -> String {
        self.metrics().render()
    }

    fn ready(&self) -> Result<(), String> {
        self.ready()
    }
}

/// A port that listens and does not answer yet.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    addr: SocketAddr,
    shown: Option<Host>,
}

/// A port that answers until this is dropped.
#[derive(Debug)]
pub struct Serving {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Http {
    /// Listens on `addr`; port 0: any.
    ///
    /// # Errors
    /// The port is taken, or the address is not this machine's.
    pub async fn bind(addr: SocketAddr) -> Result<Self, HttpError> {
        let failed = |source| HttpError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let shown = None;
        Ok(Self {
            listener,
            addr,
            shown,
        })
    }

    /// Shows the overlay, as `host` sees it, on a page at `/` as well.
    pub fn show(mut self, host: Host) -> Self {
        self.shown = Some(host);
        self
    }

    /// Answers from `source`. Call within a tokio runtime.
    pub fn serve(self, source: impl Source) -> Serving {
        let source: Arc<dyn Source> = Arc::new(source);
        let mut router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(source);
        if let Some(host) = self.shown {
            router = router.merge(dashboard::router(host, self.addr));
        }
        Serving {
            addr: self.addr,
            task: tokio::spawn(conn::accept(self.listener, router)),
        }
    }
}

impl Serving {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], source.metrics())
}

async fn ready(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    match source.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests;
