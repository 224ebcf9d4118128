//! What came of a run: figures, a time series, and what did not hold.

use std::collections::BTreeMap;

use crate::ballots::RaceCourse;
use crate::loads::Served;

/// The overlay at a moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Seconds since the start.
    pub at_s: f64,
    /// Peers that run.
    pub online: u64,
    /// Those who serve.
    pub super_nodes: u64,
    /// Those in reserve.
    pub deputies: u64,
    /// Leaves with one home at least.
    pub homed: u64,
    /// Leaves, homed or not.
    pub leaves: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Bytes a second that a leaf sent, on average since the last sample.
    pub leaf_sends: f64,
    /// Bytes a second that a super-node sent, on average since the last sample.
    pub super_node_sends: f64,
    /// What super-nodes last told their cores of how busy they are, on average;
    /// 1: all of what is scarcest. 0 where there are no users.
    pub utilisation_mean: f64,
    /// The same of the busiest.
    pub utilisation_worst: f64,
    /// Super-nodes in each band of utilisation; see [`crate::loads::BANDS_MILLI`].
    pub utilisation_bands: [u64; 4],
}

/// What came of a run.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// The scenario.
    pub name: String,
    /// What it shows, in a line.
    pub about: String,
    /// Its seed.
    pub seed: u64,
    /// Peers at the start.
    pub peers: u32,
    /// Who served: pure, hybrid or elected, or a baseline, random or flat.
    pub topology: String,
    /// Hash of every event in order.
    pub digest: String,
    /// Events.
    pub events: u64,
    /// How long it was for the peers, seconds.
    pub virtual_s: f64,
    /// When everybody was first served, seconds.
    pub served_at_s: Option<f64>,
    /// How long it took after the last fault until everybody was served again
    /// and agreed on who serves, seconds.
    pub recovered_after_s: Option<f64>,
    /// Named figures.
    pub figures: BTreeMap<String, f64>,
    /// Messages and bytes by kind.
    pub traffic: BTreeMap<String, (u64, u64)>,
    /// The course of it.
    pub samples: Vec<Sample>,
    /// Operations of users: the seconds at which a slot of ten begins, how many
    /// were answered, and how many were not.
    pub requests: Vec<(f64, u64, u64)>,
    /// For each of these slots, how many operations users had nobody to ask for.
    pub unasked: Vec<u64>,
    /// The time under which each percent of reads stayed, milliseconds: the
    /// fastest, 99 between, the slowest. Empty without reads.
    pub read_ms: Vec<f64>,
    /// Reads that took no hop, one, two, and so on, until they were answered; the
    /// last: so many or more. A hop is a request that was sent because of another
    /// one (passed on, repeated, or hedged) and whose answer was waited for.
    pub hops: Vec<u64>,
    /// What each super-node did, most seats first.
    pub loads: Vec<Served>,
    /// A race, ballot by ballot: that of whom one asked for; else the
    /// first of an elected liar, or of one elected.
    pub race: Option<RaceCourse>,
    /// When what went wrong, seconds since the start.
    pub faults: Vec<(f64, String)>,
    /// What cores told, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
    /// What did not hold; empty: all did.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether all held that had to.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} · {} peers · {} · seed {} · digest {}",
            self.name, self.peers, self.topology, self.seed, self.digest
        )?;
        writeln!(
            f,
            "  {} events in {:.0} virtual seconds",
            self.events, self.virtual_s
        )?;
        let after = |f: &mut std::fmt::Formatter<'_>, what: &str, s: Option<f64>| match s {
            Some(s) => writeln!(f, "  {what} {s:.1} s"),
            None => Ok(()),
        };
        after(f, "everybody served after", self.served_at_s)?;
        after(f, "recovered within", self.recovered_after_s)?;
        for (name, value) in &self.figures {
            let name = name.replace('_', " ");
            match value.fract() == 0.0 {
                true => writeln!(f, "  {name}: {value:.0}")?,
                false => writeln!(f, "  {name}: {value:.2}")?,
            }
        }
        for violation in &self.violations {
            writeln!(f, "  DID NOT HOLD: {violation}")?;
        }
        match self.passed() {
            true => write!(f, "  all held"),
            false => write!(
                f,
                "  replay with: canopy-sim replay {} --seed {} --leaves {}",
                self.name, self.seed, self.peers
            ),
        }
    }
}
