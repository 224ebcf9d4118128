//! `leaf demo`: the story for people, or the summary for programs.

use std::process::ExitCode;

use super::commands::print;
use super::failure::Failure;
use crate::demo::{self, DemoArgs, DemoError, Show, Summary};

pub(super) async fn demo(args: DemoArgs) -> Result<ExitCode, Failure> {
    let show = match args.json {
        true => Show::stderr(),
        false => Show::stdout(),
    };
    let json = args.json;
    let mut printed = Ok(ExitCode::SUCCESS);
    let summary = demo::run(args, show, |summary| {
        if json {
            printed = print_summary(summary);
        }
    })
    .await?;
    printed?;
    match summary.is_whole() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::nothing(format!(
            "lost: {}",
            summary.lost.join("; ")
        ))),
    }
}

/// One line, and the last one.
fn print_summary(summary: &Summary) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(summary)
        .map_err(|error| Failure::local(format!("the summary cannot be written: {error}")))?;
    print(&format!("{text}\n"))
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Scan(_) | DemoError::Empty(_) => Self::usage(error.to_string()),
            DemoError::NoElection(_) => Self::unreachable(error.to_string()),
            DemoError::Home(_)
            | DemoError::Start { .. }
            | DemoError::Control(_)
            | DemoError::Interrupted => Self::local(error.to_string()),
        }
    }
}
