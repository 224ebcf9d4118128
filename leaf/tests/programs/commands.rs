//! The commands against a daemon: what they print, and how they exit. The
//! daemon is a service in memory that speaks the leaf's API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_server::{Leaf, LeafServer};
use canopy_proto::leaf::{fetch_update, link_output, link_path, share_update};
use futures_util::stream::{self, Stream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

type Reply<T> = Result<Response<T>, Status>;

/// Values and items by name.
#[derive(Clone, Default)]
struct Daemon {
    values: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    items: Arc<Mutex<BTreeMap<String, pb::Item>>>,
}

fn id() -> String {
    "ab".repeat(32)
}

fn content(path: String) -> pb::SharedContent {
    pb::SharedContent {
        content: id(),
        path,
        bytes: 7,
        files: 1,
        whole: true,
    }
}

#[async_trait]
impl Leaf for Daemon {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Reply<pb::StatusReply> {
        Ok(Response::new(pb::StatusReply {
            node_id: id(),
            role: "super-node".into(),
            capacity_bps: 20_000_000,
            ..pb::StatusReply::default()
        }))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Reply<pb::PutReply> {
        let put = request.into_inner();
        if put.name == "over quota" {
            return Err(Status::resource_exhausted(
                "over the quota; remove something",
            ));
        }
        let content = String::new();
        self.values.lock().expect("lock").insert(put.name, put.data);
        Ok(Response::new(pb::PutReply {
            publisher: id(),
            sequence: 7,
            content,
        }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Reply<pb::GetReply> {
        let name = request.into_inner().name;
        let data = self.values.lock().expect("lock").get(&name).cloned();
        let value = data.map(|data| pb::Value {
            name,
            data,
            ..pb::Value::default()
        });
        Ok(Response::new(pb::GetReply { value }))
    }

    async fn remove(&self, request: Request<pb::RemoveRequest>) -> Reply<pb::RemoveReply> {
        self.values
            .lock()
            .expect("lock")
            .remove(&request.get_ref().name);
        Ok(Response::new(pb::RemoveReply { sequence: 8 }))
    }

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Reply<pb::PublishReply> {
        let mut outcomes = Vec::new();
        for item in request.into_inner().items {
            let refused = item.name.ends_with(".refused");
            outcomes.push(pb::PublishOutcome {
                sequence: 1,
                error: if refused { "no".into() } else { String::new() },
                code: if refused {
                    tonic::Code::InvalidArgument as i32
                } else {
                    0
                },
            });
            self.items
                .lock()
                .expect("lock")
                .insert(item.name.clone(), item);
        }
        Ok(Response::new(pb::PublishReply { outcomes }))
    }

    async fn unpublish(&self, request: Request<pb::UnpublishRequest>) -> Reply<pb::UnpublishReply> {
        let found = self
            .items
            .lock()
            .expect("lock")
            .remove(&request.get_ref().name);
        let found = found.is_some();
        Ok(Response::new(pb::UnpublishReply { found }))
    }

    async fn search(&self, _: Request<pb::SearchRequest>) -> Reply<pb::SearchReply> {
        let hit = |item: &pb::Item| pb::Hit {
            publisher: id(),
            item: Some(item.clone()),
            ..pb::Hit::default()
        };
        let hits: Vec<_> = self.items.lock().expect("lock").values().map(hit).collect();
        Ok(Response::new(pb::SearchReply {
            total: hits.len() as u64,
            hits,
            next: vec![0xc0, 0xde],
        }))
    }

    async fn provide(&self, _: Request<pb::ProvideRequest>) -> Reply<pb::ProvideReply> {
        Err(Status::unimplemented("no command provides"))
    }

    async fn unprovide(&self, _: Request<pb::UnprovideRequest>) -> Reply<pb::UnprovideReply> {
        Err(Status::unimplemented("no command provides"))
    }

    async fn find_providers(
        &self,
        _: Request<pb::FindProvidersRequest>,
    ) -> Reply<pb::FindProvidersReply> {
        Err(Status::unimplemented("no command finds providers"))
    }

    async fn locate(&self, request: Request<pb::LocateRequest>) -> Reply<pb::LocateReply> {
        let node_id = request.into_inner().node_id;
        let home = pb::Located {
            node_id: "cd".repeat(32),
            addrs: vec!["192.0.2.1:4477".into()],
        };
        let location = (node_id == id()).then(|| pb::Location {
            node_id,
            homes: vec![home],
            sequence: 9,
            ..pb::Location::default()
        });
        Ok(Response::new(pb::LocateReply { location }))
    }

    async fn send(&self, request: Request<pb::SendRequest>) -> Reply<pb::SendReply> {
        let send = request.into_inner();
        let mut values = self.values.lock().expect("lock");
        values.insert(send.to, send.data);
        Ok(Response::new(pb::SendReply::default()))
    }

    type MessagesStream = Pin<Box<dyn Stream<Item = Result<pb::Message, Status>> + Send>>;

    async fn messages(&self, _: Request<pb::MessagesRequest>) -> Reply<Self::MessagesStream> {
        let message = |text: &str| {
            Ok(pb::Message {
                from: id(),
                data: text.into(),
                ..pb::Message::default()
            })
        };
        let messages = stream::iter([message("hello"), message("again")]);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn broadcast(&self, request: Request<pb::BroadcastRequest>) -> Reply<pb::BroadcastReply> {
        let post = request.into_inner();
        let mut values = self.values.lock().expect("lock");
        values.insert(post.topic, post.data);
        Ok(Response::new(pb::BroadcastReply {
            reached: 3,
            given_up: 1,
        }))
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::Post, Status>> + Send>>;

    async fn subscribe(&self, _: Request<pb::SubscribeRequest>) -> Reply<Self::SubscribeStream> {
        let post = pb::Post {
            publisher: id(),
            number: 1,
            data: b"news".to_vec(),
            ..pb::Post::default()
        };
        let slow = Status::resource_exhausted("the posts were not read");
        Ok(Response::new(Box::pin(stream::iter([Ok(post), Err(slow)]))))
    }

    type LinkStream = Pin<Box<dyn Stream<Item = Result<pb::LinkOutput, Status>> + Send>>;

    /// Says who is there, then what the first message was.
    async fn link(&self, request: Request<Streaming<pb::LinkInput>>) -> Reply<Self::LinkStream> {
        let first = request.into_inner().message().await?;
        let what = first.and_then(|input| input.what);
        let up = link_output::What::Up(pb::LinkUp {
            node_id: id(),
            path: None,
        });
        let data = link_output::What::Data(format!("{what:?}").into_bytes());
        let outputs = [up, data].map(|what| Ok(pb::LinkOutput { what: Some(what) }));
        Ok(Response::new(Box::pin(stream::iter(outputs))))
    }

    type PingStream = Pin<Box<dyn Stream<Item = Result<pb::PingReply, Status>> + Send>>;

    async fn ping(&self, request: Request<pb::PingRequest>) -> Reply<Self::PingStream> {
        let ask = request.into_inner();
        let replies = (0..ask.count).map(|round| {
            let what = match round {
                0 => link_path::What::Relay(id()),
                _ => link_path::What::Direct("192.0.2.1:7".into()),
            };
            Ok(pb::PingReply {
                round_trip_us: 1_500,
                path: Some(pb::LinkPath { what: Some(what) }),
                at_us: 2_000,
            })
        });
        let replies: Vec<_> = replies.collect();
        Ok(Response::new(Box::pin(stream::iter(replies))))
    }

    type ShareStream = Pin<Box<dyn Stream<Item = Result<pb::ShareUpdate, Status>> + Send>>;

    async fn share(&self, request: Request<pb::ShareRequest>) -> Reply<Self::ShareStream> {
        let shared = share_update::What::Shared(content(request.into_inner().path));
        let whats = [share_update::What::Hashed(5), shared];
        let updates = whats.map(|what| Ok(pb::ShareUpdate { what: Some(what) }));
        Ok(Response::new(Box::pin(stream::iter(updates))))
    }

    async fn unshare(&self, _: Request<pb::UnshareRequest>) -> Reply<pb::UnshareReply> {
        Ok(Response::new(pb::UnshareReply { found: false }))
    }

    async fn list_shares(&self, _: Request<pb::ListSharesRequest>) -> Reply<pb::ListSharesReply> {
        Ok(Response::new(pb::ListSharesReply {
            shares: vec![content("/notes".into())],
            stats: None,
        }))
    }

    type FetchStream = Pin<Box<dyn Stream<Item = Result<pb::FetchUpdate, Status>> + Send>>;

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Reply<Self::FetchStream> {
        let ask = request.into_inner();
        if ask.content != id() {
            return Err(Status::not_found("nobody shares it now"));
        }
        let progress = pb::FetchProgress {
            bytes: 3,
            total: 7,
            providers: 2,
            ..pb::FetchProgress::default()
        };
        let whats = [
            fetch_update::What::Progress(progress),
            fetch_update::What::Fetched(content(ask.to)),
        ];
        let updates = whats.map(|what| Ok(pb::FetchUpdate { what: Some(what) }));
        Ok(Response::new(Box::pin(stream::iter(updates))))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn events(&self, _: Request<pb::EventsRequest>) -> Reply<Self::EventsStream> {
        Err(Status::unimplemented("no command reads events"))
    }
}

/// A daemon that runs until this is dropped.
struct Running {
    daemon: Daemon,
    addr: SocketAddr,
    home: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn start() -> Running {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let daemon = Daemon::default();
    let service = LeafServer::new(daemon.clone());
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    let serve = Server::builder().add_service(service);
    runtime.spawn(serve.serve_with_incoming(TcpIncoming::from(listener)));
    Running {
        daemon,
        addr,
        home: tempfile::tempdir().expect("a directory"),
        _runtime: runtime,
    }
}

impl Running {
    /// Runs a command that finds the daemon through its data directory.
    fn leaf(&self, args: &[&str]) -> Output {
        let data = self.home.path().join("data");
        std::fs::create_dir_all(&data).expect("a directory");
        std::fs::write(data.join("api"), format!("{}\n", self.addr)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_leaf"));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("CANOPY_DATA_DIR", &data);
        command
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts")
    }
}

/// What was printed by a command that exited with `code`.
fn printed(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&printed(output, 0)).expect("one JSON value")
}

#[test]
fn ping_tells_the_path_of_each_answer() {
    let daemon = start();
    let text = printed(&daemon.leaf(&["ping", &id(), "--count", "2"]), 0);
    let relayed = format!("1.5ms over the relay of {}", id());
    assert_eq!(text, format!("{relayed}\n1.5ms directly at 192.0.2.1:7\n"));
    let told = json(&daemon.leaf(&["ping", &id(), "-c", "1", "--json"]));
    assert_eq!(
        (&told["path"], &told["at_us"]),
        (&"relay".into(), &2_000.into())
    );
    printed(&daemon.leaf(&["ping", &id(), "--count", "0"]), 2);
}

#[test]
fn pipe_asks_for_a_peer_or_for_the_next_that_comes() {
    let daemon = start();
    let text = printed(&daemon.leaf(&["pipe", &id(), "--protocol", "mine"]), 0);
    assert!(text.contains("LinkOpen") && text.contains(&id()), "{text}");
    assert!(text.contains("\"mine\""), "{text}");
    let text = printed(&daemon.leaf(&["pipe", "--accept"]), 0);
    assert!(text.contains("LinkAccept"), "{text}");
    printed(&daemon.leaf(&["pipe"]), 2);
    printed(&daemon.leaf(&["pipe", &id(), "--accept"]), 2);
}

#[test]
fn get_prints_the_bytes_and_nothing_else_or_exits_with_1() {
    let daemon = start();
    let put = daemon.leaf(&["put", "n", "hello"]);
    assert_eq!(printed(&put, 0), format!("stored \"n\" under {}\n", id()));
    assert_eq!(printed(&daemon.leaf(&["get", "n"]), 0), "hello");
    assert_eq!(
        json(&daemon.leaf(&["get", "n", "--json"]))["value"],
        "hello"
    );
    let raw = vec![0, 0xff, b'\n'];
    daemon
        .daemon
        .values
        .lock()
        .unwrap()
        .insert("raw".into(), raw.clone());
    assert_eq!(daemon.leaf(&["get", "raw"]).stdout, raw);

    printed(&daemon.leaf(&["rm", "n"]), 0);
    let none = daemon.leaf(&["get", "n"]);
    assert_eq!(printed(&none, 1), "");
    assert_eq!(String::from_utf8_lossy(&none.stderr).lines().count(), 1);
    assert_eq!(printed(&daemon.leaf(&["get", "n", "--json"]), 1), "null\n");
}

#[test]
fn a_peer_whose_data_is_in_use_is_the_daemon_itself() {
    let daemon = start();
    printed(&daemon.leaf(&["put", "n", "hello"]), 0);
    let lock = std::fs::File::create(daemon.home.path().join("data/lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(
        printed(&daemon.leaf(&["get", "n", "--peer", "127.0.0.1:1"]), 0),
        "hello"
    );
}

#[test]
fn a_refusal_exits_with_4_and_says_why() {
    let daemon = start();
    let refused = daemon.leaf(&["put", "over quota", "x"]);
    assert_eq!(printed(&refused, 4), "");
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(stderr, "leaf: over the quota; remove something\n");
}

#[test]
fn a_folder_is_published_and_found() {
    let daemon = start();
    let folder = daemon.home.path().join("folder");
    write(&folder, "docs/panda.txt", "a red panda");
    write(&folder, "a.refused", "x");
    let folder_arg = folder.to_str().unwrap();
    let partly = daemon.leaf(&["publish", folder_arg]);
    assert_eq!(printed(&partly, 1), "published 1 files, 11 B\n");
    assert!(String::from_utf8_lossy(&partly.stderr).contains("a.refused: no"));

    let items = daemon.daemon.items.lock().unwrap().clone();
    let item = &items["docs/panda.txt"];
    assert_eq!(item.content, blake3::hash(b"a red panda").to_string());
    assert_eq!((item.size, item.media_type.as_str()), (11, "text/plain"));

    let found = json(&daemon.leaf(&["search", "panda", "--json"]));
    assert_eq!(
        (&found["total"], &found["next"]),
        (&2.into(), &"c0de".into())
    );
    let table = daemon.leaf(&["search", "panda"]);
    let text = printed(&table, 0);
    assert!(
        text.lines()
            .any(|line| line.starts_with("docs/panda.txt  11 B")),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "colour in a pipe");
    assert!(String::from_utf8_lossy(&table.stderr).contains("--after c0de"));
    printed(&daemon.leaf(&["search", "panda", "--after", "c0de"]), 0);

    printed(&daemon.leaf(&["unpublish", "docs/panda.txt"]), 0);
    printed(&daemon.leaf(&["unpublish", "docs/panda.txt"]), 1);
}

#[test]
fn a_peer_is_located_or_the_exit_is_1() {
    let daemon = start();
    let table = printed(&daemon.leaf(&["locate", &id()]), 0);
    assert!(table.contains("cdcdcdcdcd  192.0.2.1:4477"), "{table}");
    let found = json(&daemon.leaf(&["locate", &id(), "--json"]));
    let home = serde_json::json!({ "node_id": "cd".repeat(32), "addrs": ["192.0.2.1:4477"] });
    assert_eq!((&found["homes"][0], &found["sequence"]), (&home, &9.into()));
    let stranger = "ef".repeat(32);
    printed(&daemon.leaf(&["locate", &stranger]), 1);
    let none = daemon.leaf(&["locate", &stranger, "--json"]);
    assert_eq!(printed(&none, 1), "null\n");
    printed(&daemon.leaf(&["locate", "me"]), 2);
}

#[test]
fn messages_are_sent_and_printed_as_they_come() {
    let daemon = start();
    let sent = printed(&daemon.leaf(&["send", &id(), "hello"]), 0);
    assert_eq!(sent, format!("delivered to {}\n", id()));
    assert_eq!(daemon.daemon.values.lock().unwrap()[&id()], b"hello");
    printed(&daemon.leaf(&["send", "me", "hello"]), 2);
    let long = "x".repeat(61 * 1024);
    printed(&daemon.leaf(&["send", &id(), &long]), 2);

    let two = printed(&daemon.leaf(&["listen", "--count", "2"]), 0);
    assert_eq!(two, "ababababab  hello\nababababab  again\n");
    // The stream ends before the third.
    let all = daemon.leaf(&["listen", "--json"]);
    assert_eq!(printed(&all, 3).lines().count(), 2);
}

#[test]
fn posts_are_counted_and_printed_until_the_reader_is_dropped() {
    let daemon = start();
    let posted = daemon.leaf(&["broadcast", "news", "it rains"]);
    assert_eq!(printed(&posted, 0), "3 subscriber(s) have it\n");
    assert!(String::from_utf8_lossy(&posted.stderr).contains("1 subscriber(s) did not"));
    assert_eq!(daemon.daemon.values.lock().unwrap()["news"], b"it rains");

    let one = json(&daemon.leaf(&["subscribe", "news", "--count", "1", "--json"]));
    assert_eq!((&one["number"], &one["data"]), (&1.into(), &"news".into()));
    let dropped = daemon.leaf(&["subscribe", "news"]);
    assert_eq!(printed(&dropped, 4), "ababababab  news\n");
    assert!(String::from_utf8_lossy(&dropped.stderr).contains("not read"));
}

#[test]
fn a_path_is_shared_and_a_hash_fetched() {
    let daemon = start();
    assert_eq!(printed(&daemon.leaf(&["share", "notes"]), 0), id() + "\n");
    let shared = json(&daemon.leaf(&["share", "notes", "--json"]));
    // The daemon may run in another folder.
    let path = std::env::current_dir().unwrap().join("notes");
    assert_eq!(shared["path"], path.to_str().unwrap());
    let alone = daemon.leaf(&["share", "notes", "--stay"]);
    printed(&alone, 2);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("--peer"));
    let list = printed(&daemon.leaf(&["shares"]), 0);
    assert_eq!(list, format!("{}  7 B, 1 file(s)  /notes\n", id()));
    printed(&daemon.leaf(&["unshare", &id()]), 1);

    let fetched = printed(&daemon.leaf(&["fetch", &id(), "--to", "/x"]), 0);
    assert_eq!(fetched, "7 B, 1 file(s): /x\n");
    let told = printed(&daemon.leaf(&["fetch", &id(), "--json"]), 0);
    let lines: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (first, last) = (&lines[0], &lines[1]);
    assert_eq!(
        (&first["bytes"], &first["providers"]),
        (&3.into(), &2.into())
    );
    assert!(last["path"].as_str().unwrap().ends_with("abababababababab"));
    printed(&daemon.leaf(&["fetch", &"cd".repeat(32)]), 1);
}

#[test]
fn status_has_what_scripts_ask_for() {
    let daemon = start();
    let status = json(&daemon.leaf(&["status", "--json"]));
    assert_eq!(
        (&status["role"], &status["capacity_bps"]),
        (&"super-node".into(), &20_000_000.into())
    );
    for key in [
        "node_id",
        "homes",
        "super_nodes",
        "criteria",
        "listen",
        "uptime_s",
    ] {
        assert!(!status[key].is_null(), "{key}");
    }
    assert!(printed(&daemon.leaf(&["status"]), 0).contains("capacity     20 Mbit/s"));
}

fn write(base: &Path, name: &str, data: &str) {
    let path = base.join(name);
    let folder = path.parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("a directory");
    std::fs::write(path, data).expect("a file");
}
