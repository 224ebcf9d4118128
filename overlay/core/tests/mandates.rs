//! A mandate is refused for each single thing that is wrong with it.

use bytes::Bytes;
use canopy_core::election::ballot::{Ballot, VerifiedBallot};
use canopy_core::election::endorse::{Held, MandateError, VerifyContext};
use canopy_core::election::mandate::{self, Basis, Mandate};
use canopy_core::election::release::{self, Release};
use canopy_core::election::tally;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Member, Placement};
use canopy_proto::wire;

const NOW: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;
const CANDIDATE: u8 = 100;

fn id(i: u8) -> Identity {
    Identity::from_secret([i; 32])
}

fn node(i: u8) -> NodeId {
    id(i).node_id()
}

/// Super-nodes 1 to `n`.
fn roster(n: u8) -> Placement {
    (1..=n).fold(Placement::empty(), |placement, i| {
        placement.with(Member {
            node: node(i),
            seats: 16,
            domain: "".into(),
        })
    })
}

fn vote(voter: u8, change: impl Fn(&mut Ballot)) -> VerifiedBallot {
    let mut ballot = Ballot {
        network: "net".into(),
        term: 7,
        beacon: Key([4; 32]),
        jury: 1,
        level: 3,
        voter: node(voter),
        candidate: node(CANDIDATE),
        share_bps: 10_000_000,
        up_bps: 9_000_000,
        down_bps: 9_500_000,
        round_trip_us: 900,
        loss_ppm: 0,
        issued_ms: NOW,
        voter_prefix: format!("net-{voter}"),
    };
    change(&mut ballot);
    VerifiedBallot::cast(&id(voter), ballot).expect("a plausible ballot")
}

fn elected(change: impl Fn(&mut Mandate)) -> wire::SignedMandate {
    let ballots: Vec<_> = (10..15).map(|voter| vote(voter, |_| ())).collect();
    let mut mandate = Mandate {
        network: "net".into(),
        term: 7,
        candidate: node(CANDIDATE),
        basis: Basis::Elected,
        capacity_bps: tally::capacity_bps(&ballots),
        issued_ms: NOW,
        expires_ms: NOW + HOUR,
        beacon: Key([4; 32]),
        ballots,
        officer: node(1),
        assembly: vec![],
        domain: "rack-1".into(),
        deputy: false,
    };
    change(&mut mandate);
    mandate.draft()
}

fn founded(change: impl Fn(&mut Mandate)) -> wire::SignedMandate {
    elected(|m| {
        m.basis = Basis::Founded;
        m.officer = node(10);
        m.assembly = (10..15).map(node).chain([node(CANDIDATE)]).collect();
        m.assembly.sort();
        change(m);
    })
}

fn signed(mut draft: wire::SignedMandate, signers: &[u8]) -> wire::SignedMandate {
    let sign = |i: &u8| mandate::endorse(&id(*i), &draft.body);
    draft.endorsements = signers.iter().map(sign).collect();
    draft
}

fn body(bytes: impl Into<Bytes>) -> wire::SignedMandate {
    wire::SignedMandate {
        body: bytes.into(),
        ..Default::default()
    }
}

fn nothing_held(_: &NodeId) -> Held {
    Held::default()
}

fn context(roster: &Placement) -> VerifyContext<'_> {
    VerifyContext {
        network: "net",
        now_ms: NOW,
        operator: None,
        authorities: roster,
        assemblies: &[],
        bootstrap: false,
        brief: false,
        held: &nothing_held,
    }
}

/// Why a mandate made by `body` and signed by super-nodes 1 to 3 is refused.
fn refusal(draft: wire::SignedMandate) -> MandateError {
    let roster = roster(5);
    mandate::open(&signed(draft, &[1, 2, 3]), &context(&roster)).expect_err("a flaw")
}

#[test]
fn a_good_mandate_opens_and_keeps_its_signed_form() {
    let roster = roster(5);
    let wire = signed(elected(|_| ()), &[1, 2, 3]);
    let verified = mandate::open(&wire, &context(&roster)).unwrap();
    assert_eq!(**verified.signed(), wire);
    assert_eq!(verified.endorsers(), [node(1), node(2), node(3)]);
    assert_eq!(verified.mandate().capacity_bps, 31_500_000);
    assert_eq!(verified.mandate().seats(), 126);
    assert_eq!(verified.mandate().draft().body, wire.body);
    assert!(verified.valid_at(NOW) && !verified.valid_at(NOW + HOUR));
}

