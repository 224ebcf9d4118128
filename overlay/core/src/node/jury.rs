//! Serving the election of others: as juror, as auditor, and as the candidate
//! who lets a jury measure it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use canopy_proto::wire::{self, core_message::Kind};
use rand::Rng;

use super::timers::Timer;
use super::{Core, Measured, Output};
use crate::contact::Contact;
use crate::election::ballot::{Ballot, MAX_BPS, VerifiedBallot};
use crate::identity::Domain;
use crate::keyspace::{Key, NodeId};
use crate::time::{Now, Time};

/// A peer without a limit measures others as if its line carried this, bits a second.
const UNLIMITED_BPS: u64 = 1_000_000_000;
/// Measuring may use 1 % of the own line over time: one part in this many.
const BUDGET_PART: u64 = 100;
/// What a juror may have saved up, seconds of its whole line.
const BUDGET_BURST_S: u64 = 60;
/// Measurements under way at once.
const MAX_ORDERS: usize = 8;
/// Dial-backs under way for others at once.
const MAX_DIALS: usize = 32;

/// A dial-back that was not answered by then never will be.
const DIAL_LASTS: Duration = Duration::from_secs(60);
/// Longest time that a jury may measure us, and a foreign one.
const LONGEST_PERMIT: Duration = Duration::from_secs(60);
const LONGEST_FOREIGN_PERMIT: Duration = Duration::from_secs(10);
/// Voters that one notice names at most.
const MAX_VOTERS: usize = 64;

/// A dial-back for another peer.
pub(super) struct Dial {
    /// Who asked.
    pub(super) node: NodeId,
    pub(super) addr: SocketAddr,
    /// The asker's own token.
    pub(super) token: u64,
    pub(super) at: Time,
}

/// One measurement that this juror was called to.
struct Order {
    term: u64,
    beacon: Key,
    jury: u32,
    level: u32,
    share_bps: u64,
    prefix: String,
    candidate: Contact,
    officer: Contact,
    start: Time,
    duration: Duration,
    started: bool,
}

/// What this peer does for others' elections.
pub(super) struct State {
    orders: BTreeMap<u64, Order>,
    dials: BTreeMap<u64, Dial>,
    line_bps: u64,
    /// Bits that may still be spent on measuring.
    budget: u64,
    budget_at: Time,
}

impl State {
    pub(super) fn new(now: Time, uplink_bps: Option<u64>) -> Self {
        let line_bps = uplink_bps.unwrap_or(UNLIMITED_BPS);
        Self {
            orders: BTreeMap::new(),
            dials: BTreeMap::new(),
            line_bps,
            budget: line_bps.saturating_mul(BUDGET_BURST_S),
            budget_at: now,
        }
    }

    /// Whether one more dial-back may be made for another; then it is noted
    /// under a token of our own, because the asker's may be anything.
    pub(super) fn dialling(&mut self, now: Time, token: u64, dial: Dial) -> bool {
        self.dials.retain(|_, dial| now.since(dial.at) < DIAL_LASTS);
        let room = self.dials.len() < MAX_DIALS && !self.dials.contains_key(&token);
        if room {
            self.dials.insert(token, dial);
        }
        room
    }

    pub(super) fn dialled(&mut self, token: u64) -> Option<Dial> {
        self.dials.remove(&token)
    }

    #[cfg(test)]
    pub(super) fn check_bounds(&self) {
        assert!(self.orders.len() <= MAX_ORDERS);
        assert!(self.dials.len() <= MAX_DIALS);
    }

    /// What other juries have this line carry in the `duration` after `start`,
    /// bits a second.
    fn carried_at(&self, start: Time, duration: Duration) -> u64 {
        let orders = self.orders.values();
        let same = orders.filter(|o| o.start < start + duration && start < o.start + o.duration);
        same.map(|order| order.share_bps).sum()
    }

    /// Takes `bits` from the budget, if they are there.
    fn spend(&mut self, now: Time, bits: u64) -> bool {
        let millis = u64::try_from(now.since(self.budget_at).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(self.line_bps / BUDGET_PART / 1000);
        self.budget = self
            .budget
            .saturating_add(earned)
            .min(self.line_bps.saturating_mul(BUDGET_BURST_S));
        self.budget_at = now;
        let enough = self.budget >= bits;
        if enough {
            self.budget -= bits;
        }
        enough
    }
}

impl Core {
    /// Whether `node` may run an election as far as this peer can tell: a
    /// super-node, or a fellow member of the assembly.
    pub(super) fn may_run(&self, node: &NodeId) -> bool {
        let super_node = self.roster.get(node).is_some_and(|entry| entry.in_office());
        super_node
            || self
                .muster
                .as_ref()
                .is_some_and(|muster| muster.knows(node))
    }

    pub(super) fn on_summons(&mut self, now: Now, from: NodeId, summons: wire::Summons) {
        let (Some(candidate), Some(officer)) = (
            Contact::given(&summons.candidate),
            Contact::given(&summons.officer),
        ) else {
            return;
        };
        let Some(beacon) = Key::from_slice(&summons.beacon) else {
            return;
        };
        // A home passes on the summons of super-nodes only.
        let may = self.may_run(&officer.node_id) || self.homes.nodes().contains(&from);
        if !may || candidate.node_id == self.node_id() {
            return;
        }
        self.muster_active(now);
        let duration =
            Duration::from_millis(u64::from(summons.duration_ms)).min(Duration::from_secs(5));
        let bits = summons
            .share_bps
            .saturating_mul(u64::from(summons.duration_ms))
            / 1000;
        let start =
            now.at + Duration::from_millis(u64::from(summons.start_in_ms)).min(duration * 20);
        let others = self.jury.carried_at(start, duration);
        let share = others.saturating_add(summons.share_bps);
        let carries = share <= self.jury.line_bps / 10 * 9;
        if !carries || self.jury.orders.len() >= MAX_ORDERS || !self.jury.spend(now.at, bits) {
            return self.sit_out(&summons, &officer, candidate.node_id);
        }
        self.outputs.push_back(Output::Connect {
            node: Some(candidate.node_id),
            addrs: candidate.addrs.clone(),
        });
        let token = self.rng.next_u64();
        let order = Order {
            term: summons.term,
            beacon,
            jury: summons.jury,
            level: summons.level,
            share_bps: summons.share_bps,
            prefix: summons.voter_prefix,
            candidate,
            officer,
            start,
            duration,
            started: false,
        };
        self.jury.orders.insert(token, order);
        self.timers.at_latest(Timer::Jury, start);
    }

