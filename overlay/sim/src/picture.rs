//! The course of runs as a picture, SVG: peers, super-nodes and requests over
//! time, the moments of faults drawn through all of them; a column a run, so
//! that topologies stand side by side.

use std::fmt::Write;

use crate::report::{Report, Sample};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 64.0;
const GAP: f64 = 34.0;
const TOP: f64 = 64.0;

/// Readable on white and on black, and told apart by those who see no red.
const BLUE: &str = "#3b82c4";
const ORANGE: &str = "#e08a1e";
const RED: &str = "#d1495b";
const GREY: &str = "#8a8f98";

/// A line of one panel.
struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// One diagram of a column.
struct Panel {
    title: &'static str,
    lines: Vec<Line>,
}

/// Draws `reports` from left to right, to one scale.
pub fn draw(reports: &[Report]) -> String {
    let columns: Vec<Vec<Panel>> = reports.iter().map(panels).collect();
    let rows = columns.first().map_or(0, Vec::len);
    let (wide, tall) = (
        LEFT + (WIDTH + LEFT) * reports.len() as f64,
        TOP + (HEIGHT + GAP) * rows as f64 + GAP,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {tall}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"{GREY}\">\n"
    );
    let end = reports.iter().map(|r| r.virtual_s).fold(1.0, f64::max);
    for row in 0..rows {
        let lines = columns.iter().filter_map(|column| column.get(row));
        let points = lines.flat_map(|panel| panel.lines.iter().flat_map(|line| &line.points));
        let most = round_up(points.map(|(_, y)| *y).fold(1.0, f64::max));
        let y = TOP + (HEIGHT + GAP) * row as f64;
        for (column, report) in reports.iter().enumerate() {
            let x = LEFT + (WIDTH + LEFT) * column as f64;
            if row == 0 {
                let title = format!(
                    "{} · {} · seed {}",
                    report.name, report.topology, report.seed
                );
                text(&mut out, (x, 20.0), "start", 15, &title);
            }
            if let Some(panel) = columns[column].get(row) {
                panel_at(&mut out, (x, y), panel, (end, most));
            }
            for (at, what) in &report.faults {
                let x = x + WIDTH * at / end;
                let _ = writeln!(
                    out,
                    "<line x1=\"{x:.1}\" y1=\"{y}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"{RED}\" \
                     stroke-dasharray=\"3 3\"><title>{}</title></line>",
                    y + HEIGHT,
                    escaped(what)
                );
                if row == 0 {
                    text(&mut out, (x, y - 6.0), "middle", 10, what);
                }
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

fn panels(report: &Report) -> Vec<Panel> {
    let line = |name, colour, of: fn(&Sample) -> u64| Line {
        name,
        colour,
        points: report
            .samples
            .iter()
            .map(|s| (s.at_s, of(s) as f64))
            .collect(),
    };
    let mut panels = vec![
        Panel {
            title: "peers",
            lines: vec![
                line("online", GREY, |s| s.online),
                line("leaves with a home", BLUE, |s| s.homed),
            ],
        },
        Panel {
            title: "super-nodes",
            lines: vec![
                line("in office", BLUE, |s| s.super_nodes),
                line("in reserve", ORANGE, |s| s.deputies),
            ],
        },
    ];
    if !report.requests.is_empty() {
        let requests = |of: fn(&(f64, u64, u64)) -> u64| {
            let per_s = report.requests.iter();
            per_s.map(|slot| (slot.0, of(slot) as f64 / 10.0)).collect()
        };
        panels.push(Panel {
            title: "operations a second",
            lines: vec![
                Line {
                    name: "answered",
                    colour: BLUE,
                    points: requests(|slot| slot.1),
                },
                Line {
                    name: "failed",
                    colour: RED,
                    points: requests(|slot| slot.2),
                },
            ],
        });
    }
    panels
}

fn panel_at(out: &mut String, (x, y): (f64, f64), panel: &Panel, (end, most): (f64, f64)) {
    let bottom = y + HEIGHT;
    for part in 0..=2 {
        let value = most * f64::from(part) / 2.0;
        let at = bottom - HEIGHT * f64::from(part) / 2.0;
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{at}\" x2=\"{}\" y2=\"{at}\" stroke=\"{GREY}\" \
             stroke-opacity=\"0.35\"/>",
            x + WIDTH
        );
        text(out, (x - 6.0, at + 4.0), "end", 11, &number(value));
    }
    for part in 0..=4 {
        let at = x + WIDTH * f64::from(part) / 4.0;
        let minutes = end / 60.0 * f64::from(part) / 4.0;
        let label = format!("{} min", number(minutes));
        text(out, (at, bottom + 14.0), "middle", 11, &label);
    }
    text(out, (x + 4.0, y + 12.0), "start", 12, panel.title);
    for (place, line) in panel.lines.iter().enumerate() {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(at, value)| {
                let (px, py) = (x + WIDTH * at / end, bottom - HEIGHT * value / most);
                format!("{px:.1},{py:.1}")
            })
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>",
            points.join(" "),
            line.colour
        );
        let at = (x + WIDTH - 4.0, y + 12.0 + 14.0 * place as f64);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{}\">{}</text>",
            at.0, at.1, line.colour, line.name
        );
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, what: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>",
        escaped(what)
    );
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let mut scale = 1.0;
    loop {
        for step in [1.0, 2.0, 5.0] {
            if value <= step * scale {
                return step * scale;
            }
        }
        scale *= 10.0;
    }
}

fn number(value: f64) -> String {
    match value.fract() == 0.0 || value >= 100.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let ends = [0.4, 1.0, 1.2, 4.0, 51.0, 100_000.0].map(round_up);
        assert_eq!(ends, [1.0, 1.0, 2.0, 5.0, 100.0, 100_000.0]);
    }

    #[test]
    fn a_picture_shows_every_run_and_its_faults() {
        let sample = |at_s| Sample {
            at_s,
            online: 30,
            ..Sample::default()
        };
        let report = |topology: &str| Report {
            name: "x<y".into(),
            topology: topology.into(),
            virtual_s: 60.0,
            samples: vec![sample(0.0), sample(60.0)],
            faults: vec![(30.0, "kill".into())],
            requests: vec![(10.0, 40, 1)],
            ..Report::default()
        };
        let svg = draw(&[report("pure"), report("elected")]);
        for part in ["x&lt;y · pure", "x&lt;y · elected", "kill", "failed"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("<polyline").count(), 12);
        assert!(svg.ends_with("</svg>\n"));
    }
}
