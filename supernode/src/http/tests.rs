use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::conn::{MAX_CONNECTIONS, MAX_HEAD};
use super::*;

const BOUND: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Fixed(AtomicBool);

impl Source for Arc<Fixed> {
    fn metrics(&self) -> String {
        "canopy_ready 1\n".to_owned()
    }

    fn ready(&self) -> Result<(), String> {
        match self.0.load(Relaxed) {
            true => Ok(()),
            false => Err("no home yet".to_owned()),
        }
    }
}

async fn start() -> (Serving, Arc<Fixed>) {
    let http = Http::bind(([127, 0, 0, 1], 0).into()).await;
    let source = Arc::new(Fixed::default());
    (http.unwrap().serve(Arc::clone(&source)), source)
}

/// Sends `request`, and reads until the other side closes.
async fn exchange(addr: SocketAddr, request: &str) -> String {
    let whole = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The other side may close before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(BOUND, whole).await.unwrap()
}

async fn fetch(addr: SocketAddr, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(addr, &request).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn metrics_health_and_readiness_are_told() {
    let (serving, source) = start().await;
    let get = async |path| fetch(serving.addr(), "GET", path).await;
    let metrics = get("/metrics").await;
    assert_eq!(status(&metrics), "200");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"));
    assert!(metrics.ends_with("\r\n\r\ncanopy_ready 1\n"), "{metrics}");
    assert_eq!(status(&get("/healthz").await), "200");
    let unready = get("/readyz").await;
    assert_eq!(status(&unready), "503");
    assert!(unready.ends_with("no home yet\n"), "{unready}");
    source.0.store(true, Relaxed);
    assert_eq!(status(&get("/readyz").await), "200");
}

#[tokio::test]
async fn nothing_can_be_changed_and_what_is_not_there_is_said() {
    let (serving, _) = start().await;
    for (method, path, wanted) in [
        ("POST", "/metrics", "405"),
        ("DELETE", "/readyz", "405"),
        ("GET", "/", "404"),
        ("GET", "/metrics/../../etc/passwd", "404"),
    ] {
        let answer = fetch(serving.addr(), method, path).await;
        assert_eq!(status(&answer), wanted, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_no_request_or_far_too_long_ends_the_connection() {
    let (serving, _) = start().await;
    let long = format!(
        "GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(MAX_HEAD)
    );
    assert_eq!(status(&exchange(serving.addr(), &long).await), "431");
    let many = "a: b\r\n".repeat(1000);
    let many = format!("GET /healthz HTTP/1.1\r\n{many}\r\n");
    assert_eq!(status(&exchange(serving.addr(), &many).await), "431");
    let garbage = "\0\x01 hello\r\n\r\n";
    assert_eq!(status(&exchange(serving.addr(), garbage).await), "400");
    assert_eq!(
        status(&fetch(serving.addr(), "GET", "/healthz").await),
        "200"
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_say_nothing_keep_nobody_out_for_long() {
    let (serving, _) = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(serving.addr()).await.unwrap());
    }
    // Answered when the first of them are closed.
    let answer = fetch(serving.addr(), "GET", "/healthz").await;
    assert_eq!(status(&answer), "200");
    let mut end = [0; 1];
    assert_eq!(silent[0].read(&mut end).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let (serving, _) = start().await;
    let error = Http::bind(serving.addr()).await.unwrap_err().to_string();
    assert!(error.contains(&serving.addr().to_string()), "{error}");
    assert!(error.contains("--http"), "{error}");
}

#[tokio::test]
async fn the_port_is_free_again_when_the_server_is_dropped() {
    let (serving, _) = start().await;
    let addr = serving.addr();
    // A connection that is open then ends as well.
    let mut open = TcpStream::connect(addr).await.unwrap();
    open.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 8];
    open.read_exact(&mut some).await.unwrap();
    drop(serving);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(BOUND, open.read_to_end(&mut rest));
    let _ = ended.await.unwrap();
    tokio::time::timeout(BOUND, async {
        while Http::bind(addr).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
