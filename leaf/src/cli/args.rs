//! Flags and sub-commands.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use blake3::Hash;
use canopy_core::keyspace::NodeId;
use canopy_supernode::cli::flags::{HttpFlag, PeerFlags};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::failure::{EXIT_CODES, Failure};
use crate::demo::DemoArgs;
use crate::settings::{Bandwidth, Settings, parse_duration};

/// A leaf of a Canopy overlay: signed values, searchable items, and
/// super-nodes that the peers elect among themselves.
#[derive(Parser, Debug)]
#[command(name = "leaf", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Runs a leaf until it is interrupted
    Run(RunArgs),
    /// Writes a value under this leaf's id and a name
    Put(PutArgs),
    /// Prints a value, and nothing else
    Get(GetArgs),
    /// Removes a value of this leaf
    Rm(NameArgs),
    /// Makes files and folders searchable
    Publish(PublishArgs),
    /// Takes an item of this leaf out of the index
    Unpublish(NameArgs),
    /// Finds items by words, word*, and filters such as size>1000
    Search(SearchArgs),
    /// Shows which super-nodes a peer is homed at
    Locate(LocateArgs),
    /// Sends a message to one peer, sealed end to end
    Send(SendArgs),
    /// Prints the messages to this leaf as they come
    Listen(ListenArgs),
    /// Posts to all who subscribed to a topic
    Broadcast(BroadcastArgs),
    /// Prints the posts of a topic as they come
    Subscribe(SubscribeArgs),
    /// Shares a file or folder with all who know its hash, and prints that
    Share(ShareArgs),
    /// Shares a content no more
    Unshare(UnshareArgs),
    /// Lists what this leaf shares
    Shares(SharesArgs),
    /// Fetches what others share, from all who have some of it
    Fetch(FetchArgs),
    /// Joins standard input and output to those of another leaf's `pipe`
    #[command(visible_alias = "connect")]
    Pipe(PipeArgs),
    /// Measures the way to another leaf, and tells which it is
    Ping(PingArgs),
    /// Shows role, homes, super-nodes and the criteria of candidacy
    Status(StatusArgs),
    /// Runs a whole overlay in one process and kills super-nodes
    Demo(DemoArgs),
    /// Prints a completion script for a shell
    Completions(CompletionArgs),
}

/// What all commands that need a peer have in common.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) peer: PeerFlags,
    /// Address of the local gRPC API, loopback only
    #[arg(long, env = "CANOPY_API", value_name = "ADDR", hide_env_values = true)]
    api: Option<SocketAddr>,
    /// Link over relays only: no other leaf learns the address of this one
    #[arg(long, env = "CANOPY_RELAY_ONLY")]
    relay_only: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Common {
    /// The flags and the environment, over the configuration file.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let settings = self.peer.settings()?;
        Ok(Settings {
            api: self.api.or(settings.api),
            relay_only: self.relay_only.then_some(true).or(settings.relay_only),
            ..settings
        })
    }
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) http: HttpFlag,
    #[command(flatten)]
    pub(super) upload: UploadFlag,
}

/// The flag of commands that send content.
#[derive(Args, Debug)]
pub(super) struct UploadFlag {
    /// Rate at which content is sent to other leaves [default: the uplink]
    #[arg(
        long,
        env = "CANOPY_UPLOAD",
        value_name = "RATE",
        hide_env_values = true
    )]
    upload: Option<Bandwidth>,
}

