//! The dashboard in a real browser.
//!
//! Needs Chromium (Debian's package `chromium`). Where it is missing, these tests
//! say so and pass, unless `CANOPY_TEST_BROWSER` is set.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use canopy_leaf::Identity;
use canopy_supernode::http::Http;

use super::running::Demo;
use crate::common::{host_in, until};

/// Virtual milliseconds that the page gets: some rounds of its questions.
const BUDGET: &str = "--virtual-time-budget=4000";

/// The page at `url` as the browser has it after some rounds, and what the browser
/// said; `None`, said aloud, where there is no browser.
fn browse(url: &str) -> Option<(String, String)> {
    let profile = tempfile::tempdir().expect("a directory");
    let mut browser = Command::new("chromium");
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
    ]);
    browser.args(["--no-first-run", "--disable-background-networking"]);
    browser.args(["--disable-component-update", "--disable-sync"]);
    browser.args(["--enable-logging=stderr", BUDGET, "--dump-dom", url]);
    browser.arg(format!("--user-data-dir={}", profile.path().display()));
    match browser.stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let (page, said) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{said}");
            Some((page, said))
        }
        Err(error) => {
            let required = std::env::var_os("CANOPY_TEST_BROWSER").is_some();
            assert!(!required, "chromium cannot be run: {error}");
            println!("SKIPPED: chromium is not installed (Debian's package chromium)");
            None
        }
    }
}

/// The answer to a request with that `host`, as it comes.
fn fetch(addr: SocketAddr, method: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    // It closes the connection: nobody keeps one.
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Who is answered, and what: everything that needs no browser.
fn guarded(addr: SocketAddr) {
    let port = addr.port();
    for (method, path, host, code) in [
        ("GET", "/", "localhost", "200"),
        (
            "GET",
            "/dashboard/state",
            &format!("127.0.0.1:{port}"),
            "200",
        ),
        ("GET", "/dashboard/state", &format!("[::1]:{port}"), "200"),
        // A name of a stranger that leads here.
        ("GET", "/dashboard/state", "evil.example", "421"),
        ("GET", "/", &format!("localhost.evil.example:{port}"), "421"),
        ("GET", "/dashboard/elections/77", "localhost", "404"),
        ("GET", "/dashboard/elections/x", "localhost", "400"),
        (
            "GET",
            "/dashboard/events/0/18446744073709551615",
            "localhost",
            "200",
        ),
        ("POST", "/dashboard/state", "localhost", "405"),
        ("GET", "/dashboard/../metrics", "localhost", "404"),
    ] {
        let answer = fetch(addr, method, path, host);
        let status = answer.split(' ').nth(1);
        assert_eq!(status, Some(code), "{method} {path} {host}: {answer}");
        let policy = "content-security-policy: default-src 'none'; script-src 'self'";
        assert!(code == "404" || answer.contains(policy), "{answer}");
    }
}

/// Neither a script's error nor anything that the page's policy forbade.
fn assert_quiet(said: &str) {
    let loud = said.lines().find(|line| line.contains("CONSOLE"));
    assert_eq!(loud, None);
}

#[test]
fn a_browser_shows_who_serves_and_how_they_were_elected() {
    let mut demo = Demo::start(&["--leaves", "6", "--for", "1s", "--kill", "0", "--stay"]);
    let addr = demo.told("dashboard of the overlay, by ", "/");
    let (_, addr) = addr.split_once("http://").expect("an address");
    let addr = addr.to_owned();
    demo.told("the peers stay up", "");
    let Some((page, said)) = browse(&format!("http://{addr}/")) else {
        demo.interrupt();
        return;
    };
    assert_quiet(&said);
    assert!(page.contains(r#"<body data-state="live">"#), "{page}");
    assert!(page.contains("3 super-nodes serve"), "{page}");
    let count = |what: &str| page.matches(what).count();
    // Each is a row with its bar, and a ribbon of leaves or none.
    assert_eq!(count(r#"data-state="serving""#), 3, "{page}");
    // The quiet ones too.
    assert_eq!(count(r#"class="shard heat"#), 256, "{page}");
    assert!(count(r#"class="home "#) == 3, "{page}");
    // The smallest jury has three, and the last election may have filled one place.
    assert!(count(r#"class="ballot late on""#) >= 3, "{page}");
    assert!(page.contains("elected with a score of"), "{page}");
    assert!(page.contains("super-node up: "), "{page}");
    demo.interrupt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_say_of_themselves_is_text_in_the_page_and_nothing_else() {
    let operator = Identity::from_secret([1; 32]);
    let zone = "<img src=x onerror=document.title='owned'>";
    let host = host_in(&operator, 2, &[], zone).await;
    until(async || (host.status().super_nodes.len() == 1).then_some(())).await;
    let http = Http::bind(([127, 0, 0, 1], 0).into()).await;
    let http = http.expect("loopback has free ports").show(host.clone());
    let serving = http.serve(host.clone());
    let url = format!("http://{}/", serving.addr());
    let addr = serving.addr();
    let asked = tokio::task::spawn_blocking(move || guarded(addr));
    asked.await.expect("it holds");
    let browsed = tokio::task::spawn_blocking(move || browse(&url)).await;
    if let Some((page, said)) = browsed.expect("it ends") {
        assert_quiet(&said);
        assert!(page.contains("1 super-node serves"), "{page}");
        assert!(page.contains("without &lt;img src=x onerror="), "{page}");
        assert!(page.contains("<title>canopy · Canopy</title>"), "{page}");
    }
    host.close().await;
}
