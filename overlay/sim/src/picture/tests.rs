use resvg::usvg::roxmltree::Document;

use super::*;
use crate::ballots::{BallotCast, RaceCourse, Sitting};
use crate::loads::Served;
use crate::report::Sample;

fn sample(at_s: f64) -> Sample {
    Sample {
        at_s,
        online: 30,
        super_nodes: 3,
        leaves: 27,
        homed: 26,
        utilisation_mean: 0.4,
        utilisation_worst: 0.95,
        utilisation_bands: [1, 1, 0, 1],
        ..Sample::default()
    }
}

fn race() -> RaceCourse {
    let ballot = |juror, goodput_bps| BallotCast {
        juror,
        goodput_bps,
        colludes: juror == 2,
    };
    RaceCourse {
        at_s: 20.0,
        candidate: 17,
        colludes: true,
        true_bps: 3_000_000,
        claim_bps: 30_000_000,
        score_bps: 2_100_000,
        sittings: vec![Sitting {
            level: 0,
            jury: 0,
            share_bps: 1_500_000,
            counted: 3,
            median_bps: 1_000_000,
            ballots: vec![ballot(1, 1_000_000), ballot(2, 1_500_000), ballot(3, 0)],
        }],
    }
}

fn report(topology: &str) -> Report {
    let served = |peer, operations| Served {
        peer,
        up_bps: 10_000_000,
        seats: 40,
        operations,
        due: 50.0,
        worst: 0.95,
        remains: peer == 1,
    };
    Report {
        name: "x<y".into(),
        about: "What \"it\" shows & why".into(),
        topology: topology.into(),
        peers: 60,
        virtual_s: 600.0,
        served_at_s: Some(60.0),
        samples: vec![sample(0.0), sample(300.0), sample(600.0)],
        faults: vec![
            (120.0, "kill all super-nodes".into()),
            (121.0, "heal".into()),
        ],
        requests: vec![(10.0, 40, 1), (20.0, 40, 2)],
        read_ms: (0..=100).map(f64::from).collect(),
        hops: vec![10, 80, 8, 1, 1, 0, 0, 0, 0],
        loads: vec![served(1, 60), served(2, 40)],
        race: Some(race()),
        ..Report::default()
    }
}

/// All that is written in a picture; fails where it is no XML.
fn words(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).expect("an SVG is XML");
    let texts = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    texts
        .filter_map(|node| node.text().map(str::to_owned))
        .collect()
}

const OVER_TIME: [&str; 5] = [
    "Peers",
    "Super-nodes",
    "Super-nodes by utilisation, % of them",
    "Utilisation, % of what is scarcest",
    "Users' operations a second",
];
const AS_A_WHOLE: [&str; 3] = [
    "Load distribution: operations of each super-node",
    "Latency: % of reads answered within",
    "Hops: % of reads answered within so many",
];

#[test]
fn a_picture_of_one_run_shows_its_course_its_distributions_and_an_election() {
    let words = words(&draw(&[report("elected")]));
    let others = [
        "x<y · elected · 60 peers · seed 0",
        "What \"it\" shows & why",
        "Faults: 1: kill all super-nodes at 1:00; 2: heal at 1:01",
        "Ballots on peer 17, a conspirator",
        "of conspirators, made up",
        "at the bottom: 0",
        "true uplink: 3 Mbit/s",
        "score, 0.7 of the decisive median: 2.1 Mbit/s",
        "its claim: 30 Mbit/s (off the scale)",
        "failed",
        "p50: 50 ms",
        "98.0 %",
        "1–2",
    ];
    for title in OVER_TIME.iter().chain(&AS_A_WHOLE).chain(&others) {
        let found = words.iter().filter(|word| word == title).count();
        let times = if *title == "1–2" {
            OVER_TIME.len()
        } else {
            1
        };
        assert_eq!(found, times, "{title:?} in {words:#?}");
    }
}

#[test]
fn runs_stand_side_by_side_with_the_same_axes() {
    let mut busy = report("pure");
    busy.requests.push((30.0, 900, 0));
    busy.recovered_after_s = Some(7.0);
    let words = words(&draw(&[busy, report("elected")]));
    let count = |what: &str| words.iter().filter(|word| *word == what).count();
    for title in OVER_TIME.iter().chain(&AS_A_WHOLE) {
        assert_eq!(count(title), 2, "{title:?} in {words:#?}");
    }
    assert_eq!((count("pure"), count("elected")), (1, 1));
    // The four in percent end at 100; so do operations a second, for the busy one
    // has ninety.
    assert_eq!(count("80"), 2 * 5, "{words:#?}");
    assert!(
        words
            .iter()
            .any(|word| word.ends_with("served again after 7 s"))
    );
    assert!(words.iter().any(|word| word.ends_with("never recovered")));
    assert!(!words.iter().any(|word| word.contains("Ballots")));
}

#[test]
fn a_run_without_users_and_without_an_end_is_drawn_too() {
    let bare = Report {
        samples: vec![sample(0.0), sample(30.0)],
        virtual_s: 30.0,
        ..Report::default()
    };
    let words = words(&draw(std::slice::from_ref(&bare)));
    assert!(words.iter().any(|word| word == "Peers"));
    assert!(!words.iter().any(|word| word.starts_with("Latency")));
    assert!(words.iter().any(|word| word.contains("never served")));
    Document::parse(&draw(&[bare.clone(), bare])).expect("an SVG is XML");
    Document::parse(&draw(&[])).expect("an SVG is XML");
}

#[test]
fn a_png_has_the_size_of_its_svg_and_words_in_it() {
    let svg = draw(&[report("elected")]);
    let document = Document::parse(&svg).expect("an SVG is XML");
    let length = |name| {
        let length = document.root_element().attribute(name);
        length
            .and_then(|length| length.parse::<f64>().ok())
            .expect("a length")
    };
    let decoded = |svg: &str| {
        let png = png::render(svg).expect("it can be drawn");
        resvg::tiny_skia::Pixmap::decode_png(&png).expect("it is a PNG")
    };
    let pixels = decoded(&svg);
    let expected = (length("width") * 1.5, length("height") * 1.5);
    assert_eq!(f64::from(pixels.width()), expected.0.ceil());
    assert_eq!(f64::from(pixels.height()), expected.1.ceil());
    // Faces are found: without its words the picture is another.
    assert_ne!(pixels, decoded(&svg.replace("Peers", "")));
}

#[test]
fn only_endings_that_can_be_drawn_are_taken() {
    let format = |name: &str| name.parse::<PictureFile>().map(|file| file.format);
    assert_eq!(format("a/b.svg"), Ok(Format::Svg));
    assert_eq!(format("B.PNG"), Ok(Format::Png));
    for wrong in ["a.jpg", "svg", "a.svg.gz", ""] {
        assert!(
            format(wrong).is_err_and(|told| told.contains(".svg")),
            "{wrong}"
        );
    }
    let nowhere: PictureFile = "/nowhere/at/all.svg".parse().expect("a good name");
    let told = nowhere
        .make()
        .expect_err("there is no such place")
        .to_string();
    assert!(
        told.starts_with("cannot write /nowhere/at/all.svg"),
        "{told}"
    );
}
