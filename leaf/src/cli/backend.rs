//! Who does the work of a command: the running daemon, or a leaf that joins
//! for the moment.

use std::net::SocketAddr;
use std::sync::Arc;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_client::LeafClient;
use canopy_proto::leaf::leaf_server::Leaf as Calls;
use tokio::sync::watch;
use tonic::Request;
use tonic::transport::Channel;

use super::args::Common;
use super::failure::{Failure, from_status};
use crate::api::{MAX_MESSAGE, Service};
use crate::data_dir::DataDir;
use crate::leaf::Leaf;
use crate::peer_node::PeerNode;
use crate::settings::{Settings, Stand};

/// Longest wait for a daemon to accept.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Answers the calls of one command.
pub(super) enum Backend {
    /// The daemon.
    Daemon(LeafClient<Channel>),
    /// A leaf in this process.
    Joined(Box<Service<PeerNode>>, Leaf),
}

/// One method a call: the same messages go to a daemon and to a joined leaf.
macro_rules! calls {
    ($($name:ident($request:ident) -> $reply:ident;)*) => {
        impl Backend {
            $(pub(super) async fn $name(&mut self, ask: pb::$request) -> Result<pb::$reply, Failure> {
                let reply = match self {
                    Backend::Daemon(client) => client.$name(ask).await,
                    Backend::Joined(service, _) => Calls::$name(&**service, Request::new(ask)).await,
                };
                reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
            })*
        }
    };
}

calls! {
    status(StatusRequest) -> StatusReply;
    put(PutRequest) -> PutReply;
    get(GetRequest) -> GetReply;
    remove(RemoveRequest) -> RemoveReply;
    publish(PublishRequest) -> PublishReply;
    unpublish(UnpublishRequest) -> UnpublishReply;
    search(SearchRequest) -> SearchReply;
    locate(LocateRequest) -> LocateReply;
    send(SendRequest) -> SendReply;
    broadcast(BroadcastRequest) -> BroadcastReply;
}

impl Backend {
    /// `--api` first; `--peer` joins; otherwise the daemon of the data directory.
    pub(super) async fn find(common: &Common) -> Result<Self, Failure> {
        let settings = common.settings()?;
        if let Some(addr) = settings.api {
            return match connect(addr).await {
                Some(client) => Ok(Self::Daemon(client)),
                None => Err(Failure::unreachable(format!(
                    "no leaf answers at {addr}; start one with `leaf run --api {addr}`, or correct --api"
                ))),
            };
        }
        if !common.peer.peers.is_empty() {
            return Self::join(settings, true).await;
        }
        let (path, addrs) = match settings.data_dir {
            Some(path) => {
                let addrs = DataDir::api_of(&path).into_iter().collect();
                (path, addrs)
            }
            None => {
                let path = DataDir::default_path()?;
                let addrs = DataDir::apis_beside(&path);
                (path, addrs)
            }
        };
        if let Some(client) = connect_any(&addrs).await {
            return Ok(Self::Daemon(client));
        }
        Err(Failure::unreachable(format!(
            "no leaf runs with {}; start one with `leaf run`, or give --api ADDR, --data-dir PATH or --peer PEER",
            path.display()
        )))
    }

    /// The daemon, for what a peer of one command cannot do.
    pub(super) async fn daemon(common: &Common) -> Result<LeafClient<Channel>, Failure> {
        if !common.peer.peers.is_empty() {
            return Err(Failure::usage(
                "links need a leaf that others find: start one with `leaf run`, and leave --peer out here",
            ));
        }
        match Self::find(common).await? {
            Self::Daemon(client) => Ok(client),
            Self::Joined(_, leaf) => {
                leaf.close().await;
                Err(Failure::usage(
                    "links need a daemon: start one with `leaf run`",
                ))
            }
        }
    }

    /// A leaf in this process that others find, with these settings.
    pub(super) async fn stay(settings: Settings) -> Result<Self, Failure> {
        match settings.peers.is_empty() {
            true => Err(Failure::usage(
                "--stay joins by a peer: give --peer PEER, or leave --stay out and let the daemon share it",
            )),
            false => Self::join(settings, false).await,
        }
    }

    async fn join(mut settings: Settings, visit: bool) -> Result<Self, Failure> {
        // Gone again soon: no burden to put on a visitor.
        settings.stand = Some(Stand::Never);
        let data_dir = match settings.data_dir.take() {
            Some(path) => match DataDir::open(&path) {
                Ok(data_dir) => data_dir,
                Err(error) => {
                    // In use by a daemon, who is this very peer: it will do.
                    let addrs: Vec<SocketAddr> = DataDir::api_of(&path).into_iter().collect();
                    let daemon = connect_any(&addrs).await;
                    return daemon.map(Self::Daemon).ok_or_else(|| error.into());
                }
            },
            None => DataDir::open_free(&DataDir::default_path()?)?,
        };
        let builder = Leaf::builder()
            .settings(settings)
            .open_data_dir(Arc::new(data_dir))
            .visit(visit);
        let leaf = builder.start().await?;
        let (_, closed) = watch::channel(false);
        Ok(Self::Joined(
            Box::new(Service::new(leaf.clone(), closed)),
            leaf,
        ))
    }

    /// Leaves, if it joined.
    pub(super) async fn close(self) {
        if let Backend::Joined(_, leaf) = self {
            leaf.close().await;
        }
    }
}

/// The first that answers; one left behind by a killed daemon leads nowhere.
async fn connect_any(addrs: &[SocketAddr]) -> Option<LeafClient<Channel>> {
    for addr in addrs {
        if let Some(client) = connect(*addr).await {
            return Some(client);
        }
    }
    None
}

async fn connect(addr: SocketAddr) -> Option<LeafClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{addr}")).ok()?;
    let channel = channel.connect_timeout(CONNECT).connect().await.ok()?;
    let client = LeafClient::new(channel);
    Some(
        client
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
}