impl UploadFlag {
    /// The flag, over the settings.
    pub(super) fn over(&self, settings: Settings) -> Settings {
        Settings {
            upload: self.upload.or(settings.upload),
            ..settings
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct ShareArgs {
    /// A file, or a folder with all in it
    pub(super) path: PathBuf,
    /// Share without a daemon: join by --peer and stay until interrupted
    #[arg(long)]
    pub(super) stay: bool,
    #[command(flatten)]
    pub(super) upload: UploadFlag,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct UnshareArgs {
    /// What `share` printed
    #[arg(value_name = "HASH")]
    pub(super) content: Hash,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct SharesArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct FetchArgs {
    /// What `share` printed
    #[arg(value_name = "HASH")]
    pub(super) content: Hash,
    /// File or folder to make [default: the first 16 digits of the hash]
    #[arg(long, value_name = "PATH")]
    pub(super) to: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct PutArgs {
    /// Name of the value
    pub(super) name: String,
    /// The value, at most 64 KiB; `-` reads standard input
    #[arg(allow_negative_numbers = true)]
    pub(super) value: String,
    /// How long it lives, up to 30d [default: while the daemon runs, and 3d after]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) ttl: Option<Duration>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// Name of the value
    pub(super) name: String,
    /// Who wrote it [default: this leaf]
    #[arg(long, value_name = "ID")]
    pub(super) publisher: Option<NodeId>,
    /// Be content with one owner's answer: faster, possibly stale
    #[arg(long)]
    pub(super) one: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// Its name
    pub(super) name: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct PublishArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Hidden and ignored files as well, except .git
    #[arg(long)]
    pub(super) all: bool,
    /// How long the items live, up to 30d [default: while the daemon runs, and 3d after]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) ttl: Option<Duration>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct SearchArgs {
    /// Words, word*, "quoted words", field=value, size>1000
    #[arg(required = true, value_name = "QUERY")]
    pub(super) query: Vec<String>,
    /// Most items to show
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) limit: u32,
    /// Go on after the page that ended with this cursor
    #[arg(long, value_name = "CURSOR")]
    pub(super) after: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct LocateArgs {
    /// Whom to find
    #[arg(value_name = "ID")]
    pub(super) node_id: NodeId,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    /// Whom to
    #[arg(value_name = "ID")]
    pub(super) to: NodeId,
    /// The message, at most 60 KiB; `-` reads standard input
    #[arg(default_value = "-", allow_negative_numbers = true)]
    pub(super) message: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct ListenArgs {
    /// End after so many messages [default: when interrupted]
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct BroadcastArgs {
    /// The topic, 1 to 256 bytes
    pub(super) topic: String,
    /// What to post, at most 32 KiB; `-` reads standard input
    #[arg(default_value = "-", allow_negative_numbers = true)]
    pub(super) message: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct SubscribeArgs {
    /// The topic, 1 to 256 bytes
    pub(super) topic: String,
    /// End after so many posts [default: when interrupted]
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct PipeArgs {
    /// Whom to reach; 64 hexadecimal digits
    #[arg(
        value_name = "ID",
        required_unless_present = "accept",
        conflicts_with = "accept"
    )]
    pub(super) node: Option<NodeId>,
    /// Wait for another leaf to reach this one instead
    #[arg(long)]
    pub(super) accept: bool,
    /// What the link is for: both sides give the same name
    #[arg(long, value_name = "NAME", default_value = "canopy/pipe/1")]
    pub(super) protocol: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct PingArgs {
    /// Whom to reach; 64 hexadecimal digits
    #[arg(value_name = "ID")]
    pub(super) node: NodeId,
    /// How many times
    #[arg(long, short, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) count: u32,
    /// Pause between them
    #[arg(long, short, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(super) interval: Duration,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Debug)]
pub(super) struct CompletionArgs {
    /// Which shell
    pub(super) shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Stand;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_flags_become_settings_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("leaf.toml");
        std::fs::write(&config, "zone = \"file\"\nnetwork = \"file\"\n").unwrap();
        let config = config.to_str().unwrap();
        let cli = Cli::try_parse_from([
            "leaf",
            "run",
            "--config",
            config,
            "--zone",
            "flag",
            "--uplink",
            "20 Mbit/s",
            "--peer",
            "127.0.0.1:1",
            "--peer",
            "127.0.0.1:2",
            "--stand",
            "never",
            "--relay-only",
            "--port-mapping",
            "--carriers",
            "false",
        ]);
        let Command::Run(args) = cli.unwrap().command else {
            panic!("another command");
        };
        let settings = args.common.settings().unwrap();
        assert_eq!(settings.zone.as_deref(), Some("flag"));
        assert_eq!(settings.network.as_deref(), Some("file"));
        assert_eq!(settings.uplink, Some(Bandwidth(20_000_000)));
        assert_eq!(settings.peers.len(), 2);
        assert_eq!(settings.stand, Some(Stand::Never));
        assert_eq!(settings.relay_only, Some(true));
        assert_eq!(settings.port_mapping, Some(true));
        assert_eq!(settings.carriers, Some(false));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            &["leaf", "run", "--uplink", "fast"][..],
            &["leaf", "run", "--peer", "nowhere"],
            &["leaf", "run", "--listen", "localhost"],
            &["leaf", "run", "--stand", "perhaps"],
            &["leaf", "run", "--unknown"],
            &["leaf", "put", "name"],
            &["leaf", "put", "a", "b", "--ttl", "30"],
            &["leaf", "get", "a", "--publisher", "me"],
            &["leaf", "search", "a", "--limit", "0"],
            &["leaf", "locate", "me"],
            &["leaf", "fetch", "it"],
            &["leaf", "share", "it", "--upload", "fast"],
            &["leaf", "publish"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert!(Cli::try_parse_from(["leaf", "put", "a", "-"]).is_ok());
        assert!(Cli::try_parse_from(["leaf", "put", "a", "-5"]).is_ok());
    }
}
