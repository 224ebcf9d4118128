//! A Prometheus of the test's own, and questions to it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};

use canopy_supernode::http::Serving;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tools::tool;
use crate::common::until;

/// A running Prometheus. It is killed when this is dropped.
pub(crate) struct Prometheus {
    addr: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one with the rules in `deployed` that reads `ports` each second.
    pub(crate) async fn start(deployed: &Path, ports: &[Serving]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let targets: Vec<String> = ports.iter().map(|p| p.addr().to_string()).collect();
        // JSON is YAML.
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [deployed.join("canopy.rules.yml")],
            "scrape_configs": [{
                "job_name": "canopy",
                "static_configs": [{ "targets": targets }],
            }],
        });
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("written");
        // It cannot be told to take any port and say which.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let addr = free.expect("loopback has free ports");
        let mut command = tool("prometheus").expect("it is there");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("it starts");
        let prometheus = Self {
            addr,
            child,
            _dir: dir,
        };
        until(async || {
            let answer = prometheus.get("/-/ready").await?;
            answer.starts_with("HTTP/1.0 200").then_some(())
        })
        .await;
        prometheus
    }

    /// Asks until the answer is one that `good` takes.
    pub(crate) async fn until(&self, query: &str, good: impl Fn(f64) -> bool) -> f64 {
        until(async || self.query(query).await.filter(|value| good(*value))).await
    }

    /// The first value that `query` has now.
    pub(crate) async fn query(&self, query: &str) -> Option<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: Json = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["status"], "success", "{query}: {body}");
        body["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The whole answer; `None`: nobody listens yet.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.addr).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.addr);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
