//! The handle of a running leaf: what an app holds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::link::{Acceptor, Link, LinkError, Links};
use parking_lot::Mutex;

use crate::client::{
    Client, ClientStats, Consistency, Error, Hash, Item, Location, Page, Provider, Query,
    SendError, Sent, Stored, Value,
};
use crate::content::{self, ContentStats, Fetch, FetchError, Hub, ShareError, Shared};
use crate::data_dir::DataDir;
use crate::event::Events;
use crate::links::LeafLinks;
use crate::node::Node;
use crate::peer_node::PeerNode;
use crate::ping::Pinger;
use crate::routing::{Arrivals, Messages, PostError, Posted, SubscribeError, Subscription};
use crate::status::Status;

/// How long opening a link may take.
const LINK: Duration = Duration::from_secs(10);

/// A running leaf. Clones share it. Every future is `Send` and cancel-safe: a
/// write that was dropped may or may not be stored, and doing it again is
/// harmless.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use canopy_leaf::{Item, Leaf, Query};
///
/// let leaf = Leaf::builder().peer("127.0.0.1:4477".parse()?).start().await?;
/// leaf.put("greeting", "hello").await?;
/// leaf.publish(&Item::new("red-panda.txt").text("eats bamboo")).await?;
/// for hit in leaf.search(&Query::parse("bamboo")?).await?.hits {
///     println!("{} by {}", hit.item.name, hit.publisher);
/// }
/// leaf.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Leaf<N: Node = PeerNode> {
    node: N,
    client: Client<N>,
    data_dir: Option<Arc<DataDir>>,
    arrivals: Arc<Arrivals<N>>,
    links: Arc<Mutex<Option<Arc<LeafLinks>>>>,
    content: Arc<Mutex<Option<Arc<Hub<N>>>>>,
    relay_only: bool,
    upload_bps: Option<u64>,
}

impl<N: Node> fmt::Debug for Leaf<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({})", self.node_id().short())
    }
}

impl<N: Node> Leaf<N> {
    pub(crate) fn new(node: N, client: Client<N>, data_dir: Option<Arc<DataDir>>) -> Self {
        let arrivals = Arrivals::new(node.clone(), client.clone());
        node.set_recipient(arrivals.recipient());
        Self {
            node,
            client,
            data_dir,
            arrivals,
            links: Arc::default(),
            content: Arc::default(),
            relay_only: false,
            upload_bps: None,
        }
    }

    /// Shows no other leaf an address of this one.
    pub(crate) fn relay_only(mut self, relay_only: bool) -> Self {
        self.relay_only = relay_only;
        self
    }

    /// Sends content at so many bits a second at most.
    pub(crate) fn upload_bps(mut self, upload_bps: Option<u64>) -> Self {
        self.upload_bps = upload_bps;
        self
    }

    /// This peer.
    pub fn node_id(&self) -> NodeId {
        self.client.node_id()
    }

    /// Where this leaf keeps its data, if anywhere.
    pub fn data_dir(&self) -> Option<&Arc<DataDir>> {
        self.data_dir.as_ref()
    }

    /// The peer below.
    pub fn node(&self) -> &N {
        &self.node
    }

    /// The requests behind this handle, where lifetime or consistency is
    /// chosen request by request.
    pub fn client(&self) -> &Client<N> {
        &self.client
    }

    /// Writes `data`, at most 64 KiB, under (this peer, `name`). Returns when two
    /// of three owners have it on disk.
    ///
    /// Like all that is written through this handle, it is kept published: it
    /// lives for [`VALUE_TTL`](crate::client::VALUE_TTL), and is refreshed before
    /// that ends for as long as this leaf runs; with a data directory, also after
    /// a restart. [`Leaf::client`] writes for a lifetime of your choice, which is
    /// not refreshed.
    pub async fn put(&self, name: &str, data: impl Into<Bytes>) -> Result<Stored, Error> {
        self.client.put(name, data.into(), None).await
    }

