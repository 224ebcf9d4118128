//! The flows that this peer has ends of, as its socket and its links see them.
//!
//! QUIC knows addresses only, so each flow gets one of its own that exists
//! nowhere outside: what is sent there goes to the relay as frames of that flow,
//! and what the relay sends of it comes from there. The socket reads the table
//! for every batch, without a lock; it changes with each link only.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use canopy_core::keyspace::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::super::carrier::Pipe;
use super::frame::{FlowId, FlowKey, Frame, Kind, Side};

/// First half of the addresses that stand for flows: a unique local prefix
/// (RFC 4193), so that none is anybody's on the internet.
const PREFIX: [u8; 8] = [0xfd, 0x63, 0x61, 0x6e, 0x6f, 0x70, 0x79, 0x01];
/// Ports say nothing here; zero is refused by QUIC.
const PORT: u16 = 1;

/// One end of a flow, as a super-node gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// Its name at the relay.
    pub flow: FlowId,
    /// Which end.
    pub side: Side,
    /// The secret of this end.
    pub key: FlowKey,
    /// Whose relay it is.
    pub relay: NodeId,
    /// Where the relay listens.
    pub addr: SocketAddr,
    /// Where that super-node takes sessions: by TCP, carriers.
    pub sessions: SocketAddr,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowState {
    /// Where the relay saw this end at last.
    pub(super) observed: Option<SocketAddr>,
    /// The relay does not answer any more.
    pub(super) dead: bool,
}

/// A flow of this peer's.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) end: FlowEnd,
    /// Who is at the other end, by the word of the super-node; the handshake
    /// proves it.
    pub(super) peer: NodeId,
    /// What stands for it.
    pub(super) addr: SocketAddr,
    /// The last count that a bind or close had.
    count: AtomicU64,
    /// The last count that the relay answered.
    pub(super) answered: watch::Sender<u64>,
    pub(super) state: watch::Sender<FlowState>,
    /// The relay asks for another bind.
    pub(super) lost: Notify,
    /// What brings frames to the relay and from it; `None`: UDP.
    by: ArcSwapOption<Pipe>,
}

impl Flow {
    pub(super) fn next_count(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The carrier that leads to the relay; `None`: frames go by UDP.
    pub(super) fn carrier(&self) -> Option<Arc<Pipe>> {
        self.by.load_full()
    }

    /// From now on frames go that way.
    pub(super) fn go_by(&self, carrier: Option<Arc<Pipe>>) {
        self.by.store(carrier);
    }

    /// Takes a frame of the relay's own, which came by a carrier or by UDP.
    pub(super) fn take(&self, frame: &Frame<'_>, by: Option<&Arc<Pipe>>) {
        match frame.kind {
            Kind::Bound { count, observed } if frame.proves(&self.end.key) => {
                let news = self.answered.send_if_modified(|answered| {
                    let news = count > *answered && count <= self.count.load(Ordering::Relaxed);
                    if news {
                        *answered = count;
                    }
                    news
                });
                if news {
                    // The relay sends to where the last bind came from.
                    self.by.store(by.cloned());
                    self.state.send_if_modified(|state| {
                        let before = *state;
                        // By a carrier nothing is seen.
                        let seen = !observed.ip().is_unspecified();
                        state.observed = seen.then_some(observed);
                        state.dead = false;
                        *state != before
                    });
                }
            }
            Kind::Lost => self.lost.notify_one(),
            _ => {}
        }
    }
}

/// All flows at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    by_name: HashMap<(SocketAddr, FlowId, Side), Arc<Flow>>,
    by_relay: HashMap<(NodeId, FlowId, Side), Arc<Flow>>,
    by_addr: HashMap<Ipv6Addr, Arc<Flow>>,
    relays: HashSet<SocketAddr>,
}

impl Known {
    /// Whether what comes from there is a relay's.
    pub(super) fn is_relay(&self, addr: &SocketAddr) -> bool {
        self.relays.contains(addr)
    }

    /// The flow that a frame from `relay` belongs to. Data names the end that
    /// sent it; the relay's own frames the end that they are for.
    pub(super) fn named(&self, relay: SocketAddr, frame: &Frame<'_>) -> Option<&Arc<Flow>> {
        self.by_name.get(&(relay, frame.flow, own_side(frame)))
    }

    /// The same of a frame that a carrier brought from the super-node `relay`.
    pub(super) fn carried(&self, relay: NodeId, frame: &Frame<'_>) -> Option<&Arc<Flow>> {
        self.by_relay.get(&(relay, frame.flow, own_side(frame)))
    }

    /// The flow that an address stands for.
    pub(super) fn at(&self, addr: &SocketAddr) -> Option<&Arc<Flow>> {
        match addr.ip() {
            IpAddr::V6(ip) => self.by_addr.get(&ip),
            IpAddr::V4(_) => None,
        }
    }
}

