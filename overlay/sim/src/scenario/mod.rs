//! A scenario: who is there, what goes wrong and when, and what must hold
//! nevertheless. Scenarios are TOML files; those of the program are built in.

mod builtin;

use std::path::Path;
use std::time::Duration;

use canopy_core::preset::{Preset, Timings};
use canopy_proto::{limits, wire};

use crate::net::NetConfig;
pub use crate::users::UsersConfig;

pub use builtin::{builtin, names};

/// What took real super-node systems down.
pub const FAULTS: [&str; 20] = [
    "an overload cascade",
    "everybody restarts within a minute",
    "one zone, prefix or version lost together",
    "flapping, and a storm of promotions",
    "an unhealthy super-node keeps its role",
    "a criterion that is shown and not enforced",
    "reachability lost, address changed",
    "lies about bandwidth",
    "a flood of Sybils that accept and drop",
    "poisoned, replayed, stale and oversize records",
    "free riders",
    "a hot key, a full shard",
    "partition and merge, asymmetric links",
    "clocks off, and jumping",
    "old and new versions together, rolling upgrade",
    "a slow disk, a slow processor, a lossy line",
    "two replicas of a key drained at once",
    "the control plane gone, a slow watcher",
    "leaves whose whole cache is dead",
    "malformed, truncated, repeated input",
];

/// Who serves; see [`wire::Topology`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Every able peer.
    Pure,
    /// Only hosts that an operator designated.
    Hybrid,
    /// Those whom the others elect.
    #[default]
    Elected,
    /// Static super-nodes, for comparison: one for each [`Scenario::ratio`] peers
    /// and three at least, drawn at random among those that can be dialled, with
    /// the lines that they have.
    Random,
    /// Nobody serves for others, for comparison: all peers that can be dialled
    /// are nodes of a flat Kademlia.
    Flat,
}

impl From<Topology> for wire::Topology {
    fn from(topology: Topology) -> Self {
        match topology {
            // Nodes of the flat table ask no core.
            Topology::Pure | Topology::Flat => wire::Topology::Pure,
            Topology::Hybrid | Topology::Random => wire::Topology::Hybrid,
            Topology::Elected => wire::Topology::Elected,
        }
    }
}

/// Peers that a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// Anybody who runs.
    Anyone,
    /// Those who serve.
    SuperNodes,
    /// Those who do not.
    Leaves,
    /// Those in reserve.
    Deputies,
    /// Super-nodes of the failure domain that has most of them.
    Domain,
    /// The three super-nodes that own one and the same key.
    Owners,
    /// Those who are offline.
    Offline,
}

