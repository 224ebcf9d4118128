//! `supernode top`: the overlay on a terminal, live.
//!
//! | file | what it does |
//! |---|---|
//! | `feed` | asks the control plane, and tells the screen |
//! | `screen` | what is known and chosen; what a key does |
//! | `draw` | frame, figures on top, keys at the bottom |
//! | `load`, `shards`, `elections`, `lists` | the views |
//! | `paint` | bars with the bands, lines of the last minutes |

mod draw;
mod elections;
mod feed;
mod lists;
mod load;
mod paint;
mod screen;
mod shards;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use super::args::TopArgs;
use super::control::connect;
use super::failure::Failure;
use super::program::interrupted;
use screen::Screen;

/// News that wait for the screen; the feed waits when it is full.
const WAITING: usize = 64;
/// How often ages on the screen are brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// `supernode top`.
pub(super) async fn top(args: TopArgs) -> Result<ExitCode, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "`top` draws on a terminal, and this is none; for files and pipes use `supernode status` or `supernode members`, with --json for programs",
        ));
    }
    // What can fail is said before the screen is taken.
    let client = connect(&args.ask).await?;
    let stopped = interrupted()?;
    let (news, arrived) = mpsc::channel(WAITING);
    let (wanted, want) = watch::channel(None);
    let mut terminal = ratatui::try_init()?;
    let outcome = tokio::select! {
        outcome = show(&mut terminal, arrived, wanted, stopped) => outcome,
        // It ends only when the screen is gone.
        () = feed::run(client, args.interval, news, want) => Ok(()),
    };
    // Also after a failure; a panic restores the terminal by itself.
    let restored = ratatui::try_restore();
    outcome?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

/// Draws until it is told to end.
async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut arrived: mpsc::Receiver<feed::News>,
    wanted: watch::Sender<Option<u64>>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut screen = Screen::new();
    let mut keys = EventStream::new();
    let mut ticks = tokio::time::interval(TICK);
    tokio::pin!(stopped);
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut screen))?;
        tokio::select! {
            () = &mut stopped => return Ok(()),
            _ = ticks.tick() => {}
            news = arrived.recv() => match news {
                Some(news) => screen.take(news),
                // As above.
                None => return Ok(()),
            },
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if screen.press(key) {
                        return Ok(());
                    }
                }
                // Others, a new size among them, only call for a new frame.
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(_)) | None => return Ok(()),
            },
        }
        let term = screen.wanted_term();
        wanted.send_if_modified(|before| std::mem::replace(before, term) != term);
    }
}
