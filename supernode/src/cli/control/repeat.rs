//! Shows an answer once, or again and again.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::super::failure::Failure;
use super::super::output::{note, print, print_json};
use super::super::program::interrupted;
use super::super::view_args::WatchFlag;
use super::json;

/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// An answer, for programs and for people.
pub(super) struct Told {
    json: serde_json::Value,
    text: String,
    /// Beside the answer.
    note: Option<String>,
}

impl Told {
    pub(super) fn new(reply: &impl Serialize, text: String) -> Result<Self, Failure> {
        Ok(Self {
            json: json(reply)?,
            text,
            note: None,
        })
    }

    /// Says that more follows, nobody knows how much.
    pub(super) fn of_unknown(mut self, more: bool) -> Self {
        if more {
            self.note = Some("there are more; show them with --limit".to_owned());
        }
        self
    }

    /// Says that there is more than was asked for.
    pub(super) fn of_more(mut self, shown: usize, total: u32) -> Self {
        if shown < total as usize {
            self.note = Some(format!("{shown} of {total}; the rest with --limit"));
        }
        self
    }
}

/// Prints what `ask` brings: once, or every so often until interrupted. On a
/// terminal each takes the place of the one before; else one follows the other,
/// JSON on a line each.
pub(super) async fn show(
    flag: WatchFlag,
    as_json: bool,
    mut ask: impl AsyncFnMut() -> Result<Told, Failure>,
) -> Result<ExitCode, Failure> {
    let Some(seconds) = flag.watch else {
        return tell(&ask().await?, as_json, "");
    };
    let before = match std::io::stdout().is_terminal() {
        true => CLEAR,
        false => "\n",
    };
    let stopped = interrupted()?;
    tokio::pin!(stopped);
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds.into()));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = async {
            ticks.tick().await;
            ask().await
        };
        tokio::select! {
            () = &mut stopped => return Ok(ExitCode::SUCCESS),
            told = next => tell(&told?, as_json, before)?,
        };
    }
}

fn tell(told: &Told, as_json: bool, before: &str) -> Result<ExitCode, Failure> {
    if as_json {
        return print_json(&told.json);
    }
    let shown = print(&format!("{before}{}", told.text))?;
    if let Some(text) = &told.note {
        note(text);
    }
    Ok(shown)
}
