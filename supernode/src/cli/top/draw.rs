//! The frame: the overlay's figures on top, a view, and the keys at the bottom.

use canopy_proto::control as pb;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::control::show::{number, per_cent, rate};
use super::super::human::short;
use super::super::table::cut;
use super::feed::Look;
use super::paint::{self, DIM};
use super::screen::{Screen, View};
use super::{elections, lists, load, shards};
use crate::event::unix_ms;

/// The smallest screen that everything fits on.
const SMALLEST: (u16, u16) = (60, 16);
/// Answers older than this are said to be old.
const OLD_MS: u64 = 10_000;

/// What stands out.
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, screen: &mut Screen) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text = format!("this terminal is too small: {width} x {height} at least; q quits");
        return frame.render_widget(Paragraph::new(text), area);
    }
    let rows = [
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [head, figures, view, keys] = Layout::vertical(rows).areas(area);
    frame.render_widget(
        Paragraph::new(vec![title(screen, head.width), tabs(screen)]),
        head,
    );
    frame.render_widget(Paragraph::new(summary(screen, figures.width)), figures);
    match screen.view {
        View::Load => load::draw(frame, view, screen),
        View::Shards => shards::draw(frame, view, screen),
        View::Hot => lists::hot(frame, view, screen),
        View::Elections => elections::draw(frame, view, screen),
        View::Events => lists::events(frame, view, screen),
    }
    frame.render_widget(Paragraph::new(help(screen)), keys);
}

/// Text from a peer on `width` columns.
pub(super) fn plain(text: &str, width: u16) -> String {
    cut(text, width.into())
}

/// Lines from `offset` on that keep row `chosen` on a screen of `height` rows.
pub(super) fn scrolled(offset: usize, chosen: usize, height: u16) -> usize {
    let height = usize::from(height).max(1);
    offset.clamp((chosen + 1).saturating_sub(height), chosen)
}

fn title(screen: &Screen, width: u16) -> Line<'static> {
    let Some(look) = &screen.look else {
        let waiting = screen
            .trouble
            .as_deref()
            .unwrap_or("looking at the overlay…");
        return Line::from(vec![
            Span::styled("canopy  ", BOLD),
            plain(waiting, width - 8).into(),
        ]);
    };
    let of = &look.overview;
    let counts = of.counts.unwrap_or_default();
    let mut said = format!("{} serve", counts.super_nodes);
    for (count, what) in [(counts.down, "down"), (counts.deputies, "in reserve")] {
        if count > 0 {
            said.push_str(&format!(", {count} {what}"));
        }
    }
    said.push_str(&format!(", {} leaf homes", counts.leaf_homes));
    let network = format!("{} ({})  ", of.network, of.topology);
    let (pulse, style) = pulse(screen, look);
    let room = width.saturating_sub(pulse.chars().count() as u16 + 1);
    let left = plain(&format!("{network}{said}"), room);
    let gap =
        " ".repeat(usize::from(width).saturating_sub(left.chars().count() + pulse.chars().count()));
    Line::from(vec![
        Span::styled(left, BOLD),
        gap.into(),
        Span::styled(pulse, style),
    ])
}

/// Whether what is shown is true now.
fn pulse(screen: &Screen, look: &Look) -> (String, Style) {
    let freshness = look.overview.freshness.clone().unwrap_or_default();
    let bad = Style::new().fg(Color::Red);
    let age = unix_ms().saturating_sub(screen.looked_ms);
    match (&screen.trouble, screen.paused) {
        (_, true) => ("paused".to_owned(), Style::new().fg(Color::Yellow)),
        (Some(_), _) => (format!("no answer for {} s", age / 1000), bad),
        (None, _) if age > OLD_MS => (format!("{} s old", age / 1000), bad),
        _ if freshness.reached < freshness.of => (
            format!("{} of {} answered", freshness.reached, freshness.of),
            Style::new().fg(Color::Yellow),
        ),
        _ => (
            format!("live, {} of {}", freshness.reached, freshness.of),
            Style::new().fg(Color::Green),
        ),
    }
}

