//! The demo from start to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use canopy_core::placement::Placement;
use tokio::time::Instant;

use super::balance::{Owned, Share, max_over_mean, spread};
use super::doors::Doors;
use super::draw::Draw;
use super::fleet::{Fleet, Mate};
use super::kill::{Death, kill_one};
use super::load::Load;
use super::publish::Tally;
use super::show::{BAD, GOOD, Show};
use super::summary::{Elected, Summary, seconds};
use super::watch::Watch;
use super::{DemoArgs, DemoError, find, publish, settle, tables};
use crate::cli::scan::Found;
use crate::settings::Topology;

/// The first super-node must answer within this.
const ELECTION: Duration = Duration::from_secs(120);
/// The peers should agree on who serves within this.
const AGREEMENT: Duration = Duration::from_secs(90);
/// How often the live line is brought up to date.
const REFRESH: Duration = Duration::from_millis(200);
/// Losses told one by one.
const TOLD: usize = 10;

/// Runs the demo. What it shows goes to `show`; what it came to is told, and
/// returned at the end, losses included. An interrupt (Ctrl-C) closes all peers
/// and ends it.
pub async fn run(
    args: DemoArgs,
    show: Show,
    tell: impl FnOnce(&Summary),
) -> Result<Summary, DemoError> {
    let show = Arc::new(show);
    let seed = args
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from("."));
    // A wrong folder is said before anything starts.
    let files = publish::list(folder).await?;
    let draw = Draw::new(seed);
    show.title(format!(
        "{} peers start, nobody in charge (seed {seed})",
        args.leaves
    ));
    let fleet = Fleet::start(draw, args.leaves as usize, args.topology, |mate| {
        tracing::debug!(index = mate.index, node = %mate.id(), "demo.started");
    });
    let fleet = tokio::select! {
        fleet = fleet => Arc::new(fleet?),
        _ = tokio::signal::ctrl_c() => return Err(DemoError::Interrupted),
    };
    let stay = args.stay;
    let story = Story {
        watch: Watch::over(&fleet, &show),
        fleet: fleet.clone(),
        show: show.clone(),
        draw,
        args,
        capacity: BTreeMap::new(),
    };
    let mut doors = Doors::default();
    let outcome = tokio::select! {
        outcome = story.tell(files, &mut doors) => outcome,
        _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
    };
    if let Ok(summary) = &outcome {
        tell(summary);
        if stay {
            // Whoever had them open may be among the dead.
            let survivor = fleet.alive().find(|mate| mate.serves());
            if let Some(mate) = survivor
                && !doors.lead_somewhere(&fleet)
            {
                doors.open(mate, &fleet, &show).await;
            }
            show.line("the peers stay up until interrupted (Ctrl-C)");
            // An error says that interrupts cannot be caught: then it ends now.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
    fleet.close().await;
    outcome
}

struct Story {
    fleet: Arc<Fleet>,
    watch: Watch,
    show: Arc<Show>,
    draw: Draw,
    args: DemoArgs,
    /// What each super-node was elected with, bits a second.
    capacity: BTreeMap<NodeId, u64>,
}

/// What the load phase came to.
struct Run {
    /// Super-nodes at its start, and their work until the first kill.
    early: Vec<(NodeId, u64)>,
    /// Their work until the end, and that of those who came later.
    all: BTreeMap<NodeId, u64>,
    deaths: Vec<Death>,
}

impl Story {
    async fn tell(mut self, files: Vec<Found>, doors: &mut Doors) -> Result<Summary, DemoError> {
        self.introduce();
        if !settle::first_answer(&self.fleet, ELECTION).await {
            return Err(DemoError::NoElection(ELECTION));
        }
        let first_election_s = seconds(self.fleet.begun.elapsed());
        self.show.line(format!(
            "{GOOD}the first super-node answers{GOOD:#} after {first_election_s:.2} s"
        ));
        // Files are read while the election goes on.
        let (items, placement) = tokio::join!(
            publish::read(files),
            settle::agreed(&self.fleet, &self.watch, AGREEMENT)
        );
        let items = items?;
        self.learn_capacity();
        let owned = self.show_elected(&placement);
        self.open_doors(&placement, doors).await;

        self.show.title(format!(
            "{} files are published by all peers in turn",
            items.len()
        ));
        let total = items.len();
        let tally = publish::publish(&self.fleet, items, &self.show).await;
        self.tell_published(&tally);

        let load = Load::new(self.fleet.clone(), tally.items.clone());
        let unwritten = load.seed().await;
        let run = self.load(&load).await;
        self.learn_capacity();

        self.show.title("Every peer looks for every file");
        let (found, missed) = find::find_all(&self.fleet, &tally.items, &self.show).await;
        missed.iter().take(TOLD).for_each(|reason| {
            self.show
                .line(format!("  {BAD}not found{BAD:#} by {reason}"));
        });

        let shares: Vec<Share> = self.shares(&run.early);
        let keys: Vec<(NodeId, u64)> = owned.iter().map(|(id, own)| (*id, own.first)).collect();
        let outcome = &load.outcome;
        let longest = |of: fn(&Death) -> Option<Duration>| {
            run.deaths.iter().filter_map(of).max().map(seconds)
        };
        let mut summary = Summary {
            first_election_s,
            elected: self.elected(&run),
            load_max_over_mean: max_over_mean(&shares),
            load_max_over_mean_keys: max_over_mean(&self.shares(&keys)),
            items_total: total as u64,
            items_published: tally.items.len() as u64,
            items_found: found as u64,
            requests_ok: outcome.ok.load(Relaxed),
            requests_failed: outcome.failed.load(Relaxed),
            requests_hedged: outcome.hedged.load(Relaxed),
            successor_s: longest(|death| death.successor_after),
            noticed_s: longest(|death| death.noticed_after),
            killed: run.deaths.len() as u64,
            leaves: self.fleet.mates.len() as u64,
            topology: self.args.topology.as_str(),
            seed: self.draw.seed(),
            lost: Vec::new(),
        };
        summary.lost = self.lost(&summary, unwritten, &run.deaths);
        self.show.title("Summary");
        tables::summary(&summary, &self.show);
        match summary.is_whole() {
            true => self.show.line(format!("  {GOOD}nothing was lost{GOOD:#}")),
            false => summary
                .lost
                .iter()
                .for_each(|loss| self.show.line(format!("  {BAD}lost{BAD:#}: {loss}"))),
        }
        Ok(summary)
    }

    /// The peers and their lines.
    fn introduce(&self) {
        let took = self.fleet.begun.elapsed().as_secs_f64();
        let mut lines: Vec<_> = self.fleet.mates.iter().map(|mate| mate.uplink).collect();
        lines.sort_unstable();
        let at = |part: usize| lines[(lines.len() - 1) * part / 4];
        self.show.line(format!(
            "  all up after {took:.2} s; their uplinks: {} to {}, half of them {} to {}",
            at(0),
            at(4),
            at(1),
            at(3)
        ));
        if let Some(mate) = self.fleet.mates.first() {
            self.show.line(format!(
                "  each has a control plane; ask one for all: supernode status --control {}",
                mate.control
            ));
        }
        self.show.title("They meet, measure each other, and elect");
    }

    /// The capacity that each mandate states, as any peer has it.
    fn learn_capacity(&mut self) {
        for mate in self.fleet.alive() {
            for known in mate.leaf.status().super_nodes {
                self.capacity.insert(known.node_id, known.capacity_bps);
            }
        }
    }

    fn show_elected(&self, placement: &Placement) -> BTreeMap<NodeId, Owned> {
        self.show.title("Who serves");
        tables::elected(&self.fleet, placement, &self.capacity, &self.show);
        self.show
            .title("The shards go out by capacity (100 000 random keys)");
        let owned = spread(placement, &mut self.draw.stream("keys", 0));
        tables::shards(&self.fleet, placement, &owned, &self.show);
        owned
    }

    /// Whoever wants to look is shown the strongest super-node's way in.
    async fn open_doors(&self, placement: &Placement, doors: &mut Doors) {
        let members = tables::by_rank(&self.fleet, placement);
        if let Some(mate) = members.iter().find_map(|m| self.fleet.by_id(&m.node)) {
            doors.open(mate, &self.fleet, &self.show).await;
        }
    }

    fn tell_published(&self, tally: &Tally) {
        self.show.line(format!(
            "  {GOOD}{} items{GOOD:#} acknowledged by a quorum of their owners, {} bytes of files",
            tally.items.len(),
            tally.bytes
        ));
        for (name, reason) in tally.failed.iter().take(TOLD) {
            self.show
                .line(format!("  {BAD}not published{BAD:#} {name}: {reason}"));
        }
    }

    /// Reads and writes from all sides while super-nodes die.
    async fn load(&self, load: &Arc<Load>) -> Run {
        self.show.title(format!(
            "All peers search, read and write for {:?}",
            self.args.duration
        ));
        let begun = Instant::now();
        let until = begun + self.args.duration;
        let start = self.operations();
        let live = async {
            let line = self.show.live();
            let mut ticks = tokio::time::interval(REFRESH);
            loop {
                ticks.tick().await;
                line.set_message(self.live(load, begun));
            }
        };
        let work = async {
            let ((), (early, deaths)) = tokio::join!(
                load.run(self.draw, until),
                self.kill(begun + self.args.duration / 3, &start)
            );
            (early, deaths)
        };
        let (early, deaths) = tokio::select! {
            outcome = work => outcome,
            () = live => (None, Vec::new()),
        };
        self.show.clear();
        self.show.line(format!("  {}", self.live(load, begun)));
        for reason in load.outcome.reasons.lock().iter().take(TOLD) {
            self.show.line(format!("  {BAD}failed{BAD:#} {reason}"));
        }
        let mut end = self.operations();
        end.extend(deaths.iter().map(|death| (death.node, death.operations)));
        let since_start = |(id, done): (&NodeId, &u64)| {
            let before = start.get(id).copied().unwrap_or(0);
            (*id, done.saturating_sub(before))
        };
        let all: BTreeMap<NodeId, u64> = end.iter().map(since_start).collect();
        let early = early.unwrap_or_else(|| {
            let there = all.iter().filter(|(id, _)| start.contains_key(id));
            there.map(|(id, done)| (*id, *done)).collect()
        });
        Run { early, all, deaths }
    }

    /// Kills the first at `at`, and each further one when the one before has
    /// been replaced. Also returns the work until the first.
    async fn kill(
        &self,
        at: Instant,
        start: &BTreeMap<NodeId, u64>,
    ) -> (Option<Vec<(NodeId, u64)>>, Vec<Death>) {
        if self.args.kill == 0 {
            return (None, Vec::new());
        }
        tokio::time::sleep_until(at).await;
        let now = self.operations();
        let done = |(id, before): (&NodeId, &u64)| {
            (
                *id,
                now.get(id).copied().unwrap_or(0).saturating_sub(*before),
            )
        };
        let early = start.iter().map(done).collect();
        let mut random = self.draw.stream("kill", 0);
        let mut deaths = Vec::new();
        for _ in 0..self.args.kill {
            match kill_one(&self.fleet, &mut random, &self.watch, &self.show).await {
                Some(death) => deaths.push(death),
                None => break,
            }
        }
        (Some(early), deaths)
    }

    fn live(&self, load: &Load, begun: Instant) -> String {
        let outcome = &load.outcome;
        format!(
            "{:5.1} s  {} ok, {} failed, {} hedged  {} peers",
            begun.elapsed().as_secs_f64(),
            outcome.ok.load(Relaxed),
            outcome.failed.load(Relaxed),
            outcome.hedged.load(Relaxed),
            self.fleet.alive().count()
        )
    }

    /// The work of each who serves, so far.
    fn operations(&self) -> BTreeMap<NodeId, u64> {
        let serving = self.fleet.alive().filter(|mate| mate.serves());
        serving.map(|mate| (mate.id(), mate.operations())).collect()
    }

    fn shares(&self, loads: &[(NodeId, u64)]) -> Vec<Share> {
        let share = |(id, load): &(NodeId, u64)| Share {
            load: *load,
            capacity_bps: self.capacity.get(id).copied().unwrap_or(0),
        };
        loads.iter().map(share).collect()
    }

    fn elected(&self, run: &Run) -> Vec<Elected> {
        let mut mates: Vec<&Mate> = run
            .all
            .keys()
            .filter_map(|id| self.fleet.by_id(id))
            .collect();
        mates.sort_by_key(|mate| (mate.rank, mate.index));
        let one = |mate: &Mate| {
            let capacity_bps = self.capacity.get(&mate.id()).copied().unwrap_or(0);
            Elected {
                node_id: mate.id().to_string(),
                uplink_bps: mate.uplink.0,
                measured_bps: capacity_bps,
                uplink_rank: mate.rank as u64,
                seats: u64::from(canopy_core::election::mandate::seats_for(capacity_bps)),
                load: run.all.get(&mate.id()).copied().unwrap_or(0),
                killed: !mate.alive(),
            }
        };
        mates.into_iter().map(one).collect()
    }

    fn lost(&self, summary: &Summary, unwritten: usize, deaths: &[Death]) -> Vec<String> {
        let mut lost = Vec::new();
        if summary.items_published < summary.items_total {
            let count = summary.items_total - summary.items_published;
            lost.push(format!("{count} items could not be published"));
        }
        if unwritten > 0 {
            lost.push(format!("{unwritten} values could not be written"));
        }
        if summary.requests_failed > 0 {
            lost.push(format!("{} requests failed", summary.requests_failed));
        }
        if summary.items_found < summary.items_published {
            let count = summary.items_published - summary.items_found;
            lost.push(format!("{count} items were not found by everybody"));
        }
        let orphaned = deaths.iter().filter(|death| death.successor.is_none());
        if self.args.topology == Topology::Elected && orphaned.count() > 0 {
            lost.push("no successor served".to_owned());
        }
        lost
    }
}
