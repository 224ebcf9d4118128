//! Diagrams as SVG: a frame with axes and a legend, and marks in it. Knows
//! nothing of runs.

use std::fmt::Write;

use super::axis::{Axis, Scale};

/// Left of a frame: room for the labels of its axis. Right of it: room for half
/// a label of the other.
pub(super) const LEFT: f64 = 58.0;
pub(super) const RIGHT: f64 = 18.0;
/// Above a frame: title, and each line of the legend. Below: labels, caption.
const TITLE: f64 = 20.0;
const LEGEND: f64 = 16.0;
const FOOT: f64 = 48.0;
/// Room between the legend and the frame, for numbers of faults too.
const GAP: f64 = 16.0;
/// What a letter takes in width, parts of the size of its type: more than any of
/// the usual faces takes on average.
const LETTER: f64 = 0.56;
/// The size of labels, which is the page's.
pub(super) const SMALL: f64 = 11.0;

pub(super) const INK: &str = "#222222";
pub(super) const FAINT: &str = "#6b6b6b";
const GRID: &str = "#dddddd";
/// After Okabe and Ito, "Color Universal Design" (2008): told apart with every
/// kind of colour blindness.
pub(super) const BLUE: &str = "#0072b2";
pub(super) const SKY: &str = "#56b4e9";
pub(super) const GREEN: &str = "#009e73";
pub(super) const ORANGE: &str = "#e69f00";
pub(super) const RED: &str = "#d55e00";
pub(super) const PALE: &str = "#cfe3f1";

/// Something drawn in a frame, in the values of its axes.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        colour: &'static str,
        wide: f64,
        dashed: bool,
    },
    /// Between two lines: x, lower, upper.
    Area {
        points: Vec<(f64, f64, f64)>,
        colour: &'static str,
    },
    Bar {
        x: (f64, f64),
        to: f64,
        colour: &'static str,
    },
    /// Above its place by so many pixels.
    Dot {
        at: (f64, f64),
        above: f64,
        colour: &'static str,
    },
    /// As a dot; as wide as `size`, pixels.
    Cross {
        at: (f64, f64),
        above: f64,
        size: f64,
        colour: &'static str,
    },
    /// Above its place, by so many pixels.
    Text {
        at: (f64, f64),
        above: f64,
        anchor: &'static str,
        text: String,
        colour: &'static str,
    },
}

/// How a mark looks in the legend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sign {
    Line,
    Dashed,
    Box,
    Dot,
    Cross,
    None,
}

/// A diagram.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) legend: Vec<(Sign, &'static str, String)>,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) marks: Vec<Mark>,
    pub(super) height: f64,
    /// The faults of the run are shown in it: it is over time.
    pub(super) timeline: bool,
    /// Told where there are no marks.
    pub(super) empty: &'static str,
}

/// Where faults are drawn: at which values of x.
pub(super) type Faults<'a> = &'a [f64];

impl Panel {
    /// What the panel takes in height, `width` pixels wide.
    pub(super) fn takes(&self, width: f64) -> f64 {
        TITLE + LEGEND * self.legend_lines(width).len() as f64 + GAP + self.height + FOOT
    }

    /// Which entries are in which line of the legend.
    fn legend_lines(&self, width: f64) -> Vec<Vec<usize>> {
        let mut lines: Vec<Vec<usize>> = Vec::new();
        let mut used = f64::MAX;
        for (place, (.., name)) in self.legend.iter().enumerate() {
            let takes = entry_width(name);
            match lines.last_mut().filter(|_| used + takes <= width) {
                Some(line) => line.push(place),
                None => {
                    lines.push(vec![place]);
                    used = 0.0;
                }
            }
            used += takes;
        }
        lines
    }