fn tabs(screen: &Screen) -> Line<'static> {
    let mut spans = Vec::new();
    for (index, (view, name)) in View::ALL.into_iter().enumerate() {
        let style = match view == screen.view {
            true => BOLD.add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {} {name} ", index + 1), style));
        spans.push(" ".into());
    }
    if let Some(trouble) = screen.look.as_ref().and(screen.trouble.as_ref()) {
        let trouble = plain(trouble, 48);
        spans.push(Span::styled(trouble, Style::new().fg(Color::Red)));
    }
    Line::from(spans)
}

/// Figures of all together.
fn summary(screen: &Screen, width: u16) -> Vec<Line<'static>> {
    let Some(look) = &screen.look else {
        return Vec::new();
    };
    let of = &look.overview;
    let room = usize::from(width) - 27;
    let name = |text: &str| Span::styled(format!("{text:<13}"), DIM);
    let use_of = of.utilisation_milli;
    let mean = use_of.map_or_else(|| "-".to_owned(), per_cent);
    let worst = of.worst.as_ref().map_or_else(String::new, |worst| {
        let milli = per_cent(worst.utilisation_milli);
        format!("  busiest {milli} ({})", worst.dimension)
    });
    let wide = room.saturating_sub(worst.chars().count());
    let mut first = vec![name("utilisation"), format!("{mean:<14}").into()];
    first.extend(paint::load(look.bands, use_of, wide));
    first.push(Span::styled(plain(&worst, 40), DIM));
    let operations = screen.operations.back().copied().unwrap_or(0.0);
    let sent = screen.sent.back().copied().unwrap_or(0.0);
    let green = Style::new().fg(Color::Green);
    let history = |what: &str, now: String, line: String| {
        Line::from(vec![
            name(what),
            format!("{now:<14}").into(),
            Span::styled(line, green),
        ])
    };
    vec![
        Line::from(first),
        history(
            "operations",
            format!("{}/s", number(operations)),
            paint::line(screen.operations.iter(), room),
        ),
        history("sent", rate(sent), paint::line(screen.sent.iter(), room)),
        state(of, width),
    ]
}

/// How evenly, how many copies, and what a loss would mean.
fn state(of: &pb::GetOverviewReply, width: u16) -> Line<'static> {
    let mut parts = Vec::new();
    let work = of.imbalance.iter().find(|one| one.of == "operations");
    if let Some(work) = work.filter(|work| work.max_over_mean > 0.0) {
        parts.push(format!(
            "balance {:.2} x its due at most",
            work.max_over_mean
        ));
    }
    let copies = of.replication.unwrap_or_default();
    parts.push(format!("{} of {} copies", copies.possible, copies.wanted));
    if copies.settling > 0 {
        parts.push(format!("{} settling", copies.settling));
    }
    if let Some(loss) = of.domains.first() {
        let whose = match loss.domain.as_str() {
            "" => "one super-node",
            domain => domain,
        };
        parts.push(match (loss.survives, loss.rest_utilisation_milli) {
            (true, Some(rest)) => format!("survives the loss of any domain ({})", per_cent(rest)),
            (_, Some(rest)) => format!("without {whose}: rest at {}", per_cent(rest)),
            (_, None) => format!("nobody is left without {whose}"),
        });
    }
    if let Some(term) = of.elections.first() {
        parts.push(format!("election {term} under way"));
    }
    Line::from(plain(&parts.join(" · "), width))
}

fn help(screen: &Screen) -> Line<'static> {
    let views = format!("1-{} Tab", View::ALL.len());
    let arrows = match screen.view {
        View::Shards => "←↑↓→",
        _ => "↑↓ PgUp/Dn Home",
    };
    let order = format!("order: {}", screen.order.name());
    let mut keys = vec![(views.as_str(), "view"), (arrows, "choose")];
    if screen.view == View::Load {
        keys.push(("s", order.as_str()));
    }
    keys.push(("space", if screen.paused { "go on" } else { "pause" }));
    keys.push(("q", "quit"));
    let mut spans = Vec::new();
    for (key, what) in keys {
        spans.push(Span::styled(key.to_owned(), BOLD));
        spans.push(format!(" {what}  ").into());
    }
    Line::from(spans)
}

/// A heading of a view, over all of its width.
pub(super) fn heading(text: String, area: Rect) -> Line<'static> {
    let text = plain(&text, area.width);
    Line::styled(text, DIM.add_modifier(Modifier::UNDERLINED))
}

/// An id, or the row's beginning.
pub(super) fn name(id: &str) -> String {
    format!("{:<11}", plain(short(id), 10))
}
