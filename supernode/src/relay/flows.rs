//! The flows of a relay, without a socket or a clock: datagrams in, what to
//! send out.
//!
//! A flow joins two ends. Data goes from the address that one end is bound to
//! to that of the other, and nowhere else; an end binds by proving its key. So
//! nobody can send through a relay, or be sent to by one, without having been
//! given a flow.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_overlay::fabric::CarriedRelay;
use canopy_overlay::fabric::link::frame::{self, FlowId, FlowKey, Frame, HEADER, Kind, Side};

use super::counts::{Counts, Dropped, Refused};
use super::share::{Demand, Tokens, fair_level};
use crate::heat::{Heavy, Top, faded};

/// How often the shares are set anew.
pub(super) const PERIOD: Duration = Duration::from_millis(20);
/// How often flows are looked through for those that ended.
const SWEEP: Duration = Duration::from_secs(1);
/// An end is told to bind again at most this often.
const TELL_LOST: Duration = Duration::from_millis(100);

/// How much a relay takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flows in all.
    pub flows: usize,
    /// Flows that one peer may have opened.
    pub flows_per_peer: usize,
    /// Bits a second in all; `None`: no limit.
    pub total_bps: Option<u64>,
    /// Bits a second of all flows that one peer opened.
    pub peer_bps: Option<u64>,
    /// Bits a second of one flow, both ways together.
    pub flow_bps: Option<u64>,
    /// A flow ends when an end has not proved itself for this long: ends bind
    /// again every few seconds.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 10_000,
            flows_per_peer: 64,
            total_bps: None,
            peer_bps: None,
            flow_bps: None,
            idle: Duration::from_secs(60),
        }
    }
}

/// Bytes a second.
fn rate(bps: Option<u64>) -> f64 {
    bps.map_or(f64::INFINITY, |bps| bps as f64 / 8.0)
}

/// What makes a new flow unguessable; drawn at random by the caller.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) flow: FlowId,
    /// Of the opener, of the other.
    pub(super) keys: [FlowKey; 2],
}

/// One flow in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowFigures {
    /// Who asked for it.
    pub opener: NodeId,
    /// Whom it leads to.
    pub other: NodeId,
    /// How long there has been one.
    pub age: Duration,
    /// Bytes from the opener, and to it, without headers.
    pub bytes: [u64; 2],
    /// The bytes of late: they fade as counts of [`heat`](crate::heat) do.
    pub of_late: f64,
    /// Datagrams over a limit.
    pub limited: u64,
}

impl FlowFigures {
    /// The node ids of opener and other, one after the other.
    pub fn ends(&self) -> Vec<u8> {
        [self.opener.0, self.other.0].concat()
    }
}

impl fmt::Display for FlowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.opener.short(), self.other.short())
    }
}

#[derive(Debug)]
struct End {
    node: NodeId,
    key: FlowKey,
    /// The highest that a bind or close had.
    count: u64,
    at: Option<Place>,
    /// When it proved itself last, or the flow was opened.
    heard: Instant,
    told_lost: Option<Instant>,
    bytes: u64,
}

/// Where an end is, and which address of ours it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addr: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

#[derive(Debug)]
struct Flow {
    since: Instant,
    ends: [End; 2],
    tokens: Tokens,
    limited: u64,
    late: Late,
}

/// What a flow carried of late.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    faded: f64,
    /// Bytes that are in it.
    counted: u64,
}

impl Flow {
    fn bytes(&self) -> u64 {
        self.ends[0].bytes + self.ends[1].bytes
    }

    /// As it will be when everything before has faded to `left` of itself.
    fn late(&self, left: f64) -> Late {
        let bytes = self.bytes();
        Late {
            faded: self.late.faded * left + (bytes - self.late.counted) as f64,
            counted: bytes,
        }
    }
}