    /// Draws the panel with the upper left corner of its room at (x, y), its
    /// frame `width` wide, ending `tall` below.
    pub(super) fn draw(
        &self,
        out: &mut String,
        (left, top): (f64, f64),
        (width, tall): (f64, f64),
        faults: Faults<'_>,
    ) {
        let x = left + LEFT;
        text(
            out,
            (x, top + 13.0),
            "start",
            (13.0, true),
            INK,
            &self.title,
        );
        let mut line_at = top + TITLE + 10.0;
        for line in self.legend_lines(width) {
            let mut at = x;
            for (sign, colour, name) in line.iter().map(|place| &self.legend[*place]) {
                entry(out, (at, line_at), *sign, colour, name);
                at += entry_width(name);
            }
            line_at += LEGEND;
        }
        let mut y_axis = self.y.clone();
        y_axis.round();
        let frame = Frame {
            x,
            y: top + tall - FOOT - self.height,
            width,
            height: self.height,
            axes: (&self.x, &y_axis),
        };
        frame.axes(out);
        for mark in &self.marks {
            frame.mark(out, mark);
        }
        if self.marks.is_empty() {
            let at = (x + width / 2.0, frame.y + self.height / 2.0);
            text(out, at, "middle", (12.0, false), FAINT, self.empty);
        }
        if self.timeline {
            frame.faults(out, faults);
        }
    }
}

/// Where a panel's marks go.
struct Frame<'a> {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    axes: (&'a Axis, &'a Axis),
}

impl Frame<'_> {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            self.x + self.width * self.axes.0.part(x),
            self.y + self.height * (1.0 - self.axes.1.part(y)),
        )
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (self.x + self.width, self.y + self.height);
        let (mut grid, mut marks) = (String::new(), String::new());
        for (value, name) in self.axes.1.ticks() {
            let y = self.at((0.0, value)).1;
            let _ = write!(grid, "M{:.1} {y:.1}H{right:.1}", self.x);
            label(out, (self.x - 6.0, y + 4.0), "end", &name);
        }
        for (value, name) in self.axes.0.ticks() {
            let x = self.at((value, 0.0)).0;
            if !matches!(self.axes.0.scale, Scale::Slots(_)) {
                let _ = write!(marks, "M{x:.1} {bottom:.1}v4");
            }
            label(out, (x, bottom + 16.0), "middle", &name);
        }
        let _ = write!(marks, "M{:.1} {bottom:.1}H{right:.1}", self.x);
        let _ = writeln!(out, "<path d=\"{grid}\" stroke=\"{GRID}\"/>");
        let _ = writeln!(out, "<path d=\"{marks}\" stroke=\"{FAINT}\"/>");
        let caption = (self.x + self.width / 2.0, bottom + 31.0);
        label(out, caption, "middle", &self.axes.0.caption);
    }

    fn mark(&self, out: &mut String, mark: &Mark) {
        match mark {
            Mark::Line {
                points,
                colour,
                wide,
                dashed,
            } => {
                let points: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
                // Of points on one level only the ends tell anything.
                let level = |i: usize| {
                    let near = points.get(i.wrapping_sub(1)..i + 2);
                    near.is_some_and(|near| near.iter().all(|(_, y)| *y == points[i].1))
                };
                let shown = (0..points.len()).filter(|i| !level(*i));
                let points: Vec<String> = shown.map(|i| place(points[i])).collect();
                let points = points.join(" ");
                let _ = writeln!(
                    out,
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
                     stroke-width=\"{wide}\" stroke-linejoin=\"round\"{}/>",
                    dashes(*dashed)
                );
            }
            Mark::Area { points, colour } => {
                let upper = points
                    .iter()
                    .map(|(x, _, high)| place(self.at((*x, *high))));
                let lower = points.iter().rev();
                let lower = lower.map(|(x, low, _)| place(self.at((*x, *low))));
                let points = upper.chain(lower).collect::<Vec<_>>().join(" ");
                let _ = writeln!(out, "<polygon points=\"{points}\" fill=\"{colour}\"/>");
            }
            Mark::Bar { x, to, colour } => {
                let (left, top) = self.at((x.0, *to));
                let (right, bottom) = self.at((x.1, self.axes.1.from));
                let _ = writeln!(
                    out,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                     fill=\"{colour}\"/>",
                    right - left,
                    bottom - top
                );
            }
            Mark::Dot { at, above, colour } => {
                let (x, y) = self.at(*at);
                dot(out, (x, y - above), colour);
            }
            Mark::Cross {
                at,
                above,
                size,
                colour,
            } => {
                let (x, y) = self.at(*at);
                cross(out, (x, y - above), *size, colour);
            }
            Mark::Text {
                at,
                above,
                anchor,
                text: what,
                colour,
            } => {
                let (x, y) = self.at(*at);
                text(out, (x, y - above), anchor, (SMALL, false), colour, what);
            }
        }
    }

    /// Dashed lines with numbers; those of faults close together share one.
    fn faults(&self, out: &mut String, faults: Faults<'_>) {
        let mut labels: Vec<(f64, usize, usize)> = Vec::new();
        for (fault, number) in faults.iter().zip(1..) {
            let (x, _) = self.at((*fault, 0.0));
            line(out, (x, self.y), (x, self.y + self.height), INK, 1.0, true);
            match labels.last_mut().filter(|last| x - last.0 < 20.0) {
                Some(last) => last.2 = number,
                None => labels.push((x, number, number)),
            }
        }
        for (x, first, last) in labels {
            let name = match first == last {
                true => first.to_string(),
                false => format!("{first}–{last}"),
            };
            text(out, (x, self.y - 4.0), "middle", (SMALL, true), INK, &name);
        }
    }
}

