//! Flags and sub-commands of `supernode`.

use std::net::SocketAddr;
use std::path::PathBuf;

use canopy_core::keyspace::NodeId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::decree_args::{
    ApplyArgs, BanArgs, DecreesArgs, ElectArgs, PlanArgs, PolicyArgs, UnbanArgs, UndesignateArgs,
};
use super::flags::{HttpFlag, PeerFlags};
use super::view_args::{HotArgs, LeavesArgs, ShardsArgs, WatchFlag};
use crate::designation::MAX_DAYS;
use crate::settings::Bandwidth;

/// Printed below `supernode --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  there is no such super-node or election
  2  wrong flags, configuration or designation
  3  a peer's name has no address, or no host answers
  4  the host refused
  5  a file, a key, a port or the data directory cannot be used

Every flag with a CANOPY_* variable can be set in the environment; a flag goes
before the environment, and that before the file given with --config.
CANOPY_LOG sets what is logged to stderr, e.g. CANOPY_LOG=debug.";

/// An operator's host of a Canopy overlay: a super-node by the operator's
/// word, or one that stands for election at once.
#[derive(Parser, Debug)]
#[command(name = "supernode", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Runs a host until it is interrupted
    Run(Box<RunArgs>),
    /// Makes an operator key, and prints the public key that peers are given
    OperatorKey(KeyArgs),
    /// Has a host serve by the operator's word: through the overlay, or with -o as
    /// a file for the host
    Designate(Box<DesignateArgs>),
    /// Ends that: the host serves no more by designation
    Undesignate(UndesignateArgs),
    /// Bans a peer, a publisher or a content from the overlay
    Ban(BanArgs),
    /// Lifts a ban
    Unban(UnbanArgs),
    /// Lists what the operator decreed
    Decrees(DecreesArgs),
    /// Shows what elections go by, or sets it
    Policy(PolicyArgs),
    /// Shows the overlay in one page: who serves, how busy, how evenly
    Status(StatusArgs),
    /// Shows the overlay live on the terminal
    Top(TopArgs),
    /// Lists super-nodes and deputies
    Members(MembersArgs),
    /// Lists the last elections that super-nodes remember
    Elections(ElectionsArgs),
    /// Explains an election, why a super-node serves, or its share of the keys
    Explain(ExplainArgs),
    /// Shows who owns a key, and how a read of it would go
    Locate(LocateArgs),
    /// Shows how records and work are spread over the keyspace
    Shards(ShardsArgs),
    /// Lists leaves and their homes
    Leaves(LeavesArgs),
    /// Shows what gives most work now: keys, words, publishers, topics, relayed flows
    Hot(HotArgs),
    /// Shows what happened to the host and, as it saw it, to the overlay
    Events(EventsArgs),
    /// Has the host take on nothing new: no leaf, no mandate
    Cordon(ActArgs),
    /// Lets the host take on leaves and mandates again, also after a drain
    #[command(visible_alias = "resume")]
    Uncordon(ActArgs),
    /// Has the host hand over all it has and serve no more
    Drain(DrainArgs),
    /// Shows what a change would move and how evenly work would be spread then
    Plan(Box<PlanArgs>),
    /// Makes a change that was planned, if the overlay is as it was
    Apply(ApplyArgs),
    /// Has the host lay its role down; it may be elected again
    StepDown(DrainArgs),
    /// Has more super-nodes elected now, by the host that runs the next election
    Elect(ElectArgs),
    /// Prints a completion script for a shell
    Completions(CompletionArgs),
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) peer: PeerFlags,
    #[command(flatten)]
    pub(super) http: HttpFlag,
    /// Designation of this host, made with `supernode designate`; it is kept
    /// in the data directory
    #[arg(
        long,
        env = "CANOPY_DESIGNATION",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) designation: Option<PathBuf>,
    /// The operator's secret key: this host designates itself, and renews that
    #[arg(
        long,
        env = "CANOPY_OPERATOR_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) operator_key: Option<PathBuf>,
    /// Capacity that the host designates itself for [default: --uplink]
    #[arg(
        long,
        env = "CANOPY_CAPACITY",
        value_name = "RATE",
        requires = "operator_key",
        hide_env_values = true
    )]
    pub(super) capacity: Option<Bandwidth>,
    /// Where the control plane listens [default: a free port on loopback]
    #[arg(
        long,
        env = "CANOPY_CONTROL",
        value_name = "ADDR",
        hide_env_values = true
    )]
    pub(super) control: Option<SocketAddr>,
    /// Certificate chain and private key (PEM) of the control plane; needed to
    /// open it to other machines
    #[arg(
        long,
        env = "CANOPY_CONTROL_TLS",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) control_tls: Option<PathBuf>,
    /// Certificates (PEM) that vouch for those of callers, for lines of the access
    /// file that end with `certificate`
    #[arg(
        long,
        env = "CANOPY_CONTROL_CLIENT_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) control_client_ca: Option<PathBuf>,
    /// Who may call the control plane: lines of `NAME view|operate TOKEN`; needed
    /// to open it to other machines
    #[arg(
        long,
        env = "CANOPY_CONTROL_ACCESS",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) control_access: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Whom a command asks, and how it prints the answer.
