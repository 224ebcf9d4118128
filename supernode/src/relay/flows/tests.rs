use proptest::prelude::*;

use super::*;
use crate::heat::HALF_LIFE;

const KEYS: [FlowKey; 2] = [FlowKey([1; 32]), FlowKey([2; 32])];
const FLOW: FlowId = FlowId(7);
const STRIDE: usize = 1_209;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn place(port: u16) -> Place {
    Place {
        addr: ([192, 0, 2, 1], port).into(),
        local: None,
    }
}

struct Bed {
    flows: Flows,
    now: Instant,
    counts: Arc<Counts>,
}

impl Bed {
    fn new(limits: Limits) -> Self {
        let (counts, now) = (Arc::new(Counts::default()), Instant::now());
        Self {
            flows: Flows::new(limits, counts.clone(), now),
            now,
            counts,
        }
    }

    fn open(&mut self, opener: u8, flow: FlowId) -> Result<(), Refused> {
        let drawn = Drawn { flow, keys: KEYS };
        self.flows.open(self.now, node(opener), node(99), drawn)
    }

    fn receive(&mut self, from: Place, bytes: &[u8], stride: usize) -> Vec<Outgoing> {
        let mut out = Vec::new();
        self.flows.receive(self.now, from, bytes, stride, &mut out);
        out
    }

    fn bind(&mut self, flow: FlowId, side: Side, count: u64, from: Place) -> Vec<Outgoing> {
        let frame = frame::bind(flow, side, count, &KEYS[side.index()]);
        self.receive(from, &frame, frame.len())
    }

    /// A flow of `opener` with both ends bound, at ports `port` and `port + 1`.
    fn joined(&mut self, opener: u8, flow: FlowId, port: u16) {
        self.open(opener, flow).expect("there is room");
        assert_eq!(self.bind(flow, Side::Opener, 1, place(port)).len(), 1);
        assert_eq!(self.bind(flow, Side::Other, 1, place(port + 1)).len(), 1);
    }

    fn dropped(&self, why: Dropped) -> u64 {
        self.counts.read().dropped(why)
    }
}

/// Datagrams of a full stride.
fn data(flow: FlowId, side: Side, count: usize) -> Vec<u8> {
    let one = [frame::header(flow, side).as_slice(), &[5; 1_200]].concat();
    one.repeat(count)
}

#[test]
fn data_goes_from_the_bound_address_of_one_end_to_that_of_the_other() {
    let mut bed = Bed::new(Limits::default());
    bed.joined(1, FLOW, 10);
    for (side, from, to) in [(Side::Opener, 10, 11), (Side::Other, 11, 10)] {
        let bytes = data(FLOW, side, 3);
        let out = bed.receive(place(from), &bytes, STRIDE);
        let forward = Outgoing::Forward {
            to: place(to),
            part: 0..bytes.len(),
            datagrams: 3,
        };
        assert_eq!(out, [forward]);
    }
    let stats = bed.counts.read();
    assert_eq!((stats.packets, stats.bytes), (6, 7_200));
    let top = bed.flows.top(bed.now, 5);
    assert_eq!(top.heavy[0].id.bytes, [3_600, 3_600]);
    assert_eq!((top.heavy[0].count, top.total), (7_200.0, 7_200.0));
    assert_eq!(top.unlisted, 0.0);
}

#[test]
fn the_busiest_flow_is_the_one_that_carried_most_of_late() {
    const SECOND: FlowId = FlowId(8);
    let mut bed = Bed::new(Limits::default());
    bed.joined(1, FLOW, 10);
    bed.joined(3, SECOND, 20);
    bed.receive(place(10), &data(FLOW, Side::Opener, 8), STRIDE);
    for _ in 0..2 * HALF_LIFE.as_secs() {
        bed.now += Duration::from_secs(1);
        bed.flows.tick(bed.now);
    }
    bed.receive(place(20), &data(SECOND, Side::Opener, 4), STRIDE);
    bed.now += HALF_LIFE / 100;
    let top = bed.flows.top(bed.now, 1);
    let busiest = &top.heavy[0];
    assert_eq!(busiest.id.bytes, [4_800, 0]);
    // What came since the last sweep is as of now; two half-lives, of which the
    // first second went by before it was swept, leave a quarter.
    assert_eq!(busiest.count, 4_800.0);
    let quarter = 9_600.0 / 4.0;
    assert!((1.0..1.05).contains(&(top.unlisted / quarter)), "{top:?}");
    assert_eq!(top.total, busiest.count + top.unlisted);
}

