//! A race, ballot by ballot.

use super::axis::{Axis, Scale, number};
use super::chart::{BLUE, FAINT, GREEN, INK, Mark, ORANGE, Panel, RED, Sign};
use crate::ballots::{BallotCast, RaceCourse, Sitting};

const HEIGHT: f64 = 340.0;
/// Ballots are stacked in so many rows, so many pixels apart: most are alike.
const ROWS: usize = 5;
const ROW: f64 = 4.5;
/// Ballots of nothing stand this far below the lowest of the others.
const BELOW: f64 = 2.3;
/// A claim up to so many times the rest is drawn; others are told.
const CLAIM_WITHIN: f64 = 3.0;

/// What a ballot says of the whole line, bits a second: the median of these is
/// what the jury found.
fn whole(sitting: &Sitting, goodput_bps: u64) -> f64 {
    goodput_bps as f64 * sitting.counted.max(1) as f64
}

/// Draws one race.
pub(super) fn panel(race: &RaceCourse) -> Panel {
    let truth = race.true_bps as f64;
    let values = race.sittings.iter().flat_map(|sitting| {
        let asked = whole(sitting, sitting.share_bps);
        let ballots = sitting
            .ballots
            .iter()
            .map(|b| whole(sitting, b.goodput_bps));
        ballots.chain([asked])
    });
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let high = values.iter().copied().fold(truth, f64::max);
    let claim = race.claim_bps as f64;
    let high = match claim <= high * CLAIM_WITHIN {
        true => high.max(claim),
        false => high,
    };
    let low = values.iter().copied().fold(truth, f64::min);
    let slots = race.sittings.len();
    let names = race
        .sittings
        .iter()
        .map(|s| format!("{}.{}", s.level + 1, s.jury + 1));
    let x = Axis {
        scale: Scale::Slots(names.collect()),
        ..Axis::linear(
            "level.jury · height: what the whole line carries by each ballot, Mbit/s",
            0.0,
            slots.max(1) as f64,
        )
    };
    let y = Axis {
        scale: Scale::Log,
        ..Axis::linear("", low / BELOW / 1.1 / 1e6, high * 1.5 / 1e6)
    };
    let mut panel = Panel {
        title: match race.colludes {
            true => format!("Ballots on peer {}, a conspirator", race.candidate),
            false => format!("Ballots on peer {}", race.candidate),
        },
        legend: Vec::new(),
        x,
        y,
        marks: Vec::new(),
        height: HEIGHT,
        timeline: false,
        empty: "there were no ballots",
    };
    for (place, sitting) in race.sittings.iter().enumerate() {
        mark(&mut panel, place as f64, sitting, low);
    }
    let all = || race.sittings.iter().flat_map(|sitting| &sitting.ballots);
    let honest = (Sign::Dot, BLUE, "ballots of honest jurors, stacked".into());
    panel.legend.push(honest);
    if all().any(|ballot| ballot.colludes) {
        let made_up = (Sign::Cross, RED, "of conspirators, made up".into());
        panel.legend.push(made_up);
    }
    if all().any(|ballot| ballot.goodput_bps == 0) {
        panel
            .legend
            .push((Sign::None, INK, "at the bottom: 0".into()));
    }
    panel
        .legend
        .push((Sign::Line, FAINT, "what the jury asked for".into()));
    panel
        .legend
        .push((Sign::Line, INK, "median of the jury".into()));
    across(&mut panel, truth, GREEN, false, "true uplink");
    match race.score_bps {
        0 => panel.legend.push((Sign::Dashed, INK, "not elected".into())),
        score => {
            let name = "score, 0.7 of the decisive median";
            across(&mut panel, score as f64, INK, true, name);
        }
    }
    match claim <= high {
        true => across(&mut panel, claim, ORANGE, true, "its claim"),
        false => {
            let name = format!("its claim: {} Mbit/s (off the scale)", number(claim / 1e6));
            panel.legend.push((Sign::Dashed, ORANGE, name));
        }
    }
    panel
}

/// A line over all slots, named with its value in the legend.
fn across(panel: &mut Panel, bps: f64, colour: &'static str, dashed: bool, name: &str) {
    let value = bps / 1e6;
    let name = format!("{name}: {} Mbit/s", number(value));
    let sign = match dashed {
        true => Sign::Dashed,
        false => Sign::Line,
    };
    panel.legend.push((sign, colour, name));
    panel.marks.push(Mark::Line {
        points: vec![(panel.x.from, value), (panel.x.to, value)],
        colour,
        wide: 1.8,
        dashed,
    });
}

fn mark(panel: &mut Panel, at: f64, sitting: &Sitting, low: f64) {
    let level = |share: u64, colour, wide| Mark::Line {
        points: vec![
            (at + 0.03, whole(sitting, share) / 1e6),
            (at + 0.97, whole(sitting, share) / 1e6),
        ],
        colour,
        wide,
        dashed: false,
    };
    panel.marks.push(level(sitting.share_bps, FAINT, 1.2));
    panel.marks.push(level(sitting.median_bps, INK, 2.6));
    // Side by side, so that one sees how many of each there are.
    let mut ballots: Vec<&BallotCast> = sitting.ballots.iter().collect();
    ballots.sort_by_key(|ballot| (ballot.colludes, ballot.goodput_bps));
    let columns = ballots.len().div_ceil(ROWS).saturating_sub(1).max(1) as f64;
    for (place, ballot) in ballots.into_iter().enumerate() {
        // Logarithms have no place for nothing: it stands at the bottom.
        let value = whole(sitting, ballot.goodput_bps).max(low / BELOW) / 1e6;
        let column = (place / ROWS) as f64;
        let at = (at + 0.1 + 0.8 * column / columns, value);
        let above = ((place % ROWS) as f64 - (ROWS / 2) as f64) * ROW;
        panel.marks.push(match ballot.colludes {
            true => Mark::Cross {
                at,
                above,
                size: 3.6,
                colour: RED,
            },
            false => Mark::Dot {
                at,
                above,
                colour: BLUE,
            },
        });
    }
}