/// Which end is this peer's.
fn own_side(frame: &Frame<'_>) -> Side {
    match frame.kind {
        Kind::Data => frame.side.across(),
        _ => frame.side,
    }
}

/// Whether an address stands for a flow, be there one or not.
pub(super) fn stands_for_flow(addr: &SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V6(ip) if ip.octets().starts_with(&PREFIX))
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: ArcSwap<Known>,
    /// Held while the table changes; the number of flows there ever were.
    changing: Mutex<u64>,
}

impl Flows {
    pub(super) fn known(&self) -> arc_swap::Guard<Arc<Known>> {
        self.known.load()
    }

    pub(super) fn len(&self) -> usize {
        self.known.load().by_addr.len()
    }

    /// Takes in an end; `None`: it is there already.
    pub(super) fn add(&self, end: FlowEnd, peer: NodeId) -> Option<Arc<Flow>> {
        let mut ever = self.changing.lock();
        let mut known = Known::clone(&self.known.load());
        let name = (end.addr, end.flow, end.side);
        if known.by_name.contains_key(&name) {
            return None;
        }
        *ever += 1;
        let mut ip = [0; 16];
        ip[..8].copy_from_slice(&PREFIX);
        ip[8..].copy_from_slice(&ever.to_be_bytes());
        let ip = Ipv6Addr::from(ip);
        let flow = Arc::new(Flow {
            end,
            peer,
            addr: SocketAddr::new(ip.into(), PORT),
            count: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            state: watch::Sender::new(FlowState::default()),
            lost: Notify::new(),
            by: ArcSwapOption::empty(),
        });
        let at_relay = (flow.end.relay, flow.end.flow, flow.end.side);
        known.by_relay.insert(at_relay, Arc::clone(&flow));
        known.relays.insert(flow.end.addr);
        known.by_name.insert(name, Arc::clone(&flow));
        known.by_addr.insert(ip, Arc::clone(&flow));
        self.known.store(Arc::new(known));
        Some(flow)
    }

    /// Forgets a flow. What its relay still sends counts as direct then, and
    /// QUIC drops it.
    pub(super) fn remove(&self, flow: &Flow) {
        let _changing = self.changing.lock();
        let mut known = Known::clone(&self.known.load());
        let end = &flow.end;
        known.by_name.remove(&(end.addr, end.flow, end.side));
        known.by_relay.remove(&(end.relay, end.flow, end.side));
        known.by_addr.retain(|_, other| other.addr != flow.addr);
        if !known.by_addr.values().any(|o| o.end.addr == end.addr) {
            known.relays.remove(&end.addr);
        }
        self.known.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn end(flow: u64, port: u16) -> FlowEnd {
        FlowEnd {
            flow: FlowId(flow),
            side: Side::Opener,
            key: FlowKey([3; 32]),
            relay: NodeId([1; 32]),
            addr: ([192, 0, 2, 1], port).into(),
            sessions: ([192, 0, 2, 1], 1).into(),
        }
    }

    #[test]
    fn each_flow_has_an_address_of_its_own_until_it_is_forgotten() {
        let flows = Flows::default();
        let peer = NodeId([2; 32]);
        let first = flows.add(end(1, 10), peer).expect("new");
        let second = flows.add(end(2, 10), peer).expect("new");
        assert!(flows.add(end(1, 10), peer).is_none());
        assert!(first.addr != second.addr && stands_for_flow(&second.addr));
        let known = flows.known();
        assert_eq!(known.at(&second.addr).map(|f| f.end.flow), Some(FlowId(2)));
        let header = [frame::header(FlowId(1), Side::Other).as_slice(), &[0]].concat();
        let data = Frame::parse(&header).expect("data");
        let found = known.named(first.end.addr, &data).map(|f| f.addr);
        assert_eq!(found, Some(first.addr));
        let carried = |relay| known.carried(NodeId([relay; 32]), &data).map(|f| f.addr);
        assert_eq!((carried(1), carried(7)), (Some(first.addr), None));
        flows.remove(&first);
        assert!(flows.known().is_relay(&second.end.addr));
        flows.remove(&second);
        assert!(!flows.known().is_relay(&second.end.addr));
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn only_an_answer_to_a_bind_that_was_sent_counts() {
        let flows = Flows::default();
        let flow = flows.add(end(1, 10), NodeId([2; 32])).expect("new");
        let observed = ([198, 51, 100, 7], 4242).into();
        let take = |count, key| {
            let bytes = frame::bound(FlowId(1), Side::Opener, count, observed, key);
            flow.take(&Frame::parse(&bytes).expect("a frame"), None);
            flow.state.borrow().observed
        };
        let key = FlowKey([3; 32]);
        assert_eq!(take(1, &key), None);
        assert_eq!(flow.next_count(), 1);
        assert_eq!(take(1, &FlowKey([4; 32])), None);
        assert_eq!(take(1, &key), Some(observed));
    }
}
