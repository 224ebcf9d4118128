//! `leaf demo`: a whole overlay in one process, told as it happens.
//!
//! Real peers, each with its own endpoint, store and line, elect their
//! super-nodes, publish real files, and lose some of the super-nodes while all
//! of them read. Nothing here may help the peers: they know what peers of
//! separate machines would know.
//!
//! | file | what it does |
//! |---|---|
//! | `draw` | what the seed decides |
//! | `fleet` | the peers: started, killed, closed |
//! | `watch` | listens to all of them |
//! | `settle` | waits for the overlay |
//! | `publish`, `load`, `find` | files go in, are read under load, and are looked for |
//! | `kill` | super-nodes die |
//! | `balance` | load against capacity |
//! | `summary` | what it came to |
//! | `doors` | where to look into it: dashboard, metrics, control plane |
//! | `show`, `tables` | how it looks |

mod balance;
mod doors;
mod draw;
mod find;
mod fleet;
mod kill;
mod load;
mod publish;
mod settle;
mod show;
mod story;
mod summary;
mod tables;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use canopy_supernode::control::ControlError;
use clap::Args;

use crate::builder::StartError;
use crate::cli::scan::ScanError;
use crate::settings::{Topology, parse_duration};

pub use show::Show;
pub use story::run;
pub use summary::{Elected, Summary};

/// Runs real peers in one process, lets them elect their super-nodes, and
/// kills some.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct DemoArgs {
    /// How many leaves to start
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub leaves: u32,
    /// Publish the files of this folder [default: the current one]
    #[arg(long, value_name = "PATH")]
    pub folder: Option<PathBuf>,
    /// How long all of them search, read and write, e.g. 30s or 5m
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How many super-nodes to kill without warning
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub kill: u32,
    /// Print the summary as one JSON object on the last line
    #[arg(long)]
    pub json: bool,
    /// Repeat the run with this seed
    #[arg(long)]
    pub seed: Option<u64>,
    /// Who serves
    #[arg(long, value_enum, default_value_t = Topology::Elected)]
    pub topology: Topology,
    /// Leave the peers up after the summary, until interrupted
    #[arg(long)]
    pub stay: bool,
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no place for the peers' files.
    #[error("cannot prepare the demo: {0}")]
    Home(String),
    /// A peer did not start.
    #[error(
        "peer {index} did not start: {error}; try fewer --leaves, or raise the limit of open files (ulimit -n)"
    )]
    Start {
        /// Its number.
        index: usize,
        /// Why.
        error: StartError,
    },
    /// The control plane of a peer cannot be opened.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The folder cannot be read.
    #[error("{0}")]
    Scan(#[from] ScanError),
    /// There is nothing to publish.
    #[error("no file in {path}; give another --folder", path = .0.display())]
    Empty(PathBuf),
    /// The peers elected nobody.
    #[error("nobody serves after {0:?}; try again with fewer --leaves on this machine")]
    NoElection(Duration),
    /// It was interrupted.
    #[error("interrupted")]
    Interrupted,
}
