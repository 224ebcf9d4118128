//! Links over the simplest relay there can be, on loopback: what two leaves do
//! with flows, whoever gives them.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Peer, SOON, within};
use canopy_core::identity::Identity;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::link::frame::{self, FlowId, FlowKey, Frame, Kind, Side};
use canopy_overlay::fabric::link::{FlowEnd, Link, LinkError, Links, LinksConfig, Path, Signals};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

const KEYS: [FlowKey; 2] = [FlowKey([1; 32]), FlowKey([2; 32])];

/// Forwards between bound ends; believes nobody without a proof.
struct Relay {
    node: NodeId,
    addr: SocketAddr,
    sessions: SocketAddr,
    bytes: Arc<AtomicU64>,
    task: AbortHandle,
}

/// Where the ends of flows are.
#[derive(Default)]
struct Ends(HashMap<(FlowId, Side), SocketAddr>);

impl Ends {
    /// What is to be sent, and where, for what came.
    fn take(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        counted: &AtomicU64,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let frame = Frame::parse(datagram)?;
        let (flow, side) = (frame.flow, frame.side);
        let key = &KEYS[side.index()];
        match frame.kind {
            Kind::Bind { count } if frame.proves(key) => {
                self.0.insert((flow, side), from);
                let bound = frame::bound(flow, side, count, from, key);
                Some((from, bound.to_vec()))
            }
            Kind::Close { .. } if frame.proves(key) => {
                self.0.remove(&(flow, side));
                None
            }
            Kind::Data if self.0.get(&(flow, side)) == Some(&from) => {
                let to = *self.0.get(&(flow, side.across()))?;
                counted.fetch_add(frame.payload().len() as u64, Ordering::Relaxed);
                Some((to, datagram.to_vec()))
            }
            _ => None,
        }
    }
}

impl Relay {
    /// One that hears nothing by UDP, only what carriers to `host` bring.
    async fn by_carriers(host: &Peer) -> Self {
        let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = deaf.local_addr().unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = bytes.clone();
        let mut carried = host.fabric.carried_relay();
        let task = tokio::spawn(async move {
            let (_deaf, mut ends) = (deaf, Ends::default());
            loop {
                let (from, datagram) = carried.recv().await;
                if let Some((to, out)) = ends.take(from, &datagram, &counted) {
                    carried.send(&to, &out, out.len());
                }
            }
        });
        Self {
            node: host.node_id(),
            addr,
            sessions: host.fabric.local_addr().unwrap(),
            bytes,
            task: task.abort_handle(),
        }
    }

    async fn start(id: u8) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = bytes.clone();
        let task = tokio::spawn(async move {
            let (mut ends, mut datagram) = (Ends::default(), vec![0; 2_000]);
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
                if let Some((to, out)) = ends.take(from, &datagram[..length], &counted) {
                    let _ = socket.send_to(&out, to).await;
                }
            }
        });
        Self {
            node: NodeId([id; 32]),
            addr,
            sessions: addr,
            bytes,
            task: task.abort_handle(),
        }
    }

    fn end(&self, flow: FlowId, side: Side) -> FlowEnd {
        FlowEnd {
            flow,
            side,
            key: KEYS[side.index()].clone(),
            relay: self.node,
            addr: self.addr,
            sessions: self.sessions,
        }
    }
}

/// Gives flows of one relay after the other, and offers them to the others.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    relays: Vec<Relay>,
    peers: HashMap<NodeId, Links>,
    flows: u64,
}

struct Asker {
    board: Board,
    me: NodeId,
}

impl Signals for Asker {
    fn open<'a>(
        &'a self,
        peer: NodeId,
        protocol: &'a str,
        avoid: Option<NodeId>,
    ) -> Pin<Box<dyn Future<Output = Result<FlowEnd, LinkError>> + Send + 'a>> {
        Box::pin(async move {
            let (other, own, theirs) = {
                let mut state = self.board.0.lock();
                state.flows += 1;
                let flow = FlowId(state.flows);
                let relay = state.relays.iter().find(|r| Some(r.node) != avoid);
                let relay = relay.ok_or(LinkError::Unknown(peer))?;
                let ends = [Side::Opener, Side::Other].map(|side| relay.end(flow, side));
                let [own, theirs] = ends;
                let other = state.peers.get(&peer).cloned();
                (other.ok_or(LinkError::Unknown(peer))?, own, theirs)
            };
            let offered = other.offered(self.me, protocol.to_owned(), theirs).await;
            offered.map_err(|reason| LinkError::Refused { peer, reason })?;
            Ok(own)
        })
    }
}

struct Leaf {
    links: Links,
    id: NodeId,
    _peer: Peer,
}

impl Board {
    fn leaf(&self, secret: u8, relay_only: bool) -> Leaf {
        let peer = Peer::bind(secret);
        let id = Identity::from_secret([secret; 32]).node_id();
        let mut config = LinksConfig::new("127.0.0.1:0".parse().unwrap());
        config.relay_only = relay_only;
        let asker = Asker {
            board: self.clone(),
            me: id,
        };
        let links = Links::bind(&peer.fabric, config, Arc::new(asker)).unwrap();
        self.0.lock().peers.insert(id, links.clone());
        Leaf {
            links,
            id,
            _peer: peer,
        }
    }

