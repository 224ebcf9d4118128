//! The calls of the API, each answered by the leaf.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_server::Leaf as Calls;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::content;
use super::convert;
use super::events;
use super::link;
use super::routing::{self, MessageStream, PostStream};
use crate::client::{Consistency, DEFAULT_LIMIT, Query};
use crate::leaf::Leaf;
use crate::node::Node;

/// Most items in one call of Publish.
pub const MAX_ITEMS: usize = 1000;

/// A stream of events to one reader.
type EventStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

/// Answers the calls of `canopy.leaf.v1` from a leaf.
#[derive(Debug)]
pub struct Service<N: Node> {
    leaf: Leaf<N>,
    /// Turns true when the API closes: then streams of events end.
    closed: watch::Receiver<bool>,
}

impl<N: Node> Service<N> {
    pub(crate) fn new(leaf: Leaf<N>, closed: watch::Receiver<bool>) -> Self {
        Self { leaf, closed }
    }

    /// Resolves when the API closes.
    fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.closed.clone();
        async move {
            // An error says that the API is gone, which is the same.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }
}

/// A chosen lifetime; 0: none was chosen.
fn ttl(seconds: u32) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

fn limit(limit: u32) -> u32 {
    if limit == 0 { DEFAULT_LIMIT } else { limit }
}

#[tonic::async_trait]
impl<N: Node> Calls for Service<N> {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusReply>, Status> {
        let reply = convert::status(self.leaf.status(), self.leaf.stats());
        Ok(Response::new(reply))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutReply>, Status> {
        let put = request.into_inner();
        let (client, ttl) = (self.leaf.client(), ttl(put.ttl_s));
        let content = blake3::hash(&put.data);
        let stored = match put.name.is_empty() {
            true => client
                .put_content(put.data.into(), ttl)
                .await
                .map(|(_, stored)| stored),
            false => client.put(&put.name, put.data.into(), ttl).await,
        };
        Ok(Response::new(pb::PutReply {
            publisher: self.leaf.node_id().to_string(),
            sequence: stored.map_err(convert::error)?.sequence,
            content: content.to_string(),
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetReply>, Status> {
        let get = request.into_inner();
        let client = self.leaf.client();
        let value = if get.content.is_empty() {
            let publisher = match get.publisher.is_empty() {
                true => self.leaf.node_id(),
                false => convert::node_id("publisher", &get.publisher)?,
            };
            let consistency = match get.one {
                true => Consistency::One,
                false => Consistency::Quorum,
            };
            client.get(publisher, &get.name, consistency).await
        } else if get.name.is_empty() && get.publisher.is_empty() {
            client.get_content(convert::hash(&get.content)?).await
        } else {
            let why = "give either a content hash, or a name with or without a publisher";
            return Err(Status::invalid_argument(why));
        };
        let value = value.map_err(convert::error)?.map(convert::value);
        Ok(Response::new(pb::GetReply { value }))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveReply>, Status> {
        let remove = request.into_inner();
        if remove.content.is_empty() {
            let stored = self.leaf.remove(&remove.name).await;
            let sequence = stored.map_err(convert::error)?.sequence;
            return Ok(Response::new(pb::RemoveReply { sequence }));
        }
        if !remove.name.is_empty() {
            let why = "give either a name or a content hash";
            return Err(Status::invalid_argument(why));
        }
        let content = convert::hash(&remove.content)?;
        let forgotten = self.leaf.forget_content(content).await;
        forgotten.map_err(convert::error)?;
        Ok(Response::new(pb::RemoveReply { sequence: 0 }))
    }

    async fn publish(
        &self,
        request: Request<pb::PublishRequest>,
    ) -> Result<Response<pb::PublishReply>, Status> {
        let publish = request.into_inner();
        let count = publish.items.len();
        if count > MAX_ITEMS {
            let why = format!("{count} items in one call, the limit is {MAX_ITEMS}; send several");
            return Err(Status::invalid_argument(why));
        }
        // A wrong item is its own failure and nobody else's.
        let mut outcomes = vec![pb::PublishOutcome::default(); count];
        let (mut places, mut items) = (Vec::new(), Vec::new());
        for (place, item) in publish.items.into_iter().enumerate() {
            match convert::item(item) {
                Ok(item) => {
                    places.push(place);
                    items.push(item);
                }
                Err(status) => outcomes[place] = convert::outcome(Err(status)),
            }
        }
        let client = self.leaf.client();
        let results = client.publish_all(&items, ttl(publish.ttl_s)).await;
        for (place, result) in places.into_iter().zip(results) {
            outcomes[place] = convert::outcome(result.map_err(convert::error));
        }
        Ok(Response::new(pb::PublishReply { outcomes }))
    }

    async fn unpublish(
        &self,
        request: Request<pb::UnpublishRequest>,
    ) -> Result<Response<pb::UnpublishReply>, Status> {
        let found = self.leaf.unpublish(&request.get_ref().name).await;
        let found = found.map_err(convert::error)?;
        Ok(Response::new(pb::UnpublishReply { found }))
    }

    async fn search(
        &self,
        request: Request<pb::SearchRequest>,
    ) -> Result<Response<pb::SearchReply>, Status> {
        let search = request.into_inner();
        let query = Query::parse(&search.query)
            .map_err(|error| Status::invalid_argument(error.to_string()))?
            .limit(limit(search.limit))
            .after(search.after.into());
        let page = self.leaf.search(&query).await.map_err(convert::error)?;
        Ok(Response::new(convert::page(page)))
    }

    async fn provide(
        &self,
        request: Request<pb::ProvideRequest>,
    ) -> Result<Response<pb::ProvideReply>, Status> {
        let provide = request.into_inner();
        let content = convert::hash(&provide.content)?;
        let client = self.leaf.client();
        let stored = client.provide(content, provide.size, ttl(provide.ttl_s));
        let stored = stored.await;
        let sequence = stored.map_err(convert::error)?.sequence;
        Ok(Response::new(pb::ProvideReply { sequence }))
    }

    async fn unprovide(
        &self,
        request: Request<pb::UnprovideRequest>,
    ) -> Result<Response<pb::UnprovideReply>, Status> {
        let content = convert::hash(&request.get_ref().content)?;
        let stored = self.leaf.unprovide(content).await;
        let sequence = stored.map_err(convert::error)?.sequence;
        Ok(Response::new(pb::UnprovideReply { sequence }))
    }

    async fn find_providers(
        &self,
        request: Request<pb::FindProvidersRequest>,
    ) -> Result<Response<pb::FindProvidersReply>, Status> {
        let find = request.into_inner();
        let content = convert::hash(&find.content)?;
        let found = self
            .leaf
            .client()
            .find_providers(content, limit(find.limit))
            .await;
        let providers = found
            .map_err(convert::error)?
            .into_iter()
            .map(convert::provider)
            .collect();
        Ok(Response::new(pb::FindProvidersReply { providers }))
    }

    async fn locate(
        &self,
        request: Request<pb::LocateRequest>,
    ) -> Result<Response<pb::LocateReply>, Status> {
        let node = convert::node_id("node_id", &request.get_ref().node_id)?;
        let found = self.leaf.locate(node).await.map_err(convert::error)?;
        let location = found.map(convert::location);
        Ok(Response::new(pb::LocateReply { location }))
    }

    async fn send(
        &self,
        request: Request<pb::SendRequest>,
    ) -> Result<Response<pb::SendReply>, Status> {
        let send = request.into_inner();
        let to = convert::node_id("to", &send.to)?;
        let sent = self.leaf.send(to, send.data).await;
        Ok(Response::new(routing::sent(sent)?))
    }

    type MessagesStream = MessageStream;

    async fn messages(
        &self,
        _: Request<pb::MessagesRequest>,
    ) -> Result<Response<MessageStream>, Status> {
        let messages = routing::messages(self.leaf.messages());
        let messages = messages.take_until(Box::pin(self.closing()));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn broadcast(
        &self,
        request: Request<pb::BroadcastRequest>,
    ) -> Result<Response<pb::BroadcastReply>, Status> {
        let post = request.into_inner();
        let posted = self.leaf.broadcast(&post.topic, post.data).await;
        Ok(Response::new(routing::posted(posted)?))
    }

    type SubscribeStream = PostStream;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<PostStream>, Status> {
        let subscription = self.leaf.subscribe(&request.get_ref().topic).await;
        let posts = routing::posts(subscription.map_err(routing::subscribe_error)?);
        let posts = posts.take_until(Box::pin(self.closing()));
        Ok(Response::new(Box::pin(posts)))
    }

    type LinkStream = link::Outputs;

    async fn link(
        &self,
        request: Request<Streaming<pb::LinkInput>>,
    ) -> Result<Response<link::Outputs>, Status> {
        let outputs = link::link(self.leaf.clone(), request.into_inner());
        Ok(Response::new(Box::pin(
            outputs.take_until(Box::pin(self.closing())),
        )))
    }

    type PingStream = link::Pings;

    async fn ping(
        &self,
        request: Request<pb::PingRequest>,
    ) -> Result<Response<link::Pings>, Status> {
        let pings = link::ping(self.leaf.clone(), request.into_inner())?;
        Ok(Response::new(Box::pin(
            pings.take_until(Box::pin(self.closing())),
        )))
    }

    type ShareStream = content::Shares;

    async fn share(
        &self,
        request: Request<pb::ShareRequest>,
    ) -> Result<Response<content::Shares>, Status> {
        let updates = content::share(self.leaf.clone(), &request.get_ref().path)?;
        Ok(Response::new(Box::pin(
            updates.take_until(Box::pin(self.closing())),
        )))
    }

    async fn unshare(
        &self,
        request: Request<pb::UnshareRequest>,
    ) -> Result<Response<pb::UnshareReply>, Status> {
        let hash = convert::hash(&request.get_ref().content)?;
        let found = self.leaf.unshare(hash).await;
        let found = found.map_err(content::share_error)?;
        Ok(Response::new(pb::UnshareReply { found }))
    }

    async fn list_shares(
        &self,
        _: Request<pb::ListSharesRequest>,
    ) -> Result<Response<pb::ListSharesReply>, Status> {
        let shares = self.leaf.shares().map_err(content::share_error)?;
        let reply = content::list(&shares, self.leaf.content_stats());
        Ok(Response::new(reply))
    }

    type FetchStream = content::Fetches;

    async fn fetch(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<content::Fetches>, Status> {
        let updates = content::fetch(&self.leaf, request.get_ref())?;
        Ok(Response::new(Box::pin(
            updates.take_until(Box::pin(self.closing())),
        )))
    }

    type EventsStream = EventStream;

    async fn events(&self, _: Request<pb::EventsRequest>) -> Result<Response<EventStream>, Status> {
        let events = stream::unfold(self.leaf.events(), |mut events| async move {
            let event = events.next().await?;
            Some((Ok(events::to_proto(event)), events))
        });
        Ok(Response::new(Box::pin(
            events.take_until(Box::pin(self.closing())),
        )))
    }
}