#[test]
fn nothing_is_sent_to_or_for_one_who_proved_nothing() {
    let mut bed = Bed::new(Limits::default());
    bed.open(1, FLOW).expect("there is room");
    bed.bind(FLOW, Side::Opener, 1, place(10));
    // The other end is not bound yet.
    assert_eq!(
        bed.receive(place(10), &data(FLOW, Side::Opener, 2), STRIDE),
        []
    );
    assert_eq!(bed.dropped(Dropped::Unbound), 2);
    // A key of the wrong end, and one made up.
    for key in [&KEYS[0], &FlowKey([9; 32])] {
        let frame = frame::bind(FLOW, Side::Other, 1, key);
        assert_eq!(bed.receive(place(66), &frame, frame.len()), []);
    }
    assert_eq!(bed.dropped(Dropped::Forged), 2);
    // No flow of that name: no answer at all.
    assert_eq!(
        bed.receive(place(66), &data(FlowId(8), Side::Opener, 4), STRIDE),
        []
    );
    assert_eq!(bed.bind(FlowId(8), Side::Opener, 1, place(66)), []);
    assert_eq!(bed.dropped(Dropped::Unknown), 5);
}

#[test]
fn a_bind_that_was_recorded_moves_nothing() {
    let mut bed = Bed::new(Limits::default());
    bed.joined(1, FLOW, 10);
    let seen = frame::bind(FLOW, Side::Other, 2, &KEYS[1]);
    assert_eq!(bed.receive(place(20), &seen, seen.len()).len(), 1);
    assert_eq!(bed.receive(place(66), &seen, seen.len()), []);
    let out = bed.receive(place(10), &data(FLOW, Side::Opener, 1), STRIDE);
    assert!(matches!(&out[..], [Outgoing::Forward { to, .. }] if *to == place(20)));
}

