//! A message on its way: it waits for the sender's uplink, travels, and waits
//! for the receiver's downlink.

use std::collections::BTreeMap;

use canopy_core::node::Input;
use canopy_proto::wire::CoreMessage;
use canopy_proto::wire::core_message::Kind;
use prost::Message;

use super::{Coming, PeerId, World};
use crate::net::{State, round_trip_us};

/// What a packet adds to a message: IP, UDP, QUIC's short header and tag, and
/// the frame of the stream.
const PACKET_OVERHEAD: u64 = 28 + 9 + 16 + 6;
/// What a packet carries.
pub(super) const PACKET: u64 = 1_200;
/// Bytes that wait for one uplink before more are lost: the session's queue of
/// the driver, a few times.
const MAX_WAITING: u64 = 4 * 1024 * 1024;
/// What requests of users, and answers to them, are counted as.
pub(super) const REQUEST: &str = "request";
pub(super) const RESPONSE: &str = "response";
/// Time to notice a lost packet, beyond the round trip.
const NOTICE_LOSS_US: u64 = 25_000;

/// What was sent: messages and bytes by kind.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Messages and bytes of each kind.
    pub by_kind: BTreeMap<&'static str, (u64, u64)>,
    /// Bytes of requests that users' operations are made of, and of their answers.
    pub for_users: u64,
    /// Messages that did not fit a queue.
    pub overflowed: u64,
    /// The longest that a message waited for its uplink, microseconds.
    pub longest_wait_us: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, kind: &'static str, bytes: u64, for_user: bool) {
        let counted = self.by_kind.entry(kind).or_default();
        counted.0 += 1;
        counted.1 += bytes;
        self.for_users += bytes * u64::from(for_user);
    }
}

impl World {
    /// Sends `message` over the session of the two, which there is.
    pub(crate) fn post(&mut self, from: PeerId, to: PeerId, message: Box<CoreMessage>) {
        let size = message.encoded_len() as u64;
        let Some((number, at)) = self.travel(from, to, kind_name(&message), size) else {
            return;
        };
        if self.draw.chance(self.config.net.drop_ppm) {
            return;
        }
        let twice = self.draw.chance(self.config.net.twice_ppm);
        if twice {
            let again = at + self.one_way(from, to);
            let message = message.clone();
            self.queue.push(
                again,
                Coming::Deliver {
                    from,
                    to,
                    number,
                    message,
                },
            );
        }
        self.queue.push(
            at,
            Coming::Deliver {
                from,
                to,
                number,
                message,
            },
        );
    }

    /// Sends a frame of `size` bytes over the session of the two: its number, and
    /// when the frame is there. None where they have no session, or too much
    /// waits for the uplink.
    pub(super) fn travel(
        &mut self,
        from: PeerId,
        to: PeerId,
        kind: &'static str,
        size: u64,
    ) -> Option<(u32, u64)> {
        let session = self.sessions.get(from, to)?;
        let State::Open { from: open } = session.state else {
            return None;
        };
        let number = session.number;
        let bytes = size + PACKET_OVERHEAD * size.div_ceil(PACKET).max(1);
        let for_user = matches!(kind, REQUEST | RESPONSE);
        self.traffic.count(kind, bytes, for_user);
        let Some(departs) = self.through_uplink(from, bytes) else {
            self.traffic.overflowed += 1;
            return None;
        };
        let departs = departs.max(open);
        let arrives = departs + self.one_way(from, to) + self.lost_time(from, to);
        let way = usize::from(from > to);
        let overtakes = self.draw.chance(self.config.net.reorder_ppm);
        let arrives = match self.sessions.get_mut(from, to) {
            // A stream delivers in order.
            Some(session) if !overtakes => {
                let at = arrives.max(session.last[way] + 1);
                session.last[way] = at;
                at
            }
            _ => arrives,
        };
        Some((number, self.through_downlink(to, arrives, bytes)))
    }

    /// When `bytes` that are sent now have left `from`; none where too much
    /// waits already.
    pub(super) fn through_uplink(&mut self, from: PeerId, bytes: u64) -> Option<u64> {
        let clock = self.clock;
        let peer = &mut self.peers[from as usize];
        let wait = peer.up_free.saturating_sub(clock);
        if wait.saturating_mul(peer.spec.up_bps) / 8_000_000 > MAX_WAITING {
            return None;
        }
        peer.sent += bytes;
        let takes = bytes * 8_000_000 / peer.spec.up_bps.max(1);
        self.traffic.longest_wait_us = self.traffic.longest_wait_us.max(wait);
        Some(occupy(&mut peer.up_free, clock, takes))
    }

