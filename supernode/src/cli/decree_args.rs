//! Flags of what an operator decrees for the whole overlay, and of the actions on
//! the number of super-nodes.

use std::path::PathBuf;

use canopy_core::keyspace::{Key, NodeId};
use clap::{Args, Subcommand, ValueEnum};

use super::args::AskArgs;
use super::view_args::WatchFlag;
use crate::designation::MAX_DAYS;
use crate::settings::Bandwidth;

/// With what a decree is signed, and for how long.
#[derive(Args, Debug)]
pub(super) struct SignArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The operator's secret key; it stays on this machine
    #[arg(
        long,
        env = "CANOPY_OPERATOR_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) operator_key: PathBuf,
    /// For how many days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub(super) days: u32,
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct BanArgs {
    #[command(flatten)]
    pub(super) sign: SignArgs,
    #[command(flatten)]
    pub(super) what: BanWhat,
    /// Why, for people: at most 200 bytes
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) reason: String,
}

#[derive(Args, Debug)]
pub(super) struct UnbanArgs {
    #[command(flatten)]
    pub(super) sign: SignArgs,
    #[command(flatten)]
    pub(super) what: BanWhat,
}

/// What is banned.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct BanWhat {
    /// A peer: no session, no mandate, no vote
    #[arg(long, value_name = "ID")]
    pub(super) peer: Option<NodeId>,
    /// All that a publisher has published
    #[arg(long, value_name = "ID")]
    pub(super) publisher: Option<NodeId>,
    /// What has this BLAKE3 hash: the value, its providers, items of it
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub(super) content: Option<Key>,
}

fn hash(text: &str) -> Result<Key, String> {
    let read: Result<NodeId, _> = text.parse();
    read.map(|id| Key(id.0))
        .map_err(|_| "a hash is of 64 hexadecimal digits".to_owned())
}

#[derive(Args, Debug)]
pub(super) struct UndesignateArgs {
    #[command(flatten)]
    pub(super) sign: SignArgs,
    /// The host that shall serve no more by designation
    #[arg(value_name = "ID")]
    pub(super) node: NodeId,
}

#[derive(Args, Debug)]
pub(super) struct DecreesArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// Only those about this
    #[arg(value_enum, value_name = "KIND")]
    pub(super) kind: Option<DecreeKind>,
}

/// What a decree is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DecreeKind {
    Policy,
    Host,
    Peer,
    Publisher,
    Content,
}

impl DecreeKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            DecreeKind::Policy => "policy",
            DecreeKind::Host => "host",
            DecreeKind::Peer => "peer",
            DecreeKind::Publisher => "publisher",
            DecreeKind::Content => "content",
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct PolicyArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The operator's secret key, to set something; it stays on this machine
    #[arg(
        long,
        env = "CANOPY_OPERATOR_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) operator_key: Option<PathBuf>,
    /// For how many days what is set holds
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub(super) days: u32,
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) set: PolicySet,
}

/// What a policy sets; what is not named stays as it is.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicySet {
    /// Begin with what is built in, not with the policy in force
    #[arg(long)]
    pub(super) reset: bool,
    /// Leaves a super-node
    #[arg(long, value_name = "COUNT")]
    pub(super) ratio: Option<u32>,
    /// How far that may stray, per cent
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    pub(super) band: Option<u32>,
    /// Elect one more above this utilisation, per cent
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    pub(super) grow: Option<u32>,
    /// Let one go below this utilisation, per cent
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    pub(super) shrink: Option<u32>,
    /// What the rest may carry after a failure domain is lost, per cent
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    pub(super) survive: Option<u32>,
    /// Super-nodes on one address
    #[arg(long, value_name = "COUNT")]
    pub(super) per_address: Option<u32>,
    /// Super-nodes in one network
    #[arg(long, value_name = "COUNT")]
    pub(super) per_network: Option<u32>,
}

/// Per cent, with up to one decimal, as thousandths.
fn per_cent(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let read: Option<f64> = number.parse().ok();
    match read.filter(|of| (0.0..=100.0).contains(of)) {
        Some(of) => Ok((of * 10.0).round() as u32),
        None => Err("give per cent, 0 to 100, e.g. 55 or 55%".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(super) struct ElectArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// How many super-nodes to elect
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) places: u32,
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    #[command(subcommand)]
    pub(super) change: PlanChange,
}

/// A change that is looked at before it is made.
#[derive(Subcommand, Debug)]
pub(super) enum PlanChange {
    /// Leaves go from hosts that have more than they are due to those that have less
    Level(AskArgs),
    /// A host lays its role down
    StepDown(PlannedNode),
    /// A host serves by designation
    Designate(PlannedHost),
    /// A host serves no more by designation
    Undesignate(PlannedNode),
    /// Elections go by another policy
    Policy(PlannedPolicy),
}

#[derive(Args, Debug)]
pub(super) struct PlannedNode {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The host
    #[arg(value_name = "ID")]
    pub(super) node: String,
}

#[derive(Args, Debug)]
pub(super) struct PlannedHost {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The host
    #[arg(long, value_name = "ID")]
    pub(super) node: NodeId,
    /// What it can send, e.g. "100 Mbit/s"
    #[arg(long, value_name = "RATE")]
    pub(super) capacity: Bandwidth,
    /// Failure domain, e.g. a rack [default: the host is one of its own]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) zone: String,
}

#[derive(Args, Debug)]
pub(super) struct PlannedPolicy {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) set: PolicySet,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// Of the plan, as `supernode plan` prints it
    #[arg(value_name = "VERSION")]
    pub(super) version: String,
    /// The operator's secret key, where the plan takes a decree; it stays on this
    /// machine
    #[arg(
        long,
        env = "CANOPY_OPERATOR_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) operator_key: Option<PathBuf>,
    /// For how many days such a decree holds
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub(super) days: u32,
    /// Even where fewer than three super-nodes would be left
    #[arg(long)]
    pub(super) force: bool,
    /// Only say whether it could be applied
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_cent_are_thousandths() {
        assert_eq!(per_cent("55"), Ok(550));
        assert_eq!(per_cent("62.5 %"), Ok(625));
        for wrong in ["", "x", "-1", "101", "NaN"] {
            assert!(per_cent(wrong).is_err(), "{wrong}");
        }
    }
}
