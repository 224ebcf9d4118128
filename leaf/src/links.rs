//! How a leaf comes to links: it asks super-nodes for flows, and answers those
//! who offer it one.
//!
//! The asker reads where the peer is homed, and asks one of these homes for a
//! flow of its relay: then one super-node carries the signal. Where the home
//! cannot be reached, or relays nothing now, another one gives the flow, and the
//! home passes the offer on.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_overlay::fabric::link::frame::{FlowId, FlowKey, Side};
use canopy_overlay::fabric::link::{FlowEnd, LinkError, Links, LinksConfig, Signals};
use canopy_overlay::peer::{Handler, Peer};
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{request, response};
use tokio::sync::watch;

use crate::client::Client;
use crate::node::Node;

/// How long one super-node may take: it asks the peer meanwhile.
const ASK: Duration = Duration::from_secs(5);
/// Super-nodes that are asked for one flow.
const MAX_ASKED: usize = 8;
/// Homes of the peer that are named.
const MAX_HOMES: usize = 4;

/// Opens the socket for links of `peer`, and answers offers from now on.
pub(crate) fn open<N: Node>(
    node: &N,
    client: &Client<N>,
    peer: &Peer,
    relay_only: bool,
) -> Result<Arc<LeafLinks>, LinkError> {
    let failed = |error: String| LinkError::Socket(error);
    let listen = peer.local_addr().map_err(|e| failed(e.to_string()))?;
    let mut config = LinksConfig::new(SocketAddr::new(listen.ip(), 0));
    config.relay_only = relay_only;
    let asker = Asker {
        node: node.clone(),
        client: client.clone(),
        peer: peer.clone(),
    };
    let links = Links::bind(peer.fabric(), config, Arc::new(asker));
    let links = Arc::new(LeafLinks {
        links: links.map_err(|error| failed(error.to_string()))?,
        peer: peer.clone(),
    });
    peer.set_linker(Box::new(Offers(Arc::downgrade(&links))));
    // Who shows nobody its address has nobody let in.
    let port = links.links.local_addr().port();
    if let Some(mapped) = Some(port)
        .filter(|_| !relay_only)
        .and_then(|p| node.map_port(p))
    {
        tokio::spawn(follow(mapped, Arc::downgrade(&links)));
    }
    Ok(links)
}

/// Has links told where the router lets in what is for their socket.
async fn follow(mut mapped: watch::Receiver<Option<SocketAddr>>, links: Weak<LeafLinks>) {
    loop {
        let addr = *mapped.borrow_and_update();
        match links.upgrade() {
            Some(open) => open.links.set_mapped(addr),
            None => return,
        }
        if mapped.changed().await.is_err() {
            return;
        }
    }
}

/// The links of a leaf. It answers offers for as long as this is there.
pub(crate) struct LeafLinks {
    pub(crate) links: Links,
    peer: Peer,
}

struct Asker<N: Node> {
    node: N,
    client: Client<N>,
    peer: Peer,
}

impl<N: Node> Signals for Asker<N> {
    fn open<'a>(
        &'a self,
        peer: NodeId,
        protocol: &'a str,
        avoid: Option<NodeId>,
    ) -> Pin<Box<dyn Future<Output = Result<FlowEnd, LinkError>> + Send + 'a>> {
        Box::pin(self.ask(peer, protocol, avoid))
    }
}

