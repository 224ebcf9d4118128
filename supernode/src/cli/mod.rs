//! The `supernode` program of an operator, and what it shares with `leaf`.
//!
//! | module | what it does |
//! |---|---|
//! | [`program`] | arguments in, an exit code out; signals |
//! | [`flags`] | how a peer is set up |
//! | [`failure`] | one line an error, and its exit code |
//! | [`output`] | answers, events and notes |
//! | `args` | flags and sub-commands of `supernode` |
//! | `run`, `office` | `supernode run`, and the designation it holds |
//! | `operator` | `supernode operator-key` and `supernode designate` |

mod args;
pub mod failure;
pub mod flags;
mod office;
mod operator;
pub mod output;
pub mod program;
mod run;

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
        Command::Designate(args) => operator::designate(&args),
        Command::Completions(args) => {
            program::completions::<Cli>(args.shell, "supernode");
            Ok(ExitCode::SUCCESS)
        }
    }
}
