//! What is drawn of a run.

use super::axis::{Axis, Scale, number};
use super::chart::{BLUE, FAINT, GREEN, INK, Mark, ORANGE, PALE, Panel, RED, SKY, Sign};
use crate::report::{Report, Sample};

const HEIGHT: f64 = 150.0;
const MINUTE: f64 = 60.0;
/// Length of a slot of [`Report::requests`], seconds.
const SLOT_S: f64 = 10.0;
/// Utilisation that a picture shows at most, percent of the limit: a line with a
/// queue of minutes is lost in a scale that shows how long the queue is.
const MOST_PERCENT: f64 = 150.0;
/// Reads are shown from one to ten thousand milliseconds: their deadline.
const READ_MS: (f64, f64) = (1.0, 10_000.0);
/// Hops that are told apart.
const HOPS: usize = 6;

/// Minutes since everybody was first served, or since the start where that
/// never came.
pub(super) fn minutes(report: &Report, at_s: f64) -> f64 {
    (at_s - report.served_at_s.unwrap_or(0.0)) / MINUTE
}

/// When the picture ends, seconds: with users when they rest, for then follows
/// the reckoning.
fn until(report: &Report) -> f64 {
    let last = report.requests.last();
    let end = last.map_or(report.virtual_s, |slot| slot.0 + SLOT_S);
    end.max(MINUTE)
}

fn samples(report: &Report) -> impl Iterator<Item = &Sample> {
    let end = until(report);
    report.samples.iter().filter(move |s| s.at_s <= end)
}

/// What is over time. Every run has the same panels in the same order.
pub(super) fn timelines(report: &Report) -> Vec<Panel> {
    vec![
        peers(report),
        super_nodes(report),
        bands(report),
        utilisation(report),
        operations(report),
    ]
}

/// What is about the run as a whole.
pub(super) fn distributions(report: &Report) -> Vec<Panel> {
    vec![loads(report), latency(report), hops(report)]
}

fn timeline(report: &Report, title: &str, most: f64) -> Panel {
    let caption = match report.served_at_s {
        Some(_) => "minutes since everybody was first served",
        None => "minutes since the start; everybody was never served",
    };
    Panel {
        title: title.into(),
        legend: Vec::new(),
        x: Axis::linear(
            caption,
            minutes(report, 0.0),
            minutes(report, until(report)),
        ),
        y: Axis::linear("", 0.0, most.max(1.0)),
        marks: Vec::new(),
        height: HEIGHT,
        timeline: true,
        empty: "nothing was seen",
    }
}

impl Panel {
    fn draws(&mut self, name: &str, colour: &'static str, wide: f64, points: Vec<(f64, f64)>) {
        if points.is_empty() {
            return;
        }
        self.legend.push((Sign::Line, colour, name.into()));
        self.marks.push(Mark::Line {
            points,
            colour,
            wide,
            dashed: false,
        });
    }
}

fn course(report: &Report, of: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let point = |s: &Sample| (minutes(report, s.at_s), of(s));
    samples(report).map(point).collect()
}

fn most(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|(_, y)| *y).fold(0.0, f64::max)
}

fn peers(report: &Report) -> Panel {
    let online = course(report, |s| s.online as f64);
    let homed = course(report, |s| s.homed as f64);
    let leaves = course(report, |s| s.leaves as f64);
    let mut panel = timeline(report, "Peers", most(&online));
    panel.draws("online", FAINT, 1.4, online);
    panel.draws("leaves", SKY, 1.4, leaves);
    panel.draws("leaves with a home", BLUE, 2.0, homed);
    panel
}

fn super_nodes(report: &Report) -> Panel {
    let office = course(report, |s| s.super_nodes as f64);
    let reserve = course(report, |s| s.deputies as f64);
    let mut panel = timeline(report, "Super-nodes", most(&office).max(most(&reserve)));
    panel.draws("in reserve (deputies)", ORANGE, 1.6, reserve);
    panel.draws("in office", BLUE, 2.0, office);
    panel
}

/// Whether super-nodes told how busy they are: they do where there are users.
fn told(report: &Report) -> bool {
    !report.requests.is_empty()
}

const UNTOLD: &str = "no users, so there is no load";

fn bands(report: &Report) -> Panel {
    let mut panel = timeline(report, "Super-nodes by utilisation, % of them", 100.0);
    panel.empty = UNTOLD;
    if !told(report) {
        return panel;
    }
    let names = ["under 25 %", "25 to 60 %", "60 to 90 %", "over 90 % busy"];
    let colours = [PALE, SKY, ORANGE, RED];
    for (band, (name, colour)) in names.into_iter().zip(colours).enumerate() {
        let part = |s: &Sample, bands: usize| {
            let below: u64 = s.utilisation_bands.iter().take(bands).sum();
            100.0 * below as f64 / s.super_nodes.max(1) as f64
        };
        let point = |s: &Sample| (minutes(report, s.at_s), part(s, band), part(s, band + 1));
        let points: Vec<_> = samples(report).map(point).collect();
        panel.marks.push(Mark::Area { points, colour });
        panel.legend.push((Sign::Box, colour, name.into()));
    }
    panel
}

fn utilisation(report: &Report) -> Panel {
    let percent =
        |of: fn(&Sample) -> f64| course(report, move |s| (100.0 * of(s)).min(MOST_PERCENT));
    let mean = percent(|s| s.utilisation_mean);
    let worst = percent(|s| s.utilisation_worst);
    let top = most(&worst).max(100.0);
    let mut panel = timeline(report, "Utilisation, % of what is scarcest", top);
    panel.empty = UNTOLD;
    if told(report) {
        panel.draws("the busiest super-node", RED, 1.4, worst);
        panel.draws("mean of all", BLUE, 2.0, mean);
    }
    panel
}

