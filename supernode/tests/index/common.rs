//! Several index services in one process, joined by calls without sockets, and
//! a switch for each to make it dead.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test may fail anywhere"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Member, Placement};
use canopy_core::record::Record;
use canopy_core::text;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::{request, response};
use canopy_supernode::index::{Index, Limits};
use canopy_supernode::service::{IndexService, ServiceConfig};
use parking_lot::RwLock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

pub const NOW: u64 = 1_800_000_000_000;
/// A peer that is no super-node.
pub const LEAF: NodeId = NodeId([0xfe; 32]);

type Asked = (NodeId, request::Kind, oneshot::Sender<response::Kind>);

#[derive(Debug, Default)]
struct State {
    services: BTreeMap<NodeId, IndexService<Caller>>,
    inboxes: BTreeMap<NodeId, UnboundedSender<Asked>>,
    placement: Placement,
    /// Nodes that see only these.
    apart: BTreeMap<NodeId, Placement>,
    dead: BTreeSet<NodeId>,
    /// Extra round-trip time.
    slow: BTreeMap<NodeId, Duration>,
}

#[derive(Clone, Debug, Default)]
pub struct Net {
    state: Arc<RwLock<State>>,
    pub calls: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
pub struct Caller {
    me: NodeId,
    net: Net,
}

impl Calls for Caller {
    fn node_id(&self) -> NodeId {
        self.me
    }

    fn network(&self) -> &str {
        "net"
    }

    fn placement(&self) -> Placement {
        let state = self.net.state.read();
        let own = state.apart.get(&self.me);
        own.unwrap_or(&state.placement).clone()
    }

    fn now_ms(&self) -> u64 {
        NOW
    }