/// All flows that one peer opened.
#[derive(Debug)]
struct Account {
    flows: usize,
    tokens: Tokens,
    demand: Demand,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// This part of what came, in datagrams of the same size.
    Forward {
        to: Place,
        part: Range<usize>,
        datagrams: usize,
    },
    /// A frame of the relay itself.
    Reply {
        to: Place,
        frame: [u8; frame::BOUND],
        length: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flows {
    limits: Limits,
    flows: HashMap<FlowId, Flow, BuildHasherDefault<AsItIs>>,
    accounts: HashMap<NodeId, Account>,
    total: Tokens,
    /// Bytes a second that each account may send.
    level: f64,
    levelled: Instant,
    swept: Instant,
    demands: Vec<f64>,
    counts: Arc<Counts>,
}

impl Flows {
    pub(super) fn new(limits: Limits, counts: Arc<Counts>, now: Instant) -> Self {
        counts.flows.store(0, Ordering::Relaxed);
        Self {
            level: rate(limits.total_bps),
            limits,
            flows: HashMap::default(),
            accounts: HashMap::new(),
            total: Tokens::new(now),
            levelled: now,
            swept: now,
            demands: Vec::new(),
            counts,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Changes what the relay may carry in all.
    pub(super) fn limit(&mut self, total_bps: Option<u64>) {
        if self.limits.total_bps != total_bps {
            self.limits.total_bps = total_bps;
            self.level = rate(total_bps);
        }
    }

    /// Makes a flow between two peers.
    pub(super) fn open(
        &mut self,
        now: Instant,
        opener: NodeId,
        other: NodeId,
        drawn: Drawn,
    ) -> Result<(), Refused> {
        if self.flows.len() >= self.limits.flows || self.flows.contains_key(&drawn.flow) {
            return Err(Refused::Full);
        }
        let most = self.limits.flows_per_peer;
        let account = self.accounts.entry(opener).or_insert_with(|| Account {
            flows: 0,
            tokens: Tokens::new(now),
            demand: Demand::default(),
        });
        if account.flows >= most {
            return Err(Refused::Yours(most));
        }
        account.flows += 1;
        let [first, second] = drawn.keys;
        let end = |node, key| End {
            node,
            key,
            count: 0,
            at: None,
            heard: now,
            told_lost: None,
            bytes: 0,
        };
        let flow = Flow {
            since: now,
            ends: [end(opener, first), end(other, second)],
            tokens: Tokens::new(now),
            limited: 0,
            late: Late::default(),
        };
        self.flows.insert(drawn.flow, flow);
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        self.tell_count();
        Ok(())
    }

    /// Ends a flow, e.g. because the other end did not want it.
    pub(super) fn close(&mut self, flow: FlowId) {
        let Some(closed) = self.flows.remove(&flow) else {
            return;
        };
        let opener = closed.ends[0].node;
        if let Some(account) = self.accounts.get_mut(&opener) {
            account.flows -= 1;
            if account.flows == 0 {
                self.accounts.remove(&opener);
            }
        }
        self.tell_count();
    }

    /// Ends the flows of all who are banned.
    pub(super) fn expel(&mut self, bans: &Bans) {
        let banned = |flow: &Flow| flow.ends.iter().any(|end| bans.peer(&end.node));
        self.close_those(banned);
    }

    fn close_those(&mut self, which: impl Fn(&Flow) -> bool) {
        let those = self.flows.iter().filter(|(_, flow)| which(flow));
        let those: Vec<FlowId> = those.map(|(flow, _)| *flow).collect();
        those.into_iter().for_each(|flow| self.close(flow));
    }

    fn tell_count(&self) {
        let flows = self.flows.len() as u64;
        self.counts.flows.store(flows, Ordering::Relaxed);
    }

    /// Takes `bytes` that came from one address at once: datagrams of `stride`
    /// bytes, of which the last may be shorter. What is to be sent is added to
    /// `out`.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: Place,
        bytes: &[u8],
        stride: usize,
        out: &mut Vec<Outgoing>,
    ) {
        let stride = stride.max(1);
        let mut at = 0;
        while at < bytes.len() {
            let first = &bytes[at..bytes.len().min(at + stride)];
            let Some(frame) = Frame::parse(first) else {
                self.counts.discard(Dropped::Malformed, 1);
                at += first.len();
                continue;
            };
            if frame.kind != Kind::Data {
                self.control(now, from, &frame, out);
                at += first.len();
                continue;
            }
            // Datagrams of one flow and end follow one another: one look for all.
            let header = &first[..HEADER];
            let same = |next: &&[u8]| next.len() > HEADER && next.starts_with(header);
            let run = bytes[at..].chunks(stride).take_while(same);
            let (count, length) = run.fold((0, 0), |(n, sum), next| (n + 1, sum + next.len()));
            self.data(now, from, &frame, at..at + length, stride, count, out);
            at += length;
        }
    }

    /// Datagrams of one end of one flow.
    #[allow(clippy::too_many_arguments, reason = "the inner loop, called once")]
    fn data(
        &mut self,
        now: Instant,
        from: Place,
        frame: &Frame<'_>,
        part: Range<usize>,
        stride: usize,
        count: usize,
        out: &mut Vec<Outgoing>,
    ) {
        let Some(flow) = self.flows.get_mut(&frame.flow) else {
            return self.counts.discard(Dropped::Unknown, count);
        };
        let [sender, receiver] = ends(&mut flow.ends, frame.side);
        if sender.at.is_none_or(|at| at.addr != from.addr) {
            self.counts.discard(Dropped::Stray, count);
            let told = sender.told_lost.map(|at| now.saturating_duration_since(at));
            if told.is_none_or(|ago| ago >= TELL_LOST) {
                sender.told_lost = Some(now);
                out.push(reply(from, &frame::lost(frame.flow, frame.side)));
            }
            return;
        }
        let Some(to) = receiver.at else {
            return self.counts.discard(Dropped::Unbound, count);
        };
        let size = stride.min(part.len());
        let mut granted = flow
            .tokens
            .grant(now, rate(self.limits.flow_bps), size, count);
        let mut peer_took = 0;
        if let Some(account) = self.accounts.get_mut(&flow.ends[0].node) {
            account.demand.add(part.len());
            let most = self.level.min(rate(self.limits.peer_bps));
            peer_took = granted;
            granted = account.tokens.grant(now, most, size, granted);
            peer_took -= granted;
            let passed = self
                .total
                .grant(now, rate(self.limits.total_bps), size, granted);
            account.tokens.give_back(size, granted - passed);
            peer_took += granted - passed;
            granted = passed;
        }
        flow.tokens.give_back(size, peer_took);
        if granted < count {
            self.counts.discard(Dropped::Limited, count - granted);
            flow.limited += (count - granted) as u64;
        }
        if granted == 0 {
            return;
        }
        let end = part.end.min(part.start + granted * stride);
        let carried = end - part.start - granted * HEADER;
        flow.ends[frame.side.index()].bytes += carried as u64;
        self.counts.forward(granted, carried);
        out.push(Outgoing::Forward {
            to,
            part: part.start..end,
            datagrams: granted,
        });
    }

    /// A frame for the relay itself.
    fn control(&mut self, now: Instant, from: Place, frame: &Frame<'_>, out: &mut Vec<Outgoing>) {
        let Some(flow) = self.flows.get_mut(&frame.flow) else {
            return self.counts.discard(Dropped::Unknown, 1);
        };
        let end = &mut flow.ends[frame.side.index()];
        let (Kind::Bind { count } | Kind::Close { count }) = frame.kind else {
            return self.counts.discard(Dropped::Malformed, 1);
        };
        if count <= end.count || !frame.proves(&end.key) {
            return self.counts.discard(Dropped::Forged, 1);
        }
        end.count = count;
        if let Kind::Close { .. } = frame.kind {
            return self.close(frame.flow);
        }
        end.heard = now;
        end.at = Some(from);
        end.told_lost = None;
        let observed = match CarriedRelay::leads_to(&from.addr) {
            // Where a carrier comes from says nothing of where UDP would.
            true => (Ipv6Addr::UNSPECIFIED, 0).into(),
            false => SocketAddr::new(from.addr.ip().to_canonical(), from.addr.port()),
        };
        let bound = frame::bound(frame.flow, frame.side, count, observed, &end.key);
        out.push(reply(from, &bound));
    }

    /// To be called every [`PERIOD`] while there are flows.
    pub(super) fn tick(&mut self, now: Instant) {
        let period = now.saturating_duration_since(self.levelled);
        if period >= PERIOD / 2 {
            self.levelled = now;
            self.set_level(period);
        }
        let passed = now.saturating_duration_since(self.swept);
        if passed >= SWEEP {
            self.swept = now;
            for flow in self.flows.values_mut() {
                flow.late = flow.late(faded(passed));
            }
            let idle = self.limits.idle;
            let over = |end: &End| now.saturating_duration_since(end.heard) > idle;
            self.close_those(|flow| flow.ends.iter().any(over));
        }
    }

    fn set_level(&mut self, period: Duration) {
        self.demands.clear();
        let demands = self.accounts.values_mut().map(|a| a.demand.end(period));
        self.demands.extend(demands.filter(|demand| *demand > 0.0));
        self.level = fair_level(rate(self.limits.total_bps), &mut self.demands);
    }

    /// The flows that carried the most of late, at most `limit`.
    pub(super) fn top(&self, now: Instant, limit: usize) -> Top<FlowFigures> {
        let left = faded(now.saturating_duration_since(self.swept));
        let figures = self.flows.values().map(|flow| FlowFigures {
            opener: flow.ends[0].node,
            other: flow.ends[1].node,
            age: now.saturating_duration_since(flow.since),
            bytes: [flow.ends[0].bytes, flow.ends[1].bytes],
            of_late: flow.late(left).faded,
            limited: flow.limited,
        });
        let mut figures: Vec<_> = figures.collect();
        figures.sort_unstable_by(|a, b| b.of_late.total_cmp(&a.of_late));
        let heavy = |flow: &FlowFigures| Heavy {
            id: *flow,
            count: flow.of_late,
            at_most: flow.of_late,
        };
        Top {
            heavy: figures.iter().take(limit).map(heavy).collect(),
            total: figures.iter().map(|flow| flow.of_late).sum(),
            unlisted: figures.get(limit).map_or(0.0, |flow| flow.of_late),
        }
    }
}

/// Who sends and who receives.
fn ends(ends: &mut [End; 2], sender: Side) -> [&mut End; 2] {
    let [opener, other] = ends;
    match sender {
        Side::Opener => [opener, other],
        Side::Other => [other, opener],
    }
}

fn reply(to: Place, bytes: &[u8]) -> Outgoing {
    let mut frame = [0; frame::BOUND];
    frame[..bytes.len()].copy_from_slice(bytes);
    Outgoing::Reply {
        to,
        frame,
        length: bytes.len(),
    }
}

/// Names of flows are random already; others that are sent are only looked up.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests;
