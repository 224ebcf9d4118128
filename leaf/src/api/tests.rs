//! The API over real loopback sockets, on a leaf whose network is in memory.

use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_client::LeafClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::client::testing::{Mode, Net, location};
use crate::event::{Event, EventKind};

const BOUND: Duration = Duration::from_secs(20);

struct Running {
    net: Net,
    client: LeafClient<Channel>,
    close: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ApiError>>,
    channel: Channel,
}

impl Running {
    async fn kept(&mut self) -> u64 {
        let status = self.client.status(pb::StatusRequest {}).await.unwrap();
        status.into_inner().requests.unwrap().kept
    }
}

async fn start() -> Running {
    let identity = Identity::from_secret([9; 32]);
    let net = Net::new(&identity, 5);
    let leaf = net.leaf(identity, Duration::from_millis(300));
    let api = Api::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", api.addr());
    let (close, closing) = oneshot::channel();
    let task = tokio::spawn(api.serve(leaf, async move {
        let _ = closing.await;
    }));
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    Running {
        net,
        client: LeafClient::new(channel.clone()),
        close,
        task,
        channel,
    }
}

fn put(name: &str, data: &[u8]) -> pb::PutRequest {
    pb::PutRequest {
        name: name.into(),
        data: data.to_vec(),
        ttl_s: 0,
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    for addr in ["0.0.0.0:0", "192.168.1.2:4480", "[::]:0"] {
        let error = Api::bind(addr.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, ApiError::NotLoopback(_)), "{error}");
    }
}

