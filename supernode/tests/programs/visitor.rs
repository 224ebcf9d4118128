//! A peer that asks a host for what it likes: nothing of what it sends is
//! checked on its own side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canopy_core::identity::Identity;
use canopy_core::record::Record;
use canopy_overlay::fabric::{Answer, Fabric, FabricConfig, Service, Session, Target};
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::{request, response};

use crate::running::{BOUND, Running};

/// Pause between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(20);

/// Serves nothing.
struct Deaf;

impl Service for Deaf {
    fn request(&self, _from: &Session, _request: request::Kind) -> Answer {
        Answer::refuse(wire::refusal::Code::NotServing, "a visitor")
    }

    fn notify(&self, _from: &Session, _message: wire::CoreMessage) {}
}

/// The peer, with its session to a host.
pub(crate) struct Visitor {
    pub(crate) identity: Identity,
    session: Session,
    _fabric: Fabric,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

/// A value without a signature.
pub(crate) fn value(name: &str, data: Vec<u8>) -> Payload {
    Payload::Value(wire::Value {
        name: name.into(),
        data: data.into(),
    })
}

impl Visitor {
    /// Opens a session to a host that serves by its operator's word.
    pub(crate) async fn at(host: &Running) -> Self {
        let identity = Identity::from_secret([5; 32]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = FabricConfig::new(identity.clone(), listen, "canopy");
        let operator = host.ready["operator"].as_str().expect("an operator");
        config.operator = Some(operator.parse().expect("a key"));
        let fabric = Fabric::bind(config, Arc::new(Deaf)).expect("a port");
        let target: Target = host.ready["listen"]
            .as_str()
            .and_then(|addr| addr.parse().ok())
            .expect("an address");
        let session = fabric.connect(&target, BOUND).await.expect("a session");
        let visitor = Self {
            identity,
            session,
            _fabric: fabric,
        };
        // The index opens a moment after the role was told.
        let serves = async {
            while !visitor.is_served().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(BOUND, serves)
            .await
            .expect("it serves");
        visitor
    }

    async fn is_served(&self) -> bool {
        let key = self.identity.node_id().to_bytes();
        let get = request::Kind::Get(wire::Get {
            key,
            ..Default::default()
        });
        self.session.request(get, BOUND).await.is_ok()
    }

    /// A good record of this peer.
    pub(crate) fn record(&self, sequence: u64, payload: Payload) -> Record {
        let made = Record::sign(&self.identity, "canopy", sequence, now_ms(), 600, payload);
        made.expect("within the limits")
    }

    /// Has the host store `records`; what it says of each.
    pub(crate) async fn put(&self, records: Vec<wire::Signed>) -> Vec<wire::PutOutcome> {
        let local = false;
        let put = request::Kind::Put(wire::Put { records, local });
        match self.session.request(put, BOUND).await {
            Ok(response::Kind::Put(reply)) => reply.outcomes,
            other => panic!("no answer to a write: {other:?}"),
        }
    }

    /// The record that the host has in the place of `like`.
    pub(crate) async fn get(&self, like: &Record) -> Option<wire::Signed> {
        let get = request::Kind::Get(wire::Get {
            key: like.id().to_bytes(),
            ..Default::default()
        });
        match self.session.request(get, BOUND).await {
            Ok(response::Kind::Get(reply)) => reply.records.into_iter().next(),
            other => panic!("no answer to a read: {other:?}"),
        }
    }
}
