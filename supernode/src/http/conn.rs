//! Connections of the HTTP port: how many, how long, how much.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections at a time; more wait in the system's queue.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's line and headers.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Wait for a whole request; longer than Prometheus waits between two of them
/// by default, so that it keeps its connection.
const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// A connection's life: one that never reads what it asked for ends as well.
const LIFE: Duration = Duration::from_secs(120);
/// What is under way at the end of that may take this long.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after the system refused to hand over a connection: too many files
/// are open, and trying again at once would only burn processor time.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until it is aborted; all of them end with it.
pub(super) async fn accept(listener: TcpListener, router: Router) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    open.spawn(serve(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "http.accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(2 * MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(LIFE) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "http.connection");
    }
}