#[tokio::test]
async fn values_items_and_providers_travel_through_the_api() {
    let mut api = start().await;
    let stored = api
        .client
        .put(put("n", b"hello"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stored.content, blake3::hash(b"hello").to_string());
    let get = pb::GetRequest {
        name: "n".into(),
        ..pb::GetRequest::default()
    };
    let value = api
        .client
        .get(get.clone())
        .await
        .unwrap()
        .into_inner()
        .value
        .unwrap();
    assert_eq!(
        (value.data, value.publisher),
        (b"hello".to_vec(), stored.publisher)
    );
    let remove = pb::RemoveRequest {
        name: "n".into(),
        ..pb::RemoveRequest::default()
    };
    api.client.remove(remove).await.unwrap();
    assert_eq!(api.client.get(get).await.unwrap().into_inner().value, None);

    let item = |name: &str| pb::Item {
        name: name.into(),
        words: "bamboo".into(),
        ..pb::Item::default()
    };
    let publish = pb::PublishRequest {
        items: vec![item("red panda"), item("!"), item("")],
        ttl_s: 60,
    };
    let outcomes = api
        .client
        .publish(publish)
        .await
        .unwrap()
        .into_inner()
        .outcomes;
    let failed: Vec<bool> = outcomes
        .iter()
        .map(|outcome| !outcome.error.is_empty())
        .collect();
    assert_eq!(failed, [false, false, true]);
    let search = pb::SearchRequest {
        query: "panda bam*".into(),
        ..pb::SearchRequest::default()
    };
    let found = api.client.search(search).await.unwrap().into_inner();
    assert_eq!(found.hits[0].item.as_ref().unwrap().name, "red panda");
    let name = "red panda".into();
    let gone = api
        .client
        .unpublish(pb::UnpublishRequest { name })
        .await
        .unwrap();
    assert!(gone.into_inner().found);

    let content = blake3::hash(b"x").to_string();
    let provide = pb::ProvideRequest {
        content: content.clone(),
        size: 1,
        ttl_s: 0,
    };
    api.client.provide(provide).await.unwrap();
    let find = pb::FindProvidersRequest {
        content: content.clone(),
        limit: 0,
    };
    let found = api
        .client
        .find_providers(find)
        .await
        .unwrap()
        .into_inner()
        .providers;
    assert_eq!(found.len(), 1);
    let unprovide = pb::UnprovideRequest {
        content: content.clone(),
    };
    api.client.unprovide(unprovide).await.unwrap();
    let find = pb::FindProvidersRequest { content, limit: 0 };
    let found = api.client.find_providers(find).await.unwrap().into_inner();
    assert_eq!(found.providers, []);
}

#[tokio::test]
async fn what_has_no_lifetime_is_counted_as_kept_until_it_is_removed() {
    let mut api = start().await;
    let nameless = api.client.put(put("", b"x")).await.unwrap().into_inner();
    api.client.put(put("n", b"x")).await.unwrap();
    let short = pb::PutRequest {
        ttl_s: 60,
        ..put("short", b"x")
    };
    api.client.put(short).await.unwrap();
    assert_eq!(api.kept().await, 2);
    let remove = pb::RemoveRequest {
        name: "n".into(),
        ..pb::RemoveRequest::default()
    };
    api.client.remove(remove).await.unwrap();
    assert_eq!(api.kept().await, 1);
    let both = pb::RemoveRequest {
        name: "n".into(),
        content: nameless.content.clone(),
    };
    let error = api.client.remove(both).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let forget = pb::RemoveRequest {
        content: nameless.content,
        ..pb::RemoveRequest::default()
    };
    api.client.remove(forget).await.unwrap();
    assert_eq!(api.kept().await, 0);
}

#[tokio::test]
async fn a_location_travels_through_the_api() {
    let mut api = start().await;
    let peer = Identity::from_secret([5; 32]);
    let node_id = peer.node_id().to_string();
    let locate = pb::LocateRequest {
        node_id: node_id.clone(),
    };
    let none = api.client.locate(locate.clone()).await.unwrap();
    assert_eq!(none.into_inner().location, None);
    api.net.store(&location(&peer, &[1, 99]));
    let found = api.client.locate(locate).await.unwrap().into_inner();
    let found = found.location.unwrap();
    assert_eq!(found.node_id, node_id);
    assert_eq!(found.homes[0].addrs, ["127.0.0.1:4477"]);
    assert_eq!(found.homes[1].node_id, "63".repeat(32));
    assert_eq!(found.homes[1].addrs, [""; 0]);
    let wrong = pb::LocateRequest {
        node_id: "me".into(),
    };
    let error = api.client.locate(wrong).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[tokio::test]
async fn each_error_has_the_code_that_tells_what_to_do() {
    let mut api = start().await;
    let big = api
        .client
        .put(put("n", &vec![0; 64 * 1024 + 1]))
        .await
        .unwrap_err();
    assert_eq!(big.code(), Code::InvalidArgument, "{big}");
    let search = pb::SearchRequest::default();
    assert_eq!(
        api.client.search(search).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let get = pb::GetRequest {
        publisher: "me".into(),
        name: "n".into(),
        ..pb::GetRequest::default()
    };
    assert_eq!(
        api.client.get(get).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let items = vec![pb::Item::default(); MAX_ITEMS + 1];
    let publish = pb::PublishRequest { items, ttl_s: 0 };
    assert_eq!(
        api.client.publish(publish).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    use canopy_proto::wire::refusal::Code as Refusal;
    for (mode, code) in [
        (Mode::Refuses(Refusal::Quota), Code::ResourceExhausted),
        (Mode::Refuses(Refusal::Invalid), Code::FailedPrecondition),
        (Mode::Gone, Code::Unavailable),
    ] {
        api.net.set_all(&mode);
        let error = api.client.put(put("n", b"x")).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test]
async fn events_flow_until_the_leaf_closes_and_health_says_so() {
    let mut api = start().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(api.channel.clone());
    let check = tonic_health::pb::HealthCheckRequest {
        service: "canopy.leaf.v1.Leaf".into(),
    };
    let health = health.check(check).await.unwrap().into_inner();
    assert_eq!(
        health.status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );

    let status = api
        .client
        .status(pb::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.role.as_str(), status.super_node_count), ("leaf", 5));

    let mut events = api
        .client
        .events(pb::EventsRequest {})
        .await
        .unwrap()
        .into_inner();
    let message = "look".to_owned();
    api.net.emit(Event {
        at_ms: 1,
        kind: EventKind::Warning { message },
    });
    let event = tokio::time::timeout(BOUND, events.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(event.kind, Some(pb::event::Kind::Warning(_))));

    api.close.send(()).unwrap();
    let end = tokio::time::timeout(BOUND, events.message()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    tokio::time::timeout(BOUND, api.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
