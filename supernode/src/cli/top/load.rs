//! Super-nodes, each with its load as a bar over the bands, and more of the chosen
//! one.

use std::time::Duration;

use canopy_proto::control as pb;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::control::show::{number, per_cent, rate};
use super::super::human::{bytes, duration};
use super::draw::{heading, name, plain, scrolled};
use super::paint::{self, Bands, DIM};
use super::screen::{Screen, utilisation};
use crate::event::unix_ms;

/// Columns beside the bar: id, per cent, capacity, leaves, operations, state.
const BESIDE: u16 = 11 + 7 + 13 + 7 + 9 + 11;
/// Lines about the chosen one.
const DETAILS: u16 = 4;

pub(super) fn draw(frame: &mut Frame, area: Rect, screen: &mut Screen) {
    let parts = [
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(DETAILS),
    ];
    let [head, list, details] = Layout::vertical(parts).areas(area);
    let wide = usize::from(area.width.saturating_sub(BESIDE).max(12));
    let bands = screen.look.as_ref().map(|look| look.bands);
    let bands = bands.unwrap_or_default();
    let columns = format!(
        "{:<11}{}{:>7}{:>13}{:>7}{:>9}  {}",
        "SUPER-NODE",
        paint::scale(bands, wide),
        "USE",
        "CAPACITY",
        "LEAVES",
        "OPS/S",
        "STATE"
    );
    frame.render_widget(heading(columns, head), head);
    let chosen = screen.chosen();
    screen.offset = scrolled(screen.offset, chosen, list.height);
    let nodes = screen.look.as_ref().map_or(&[][..], |look| &look.nodes);
    if nodes.is_empty() {
        let nobody = match screen.look {
            Some(_) => {
                "nobody serves: it takes four peers that can reach one another to elect somebody"
            }
            None => "",
        };
        return frame.render_widget(Paragraph::new(nobody), list);
    }
    let shown = nodes.iter().enumerate().skip(screen.offset);
    let shown = shown.take(list.height.into());
    let rows: Vec<Line> = shown
        .map(|(index, node)| row(node, bands, wide, index == chosen))
        .collect();
    frame.render_widget(Paragraph::new(rows), list);
    if let Some(node) = nodes.get(chosen) {
        frame.render_widget(Paragraph::new(about(node, details.width)), details);
    }
}

fn row(node: &pb::SuperNode, bands: Bands, wide: usize, chosen: bool) -> Line<'static> {
    let milli = utilisation(node);
    let figures = node.figures.as_ref();
    let told = |of: fn(&pb::Figures) -> String| figures.map_or_else(|| "-".to_owned(), of);
    let marked = match chosen {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new(),
    };
    let mut spans = vec![Span::styled(name(&node.node_id), marked)];
    spans.extend(paint::load(bands, milli, wide));
    spans.push(
        format!(
            "{:>7}{:>13}{:>7}{:>9}  ",
            milli.map_or_else(|| "-".to_owned(), per_cent),
            rate(node.capacity_bps as f64),
            told(|figures| figures.leaves.to_string()),
            told(|figures| number(figures.operations_per_s)),
        )
        .into(),
    );
    spans.push(Span::styled(plain(state(node), 9), DIM));
    Line::from(spans)
}

/// What is to be known of it in a word; what is worse goes first.
fn state(node: &pb::SuperNode) -> &str {
    let figures = node.figures.as_ref();
    let is = |what: fn(&pb::Figures) -> bool| figures.is_some_and(what);
    match node.state.as_str() {
        "serving" if figures.is_none() => "silent",
        "serving" if is(|figures| !figures.failure.is_empty()) => "store!",
        "serving" if is(|figures| figures.cordoned) => "cordoned",
        "serving" if is(|figures| figures.settling) => "settling",
        "serving" if is(|figures| figures.election > 0) => "electing",
        "serving" => "",
        state => state,
    }
}

/// More of the chosen one.
fn about(node: &pb::SuperNode, width: u16) -> Vec<Line<'static>> {
    let ends = Duration::from_millis(node.expires_ms.saturating_sub(unix_ms()));
    let domain = match node.domain.as_str() {
        "" => "a domain of its own",
        domain => domain,
    };
    let mandate = format!(
        "{}, {} in term {}, for {} more; {:.1} % of the keyspace; {domain}",
        node.node_id,
        node.basis,
        node.term,
        duration(ends),
        f64::from(node.share_ppm) / 1e4,
    );
    // An id is 64 digits: the rest has a line of its own.
    let (id, mandate) = mandate.split_once(", ").unwrap_or((&mandate, ""));
    let mut lines = vec![
        Line::styled(plain(id, width), DIM),
        plain(mandate, width).into(),
    ];
    let Some(figures) = &node.figures else {
        lines.push("it did not answer: nothing else is known".into());
        return lines;
    };
    if let Some(used) = figures.utilisation {
        let parts = [
            ("connections", used.connections_milli),
            ("operations", used.operations_milli),
            ("bytes", used.bytes_milli),
            ("memory", used.memory_milli),
            ("cpu", used.cpu_milli),
        ];
        let parts = parts.map(|(name, milli)| format!("{name} {}", per_cent(milli)));
        lines.push(plain(&parts.join(", "), width).into());
    }
    let held = format!(
        "{} records ({}), sends {}, up {}, {}{}",
        figures.records,
        bytes(figures.record_bytes),
        rate(figures.sent_bps),
        duration(Duration::from_millis(figures.uptime_ms)),
        figures.version,
        match figures.failure.as_str() {
            "" => String::new(),
            failure => format!("; its store failed: {failure}"),
        }
    );
    lines.push(plain(&held, width).into());
    lines
}
