//! Runs a scenario: makes the peers, waits until everybody is served, lets
//! things go wrong, and reports.

use std::time::Duration;

use canopy_core::election::mandate::{Basis, Mandate};
use canopy_core::identity::Identity;
use canopy_core::keyspace::Key;
use canopy_core::node::{Role, Stand};
use canopy_core::placement::R;

use crate::ballots::Ballots;
use crate::data::Data;
use crate::draw::Draw;
use crate::loads::{Loads, copies_over_due, crowding};
use crate::net::{Nat, session_length_us};
use crate::report::{Report, Sample};
use crate::scenario::{Fault, Scenario, ScenarioError, Topology};
use crate::users::Users;
use crate::watch::{Watch, all_served};
use crate::world::{NETWORK, PeerId, START_MS, World, WorldConfig};

/// Leaves that one super-node takes.
const MAX_LEAVES: usize = 50_000;
/// Signatures remembered for all peers together.
const SIGNATURES: usize = 8_000_000;
/// Lines of a trace.
const MAX_TRACE: usize = 1_000_000;
/// Peers start within this time at least, seconds; of very many, so many start
/// in a second.
const START_WITHIN_S: u64 = 10;
const STARTS_A_SECOND: u64 = 2_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// What can be chosen besides the scenario itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Peers, in place of the scenario's number.
    pub leaves: Option<u32>,
    /// How long it goes on, in place of the scenario's, seconds.
    pub lasts_s: Option<u64>,
    /// Who serves, in place of the scenario's.
    pub topology: Option<Topology>,
    /// Whether to keep what cores tell: elections, races, roles.
    pub trace: bool,
    /// The peer whose race is shown ballot by ballot; none: the one that shows most.
    pub race: Option<PeerId>,
}

/// Told now and then how far a run has come.
pub type Progress<'a> = &'a mut dyn FnMut(&Sample, u64);

/// A scenario under way.
pub(crate) struct Run<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) world: World,
    pub(crate) watch: Watch,
    /// Choices of who is hit.
    pub(crate) draw: Draw,
    pub(crate) users: Option<Users>,
    pub(crate) loads: Loads,
    ballots: Ballots,
    progress: Progress<'a>,
    samples: Vec<Sample>,
    faults: Vec<(f64, String)>,
    sampled: u64,
    trace: Option<Vec<String>>,
    /// Values that are gone with two of their owners.
    pub(crate) gone: u64,
    /// Peers that faults were aimed at and hit.
    pub(crate) hit: usize,
    /// When peers come and go by themselves: time, peer.
    pub(crate) churn: std::collections::BTreeSet<(u64, PeerId)>,
}

/// Runs `scenario` with `seed`, and calls `progress` now and then.
///
/// # Errors
/// The scenario cannot be run; what does not hold in it is in the report.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Report, ScenarioError> {
    let mut scenario = scenario.clone();
    scenario.leaves = options.leaves.unwrap_or(scenario.leaves);
    scenario.lasts_s = options.lasts_s.unwrap_or(scenario.lasts_s);
    scenario.topology = options.topology.unwrap_or(scenario.topology);
    scenario.check()?;
    canopy_core::memory::remember_work(SIGNATURES);
    let mut run = Run::new(scenario, seed, progress)?;
    run.trace = options.trace.then(Vec::new);
    run.ballots.candidate = options.race;
    let report = run.go(seed);
    canopy_core::memory::remember_work(0);
    Ok(report)
}