/// How many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Who.
    pub who: Who,
    /// Percent of them; all, if neither this nor `count` is given.
    pub percent: Option<u32>,
    /// How many of them.
    pub count: Option<usize>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = match self.who {
            Who::Anyone => "peers",
            Who::SuperNodes => "super-nodes",
            Who::Leaves => "leaves",
            Who::Deputies => "deputies",
            Who::Domain => "peers of the largest domain",
            Who::Owners => "owners of a key",
            Who::Offline => "offline peers",
        };
        match (self.count, self.percent) {
            (Some(count), _) => write!(f, "{count} of the {who}"),
            (None, Some(percent)) => write!(f, "{percent} % of the {who}"),
            (None, None) => write!(f, "all {who}"),
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// They end without a word; with `wipe`, what they saved is lost too.
    Kill {
        /// Who.
        target: Target,
        /// Whether their disks are lost.
        #[serde(default)]
        wipe: bool,
    },
    /// They close their sessions and end.
    Stop {
        /// Who.
        target: Target,
    },
    /// They start, spread over so many seconds.
    Start {
        /// Who.
        target: Target,
        /// Seconds.
        within_s: u64,
    },
    /// New peers join, spread over so many seconds.
    Join {
        /// How many.
        count: u32,
        /// Seconds.
        within_s: u64,
    },
    /// New peers of one owner: all in a few networks, all with strong lines, all
    /// willing, and none of them answers what it is asked.
    Sybils {
        /// How many.
        count: u32,
    },
    /// So many percent of all peers are cut off from the others; if `bridged`,
    /// half of those left hear both.
    Split {
        /// Percent.
        percent: u32,
        /// Whether some hear both sides.
        #[serde(default)]
        bridged: bool,
    },
    /// The split ends.
    Heal,
    /// Their wall clocks jump.
    Clock {
        /// Who.
        target: Target,
        /// Milliseconds, plus for half of them, minus for the others.
        offset_ms: i64,
    },
    /// Their machines and lines are slow and lose packets from now on.
    Slow {
        /// Who.
        target: Target,
        /// Times slower.
        #[serde(default)]
        times: u32,
        /// Milliseconds that each message takes longer.
        #[serde(default)]
        lag_ms: u64,
        /// Loss, millionths.
        #[serde(default)]
        loss_ppm: u32,
        /// Their uplink falls to this; 0: stays.
        #[serde(default)]
        line_bps: u64,
    },
    /// Nobody can dial them from now on.
    Unreachable {
        /// Who.
        target: Target,
    },
    /// Their address changes.
    Relocate {
        /// Who.
        target: Target,
    },
    /// They are asked to lay down their role.
    Drain {
        /// Who.
        target: Target,
    },
    /// They are sent messages that are cut, altered, repeated or made up.
    Garbage {
        /// Who.
        target: Target,
        /// Messages to each of them.
        messages: u32,
    },
    /// Random faults of all these kinds for so many seconds, then all is mended.
    Chaos {
        /// Seconds.
        lasts_s: u64,
    },
}

impl Fault {
    /// What it is called in a scenario's file.
    fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Join { .. } => "join",
            Self::Sybils { .. } => "sybils",
            Self::Split { .. } => "split",
            Self::Heal => "heal",
            Self::Clock { .. } => "clock",
            Self::Slow { .. } => "slow",
            Self::Unreachable { .. } => "unreachable",
            Self::Relocate { .. } => "relocate",
            Self::Drain { .. } => "drain",
            Self::Garbage { .. } => "garbage",
            Self::Chaos { .. } => "chaos",
        }
    }

    /// Whom it is aimed at, where there have to be some.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Kill { target, .. }
            | Self::Stop { target }
            | Self::Start { target, .. }
            | Self::Clock { target, .. }
            | Self::Slow { target, .. }
            | Self::Unreachable { target }
            | Self::Relocate { target }
            | Self::Drain { target }
            | Self::Garbage { target, .. } => Some(target),
            _ => None,
        }
    }

    /// What it is called in a picture: its name, and to how many of whom.
    pub fn label(&self) -> String {
        let name = self.name();
        match self {
            Self::Join { count, .. } => format!("{count} peers {name}"),
            Self::Sybils { count } => format!("{count} {name}"),
            Self::Split { percent, .. } => format!("{name} off {percent} %"),
            _ => match self.target() {
                Some(target) => format!("{name} {target}"),
                None => name.to_owned(),
            },
        }
    }

    /// How long it takes until all of it has happened, seconds, beyond the
    /// moment that it begins.
    pub fn takes_s(&self) -> u64 {
        match self {
            Self::Start { within_s, .. } | Self::Join { within_s, .. } => *within_s + 1,
            Self::Sybils { .. } => 11,
            _ => 0,
        }
    }
}

/// A fault and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds after the scenario began: see [`Scenario::super_nodes`].
    pub at_s: u64,
    /// What happens.
    pub fault: Fault,
}