    fn sit_out(&mut self, summons: &wire::Summons, officer: &Contact, candidate: NodeId) {
        let reply = wire::SummonsReply {
            term: summons.term,
            candidate: candidate.to_bytes(),
            jury: summons.jury,
            level: summons.level,
            ballot: None,
            sits_out: true,
            voter: self.node_id().to_bytes(),
        };
        self.reply_to_officer(officer, reply);
    }

    fn reply_to_officer(&mut self, officer: &Contact, reply: wire::SummonsReply) {
        let (node, addrs) = (officer.node_id, officer.addrs.clone());
        if node == self.node_id() {
            let message = Box::new(wire::CoreMessage {
                kind: Some(Kind::SummonsReply(reply)),
            });
            self.loopback.push_back(message);
        } else {
            self.send_to(node, addrs, Kind::SummonsReply(reply));
        }
    }

    /// Starts the measurements whose moment has come.
    pub(super) fn jury_tick(&mut self, now: Now) {
        let mut next = None;
        let late = self.config.timing.election.reply_timeout * 10;
        self.jury
            .orders
            .retain(|_, order| now.at.since(order.start) < order.duration + late);
        for (token, order) in &mut self.jury.orders {
            if order.started {
                continue;
            }
            if order.start > now.at {
                next = Some(next.map_or(order.start, |at: Time| at.min(order.start)));
                continue;
            }
            order.started = true;
            self.outputs.push_back(Output::Measure {
                token: *token,
                node: order.candidate.node_id,
                addrs: order.candidate.addrs.clone(),
                share_bps: order.share_bps,
                duration: order.duration,
            });
        }
        if let Some(at) = next {
            self.timers.set(Timer::Jury, at);
        }
    }

    pub(super) fn measured(&mut self, now: Now, token: u64, result: Option<Measured>) {
        let Some(order) = self.jury.orders.remove(&token) else {
            return;
        };
        let measured = result.unwrap_or(Measured {
            up_bps: 0,
            down_bps: 0,
            round_trip: Duration::ZERO,
            loss_ppm: 1_000_000,
        });
        let ballot = Ballot {
            network: self.config.network.clone(),
            term: order.term,
            beacon: order.beacon,
            jury: order.jury,
            level: order.level,
            voter: self.node_id(),
            candidate: order.candidate.node_id,
            share_bps: order.share_bps,
            up_bps: measured.up_bps,
            down_bps: measured.down_bps,
            round_trip_us: u32::try_from(measured.round_trip.as_micros()).unwrap_or(u32::MAX),
            loss_ppm: measured.loss_ppm.min(1_000_000),
            issued_ms: now.unix_ms,
            voter_prefix: order.prefix,
        };
        let Ok(ballot) = VerifiedBallot::cast(&self.identity, ballot) else {
            return;
        };
        let reply = wire::SummonsReply {
            term: order.term,
            candidate: order.candidate.node_id.to_bytes(),
            jury: order.jury,
            level: order.level,
            ballot: Some(ballot.signed().clone()),
            sits_out: false,
            voter: self.node_id().to_bytes(),
        };
        self.reply_to_officer(&order.officer, reply);
    }

    pub(super) fn on_jury_notice(&mut self, now: Now, from: NodeId, notice: &wire::JuryNotice) {
        let ours = self.may_run(&from);
        if !ours && !self.is_stranger(&from) {
            return;
        }
        self.muster_active(now);
        let longest = match ours {
            true => LONGEST_PERMIT,
            false => LONGEST_FOREIGN_PERMIT,
        };
        let voters = notice
            .voters
            .iter()
            .filter_map(|bytes| NodeId::from_slice(bytes))
            .take(MAX_VOTERS)
            .collect();
        let lasts = Duration::from_millis(u64::from(notice.duration_ms)).min(longest);
        self.outputs.push_back(Output::Permit {
            voters,
            share_bps: notice.share_bps.min(MAX_BPS),
            lasts,
        });
    }

    /// What an auditor signs to take part in drawing the beacon.
    pub(super) fn beacon_share(&self, term: u64, candidate: &NodeId) -> bytes::Bytes {
        let subject = Key::hash(
            "beacon",
            &[
                self.config.network.as_bytes(),
                &term.to_le_bytes(),
                &candidate.0,
            ],
        );
        self.identity.sign_bytes(Domain::Beacon, &subject.0)
    }

    pub(super) fn on_beacon_ask(&mut self, from: NodeId, ask: &wire::BeaconAsk) {
        let Some(candidate) = NodeId::from_slice(&ask.candidate) else {
            return;
        };
        if self.may_run(&from) {
            let share = self.beacon_share(ask.term, &candidate);
            let reply = wire::BeaconShare {
                term: ask.term,
                candidate: ask.candidate.clone(),
                share,
            };
            self.send(from, Kind::BeaconShare(reply));
        }
    }
}