#[derive(Args, Debug)]
pub(super) struct AskArgs {
    /// The control plane to ask, HOST:PORT [default: that of the host that runs
    /// here]
    #[arg(
        long,
        env = "CANOPY_CONTROL",
        value_name = "ADDR",
        hide_env_values = true
    )]
    pub(super) control: Option<String>,
    /// Ask over TLS; certificates (PEM) that vouch for the control plane's
    #[arg(
        long,
        env = "CANOPY_CONTROL_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) ca: Option<PathBuf>,
    /// File with the token to show
    #[arg(
        long,
        env = "CANOPY_CONTROL_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) token_file: Option<PathBuf>,
    /// Client certificate and its private key (PEM, mode 600) to show, with --ca
    #[arg(
        long,
        env = "CANOPY_CONTROL_CLIENT_CERT",
        value_name = "FILE",
        requires = "ca",
        hide_env_values = true
    )]
    pub(super) client_cert: Option<PathBuf>,
    /// Data directory of the host to ask
    #[arg(
        long,
        env = "CANOPY_DATA_DIR",
        value_name = "PATH",
        conflicts_with = "control",
        hide_env_values = true
    )]
    pub(super) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
}

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// Milliseconds between two looks
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(500..=60_000))]
    pub(super) interval: u32,
}

#[derive(Args, Debug)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// Only this one: an id, or its first 8 digits or more
    #[arg(value_name = "ID")]
    pub(super) node: Option<String>,
    /// By what to order; what is a number comes with the largest first
    #[arg(long, value_enum, default_value_t = Sort::Capacity)]
    pub(super) sort: Sort,
    /// How many to show at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: u32,
}

#[derive(Args, Debug)]
pub(super) struct ElectionsArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
    /// How many to show at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
}

#[derive(Args, Debug)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// Go on with what happens, until interrupted or the host ends
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what came after this revision
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(super) after: u64,
}

#[derive(Args, Debug)]
pub(super) struct ActArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The host that is meant, or the first 8 digits of its id: a safeguard
    #[arg(value_name = "ID")]
    pub(super) node: Option<String>,
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) act: ActArgs,
    /// Even where fewer than three super-nodes would be left
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// A term (decimal), or a super-node's id or its first 8 digits or more
    #[arg(value_name = "TERM|ID")]
    pub(super) which: String,
    /// Show every ballot
    #[arg(long)]
    pub(super) ballots: bool,
    /// Explain a super-node's share of the keyspace: seats, neighbours, and what
    /// would move if it left
    #[arg(long, conflicts_with = "ballots")]
    pub(super) placement: bool,
}

#[derive(Args, Debug)]
pub(super) struct LocateArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) what: LocateWhat,
}

