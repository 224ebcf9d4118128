//! The program's commands.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::picture::PictureFile;
use crate::report::{Report, Sample};
use crate::run::{Options, run};
use crate::scenario::{FAULTS, Scenario, ScenarioError, Topology, names};
use crate::world::PeerId;

/// Prints a line; who has stopped reading is not told more, and no error.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Runs Canopy's production core in a modelled network, from one seed.
#[derive(Parser)]
#[command(name = "canopy-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the built-in scenarios.
    List,
    /// Runs a scenario once.
    Run {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        picture: Picture,
        /// Draws the ballots on this peer, by its number.
        #[arg(long, value_name = "PEER", requires = "picture")]
        race: Option<PeerId>,
        /// The seed that everything follows from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs a scenario with many seeds.
    Sweep {
        #[command(flatten)]
        what: What,
        /// Seeds, as in 1..50; both ends count.
        #[arg(long, value_parser = seeds, default_value = "1..50")]
        seeds: (u64, u64),
    },
    /// Runs a scenario again and shows its course.
    Replay {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        picture: Picture,
        /// Draws the ballots on this peer, by its number.
        #[arg(long, value_name = "PEER", requires = "picture")]
        race: Option<PeerId>,
        /// The seed that failed.
        #[arg(long)]
        seed: u64,
    },
    /// Runs a scenario with all three topologies, side by side.
    Compare {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        picture: Picture,
        /// Also with static super-nodes drawn at random, and with a flat Kademlia
        /// in place of super-nodes.
        #[arg(long)]
        baselines: bool,
        /// The seed that everything follows from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct What {
    /// A built-in scenario, or a TOML file.
    scenario: String,
    /// Peers at the start.
    #[arg(long)]
    leaves: Option<u32>,
    /// How long it goes on after everybody is first served.
    #[arg(long, conflicts_with = "minutes")]
    hours: Option<u64>,
    /// The same in minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Who serves.
    #[arg(long)]
    topology: Option<TopologyArg>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Prints no progress.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct Picture {
    /// Draws what happened into this file, FILE.svg or FILE.png.
    #[arg(long, value_name = "FILE")]
    picture: Option<PictureFile>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TopologyArg {
    Pure,
    Hybrid,
    Elected,
    /// For comparison: static super-nodes, drawn at random.
    Random,
    /// For comparison: a flat Kademlia.
    Flat,
}

impl From<TopologyArg> for Topology {
    fn from(arg: TopologyArg) -> Self {
        match arg {
            TopologyArg::Pure => Topology::Pure,
            TopologyArg::Hybrid => Topology::Hybrid,
            TopologyArg::Elected => Topology::Elected,
            TopologyArg::Random => Topology::Random,
            TopologyArg::Flat => Topology::Flat,
        }
    }
}

impl What {
    fn options(&self) -> Options {
        let hours = self.hours.map(|hours| hours * 3600);
        Options {
            leaves: self.leaves,
            lasts_s: hours.or(self.minutes.map(|minutes| minutes * 60)),
            topology: self.topology.map(Topology::from),
            trace: false,
            race: None,
        }
    }
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no range of seeds; write it as 1..50");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from: u64 = from.parse().map_err(|_| wrong())?;
    let to: u64 = to.trim_start_matches('=').parse().map_err(|_| wrong())?;
    match from <= to {
        true => Ok((from, to)),
        false => Err(wrong()),
    }
}

/// Runs the program on the process's arguments. Exit code 1: something did not
/// hold; 2: the command line or the scenario is wrong.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::List => list(),
        Command::Run {
            what,
            picture,
            race,
            seed,
        } => once(&what, &picture, race, seed, false),
        Command::Replay {
            what,
            picture,
            race,
            seed,
        } => once(&what, &picture, race, seed, true),
        Command::Sweep { what, seeds } => sweep(&what, seeds),
        Command::Compare {
            what,
            picture,
            baselines,
            seed,
        } => compare(&what, &picture, baselines, seed),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("canopy-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool, ScenarioError> {
    for name in names() {
        let scenario = Scenario::find(name)?;
        say!("{name:18} {}", scenario.about);
        for fault in &scenario.faults {
            let text = FAULTS.get(usize::from(*fault).wrapping_sub(1));
            say!("{:20} fault {fault}: {}", "", text.unwrap_or(&"unknown"));
        }
    }
    Ok(true)
}

impl Picture {
    fn draw(&self, reports: &[Report]) -> Result<(), ScenarioError> {
        match &self.picture {
            Some(file) => Ok(file.write(reports)?),
            None => Ok(()),
        }
    }

    /// Finds out before the run whether it can be written.
    fn prepare(&self) -> Result<(), ScenarioError> {
        match &self.picture {
            Some(file) => Ok(file.make()?),
            None => Ok(()),
        }
    }
}

/// Runs once, with progress on standard error.
fn watched(what: &What, seed: u64, options: &Options) -> Result<(Report, f64), ScenarioError> {
    let scenario = Scenario::find(&what.scenario)?;
    let began = Instant::now();
    let mut told = 0.0;
    let report = run(&scenario, seed, options, &mut |sample, events| {
        let wall = began.elapsed().as_secs_f64();
        if !what.quiet && wall - told > 2.0 {
            told = wall;
            progress(sample, events, wall);
        }
    })?;
    Ok((report, began.elapsed().as_secs_f64()))
}

fn progress(sample: &Sample, events: u64, wall: f64) {
    eprintln!(
        "{:8.0} s  {:.1} virtual seconds a second  {:.0} k events  {} super-nodes, {} of {} leaves homed",
        sample.at_s,
        sample.at_s / wall.max(0.001),
        events as f64 / 1e3,
        sample.super_nodes,
        sample.homed,
        sample.leaves,
    );
}

fn show(report: &Report, wall: f64, json: bool) {
    if json {
        // A report holds nothing that JSON cannot.
        say!("{}", serde_json::to_string(report).unwrap_or_default());
        return;
    }
    say!("{report}");
    say!(
        "  {wall:.1} s of this machine: {:.0} virtual seconds a second, {:.2} million events a second",
        report.virtual_s / wall.max(0.001),
        report.events as f64 / wall.max(0.001) / 1e6,
    );
    if let Some(bytes) = peak_memory() {
        say!(
            "  {:.2} GiB of memory at most, {} bytes a peer",
            bytes as f64 / f64::from(1 << 30),
            bytes / u64::from(report.peers.max(1)),
        );
    }
}

/// The most memory that this process had, bytes; where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn once(
    what: &What,
    picture: &Picture,
    race: Option<PeerId>,
    seed: u64,
    course: bool,
) -> Result<bool, ScenarioError> {
    let options = Options {
        trace: course,
        race,
        ..what.options()
    };
    picture.prepare()?;
    let (report, wall) = watched(what, seed, &options)?;
    if !what.json {
        for line in &report.trace {
            say!("{line}");
        }
    }
    picture.draw(std::slice::from_ref(&report))?;
    if let (Some(peer), None) = (race, &report.race) {
        eprintln!("canopy-sim: there are no ballots to draw: no race of peer {peer} was decided");
    }
    show(&report, wall, what.json);
    if course && !what.json {
        say!("   time  online  super-nodes  deputies  leaves homed");
        for s in &report.samples {
            say!(
                "{:7.0} {:7} {:12} {:9} {:7} {:5}",
                s.at_s,
                s.online,
                s.super_nodes,
                s.deputies,
                s.leaves,
                s.homed
            );
        }
    }
    Ok(report.passed())
}

fn sweep(what: &What, (from, to): (u64, u64)) -> Result<bool, ScenarioError> {
    let mut failed = 0;
    let began = Instant::now();
    let scenario = Scenario::find(&what.scenario)?;
    let (mut measured, mut over) = (0.0, 0.0);
    for seed in from..=to {
        let report = run(&scenario, seed, &what.options(), &mut |_, _| ())?;
        if what.json {
            show(&report, 0.0, true);
        } else if report.passed() {
            let after = report.recovered_after_s;
            let after = after.map_or(String::new(), |s| format!(", recovered after {s:.0} s"));
            say!("seed {seed}: all held{after}, digest {}", report.digest);
        } else {
            say!("{report}");
        }
        failed += u64::from(!report.passed());
        let figure = |name| report.figures.get(name).copied().unwrap_or(0.0);
        measured += figure("mandates_measured");
        over += figure("mandates_over_the_truth");
    }
    let limit = scenario.expect.overrated_milli;
    let truthful = limit.is_none_or(|milli| over * 1000.0 <= measured * milli as f64);
    if let (Some(milli), false) = (limit, what.json) {
        say!("{over} of {measured} mandates over 1.33 times the truth; of 1000, {milli} may");
    }
    if !what.json {
        say!(
            "{} of {} seeds held, in {:.0} s",
            to - from + 1 - failed,
            to - from + 1,
            began.elapsed().as_secs_f64()
        );
    }
    Ok(failed == 0 && truthful)
}

/// Compared first, for they say most.
const FIRST: [&str; 17] = [
    "super_nodes",
    "hops_p50",
    "hops_p99",
    "read_p50_ms",
    "read_p99_ms",
    "operations_ok",
    "operations_failed",
    "operations_that_nobody_could_begin",
    "reads_that_missed_a_write",
    "first_try_milli",
    "weakest_uplink_use_milli",
    "busiest_uplink_use_milli",
    "longest_wait_for_an_uplink_s",
    "busiest_peer_requests_a_second",
    "sent_bytes_a_second_a_peer",
    "maintenance_bytes_a_second_a_peer",
    "measurement_bytes_a_second_a_peer",
];

fn compare(
    what: &What,
    picture: &Picture,
    baselines: bool,
    seed: u64,
) -> Result<bool, ScenarioError> {
    picture.prepare()?;
    let topologies: &[Topology] = match baselines {
        true => &[
            Topology::Elected,
            Topology::Random,
            Topology::Flat,
            Topology::Pure,
            Topology::Hybrid,
        ],
        false => &[Topology::Pure, Topology::Hybrid, Topology::Elected],
    };
    let mut reports = Vec::new();
    for topology in topologies {
        let options = Options {
            topology: Some(*topology),
            ..what.options()
        };
        reports.push(watched(what, seed, &options)?.0);
    }
    picture.draw(&reports)?;
    if what.json {
        say!("{}", serde_json::to_string(&reports).unwrap_or_default());
        return Ok(true);
    }
    let line = |name: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        say!("{name:38} {}", cells.join(" "));
    };
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
    let row = |name: &str, of: &dyn Fn(&Report) -> Option<f64>| {
        line(name, reports.iter().map(|r| shown(of(r))).collect());
    };
    line("", reports.iter().map(|r| r.topology.clone()).collect());
    row("everybody served after, s", &|r| r.served_at_s);
    row("recovered after, s", &|r| r.recovered_after_s);
    let names = reports.iter().flat_map(|r| r.figures.keys());
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    let first = FIRST.into_iter().filter(|name| names.contains(name));
    let rest = names.iter().copied().filter(|name| !FIRST.contains(name));
    for name in first.chain(rest) {
        row(&name.replace('_', " "), &|r| r.figures.get(name).copied());
    }
    row("invariants broken", &|r| Some(r.violations.len() as f64));
    Ok(true)
}
