//! A handful of super-nodes in memory, whose delays and failures a test sets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Member, Placement};
use canopy_core::record::Record;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::peer::Handler;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{request, response};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep};

use super::publications::Publications;
use crate::event::{BACKLOG, Event};
use crate::leaf::Leaf;
use crate::node::Node;
use crate::settings::Topology;
use crate::status::{Role, Status, SuperNode};

pub(crate) const NETWORK: &str = "test";
pub(crate) const NOW: u64 = 1_800_000_000_000;

/// How a super-node behaves.
#[derive(Clone)]
pub(crate) enum Mode {
    /// Answers after a while.
    Well(Duration),
    /// Takes requests and never answers.
    Silent,
    /// Cannot be reached.
    Gone,
    /// Refuses every request.
    Refuses(Code),
    /// Answers reads with this record, whatever was asked.
    Lies(wire::Signed),
    /// Answers writes with this sequence being in place.
    Claims(u64),
    /// Well, but asks others when its own copy is asked for; it owns nothing, unless
    /// it is an `owner`.
    Unsure { owner: bool },
    /// Well, but its clock is ahead of the others by so many milliseconds.
    Ahead(i64),
}

/// The network, shared by all handles.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<State>,
}

struct State {
    me: NodeId,
    placement: Mutex<Placement>,
    modes: Mutex<BTreeMap<NodeId, Mode>>,
    /// All super-nodes share one store, as coordinators of one overlay do.
    store: Mutex<BTreeMap<Key, wire::Signed>>,
    asked: Mutex<Vec<NodeId>>,
    puts: Mutex<Vec<usize>>,
    /// When it was made; the clock then showed this.
    begun: Instant,
    clock: AtomicU64,
    /// This peer's clock minus theirs, milliseconds.
    off: AtomicI64,
    events: broadcast::Sender<Event>,
}

impl Net {
    /// `count` super-nodes that answer at once.
    pub(crate) fn new(me: &Identity, count: u8) -> Self {
        let net = Self {
            inner: Arc::new(State {
                me: me.node_id(),
                placement: Mutex::default(),
                modes: Mutex::default(),
                store: Mutex::default(),
                asked: Mutex::default(),
                puts: Mutex::default(),
                begun: Instant::now(),
                clock: AtomicU64::new(NOW),
                off: AtomicI64::new(0),
                events: broadcast::channel(BACKLOG).0,
            }),
        };
        (1..=count).for_each(|index| net.join(NodeId([index; 32])));
        net
    }

    pub(crate) fn join(&self, node: NodeId) {
        let mut placement = self.inner.placement.lock();
        *placement = placement.with(Member {
            node,
            seats: 8,
            domain: "".into(),
        });
    }

    pub(crate) fn set(&self, node: NodeId, mode: Mode) {
        self.inner.modes.lock().insert(node, mode);
    }

    pub(crate) fn set_all(&self, mode: &Mode) {
        let nodes: Vec<NodeId> = self
            .placement()
            .members()
            .map(|member| member.node)
            .collect();
        nodes
            .into_iter()
            .for_each(|node| self.set(node, mode.clone()));
    }

    /// Sets this peer's clock, and leaves those of the super-nodes.
    pub(crate) fn set_off(&self, ms: i64) {
        self.inner.off.store(ms, Relaxed);
    }

    /// What the super-nodes' clocks show.
    pub(crate) fn true_ms(&self) -> u64 {
        self.inner.clock.load(Relaxed) + self.inner.begun.elapsed().as_millis() as u64
    }

    /// Sets the clock of everybody forward.
    pub(crate) fn forward(&self, by: Duration) {
        self.inner.clock.fetch_add(by.as_millis() as u64, Relaxed);
    }

    /// Who was asked since the last call, in order.
    pub(crate) fn take_asked(&self) -> Vec<NodeId> {
        std::mem::take(&mut self.inner.asked.lock())
    }

    /// How many records each put carried since the last call.
    pub(crate) fn take_puts(&self) -> Vec<usize> {
        std::mem::take(&mut self.inner.puts.lock())
    }

    /// Places a record as if another process had written it.
    pub(crate) fn store(&self, record: &Record) {
        self.inner
            .store
            .lock()
            .insert(record.id(), record.signed.clone());
    }