fn entry_width(name: &str) -> f64 {
    24.0 + text_width(name, SMALL) + 8.0
}

/// About what `text` takes in width.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER
}

fn entry(out: &mut String, (x, y): (f64, f64), sign: Sign, colour: &str, name: &str) {
    let middle = (x + 9.0, y - 4.0);
    let ends = ((x, y - 4.0), (x + 18.0, y - 4.0));
    match sign {
        Sign::Line => line(out, ends.0, ends.1, colour, 2.2, false),
        Sign::Dashed => line(out, ends.0, ends.1, colour, 2.2, true),
        Sign::Dot => dot(out, middle, colour),
        Sign::Cross => cross(out, middle, 6.0, colour),
        Sign::None => {}
        Sign::Box => {
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"13\" height=\"10\" fill=\"{colour}\"/>",
                x + 4.0,
                y - 9.0
            );
        }
    }
    text(out, (x + 23.0, y), "start", (SMALL, false), INK, name);
}

fn dot(out: &mut String, (x, y): (f64, f64), colour: &str) {
    let _ = writeln!(
        out,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.8\" fill=\"{colour}\"/>"
    );
}

fn cross(out: &mut String, (x, y): (f64, f64), size: f64, colour: &str) {
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1}l{size} {size}m0 -{size}l-{size} {size}\" stroke=\"{colour}\" \
         stroke-width=\"1.3\" fill=\"none\"/>",
        x - size / 2.0,
        y - size / 2.0
    );
}

fn line(out: &mut String, a: (f64, f64), b: (f64, f64), colour: &str, wide: f64, dashed: bool) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" \
         stroke-width=\"{wide}\"{}/>",
        a.0,
        a.1,
        b.0,
        b.1,
        dashes(dashed)
    );
}

fn dashes(dashed: bool) -> &'static str {
    match dashed {
        true => " stroke-dasharray=\"5 3\"",
        false => "",
    }
}

fn place((x, y): (f64, f64)) -> String {
    format!("{x:.1},{y:.1}")
}

/// Writes `what` as axes are labelled, in the page's own size and colour.
fn label(out: &mut String, (x, y): (f64, f64), anchor: &str, what: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(what)
    );
}

/// Writes `what` in letters of `size`, bold or not.
pub(super) fn text(
    out: &mut String,
    (x, y): (f64, f64),
    anchor: &str,
    (size, bold): (f64, bool),
    colour: &str,
    what: &str,
) {
    let weight = match bold {
        true => " font-weight=\"bold\"",
        false => "",
    };
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\"{weight} \
         fill=\"{colour}\">{}</text>",
        escaped(what)
    );
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}
