//! What leaves and other super-nodes ask of a relay: a flow to a peer, and to
//! pass on to a leaf that there is one.
//!
//! The one who asks learns of success only once the peer has agreed. A relay
//! that is busy, or to take on nothing new, names others that may do it: they
//! reach the peer through its home, so one or two super-nodes carry a signal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use canopy_core::node::Load;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::{Answer, RequestError};
use canopy_overlay::peer::Peer;
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{request, response};
use parking_lot::Mutex;
use rand::seq::IteratorRandom;
use tokio::sync::watch;

use super::{Counts, Opened, Refused, Relay};

/// Longest name of a protocol, bytes.
const MAX_PROTOCOL: usize = 128;
/// Homes of a peer that are tried.
const MAX_HOMES: usize = 4;
/// Other super-nodes named to one who is refused.
const REDIRECTS: usize = 4;
/// How long a peer may take to agree.
const OFFER: Duration = Duration::from_secs(3);
/// Use of the line or the processor from which on nothing new is relayed,
/// thousandths.
const BUSY_MILLI: u32 = 900;
/// Signals that one peer may cause a second, and at once.
const SIGNALS_PER_S: f64 = 16.0;
const SIGNALS_AT_ONCE: f64 = 64.0;
/// Peers whose signals are counted at a time.
const MAX_PACED: usize = 16_384;

/// Answers for the relay of one super-node. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct RelayService {
    peer: Peer,
    /// Absent: the system gave no socket.
    relay: Option<Relay>,
    counts: Arc<Counts>,
    load: watch::Receiver<Load>,
    pace: Arc<Mutex<Pace>>,
}

impl RelayService {
    pub(crate) fn new(
        peer: Peer,
        relay: Option<Relay>,
        counts: Arc<Counts>,
        load: watch::Receiver<Load>,
    ) -> Self {
        Self {
            peer,
            relay,
            counts,
            load,
            pace: Arc::default(),
        }
    }

    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Answers a [`wire::RelayOpen`].
    pub(crate) fn open(&self, from: NodeId, ask: wire::RelayOpen) -> Answer {
        let Some(to) = NodeId::from_slice(&ask.peer).filter(|to| *to != from) else {
            return Answer::refuse(Code::Malformed, "name another peer to reach");
        };
        if ask.protocol.len() > MAX_PROTOCOL || ask.homes.len() > MAX_HOMES {
            return Answer::refuse(
                Code::Malformed,
                "the name of the protocol, or the list of homes, is too long",
            );
        }
        if self.peer.bans().borrow().peer(&to) {
            return Answer::refuse(Code::Invalid, "the operator has banned that peer");
        }
        if !self.pace.lock().admit(from, Instant::now()) {
            return Answer::refuse(Code::Busy, "too many links asked for; slow down");
        }
        let Some(relay) = self.free() else {
            return Answer::Now(self.redirect());
        };
        let service = self.clone();
        Answer::later(async move {
            match relay.open(from, to).await {
                Ok(opened) => service.offer(&relay, opened, from, to, ask).await,
                Err(why @ Refused::Yours(_)) => refusal(Code::Quota, why.to_string()),
                Err(_) => service.redirect(),
            }
        })
    }

    /// Passes a [`wire::LinkOffer`] on to a leaf that has a session here.
    pub(crate) fn pass_on(&self, from: NodeId, offer: wire::LinkOffer) -> Answer {
        if self.peer.placement().get(&from).is_none() {
            return Answer::refuse(Code::Invalid, "only a super-node offers a flow");
        }
        let caller = NodeId::from_slice(&offer.from);
        let (Some(to), Some(caller)) = (NodeId::from_slice(&offer.to), caller) else {
            return Answer::refuse(Code::Malformed, "the offer names nobody");
        };
        if !self.pace.lock().admit(caller, Instant::now()) {
            return Answer::refuse(Code::Busy, "too many links asked for; slow down");
        }
        let Some(session) = self.peer.fabric().session(&to) else {
            return Answer::refuse(Code::Unavailable, "the peer has no session here");
        };
        Answer::later(async move {
            let request = request::Kind::LinkOffer(Box::new(offer));
            answered(to, session.request(request, OFFER).await)
        })
    }

    /// The relay, where it may take on something new.
    fn free(&self) -> Option<Relay> {
        let load = *self.load.borrow();
        let why = match &self.relay {
            None => Refused::Closed,
            Some(_) if self.peer.status().cordoned => Refused::Closed,
            Some(_) if load.bytes.max(load.cpu) >= BUSY_MILLI => Refused::Busy,
            Some(relay) => return Some(relay.clone()),
        };
        self.counts.refuse(why);
        None
    }

    /// Names other super-nodes, at random so that they share what is refused.
    fn redirect(&self) -> response::Kind {
        let placement = self.peer.placement();
        let own = self.peer.node_id();
        let others = placement.members().map(|member| member.node);
        let others = others.filter(|node| *node != own);
        let some = others.sample(&mut rand::rng(), REDIRECTS);
        response::Kind::RelayOpened(Box::new(wire::RelayOpened {
            end: None,
            redirect: some.into_iter().map(|node| node.to_bytes()).collect(),
        }))
    }

