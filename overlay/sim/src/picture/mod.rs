//! Pictures of runs, as SVG or PNG: of one run its course, how load, latency and
//! requests were distributed, and an election ballot by ballot; of several runs
//! the same side by side, to one scale.

mod axis;
mod ballots;
mod chart;
mod panels;
mod png;

use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use axis::number;
use chart::{FAINT, INK, LEFT, Panel, RED, RIGHT, SMALL, text, text_width};

use crate::report::Report;
use png::FONT;
pub use png::PngError;

/// Width of a frame where one run is drawn, and where several are.
const ONE: f64 = 470.0;
const SEVERAL: f64 = 330.0;
/// Height of a frame where several runs are drawn.
const LOW: f64 = 105.0;
const MARGIN: f64 = 16.0;
const ABOUT: f64 = 12.0;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// A file to draw into; its ending says as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFile {
    path: PathBuf,
    format: Format,
}

impl FromStr for PictureFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let format = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Format::Svg,
            Some("png") => Format::Png,
            _ => return Err("the name of a picture ends with .svg or .png".into()),
        };
        Ok(Self { path, format })
    }
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The picture cannot be turned into pixels.
    #[error(transparent)]
    Png(#[from] PngError),
}

impl PictureFile {
    /// Makes the file, so that nobody waits for a run whose picture has no place.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn make(&self) -> Result<(), PictureError> {
        let mut append = std::fs::OpenOptions::new();
        let made = append.append(true).create(true).open(&self.path);
        made.map(|_| ()).map_err(|error| self.unwritten(error))
    }

    /// Draws `reports` into it, as [`draw`] does.
    ///
    /// # Errors
    /// It cannot be written, or drawn.
    pub fn write(&self, reports: &[Report]) -> Result<(), PictureError> {
        let svg = draw(reports);
        let bytes = match self.format {
            Format::Svg => svg.into_bytes(),
            Format::Png => png::render(&svg)?,
        };
        std::fs::write(&self.path, bytes).map_err(|error| self.unwritten(error))
    }

    fn unwritten(&self, error: std::io::Error) -> PictureError {
        let path = self.path.display().to_string();
        PictureError::Write { path, error }
    }
}

/// Draws one run in two columns, or several from left to right with the same
/// axes; an SVG.
pub fn draw(reports: &[Report]) -> String {
    match reports {
        [report] => one(report),
        reports => several(reports),
    }
}

/// A column of panels under its headings.
struct Column<'a> {
    report: &'a Report,
    panels: Vec<Panel>,
}

fn one(report: &Report) -> String {
    let mut right = panels::distributions(report);
    right.extend(report.race.as_ref().map(ballots::panel));
    // Without users there is nothing but the course and the election.
    let shown = |panel: &Panel| !panel.marks.is_empty();
    let mut left = panels::timelines(report);
    left.retain(shown);
    right.retain(shown);
    let title = format!(
        "{} · {} · {} peers · seed {}",
        report.name, report.topology, report.peers, report.seed
    );
    let columns = [left, right].map(|panels| Column { report, panels });
    let height = |column: &Column<'_>| column.panels.iter().map(|p| p.takes(ONE)).sum::<f64>();
    let tall = columns.iter().map(height).fold(0.0, f64::max);
    let columns: Vec<Column<'_>> = columns
        .into_iter()
        .filter(|c| !c.panels.is_empty())
        .collect();
    let mut page = Page::new(&title, &[report], (columns.len(), ONE));
    for (place, column) in columns.iter().enumerate() {
        let mut y = page.top;
        for panel in &column.panels {
            let takes = panel.takes(ONE);
            page.panel(place, y, (panel, takes), column.report);
            y += takes;
        }
    }
    page.finish(tall)
}

fn several(reports: &[Report]) -> String {
    let mut columns: Vec<Column<'_>> = reports
        .iter()
        .map(|report| {
            let mut panels = panels::timelines(report);
            panels.extend(panels::distributions(report));
            panels.iter_mut().for_each(|panel| panel.height = LOW);
            Column { report, panels }
        })
        .collect();
    let title = reports.first().map_or_else(String::new, |report| {
        let Report {
            name, peers, seed, ..
        } = report;
        format!("{name} · {peers} peers · seed {seed}")
    });
    let all: Vec<&Report> = reports.iter().collect();
    let mut page = Page::new(&title, &all, (columns.len(), SEVERAL));
    for (place, report) in reports.iter().enumerate() {
        page.heading(place, report);
    }
    page.top += 50.0;
    let rows = columns
        .iter()
        .map(|column| column.panels.len())
        .min()
        .unwrap_or(0);
    let mut y = page.top;
    for row in 0..rows {
        same_axes(&mut columns, row);
        let panels = || columns.iter().map(|column| &column.panels[row]);
        if panels().all(|panel| panel.marks.is_empty()) {
            continue;
        }
        let takes = panels()
            .map(|panel| panel.takes(SEVERAL))
            .fold(0.0, f64::max);
        for (place, column) in columns.iter().enumerate() {
            page.panel(place, y, (&column.panels[row], takes), column.report);
        }
        y += takes;
    }
    let tall = y - page.top;
    page.finish(tall)
}

