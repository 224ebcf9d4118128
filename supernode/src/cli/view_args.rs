//! Flags of the commands that show where records and work lie.

use clap::{Args, ValueEnum};

use super::args::AskArgs;

/// Whether a command goes on asking.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct WatchFlag {
    /// Show it anew, every 2 seconds or so many, until interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub(super) watch: Option<u32>,
}

#[derive(Args, Debug)]
pub(super) struct ShardsArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// Only this one, with its owners: the two hexadecimal digits that its keys
    /// begin with, or one of its keys
    #[arg(value_name = "SHARD|KEY", conflicts_with_all = ["sort", "limit", "lacking"])]
    pub(super) shard: Option<String>,
    /// By what to order; what is a number comes with the largest first
    #[arg(long, value_enum, default_value_t = ShardSort::Operations)]
    pub(super) sort: ShardSort,
    /// How many to show at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) limit: u32,
    /// Only those that lack copies of records
    #[arg(long)]
    pub(super) lacking: bool,
}

/// Columns to order shards by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ShardSort {
    Operations,
    Records,
    Copies,
    Bytes,
    Owners,
    Shard,
}

impl ShardSort {
    /// In the words of the API, and whether the largest comes first.
    pub(super) fn order(self) -> (&'static str, bool) {
        match self {
            ShardSort::Operations => ("operations", true),
            ShardSort::Records => ("records", true),
            ShardSort::Copies => ("copies", true),
            ShardSort::Bytes => ("bytes", true),
            ShardSort::Owners => ("owners", true),
            ShardSort::Shard => ("shard", false),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct LeavesArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// Only those homed at this super-node: an id, or its first 8 digits or more
    #[arg(long, value_name = "ID")]
    pub(super) home: Option<String>,
    /// By what to order those that are shown
    #[arg(long, value_enum, default_value_t = LeafSort::Id)]
    pub(super) sort: LeafSort,
    /// How many to show at most, those with the lowest ids
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: u32,
}

/// Columns to order leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LeafSort {
    Id,
    /// The slowest first
    Rtt,
    /// Who came last first
    Since,
    /// Candidates first
    Candidate,
}

#[derive(Args, Debug)]
pub(super) struct HotArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// Only this kind: key, term, publisher, topic or flow [default: all]
    #[arg(value_name = "KIND")]
    pub(super) kind: Option<String>,
    /// How many of each kind to show at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) limit: u32,
}
