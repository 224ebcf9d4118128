//! The `supernode` program of an operator, and what it shares with `leaf`.
//!
//! | module | what it does |
//! |---|---|
//! | [`program`] | arguments in, an exit code out; signals |
//! | [`flags`] | how a peer is set up |
//! | [`failure`] | one line an error, and its exit code |
//! | [`output`] | answers, events and notes |
//! | [`table`], [`human`] | tables of 80 columns, numbers as people read them |
//! | `args`, `view_args`, `decree_args` | flags and sub-commands of `supernode` |
//! | `run`, `office` | `supernode run`, and the designation it holds |
//! | `operator` | `supernode operator-key` and `supernode designate` |
//! | `control` | commands that ask a running host's control plane |
//! | `top` | the overlay on a terminal, live |

mod args;
mod control;
mod decree_args;
pub mod failure;
pub mod flags;
pub mod human;
mod office;
mod operator;
pub mod output;
pub mod program;
mod run;
pub mod table;
mod top;
mod view_args;

use std::process::ExitCode;

use args::{Cli, Command};
use failure::Failure;

/// Parses the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    program::run("supernode", |cli: Cli| dispatch(cli.command))
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::OperatorKey(args) => operator::key(&args),
        Command::Designate(args) => match &args.output {
            Some(path) => operator::designate(&args, path),
            None => control::designate(*args).await,
        },
        Command::Undesignate(args) => control::undesignate(args).await,
        Command::Ban(args) => control::ban(args).await,
        Command::Unban(args) => control::unban(args).await,
        Command::Decrees(args) => control::decrees(args).await,
        Command::Policy(args) => control::policy(args).await,
        Command::Status(args) => control::status(args).await,
        Command::Top(args) => top::top(args).await,
        Command::Members(args) => control::members(args).await,
        Command::Elections(args) => control::elections(args).await,
        Command::Explain(args) => control::explain(args).await,
        Command::Locate(args) => control::locate(args).await,
        Command::Shards(args) => control::shards(args).await,
        Command::Leaves(args) => control::leaves(args).await,
        Command::Hot(args) => control::hot(args).await,
        Command::Events(args) => control::events(args).await,
        Command::Cordon(args) => control::cordon(args, true).await,
        Command::Uncordon(args) => control::cordon(args, false).await,
        Command::Drain(args) => control::drain(args).await,
        Command::Plan(args) => control::plan(*args).await,
        Command::Apply(args) => control::apply(args).await,
        Command::StepDown(args) => control::step_down(args).await,
        Command::Elect(args) => control::elect(args).await,
        Command::Completions(args) => {
            program::completions::<Cli>(args.shell, "supernode");
            Ok(ExitCode::SUCCESS)
        }
    }
}