/// Gives the panels of one row the same axes.
fn same_axes(columns: &mut [Column<'_>], row: usize) {
    let Some((mut x, mut y)) = columns.first().map(|column| {
        let panel = &column.panels[row];
        (panel.x.clone(), panel.y.clone())
    }) else {
        return;
    };
    for column in columns.iter() {
        x.cover(&column.panels[row].x);
        y.cover(&column.panels[row].y);
    }
    for column in columns {
        let panel = &mut column.panels[row];
        panel.y.cover(&y);
        // Each has as many super-nodes as it has.
        if panel.timeline {
            panel.x.cover(&x);
        }
    }
}

/// What is drawn into.
struct Page {
    body: String,
    wide: f64,
    frame: f64,
    /// Where panels begin.
    top: f64,
}

impl Page {
    /// A page with its title, what the scenario shows, and its faults.
    fn new(title: &str, reports: &[&Report], (columns, frame): (usize, f64)) -> Self {
        let wide = 2.0 * MARGIN + columns as f64 * (LEFT + frame + RIGHT);
        let mut page = Self {
            body: String::new(),
            wide,
            frame,
            top: 30.0,
        };
        text(
            &mut page.body,
            (MARGIN, page.top),
            "start",
            (17.0, true),
            INK,
            title,
        );
        page.top += 6.0;
        if let Some(report) = reports.first() {
            page.line(&report.about, INK);
            let faults = report.faults.iter().zip(1..);
            let faults: Vec<String> = faults
                .map(|((at, what), place)| {
                    let s = (panels::minutes(report, *at) * 60.0).round() as i64;
                    format!("{place}: {what} at {}:{:02}", s / 60, s % 60)
                })
                .collect();
            if !faults.is_empty() {
                page.line(&format!("Faults: {}", faults.join("; ")), FAINT);
            }
            if let [report] = reports {
                let outcome = outcome(report);
                if !outcome.is_empty() {
                    page.line(&outcome, FAINT);
                }
                for violation in &report.violations {
                    page.line(&format!("Did not hold: {violation}"), RED);
                }
            }
        }
        page.top += 14.0;
        page
    }

    /// A line below the title, or as many as the text takes.
    fn line(&mut self, what: &str, colour: &str) {
        let mut line = String::new();
        for word in what.split(' ') {
            if !line.is_empty()
                && text_width(&line, ABOUT) + text_width(word, ABOUT) > self.wide - 3.0 * MARGIN
            {
                self.put(&line, colour);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.put(&line, colour);
    }

    fn put(&mut self, line: &str, colour: &str) {
        self.top += 16.0;
        text(
            &mut self.body,
            (MARGIN, self.top),
            "start",
            (ABOUT, false),
            colour,
            line,
        );
    }

    fn column(&self, place: usize) -> f64 {
        MARGIN + place as f64 * (LEFT + self.frame + RIGHT)
    }

    fn heading(&mut self, place: usize, report: &Report) {
        let x = self.column(place) + LEFT;
        let y = self.top + 14.0;
        text(
            &mut self.body,
            (x, y),
            "start",
            (16.0, true),
            INK,
            match report.topology.as_str() {
                "random" => "random hosts (baseline)",
                "flat" => "flat Kademlia (baseline)",
                topology => topology,
            },
        );
        let colour = match report.passed() {
            true => FAINT,
            false => RED,
        };
        text(
            &mut self.body,
            (x, y + 17.0),
            "start",
            (ABOUT, false),
            colour,
            &outcome(report),
        );
    }

    fn panel(&mut self, place: usize, y: f64, (panel, takes): (&Panel, f64), report: &Report) {
        let faults = report.faults.iter();
        let faults: Vec<f64> = faults.map(|(at, _)| panels::minutes(report, *at)).collect();
        let at = (self.column(place), y);
        panel.draw(&mut self.body, at, (self.frame, takes), &faults);
    }

    fn finish(self, tall: f64) -> String {
        let (wide, tall) = (self.wide, self.top + tall + MARGIN);
        let mut out = String::new();
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{tall:.0}\" \
             viewBox=\"0 0 {wide:.0} {tall:.0}\" font-family=\"{FONT}\" \
             font-size=\"{SMALL}\" fill=\"{FAINT}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>",
        );
        out + &self.body + "</svg>\n"
    }
}

/// How it went, in a line.
fn outcome(report: &Report) -> String {
    let mut told = Vec::new();
    let sum = |of: fn(&(f64, u64, u64)) -> u64| report.requests.iter().map(of).sum::<u64>();
    let unasked: u64 = report.unasked.iter().sum();
    let (answered, failed) = (sum(|slot| slot.1), sum(|slot| slot.2) + unasked);
    if answered + failed > 0 {
        let percent = 100.0 * failed as f64 / (answered + failed) as f64;
        told.push(format!("{} % of operations failed", number(percent)));
    }
    match (report.recovered_after_s, report.faults.is_empty()) {
        (Some(s), _) => told.push(format!("served again after {} s", number(s.round()))),
        (None, true) => {}
        (None, false) => told.push("never recovered".into()),
    }
    told.join(" · ")
}

#[cfg(test)]
mod tests;
