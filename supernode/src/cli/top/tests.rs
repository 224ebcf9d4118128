//! The screen, compared with pinned frames, and what keys do to it.

use canopy_proto::control as pb;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::draw;
use super::feed::{Look, News};
use super::paint::Bands;
use super::screen::{Order, Screen, View};
use crate::event::unix_ms;

fn figures(milli: u32, leaves: u32) -> pb::Figures {
    pb::Figures {
        uptime_ms: 3_723_000,
        version: "canopy/0.1.0".into(),
        utilisation: Some(pb::Utilisation {
            worst_milli: milli,
            connections_milli: 12,
            operations_milli: milli,
            ..Default::default()
        }),
        leaves,
        records: 12_043,
        record_bytes: 4_820_000,
        operations_per_s: f64::from(leaves) * 30.5,
        sent_bps: 12_300_000.0,
        ..Default::default()
    }
}

fn node(digit: &str, capacity: u64, milli: Option<u32>) -> pb::SuperNode {
    pb::SuperNode {
        node_id: digit.repeat(64),
        state: "serving".into(),
        basis: "elected".into(),
        capacity_bps: capacity * 1_000_000,
        share_ppm: 83_333,
        domain: "rack-1\u{1b}[2J".into(),
        term: 31,
        // What is a day or two from now is the same for as long as a test runs.
        expires_ms: unix_ms() + 100_000_000,
        figures: milli.map(|milli| figures(milli, milli / 10)),
        ..Default::default()
    }
}

fn look() -> Look {
    let nodes = vec![
        node("a", 64, Some(180)),
        node("b", 120, Some(431)),
        node("c", 300, Some(704)),
        node("d", 20, Some(960)),
        node("e", 40, None),
    ];
    let load = |node: &pb::SuperNode| pb::NodeLoad {
        operations_per_s: node.capacity_bps as f64 / 1e6,
        sent_bps: node.capacity_bps as f64 / 4.0,
        ..Default::default()
    };
    Look {
        load: pb::LoadSample {
            super_nodes: nodes.iter().map(load).collect(),
            ..Default::default()
        },
        overview: pb::GetOverviewReply {
            network: "orchard".into(),
            topology: "elected".into(),
            counts: Some(pb::Counts {
                super_nodes: 5,
                deputies: 2,
                leaf_homes: 226,
                ..Default::default()
            }),
            utilisation_milli: Some(471),
            worst: Some(pb::WorstSuperNode {
                node_id: "d".repeat(64),
                utilisation_milli: 960,
                dimension: "operations".into(),
            }),
            imbalance: vec![pb::Imbalance {
                of: "operations".into(),
                max_over_mean: 1.184,
                ..Default::default()
            }],
            replication: Some(pb::Replication {
                wanted: 3,
                possible: 3,
                ..Default::default()
            }),
            domains: vec![pb::DomainLoss {
                domain: "rack-1".into(),
                rest_utilisation_milli: Some(1_040),
                ..Default::default()
            }],
            freshness: Some(pb::Freshness {
                reached: 4,
                of: 5,
                ..Default::default()
            }),
            ..Default::default()
        },
        nodes,
        bands: Bands::default(),
        shards: (0..256).map(shard).collect(),
        hot: hot(),
    }
}

fn shard(shard: u32) -> pb::Shard {
    pb::Shard {
        shard,
        owners: 4,
        reached: 3,
        records: u64::from(shard % 7),
        copies: u64::from(shard % 7) * 3,
        bytes: u64::from(shard % 7) * 900,
        operations_per_s: f64::from((shard * 37) % 50).powi(2) / 50.0,
        under_replicated: shard == 9,
        ..Default::default()
    }
}

fn hot() -> pb::TopKeysReply {
    let key = |kind: &str, id: &str, what: &str, count: f64| pb::HotKey {
        kind: kind.into(),
        id: id.into(),
        what: what.into(),
        count,
        per_s: count / 60.0,
        ..Default::default()
    };
    let total = |kind: &str, count| pb::HotTotal {
        kind: kind.into(),
        count,
        ..Default::default()
    };
    pb::TopKeysReply {
        keys: vec![
            key("key", &"7".repeat(64), "value \"weather\"", 4_300.0),
            key("key", &"8".repeat(64), "value \"tides\"", 2_150.0),
            key("term", "木の名前", "", 5_200.0),
            key("publisher", &"e".repeat(64), "", 60.0),
            key("topic", "weather", "", 610.0),
            key("flow", &"e7".repeat(64), "e7e7e7e7e7 to e7e7e7e7e7", 6e8),
            key("flow", &"a7".repeat(64), "a7a7a7a7a7 to a7a7a7a7a7", 1e8),
        ],
        totals: vec![
            total("key", 12_000.0),
            total("term", 6_000.0),
            total("flow", 7e8),
        ],
        ..Default::default()
    }
}

fn election() -> pb::Election {
    let contender = |digit: &str, elected: bool, score_bps: u64| pb::Contender {
        node_id: digit.repeat(64),
        elected,
        why: match elected {
            true => format!("elected with a score of {score_bps} bit/s"),
            false => format!("its score of {score_bps} bit/s is below the floor of 5000000 bit/s"),
        },
        race: Some(pb::Race {
            score_bps,
            ..Default::default()
        }),
    };
    pb::Election {
        term: 31,
        opened_ms: unix_ms() - 7_300_000,
        reason: "weighted utilisation above 0.60".into(),
        contenders: vec![
            contender("c", true, 58_800_000),
            contender("f", false, 3_100_000),
        ],
        ..Default::default()
    }
}

