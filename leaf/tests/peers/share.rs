//! Files and folders from leaf to leaf, over links, on loopback.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{builder, host, unix_ms, until, within};
use canopy_core::decree::{Banned, Decree, Order};
use canopy_leaf::api::Api;
use canopy_leaf::content::PIECE;
use canopy_leaf::{
    Bandwidth, Fetch, FetchError, Fetched, Identity, Leaf, Link, RecvStream, SendStream, ShareError,
};
use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_client::LeafClient;
use canopy_proto::leaf::{fetch_update, share_update};
use canopy_proto::{Message, wire};
use canopy_supernode::host::Host;
use futures_util::future::join_all;

use tempfile::TempDir;

const MIB: usize = 1024 * 1024;
const PROTOCOL: &str = "canopy/content/1";

/// Bytes of which no two pieces are the same.
fn data(size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    let mut output = blake3::Hasher::new().update(b"test").finalize_xof();
    output.fill(&mut data);
    data
}

/// A host of an operator, and a folder for what the leaves have.
struct Net {
    operator: Identity,
    host: Host,
    dir: TempDir,
}

impl Net {
    async fn new() -> Self {
        let operator = Identity::from_secret([1; 32]);
        let host = host(&operator, 11, &[], false).await;
        let dir = tempfile::tempdir().unwrap();
        Self {
            operator,
            host,
            dir,
        }
    }

    /// A leaf that others find, which sends at most so many bits a second.
    async fn leaf(&self, upload: Option<u64>) -> Leaf {
        let mut builder = builder(&self.host, &self.operator);
        if let Some(upload) = upload {
            builder = builder.upload(Bandwidth(upload));
        }
        let leaf = builder.start().await.unwrap();
        let me = leaf.node_id();
        until(async || leaf.locate(me).await.ok()?.map(drop)).await;
        leaf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, size: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, data(size)).unwrap();
        path
    }

    async fn close(self, leaves: Vec<Leaf>) {
        within(join_all(leaves.iter().map(Leaf::close))).await;
        within(self.host.close()).await;
    }
}

async fn done(fetch: Fetch) -> Result<Fetched, FetchError> {
    within(async { fetch.await }).await
}

