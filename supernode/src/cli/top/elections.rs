//! Elections: which there were, and how the chosen one went. Ballots stand on one
//! scale, what each says that the candidate carries: 0.7 of the jury times what
//! the juror measured. Their median is the score.

use std::time::Duration;

use canopy_proto::control as pb;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::control::show::rate;
use super::super::human::duration;
use super::draw::{heading, name, plain, scrolled};
use super::paint::{self, DIM};
use super::screen::Screen;
use crate::event::unix_ms;

/// Part of the jury's median that is the score.
const DISCOUNT: f64 = 0.7;
/// Rows of the list of elections.
const LISTED: u16 = 5;
/// Columns of id and score.
const BESIDE: u16 = 11 + 13;

pub(super) fn draw(frame: &mut Frame, area: Rect, screen: &mut Screen) {
    let parts = [
        Constraint::Length(1),
        Constraint::Length(LISTED),
        Constraint::Length(1),
        Constraint::Fill(1),
    ];
    let [head, list, scale, how] = Layout::vertical(parts).areas(area);
    let title = format!("{:>8}  {:<14}{:<9}REASON", "TERM", "OPENED", "ELECTED");
    frame.render_widget(heading(title, head), head);
    if screen.elections.is_empty() {
        let none = "no election is remembered by those who were reached";
        return frame.render_widget(Paragraph::new(none), list);
    }
    let chosen = screen.chosen();
    screen.offset = scrolled(screen.offset, chosen, list.height);
    let shown = screen.elections.iter().enumerate().skip(screen.offset);
    let rows: Vec<Line> = shown
        .take(list.height.into())
        .map(|(index, election)| row(election, index == chosen, area.width))
        .collect();
    frame.render_widget(Paragraph::new(rows), list);
    let term = screen.wanted_term();
    let explained = screen.explained.as_ref();
    let Some(of) = explained.filter(|of| Some(of.term) == term) else {
        return frame.render_widget(Paragraph::new("asking how it went…"), how);
    };
    let candidates = candidates(of);
    let range = Range::of(&candidates, how.width.saturating_sub(BESIDE));
    frame.render_widget(range.heading(scale), scale);
    let lines: Vec<Line> = candidates
        .iter()
        .flat_map(|one| one.lines(&range, how.width))
        .take(how.height.into())
        .collect();
    frame.render_widget(Paragraph::new(lines), how);
}

fn row(of: &pb::Election, chosen: bool, width: u16) -> Line<'static> {
    let ago = Duration::from_millis(unix_ms().saturating_sub(of.opened_ms));
    let elected = of.contenders.iter().filter(|one| one.elected).count();
    let state = match of.running {
        true => "running".to_owned(),
        false => elected.to_string(),
    };
    let text = format!(
        "{:>8}  {:<14}{state:<9}{}",
        of.term,
        format!("{} ago", duration(ago)),
        of.reason
    );
    let style = match chosen {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new(),
    };
    Line::styled(plain(&text, width), style)
}

/// Somebody who stood, and what was found.
struct Candidate {
    node_id: String,
    elected: bool,
    why: String,
    score_bps: f64,
    /// What each ballot says that it carries, bits a second.
    ballots: Vec<f64>,
}

/// Those who were measured first, in their order.
fn candidates(of: &pb::ExplainElectionReply) -> Vec<Candidate> {
    let mandate = |id: &str| of.mandates.iter().find(|mandate| mandate.node_id == id);
    let stood = of
        .elections
        .iter()
        .flat_map(|election| &election.contenders);
    let mut all: Vec<Candidate> = stood
        .map(|one| Candidate {
            node_id: one.node_id.clone(),
            elected: one.elected,
            why: one.why.clone(),
            score_bps: one.race.as_ref().map_or(0.0, |race| race.score_bps as f64),
            ballots: mandate(&one.node_id).map_or_else(Vec::new, worth),
        })
        .collect();
    // Where nobody remembers the race, the mandate tells.
    let known: Vec<String> = all.iter().map(|one| one.node_id.clone()).collect();
    let others = of
        .mandates
        .iter()
        .filter(|one| !known.contains(&one.node_id));
    all.extend(others.map(|mandate| Candidate {
        node_id: mandate.node_id.clone(),
        elected: true,
        why: mandate.basis.clone(),
        score_bps: mandate.capacity_bps as f64,
        ballots: worth(mandate),
    }));
    all.sort_by_key(|one| one.score_bps == 0.0 && !one.elected);
    all
}

fn worth(of: &pb::Mandate) -> Vec<f64> {
    let jury = of.ballots.len() as f64;
    let ballots = of.ballots.iter();
    ballots
        .map(|one| DISCOUNT * jury * one.goodput_bps as f64)
        .collect()
}

impl Candidate {
    /// A line with its ballots and score, and one with what became of it.
    fn lines(&self, range: &Range, width: u16) -> [Line<'static>; 2] {
        let colour = if self.elected {
            Color::Green
        } else {
            Color::DarkGray
        };
        let score = match self.score_bps {
            0.0 => "-".to_owned(),
            bps => rate(bps),
        };
        let mut columns = range.ballots(&self.ballots);
        if self.score_bps > 0.0 && self.ballots.is_empty() {
            columns = range.mark(self.score_bps);
        }
        let first = Line::from(vec![
            Span::styled(name(&self.node_id), Style::new().fg(colour)),
            format!("{score:>12} ").into(),
            Span::styled(columns, Style::new().fg(colour)),
        ]);
        let why = format!("{:<11}{}", "", readable(&self.why));
        [first, Line::styled(plain(&why, width), DIM)]
    }
}

/// Rates in words of the API as people read them.
fn readable(why: &str) -> String {
    let mut words: Vec<String> = why.split(' ').map(str::to_owned).collect();
    for place in 1..words.len() {
        if words[place] == "bit/s"
            && let Ok(bps) = words[place - 1].parse::<u64>()
        {
            words[place - 1] = rate(bps as f64);
            words[place].clear();
        }
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// A logarithmic scale over some columns.
struct Range {
    low: f64,
    high: f64,
    width: usize,
}

impl Range {
    fn of(candidates: &[Candidate], width: u16) -> Self {
        let all = candidates.iter();
        let values = all.flat_map(|one| one.ballots.iter().chain([&one.score_bps]));
        let values = values.copied().filter(|value| *value > 0.0);
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        Self {
            low: low.min(high).max(1.0) / 1.2,
            high: high.max(1.0) * 1.2,
            width: width.into(),
        }
    }

    fn column(&self, bps: f64) -> usize {
        let part = (bps.max(1.0) / self.low).ln() / (self.high / self.low).ln();
        let last = self.width.saturating_sub(1);
        ((part * last as f64).max(0.0).round() as usize).min(last)
    }

    fn ballots(&self, ballots: &[f64]) -> String {
        let columns: Vec<usize> = ballots.iter().map(|bps| self.column(*bps)).collect();
        paint::heights(&columns, self.width)
    }

    fn mark(&self, bps: f64) -> String {
        format!("{}|", " ".repeat(self.column(bps)))
    }

    fn heading(&self, area: Rect) -> Line<'static> {
        let (low, high) = (rate(self.low), rate(self.high));
        let title = "BALLOTS: WHAT EACH SAYS IT CARRIES";
        let room = self.width.saturating_sub(low.len() + high.len());
        let text = match title.len() + 2 <= room {
            true => format!("{low}{title:^room$}{high}"),
            false => format!("{low}{:^room$}{high}", "BALLOTS"),
        };
        heading(format!("{:<11}{:>12} {text}", "CANDIDATE", "SCORE"), area)
    }
}
