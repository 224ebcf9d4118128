//! Requests and their answers on their way, and the index that a peer has with
//! its role.

use canopy_core::node::{Input, Load, Role};
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{Refusal, Request, Response, request, response};
use prost::Message;

use super::post::{REQUEST, RESPONSE, occupy};
use super::{Coming, PeerId, World, peer};
use crate::data::{Data, Handled, Known, Work};
use crate::net::State;
use crate::users::Done;

/// Processor time of a request, microseconds: about 30 000 a second on a core.
pub(super) const REQUEST_US: u64 = 30;
/// Requests waiting for the processor before more are refused, microseconds of
/// its time.
const MAX_BUSY_US: u64 = 2_000_000;
/// How often a peer that holds records and does not serve tries to hand them
/// over; as the role.
const HAND_OVER_EVERY_US: u64 = 2_000_000;
/// How often a super-node tells its core how busy it is. The role does so every
/// second; less often is less work for the simulator.
pub(super) const REPORT_EVERY_US: u64 = 5_000_000;
/// What offers of copies to their owners are counted as.
const REPAIR: &str = "repair";
/// What counts as full use; as the role's defaults.
const FULL_SESSIONS: u64 = 50_000;
const FULL_OPERATIONS_PER_S: u64 = 20_000;

impl World {
    /// Lets users and super-nodes work up to `next`, or to when one of them sends
    /// something. Says up to when events may happen now: tokio's clock counts
    /// whole milliseconds, and may be that much ahead.
    pub(super) fn work_until(&mut self, next: u64) -> u64 {
        let Some(data) = &self.data else { return next };
        let reached = data.advance(next);
        let work = data.take_work();
        self.clock = self.clock.max(reached.min(next));
        if work.is_empty() {
            return reached;
        }
        for work in work {
            self.work(work);
        }
        self.clock
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Ask {
                call,
                from,
                to,
                request,
            } => {
                let to = self.find(&to).filter(|_| self.peer(from).online());
                match to {
                    Some(to) => self.ask(call, from, to, request),
                    None => self.fail_call(call),
                }
            }
            Work::Cancel { call, from, to } => {
                if let Some(to) = self.find(&to).filter(|_| self.peer(from).online()) {
                    self.cancel(call, from, to);
                }
            }
            Work::Answer {
                call,
                from,
                to,
                response,
            } => self.answer(call, from, to, response),
            Work::Done(done) => self.done.push(done),
            Work::HandedOver(id, complete) => self.handed_over(id, complete),
        }
    }

    pub(super) fn fail_call(&mut self, call: u64) {
        if let Some(data) = &self.data {
            data.unreachable(call);
        }
    }

    fn ask(&mut self, call: u64, from: PeerId, to: PeerId, request: request::Kind) {
        self.note(16, from, u64::from(to));
        let request = Request {
            kind: Some(request),
        };
        let size = request.encoded_len() as u64;
        let Some(kind) = request.kind.map(Box::new) else {
            return;
        };
        let counted = match *kind {
            request::Kind::Offer(_) => REPAIR,
            _ => REQUEST,
        };
        let asked = |number| Coming::Asked {
            call,
            from,
            to,
            number,
            request: kind,
        };
        if from == to {
            return self.later(1, asked(0));
        }
        if !self.has_session(from, to)
            && let Err(after) = self.dial(from, Some(to))
        {
            return self.later(after, Coming::CallFailed(call));
        }
        // Otherwise it is lost, and its deadline passes.
        if let Some((number, at)) = self.travel(from, to, counted, size) {
            self.queue.push(at, asked(number));
        }
    }

    fn cancel(&mut self, call: u64, from: PeerId, to: PeerId) {
        let cancelled = |number| Coming::Cancelled {
            call,
            from,
            to,
            number,
        };
        if from == to {
            return self.later(1, cancelled(0));
        }
        if self.has_session(from, to)
            && let Some((number, at)) = self.travel(from, to, "cancel", 0)
        {
            self.queue.push(at, cancelled(number));
        }
    }

    pub(super) fn cancelled(&mut self, call: u64, from: PeerId, to: PeerId, number: u32) {
        if self.arrives(from, to, number) {
            self.note(21, to, u64::from(from));
            if let Some(data) = &self.data {
                data.cancelled(call);
            }
        }
    }

    /// A request is there: it waits for the processor.
    pub(super) fn asked(&mut self, coming: Coming) {
        let Coming::Asked {
            from, to, number, ..
        } = &coming
        else {
            return;
        };
        let (from, to, number) = (*from, *to, *number);
        if !self.arrives(from, to, number) || self.peers[to as usize].spec.drops {
            return;
        }
        let clock = self.clock;
        let peer = &mut self.peers[to as usize];
        let takes = REQUEST_US * u64::from(peer.spec.slow);
        if peer.cpu_free > clock + MAX_BUSY_US {
            return;
        }
        let at = occupy(&mut peer.cpu_free, clock, takes);
        if let Coming::Asked {
            call,
            from,
            to,
            request,
            ..
        } = coming
        {
            let serve = Coming::Serve {
                call,
                from,
                to,
                request,
            };
            self.queue.push(at, serve);
        }
    }

    /// The processor comes to a request.
    pub(super) fn handle(&mut self, call: u64, from: PeerId, to: PeerId, request: request::Kind) {
        self.note(17, to, u64::from(from));
        let for_user = !matches!(request, request::Kind::Offer(_));
        self.peers[to as usize].served += u64::from(for_user);
        let node = self.peers[from as usize].node;
        let Some(data) = self.data.as_ref().filter(|_| self.peer(to).online()) else {
            return;
        };
        let response = match data.handle(call, (from, node), to, request) {
            Handled::Now(response) => response,
            Handled::Later => return,
            Handled::NotServing => response::Kind::Refusal(Refusal {
                code: Code::NotServing.into(),
                message: "this peer is no super-node".into(),
            }),
        };
        self.answer(call, to, from, response);
    }

    fn answer(&mut self, call: u64, from: PeerId, to: PeerId, response: response::Kind) {
        if !self.peer(from).online() {
            return;
        }
        self.note(18, from, u64::from(to));
        let response = Response {
            kind: Some(response),
        };
        let size = response.encoded_len() as u64;
        let Some(response) = response.kind.map(Box::new) else {
            return;
        };
        let counted = match *response {
            response::Kind::Offer(_) => REPAIR,
            _ => RESPONSE,
        };
        let answered = |number| Coming::Answered {
            call,
            from,
            to,
            number,
            response,
        };
        if from == to {
            return self.later(1, answered(0));
        }
        if self.has_session(from, to)
            && let Some((number, at)) = self.travel(from, to, counted, size)
        {
            self.queue.push(at, answered(number));
        }
    }

    pub(super) fn answered(
        &mut self,
        call: u64,
        (from, to): (PeerId, PeerId),
        number: u32,
        response: response::Kind,
    ) {
        if self.arrives(from, to, number) {
            self.note(19, to, u64::from(from));
            if let Some(data) = &self.data {
                data.answered(call, response);
            }
        }
    }

    /// Whether what was sent over session `number` gets there.
    fn arrives(&self, from: PeerId, to: PeerId, number: u32) -> bool {
        let online = self.peers[to as usize].online();
        if from == to {
            return online;
        }
        let session = self.sessions.get(from, to);
        let open = session.is_some_and(|session| {
            session.number == number && matches!(session.state, State::Open { .. })
        });
        open && online && !self.is_cut(from, to)
    }

    /// What a peer's service and client start from.
    fn known(&self, id: PeerId) -> Known {
        let peer = &self.peers[id as usize];
        let placement = peer.core().map(|core| core.placement().clone());
        (peer.node, placement.unwrap_or_default(), peer.spec.clock_ms)
    }

    /// Takes a role up or lays it down, as the driver of a real peer does.
    pub(super) fn role_in_data(&mut self, id: PeerId, role: Role) {
        let serves = role == Role::SuperNode;
        let known = self.known(id);
        let held = match serves {
            true => self.peers[id as usize].cold().index.take(),
            false => None,
        };
        let Some(data) = &mut self.data else { return };
        if serves {
            data.serve(id, held, known);
            self.later(REPORT_EVERY_US, Coming::Report(id));
        } else if data.index(id).is_some() {
            self.later(HAND_OVER_EVERY_US / 10, Coming::HandOver(id));
        }
    }

    /// A peer that starts has what was on its disk.
    pub(super) fn reopen(&mut self, id: PeerId) {
        let known = self.known(id);
        let Some(data) = &mut self.data else { return };
        let cold = self.peers[id as usize].cold.as_mut();
        let Some(index) = cold.and_then(|cold| cold.index.take()) else {
            return;
        };
        data.serve(id, Some(index), known);
        self.later(HAND_OVER_EVERY_US, Coming::HandOver(id));
    }

    pub(super) fn hand_over(&mut self, id: PeerId) {
        let peer = &self.peers[id as usize];
        let waits = peer.core().is_some_and(|core| !core.placement().is_empty());
        let Some(data) = self.data.as_ref().filter(|data| data.index(id).is_some()) else {
            return;
        };
        if !peer.online() || peer.role == Role::SuperNode {
            return;
        }
        match waits {
            true => data.hand_over(id),
            false => self.later(HAND_OVER_EVERY_US, Coming::HandOver(id)),
        }
    }

    fn handed_over(&mut self, id: PeerId, complete: bool) {
        self.note(20, id, u64::from(complete));
        let peer = &self.peers[id as usize];
        if !peer.online() || peer.role == Role::SuperNode {
            return;
        }
        if !complete {
            return self.later(HAND_OVER_EVERY_US, Coming::HandOver(id));
        }
        if let Some(data) = &mut self.data {
            data.retire(id);
        }
        self.tell(id, Input::HandedOver);
    }

    pub(super) fn report(&mut self, id: PeerId) {
        let peer = &self.peers[id as usize];
        let stats = self.data.as_ref().and_then(|data| data.index_stats(id));
        let (now, memory) = match (stats, &peer.flat) {
            _ if peer.role != Role::SuperNode => return,
            (Some(stats), _) => (stats.operations(), stats.utilisation_milli),
            // A node of the flat table is measured the same way, but tells nobody.
            (None, Some(_)) => (peer.served, 0),
            (None, None) => return,
        };
        let (bytes, operations) = peer.reported;
        let milli = |used: u64, full: u64| (used * 1000 / full.max(1)).min(1_000_000) as u32;
        // A count that went back began anew.
        let done = now.checked_sub(operations).unwrap_or(now);
        let per_s = done * 1_000_000 / REPORT_EVERY_US;
        let bps = peer.sent.saturating_sub(bytes) * 8_000_000 / REPORT_EVERY_US;
        let load = Load {
            connections: milli(peer.sessions.len() as u64, FULL_SESSIONS),
            operations: milli(per_s, FULL_OPERATIONS_PER_S),
            bytes: milli(bps, peer.spec.up_bps),
            memory,
            cpu: milli(per_s * REQUEST_US * u64::from(peer.spec.slow), 1_000_000),
        };
        let peer = &mut self.peers[id as usize];
        peer.reported = (peer.sent, now);
        peer.load_milli = load.worst();
        self.tell(id, Input::Load(load));
        self.later(REPORT_EVERY_US, Coming::Report(id));
    }

    /// Gives the peers a data plane.
    pub(crate) fn with_data(&mut self, data: Data) {
        self.data = Some(data);
    }

    /// The data plane, where there is one.
    pub(crate) fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// The client of a peer that runs.
    pub(crate) fn client(
        &mut self,
        id: PeerId,
    ) -> Option<canopy_leaf::client::Client<impl canopy_overlay::calls::Calls + use<>>> {
        let known = self.known(id);
        let seed = self.seed;
        let data = self.data.as_mut()?;
        Some(data.client(id, || peer::identity(seed, id), known))
    }

    /// What users wanted and is done.
    pub(crate) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }
}
