//! Axes: how values become places, and where ticks stand.

/// How values become places.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scale {
    /// In proportion.
    Linear,
    /// Each factor of ten takes as much room.
    Log,
    /// One slot after the other, with these names; value i + 0.5 is the middle of
    /// slot i.
    Slots(Vec<String>),
}

/// One of the two axes of a frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) caption: String,
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Axis {
    pub(super) fn linear(caption: &str, from: f64, to: f64) -> Self {
        Self {
            caption: caption.into(),
            scale: Scale::Linear,
            from,
            to,
        }
    }

    /// Widens the axis to take in what `other` shows.
    pub(super) fn cover(&mut self, other: &Self) {
        if self.scale == other.scale {
            self.from = self.from.min(other.from);
            self.to = self.to.max(other.to);
        }
    }

    /// From 0 at the beginning to 1 at the end.
    pub(super) fn part(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
            _ => (value - self.from) / (self.to - self.from),
        };
        match part.is_finite() {
            true => part.clamp(0.0, 1.0),
            false => 0.0,
        }
    }

    fn step(&self) -> f64 {
        round_up((self.to - self.from) / 5.0)
    }

    /// Lets the axis end at one of its ticks.
    pub(super) fn round(&mut self) {
        if self.scale == Scale::Linear {
            let step = self.step();
            self.to = (self.to / step).ceil() * step;
        }
    }

    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match &self.scale {
            Scale::Linear => {
                let step = self.step();
                let first = (self.from / step).ceil() as i64;
                let last = (self.to / step + 1e-9).floor() as i64;
                let tick = |i: i64| (i as f64 * step, number(i as f64 * step));
                (first..=last).map(tick).collect()
            }
            Scale::Log => {
                let (first, last) = (self.from.log10().floor(), self.to.log10().floor());
                // Few decades leave room for what is between.
                let steps: &[f64] = match last - first < 3.0 {
                    true => &[1.0, 2.0, 5.0],
                    false => &[1.0],
                };
                let decades = (first as i32..=last as i32).map(|i| 10f64.powi(i));
                let ticks = decades.flat_map(|decade| steps.iter().map(move |s| s * decade));
                let shown = self.from * 0.999..=self.to * 1.001;
                let ticks = ticks.filter(|tick| shown.contains(tick));
                ticks.map(|tick| (tick, number(tick))).collect()
            }
            Scale::Slots(names) => {
                let middle = |(i, name): (usize, &String)| (i as f64 + 0.5, name.clone());
                names.iter().enumerate().map(middle).collect()
            }
        }
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let scale = 10f64.powi(value.log10().floor() as i32);
    let steps = [1.0, 2.0, 5.0].map(|step| step * scale);
    let fits = steps.into_iter().find(|step| value <= step * 1.000_001);
    fits.unwrap_or(10.0 * scale)
}

/// A number for people: no more digits than it takes, thousands apart.
pub(super) fn number(value: f64) -> String {
    let places = match value.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 1.0 => usize::from(value.fract().abs() > 0.05),
        _ => 2,
    };
    let text = format!("{value:.places$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("\u{2212}", digits),
        None => ("", whole),
    };
    let mut apart = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            apart.push('\u{a0}');
        }
        apart.push(digit);
    }
    let rest = rest.trim_end_matches('0');
    match rest.is_empty() {
        true => format!("{sign}{apart}"),
        false => format!("{sign}{apart}.{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        let steps = [0.03, 0.4, 1.0, 1.2, 4.0, 51.0, 100_000.0].map(round_up);
        let round = [0.05, 0.5, 1.0, 2.0, 5.0, 100.0, 100_000.0];
        for (step, expected) in steps.into_iter().zip(round) {
            assert!((step / expected - 1.0).abs() < 1e-9, "{step} {expected}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        let texts = [0.0, 0.5, 0.05, 2.0, 2.5, 1234.4, 1e6, -5.0].map(number);
        let expected = [
            "0",
            "0.5",
            "0.05",
            "2",
            "2.5",
            "1\u{a0}234",
            "1\u{a0}000\u{a0}000",
            "\u{2212}5",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn values_beyond_an_axis_stay_in_the_frame() {
        let mut axis = Axis::linear("", 0.0, 47.0);
        axis.round();
        assert_eq!(axis.to, 50.0);
        assert_eq!(
            (axis.part(-3.0), axis.part(25.0), axis.part(99.0)),
            (0.0, 0.5, 1.0)
        );
        let log = Axis {
            scale: Scale::Log,
            ..Axis::linear("", 1.0, 1000.0)
        };
        assert!((log.part(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((log.part(0.0), log.ticks().len()), (0.0, 4));
    }
}
