//! Lists: what is hot, and what happened.

use std::time::Duration;

use canopy_proto::control as pb;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::super::control::show::{number, per_cent};
use super::super::human::{duration, short};
use super::draw::{heading, plain, scrolled};
use super::paint::{self, DIM};
use super::screen::Screen;
use crate::event::unix_ms;

/// Columns beside the name of a hot key and its bar.
const HOT: u16 = 11 + 8 + 8;
/// Columns of that bar.
const BAR: u16 = 12;
/// Columns of the time.
const AGO: u16 = 14;

/// Hot keys: kind by kind, the heaviest first.
pub(super) fn hot(frame: &mut Frame, area: Rect, screen: &mut Screen) {
    let parts = [Constraint::Length(1), Constraint::Fill(1)];
    let [head, list] = Layout::vertical(parts).areas(area);
    let wide = area.width.saturating_sub(HOT);
    let title = format!(
        "{:<11}{:<width$}{:>8}{:>8}",
        "KIND",
        "WHAT GAVE MOST WORK OF LATE",
        "A SECOND",
        "OF KIND",
        width = usize::from(wide)
    );
    frame.render_widget(heading(title, head), head);
    let chosen = screen.chosen();
    screen.offset = scrolled(screen.offset, chosen, list.height);
    let hot = screen.look.as_ref().map(|look| &look.hot);
    let Some(hot) = hot.filter(|hot| !hot.keys.is_empty()) else {
        return frame.render_widget(Paragraph::new("nothing was asked for of late"), list);
    };
    let shown = hot.keys.iter().enumerate().skip(screen.offset);
    let rows: Vec<Line> = shown
        .take(list.height.into())
        .map(|(index, key)| hot_row(key, hot, wide, index == chosen))
        .collect();
    frame.render_widget(Paragraph::new(rows), list);
}

fn hot_row(key: &pb::HotKey, hot: &pb::TopKeysReply, wide: u16, chosen: bool) -> Line<'static> {
    let name = match (key.kind.as_str(), key.what.as_str()) {
        ("term" | "topic", _) => format!("\"{}\"", key.id),
        (_, "") => short(&key.id).to_owned(),
        (_, what) => format!("{} {what}", short(&key.id)),
    };
    let total = hot.totals.iter().find(|total| total.kind == key.kind);
    let part = total.filter(|total| total.count > 0.0);
    let part = part.map_or_else(String::new, |total| {
        per_cent((key.count / total.count * 1e3).clamp(0.0, 1e3) as u32)
    });
    // Kinds count different things.
    let alike = hot.keys.iter().filter(|other| other.kind == key.kind);
    let most = alike.fold(0.0, |most, other| other.per_s.max(most));
    let bar = paint::bar(key.per_s, most, usize::from(BAR));
    let name = plain(&name, wide - BAR - 1);
    let mut style = Style::new();
    if chosen {
        style = style.add_modifier(Modifier::REVERSED);
    }
    let space = usize::from(wide - BAR).saturating_sub(name.width());
    Line::from(vec![
        Span::styled(format!("{:<11}", plain(&key.kind, 10)), DIM),
        Span::styled(name, style),
        " ".repeat(space).into(),
        Span::styled(
            format!("{bar:<0$}", usize::from(BAR)),
            Style::new().fg(Color::Yellow),
        ),
        format!("{:>8}{part:>8}", number(key.per_s)).into(),
    ])
}

/// Events, the latest first.
pub(super) fn events(frame: &mut Frame, area: Rect, screen: &mut Screen) {
    let parts = [Constraint::Length(1), Constraint::Fill(1)];
    let [head, list] = Layout::vertical(parts).areas(area);
    let title = format!("{:<14}WHAT HAPPENED, AS THE ASKED HOST SAW IT", "AGO");
    frame.render_widget(heading(title, head), head);
    if screen.events.is_empty() {
        return frame.render_widget(Paragraph::new("nothing has happened yet"), list);
    }
    let chosen = screen.chosen();
    screen.offset = scrolled(screen.offset, chosen, list.height);
    let now = unix_ms();
    let shown = screen.events.iter().enumerate().skip(screen.offset);
    let rows: Vec<Line> = shown
        .take(list.height.into())
        .map(|(index, event)| {
            let ago = Duration::from_millis(now.saturating_sub(event.at_ms));
            let mut style = Style::new().fg(mood(&event.name));
            if index == chosen {
                style = style.add_modifier(Modifier::REVERSED);
            }
            let text = plain(&event.text, area.width - AGO);
            Line::from(vec![
                Span::styled(format!("{:<14}", duration(ago)), DIM),
                Span::styled(text, style),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(rows), list);
}

/// Good, bad, or neither.
fn mood(name: &str) -> Color {
    match name {
        "super_node_up" | "election_closed" => Color::Green,
        "super_node_down" | "home_lost" | "warning" => Color::Red,
        "operated" | "role_changed" | "election_opened" => Color::Yellow,
        _ => Color::Reset,
    }
}