fn operations(report: &Report) -> Panel {
    let per_s = |of: fn(&(f64, u64, u64)) -> u64| -> Vec<(f64, f64)> {
        let middle = |slot: &(f64, u64, u64)| minutes(report, slot.0 + SLOT_S / 2.0);
        let slots = report.requests.iter();
        slots
            .map(|slot| (middle(slot), of(slot) as f64 / SLOT_S))
            .collect()
    };
    let (answered, failed) = (per_s(|slot| slot.1), per_s(|slot| slot.2));
    let unasked = report.unasked.iter().map(|count| *count as f64 / SLOT_S);
    let unasked = answered
        .iter()
        .zip(unasked)
        .map(|((at, _), count)| (*at, count));
    let unasked: Vec<(f64, f64)> = unasked.collect();
    let top = [&answered, &failed, &unasked].map(|points| most(points));
    let top = top.into_iter().fold(0.0, f64::max);
    let mut panel = timeline(report, "Users' operations a second", top);
    panel.empty = "no users";
    panel.draws("answered", BLUE, 2.0, answered);
    panel.draws("nobody to ask", ORANGE, 2.0, unasked);
    panel.draws("failed", RED, 2.0, failed);
    panel
}

fn plain(title: &str, x: Axis, y: Axis, empty: &'static str) -> Panel {
    Panel {
        title: title.into(),
        legend: Vec::new(),
        x,
        y,
        marks: Vec::new(),
        height: HEIGHT,
        timeline: false,
        empty,
    }
}

fn loads(report: &Report) -> Panel {
    let loads = &report.loads;
    let x = Axis {
        scale: Scale::Slots(Vec::new()),
        ..Axis::linear(
            &format!("{} super-nodes, most capacity first", loads.len()),
            0.0,
            loads.len().max(1) as f64,
        )
    };
    let top = loads.iter().map(|l| l.due.max(l.operations as f64));
    let y = Axis::linear("", 0.0, top.fold(1.0, f64::max));
    let title = "Load distribution: operations of each super-node";
    let mut panel = plain(title, x, y, "no super-node worked for users");
    panel.legend = vec![
        (Sign::Box, SKY, "done".into()),
        (
            Sign::Box,
            RED,
            "done by one over 90 % busy at some time".into(),
        ),
        (Sign::Line, INK, "due to its capacity".into()),
        (Sign::Cross, INK, "serves no more".into()),
    ];
    // No wider than a bar.
    let size = (250.0 / loads.len().max(1) as f64).clamp(2.0, 6.0);
    for (place, load) in loads.iter().enumerate() {
        let at = place as f64;
        let colour = match load.worst > 0.9 {
            true => RED,
            false => SKY,
        };
        panel.marks.push(Mark::Bar {
            x: (at + 0.1, at + 0.9),
            to: load.operations as f64,
            colour,
        });
        panel.marks.push(Mark::Line {
            points: vec![(at, load.due), (at + 1.0, load.due)],
            colour: INK,
            wide: 1.6,
            dashed: false,
        });
        if !load.remains {
            let at = (at + 0.5, load.due.max(load.operations as f64));
            panel.marks.push(Mark::Cross {
                at,
                above: 0.0,
                size,
                colour: INK,
            });
        }
    }
    panel
}

fn latency(report: &Report) -> Panel {
    let x = Axis {
        scale: Scale::Log,
        ..Axis::linear(
            "milliseconds, each step ten times more",
            READ_MS.0,
            READ_MS.1,
        )
    };
    let y = Axis::linear("", 0.0, 100.0);
    let title = "Latency: % of reads answered within";
    let mut panel = plain(title, x, y, "no read was answered");
    let points: Vec<(f64, f64)> = report
        .read_ms
        .iter()
        .copied()
        .zip((0..).map(f64::from))
        .collect();
    for (percent, colour) in [(50, GREEN), (99, ORANGE)] {
        if let Some(ms) = report.read_ms.get(percent) {
            let name = format!("p{percent}: {} ms", number(*ms));
            panel.legend.push((Sign::Dashed, colour, name));
            panel.marks.push(Mark::Line {
                points: vec![(*ms, 0.0), (*ms, 100.0)],
                colour,
                wide: 1.4,
                dashed: true,
            });
        }
    }
    panel.draws("reads", BLUE, 2.0, points);
    panel
}

fn hops(report: &Report) -> Panel {
    let names = (1..=HOPS).map(|hops| hops.to_string());
    let x = Axis {
        scale: Scale::Slots(names.collect()),
        ..Axis::linear("requests sent one because of the other", 0.0, HOPS as f64)
    };
    let y = Axis::linear("", 0.0, 100.0);
    let title = "Hops: % of reads answered within so many";
    let mut panel = plain(title, x, y, "no read was answered");
    let all: u64 = report.hops.iter().sum();
    if all == 0 {
        return panel;
    }
    for place in 0..HOPS {
        let upto: u64 = report.hops.iter().take(place + 2).sum();
        let percent = 100.0 * upto as f64 / all as f64;
        let at = place as f64;
        panel.marks.push(Mark::Bar {
            x: (at + 0.15, at + 0.85),
            to: percent,
            colour: SKY,
        });
        panel.marks.push(Mark::Text {
            at: (at + 0.5, percent),
            above: match percent > 20.0 {
                true => -14.0,
                // The bar has no room for it.
                false => 4.0,
            },
            anchor: "middle",
            text: format!("{percent:.1} %"),
            colour: INK,
        });
    }
    panel
}