    /// When what arrives at `arrives` is through the downlink of `to`. What
    /// waits there is counted as of now: a packet that is long on its way does
    /// not hold up those that overtake it.
    pub(super) fn through_downlink(&mut self, to: PeerId, arrives: u64, bytes: u64) -> u64 {
        let clock = self.clock;
        let peer = &mut self.peers[to as usize];
        let takes = bytes * 8_000_000 / peer.spec.down_bps.max(1);
        peer.received += bytes;
        arrives + occupy(&mut peer.down_free, clock, takes) - clock
    }

    /// How long a packet travels from one peer to another, microseconds.
    pub(super) fn one_way(&mut self, from: PeerId, to: PeerId) -> u64 {
        let (a, b) = (
            &self.peers[from as usize].spec,
            &self.peers[to as usize].spec,
        );
        let between = match self.config.net.wide {
            true => round_trip_us(a.region, b.region) / 2,
            false => 100,
        };
        let base = between + a.access_us + b.access_us + a.lag_us;
        // Most packets come on time, one in sixteen meets a queue.
        let jitter = match self.draw.below(16) {
            0 => base / 2,
            _ => base / 16,
        };
        base + self.draw.below(jitter.max(1))
    }

    /// Packets lost between two peers, millionths.
    pub(super) fn loss(&self, from: PeerId, to: PeerId) -> u32 {
        let (a, b) = (
            &self.peers[from as usize].spec,
            &self.peers[to as usize].spec,
        );
        self.config.net.loss_ppm + a.loss_ppm + b.loss_ppm
    }

    /// What lost packets cost: each is sent again after a round trip or so.
    fn lost_time(&mut self, from: PeerId, to: PeerId) -> u64 {
        let loss = self.loss(from, to);
        let mut cost = 0;
        let mut patience = NOTICE_LOSS_US;
        while self.draw.chance(loss.min(900_000)) {
            cost += patience + 2 * self.one_way(from, to);
            patience *= 2;
        }
        cost
    }

    pub(super) fn deliver(
        &mut self,
        from: PeerId,
        to: PeerId,
        number: u32,
        message: Box<CoreMessage>,
    ) {
        let open = self.sessions.get(from, to).is_some_and(|session| {
            session.number == number && matches!(session.state, State::Open { .. })
        });
        if !open || self.is_cut(from, to) || !self.peers[to as usize].online() {
            return;
        }
        let (name, size) = (kind_name(&message), message.encoded_len() as u64);
        let detail = size << 16 | name.len() as u64;
        self.note(6, to, u64::from(from) << 32 ^ detail);
        if self.peers[to as usize].spec.drops && is_duty(&message) {
            return;
        }
        let from = self.peers[from as usize].node;
        self.tell(to, Input::Message { from, message });
    }
}

/// Keeps something that serves one after the other busy for `takes` more, from
/// `now` on or when it is free; says when that is over.
pub(super) fn occupy(free: &mut u64, now: u64, takes: u64) -> u64 {
    *free = (*free).max(now) + takes;
    *free
}

/// What a super-node that drops would have to answer.
fn is_duty(message: &CoreMessage) -> bool {
    matches!(
        message.kind,
        Some(Kind::RosterDigest(_) | Kind::SeatsAsk(_) | Kind::LoadReport(_) | Kind::VotersAsk(_))
    )
}

fn kind_name(message: &CoreMessage) -> &'static str {
    match &message.kind {
        None => "none",
        Some(Kind::Gossip(_)) => "gossip",
        Some(Kind::RosterDigest(_)) => "roster digest",
        Some(Kind::Roster(_)) => "roster",
        Some(Kind::SeatsAsk(_)) => "seats ask",
        Some(Kind::Muster(_)) => "muster",
        Some(Kind::Attach(_)) => "attach",
        Some(Kind::Attached(_)) => "attached",
        Some(Kind::Redirect(_)) => "redirect",
        Some(Kind::Standing(_)) => "standing",
        Some(Kind::HomeLost(_)) => "home lost",
        Some(Kind::LoadReport(_)) => "load report",
        Some(Kind::DialBackAsk(_)) => "dial-back ask",
        Some(Kind::DialBackResult(_)) => "dial-back result",
        Some(Kind::BeaconAsk(_)) => "beacon ask",
        Some(Kind::BeaconShare(_)) => "beacon share",
        Some(Kind::VotersAsk(_)) => "voters ask",
        Some(Kind::Voters(_)) => "voters",
        Some(Kind::Summons(_)) => "summons",
        Some(Kind::SummonsReply(_)) => "summons reply",
        Some(Kind::JuryNotice(_)) => "jury notice",
        Some(Kind::AuditAsk(_)) => "audit ask",
        Some(Kind::AuditReply(_)) => "audit reply",
        Some(Kind::Forward(_)) => "forward",
        Some(Kind::Decrees(_)) => "decrees",
        Some(Kind::DecreeKeys(_)) => "decree keys",
    }
}
