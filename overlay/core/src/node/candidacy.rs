//! Does this peer pass the criteria? It gathers the facts; the rules judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use canopy_proto::wire::{self, Topology, core_message::Kind};
use rand::Rng;

use super::jury::Dial;
use super::timers::Timer;
use super::{Config, Core, Output, Role, Stand};
use crate::contact::{self, Contact, Network};
use crate::election::backoff::Backoff;
use crate::election::criteria::{Facts, Verdict, evaluate, is_eligible};
use crate::keyspace::NodeId;
use crate::time::{Now, Time};

/// What a peer without a limit of its own offers to be measured up to, bits a
/// second: nobody lends more than this without saying so.
const DEFAULT_CLAIM_BPS: u64 = 100_000_000;
/// Clock samples kept; the median of them is our offset.
const CLOCK_SAMPLES: usize = 9;
/// Peers that dialled us back and are remembered.
const MAX_REACHED: usize = 16;
/// Fresh dial-backs that a peer keeps at hand: one more than the criterion asks.
const DIAL_BACKS: usize = 3;
/// Rounds of asking at the usual pace; after these, each waits longer.
const PATIENT_TRIES: u32 = 20;
/// Whom so many could not dial, one after the other, nobody can: it asks at the
/// slowest pace from then on, whomever else it meets.
const NOT_REACHED: u32 = 16;
/// Networks of other peers that are counted: more than any criterion asks for.
const KNOWN_NETWORKS: usize = 8;
/// Dial-backs under way at once.
const MAX_PENDING: usize = 4;
/// The same of one whom nobody has reached so far: the more often the less likely,
/// and one who does is asked for more.
const ASKED_IN_VAIN: usize = 2;

/// The facts of this peer's candidacy.
pub(super) struct State {
    /// Who dialled us back, from which network, and when.
    reached_from: BTreeMap<NodeId, (String, Time)>,
    /// Asked, not answered: by token.
    pending: BTreeMap<u64, (NodeId, Time)>,
    asked: BTreeSet<NodeId>,
    /// Rounds of asking since dial-backs were last at hand: the next one waits
    /// the longer, because most who are not reached never will be.
    tries: u32,
    /// Dial-backs that failed since one last did not.
    failed: u32,
    /// Whom nobody reaches asks again then.
    ask_at: Time,
    clock: Vec<i64>,
    last: Option<wire::Candidacy>,
    /// Last measured score of our own, bits a second; 0: never measured.
    pub(super) measured_bps: u64,
    pub(super) backoff: Backoff,
    /// How this peer met the criteria when it was elected last, and when.
    pub(super) stood: Option<(u64, Verdict)>,
}

