//! The dashboard: a page that shows the overlay live, and the data that it asks
//! for. Everything it needs is in this program; it fetches nothing from elsewhere.
//!
//! What it shows comes from other peers and may be anything: the page writes it as
//! text only, and its policy lets no browser run or fetch what is not served here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use crate::control::Board;
use crate::host::Host;

/// Questions of viewers under way at a time; they wait for one another's answers.
const MAX_ASKING: usize = 32;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";

/// No script, style or answer but from here; no text can become markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_str!(concat!("dashboard/", $name)))
    };
}

/// The page and its parts.
const FILES: [(&str, &str, &str); 12] = [
    file!("index.html", HTML),
    file!("style.css", CSS),
    file!("panels.css", CSS),
    file!("icon.svg", SVG),
    file!("main.js", JS),
    file!("page.js", JS),
    file!("overview.js", JS),
    file!("ring.js", JS),
    file!("nodes.js", JS),
    file!("flow.js", JS),
    file!("election.js", JS),
    file!("lists.js", JS),
];

/// Whom the handlers ask.
#[derive(Debug)]
struct Desk {
    board: Board,
    asking: Semaphore,
}

/// `/` and all below `/dashboard/`, for a port at `addr`.
pub(super) fn router(host: Host, addr: SocketAddr) -> Router {
    let desk = Desk {
        board: Board::new(host),
        asking: Semaphore::new(MAX_ASKING),
    };
    let mut router = Router::new()
        .route("/dashboard/state", get(state))
        .route("/dashboard/events/{log}/{revision}", get(events))
        .route("/dashboard/elections", get(elections))
        .route("/dashboard/elections/{term}", get(election));
    for (name, kind, text) in FILES {
        let answer = move || async move { ([(CONTENT_TYPE, kind)], text) };
        let path = match name {
            "index.html" => "/".to_owned(),
            name => format!("/dashboard/{name}"),
        };
        router = router.route(&path, get(answer));
    }
    let local = addr.ip().to_canonical().is_loopback();
    router
        .with_state(Arc::new(desk))
        .layer(middleware::from_fn(move |request, next| {
            guard(local, request, next)
        }))
}

/// Adds what browsers have to respect, and keeps pages of strangers out.
async fn guard(local: bool, request: Request, next: Next) -> Response {
    let mut response = match local && !asks_here(&request) {
        false => next.run(request).await,
        true => {
            let why =
                "this port serves its own machine: use http://127.0.0.1 or http://localhost\n";
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
    };
    let headers = response.headers_mut();
    let rules: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        // Viewers come back every second: their connections must not wait here
        // meanwhile and keep others out.
        (CONNECTION, "close"),
    ];
    for (name, rule) in rules {
        headers.insert(name, HeaderValue::from_static(rule));
    }
    response
}

/// Whether the browser asked for this machine by a name that can only be this
/// machine. A stranger's page may have its own name lead here, and would then be
/// let read what it asks for (DNS rebinding).
fn asks_here(request: &Request) -> bool {
    let headers: &HeaderMap = request.headers();
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = named.and_then(|host| host.parse::<Uri>().ok()) else {
        return false;
    };
    let host = authority.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addr = bare.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || addr.is_ok_and(|addr| addr.to_canonical().is_loopback())
}

impl Desk {
    /// The answer of `ask`, unless too many are asking.
    async fn answer(&self, ask: impl Future<Output = Result<Bytes, Status>>) -> Response {
        let answer = match self.asking.try_acquire() {
            Ok(_asking) => ask.await,
            Err(_) => Err(Status::resource_exhausted(
                "too many viewers are asking; the page tries again by itself",
            )),
        };
        match answer {
            Ok(json) => ([(CONTENT_TYPE, JSON)], json).into_response(),
            Err(status) => {
                let code = match status.code() {
                    Code::NotFound => StatusCode::NOT_FOUND,
                    Code::InvalidArgument => StatusCode::BAD_REQUEST,
                    Code::ResourceExhausted | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                let told = format!("{}\n", status.message());
                (code, [(RETRY_AFTER, "2")], told).into_response()
            }
        }
    }
}

async fn state(State(desk): State<Arc<Desk>>) -> Response {
    desk.answer(desk.board.state()).await
}

async fn events(
    State(desk): State<Arc<Desk>>,
    Path((log, revision)): Path<(u64, u64)>,
) -> Response {
    desk.answer(async { desk.board.events(log, revision) })
        .await
}

async fn elections(State(desk): State<Arc<Desk>>) -> Response {
    desk.answer(desk.board.elections()).await
}

async fn election(State(desk): State<Arc<Desk>>, Path(term): Path<u64>) -> Response {
    desk.answer(desk.board.election(term)).await
}
