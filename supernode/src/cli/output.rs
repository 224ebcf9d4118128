//! What the programs print: answers and events on standard output, notes beside
//! them; colour on a terminal only (the stream decides).

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::{Value as Json, json};

use super::failure::Failure;
use crate::event::{Event, EventKind};

/// What stands out.
pub const BOLD: Style = Style::new().bold();
/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Bad news.
pub const BAD: Style = AnsiColor::Red.on_default();

/// Prints text as it is.
///
/// # Errors
/// Standard output failed.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    write_to(anstream::stdout().lock(), text.as_bytes())
}

/// Prints one JSON value on a line.
///
/// # Errors
/// Standard output failed.
pub fn print_json(json: &Json) -> Result<ExitCode, Failure> {
    write_to(std::io::stdout().lock(), format!("{json}\n").as_bytes())
}

/// Writes all of `data`. Whoever reads may stop reading (`| head`): that is no
/// failure.
///
/// # Errors
/// The output failed otherwise.
pub fn write_to(mut out: impl Write, data: &[u8]) -> Result<ExitCode, Failure> {
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Something beside the answer, on standard error.
pub fn note(text: &str) {
    anstream::eprintln!("{text}");
}

/// One whole line. A daemon outlives whoever read its output.
pub fn print_line(out: &mut impl Write, line: &str) {
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the output");
    }
}

/// An event on a line of its own, for programs or for people.
pub fn print_event(out: &mut impl Write, of: &Event, as_json: bool) {
    let line = match as_json {
        true => serde_json::to_string(of).unwrap_or_else(|error| {
            json!({ "event": "warning", "message": error.to_string() }).to_string()
        }),
        false => event(of),
    };
    print_line(out, &line);
}

/// An event on one line.
pub fn event(event: &Event) -> String {
    let style = match &event.kind {
        EventKind::RoleChanged { .. } | EventKind::Operated { .. } | EventKind::Decreed { .. } => {
            BOLD
        }
        EventKind::SuperNodeUp { .. } | EventKind::ElectionClosed { .. } => GOOD,
        EventKind::SuperNodeDown { .. } | EventKind::Warning { .. } => BAD,
        _ => return event.kind.to_string(),
    };
    format!("{style}{}{style:#}", event.kind)
}