fn same(a: &Path, b: &Path) {
    assert!(
        fs::read(a).unwrap() == fs::read(b).unwrap(),
        "{b:?} differs"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_and_a_folder_are_shared_and_fetched() {
    let net = Net::new().await;
    let (a, b) = (net.leaf(None).await, net.leaf(None).await);
    for (name, size) in [("none", 0), ("small", 5), ("large", 3 * MIB + 17)] {
        let file = net.file(name, size);
        let shared = within(a.share(&file)).await.unwrap();
        assert_eq!(shared.content, blake3::hash(&data(size)));
        assert_eq!((shared.bytes, shared.files), (size as u64, 1));
        let to = net.path(&format!("{name} fetched"));
        let mut fetch = b.fetch(shared.content, &to);
        let mut last = fetch.progress();
        while let Some(progress) = within(fetch.next()).await {
            assert!(progress.bytes >= last.bytes);
            last = progress;
        }
        let fetched = done(fetch).await.unwrap();
        assert_eq!((fetched.bytes, fetched.files), (size as u64, 1));
        same(&file, &to);
        assert!(!net.path(&format!("{name} fetched.part")).exists());
    }

    let folder = net.path("folder");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    for (name, size) in [("a", 0), ("b", 2 * MIB), (".hidden", 7), ("deep/er/c", 9)] {
        fs::write(folder.join(name), data(size)).unwrap();
    }
    for number in 0..100 {
        fs::write(folder.join(format!("deep/{number}")), format!("{number}")).unwrap();
    }
    let shared = within(a.share(&folder)).await.unwrap();
    assert_eq!(shared.files, 104);
    let to = net.path("folder fetched");
    let fetched = done(b.fetch(shared.content, &to)).await.unwrap();
    assert_eq!((fetched.files, fetched.bytes), (104, shared.bytes));
    for name in ["a", "b", ".hidden", "deep/er/c", "deep/0", "deep/99"] {
        same(&folder.join(name), &to.join(name));
    }
    // Whoever fetched it is a provider too, and has the same folder.
    assert_eq!(within(b.share(&to)).await.unwrap().content, shared.content);
    let c = net.leaf(None).await;
    within(a.unshare(shared.content)).await.unwrap();
    let again = done(c.fetch(shared.content, net.path("again"))).await;
    assert_eq!(again.unwrap().files, 104);
    assert!(b.content_stats().uploaded > 2 * MIB as u64);
    net.close(vec![a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_said() {
    let net = Net::new().await;
    let (a, b) = (net.leaf(None).await, net.leaf(None).await);
    let missing = within(a.share(net.path("nowhere"))).await;
    assert!(
        matches!(missing, Err(ShareError::Read { .. })),
        "{missing:?}"
    );
    let unknown = done(b.fetch(blake3::hash(b"x"), net.path("x"))).await;
    assert!(
        matches!(unknown, Err(FetchError::NoProvider(_))),
        "{unknown:?}"
    );
    let file = net.file("file", 2 * MIB);
    let shared = within(a.share(&file)).await.unwrap();
    let there = done(b.fetch(shared.content, &file)).await;
    assert!(matches!(there, Err(FetchError::Exists(_))), "{there:?}");
    let own = done(a.fetch(shared.content, net.path("own"))).await;
    assert!(matches!(own, Err(FetchError::Own(_))), "{own:?}");
    fs::write(net.path("plain"), b"").unwrap();
    let within_file = done(b.fetch(shared.content, net.path("plain/x"))).await;
    assert!(
        matches!(within_file, Err(FetchError::Disk { .. })),
        "{within_file:?}"
    );
    fs::write(net.path("fake"), b"canopy folder 1\nwhatever").unwrap();
    let fake = within(a.share(net.path("fake"))).await;
    assert!(matches!(fake, Err(ShareError::Manifest(_))), "{fake:?}");
    // What changed on disk is not served.
    fs::write(&file, data(3)).unwrap();
    let mut fetch = b.fetch(shared.content, net.path("changed"));
    until(async || a.shares().unwrap().is_empty().then_some(())).await;
    assert_eq!(fetch.progress().bytes, 0);
    assert!(within(fetch.next()).await.is_some());
    drop(fetch);
    net.close(vec![a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_providers_send_at_once() {
    let net = Net::new().await;
    let file = net.file("file", 12 * MIB);
    let mut leaves = Vec::new();
    let mut content = None;
    for _ in 0..3 {
        // Slow enough that none does it alone before the others are linked to.
        let leaf = net.leaf(Some(16_000_000)).await;
        content = Some(within(leaf.share(&file)).await.unwrap().content);
        leaves.push(leaf);
    }
    let to = net.path("to");
    let fetcher = net.leaf(None).await;
    done(fetcher.fetch(content.unwrap(), &to)).await.unwrap();
    same(&file, &to);
    for leaf in &leaves {
        let sent = leaf.content_stats().uploaded;
        assert!(sent > 2 * MIB as u64, "one sent {sent}");
    }
    assert_eq!(fetcher.content_stats().pieces, 12);
    leaves.push(fetcher);
    net.close(leaves).await;
}

/// Takes links for content and passes all of it to another leaf and back, but for
/// one bit at the end of each piece.
async fn lie(liar: Leaf, honest: canopy_leaf::NodeId) {
    let mut acceptor = liar.accept(PROTOCOL).unwrap();
    while let Some(link) = acceptor.next().await {
        let onward = liar.connect(honest, PROTOCOL).await.unwrap();
        tokio::spawn(pass(link, onward));
    }
}

async fn pass(link: Link, onward: Link) {
    while let Ok((send, recv)) = link.accept().await {
        let Ok((to, from)) = onward.open().await else {
            return;
        };
        tokio::spawn(copy(recv, to, false));
        tokio::spawn(copy(from, send, true));
    }
}

async fn copy(mut from: RecvStream, mut to: SendStream, wrong: bool) {
    let mut all = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(Some(count)) = from.read(&mut buffer).await {
        all += count;
        if wrong && all > PIECE as usize / 2 {
            buffer[0] ^= 1;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_what_is_wrong_is_found_out_and_the_rest_comes_from_others() {
    let net = Net::new().await;
    let file = net.file("file", 8 * MIB);
    // The liar is the faster one.
    let honest = net.leaf(Some(32_000_000)).await;
    let content = within(honest.share(&file)).await.unwrap().content;
    let source = net.leaf(None).await;
    within(source.share(&file)).await.unwrap();
    let liar = net.leaf(None).await;
    let lying = tokio::spawn(lie(liar.clone(), source.node_id()));
    within(source.unprovide(content)).await.unwrap();
    within(liar.provide(content, 8 * MIB as u64)).await.unwrap();
    let fetcher = net.leaf(None).await;
    let to = net.path("to");
    let mut fetch = fetcher.fetch(content, &to);
    let mut refused = 0;
    while let Some(progress) = within(fetch.next()).await {
        refused = refused.max(progress.refused);
    }
    done(fetch).await.unwrap();
    same(&file, &to);
    assert_eq!(refused, 1);
    assert_eq!(fetcher.content_stats().refused, 1);
    lying.abort();
    net.close(vec![honest, source, liar, fetcher]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_cut_off_fetches_nothing_twice() {
    let net = Net::new().await;
    let (file, to) = (net.file("file", 12 * MIB), net.path("to"));
    let seeder = net.leaf(Some(24_000_000)).await;
    let content = within(seeder.share(&file)).await.unwrap().content;
    let first = net.leaf(None).await;
    let mut fetch = first.fetch(content, &to);
    while fetch.progress().bytes < 4 * PIECE {
        within(fetch.next()).await.expect("it goes on");
    }
    drop(fetch);
    within(first.close()).await;
    let before = seeder.content_stats().uploaded;

    let second = net.leaf(None).await;
    let mut fetch = until(async || {
        let mut fetch = second.fetch(content, &to);
        // The last write of the first may not be over yet.
        within(fetch.next()).await.map(|_| fetch)
    })
    .await;
    let there = fetch.progress().bytes;
    assert!(there >= 4 * PIECE, "{there}");
    while within(fetch.next()).await.is_some() {}
    done(fetch).await.unwrap();
    same(&file, &to);
    let (pieces, sent) = (
        second.content_stats().pieces,
        seeder.content_stats().uploaded - before,
    );
    assert!(
        pieces * PIECE <= 12 * PIECE - there + PIECE,
        "{pieces} {there}"
    );
    assert!(sent < 12 * PIECE - there + PIECE, "{sent} {there}");
    net.close(vec![seeder, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_who_fetch_from_one_slow_line_bring_it_to_each_other() {
    let net = Net::new().await;
    let file = net.file("file", 24 * MIB);
    let seeder = net.leaf(Some(20_000_000)).await;
    let content = within(seeder.share(&file)).await.unwrap().content;
    let leaves = within(join_all((0..10).map(|_| net.leaf(None)))).await;
    let fetches = leaves.iter().enumerate();
    let fetches = fetches.map(|(number, leaf)| {
        let to = net.path(&format!("to {number}"));
        done(leaf.fetch(content, to))
    });
    for fetched in join_all(fetches).await {
        same(&file, &fetched.unwrap().path);
    }
    let sent = seeder.content_stats().uploaded as f64 / (24 * MIB) as f64;
    println!("the seeder sent {sent:.2} times the file");
    assert!(sent < 2.5, "{sent}");
    let mut all = leaves;
    all.push(seeder);
    net.close(all).await;
}

/// Asks what another leaf has of a content, as one who knows of it from elsewhere.
async fn ask(from: &Leaf, to: &Leaf, content: blake3::Hash) -> wire::ContentNews {
    let link = within(from.connect(to.node_id(), PROTOCOL)).await.unwrap();
    let (mut send, mut recv) = link.open().await.unwrap();
    let watch = wire::ContentWatch {
        content: content.as_bytes().to_vec().into(),
    };
    let opening = wire::ContentOpening {
        what: Some(wire::content_opening::What::Watch(watch)),
    };
    let mut frames = Vec::new();
    for frame in [opening.encode_to_vec(), Vec::new()] {
        frames.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        frames.extend(frame);
    }
    send.write_all(&frames).await.unwrap();
    let mut length = [0; 4];
    within(recv.read_exact(&mut length)).await.unwrap();
    let mut news = vec![0; u32::from_be_bytes(length) as usize];
    within(recv.read_exact(&mut news)).await.unwrap();
    wire::ContentNews::decode(&news[..]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_banned_is_neither_shared_nor_fetched() {
    let net = Net::new().await;
    let (a, b) = (net.leaf(Some(8_000_000)).await, net.leaf(None).await);
    let (begun, new) = (net.file("begun", 24 * MIB), net.path("new"));
    fs::write(&new, b"new").unwrap();
    let mut contents = Vec::new();
    for file in [&begun, &new] {
        contents.push(within(a.share(file)).await.unwrap().content);
    }
    let mut fetch = b.fetch(contents[0], net.path("to"));
    while fetch.progress().bytes < PIECE {
        within(fetch.next()).await.expect("it goes on");
    }
    for (place, content) in contents.iter().enumerate() {
        let decree = Decree {
            network: "canopy".into(),
            sequence: place as u64 + 1,
            issued_ms: unix_ms(),
            expires_ms: unix_ms() + 3_600_000,
            order: Order::Ban {
                what: Banned::Content(*content.as_bytes()),
                reason: "a test".into(),
            },
        };
        net.host.peer().decree(decree.sign(&net.operator));
    }
    let ended = done(fetch).await;
    assert!(matches!(ended, Err(FetchError::Banned(_))), "{ended:?}");
    let again = done(b.fetch(contents[1], net.path("again"))).await;
    assert!(matches!(again, Err(FetchError::Banned(_))), "{again:?}");
    let told = ask(&b, &a, contents[1]).await;
    assert_eq!(told.ended, "it is shared no more");
    let left = a.shares().unwrap();
    assert!(left.iter().all(|shared| shared.content != contents[1]));
    let refused = within(a.share(&new)).await.unwrap_err();
    assert!(refused.to_string().contains("banned"), "{refused}");
    net.close(vec![a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_travels_through_the_api() {
    let net = Net::new().await;
    let (a, b) = (net.leaf(None).await, net.leaf(None).await);
    let file = net.file("file", 2 * MIB);
    let mut clients = Vec::new();
    let (close, closing) = tokio::sync::watch::channel(false);
    for leaf in [&a, &b] {
        let api = Api::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", api.addr());
        let mut closing = closing.clone();
        tokio::spawn(api.serve(leaf.clone(), async move {
            let _ = closing.changed().await;
        }));
        clients.push(LeafClient::connect(url).await.unwrap());
    }
    let path = file.to_str().unwrap().to_owned();
    let relative = pb::ShareRequest { path: "x".into() };
    let refused = clients[0].share(relative).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let updates = clients[0].share(pb::ShareRequest { path }).await;
    let mut updates = updates.unwrap().into_inner();
    let shared = loop {
        let update = within(updates.message()).await.unwrap().unwrap();
        if let Some(share_update::What::Shared(shared)) = update.what {
            break shared;
        }
    };
    assert_eq!(shared.bytes, 2 * PIECE);
    let to = net.path("to");
    let ask = pb::FetchRequest {
        content: shared.content.clone(),
        to: to.to_str().unwrap().to_owned(),
    };
    let mut updates = clients[1].fetch(ask.clone()).await.unwrap().into_inner();
    let (mut last, mut fetched) = (0, None);
    while let Some(update) = within(updates.message()).await.unwrap() {
        match update.what.unwrap() {
            fetch_update::What::Progress(progress) => last = progress.bytes,
            fetch_update::What::Fetched(content) => fetched = Some(content),
        }
    }
    assert_eq!(
        (last, fetched.unwrap().content),
        (2 * PIECE, shared.content.clone())
    );
    same(&file, &to);
    let mut again = clients[1].fetch(ask).await.unwrap().into_inner();
    let told = within(again.message()).await.unwrap_err();
    assert_eq!(told.code(), tonic::Code::AlreadyExists);

    let list = clients[1].list_shares(pb::ListSharesRequest {}).await;
    let list = list.unwrap().into_inner();
    assert_eq!((list.shares.len(), list.stats.unwrap().pieces), (1, 2));
    let content = shared.content;
    let gone = clients[1].unshare(pb::UnshareRequest { content }).await;
    assert!(gone.unwrap().into_inner().found);
    close.send(true).unwrap();
    net.close(vec![a, b]).await;
}

/// What the README shows is what the examples do.
#[test]
fn the_programs_of_the_readme_are_the_examples() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(base.join("../README.md")).unwrap();
    for name in ["chat", "share"] {
        let file = format!("leaf/examples/{name}.rs");
        let example = fs::read_to_string(base.join("..").join(&file)).unwrap();
        let lines: Vec<&str> = example.lines().map(str::trim).collect();
        let (_, after) = readme.split_once(&file).unwrap();
        let (_, program) = after.split_once("```rust\n").unwrap();
        let (program, _) = program.split_once("```").unwrap();
        let own: Vec<&str> = program.lines().map(str::trim).collect();
        assert!(own.len() <= 15, "{name} has {} lines", own.len());
        // They differ in where the arguments come from.
        let given = |line: &&&str| line.contains("peer(") || line.contains("args()");
        for line in own.iter().filter(|line| !given(line)) {
            assert!(lines.contains(line), "{file} lacks {line:?}");
        }
    }
}
