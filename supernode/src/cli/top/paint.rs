//! Bars with the bands of load, and lines of the last minutes. Colour helps, and
//! nothing depends on it.

use canopy_core::election::law::LawConfig;
use canopy_proto::control as pb;
use ratatui::style::{Color, Style};
use ratatui::text::Span;

/// What matters less.
pub(super) const DIM: Style = Style::new().fg(Color::DarkGray);

/// Eighths of a row, from nothing up.
const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Eighths of a column.
const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The bands of load: thousandths where the overlay shrinks below, grows above,
/// and what a loss may leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bands {
    shrink: u32,
    grow: u32,
    survive: u32,
}

impl Default for Bands {
    /// Without an operator's policy.
    fn default() -> Self {
        let law = LawConfig::default();
        let small = |milli| u32::try_from(milli).unwrap_or(u32::MAX);
        Self {
            shrink: small(law.shrink_milli),
            grow: small(law.grow_milli),
            survive: small(law.survive_milli),
        }
    }
}

impl Bands {
    /// Those of the policy that is in force.
    pub(super) fn of(policy: &pb::Policy) -> Self {
        let usual = Self::default();
        Self {
            shrink: policy.shrink_milli.unwrap_or(usual.shrink),
            grow: policy.grow_milli.unwrap_or(usual.grow),
            survive: policy.survive_milli.unwrap_or(usual.survive),
        }
    }

    fn marks(self) -> [u32; 3] {
        [self.shrink, self.grow, self.survive]
    }

    /// The colour of a load, thousandths.
    fn colour(self, milli: u32) -> Color {
        match milli {
            milli if milli < self.shrink => Color::Cyan,
            milli if milli <= self.grow => Color::Green,
            milli if milli <= self.survive => Color::Yellow,
            _ => Color::Red,
        }
    }
}

/// `part` of `whole` in `width` columns, without what is empty.
pub(super) fn bar(part: f64, whole: f64, width: usize) -> String {
    let share = if whole > 0.0 { part / whole } else { 0.0 };
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    bar
}

/// A load over `width` columns, with the bands drawn where it does not reach them.
pub(super) fn load(bands: Bands, milli: Option<u32>, width: usize) -> Vec<Span<'static>> {
    let full = milli.map_or_else(String::new, |milli| bar(milli.into(), 1000.0, width));
    let used = full.chars().count();
    let marks = bands.marks().map(|mark| mark as usize * width / 1000);
    let rest = (used..width).map(|column| match marks.contains(&column) {
        true => '┊',
        false if milli.is_none() => '?',
        false => '·',
    });
    let style = Style::new().fg(bands.colour(milli.unwrap_or(0)));
    vec![
        Span::styled(full, style),
        Span::styled(rest.collect::<String>(), DIM),
    ]
}

/// The scale above such bars.
pub(super) fn scale(bands: Bands, width: usize) -> String {
    let mut scale = vec![' '; width];
    let marks = bands
        .marks()
        .map(|mark| (mark as usize * width / 1000, format!("{}%", mark / 10)));
    for (column, text) in std::iter::once((0, "0".to_owned())).chain(marks) {
        for (place, c) in scale.iter_mut().skip(column).zip(text.chars()) {
            *place = c;
        }
    }
    scale.into_iter().collect()
}

/// The last values as a line, scaled to the largest.
pub(super) fn line<'a>(values: impl DoubleEndedIterator<Item = &'a f64>, width: usize) -> String {
    let last: Vec<f64> = values.rev().take(width).copied().collect();
    let most = last.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = |value: &f64| {
        let eighths = (value / most * 8.0).round().clamp(0.0, 8.0);
        STEPS[eighths as usize]
    };
    let mut line = " ".repeat(width - last.len());
    line.extend(last.iter().rev().map(step));
    line
}

/// How often values fall into each of `width` columns, as a row of heights.
pub(super) fn heights(columns: &[usize], width: usize) -> String {
    let mut counts = vec![0_usize; width];
    for column in columns {
        if let Some(count) = counts.get_mut(*column) {
            *count += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let step = |count: &usize| match count {
        0 => ' ',
        count => STEPS[(count * 8).div_ceil(most).min(8)],
    };
    counts.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_reaches_as_far_as_its_load_and_the_bands_are_behind_it() {
        let text = |milli, width| -> String {
            let spans = load(Bands::default(), milli, width);
            spans.iter().map(|span| span.content.as_ref()).collect()
        };
        assert_eq!(text(Some(0), 20), "·····┊······┊·····┊·");
        assert_eq!(text(Some(500), 20), "██████████··┊·····┊·");
        assert_eq!(text(Some(1500), 4), "████");
        assert_eq!(text(None, 8), "??┊?┊??┊");
        assert_eq!(scale(Bands::default(), 24), "0     25%     60%    90%");
    }

    #[test]
    fn a_line_is_scaled_to_its_largest_and_ends_with_the_latest() {
        assert_eq!(line([0.0, 4.0, 8.0].iter(), 4), "  ▄█");
        assert_eq!(line([1.0, 2.0, 4.0].iter(), 2), "▄█");
        assert_eq!(line([0.0; 3].iter(), 3), "   ");
        assert_eq!(heights(&[1, 1, 3, 9], 4), " █ ▄");
    }
}