    /// Reads this peer's value `name`; `None`: there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        self.get_from(self.node_id(), name).await
    }

    /// Reads another peer's value `name`; `None`: there is none.
    pub async fn get_from(&self, publisher: NodeId, name: &str) -> Result<Option<Value>, Error> {
        self.client.get(publisher, name, Consistency::Quorum).await
    }

    /// Removes this peer's value `name`, whether it exists or not.
    pub async fn remove(&self, name: &str) -> Result<Stored, Error> {
        self.client.remove(name).await
    }

    /// Writes `data`, at most 64 KiB, under its own BLAKE3 hash.
    pub async fn put_content(&self, data: impl Into<Bytes>) -> Result<Hash, Error> {
        let (hash, _) = self.client.put_content(data.into(), None).await?;
        Ok(hash)
    }

    /// Refreshes the value under this hash no more: it ends with its lifetime,
    /// unless others keep it. False: this leaf does not keep it published.
    pub async fn forget_content(&self, hash: Hash) -> Result<bool, Error> {
        self.client.forget_content(hash).await
    }

    /// Reads a value by the BLAKE3 hash of its data; `None`: there is none.
    pub async fn get_content(&self, hash: Hash) -> Result<Option<Value>, Error> {
        self.client.get_content(hash).await
    }

    /// Makes an item searchable; replaces one of this name.
    pub async fn publish(&self, item: &Item) -> Result<Stored, Error> {
        self.client.publish(item, None).await
    }

    /// Makes many items searchable, in batches; one result each, in order.
    pub async fn publish_all(&self, items: &[Item]) -> Vec<Result<Stored, Error>> {
        self.client.publish_all(items, None).await
    }

    /// Takes this peer's item `name` out of the index; false: there is none.
    pub async fn unpublish(&self, name: &str) -> Result<bool, Error> {
        self.client.unpublish(name).await
    }

    /// One page of the items that match `query`.
    pub async fn search(&self, query: &Query) -> Result<Page, Error> {
        self.client.search(query).await
    }

    /// Announces that this peer has a content of `size` bytes, until
    /// [`Leaf::unprovide`].
    pub async fn provide(&self, content: Hash, size: u64) -> Result<Stored, Error> {
        self.client.provide(content, size, None).await
    }

    /// Takes back that this peer has a content, whether it said so or not.
    pub async fn unprovide(&self, content: Hash) -> Result<Stored, Error> {
        self.client.unprovide(content).await
    }

    /// Who has a content; at most 100, latest announcement first.
    pub async fn find_providers(&self, content: Hash) -> Result<Vec<Provider>, Error> {
        self.client
            .find_providers(content, crate::client::MAX_LIMIT)
            .await
    }

    /// Where the peer `node` is found: the super-nodes it is homed at. `None`:
    /// it published none, said goodbye, or has not been there for an hour.
    pub async fn locate(&self, node: NodeId) -> Result<Option<Location>, Error> {
        self.client.locate(node, |home| self.node.addrs(home)).await
    }

    /// Sends `message`, at most 60 KiB, to one peer. Resolves when that peer's app
    /// has taken it from [`Leaf::messages`], or, where it is not there or does not
    /// listen, when the overlay keeps it for a week. It is sealed: who carries it sees
    /// who writes to whom, and nothing else. Messages of one sender may overtake
    /// each other; wait for one to be sent before the next where their order
    /// matters.
    pub async fn send(&self, to: NodeId, message: impl Into<Bytes>) -> Result<Sent, SendError> {
        let homes = self.node.homes().borrow().clone();
        self.client.send_message(to, &message.into(), &homes).await
    }

    /// The messages to this peer: first those that were kept for it, then those
    /// that come. Each is taken once, but for one that came right before a restart:
    /// that one may come again. They go to whoever called this
    /// last; earlier streams end. While there is none, this peer takes none.
    pub fn messages(&self) -> Messages {
        self.arrivals.listen()
    }

    /// The posts of `topic` from now on: each once, in order for each publisher,
    /// also when super-nodes are lost. Those who post wait for this leaf to take
    /// them: read the stream, or the subscription ends.
    pub async fn subscribe(&self, topic: &str) -> Result<Subscription, SubscribeError> {
        self.arrivals.topics.subscribe(topic).await
    }

    /// Posts `data`, at most 32 KiB, to all who subscribed to `topic`. Resolves
    /// when each has it or was given up on. Calls that are made meanwhile go
    /// together, in the order in which they were made; a sealed post is the app's
    /// business.
    pub async fn broadcast(
        &self,
        topic: &str,
        data: impl Into<Bytes>,
    ) -> Result<Posted, PostError> {
        self.arrivals.publisher.post(topic, data.into()).await
    }

    /// Opens a link to another leaf, whatever NATs are between, for a protocol
    /// that it [accepts](Leaf::accept): QUIC streams and datagrams, encrypted from
    /// one to the other. It starts over a super-node's relay and moves to a direct
    /// path in place, if there is one. Bounded by ten seconds.
    pub async fn connect(&self, node: NodeId, protocol: &str) -> Result<Link, LinkError> {
        self.links()?.connect(node, protocol, LINK).await
    }

    /// Takes the links that others open to this leaf for `protocol`, until what
    /// is returned is dropped.
    pub fn accept(&self, protocol: &str) -> Result<Acceptor, LinkError> {
        self.links()?.accept(protocol)
    }

    /// A link to measure the way to `node` by. A leaf answers once it has opened,
    /// or accepts, links of its own.
    pub async fn ping(&self, node: NodeId) -> Result<Pinger, LinkError> {
        Pinger::open(self.connect(node, crate::ping::PROTOCOL).await?).await
    }

    /// The socket of links, opened with the first of them.
    pub(crate) fn links(&self) -> Result<Links, LinkError> {
        let mut links = self.links.lock();
        if let Some(links) = &*links {
            return Ok(links.links.clone());
        }
        let peer = self.node.peer().ok_or_else(|| {
            LinkError::Socket("this leaf runs on a network without sockets".into())
        })?;
        let opened = crate::links::open(&self.node, &self.client, peer, self.relay_only)?;
        tokio::spawn(crate::ping::answer(
            opened.links.accept(crate::ping::PROTOCOL)?,
        ));
        Ok(links.insert(opened).links.clone())
    }

    /// Shares a file, or a folder with all files in it, and announces it; others
    /// [fetch](Leaf::fetch) it by the hash that is returned. It is read once, and
    /// served from where it is: what changes there is not served any more. With a
    /// data directory it stays shared after a restart, until
    /// [`Leaf::unshare`].
    ///
    /// Empty folders and symbolic links are left out. At most 256 GiB and 32 768
    /// files.
    pub async fn share(&self, path: impl AsRef<Path>) -> Result<Shared, ShareError> {
        let hashed = Box::new(|_| {});
        self.share_watched(path.as_ref(), hashed).await
    }

    /// The same; `hashed` hears how many bytes were read since it heard last.
    pub async fn share_watched(
        &self,
        path: impl AsRef<Path>,
        hashed: content::Hashed,
    ) -> Result<Shared, ShareError> {
        content::share(&self.hub()?, path.as_ref(), hashed).await
    }

    /// Shares it no more, or what was fetched. False: it was not shared.
    pub async fn unshare(&self, content: Hash) -> Result<bool, ShareError> {
        content::unshare(&self.hub()?, content).await
    }

    /// All that this leaf shares: what it was told to, and what it fetched or is
    /// fetching.
    pub fn shares(&self) -> Result<Vec<Shared>, ShareError> {
        Ok(content::shares(&*self.hub()?))
    }

    /// Fetches a content from all who have some of it, to `to`, which must not
    /// exist. Await what is returned, or read its progress meanwhile. Every piece
    /// is proved before it is written; what has come is kept in `TO.part` if it
    /// breaks off, and fetched no second time. While it is fetched, and until
    /// this leaf closes, others fetch it from here too.
    pub fn fetch(&self, content: Hash, to: impl Into<PathBuf>) -> Fetch {
        content::start(self.hub().map_err(FetchError::from), content, to.into())
    }

    /// How much was shared and fetched.
    pub fn content_stats(&self) -> ContentStats {
        let hub = self.content.lock();
        hub.as_ref().map(|hub| hub.stats()).unwrap_or_default()
    }

    /// What it shares and fetches, opened with the first of it.
    pub(crate) fn hub(&self) -> Result<Arc<Hub<N>>, LinkError> {
        let links = self.links()?;
        let mut hub = self.content.lock();
        if let Some(hub) = &*hub {
            return Ok(Arc::clone(hub));
        }
        let data_dir = self.data_dir.as_deref();
        let opened = content::open(self.client.clone(), links, self.upload_bps, data_dir)?;
        Ok(Arc::clone(hub.insert(opened)))
    }

    /// How this leaf fares, now.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// How its requests fared so far.
    pub fn stats(&self) -> ClientStats {
        self.client.stats()
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events::new(self.node.events())
    }

    /// Lays down the role, hands over, says goodbye and frees the port. Other
    /// handles of this leaf fail from then on. Bounded by half a minute.
    pub async fn close(&self) {
        self.client.stop_refreshing();
        self.arrivals.close();
        let limit = Duration::from_secs(30);
        let links = self.links.lock().take();
        let hub = self.content.lock().take();
        let closing = async {
            if let Some(hub) = hub {
                hub.close().await;
            }
            if let Some(links) = links {
                links.links.close().await;
            }
            self.node.close().await;
        };
        if tokio::time::timeout(limit, closing).await.is_err() {
            tracing::warn!("the peer did not close in {limit:?} and is left as it is");
        }
    }
}