    async fn call(
        &self,
        node: NodeId,
        request: request::Kind,
        deadline: Duration,
    ) -> Result<response::Kind, CallError> {
        self.net.calls.fetch_add(1, Ordering::Relaxed);
        let unreachable = || CallError::Unreachable {
            peer: node,
            reason: "dead".into(),
        };
        let (tell, told) = oneshot::channel();
        let delay = {
            let state = self.net.state.read();
            if state.dead.contains(&self.me) || state.dead.contains(&node) {
                return Err(unreachable());
            }
            let inbox = state.inboxes.get(&node).ok_or_else(unreachable)?;
            inbox
                .send((self.me, request, tell))
                .map_err(|_| unreachable())?;
            state.slow.get(&node).copied()
        };
        let work = async {
            tokio::time::sleep(delay.unwrap_or(Duration::from_millis(1))).await;
            told.await
        };
        let answer = tokio::time::timeout(deadline, work).await;
        if self.net.state.read().dead.contains(&node) {
            // It died with the request.
            return Err(unreachable());
        }
        match answer {
            Err(_) => Err(CallError::Deadline(node)),
            Ok(Err(_)) => Err(unreachable()),
            Ok(Ok(response::Kind::Refusal(refusal))) => Err(CallError::Refused {
                peer: node,
                refusal,
            }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

async fn serve(service: IndexService<Caller>, mut asked: UnboundedReceiver<Asked>) {
    while let Some((from, request, tell)) = asked.recv().await {
        let service = service.clone();
        tokio::spawn(async move {
            // The asker may have stopped waiting.
            let _ = tell.send(service.handle(from, request).await);
        });
    }
}

pub fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

impl Net {
    /// A network of nodes 1 to `count`.
    pub fn of(count: u8) -> Self {
        let net = Self::default();
        for n in 1..=count {
            net.start(n);
        }
        net.each(|placement| (1..=count).fold(placement, with));
        net
    }

    /// Two networks that know nothing of one another: nodes 1 to `count`, and
    /// as many from there on.
    pub fn two_of(count: u8) -> Self {
        let net = Self::default();
        for nodes in [1..=count, count + 1..=2 * count] {
            let own = nodes.clone().fold(Placement::empty(), with);
            for n in nodes {
                net.state.write().apart.insert(node(n), own.clone());
                net.start(n);
            }
        }
        net
    }

    /// From now on all nodes see one another.
    pub fn unite(&self) {
        let apart = std::mem::take(&mut self.state.write().apart);
        self.each(|placement| {
            let members = apart.values().flat_map(Placement::members).cloned();
            placement.updated(Vec::new(), members)
        });
    }

    /// Starts a service that is not in the placement yet.
    pub fn start(&self, n: u8) -> IndexService<Caller> {
        let caller = Caller {
            me: node(n),
            net: self.clone(),
        };
        let index = Arc::new(Index::in_memory(Limits::default()));
        let service = IndexService::start(caller, index, ServiceConfig::default());
        let (inbox, asked) = unbounded_channel();
        tokio::spawn(serve(service.clone(), asked));
        let mut state = self.state.write();
        state.services.insert(node(n), service.clone());
        state.inboxes.insert(node(n), inbox);
        service
    }

    /// Changes the placement and tells everybody.
    pub fn each(&self, change: impl FnOnce(Placement) -> Placement) {
        let services: Vec<_> = {
            let mut state = self.state.write();
            state.placement = change(state.placement.clone());
            state.services.values().cloned().collect()
        };
        for service in services {
            service.placement_changed();
        }
    }

    pub fn join(&self, n: u8) {
        self.start(n);
        self.each(|placement| with(placement, n));
    }

    pub fn leave(&self, n: u8) {
        self.each(|placement| placement.without(&node(n)));
    }

    /// From now on it answers nothing.
    pub fn kill(&self, n: u8) {
        self.state.write().dead.insert(node(n));
    }

    /// Starts a dead node again, with nothing in its store.
    pub fn revive(&self, n: u8) {
        self.state.write().dead.remove(&node(n));
        self.start(n);
    }

    pub fn slow(&self, n: u8, by: Duration) {
        self.state.write().slow.insert(node(n), by);
    }

    pub fn service(&self, n: u8) -> IndexService<Caller> {
        self.state.read().services[&node(n)].clone()
    }

    pub fn placement(&self) -> Placement {
        self.state.read().placement.clone()
    }

    /// Puts through node `n`; the refusal of each record.
    pub async fn put(&self, n: u8, records: &[Record]) -> Vec<Option<wire::Refusal>> {
        let put = wire::Put {
            records: records.iter().map(|r| r.signed.clone()).collect(),
            local: false,
        };
        match self.service(n).handle(LEAF, request::Kind::Put(put)).await {
            response::Kind::Put(reply) => reply.outcomes.into_iter().map(|o| o.refusal).collect(),
            response::Kind::Refusal(refusal) => {
                records.iter().map(|_| Some(refusal.clone())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn get(
        &self,
        n: u8,
        key: Key,
        consistency: wire::Consistency,
    ) -> Result<wire::GetReply, wire::Refusal> {
        let get = wire::Get {
            key: key.to_bytes(),
            consistency: consistency.into(),
            ..Default::default()
        };
        self.ask(n, get).await
    }

    /// The copy of node `n`.
    pub async fn copy(&self, n: u8, key: Key) -> Result<wire::GetReply, wire::Refusal> {
        let get = wire::Get {
            key: key.to_bytes(),
            consistency: wire::Consistency::Quorum.into(),
            copy: true,
            ..Default::default()
        };
        self.ask(n, get).await
    }

    async fn ask(&self, n: u8, get: wire::Get) -> Result<wire::GetReply, wire::Refusal> {
        match self.service(n).handle(LEAF, request::Kind::Get(get)).await {
            response::Kind::Get(reply) => Ok(reply),
            response::Kind::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub async fn search(&self, n: u8, words: &str) -> Result<Vec<String>, wire::Refusal> {
        let query = text::query(words);
        let search = wire::Search {
            terms: query.terms,
            prefixes: query.prefixes,
            ..Default::default()
        };
        match self
            .service(n)
            .handle(LEAF, request::Kind::Search(search))
            .await
        {
            response::Kind::Search(reply) => Ok(reply.hits.iter().map(name).collect()),
            response::Kind::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// How many living nodes hold `record` or a later version.
    pub fn copies(&self, record: &Record) -> usize {
        let state = self.state.read();
        let alive = state
            .services
            .iter()
            .filter(|(n, _)| !state.dead.contains(n));
        alive
            .filter(|(_, s)| s.index().holds(&record.id(), record.body.sequence, NOW))
            .count()
    }
}

fn name(hit: &wire::Hit) -> String {
    let record = Record::trusted(hit.record.as_ref().unwrap()).unwrap();
    match record.body.payload {
        Some(Payload::Item(item)) => item.name,
        other => panic!("{other:?}"),
    }
}

fn with(placement: Placement, n: u8) -> Placement {
    placement.with(Member {
        node: node(n),
        seats: 8,
        domain: "".into(),
    })
}

/// Waits, in virtual time, until `holds`; fails after ten minutes of it.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came true: {what}");
}

pub fn value(name: &str, sequence: u64) -> Record {
    let payload = value_payload(name, sequence);
    Record::sign(&publisher(), "net", sequence, NOW, 3600, payload).unwrap()
}

pub fn removal(name: &str, sequence: u64) -> Record {
    let payload = value_payload(name, 0);
    Record::sign_removal(&publisher(), "net", sequence, NOW, 3600, payload).unwrap()
}

fn value_payload(name: &str, sequence: u64) -> Payload {
    Payload::Value(wire::Value {
        name: name.into(),
        data: Bytes::from(sequence.to_string()),
    })
}

pub fn item(name: &str, words: &str) -> Record {
    let payload = Payload::Item(wire::Item {
        name: name.into(),
        text: words.into(),
        terms: text::item_terms(name, words),
        ..Default::default()
    });
    Record::sign(&publisher(), "net", 1, NOW, 3600, payload).unwrap()
}

pub fn publisher() -> Identity {
    Identity::from_secret([1; 32])
}