/// What must hold, besides what must always hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// From a cold start, everybody is served after at most so many seconds.
    pub served_within_s: u64,
    /// After the last fault, everybody is served again and agrees on who serves.
    pub recovered_within_s: u64,
    /// Super-nodes that run and lay down their role after the first fault while the
    /// overlay has none to spare, at most.
    pub role_losses: Option<u64>,
    /// Role changes after the overlay first served everybody, at most.
    pub role_changes: Option<u64>,
    /// In a thousand looks at a leaf, it has a home at least so many times.
    pub homed_milli: u64,
    /// None of the peers that are new and lie, drop, or cannot be dialled serves
    /// at the end: at most so many in a thousand of those who serve.
    pub bad_milli: Option<u64>,
    /// Of 1 000 mandates, so many at most state over 1.33 times the truth. One run
    /// has too few to tell: it breaks this where so many would come about by
    /// chance in less than one of a hundred runs that keep it. A sweep counts
    /// the mandates of all its runs.
    pub overrated_milli: Option<u64>,
    /// Of a thousand operations that users want so many at least succeed...
    pub ok_milli: u64,
    /// ...from so many seconds after the last fault on, or from the start where
    /// there is none.
    pub ok_within_s: u64,
    /// Of a thousand operations so many at least take one request only.
    pub first_try_milli: u64,
    /// The work of the busiest super-node for its capacity, over the mean, is at
    /// most so many thousandths.
    pub imbalance_milli: Option<u64>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            served_within_s: 600,
            recovered_within_s: 300,
            role_losses: None,
            role_changes: None,
            homed_milli: 0,
            bad_milli: None,
            overrated_milli: None,
            ok_milli: 0,
            ok_within_s: 60,
            first_try_milli: 0,
            imbalance_milli: None,
        }
    }
}

/// Peers come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// How long a peer stays on average, minutes.
    pub mean_minutes: u64,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// What it shows, in a line.
    pub about: String,
    /// Numbers of those of [`FAULTS`] that it covers, from 1.
    #[serde(default)]
    pub faults: Vec<u8>,
    /// Peers at the start.
    pub leaves: u32,
    /// It begins when everybody is served, and so many serve.
    #[serde(default)]
    pub super_nodes: u32,
    /// Everybody starts with the papers of elections that were held before; in
    /// other topologies than `elected` it changes nothing.
    #[serde(default)]
    pub elected_before: bool,
    /// How long it goes on after it began, seconds.
    pub lasts_s: u64,
    /// The kind of network that the peers take theirs for.
    #[serde(default)]
    pub preset: Preset,
    /// Time that a candidate must have been up, seconds; default: the preset's.
    pub uptime_s: Option<u64>,
    /// Who serves.
    #[serde(default)]
    pub topology: Topology,
    /// Leaves a super-node.
    #[serde(default = "forty")]
    pub ratio: usize,
    /// Super-nodes that a leaf remembers.
    #[serde(default = "two_hundred")]
    pub cache: usize,
    /// Peers that everybody is told of.
    #[serde(default = "eight")]
    pub bootstraps: u32,
    /// What a super-node must carry at least, bits a second.
    #[serde(default = "five_million")]
    pub floor_bps: u64,
    /// What the lines of designated hosts carry at least, bits a second.
    #[serde(default = "hundred_million")]
    pub host_bps: u64,
    /// The network as it is.
    #[serde(default)]
    pub net: NetConfig,
    /// Peers come and go all the time.
    pub churn: Option<Churn>,
    /// Percent of peers in one conspiracy.
    #[serde(default)]
    pub colluding_percent: u32,
    /// Percent of peers that never stand.
    #[serde(default)]
    pub free_riding_percent: u32,
    /// People who write and read all the time; none: there is no index.
    pub users: Option<UsersConfig>,
    /// What goes wrong.
    #[serde(default)]
    pub step: Vec<Step>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

fn forty() -> usize {
    40
}

fn two_hundred() -> usize {
    200
}

fn eight() -> u32 {
    8
}

fn hundred_million() -> u64 {
    100_000_000
}