    /// Tells the peer of its end, and the asker of the other once it agreed.
    async fn offer(
        &self,
        relay: &Relay,
        opened: Opened,
        from: NodeId,
        to: NodeId,
        ask: wire::RelayOpen,
    ) -> response::Kind {
        let [mine, theirs] = opened.keys.each_ref();
        let contact = self.peer.fabric().contact();
        let mapped = relay
            .mapped()
            .map_or_else(String::new, |addr| addr.to_string());
        let end = |side, key: &canopy_overlay::fabric::link::frame::FlowKey| wire::RelayEnd {
            flow: opened.flow.0,
            side,
            key: key.0.to_vec().into(),
            relay: self.peer.node_id().to_bytes(),
            port: relay.addr().port().into(),
            addrs: contact.addrs.iter().map(ToString::to_string).collect(),
            mapped: mapped.clone(),
        };
        let offer = wire::LinkOffer {
            to: to.to_bytes(),
            from: from.to_bytes(),
            protocol: ask.protocol,
            end: Some(end(1, theirs)),
        };
        match self.deliver(to, &ask.homes, offer).await {
            response::Kind::LinkAccepted(_) => {
                response::Kind::RelayOpened(Box::new(wire::RelayOpened {
                    end: Some(end(0, mine)),
                    redirect: Vec::new(),
                }))
            }
            answer => {
                relay.close(opened.flow).await;
                match answer {
                    response::Kind::Refusal(_) => answer,
                    _ => refusal(Code::Unavailable, "the peer gave no proper answer"),
                }
            }
        }
    }

    async fn deliver(
        &self,
        to: NodeId,
        homes: &[bytes::Bytes],
        offer: wire::LinkOffer,
    ) -> response::Kind {
        if to == self.peer.node_id() {
            return self.peer.offered(offer).await;
        }
        if let Some(session) = self.peer.fabric().session(&to) {
            let request = request::Kind::LinkOffer(Box::new(offer));
            return answered(to, session.request(request, OFFER).await);
        }
        let placement = self.peer.placement();
        let homes = homes.iter().filter_map(|home| NodeId::from_slice(home));
        let homes = homes.filter(|home| *home != self.peer.node_id());
        let mut last = refusal(
            Code::Unavailable,
            "the peer has no session here, and no home of it is known",
        );
        for home in homes.filter(|home| placement.get(home).is_some()) {
            let request = request::Kind::LinkOffer(Box::new(offer.clone()));
            last = match self.peer.call(home, request, OFFER).await {
                Ok(answer) => return answer,
                Err(CallError::Refused { refusal, .. }) if refusal.code() != Code::Unavailable => {
                    return response::Kind::Refusal(refusal);
                }
                Err(error) => refusal(Code::Unavailable, error.to_string()),
            };
        }
        last
    }
}

fn refusal(code: Code, message: impl Into<String>) -> response::Kind {
    response::Kind::Refusal(wire::Refusal {
        code: code.into(),
        message: message.into(),
    })
}

fn answered(peer: NodeId, answer: Result<response::Kind, RequestError>) -> response::Kind {
    match answer {
        Ok(answer) => answer,
        Err(RequestError::Refused(refusal)) => response::Kind::Refusal(refusal),
        Err(error) => refusal(Code::Unavailable, format!("{}: {error}", peer.short())),
    }
}

/// How many signals each peer may still cause.
#[derive(Debug, Default)]
struct Pace {
    left: HashMap<NodeId, (f64, Instant)>,
}

impl Pace {
    fn admit(&mut self, peer: NodeId, now: Instant) -> bool {
        if self.left.len() >= MAX_PACED {
            // Whoever is back at the full amount need not be remembered.
            self.left.retain(|_, (left, at)| {
                *left + now.saturating_duration_since(*at).as_secs_f64() * SIGNALS_PER_S
                    < SIGNALS_AT_ONCE
            });
            if self.left.len() >= MAX_PACED {
                return false;
            }
        }
        let (left, at) = self.left.entry(peer).or_insert((SIGNALS_AT_ONCE, now));
        let passed = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + passed * SIGNALS_PER_S).min(SIGNALS_AT_ONCE);
        *at = now;
        let admitted = *left >= 1.0;
        if admitted {
            *left -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_signals_too_much_has_to_wait_and_no_other() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let (loud, quiet) = (NodeId([1; 32]), NodeId([2; 32]));
        let admitted = (0..1_000).filter(|_| pace.admit(loud, start)).count();
        assert_eq!(admitted, 64);
        assert!(pace.admit(quiet, start));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1_000).filter(|_| pace.admit(loud, later)).count(), 16);
    }

    #[test]
    fn no_more_peers_are_remembered_than_fit() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for n in 0..MAX_PACED as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            assert!(pace.admit(NodeId(id), start));
        }
        assert!(!pace.admit(NodeId([9; 32]), start));
        assert!(pace.admit(NodeId([9; 32]), start + Duration::from_secs(1)));
        assert_eq!(pace.left.len(), 1);
    }
}