/// What a key is of.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct LocateWhat {
    /// The key itself, 64 hexadecimal digits
    #[arg(value_name = "KEY")]
    pub(super) key: Option<String>,
    /// A value of a publisher
    #[arg(long, num_args = 2, value_names = ["PUBLISHER", "NAME"])]
    pub(super) value: Option<Vec<String>>,
    /// A value by its hash
    #[arg(long, value_name = "HASH")]
    pub(super) content: Option<String>,
    /// Who provides this content
    #[arg(long, value_name = "HASH")]
    pub(super) provider: Option<String>,
    /// A word of searchable items
    #[arg(long, value_name = "WORD")]
    pub(super) term: Option<String>,
    /// Where a peer is found
    #[arg(long, value_name = "ID")]
    pub(super) node: Option<String>,
}

/// Columns to order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Capacity,
    Utilisation,
    Operations,
    Records,
    Leaves,
    Seats,
    Domain,
    Term,
    Expires,
    Id,
}

#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    /// Where the secret key goes; an existing file is never replaced
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Print the public key of a file that exists
    #[arg(long)]
    pub(super) show: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DesignateArgs {
    /// The operator's secret key
    #[arg(
        long,
        env = "CANOPY_OPERATOR_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) operator_key: PathBuf,
    /// The host's id, as `supernode run` prints it
    #[arg(long, value_name = "ID")]
    pub(super) node: NodeId,
    /// What the host can send, e.g. "100 Mbit/s"; its share of the keys follows
    #[arg(long, value_name = "RATE")]
    pub(super) capacity: Bandwidth,
    /// Name of the overlay, of a file [default: canopy]
    #[arg(
        long,
        env = "CANOPY_NETWORK",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub(super) network: Option<String>,
    /// For how many days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub(super) days: u32,
    /// Failure domain, e.g. a rack [default: the host is one of its own]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) zone: String,
    /// Write a file for `supernode run --designation`, and ask no host; replaces an
    /// older one
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Only say what would change
    #[arg(long, conflicts_with = "output")]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Args, Debug)]
pub(super) struct CompletionArgs {
    /// Which shell
    pub(super) shell: Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let node = "ab".repeat(32);
        let designate = |days| {
            let mut line = vec!["supernode", "designate", "--operator-key", "k", "-o", "d"];
            line.extend(["--capacity", "1 Gbit/s", "--node", &node, "--days", days]);
            Cli::try_parse_from(line)
        };
        assert!(designate("400").is_ok());
        assert!(designate("401").is_err() && designate("0").is_err());
        for wrong in [
            &["supernode"][..],
            &["supernode", "run", "--capacity", "1 Gbit/s"],
            &["supernode", "run", "--uplink", "fast"],
            &["supernode", "run", "--api", "127.0.0.1:1"],
            &["supernode", "designate", "--node", "me"],
            &["supernode", "ban", "--operator-key", "k"],
            &["supernode", "ban", "--peer", "short", "--operator-key", "k"],
            &[
                "supernode",
                "unban",
                "--content",
                "xy",
                "--operator-key",
                "k",
            ],
            &["supernode", "undesignate", &node],
            &["supernode", "policy", "--grow", "120"],
            &["supernode", "elect", "17"],
            &["supernode", "operator-key"],
            &["supernode", "members", "--limit", "0"],
            &["supernode", "locate"],
            &["supernode", "locate", "--term", "a", "--node", "b"],
            &["supernode", "explain"],
            &["supernode", "top", "--interval", "499"],
            &["supernode", "members", "--sort", "size"],
            &["supernode", "members", "--watch=0"],
            &["supernode", "shards", "--limit", "257"],
            &["supernode", "shards", "3f", "--lacking"],
            &["supernode", "hot", "--limit", "0"],
            &["supernode", "leaves", "--sort", "age"],
            &["supernode", "explain", "3", "--placement", "--ballots"],
            &["supernode", "status", "--control", "1", "--data-dir", "x"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