    async fn relay(&self, id: u8) {
        let relay = Relay::start(id).await;
        self.0.lock().relays.push(relay);
    }

    fn relayed(&self) -> u64 {
        let state = self.0.lock();
        let counts = state.relays.iter().map(|r| r.bytes.load(Ordering::Relaxed));
        counts.sum()
    }
}

async fn linked(from: &Leaf, to: &Leaf) -> (Link, Link) {
    let mut acceptor = to.links.accept("test").unwrap();
    let dial = from.links.connect(to.id, "test", SOON);
    let (here, there) = within(async { tokio::join!(dial, acceptor.next()) }).await;
    (here.unwrap(), there.unwrap())
}

/// Sends that many bytes one way, and waits until they came.
async fn transfer(from: &Link, to: &Link, length: usize) {
    let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut send = from.open_uni().await.unwrap();
    let write = async {
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
    };
    let read = async {
        let mut recv = to.accept_uni().await.unwrap();
        recv.read_to_end(length).await.unwrap()
    };
    let ((), came) = within(async { tokio::join!(write, read) }).await;
    assert!(came == data, "{} of {length} bytes", came.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_starts_on_the_relay_and_leaves_it_for_a_direct_path() {
    let board = Board::default();
    board.relay(101).await;
    let (a, b) = (board.leaf(1, false), board.leaf(2, false));
    let (here, there) = linked(&a, &b).await;
    assert_eq!((here.peer(), there.peer()), (b.id, a.id));
    assert!(board.relayed() > 2_400);
    let (one, other) = within(async { tokio::join!(here.direct(), there.direct()) }).await;
    assert_eq!(one.unwrap(), b.links.local_addr());
    assert_eq!(other.unwrap(), a.links.local_addr());
    transfer(&here, &there, 1_000).await;
    let before = board.relayed();
    transfer(&here, &there, 2_000_000).await;
    transfer(&there, &here, 2_000_000).await;
    let relayed = board.relayed() - before;
    assert!(relayed < 3_000, "{relayed} bytes still went over the relay");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_address_is_reached_over_the_relay_only() {
    let board = Board::default();
    board.relay(101).await;
    let (a, b) = (board.leaf(3, true), board.leaf(4, false));
    let (here, there) = linked(&a, &b).await;
    transfer(&here, &there, 500_000).await;
    transfer(&there, &here, 500_000).await;
    let relay = Path::Relayed(NodeId([101; 32]));
    assert_eq!((here.path(), there.path()), (relay, relay));
    assert!(board.relayed() > 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_udp_does_not_reach_is_reached_by_a_carrier() {
    let (board, host) = (Board::default(), Peer::bind(20));
    let relay = Relay::by_carriers(&host).await;
    board.0.lock().relays.push(relay);
    let (a, b) = (board.leaf(21, true), board.leaf(22, true));
    let (here, there) = linked(&a, &b).await;
    transfer(&here, &there, 2_000_000).await;
    transfer(&there, &here, 2_000_000).await;
    let relay = Path::Relayed(host.node_id());
    assert_eq!((here.path(), there.path()), (relay, relay));
    assert!(board.relayed() > 4_000_000);
    // One carrier for each leaf, for all its flows.
    let (further, back) = {
        let dial = b.links.connect(a.id, "more", SOON);
        let mut acceptor = a.links.accept("more").unwrap();
        let (further, back) = within(async { tokio::join!(dial, acceptor.next()) }).await;
        (further.unwrap(), back.unwrap())
    };
    transfer(&further, &back, 10_000).await;
    assert_eq!(host.fabric.carriers().accepted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_outlives_its_relay() {
    let board = Board::default();
    board.relay(101).await;
    board.relay(102).await;
    let (a, b) = (board.leaf(5, true), board.leaf(6, true));
    let (here, there) = linked(&a, &b).await;
    transfer(&here, &there, 100_000).await;
    assert_eq!(here.path(), Path::Relayed(NodeId([101; 32])));
    board.0.lock().relays[0].task.abort();
    // Bytes wait until there is a new way.
    transfer(&here, &there, 500_000).await;
    transfer(&there, &here, 500_000).await;
    let relay = Path::Relayed(NodeId([102; 32]));
    assert_eq!((here.path(), there.path()), (relay, relay));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_was_announced_and_is_wanted_gets_a_link() {
    let board = Board::default();
    board.relay(101).await;
    let (a, b) = (board.leaf(7, false), board.leaf(8, false));
    let connect = a.links.connect(b.id, "test", SOON);
    let error = within(connect).await.unwrap_err();
    assert!(error.to_string().contains("does not accept"), "{error}");
    // Somebody else answers at the other end.
    let _acceptor = b.links.accept("test").unwrap();
    let claimed = Identity::from_secret([9; 32]).node_id();
    board.0.lock().peers.insert(claimed, b.links.clone());
    let error = within(a.links.connect(claimed, "test", SOON))
        .await
        .unwrap_err();
    assert_eq!(error, LinkError::WrongIdentity { expected: claimed });
    let itself = a.links.connect(a.id, "test", SOON);
    assert_eq!(within(itself).await.unwrap_err(), LinkError::Myself);
    // Without a link, nobody gets a further path.
    let flow = board.0.lock().relays[0].end(FlowId(77), Side::Other);
    assert!(b.links.offered(claimed, String::new(), flow).await.is_err());
}