fn explained() -> pb::ExplainElectionReply {
    let ballots = (0..7).map(|n| pb::Ballot {
        goodput_bps: 12_000_000 + (n * 5 % 7) * 150_000,
        ..Default::default()
    });
    pb::ExplainElectionReply {
        term: 31,
        elections: vec![election()],
        mandates: vec![pb::Mandate {
            node_id: "c".repeat(64),
            ballots: ballots.collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn event(name: &str, text: &str) -> News {
    News::Event {
        event: pb::Event {
            at_ms: unix_ms() - 7_300_000,
            name: name.into(),
            text: text.into(),
            ..Default::default()
        },
        anew: false,
    }
}

fn full() -> Screen {
    let mut screen = Screen::new();
    for _ in 0..3 {
        screen.take(News::Look(Box::new(look())));
    }
    screen.take(News::Elections(pb::ListElectionsReply {
        elections: vec![election()],
        ..Default::default()
    }));
    screen.take(News::Explained(Box::new(explained())));
    screen.take(event(
        "super_node_up",
        "super-node up: cccccccccc, 300 Mbit/s",
    ));
    screen.take(event(
        "warning",
        "warning: \u{1b}]0;owned\u{7} the store is full",
    ));
    screen
}

fn press(screen: &mut Screen, code: KeyCode) -> bool {
    screen.press(KeyEvent::new(code, KeyModifiers::NONE))
}

/// A frame as text, without spaces at the ends of lines.
fn frame(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| -> String {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

/// Compares with what is pinned; `CANOPY_TEST_PIN` pins it anew.
fn pinned(screen: &mut Screen, name: &str, golden: &str) {
    let frame = frame(screen, 80, 24);
    if std::env::var_os("CANOPY_TEST_PIN").is_some() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/top/golden");
        std::fs::write(format!("{dir}/{name}.txt"), &frame).unwrap();
        return;
    }
    assert_eq!(frame, golden, "{frame}");
}

#[test]
fn each_view_is_what_is_pinned() {
    let mut screen = full();
    pinned(&mut screen, "load", include_str!("golden/load.txt"));
    press(&mut screen, KeyCode::Char('2'));
    pinned(&mut screen, "shards", include_str!("golden/shards.txt"));
    press(&mut screen, KeyCode::Char('3'));
    pinned(
        &mut screen,
        "elections",
        include_str!("golden/elections.txt"),
    );
    press(&mut screen, KeyCode::Char('4'));
    pinned(&mut screen, "hot", include_str!("golden/hot.txt"));
    press(&mut screen, KeyCode::Char('5'));
    pinned(&mut screen, "events", include_str!("golden/events.txt"));
}

#[test]
fn nothing_known_and_nobody_there_is_said() {
    let mut screen = Screen::new();
    assert!(frame(&mut screen, 80, 24).starts_with("canopy  looking"));
    screen.take(News::Trouble("the host is gone".into()));
    assert!(frame(&mut screen, 80, 24).contains("the host is gone"));
    screen.take(News::Look(Box::default()));
    assert!(frame(&mut screen, 80, 24).contains("nobody serves"));
    // What was known stays, and is said to be old.
    let mut screen = full();
    screen.take(News::Trouble("the host is gone".into()));
    let old = frame(&mut screen, 80, 24);
    assert!(
        old.contains("no answer for 0 s") && old.contains("aaaaaaaaaa"),
        "{old}"
    );
}

#[test]
fn it_fits_any_terminal_and_nothing_of_a_peer_reaches_it_as_a_command() {
    for (width, height) in [(1, 1), (59, 30), (60, 16), (80, 24), (133, 50), (300, 100)] {
        for view in ['1', '2', '3', '4', '5'] {
            let mut screen = full();
            press(&mut screen, KeyCode::Char(view));
            let frame = frame(&mut screen, width, height);
            assert!(
                frame.chars().all(|c| c == '\n' || !c.is_control()),
                "{frame}"
            );
        }
    }
}

#[test]
fn keys_choose_views_rows_and_order() {
    let mut screen = full();
    let ids = |screen: &Screen| -> String {
        let nodes = &screen.look.as_ref().unwrap().nodes;
        nodes.iter().map(|node| &node.node_id[..1]).collect()
    };
    assert_eq!((screen.order, ids(&screen).as_str()), (Order::Use, "dcbae"));
    press(&mut screen, KeyCode::Char('s'));
    assert_eq!(
        (screen.order, ids(&screen).as_str()),
        (Order::Capacity, "cbaed")
    );
    for (key, chosen) in [
        (KeyCode::Up, 0),
        (KeyCode::Down, 1),
        (KeyCode::PageDown, 4),
        (KeyCode::Down, 4),
        (KeyCode::Home, 0),
    ] {
        press(&mut screen, key);
        assert_eq!(screen.chosen(), chosen, "{key:?}");
    }
    press(&mut screen, KeyCode::BackTab);
    assert_eq!(screen.view, View::Events);
    press(&mut screen, KeyCode::Tab);
    assert_eq!(screen.view, View::Load);
    press(&mut screen, KeyCode::Char(' '));
    screen.take(News::Look(Box::default()));
    assert_eq!(ids(&screen).len(), 5);
    assert!(frame(&mut screen, 80, 24).contains("paused"));
    assert!(press(&mut screen, KeyCode::Char('q')));
    let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(screen.press(stop));
}