fn five_million() -> u64 {
    5_000_000
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is no such file, and no built-in one of this name.
    #[error(
        "there is no scenario {0:?}; `canopy-sim list` shows those built in, and a path to a TOML file works too"
    )]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no scenario.
    #[error("{path} is no scenario: {error}")]
    Parse {
        /// Which.
        path: String,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
    /// There is no picture.
    #[error(transparent)]
    Picture(#[from] crate::picture::PictureError),
    /// The system gives nothing to run users on.
    #[error("cannot start the runtime of the users: {0}")]
    Runtime(std::io::Error),
    /// A number is out of range.
    #[error("{name}: {what}")]
    Range {
        /// The scenario.
        name: String,
        /// What to change.
        what: &'static str,
    },
}

impl Scenario {
    /// The built-in scenario `name`, or the one in the file of that path.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub fn find(name: &str) -> Result<Self, ScenarioError> {
        let scenario = match builtin(name) {
            Some(text) => Self::parse(name, text)?,
            None if Path::new(name).extension().is_some_and(|ext| ext == "toml") => {
                let path = name.to_owned();
                let text = std::fs::read_to_string(name)
                    .map_err(|error| ScenarioError::Read { path, error })?;
                Self::parse(name, &text)?
            }
            None => return Err(ScenarioError::Unknown(name.to_owned())),
        };
        Ok(scenario)
    }

    fn parse(path: &str, text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| ScenarioError::Parse {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ScenarioError::Range`].
    pub fn check(&self) -> Result<(), ScenarioError> {
        let range = |what| {
            let name = self.name.clone();
            Err(ScenarioError::Range { name, what })
        };
        if !(4..=2_000_000).contains(&self.leaves) {
            return range("leaves must be between 4 and 2 000 000");
        }
        if self.lasts_s == 0 || self.lasts_s > 30 * 24 * 3600 {
            return range("lasts_s must be between 1 and 30 days");
        }
        if self.super_nodes > self.leaves {
            return range("super_nodes must not be more than leaves");
        }
        if self.colluding_percent > 100 || self.free_riding_percent > 100 {
            return range("percentages are at most 100");
        }
        if self.step.iter().any(|step| step.at_s >= self.lasts_s) {
            return range("every step must come before the end; raise lasts_s");
        }
        if let Some(users) = self.users
            && (users.count == 0 || users.count > self.leaves || users.keys == 0)
        {
            return range("users.count must be between 1 and leaves, and users.keys at least 1");
        }
        if (self.users).is_some_and(|u| u.operations_per_s == 0 || u.operations_per_s > 100_000) {
            return range("users.operations_per_s must be between 1 and 100 000");
        }
        if (self.users).is_some_and(|u| !(8..=limits::VALUE).contains(&u.value_bytes)) {
            return range("users.value_bytes must be between 8 and 65 536");
        }
        if self.churn.is_some_and(|churn| churn.mean_minutes == 0) {
            return range("churn.mean_minutes must be at least 1");
        }
        Ok(())
    }

    /// Every timing of its peers.
    pub fn timing(&self) -> Timings {
        let mut timing = self.preset.timings();
        if let Some(uptime) = self.uptime_s {
            timing.election.uptime = Duration::from_secs(uptime);
        }
        timing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_can_be_run_and_faults_have_one() {
        let mut covered = std::collections::BTreeSet::new();
        for name in names() {
            let scenario = Scenario::find(name).expect(name);
            scenario.check().expect(name);
            assert_eq!(scenario.name, name);
            covered.extend(scenario.faults);
        }
        // 18 needs the control plane.
        let lacking = [18];
        assert_eq!(covered, (1..=20).filter(|f| !lacking.contains(f)).collect());
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_said() {
        let unknown = Scenario::find("nonsense").expect_err("no such scenario");
        assert!(unknown.to_string().contains("canopy-sim list"));
        let text = "name = 'x'\nabout = ''\nleaves = 10\nlasts_s = 10\nlaeves = 3";
        let typo = Scenario::parse("x", text).expect_err("a typo");
        assert!(typo.to_string().contains("laeves"), "{typo}");
        let text = "name = 'x'\nabout = ''\nleaves = 1\nlasts_s = 10";
        let few = Scenario::parse("x", text).map(|s| s.check());
        assert!(few.is_ok_and(|checked| checked.is_err()));
    }
}