#[test]
fn each_flaw_of_the_frame_is_refused() {
    use MandateError as E;
    let other = elected(|m| m.network = "other".into());
    assert_eq!(refusal(other), E::Network("other".into()));
    assert_eq!(refusal(elected(|m| m.expires_ms = NOW)), E::Expired);
    let late = elected(|m| m.issued_ms = NOW + 10_001);
    assert_eq!(refusal(late), E::Future(10_001));
    let eternal = elected(|m| m.expires_ms = NOW + mandate::MAX_LIFETIME_MS + 1);
    assert_eq!(refusal(eternal), E::Lifetime);
    assert_eq!(refusal(elected(|m| m.domain = "x".repeat(65))), E::Domain);
    assert_eq!(refusal(body(&b"\xff\xff"[..])), E::Body);
    assert_eq!(
        refusal(body(vec![0; 70_000])),
        E::Size(70_000 + 3 * 102 + 4)
    );
}

#[test]
fn each_flaw_of_the_ballots_is_refused() {
    use MandateError as E;
    let with = |voter: u8, change: fn(&mut Ballot)| {
        elected(move |m| {
            m.ballots[4] = vote(voter, change);
            m.capacity_bps = tally::capacity_bps(&m.ballots);
        })
    };
    assert_eq!(refusal(with(14, |b| b.term = 6)), E::OtherRace(node(14)));
    assert_eq!(
        refusal(with(14, |b| b.network = "n".into())),
        E::OtherRace(node(14))
    );
    assert_eq!(
        refusal(with(14, |b| b.beacon = Key([5; 32]))),
        E::OtherRace(node(14))
    );
    assert_eq!(
        refusal(with(14, |b| b.candidate = node(1))),
        E::OtherRace(node(14))
    );
    assert_eq!(refusal(with(14, |b| b.jury = 0)), E::OtherJury(node(14)));
    assert_eq!(refusal(with(14, |b| b.level = 4)), E::OtherJury(node(14)));
    assert_eq!(
        refusal(with(14, |b| b.share_bps += 1)),
        E::OtherJury(node(14))
    );
    assert_eq!(refusal(with(13, |_| ())), E::VoterTwice(node(13)));
    let sybil = with(14, |b| b.voter_prefix = "net-13".into());
    assert_eq!(refusal(sybil), E::NetworkTwice(node(14)));
    assert_eq!(refusal(elected(|m| m.ballots.truncate(2))), E::JurySize(2));
    let high = elected(|m| m.capacity_bps += 1);
    let (stated, due) = (31_500_001, 31_500_000);
    assert_eq!(refusal(high), E::Capacity { stated, due });
}

#[test]
fn a_leaf_does_without_ballots_but_takes_no_others() {
    let roster = roster(5);
    let full = signed(elected(|_| ()), &[1, 2, 3]);
    let leaf = VerifyContext {
        brief: true,
        ..context(&roster)
    };
    let mut brief = full.clone();
    brief.ballots.clear();
    assert!(mandate::open(&full, &leaf).is_ok());
    let opened = mandate::open(&brief, &leaf).unwrap();
    assert_eq!(opened.mandate().capacity_bps, 31_500_000);
    assert!(mandate::open(&brief, &context(&roster)).is_err());
    assert!(
        mandate::audit(&brief, &leaf).is_err(),
        "nobody signs blindly"
    );
    let mut others = full;
    others.ballots = signed(elected(|m| m.ballots.truncate(3)), &[]).ballots;
    let refused = mandate::open(&others, &leaf).unwrap_err();
    assert_eq!(refused, MandateError::OtherBallots);
}

#[test]
fn only_who_is_called_into_office_was_measured_in_an_earlier_term() {
    let later = |deputy| {
        elected(move |m| {
            m.term = 8;
            m.deputy = deputy;
        })
    };
    let roster = roster(5);
    let called = signed(later(false), &[1, 2, 3]);
    assert!(mandate::open(&called, &context(&roster)).is_ok());
    let other = |draft| matches!(refusal(draft), MandateError::OtherRace(_));
    assert!(other(later(true)) && other(elected(|m| m.term = 6)));
    assert!(other(founded(|m| m.term = 8)));
}