/// The name of a figure, and whether it is reached.
type Milestone = (&'static str, fn(&Sample) -> bool);

impl<'a> Run<'a> {
    fn new(scenario: Scenario, seed: u64, progress: Progress<'a>) -> Result<Self, ScenarioError> {
        let operator = operator(seed);
        let hosts = matches!(scenario.topology, Topology::Hybrid | Topology::Random);
        let flat = scenario.topology == Topology::Flat;
        let timing = scenario.timing();
        let mut world = World::new(
            WorldConfig {
                net: scenario.net.clone(),
                timing,
                topology: scenario.topology.into(),
                ratio: scenario.ratio,
                cache: scenario.cache,
                max_leaves: MAX_LEAVES,
                floor_bps: scenario.floor_bps,
                bootstraps: scenario.bootstraps,
                operator: hosts.then(|| operator.node_id()),
                peers: scenario.leaves,
                flat,
                value_bytes: scenario.users.map_or(0, |users| users.value_bytes as u64),
            },
            seed,
        );
        let users = scenario.users;
        let users = users.map(|users| Users::new(users, scenario.leaves, seed));
        if users.is_some() && !flat {
            world.with_data(Data::new().map_err(ScenarioError::Runtime)?);
        }
        let settle_us = timing.election.settle.as_micros() as u64;
        let mut run = Self {
            scenario,
            world,
            watch: Watch::new(seed, settle_us),
            draw: Draw::new(seed, "faults"),
            users,
            loads: Loads::default(),
            ballots: Ballots::default(),
            progress,
            samples: Vec::new(),
            faults: Vec::new(),
            sampled: 0,
            trace: None,
            gone: 0,
            hit: 0,
            churn: Default::default(),
        };
        run.populate(&operator, seed);
        Ok(run)
    }

    fn populate(&mut self, operator: &Identity, seed: u64) {
        let scenario = &self.scenario;
        let bootstraps = scenario.bootstraps;
        let (colluding, riding) = (scenario.colluding_percent, scenario.free_riding_percent);
        for index in 0..scenario.leaves {
            let (lies, rides) = (
                self.draw.chance(colluding * 10_000),
                self.draw.chance(riding * 10_000),
            );
            self.world.add(|spec| {
                if index < bootstraps {
                    spec.nat = Nat::Open;
                }
                if lies {
                    spec.colludes = true;
                    spec.claim_bps = spec.up_bps * 10;
                }
                if rides {
                    spec.stand = Stand::Never;
                }
            });
        }
        let hosts = (scenario.leaves as usize / scenario.ratio.max(1)).max(R);
        let all = 0..scenario.leaves;
        match scenario.topology {
            Topology::Hybrid => {
                let host_bps = scenario.host_bps;
                for id in all.take(hosts) {
                    // A host of the kind that operators have.
                    self.world.alter(id, |spec| {
                        spec.nat = Nat::Open;
                        spec.up_bps = spec.up_bps.max(host_bps);
                        spec.down_bps = spec.up_bps;
                    });
                    self.designate(operator, id);
                }
            }
            Topology::Random => {
                let open = all.filter(|id| self.world.peer(*id).spec.nat == Nat::Open);
                let open: Vec<PeerId> = open.collect();
                // A stream of its own, so that all else is as without hosts.
                for id in Draw::new(seed, "hosts").some(&open, hosts) {
                    self.designate(operator, id);
                }
            }
            Topology::Elected if scenario.elected_before => {
                for node in self.world.elect_before(&mut Draw::new(seed, "past")) {
                    self.watch.mandated(node);
                }
            }
            Topology::Pure | Topology::Elected | Topology::Flat => {}
        }
    }

    /// The operator names a host, for what its line carries.
    fn designate(&mut self, operator: &Identity, id: PeerId) {
        let peer = self.world.peer(id);
        let mandate = Mandate {
            network: NETWORK.into(),
            term: u64::from(id) + 1,
            candidate: peer.node,
            basis: Basis::Designated,
            capacity_bps: peer.spec.up_bps,
            issued_ms: START_MS,
            expires_ms: START_MS + 30 * 24 * 3600 * 1000,
            beacon: Key::default(),
            ballots: Vec::new(),
            officer: operator.node_id(),
            assembly: Vec::new(),
            domain: String::new(),
            deputy: false,
        };
        self.watch.mandated(peer.node);
        self.world.designate(id, mandate.designate(operator));
    }

    fn go(mut self, seed: u64) -> Report {
        let served_at = self.found();
        let began = self.world.clock();
        let end = began + self.scenario.lasts_s * SECOND;
        let mut recovered = None;
        let mut quiet = began;
        if served_at.is_some() {
            self.watch.served();
            self.begin_churn();
            self.begin_use();
            let mut last = None;
            for step in self.scenario.step.clone() {
                self.go_to(began + step.at_s * SECOND);
                self.watch.troubled = true;
                let label = step.fault.label();
                self.faults.push((self.world.clock() as f64 / 1e6, label));
                let hit = self.hit;
                self.happen(step.fault);
                if step.fault.target().is_some() && self.hit == hit {
                    let how = format!("{} found nobody to hit", step.fault.label());
                    self.watch.broke("faults happen", how);
                }
                last = Some(self.world.clock() + step.fault.takes_s() * SECOND);
            }
            if let Some(last) = last {
                quiet = last + self.scenario.expect.ok_within_s * SECOND;
                self.go_to(last.min(end));
                let limit = self.scenario.expect.recovered_within_s * SECOND;
                recovered = self.recover(last, (last + limit).min(end));
            }
            self.go_to(end);
            self.end_use(quiet);
        }
        self.close(seed, served_at, recovered)
    }

    /// Starts everybody and waits until everybody is served.
    fn found(&mut self) -> Option<u64> {
        let within = START_WITHIN_S.max(u64::from(self.scenario.leaves) / STARTS_A_SECOND);
        for id in 0..self.scenario.leaves {
            let node = self.world.peer(id).node;
            let at = match id < self.scenario.bootstraps {
                true => 0,
                // Those who serve are there before those whom they serve.
                false if self.scenario.elected_before && self.watch.is_mandated(&node) => {
                    self.draw.below(SECOND)
                }
                false => self.draw.below(within * SECOND),
            };
            self.world.start_at(id, at);
        }
        let limit = self.scenario.expect.served_within_s;
        let fewest = self.fewest().max(self.scenario.super_nodes as usize);
        let mut served = false;
        while !served && self.world.clock() < limit * SECOND {
            self.go_to(self.world.clock() + SECOND);
            served =
                self.world.clock() > START_WITHIN_S * SECOND && all_served(&self.world, fewest);
        }
        if !served {
            let (serve, homed) = self.standing();
            let how = format!("after {limit} s {serve} serve and {homed} have a home");
            self.watch.broke("everybody is served in time", how);
        }
        served.then(|| self.world.clock())
    }

    fn standing(&self) -> (usize, usize) {
        let homed = self.world.peers().iter().filter(|peer| peer.homes > 0);
        (self.world.with_role(Role::SuperNode).len(), homed.count())
    }

    fn fewest(&self) -> usize {
        R.min(self.scenario.leaves as usize)
    }

    /// Waits until everybody is served again; how long it took.
    fn recover(&mut self, since: u64, limit: u64) -> Option<u64> {
        let fewest = self.fewest();
        loop {
            if all_served(&self.world, fewest) {
                return Some(self.world.clock() - since);
            }
            if self.world.clock() >= limit {
                let (serve, homed) = self.standing();
                let how = format!(
                    "{} s after the last fault {serve} serve and {homed} of {} have a home: {}",
                    (self.world.clock() - since) / SECOND,
                    self.world.online().count(),
                    self.opinions(),
                );
                self.watch.broke("the overlay recovers in time", how);
                return None;
            }
            self.go_to(limit.min(self.world.clock() + SECOND));
        }
    }

    /// How many peers know how many super-nodes; and a few of those who are
    /// alone with what they believe.
    fn opinions(&self) -> String {
        let mut known = std::collections::BTreeMap::new();
        for (id, peer) in (0..).zip(self.world.peers()) {
            if let Some(core) = peer.core() {
                let members = core.placement().members();
                let members: Vec<_> = members.filter_map(|m| self.world.find(&m.node)).collect();
                known.entry(members).or_insert_with(Vec::new).push(id);
            }
        }
        let mut told: Vec<(Vec<PeerId>, Vec<PeerId>)> = known.into_iter().collect();
        told.sort_by_key(|(_, peers)| std::cmp::Reverse(peers.len()));
        let told = told.iter().take(6).map(|(members, peers)| {
            let first: Vec<String> = peers.iter().take(2).map(|id| self.describe(*id)).collect();
            let members: Vec<String> = members
                .iter()
                .take(4)
                .map(|id| self.describe(*id))
                .collect();
            format!(
                "{} peers ({} ...) know [{}]",
                peers.len(),
                first.join(", "),
                members.join(", ")
            )
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn describe(&self, id: PeerId) -> String {
        let peer = self.world.peer(id);
        let role = match peer.online() {
            true => peer.role.as_str(),
            false => "offline",
        };
        let nat = match peer.spec.nat {
            Nat::Open => "",
            _ => " behind NAT",
        };
        let now = self.world.now_of(id);
        let assembly = peer.core().map_or(0, |core| core.status(now).assembly);
        match assembly {
            0 => format!("{id} {role}{nat}"),
            of => format!("{id} {role}{nat} in an assembly of {of}"),
        }
    }

    /// Lets time pass, peers come and go, and looks now and then.
    pub(crate) fn go_to(&mut self, until: u64) {
        while self.world.clock() < until {
            let every = self.sample_every();
            let coming = self.churn.first().map_or(until, |(at, _)| *at);
            let used = self.users.as_ref().and_then(Users::next).unwrap_or(until);
            let next = until.min(coming).min(used).min(self.sampled + every);
            self.world.run_until(next.max(self.world.clock()));
            self.come_and_go();
            if let Some(users) = &mut self.users {
                users.act(&mut self.world);
            }
            let noticed = self.world.take_noticed();
            if let Some(trace) = &mut self.trace {
                let told = noticed.iter().map(|noticed| {
                    format!(
                        "{:10.3} s  peer {:4}  {:?}",
                        noticed.at as f64 / 1e6,
                        noticed.peer,
                        noticed.event
                    )
                });
                trace.extend(told.take(MAX_TRACE.saturating_sub(trace.len())));
            }
            let casts = self.world.take_casts();
            self.ballots.take(&self.world, casts, &noticed);
            self.watch.take(&self.world, noticed);
            if self.world.clock() >= self.sampled + every {
                self.sampled = self.world.clock();
                let sample = self.watch.sample(&self.world);
                self.loads.look(&self.world);
                (self.progress)(&sample, self.world.events());
                self.samples.push(sample);
            }
        }
    }

    fn sample_every(&self) -> u64 {
        match self.scenario.lasts_s {
            0..=600 => 5 * SECOND,
            601..=7200 => 20 * SECOND,
            _ => 120 * SECOND,
        }
    }

    fn begin_churn(&mut self) {
        let Some(churn) = self.scenario.churn else {
            return;
        };
        let mean = churn.mean_minutes * 60 * SECOND;
        for id in self.scenario.bootstraps..self.scenario.leaves {
            // Met somewhere in its session: the rest of it is as long as what
            // is over, on average.
            let left = session_length_us(&mut self.draw, mean);
            self.churn.insert((self.world.clock() + left, id));
        }
    }

    fn come_and_go(&mut self) {
        let Some(churn) = self.scenario.churn else {
            return;
        };
        let mean = churn.mean_minutes * 60 * SECOND;
        while let Some((at, id)) = self.churn.first().copied()
            && at <= self.world.clock()
        {
            self.churn.pop_first();
            let wait = match self.world.peer(id).online() {
                true => {
                    // Half of them go without a word.
                    let silent = self.draw.chance(500_000);
                    self.world.kill(id, silent);
                    session_length_us(&mut self.draw, mean / 4)
                }
                false => {
                    self.world.start(id);
                    session_length_us(&mut self.draw, mean)
                }
            };
            self.churn.insert((self.world.clock() + wait, id));
        }
    }

    fn close(mut self, seed: u64, served_at: Option<u64>, recovered: Option<u64>) -> Report {
        self.judge();
        let seconds = |us: u64| us as f64 / 1e6;
        let mut report = Report {
            name: self.scenario.name.clone(),
            about: self.scenario.about.clone(),
            seed,
            peers: self.scenario.leaves,
            topology: format!("{:?}", self.scenario.topology).to_lowercase(),
            digest: self.world.digest().to_string(),
            events: self.world.events(),
            virtual_s: self.world.seconds(),
            served_at_s: served_at.map(seconds),
            recovered_after_s: recovered.map(seconds),
            ..Report::default()
        };
        let mut figure = |name: &str, value: f64| report.figures.insert(name.to_owned(), value);
        let milestones: [Milestone; 3] = [
            ("first_served_s", |s| s.super_nodes > 0),
            ("half_homed_s", |s| s.homed * 2 >= s.leaves),
            ("homed_95_percent_s", |s| s.homed * 100 >= s.leaves * 95),
        ];
        for (name, reached) in milestones {
            let at = self.samples.iter().find(|s| s.leaves > 0 && reached(s));
            if let Some(sample) = at {
                figure(name, sample.at_s);
            }
        }
        let last = self.samples.last().cloned().unwrap_or_default();
        figure("super_nodes", last.super_nodes as f64);
        figure("deputies", last.deputies as f64);
        let ratio = last.leaves as f64 / last.super_nodes.max(1) as f64;
        figure("leaves_a_super_node", ratio);
        figure("leaves_worst_over_mean", crowding(&self.world));
        figure("copies_max_over_mean", copies_over_due(&self.world));
        figure("role_changes", self.watch.role_changes as f64);
        figure(
            "role_losses_after_the_first_fault",
            self.watch.role_losses as f64,
        );
        figure("elections", self.watch.elections as f64);
        figure("races", self.watch.races as f64);
        figure("mandates_measured", self.watch.rated as f64);
        figure("mandates_over_the_truth", self.watch.overrated as f64);
        figure("leaf_sends_bytes_a_second", last.leaf_sends);
        figure("super_node_sends_bytes_a_second", last.super_node_sends);
        figure("leaves_homed_milli", self.watch.homed_milli() as f64);
        figure("mandates_refused", self.world.mandates_refused() as f64);
        figure("handshakes_refused", self.world.refused() as f64);
        figure(
            "messages_over_a_queue",
            self.world.traffic().overflowed as f64,
        );
        let wait = self.world.traffic().longest_wait_us as f64 / 1e6;
        figure("longest_wait_for_an_uplink_s", wait);
        report.figures.extend(self.used());
        report.figures.extend(self.loads.figures(&self.world));
        let by_kind = self.world.traffic().by_kind.iter();
        report.traffic = by_kind
            .map(|(kind, counts)| ((*kind).to_owned(), *counts))
            .collect();
        report.samples = self.samples;
        if let Some(users) = &mut self.users {
            report.requests = users.course();
            report.unasked = users.unasked_course();
            report.read_ms = users.read_percentiles_ms();
            report.hops = users.hops();
            report.loads = self.loads.finish(&self.world);
        }
        report.race = self.ballots.finish();
        report.faults = self.faults;
        report.trace = self.trace.unwrap_or_default();
        report.violations = self.watch.violations;
        report
    }

    pub(crate) fn happen(&mut self, fault: Fault) {
        crate::trouble::happen(self, fault);
    }

    /// Lets `time` pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.go_to(self.world.clock() + time.as_micros() as u64);
    }
}

fn operator(seed: u64) -> Identity {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"canopy-sim operator");
    hasher.update(&seed.to_le_bytes());
    Identity::from_secret(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everybody's NAT and line, and who is named.
    fn population(topology: Topology) -> (Vec<(Nat, u64, u64)>, Vec<PeerId>) {
        let mut scenario = Scenario::find("steady").expect("a built-in scenario");
        scenario.topology = topology;
        let mut ignore = |_: &Sample, _| ();
        let run = Run::new(scenario, 5, &mut ignore).expect("it can be run");
        let specs = run.world.peers().iter().map(|peer| &peer.spec);
        let lines = specs.map(|spec| (spec.nat, spec.up_bps, spec.down_bps));
        let all = 0..run.world.peers().len() as PeerId;
        let named = all.filter(|id| run.world.is_designated(*id)).collect();
        (lines.collect(), named)
    }

    #[test]
    fn random_hosts_are_peers_like_all_others_and_as_many_as_an_operator_names() {
        let (peers, nobody) = population(Topology::Elected);
        assert!(nobody.is_empty());
        let (same, hosts) = population(Topology::Random);
        assert_eq!(same, peers);
        assert_eq!(population(Topology::Flat), (same, nobody));
        assert!(hosts.iter().all(|id| peers[*id as usize].0 == Nat::Open));
        let (others, named) = population(Topology::Hybrid);
        assert_eq!(hosts.len(), named.len());
        assert!(named.iter().all(|id| others[*id as usize].1 >= 100_000_000));
        assert_ne!(hosts, named);
    }
}