impl<N: Node> Asker<N> {
    async fn ask(
        &self,
        peer: NodeId,
        protocol: &str,
        avoid: Option<NodeId>,
    ) -> Result<FlowEnd, LinkError> {
        let no_relay = |reason: String| LinkError::NoRelay { peer, reason };
        let located = self.client.locate(peer, |home| self.node.addrs(home)).await;
        let location = located.map_err(|error| no_relay(error.to_string()))?;
        let location = location.ok_or(LinkError::Unknown(peer))?;
        let homes: Vec<NodeId> = location.homes.iter().map(|home| home.node_id).collect();
        let own = self
            .node
            .status()
            .homes
            .into_iter()
            .map(|home| home.node_id);
        let mut queue: VecDeque<NodeId> = VecDeque::new();
        let enter = |queue: &mut VecDeque<NodeId>, node| {
            if !queue.contains(&node) && Some(node) != avoid {
                queue.push_back(node);
            }
        };
        homes.iter().for_each(|home| enter(&mut queue, *home));
        own.for_each(|home| enter(&mut queue, home));
        // It may have been the way there, not the relay.
        queue.extend(avoid);
        let ask = wire::RelayOpen {
            peer: peer.to_bytes(),
            protocol: protocol.to_owned(),
            homes: homes
                .iter()
                .take(MAX_HOMES)
                .map(|home| home.to_bytes())
                .collect(),
        };
        let mut last = "no super-node is known".to_owned();
        let mut asked = Vec::new();
        while let Some(relay) = queue.pop_front() {
            if asked.len() >= MAX_ASKED {
                break;
            }
            asked.push(relay);
            let request = request::Kind::RelayOpen(ask.clone());
            match self.node.call(relay, request, ASK).await {
                Ok(response::Kind::RelayOpened(opened)) => match opened.end {
                    Some(end) => return self.end(relay, &end),
                    None => {
                        last = format!("{} is busy", relay.short());
                        let named = opened.redirect.iter().take(MAX_HOMES);
                        for other in named.filter_map(|id| NodeId::from_slice(id)) {
                            if !asked.contains(&other) {
                                enter(&mut queue, other);
                            }
                        }
                    }
                },
                Ok(_) => last = format!("{} gave an answer of the wrong kind", relay.short()),
                // The peer itself said so.
                Err(CallError::Refused { refusal, .. }) if refusal.code() == Code::Invalid => {
                    let reason = refusal.message;
                    return Err(LinkError::Refused { peer, reason });
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(no_relay(last))
    }

    fn end(&self, relay: NodeId, end: &wire::RelayEnd) -> Result<FlowEnd, LinkError> {
        let end = read(end, relay, &self.peer);
        end.filter(|end| end.relay == relay && end.side == Side::Opener)
            .ok_or_else(|| LinkError::Broken("the relay gave no proper flow".into()))
    }
}

/// Reads an end that `from` gave; `None`: it makes no sense.
fn read(end: &wire::RelayEnd, from: NodeId, peer: &Peer) -> Option<FlowEnd> {
    let relay = NodeId::from_slice(&end.relay)?;
    let sessions = address(relay, from, end, peer)?;
    Some(FlowEnd {
        flow: FlowId(end.flow),
        side: Side::from_index(end.side)?,
        key: FlowKey(end.key.as_ref().try_into().ok()?),
        relay,
        addr: relay_at(end, sessions)?,
        sessions,
    })
}

/// Where the relay is for one who sees the super-node's sessions at `sessions`:
/// within its own network, its own port.
fn relay_at(end: &wire::RelayEnd, sessions: SocketAddr) -> Option<SocketAddr> {
    let port = u16::try_from(end.port).ok().filter(|port| *port != 0)?;
    let mapped = end.mapped.parse().ok();
    let mapped = mapped.filter(|at: &SocketAddr| at.ip() == sessions.ip() && at.port() != 0);
    Some(mapped.unwrap_or_else(|| SocketAddr::new(sessions.ip(), port)))
}

/// Where the super-node of the relay takes sessions, as seen from here.
fn address(relay: NodeId, from: NodeId, end: &wire::RelayEnd, peer: &Peer) -> Option<SocketAddr> {
    if relay == peer.node_id() {
        let mut own = peer.local_addr().ok()?;
        if own.ip().is_unspecified() {
            own.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        return Some(own);
    }
    if let Some(session) = peer.fabric().session(&relay) {
        return Some(session.remote_addr());
    }
    // Only who passed the offer on can have meant another than itself.
    let addr = end.addrs.first().filter(|_| relay != from)?;
    let addr: SocketAddr = addr.parse().ok()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

/// Answers super-nodes that offer this peer a flow.
struct Offers(Weak<LeafLinks>);

impl Handler for Offers {
    fn handle(&self, from: NodeId, request: request::Kind) -> Answer {
        let request::Kind::LinkOffer(offer) = request else {
            return Answer::refuse(Code::Malformed, "this peer does not know what is asked");
        };
        let Some(own) = self.0.upgrade() else {
            return Answer::refuse(Code::Unavailable, "this peer accepts no links any more");
        };
        let peer = &own.peer;
        let trusted = from == peer.node_id()
            || peer.placement().get(&from).is_some()
            || peer.homes().borrow().contains(&from);
        if !trusted {
            return Answer::refuse(Code::Invalid, "only a super-node offers a flow");
        }
        let caller = NodeId::from_slice(&offer.from);
        let end = offer.end.as_ref();
        let end = end.and_then(|end| read(end, from, peer));
        let (Some(caller), Some(end)) = (caller, end) else {
            return Answer::refuse(Code::Malformed, "the offer makes no sense");
        };
        if end.side != Side::Other {
            return Answer::refuse(Code::Malformed, "that is the end of who asked");
        }
        let links = own.links.clone();
        Answer::later(async move {
            match links.offered(caller, offer.protocol, end).await {
                Ok(()) => response::Kind::LinkAccepted(wire::LinkAccepted {}),
                Err(why) => response::Kind::Refusal(wire::Refusal {
                    code: Code::Invalid.into(),
                    message: why,
                }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_at_the_port_that_its_router_gave_for_those_outside_only() {
        let end = |port, mapped: &str| wire::RelayEnd {
            port,
            mapped: mapped.to_owned(),
            ..Default::default()
        };
        let at = |end: &wire::RelayEnd, sessions: &str| {
            relay_at(end, sessions.parse().unwrap()).map(|addr| addr.to_string())
        };
        let is = |addr: &str| Some(addr.to_owned());
        let mapped = end(4478, "11.0.0.2:31000");
        assert_eq!(at(&mapped, "11.0.0.2:30000"), is("11.0.0.2:31000"));
        assert_eq!(at(&mapped, "10.0.0.7:4477"), is("10.0.0.7:4478"));
        for wrong in ["", "11.0.0.2:0", "11.0.0.2", "here"] {
            assert_eq!(at(&end(4478, wrong), "11.0.0.2:1"), is("11.0.0.2:4478"));
        }
        assert_eq!(at(&end(0, ""), "11.0.0.2:1"), None);
        assert_eq!(at(&end(70_000, ""), "11.0.0.2:1"), None);
    }
}