impl State {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            reached_from: BTreeMap::new(),
            pending: BTreeMap::new(),
            asked: BTreeSet::new(),
            tries: 0,
            failed: 0,
            ask_at: Time(0),
            clock: Vec::new(),
            last: None,
            measured_bps: 0,
            backoff: Backoff::new(
                config.timing.election.backoff_first,
                config.timing.election.backoff_longest,
            ),
            stood: None,
        }
    }

    pub(super) fn clock_sample(&mut self, offset_ms: i64) {
        if self.clock.len() == CLOCK_SAMPLES {
            self.clock.remove(0);
        }
        self.clock.push(offset_ms);
    }

    #[cfg(test)]
    pub(super) fn check_bounds(&self, links: usize) {
        assert!(self.reached_from.len() <= MAX_REACHED);
        assert!(self.pending.len() <= MAX_PENDING);
        assert!(self.asked.len() <= links);
        assert!(self.clock.len() <= CLOCK_SAMPLES);
    }

    /// This peer is reached elsewhere: who reached it before says nothing of that.
    pub(super) fn moved(&mut self) {
        self.reached_from.clear();
        self.failed = 0;
    }

    /// Somebody else may dial back.
    pub(super) fn linked(&mut self) {
        if self.failed < NOT_REACHED {
            self.tries = 0;
        }
    }

    /// A session ended: who it was with may be asked anew.
    pub(super) fn unlinked(&mut self, node: &NodeId) {
        self.asked.remove(node);
    }

    fn clock_offset(&self) -> i64 {
        let mut sorted = self.clock.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

impl Core {
    /// Judges this peer by every criterion, with value and threshold of each.
    pub(super) fn verdict(&self, now: Now) -> Verdict {
        evaluate(&self.facts(now), &self.overlay_criteria())
    }

    fn facts(&self, now: Now) -> Facts {
        let state = &self.candidacy;
        // A peer that everybody was told of has links to thousands of networks.
        let mut networks: Vec<Network> = Vec::with_capacity(KNOWN_NETWORKS);
        let addrs = self.links.values().map(|link| &link.contact.addrs);
        for network in addrs.filter_map(|addrs| addrs.first()).map(Network::of) {
            if networks.len() == KNOWN_NETWORKS {
                break;
            }
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        let reached: BTreeSet<&str> = state
            .reached_from
            .values()
            .map(|(network, _)| network.as_str())
            .collect();
        let addr = self.contact.addrs.first();
        let host = addr.map(host_of);
        let same_addr = |other: &[SocketAddr]| host.is_some() && other.first().map(host_of) == host;
        let network = addr.map(Network::of);
        let same_prefix =
            |other: &[SocketAddr]| network.is_some() && other.first().map(Network::of) == network;
        let others = || {
            self.roster
                .serving()
                .filter(|entry| entry.node() != self.node_id())
        };
        Facts {
            stand: self.config.stand,
            frugal: false,
            topology: self.config.topology,
            reached_from_networks: reached.len(),
            reached_from_peers: state.reached_from.len(),
            known_networks: networks.len(),
            uptime: now.at.since(self.started),
            uplink_bps: self.claim_bps(),
            clock_offset_ms: state.clock_offset().unsigned_abs(),
            version: canopy_proto::limits::VERSION_MAX,
            backoff: state.backoff.remaining(now.at),
            same_address: others().filter(|entry| same_addr(entry.addrs())).count(),
            same_prefix: others().filter(|entry| same_prefix(entry.addrs())).count(),
            super_node: self.host.is_some(),
            cordoned: self.cordoned,
            banned: self.decrees.bans().peer(&self.node_id()),
        }
    }

    /// What this peer offers: the limit that its user set, else a guess that
    /// the measurement corrects.
    fn claim_bps(&self) -> u64 {
        self.config.uplink_bps.unwrap_or(DEFAULT_CLAIM_BPS)
    }

    /// What this peer tells of its candidacy now.
    pub(super) fn own_candidacy(&self, now: Now) -> wire::Candidacy {
        wire::Candidacy {
            eligible: is_eligible(&self.facts(now), &self.overlay_criteria()),
            claim_bps: self.claim_bps(),
        }
    }

    pub(super) fn candidacy_tick(&mut self, now: Now) {
        let timing = &self.config.timing;
        let (interval, fresh, timeout) = (
            timing.election.sample_interval,
            timing.election.reachable_for,
            timing.election.reply_timeout * 4,
        );
        self.candidacy
            .reached_from
            .retain(|_, (_, at)| now.at.since(*at) < fresh);
        self.candidacy
            .pending
            .retain(|_, (_, at)| now.at.since(*at) < timeout);
        let stands = self.config.stand != Stand::Never && self.config.topology != Topology::Hybrid;
        let lacking = self.reached_lately(now).count() < DIAL_BACKS;
        let reachable = self.candidacy.failed < NOT_REACHED;
        let due = reachable || now.at >= self.candidacy.ask_at;
        if stands && lacking && due {
            self.ask_dial_back(now);
        }
        self.tell_standing(now);
        // What else can change comes with time alone.
        let uptime = self
            .config
            .timing
            .election
            .uptime
            .saturating_sub(now.at.since(self.started));
        let rest = self.candidacy.backoff.remaining(now.at);
        let soonest = [uptime, rest]
            .into_iter()
            .filter(|left| !left.is_zero())
            .min();
        let slower = match reachable {
            true => self.candidacy.tries.saturating_sub(PATIENT_TRIES).min(5),
            false => 5,
        };
        let wait = match stands && lacking {
            true => interval * (1 << slower),
            false => (fresh / 4).min(soonest.unwrap_or(fresh)).max(interval),
        };
        self.candidacy.tries = if lacking {
            self.candidacy.tries.saturating_add(1)
        } else {
            0
        };
        let at = match due {
            true => now.at + self.jitter(wait),
            false => self.candidacy.ask_at,
        };
        self.candidacy.ask_at = at;
        self.timers.set(Timer::Candidacy, at);
    }

    /// Who reached this peer within half of the time that it counts for: it is
    /// renewed at half time, so that a candidate does not lapse in between.
    fn reached_lately(&self, now: Now) -> impl Iterator<Item = &NodeId> {
        let fresh = self.config.timing.election.reachable_for / 2;
        let reached = self.candidacy.reached_from.iter();
        let lately = reached.filter(move |(_, (_, at))| now.at.since(*at) < fresh);
        lately.map(|(node, _)| node)
    }

    fn ask_dial_back(&mut self, now: Now) {
        let Some(addr) = self.contact.addrs.first().copied() else {
            return;
        };
        let busy: Vec<NodeId> = self
            .candidacy
            .pending
            .values()
            .map(|(node, _)| *node)
            .collect();
        // Where few are linked, those who did so lately would be asked without end.
        let lately: Vec<NodeId> = self.reached_lately(now).copied().collect();
        let free: Vec<NodeId> = self
            .links
            .keys()
            .copied()
            .filter(|node| !busy.contains(node) && !lately.contains(node))
            .collect();
        let mut fresh: Vec<NodeId> = free
            .iter()
            .copied()
            .filter(|node| !self.candidacy.asked.contains(node))
            .collect();
        if fresh.is_empty() {
            self.candidacy.asked.clear();
            fresh = free;
        }
        let most = match self.candidacy.failed < NOT_REACHED {
            true => MAX_PENDING,
            false => ASKED_IN_VAIN,
        };
        let room = most.saturating_sub(busy.len());
        for node in self.pick(fresh, room) {
            let token = self.rng.next_u64();
            self.candidacy.asked.insert(node);
            self.candidacy.pending.insert(token, (node, now.at));
            self.send(
                node,
                Kind::DialBackAsk(wire::DialBackAsk {
                    token,
                    addr: addr.to_string(),
                    contact: self.moved_contact(),
                }),
            );
        }
    }

    /// Tells homes and assembly when the candidacy changed.
    fn tell_standing(&mut self, now: Now) {
        if self.host.is_some() {
            // It has no homes, and judging it takes a look at all others.
            return;
        }
        let candidacy = self.own_candidacy(now);
        match self.role {
            Role::Leaf if candidacy.eligible => self.set_role(Role::Candidate),
            Role::Candidate if !candidacy.eligible => self.set_role(Role::Leaf),
            _ => {}
        }
        if self.candidacy.last == Some(candidacy) {
            return;
        }
        self.candidacy.last = Some(candidacy);
        for home in self.homes.nodes() {
            self.send(
                home,
                Kind::Standing(wire::Standing {
                    candidacy: Some(candidacy),
                }),
            );
        }
        self.muster_standing(now, candidacy);
    }

    pub(super) fn on_dial_back_ask(&mut self, now: Now, from: NodeId, ask: &wire::DialBackAsk) {
        let Ok(addr) = ask.addr.parse::<SocketAddr>() else {
            return;
        };
        if let Some(contact) = Contact::given(&ask.contact) {
            self.link_moved(now, from, contact);
        }
        // Only an address that the peer itself goes by: we are nobody's port scanner.
        let own = self
            .links
            .get(&from)
            .is_some_and(|link| link.contact.addrs.contains(&addr));
        if own {
            let token = self.rng.next_u64();
            let dial = Dial {
                node: from,
                addr,
                token: ask.token,
                at: now.at,
            };
            if self.jury.dialling(now.at, token, dial) {
                let node = from;
                self.outputs
                    .push_back(Output::DialBack { token, node, addr });
            }
        }
    }

    pub(super) fn dialed_back(&mut self, now: Now, token: u64, reached: bool) {
        if self.merge_dialed_back(now, token, reached) || self.claim_dialled(token, reached) {
            return;
        }
        if let Some(dial) = self.jury.dialled(token) {
            let result = wire::DialBackResult {
                token: dial.token,
                reached,
                addr: dial.addr.to_string(),
            };
            self.send(dial.node, Kind::DialBackResult(result));
        }
    }

    pub(super) fn on_dial_back_result(
        &mut self,
        now: Now,
        from: NodeId,
        result: &wire::DialBackResult,
    ) {
        let asked = self
            .candidacy
            .pending
            .get(&result.token)
            .is_some_and(|(node, _)| *node == from);
        if !asked {
            return;
        }
        self.candidacy.pending.remove(&result.token);
        self.candidacy.failed = match result.reached {
            true => 0,
            false => self.candidacy.failed.saturating_add(1),
        };
        let addr = self
            .links
            .get(&from)
            .and_then(|link| link.contact.addrs.first());
        let full = self.candidacy.reached_from.len() >= MAX_REACHED;
        if let (true, Some(addr), false) = (result.reached, addr, full) {
            self.candidacy
                .reached_from
                .insert(from, (contact::prefix(addr), now.at));
            self.timers.at_latest(Timer::Candidacy, now.at);
        }
    }
}

/// The part of an address that a cap counts: the IP, or on loopback the whole.
pub(super) fn host_of(addr: &SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip.is_loopback() => *addr,
        ip => SocketAddr::new(ip, 0),
    }
}