#[test]
fn a_changed_byte_is_refused() {
    let roster = roster(5);
    let good = signed(elected(|_| ()), &[1, 2, 3]);
    for at in (0..good.body.len()).step_by(7) {
        let mut forged = good.clone();
        let mut body = forged.body.to_vec();
        body[at] ^= 1;
        forged.body = body.into();
        assert!(
            mandate::open(&forged, &context(&roster)).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn only_enough_known_super_nodes_elect() {
    use MandateError as E;
    let roster = roster(5);
    let open = |signers: &[u8]| mandate::open(&signed(elected(|_| ()), signers), &context(&roster));
    let lacking = |valid| Err(E::Endorsements { valid, required: 3 });
    assert!(open(&[1, 4, 5]).is_ok());
    assert_eq!(open(&[1, 2]).map(|_| ()), lacking(2));
    assert_eq!(open(&[1, 50, 51, 52]).map(|_| ()), lacking(1));
    assert_eq!(open(&[2, 3, 4]).map(|_| ()), Err(E::Officer(node(1))));
    assert_eq!(open(&[1, 2, 2]).map(|_| ()), Err(E::EndorserTwice(node(2))));
    assert_eq!(
        open(&[1, 2, 3, CANDIDATE]).map(|_| ()),
        Err(E::OwnEndorsement)
    );
    assert_eq!(open(&[]).map(|_| ()), Err(E::EndorsementCount(0)));
}

#[test]
fn two_super_nodes_suffice_where_there_are_two_and_none_never_do() {
    let wire = signed(elected(|_| ()), &[1, 2]);
    assert!(mandate::open(&wire, &context(&roster(2))).is_ok());
    let none = mandate::open(&wire, &context(&Placement::empty()));
    assert_eq!(none.map(|_| ()), Err(MandateError::NoAuthority));
}

#[test]
fn in_a_large_roster_the_officer_has_to_be_due() {
    let roster = roster(40);
    let key = canopy_core::keyspace::keys::election("net", 7);
    let order: Vec<NodeId> = roster
        .closest(&key, 40)
        .into_iter()
        .map(|(_, n)| n)
        .collect();
    let by = |rank: usize| {
        let officer = (1..=40).find(|i| node(*i) == order[rank]).unwrap();
        let aides: Vec<u8> = (1..=40).filter(|i| *i != officer).take(2).collect();
        let body = elected(|m| m.officer = node(officer));
        mandate::open(
            &signed(body, &[officer, aides[0], aides[1]]),
            &context(&roster),
        )
        .is_ok()
    };
    assert!(by(0) && by(7));
    assert!(!by(8) && !by(39));
}

#[test]
fn replayed_and_released_terms_are_refused() {
    use MandateError as E;
    let roster = roster(5);
    let wire = signed(elected(|_| ()), &[1, 2, 3]);
    let given = |mandate, released| {
        let held = move |_: &NodeId| Held { mandate, released };
        let context = VerifyContext {
            held: &held,
            ..context(&roster)
        };
        mandate::open(&wire, &context).map(|_| ())
    };
    assert_eq!(given(Some(7), Some(6)), Ok(()));
    assert_eq!(
        given(Some(8), None),
        Err(E::Superseded { term: 7, held: 8 })
    );
    assert_eq!(given(None, Some(7)), Err(E::Released(7)));
}

#[test]
fn a_founding_takes_a_majority_of_an_assembly_that_the_verifier_trusts() {
    use MandateError as E;
    let own: Vec<NodeId> = (10..16).map(node).chain([node(CANDIDATE)]).collect();
    let known: [&[NodeId]; 1] = [&own];
    let roster = Placement::empty();
    let musters = VerifyContext {
        assemblies: &known,
        ..context(&roster)
    };
    let open = |draft, signers: &[u8]| mandate::open(&signed(draft, signers), &musters).map(|_| ());
    let lacking = |valid| Err(E::Endorsements { valid, required: 4 });
    assert_eq!(open(founded(|_| ()), &[10, 11, 12, 13]), Ok(()));
    assert_eq!(open(founded(|_| ()), &[10, 11, 12]), lacking(3));
    assert_eq!(
        open(founded(|_| ()), &[10, 11, 12, CANDIDATE]),
        Err(E::OwnEndorsement)
    );
    assert_eq!(
        open(founded(|_| ()), &[10, 11, 12, 13, 15]),
        Err(E::Outsider(node(15)))
    );
    assert_eq!(
        open(founded(|m| m.assembly.reverse()), &[10, 11, 12, 13]),
        Err(E::Assembly)
    );
    let narrow = founded(|m| m.assembly.retain(|n| *n != node(14)));
    assert_eq!(open(narrow, &[10, 11, 12, 13]), Err(E::Outsider(node(14))));

    let strangers = mandate::open(
        &signed(founded(|_| ()), &[10, 11, 12, 13]),
        &context(&roster),
    );
    assert_eq!(strangers.map(|_| ()), Err(E::ForeignAssembly));
}

#[test]
fn a_newcomer_checks_all_but_authority_and_only_while_it_knows_nobody() {
    let (nobody, some) = (Placement::empty(), roster(1));
    let newcomer = VerifyContext {
        bootstrap: true,
        ..context(&nobody)
    };
    assert!(mandate::open(&signed(elected(|_| ()), &[1]), &newcomer).is_ok());
    assert!(mandate::open(&signed(founded(|_| ()), &[10, 11, 12, 13]), &newcomer).is_ok());
    assert!(mandate::open(&signed(elected(|m| m.capacity_bps = 9), &[1]), &newcomer).is_err());
    assert!(mandate::open(&signed(founded(|_| ()), &[10, 11, 12]), &newcomer).is_err());
    let settled = VerifyContext {
        bootstrap: true,
        ..context(&some)
    };
    let strangers = mandate::open(&signed(founded(|_| ()), &[10, 11, 12, 13]), &settled);
    assert_eq!(strangers.map(|_| ()), Err(MandateError::ForeignAssembly));
}

#[test]
fn only_the_operator_designates() {
    let (roster, operator) = (Placement::empty(), id(200));
    let context = VerifyContext {
        operator: Some(operator.node_id()),
        ..context(&roster)
    };
    let plain = mandate::audit(&elected(|_| ()), &context).unwrap();
    assert!(mandate::open(&plain.clone().designate(&operator), &context).is_ok());
    let forged = plain.clone().designate(&id(201));
    let refused = |wire, context: &VerifyContext<'_>| mandate::open(&wire, context).unwrap_err();
    assert_eq!(refused(forged, &context), MandateError::Operator);
    let open_network = VerifyContext {
        operator: None,
        ..context
    };
    assert_eq!(
        refused(plain.designate(&operator), &open_network),
        MandateError::Operator
    );
}

#[test]
fn a_release_takes_its_own_signature_the_operators_or_the_authorities() {
    let roster = roster(5);
    let release = |term| Release {
        network: "net".into(),
        candidate: node(CANDIDATE),
        term,
        issued_ms: NOW,
        reason: "é".repeat(150),
    };
    let own = release(7).lay_down(&id(CANDIDATE));
    let opened = release::open(&own, &context(&roster)).unwrap();
    assert_eq!(
        (opened.release().term, opened.release().reason.len()),
        (7, 200)
    );
    let recall = |signers: &[u8]| {
        let body = release(7).encode();
        let sign = |i: &u8| release::endorse(&id(*i), &body);
        let wire = release::sealed(body.clone(), signers.iter().map(sign).collect());
        let key = Some(node(200));
        let context = VerifyContext {
            operator: key,
            ..context(&roster)
        };
        release::open(&wire, &context).is_ok()
    };
    assert!(recall(&[1, 2, 3]) && recall(&[200]));
    assert!(!recall(&[1, 2]) && !recall(&[50, 51, 52]) && !recall(&[1]));
    let mut elsewhere = context(&roster);
    elsewhere.network = "other";
    assert!(release::open(&own, &elsewhere).is_err());
}

#[test]
fn the_largest_mandate_that_the_rules_allow_fits_the_limit() {
    use canopy_core::election::{K, mandate::MAX_ASSEMBLY};
    use canopy_proto::{Message, limits};
    let network = "n".repeat(64);
    let mut largest = founded(|m| {
        m.network = network.clone();
        m.ballots = (1..=K as u8)
            .map(|voter| {
                vote(voter, |b| {
                    b.network = network.clone();
                    b.voter_prefix = format!("{voter:064}");
                    b.share_bps = 1_000_000_000_000;
                    (b.up_bps, b.down_bps) = (b.share_bps, b.share_bps);
                    (b.term, b.round_trip_us) = (u64::MAX, u32::MAX);
                })
            })
            .collect();
        m.assembly = (0..MAX_ASSEMBLY).map(|i| NodeId([i as u8; 32])).collect();
        m.domain = "d".repeat(64);
    });
    let endorsement = mandate::endorse(&id(1), &largest.body);
    largest.endorsements = vec![endorsement; MAX_ASSEMBLY];
    assert!(
        largest.encoded_len() <= limits::MANDATE,
        "{}",
        largest.encoded_len()
    );
}
