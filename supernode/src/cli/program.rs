//! How a program starts and ends: arguments in, an exit code out.

use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use super::failure::{Failure, USAGE};

/// Parses the arguments, lets `dispatch` do what they say, and returns the
/// exit code.
pub fn run<C, F>(program: &str, dispatch: impl FnOnce(C) -> F) -> ExitCode
where
    C: Parser,
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error, program),
    };
    if let Err(failure) = log_to_stderr() {
        return failure.report(program);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::local(format!("cannot start the runtime: {error}")).report(program);
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(code) => code,
        Err(failure) => failure.report(program),
    }
}

/// Prints the completion script of a shell.
pub fn completions<C: CommandFactory>(shell: Shell, program: &str) {
    clap_complete::generate(shell, &mut C::command(), program, &mut std::io::stdout());
}

/// Help and version as they are; anything else on one line.
fn usage(error: &clap::Error, program: &str) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing can be told to whom nothing can be printed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => Failure::usage(one_line(&error.to_string())).report(program),
    }
}

/// What clap says, without the usage block.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let joined = lines.join(" ");
    let joined = joined.strip_prefix("error: ").unwrap_or(&joined);
    format!("{joined}; see --help")
}

/// Warnings and errors go to stderr; `CANOPY_LOG` changes what is logged.
fn log_to_stderr() -> Result<(), Failure> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("CANOPY_LOG") {
        Ok(asked) => EnvFilter::try_new(asked).map_err(|error| {
            Failure::usage(format!("CANOPY_LOG: {error}; write e.g. CANOPY_LOG=debug"))
        })?,
        Err(_) => EnvFilter::new("warn"),
    };
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    Ok(())
}

/// Resolves when the process is asked to end. Call it before anything is
/// started, so that a signal at the start is not lost.
///
/// # Errors
/// Signals cannot be caught.
pub fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