#[test]
fn an_end_whose_nat_moved_is_told_and_binds_again() {
    let mut bed = Bed::new(Limits::default());
    bed.joined(1, FLOW, 10);
    let bytes = data(FLOW, Side::Opener, 1);
    let told = bed.receive(place(30), &bytes, STRIDE);
    let [Outgoing::Reply { to, frame, length }] = &told[..] else {
        panic!("{told:?}");
    };
    let lost = Frame::parse(&frame[..*length]).expect("a frame");
    assert_eq!(
        (*to, lost.kind, lost.side),
        (place(30), Kind::Lost, Side::Opener)
    );
    assert!(*length < bytes.len());
    // Told once, not for each datagram.
    assert_eq!(bed.receive(place(30), &bytes, STRIDE), []);
    assert_eq!(bed.dropped(Dropped::Stray), 2);
    let out = bed.bind(FLOW, Side::Opener, 2, place(30));
    let [Outgoing::Reply { frame, length, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    let bound = Frame::parse(&frame[..*length]).expect("a frame");
    let observed = place(30).addr;
    assert_eq!(bound.kind, Kind::Bound { count: 2, observed });
    assert!(bound.proves(&KEYS[0]));
    assert_eq!(bed.receive(place(30), &bytes, STRIDE).len(), 1);
    // Nor does the old address count any more.
    assert!(matches!(
        &bed.receive(place(10), &bytes, STRIDE)[..],
        [Outgoing::Reply { .. }]
    ));
}

#[test]
fn flows_are_limited_in_all_and_for_each_peer_and_end_when_their_ends_fall_silent() {
    let limits = Limits {
        flows: 3,
        flows_per_peer: 2,
        ..Limits::default()
    };
    let mut bed = Bed::new(limits);
    assert_eq!(bed.open(1, FlowId(1)), Ok(()));
    assert_eq!(bed.open(1, FlowId(2)), Ok(()));
    assert_eq!(bed.open(1, FlowId(3)), Err(Refused::Yours(2)));
    assert_eq!(bed.open(2, FlowId(3)), Ok(()));
    assert_eq!(bed.open(3, FlowId(4)), Err(Refused::Full));
    let close = frame::close(FlowId(3), Side::Other, 1, &KEYS[1]);
    assert_eq!(bed.receive(place(1), &close, close.len()), []);
    assert_eq!(bed.open(3, FlowId(4)), Ok(()));
    bed.now += limits.idle;
    bed.bind(FlowId(4), Side::Opener, 1, place(1));
    bed.bind(FlowId(4), Side::Other, 1, place(2));
    bed.now += SWEEP;
    bed.flows.tick(bed.now);
    assert_eq!(bed.counts.read().flows, 1);
    assert_eq!(bed.open(1, FlowId(5)), Ok(()));
}

#[test]
fn a_batch_of_several_flows_is_taken_apart() {
    let mut bed = Bed::new(Limits::default());
    bed.joined(1, FLOW, 10);
    let second = FlowId(8);
    bed.open(1, second).expect("there is room");
    bed.bind(second, Side::Opener, 1, place(10));
    bed.bind(second, Side::Other, 1, place(12));
    let mut bytes = data(FLOW, Side::Opener, 2);
    bytes.extend(data(second, Side::Opener, 1));
    bytes.extend(vec![0xff; STRIDE]);
    bytes.extend(&data(FLOW, Side::Opener, 1)[..100]);
    let out = bed.receive(place(10), &bytes, STRIDE);
    let parts: Vec<_> = out
        .iter()
        .map(|out| match out {
            Outgoing::Forward { to, part, .. } => (to.addr.port(), part.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (11, 0..2 * STRIDE),
        (12, 2 * STRIDE..3 * STRIDE),
        (11, 4 * STRIDE..4 * STRIDE + 100),
    ];
    assert_eq!(parts, expected);
    assert_eq!(bed.dropped(Dropped::Malformed), 1);
}

/// Bytes that each of `offers` got through, when each offers so many datagrams
/// every millisecond for two seconds.
fn shared(limits: Limits, offers: &[usize]) -> Vec<u64> {
    let mut bed = Bed::new(limits);
    for (place, _) in offers.iter().enumerate() {
        bed.joined(place as u8, FlowId(place as u64), 100 + 2 * place as u16);
    }
    for step in 0..2_000 {
        bed.now += Duration::from_millis(1);
        for (at, offer) in offers.iter().enumerate() {
            let bytes = data(FlowId(at as u64), Side::Opener, *offer);
            bed.receive(place(100 + 2 * at as u16), &bytes, STRIDE);
        }
        if step % 20 == 0 {
            bed.flows.tick(bed.now);
        }
    }
    let top = bed.flows.top(bed.now, offers.len());
    let mut figures: Vec<_> = top.heavy.iter().map(|heavy| heavy.id).collect();
    figures.sort_by_key(|figures| figures.opener);
    figures.iter().map(|figures| figures.bytes[0]).collect()
}

#[test]
fn ten_peers_share_a_full_relay_fairly_whatever_they_offer() {
    // 80 Mbit/s: 1 MB/s each.
    let limits = Limits {
        total_bps: Some(80_000_000),
        ..Limits::default()
    };
    let got = shared(limits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let fair = got.iter().sum::<u64>() as f64 / 10.0;
    for bytes in &got {
        assert!((*bytes as f64 / fair - 1.0).abs() < 0.1, "{got:?}");
    }
    let total = got.iter().sum::<u64>() as f64 / 2.0;
    assert!((9.0e6..10.6e6).contains(&total), "{total}");
}

#[test]
fn who_wants_little_gets_it_beside_one_who_wants_everything() {
    let limits = Limits {
        total_bps: Some(24_000_000),
        ..Limits::default()
    };
    // 3 MB/s in all: one wants 12 MB/s, the other 1.2.
    let got = shared(limits, &[10, 1]);
    let wanted = 2.0 * 1_200_000.0;
    assert!(got[1] as f64 > 0.95 * wanted, "{got:?}");
    assert!(got[0] > 3_000_000, "{got:?}");
}

#[test]
fn a_flow_and_a_peer_have_limits_of_their_own() {
    let limits = Limits {
        flow_bps: Some(8_000_000),
        ..Limits::default()
    };
    let got = shared(limits, &[10]);
    assert!((1_800_000..2_200_000).contains(&got[0]), "{got:?}");
    let limits = Limits {
        peer_bps: Some(8_000_000),
        ..Limits::default()
    };
    let got = shared(limits, &[10, 10]);
    assert!(
        got.iter().all(|b| (1_800_000..2_200_000).contains(b)),
        "{got:?}"
    );
}

proptest! {
    /// Whatever comes, what goes out is no longer, and only to those who proved
    /// themselves or to who sent it.
    #[test]
    fn arbitrary_datagrams_are_dropped_or_answered_with_less(
        bytes in proptest::collection::vec(any::<u8>(), 0..3_000),
        stride in 0..1_500usize,
        start in proptest::option::of((0..6u8, any::<bool>())),
    ) {
        let mut bed = Bed::new(Limits::default());
        bed.joined(1, FLOW, 10);
        let mut bytes = bytes;
        // Frames that look right for a while.
        if let (Some((kind, side)), true) = (start, bytes.len() >= HEADER) {
            bytes[0] = kind << 4 | u8::from(side);
            bytes[1..HEADER].copy_from_slice(&FLOW.0.to_be_bytes());
        }
        let out = bed.receive(place(66), &bytes, stride);
        let sent: usize = out.iter().map(|out| match out {
            Outgoing::Reply { to, length, .. } => {
                assert_eq!(*to, place(66));
                *length
            }
            Outgoing::Forward { .. } => panic!("from an address that is not bound"),
        }).sum();
        prop_assert!(sent <= bytes.len());
    }
}
