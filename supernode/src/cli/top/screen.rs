//! What is known and what is chosen; what a key does. Nothing here draws.

use std::collections::VecDeque;

use canopy_proto::control as pb;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::{Look, News};
use crate::event::unix_ms;

/// Samples kept for the lines of the last minutes.
const SAMPLES: usize = 600;
/// Events kept.
const EVENTS: usize = 500;

/// What is shown below the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Load,
    Shards,
    Elections,
    Hot,
    Events,
}

impl View {
    pub(super) const ALL: [(View, &'static str); 5] = [
        (View::Load, "Load"),
        (View::Shards, "Shards"),
        (View::Elections, "Elections"),
        (View::Hot, "Hot keys"),
        (View::Events, "Events"),
    ];

    fn index(self) -> usize {
        let place = Self::ALL.iter().position(|(view, _)| *view == self);
        place.unwrap_or(0)
    }

    fn after(self, by: usize) -> Self {
        Self::ALL[(self.index() + by) % Self::ALL.len()].0
    }
}

/// By what super-nodes are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Use,
    Capacity,
    Leaves,
    Operations,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Use => "use",
            Order::Capacity => "capacity",
            Order::Leaves => "leaves",
            Order::Operations => "operations",
        }
    }

    fn next(self) -> Self {
        match self {
            Order::Use => Order::Capacity,
            Order::Capacity => Order::Leaves,
            Order::Leaves => Order::Operations,
            Order::Operations => Order::Use,
        }
    }
}

/// Everything that the screen shows.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) view: View,
    pub(super) order: Order,
    /// News are kept off the screen.
    pub(super) paused: bool,
    pub(super) look: Option<Look>,
    /// When it came, milliseconds since 1970.
    pub(super) looked_ms: u64,
    /// Operations and bits a second, the latest last.
    pub(super) operations: VecDeque<f64>,
    pub(super) sent: VecDeque<f64>,
    pub(super) elections: Vec<pb::Election>,
    pub(super) explained: Option<pb::ExplainElectionReply>,
    /// The latest first.
    pub(super) events: VecDeque<pb::Event>,
    pub(super) trouble: Option<String>,
    /// Chosen row of each view.
    chosen: [usize; View::ALL.len()],
    /// First row on the screen, kept by the view.
    pub(super) offset: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            view: View::Load,
            order: Order::Use,
            paused: false,
            look: None,
            looked_ms: 0,
            operations: VecDeque::new(),
            sent: VecDeque::new(),
            elections: Vec::new(),
            explained: None,
            events: VecDeque::new(),
            trouble: None,
            chosen: [0; View::ALL.len()],
            offset: 0,
        }
    }

    /// Takes news in, unless it is to stand still.
    pub(super) fn take(&mut self, news: News) {
        if self.paused {
            return;
        }
        match news {
            News::Look(look) => self.look_at(*look),
            News::Elections(listed) => {
                let chosen = self.wanted_term();
                self.elections = listed.elections;
                let place = self.elections.iter().position(|e| Some(e.term) == chosen);
                self.chosen[View::Elections.index()] = place.unwrap_or(0);
            }
            News::Explained(explained) => self.explained = Some(*explained),
            News::Event { event, anew } => {
                if anew {
                    self.events.clear();
                }
                self.events.push_front(event);
                self.events.truncate(EVENTS);
            }
            News::Trouble(reason) => self.trouble = Some(reason),
        }
    }

    fn look_at(&mut self, mut look: Look) {
        self.trouble = None;
        self.looked_ms = unix_ms();
        let sum = |of: fn(&pb::NodeLoad) -> f64| look.load.super_nodes.iter().map(of).sum();
        for (history, now) in [
            (&mut self.operations, sum(|one| one.operations_per_s)),
            (&mut self.sent, sum(|one| one.sent_bps)),
        ] {
            if history.len() >= SAMPLES {
                history.pop_front();
            }
            history.push_back(now);
        }
        arrange(&mut look.nodes, self.order);
        self.look = Some(look);
    }

    /// Does what `key` says; whether that is to end.
    pub(super) fn press(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return true,
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char(digit @ '1'..='9') => {
                let index = digit as usize - '1' as usize;
                if let Some((view, _)) = View::ALL.get(index) {
                    self.view = *view;
                }
            }
            KeyCode::Tab => self.view = self.view.after(1),
            KeyCode::BackTab => self.view = self.view.after(View::ALL.len() - 1),
            KeyCode::Left => self.choose(-1),
            KeyCode::Right => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-self.across()),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.across()),
            KeyCode::PageUp => self.choose(-10),
            KeyCode::PageDown => self.choose(10),
            KeyCode::Home => self.choose(isize::MIN),
            KeyCode::Char('s') => {
                self.order = self.order.next();
                if let Some(look) = &mut self.look {
                    arrange(&mut look.nodes, self.order);
                }
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            _ => {}
        }
        false
    }

    /// Rows between one and the one below it.
    fn across(&self) -> isize {
        match self.view {
            View::Shards => super::shards::ACROSS as isize,
            _ => 1,
        }
    }

    fn choose(&mut self, by: isize) {
        let last = self.rows().saturating_sub(1);
        let chosen = &mut self.chosen[self.view.index()];
        *chosen = chosen.saturating_add_signed(by).min(last);
    }

    fn rows(&self) -> usize {
        let look = self.look.as_ref();
        match self.view {
            View::Load => look.map_or(0, |look| look.nodes.len()),
            View::Shards => look.map_or(0, |look| look.shards.len()),
            View::Hot => look.map_or(0, |look| look.hot.keys.len()),
            View::Elections => self.elections.len(),
            View::Events => self.events.len(),
        }
    }

    /// The chosen row of the view.
    pub(super) fn chosen(&self) -> usize {
        self.chosen[self.view.index()].min(self.rows().saturating_sub(1))
    }

    /// The election that is to be explained, while one is looked at.
    pub(super) fn wanted_term(&self) -> Option<u64> {
        let chosen = self.chosen[View::Elections.index()];
        self.elections.get(chosen).map(|election| election.term)
    }
}

/// The largest first; those of which nothing is known last, of equals the lower id
/// first.
fn arrange(nodes: &mut [pb::SuperNode], order: Order) {
    let value = |node: &pb::SuperNode| {
        let figures = node.figures.as_ref();
        match order {
            Order::Capacity => Some(node.capacity_bps),
            Order::Use => utilisation(node).map(u64::from),
            Order::Leaves => figures.map(|figures| figures.leaves.into()),
            // Thousandths of an operation a second.
            Order::Operations => figures.map(|f| (f.operations_per_s.max(0.0) * 1e3) as u64),
        }
    };
    nodes.sort_by(|a, b| value(b).cmp(&value(a)).then(a.node_id.cmp(&b.node_id)));
}

/// The worst dimension, thousandths.
pub(super) fn utilisation(node: &pb::SuperNode) -> Option<u32> {
    let used = node.figures.as_ref()?.utilisation.as_ref()?;
    Some(used.worst_milli)
}
