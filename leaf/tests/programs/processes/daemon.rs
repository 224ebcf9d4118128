//! One `leaf run` process: started, spoken to over its API, and ended in every
//! way a process can end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_client::LeafClient;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

/// Longest wait for anything; a failure shows at the latest then.
pub(crate) const BOUND: Duration = Duration::from_secs(150);
/// Pause between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(100);

/// A running process. It is killed when this is dropped.
pub(crate) struct Daemon {
    pub(crate) node_id: String,
    pub(crate) listen: SocketAddr,
    pub(crate) client: LeafClient<Channel>,
    dir: PathBuf,
    child: Child,
    events: mpsc::UnboundedReceiver<Json>,
}

impl Daemon {
    /// Starts a process with a data directory of its own and `peers` to join
    /// by, and waits for the line that says it is ready.
    pub(crate) async fn start(dir: &Path, peers: &[SocketAddr]) -> Self {
        Self::start_with(dir, peers, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_with(dir: &Path, peers: &[SocketAddr], args: &[&str]) -> Self {
        let mut command = program(dir);
        command.args(["run", "--json", "--data-dir"]).arg(dir);
        command.args(args);
        for peer in peers {
            command.arg("--peer").arg(peer.to_string());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, mut events) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("one JSON object a line");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let ready = timeout(BOUND, events.recv()).await.expect("ready in time");
        let ready: Json = ready.expect("a line before the end");
        assert_eq!(ready["event"], "ready", "{ready}");
        let text = |key: &str| ready[key].as_str().expect("a text").to_owned();
        let url = format!("http://{}", text("api"));
        Self {
            node_id: text("node_id"),
            listen: text("listen").parse().expect("an address"),
            client: LeafClient::connect(url).await.expect("the API answers"),
            dir: dir.to_owned(),
            child,
            events,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// Asks the process to end; its exit status, once it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.expect("kill starts").success());
        let ended = within(async || self.child.try_wait().expect("its state is known"));
        ended.await.expect("it ends in time")
    }

    /// Waits for an event of this kind.
    pub(crate) async fn event(&mut self, kind: &str) -> Json {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the process runs");
                if event["event"] == kind {
                    return event;
                }
            }
        };
        timeout(BOUND, wait).await.expect(kind)
    }

    pub(crate) async fn status(&self) -> pb::StatusReply {
        let reply = self.client.clone().status(pb::StatusRequest {}).await;
        reply.expect("a running daemon has a status").into_inner()
    }

    /// The super-nodes it knows, in order.
    pub(crate) async fn super_nodes(&self) -> Vec<String> {
        let status = self.status().await;
        let mut nodes: Vec<_> = status.super_nodes.into_iter().map(|s| s.node_id).collect();
        nodes.sort();
        nodes
    }

    pub(crate) async fn put(&self, name: &str, value: &str) -> Result<(), tonic::Status> {
        let put = pb::PutRequest {
            name: name.into(),
            data: value.into(),
            ttl_s: 0,
        };
        self.client.clone().put(put).await.map(drop)
    }

    /// Reads a value of `publisher`.
    pub(crate) async fn get(
        &self,
        publisher: &str,
        name: &str,
    ) -> Result<Option<String>, tonic::Status> {
        let get = pb::GetRequest {
            publisher: publisher.into(),
            name: name.into(),
            ..pb::GetRequest::default()
        };
        let reply = self.client.clone().get(get).await?.into_inner();
        let text = |value: pb::Value| String::from_utf8_lossy(&value.data).into_owned();
        Ok(reply.value.map(text))
    }

    pub(crate) async fn publish(&self, name: &str, text: &str) {
        let item = pb::Item {
            name: name.into(),
            text: text.into(),
            ..pb::Item::default()
        };
        let items = vec![item];
        let publish = pb::PublishRequest { items, ttl_s: 0 };
        let reply = self.client.clone().publish(publish).await;
        let outcomes = reply.expect("published").into_inner().outcomes;
        assert_eq!((outcomes.len(), outcomes[0].error.as_str()), (1, ""));
    }

    /// Names of the items that a query finds, in order.
    pub(crate) async fn search(&self, query: &str) -> Result<Vec<String>, tonic::Status> {
        let search = pb::SearchRequest {
            query: query.into(),
            limit: 100,
            ..pb::SearchRequest::default()
        };
        let hits = self.client.clone().search(search).await?.into_inner().hits;
        let mut names: Vec<_> = hits
            .into_iter()
            .filter_map(|hit| hit.item.map(|item| item.name))
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with no setting from outside.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leaf"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

/// Looks until there is something; `None`: not in time.
pub(crate) async fn within<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + BOUND;
    while Instant::now() < end {
        let found = look().await;
        if found.is_some() {
            return found;
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}