    /// When the record `id` was issued, milliseconds since 1970.
    pub(crate) fn issued_ms(&self, id: &Key) -> Option<u64> {
        let signed = self.inner.store.lock().get(id).cloned()?;
        Some(Record::trusted(&signed).ok()?.body.issued_ms)
    }

    pub(crate) fn stored(&self) -> usize {
        self.inner.store.lock().len()
    }

    /// As a super-node whose clock is `ahead`, milliseconds.
    fn serve(&self, kind: request::Kind, ahead: i64) -> response::Kind {
        let clock_ms = self.true_ms().saturating_add_signed(ahead);
        match kind {
            request::Kind::Put(put) => response::Kind::Put(self.put(&put, clock_ms)),
            request::Kind::Get(get) => response::Kind::Get(self.get(&get)),
            request::Kind::Search(search) => response::Kind::Search(self.search(&search)),
            _ => response::Kind::Pong(wire::Pong::default()),
        }
    }

    fn put(&self, put: &wire::Put, clock_ms: u64) -> wire::PutReply {
        self.inner.puts.lock().push(put.records.len());
        let outcomes = put
            .records
            .iter()
            .map(|signed| self.put_one(signed, clock_ms))
            .collect();
        wire::PutReply {
            outcomes,
            utilisation_milli: 100,
            clock_ms,
        }
    }

    fn put_one(&self, signed: &wire::Signed, clock_ms: u64) -> wire::PutOutcome {
        let record = match Record::open(signed, NETWORK, clock_ms) {
            Ok(record) => record,
            Err(error) => {
                return wire::PutOutcome {
                    refusal: Some(refusal(Code::Invalid, &error.to_string())),
                    superseded_by: 0,
                };
            }
        };
        let mut store = self.inner.store.lock();
        let now_ms = self.true_ms();
        let known = store
            .get(&record.id())
            .map(|old| Record::trusted(old).unwrap())
            .filter(|old| old.expires_ms() > now_ms)
            .map(|old| old.body.sequence);
        if let Some(by) = known.filter(|known| *known > record.body.sequence) {
            return wire::PutOutcome {
                refusal: None,
                superseded_by: by,
            };
        }
        store.insert(record.id(), record.signed);
        wire::PutOutcome::default()
    }

    /// Neither removed nor ended.
    fn shows(&self, record: &Record) -> bool {
        !record.body.removed && record.expires_ms() > self.true_ms()
    }

    fn get(&self, get: &wire::Get) -> wire::GetReply {
        let store = self.inner.store.lock();
        let fits = |record: &Record| {
            (self.shows(record) || (get.copy && record.expires_ms() > self.true_ms()))
                && record
                    .placement_keys()
                    .iter()
                    .any(|key| key.0 == get.key[..])
        };
        let records = store
            .values()
            .filter(|signed| fits(&Record::trusted(signed).unwrap()))
            .take(get.limit as usize)
            .cloned()
            .collect();
        wire::GetReply {
            records,
            copy: get.copy,
            ..wire::GetReply::default()
        }
    }

    /// Every item with all terms; the cursor is the number of hits given.
    fn search(&self, search: &wire::Search) -> wire::SearchReply {
        let store = self.inner.store.lock();
        let fits = |signed: &&wire::Signed| {
            let record = Record::trusted(signed).unwrap();
            let shown = self.shows(&record);
            let Some(Payload::Item(item)) = record.body.payload else {
                return false;
            };
            let begins = |prefix: &String| item.terms.iter().any(|term| term.starts_with(prefix));
            shown
                && search.terms.iter().all(|term| item.terms.contains(term))
                && search.prefixes.iter().all(begins)
        };
        let all: Vec<wire::Signed> = store.values().filter(fits).cloned().collect();
        let skip = search.after.first().copied().unwrap_or(0);
        let hit = |signed: &wire::Signed| wire::Hit {
            record: Some(signed.clone()),
            score: 1.0,
        };
        let hits: Vec<_> = all
            .iter()
            .skip(skip.into())
            .take(search.limit as usize)
            .map(hit)
            .collect();
        let end = usize::from(skip) + hits.len();
        wire::SearchReply {
            hits,
            next: if end < all.len() {
                vec![end as u8].into()
            } else {
                Default::default()
            },
            total: all.len() as u64,
            ..wire::SearchReply::default()
        }
    }
}

impl Calls for Net {
    fn node_id(&self) -> NodeId {
        self.inner.me
    }

    fn network(&self) -> &str {
        NETWORK
    }

