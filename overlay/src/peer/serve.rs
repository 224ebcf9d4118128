//! What the fabric asks of this peer.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use canopy_core::keyspace::NodeId;
use canopy_core::node::Input;
use canopy_proto::wire::{self, refusal::Code};

use super::{Handler, Inputs, Permits};
use crate::fabric::{self, Answer, CloseReason, MeasurePlan, Session};

/// Why a peer without a linker refuses.
pub(super) const NO_LINKS: &str = "this peer accepts no links";

/// The bridge from the fabric's tasks to the core and the role's handler.
pub(super) struct Service {
    pub(super) inputs: Inputs,
    pub(super) permits: Permits,
    pub(super) handler: Arc<ArcSwapOption<Box<dyn Handler>>>,
    pub(super) inspector: Arc<ArcSwapOption<Box<dyn Handler>>>,
    pub(super) router: Arc<ArcSwapOption<Box<dyn Handler>>>,
    pub(super) linker: Arc<ArcSwapOption<Box<dyn Handler>>>,
    pub(super) own: NodeId,
}

impl fabric::Service for Service {
    fn request(&self, from: &Session, request: wire::request::Kind) -> Answer {
        let slot = match &request {
            wire::request::Kind::Inspect(_) => &self.inspector,
            wire::request::Kind::Deliver(_)
            | wire::request::Kind::Posts(_)
            | wire::request::Kind::Subscribe(_) => &self.router,
            // One for somebody else is for a super-node to pass on.
            wire::request::Kind::LinkOffer(offer) if offer.to == self.own.0.as_slice() => {
                &self.linker
            }
            _ => &self.handler,
        };
        let handler = slot.load();
        match (handler.as_deref(), request) {
            (Some(handler), request) => handler.handle(from.peer(), request),
            (None, wire::request::Kind::Ping(ping)) => {
                Answer::Now(wire::response::Kind::Pong(wire::Pong {
                    payload: ping.payload,
                }))
            }
            (None, wire::request::Kind::Inspect(_)) => {
                Answer::refuse(Code::Unavailable, "this peer tells nobody how it fares")
            }
            (None, wire::request::Kind::LinkOffer(_)) => {
                Answer::refuse(Code::Unavailable, NO_LINKS)
            }
            (None, _) => Answer::refuse(
                Code::NotServing,
                "this peer is no super-node; look up another",
            ),
        }
    }

    fn notify(&self, from: &Session, message: wire::CoreMessage) {
        self.inputs.message(from.peer(), message);
    }

    fn session_up(&self, session: &Session) {
        let counters = &self.inputs.counters;
        match session.inbound() {
            true => counters.sessions_inbound.one(),
            false => counters.sessions_outbound.one(),
        }
        self.inputs.push(Input::SessionUp {
            contact: session.contact().clone(),
            inbound: session.inbound(),
            observed: session.observed_addr(),
            round_trip: session.rtt(),
            clock_offset_ms: session.clock_offset_ms(),
        });
    }

    fn session_down(&self, peer: NodeId, _: CloseReason) {
        self.inputs.counters.sessions_closed.one();
        self.inputs.push(Input::SessionDown(peer));
    }

    fn admit_measure(&self, from: NodeId, plan: &MeasurePlan) -> bool {
        let permits = self.permits.lock();
        // A tenth more than agreed: pacing is not exact.
        permits.get(&from).is_some_and(|(share, until)| {
            plan.share_bps <= share + share / 10 && Instant::now() < *until
        })
    }
}
