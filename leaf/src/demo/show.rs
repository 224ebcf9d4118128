//! What people see: lines that stay, and one line below them that moves.
//! Nothing here decides anything.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// Headings.
pub(super) const BOLD: Style = Style::new().bold();
/// What went well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What did not.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// What matters less.
pub(super) const DIM: Style = Style::new().dimmed();

const TEMPLATE: &str = "  {msg} {bar:40} {pos}/{len} {per_sec}";
const LIVE: &str = "  {spinner} {msg}";

/// Where the story of a demo goes. Colours are left out where the stream is no
/// terminal.
#[derive(Debug)]
pub struct Show {
    to: To,
    bar: Mutex<ProgressBar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Stdout,
    Stderr,
    Nowhere,
}

impl Show {
    /// To standard output, for people.
    pub fn stdout() -> Self {
        Self::new(To::Stdout)
    }

    /// To standard error: standard output is for the summary alone.
    pub fn stderr() -> Self {
        Self::new(To::Stderr)
    }

    /// Nowhere.
    pub fn nowhere() -> Self {
        Self::new(To::Nowhere)
    }

    fn new(to: To) -> Self {
        Self {
            to,
            bar: Mutex::new(ProgressBar::hidden()),
        }
    }

    /// A line that stays.
    pub(super) fn line(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        // A reader that went away is no reason to stop.
        self.bar.lock().suspend(|| match self.to {
            To::Stdout => anstream::println!("{text}"),
            To::Stderr => anstream::eprintln!("{text}"),
            To::Nowhere => {}
        });
    }

    /// A heading.
    pub(super) fn title(&self, text: impl AsRef<str>) {
        self.line(format!("\n{BOLD}{}{BOLD:#}", text.as_ref()));
    }

    /// A bar below the lines, in place of the one before.
    pub(super) fn progress(&self, what: &'static str, of: usize) -> ProgressBar {
        self.below(ProgressBar::new(of as u64), TEMPLATE, what)
    }

    /// A line below the lines whose message changes.
    pub(super) fn live(&self) -> ProgressBar {
        self.below(ProgressBar::new_spinner(), LIVE, "")
    }

    /// Takes the moving line away.
    pub(super) fn clear(&self) {
        self.bar.lock().finish_and_clear();
    }

    /// indicatif draws on a terminal only.
    fn below(&self, bar: ProgressBar, template: &str, message: &'static str) -> ProgressBar {
        bar.set_draw_target(match self.to {
            To::Stdout => ProgressDrawTarget::stdout(),
            To::Stderr => ProgressDrawTarget::stderr(),
            To::Nowhere => ProgressDrawTarget::hidden(),
        });
        // A wrong template would show in the test below; the default serves too.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        self.clear();
        *self.bar.lock() = bar.clone();
        bar
    }
}

/// `part` of `whole` as a bar of at most `width` columns.
pub(super) fn bar(part: f64, whole: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = match whole > 0.0 {
        true => (part / whole * width as f64 * 8.0).round() as usize,
        false => 0,
    };
    let eighths = eighths.min(width * 8);
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.push(EIGHTHS[eighths % 8]);
    }
    let used = eighths.div_ceil(8);
    text.extend(std::iter::repeat_n(' ', width - used));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moving_lines_are_well_formed() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        assert!(ProgressStyle::with_template(LIVE).is_ok());
    }

    #[test]
    fn a_bar_is_as_long_as_its_part_and_as_wide_as_its_column() {
        assert_eq!(bar(1.0, 2.0, 4), "██  ");
        assert_eq!(bar(5.0, 16.0, 2), "▋ ");
        assert_eq!(bar(9.0, 2.0, 2), "██");
        assert_eq!(bar(1.0, 0.0, 2), "  ");
    }
}
