//! The keyspace as a heat map: a cell for each shard, the busier the fuller; the
//! chosen one in words.

use canopy_proto::control as pb;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::control::show::number;
use super::super::human::bytes;
use super::draw::{heading, plain};
use super::paint::DIM;
use super::screen::Screen;

/// Shards of a row: those of the same first five bits, so that all fit on the
/// smallest screen.
pub(super) const ACROSS: usize = 32;
/// From quiet to the busiest.
const HEAT: [(&str, Color); 6] = [
    ("··", Color::DarkGray),
    ("░░", Color::Green),
    ("▒▒", Color::Green),
    ("▓▓", Color::Green),
    ("▓▓", Color::Yellow),
    ("██", Color::Red),
];

pub(super) fn draw(frame: &mut Frame, area: Rect, screen: &Screen) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let [head, map, told] = Layout::vertical(rows).areas(area);
    let shards = screen.look.as_ref().map_or(&[][..], |look| &look.shards);
    let title = "     SHARDS OF THE KEYSPACE: ·· quiet  ░░ ▒▒ ▓▓ ██ asked for most".to_owned();
    frame.render_widget(heading(title, head), head);
    let busiest = shards.iter().map(|shard| shard.operations_per_s);
    let busiest = busiest.fold(0.0, f64::max);
    let chosen = screen.chosen();
    let lines: Vec<Line> = shards
        .chunks(ACROSS)
        .enumerate()
        .map(|(row, shards)| line(row * ACROSS, shards, busiest, chosen))
        .collect();
    frame.render_widget(Paragraph::new(lines), map);
    if let Some(shard) = shards.get(chosen) {
        frame.render_widget(Paragraph::new(about(shard, shards, told.width)), told);
    }
}

fn line(first: usize, shards: &[pb::Shard], busiest: f64, chosen: usize) -> Line<'static> {
    let mut spans = vec![Span::styled(format!("  {first:02x} "), DIM)];
    for (index, shard) in shards.iter().enumerate() {
        let (cell, colour) = heat(shard.operations_per_s, busiest);
        let mut style = Style::new().fg(colour);
        if shard.under_replicated {
            style = style.add_modifier(Modifier::UNDERLINED);
        }
        let cell = match first + index == chosen {
            true => "[]",
            false => cell,
        };
        spans.push(Span::styled(cell, style));
    }
    Line::from(spans)
}

/// By its root: a shard that is asked for a tenth as much is still to be seen.
fn heat(of: f64, busiest: f64) -> (&'static str, Color) {
    let part = if busiest > 0.0 {
        (of / busiest).sqrt()
    } else {
        0.0
    };
    HEAT[((part * (HEAT.len() - 1) as f64).round() as usize).min(HEAT.len() - 1)]
}

fn about(of: &pb::Shard, all: &[pb::Shard], width: u16) -> Vec<Line<'static>> {
    let lacking = all.iter().filter(|shard| shard.under_replicated).count();
    let held = all.iter().filter(|shard| shard.records > 0).count();
    let chosen = format!(
        "[] {:02x}: {}/s, {} records in {} copies ({}), {} owners, {} of them reached",
        of.shard,
        number(of.operations_per_s),
        of.records,
        of.copies,
        bytes(of.bytes),
        of.owners,
        of.reached,
    );
    let why = match of.why.as_str() {
        "" => String::new(),
        why => format!("   {why}"),
    };
    let state = match lacking {
        0 => format!("{held} shards hold records, and none lacks a copy"),
        lacking => {
            format!("{held} shards hold records; of {lacking} a copy may be missing (underlined)")
        }
    };
    let lines = ["", &chosen, &why, &state];
    lines.iter().map(|text| plain(text, width).into()).collect()
}