    fn placement(&self) -> Placement {
        self.inner.placement.lock().clone()
    }

    fn now_ms(&self) -> u64 {
        let off = self.inner.off.load(Relaxed);
        self.true_ms().saturating_add_signed(off)
    }

    async fn call(
        &self,
        node: NodeId,
        request: request::Kind,
        deadline: Duration,
    ) -> Result<response::Kind, CallError> {
        self.inner.asked.lock().push(node);
        let mode = self.inner.modes.lock().get(&node).cloned();
        match mode.unwrap_or(Mode::Well(Duration::ZERO)) {
            Mode::Well(delay) if delay < deadline => {
                sleep(delay).await;
                Ok(self.serve(request, 0))
            }
            Mode::Ahead(ms) => Ok(self.serve(request, ms)),
            Mode::Unsure { owner } => {
                sleep(Duration::from_millis(1)).await;
                let mut answer = self.serve(request, 0);
                if let response::Kind::Get(reply) = &mut answer {
                    reply.copy = false;
                    reply.owners = (!owner)
                        .then(|| NodeId([1; 32]).to_bytes())
                        .into_iter()
                        .collect();
                }
                Ok(answer)
            }
            Mode::Well(_) | Mode::Silent => {
                sleep(deadline).await;
                Err(CallError::Deadline(node))
            }
            Mode::Gone => Err(CallError::Unreachable {
                peer: node,
                reason: "connection refused".into(),
            }),
            Mode::Refuses(code) => Err(CallError::Refused {
                peer: node,
                refusal: refusal(code, "because a test says so"),
            }),
            Mode::Claims(superseded_by) => Ok(response::Kind::Put(wire::PutReply {
                outcomes: vec![wire::PutOutcome {
                    refusal: None,
                    superseded_by,
                }],
                utilisation_milli: 0,
                clock_ms: 0,
            })),
            Mode::Lies(signed) => Ok(response::Kind::Get(wire::GetReply {
                records: vec![signed],
                copy: true,
                ..wire::GetReply::default()
            })),
        }
    }
}

/// Where a peer says that it is, for an hour.
pub(crate) fn location(peer: &Identity, homes: &[u8]) -> Record {
    let homes = homes.iter().map(|home| NodeId([*home; 32]).to_bytes());
    let location = Payload::Location(wire::Location {
        homes: homes.collect(),
    });
    Record::sign(peer, NETWORK, NOW, NOW, 3600, location).unwrap()
}

fn refusal(code: Code, message: &str) -> wire::Refusal {
    wire::Refusal {
        code: code as i32,
        message: message.to_owned(),
    }
}

impl Net {
    /// A leaf on this network.
    pub(crate) fn leaf(&self, identity: Identity, timeout: Duration) -> Leaf<Net> {
        let list = Publications::in_memory(NETWORK, identity.node_id());
        let client = super::Client::keeping(self.clone(), identity, timeout, list);
        Leaf::new(self.clone(), client, None)
    }

    /// Makes something happen.
    pub(crate) fn emit(&self, event: Event) {
        // An error says that nobody listens.
        let _ = self.inner.events.send(event);
    }
}

impl Node for Net {
    fn status(&self) -> Status {
        let super_node = |member: &Member| SuperNode {
            node_id: member.node,
            capacity_bps: 20_000_000,
            seats: member.seats,
            domain: member.domain.to_string(),
        };
        let super_nodes: Vec<SuperNode> = self.placement().members().map(super_node).collect();
        Status {
            node_id: self.inner.me,
            role: Role::Leaf,
            homes: Vec::new(),
            super_node_count: super_nodes.len() as u32,
            super_nodes,
            capacity_bps: 0,
            criteria: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 4477)),
            network: NETWORK.to_owned(),
            topology: Topology::Elected,
            uptime_s: 1,
            leaves: 0,
        }
    }

    fn addrs(&self, node: &NodeId) -> Vec<SocketAddr> {
        let known = self.placement().get(node).is_some();
        let addr = SocketAddr::from(([127, 0, 0, node.0[0]], 4477));
        known.then_some(addr).into_iter().collect()
    }

    fn homes(&self) -> watch::Receiver<Vec<NodeId>> {
        watch::channel(Vec::new()).1
    }

    /// Nothing ever comes here.
    fn set_recipient(&self, _: Box<dyn Handler>) {}

    fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    async fn close(&self) {}
}
