//! The `leaf` program: a daemon, and commands that talk to it.
//!
//! | module | what it does |
//! |---|---|
//! | `args` | flags and sub-commands |
//! | `daemon` | `leaf run` |
//! | `demo` | `leaf demo` |
//! | `backend` | finds the daemon, or joins for the moment |
//! | `commands`, `publish` | the other sub-commands |
//! | `routing` | messages and topics |
//! | `content` | `leaf share`, `unshare`, `shares` and `fetch` |
//! | `link` | `leaf pipe` and `leaf ping` |
//! | [`scan`] | files as items |
//! | `human` | output for people |
//! | `failure` | one line an error, and its exit code |

mod args;
mod backend;
mod commands;
mod content;
mod daemon;
mod demo;
mod failure;
mod human;
mod link;
mod publish;
mod routing;
pub mod scan;

use std::process::ExitCode;

use canopy_supernode::cli::program;

use args::{Cli, Command};
use failure::Failure;

/// Parses the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    program::run("leaf", |cli: Cli| dispatch(cli.command))
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => daemon::run(args).await,
        Command::Put(args) => commands::put(args).await,
        Command::Get(args) => commands::get(args).await,
        Command::Rm(args) => commands::remove(args).await,
        Command::Publish(args) => publish::publish(args).await,
        Command::Unpublish(args) => commands::unpublish(args).await,
        Command::Search(args) => commands::search(args).await,
        Command::Locate(args) => commands::locate(args).await,
        Command::Send(args) => routing::send(args).await,
        Command::Listen(args) => routing::listen(args).await,
        Command::Broadcast(args) => routing::broadcast(args).await,
        Command::Subscribe(args) => routing::subscribe(args).await,
        Command::Share(args) => content::share(args).await,
        Command::Unshare(args) => content::unshare(args).await,
        Command::Shares(args) => content::shares(args).await,
        Command::Fetch(args) => content::fetch(args).await,
        Command::Pipe(args) => link::pipe(args).await,
        Command::Ping(args) => link::ping(args).await,
        Command::Status(args) => commands::status(args).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Completions(args) => {
            program::completions::<Cli>(args.shell, "leaf");
            Ok(ExitCode::SUCCESS)
        }
    }
}
