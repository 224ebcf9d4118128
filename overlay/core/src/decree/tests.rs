use canopy_proto::wire::record::Payload;

use super::*;
use crate::record::Record;

const NOW: u64 = 1_800_000_000_000;

fn operator() -> Identity {
    Identity::from_secret([1; 32])
}

fn node(i: u8) -> NodeId {
    Identity::from_secret([i; 32]).node_id()
}

fn decree(sequence: u64, order: Order) -> Decree {
    Decree {
        network: "net".into(),
        sequence,
        issued_ms: NOW,
        expires_ms: NOW + MAX_LIFE_MS,
        order,
    }
}

fn ban(what: Banned) -> Order {
    let reason = "spam".into();
    Order::Ban { what, reason }
}

fn open_at(signed: &wire::Signed, now_ms: u64) -> Result<VerifiedDecree, DecreeError> {
    VerifiedDecree::open(signed, "net", Some(operator().node_id()), now_ms)
}

fn verified(decree: &Decree) -> VerifiedDecree {
    open_at(&decree.sign(&operator()), NOW).unwrap()
}

fn orders() -> Vec<Order> {
    let policy = Policy {
        ratio: Some(60),
        grow_milli: Some(550),
        ..Policy::default()
    };
    vec![
        ban(Banned::Peer(node(2))),
        Order::Unban(Banned::Publisher(node(2))),
        ban(Banned::Content([7; 32])),
        Order::Designate {
            host: node(3),
            mandate: Box::default(),
        },
        Order::Undesignate(node(3)),
        Order::Policy(policy),
        Order::Policy(Policy::default()),
    ]
}

#[test]
fn what_the_operator_signs_is_what_others_read() {
    for order in orders() {
        let said = decree(5, order);
        assert_eq!(verified(&said).decree(), &said);
    }
}

#[test]
fn nothing_counts_but_the_operators_word_for_this_network_and_time() {
    let said = decree(5, ban(Banned::Peer(node(2))));
    let good = said.sign(&operator());
    let stranger = Identity::from_secret([9; 32]);
    assert!(matches!(
        open_at(&said.sign(&stranger), NOW),
        Err(DecreeError::Signer { .. })
    ));
    let mut claimed = said.sign(&stranger);
    claimed.signer = operator().node_id().to_bytes();
    assert!(matches!(
        open_at(&claimed, NOW),
        Err(DecreeError::Signature(_))
    ));
    let mut changed = good.clone();
    let other = decree(6, ban(Banned::Peer(node(3))));
    changed.body = other.sign(&stranger).body;
    assert!(matches!(
        open_at(&changed, NOW),
        Err(DecreeError::Signature(_))
    ));
    let elsewhere = VerifiedDecree::open(&good, "other", Some(operator().node_id()), NOW);
    assert!(matches!(elsewhere, Err(DecreeError::Network(_))));
    let nobody = VerifiedDecree::open(&good, "net", None, NOW);
    assert_eq!(nobody, Err(DecreeError::NoOperator));
    assert_eq!(open_at(&good, NOW + MAX_LIFE_MS), Err(DecreeError::Expired));
    assert!(matches!(
        open_at(&good, NOW - 60_000),
        Err(DecreeError::Future(_))
    ));
    let long = Decree {
        expires_ms: NOW + MAX_LIFE_MS + 1,
        ..said
    };
    assert_eq!(
        open_at(&long.sign(&operator()), NOW),
        Err(DecreeError::Lifetime)
    );
    // A signature of another kind of body does not pass for a decree's.
    let body = good.body.clone();
    let contact = wire::Signed {
        signature: operator().sign_bytes(Domain::Contact, &body),
        ..good
    };
    assert!(open_at(&contact, NOW).is_err());
}

#[test]
fn garbage_and_contradictions_are_refused() {
    let sign = |body: wire::Decree| operator().sign(Domain::Decree, &body);
    let body = |what| wire::Decree {
        network: "net".into(),
        sequence: 1,
        issued_ms: NOW,
        expires_ms: NOW + 1000,
        what,
    };
    let ban = |what| Some(What::Ban(what));
    let short = wire::Ban {
        what: Some(BanWhat::Peer(Bytes::from_static(b"short"))),
        ..Default::default()
    };
    let wordy = wire::Ban {
        what: Some(BanWhat::Peer(node(2).to_bytes())),
        reason: "x".repeat(201),
        ..Default::default()
    };
    let flapping = wire::Policy {
        grow_milli: Some(300),
        shrink_milli: Some(280),
        ..Default::default()
    };
    let huge = wire::Policy {
        ratio: Some(0),
        ..Default::default()
    };
    for wrong in [
        body(None),
        body(ban(wire::Ban::default())),
        body(ban(short)),
        body(ban(wordy)),
        body(Some(What::Policy(flapping))),
        body(Some(What::Policy(huge))),
    ] {
        assert!(open_at(&sign(wrong.clone()), NOW).is_err(), "{wrong:?}");
    }
    let junk = wire::Signed {
        body: Bytes::from_static(b"\xff\xff\xff"),
        ..Default::default()
    };
    assert!(open_at(&junk, NOW).is_err());
}

#[test]
fn the_latest_about_a_subject_counts_whatever_the_order_of_arrival() {
    let peer = Banned::Peer(node(2));
    let said = [
        decree(1, ban(peer)),
        decree(2, Order::Unban(peer)),
        decree(3, ban(peer)),
        // The same sequence twice: an operator with two desks.
        decree(3, Order::Unban(peer)),
        decree(2, ban(Banned::Publisher(node(2)))),
        decree(9, Order::Policy(Policy::default())),
    ];
    let mut known: Option<Register> = None;
    for first in 0..said.len() {
        let mut register = Register::default();
        for i in 0..said.len() {
            let next = verified(&said[(first + i) % said.len()]);
            let would = register.would_take(&next);
            let took = register.take(next.clone());
            assert_eq!(took, would);
            // Again, it changes nothing.
            let digest = register.digest();
            assert!(!matches!(register.take(next), Ok(true)));
            assert_eq!(register.digest(), digest);
        }
        assert_eq!(register.len(), 3);
        let known = known.get_or_insert_with(|| register.clone());
        assert_eq!(register.digest(), known.digest());
        assert_eq!(register.bans(), known.bans());
        assert!(register.ranks().eq(known.ranks()));
    }
}

#[test]
fn a_ban_that_is_lifted_or_ends_is_none() {
    let mut register = Register::default();
    assert_eq!(register.digest(), Key::default());
    let content = Banned::Content([7; 32]);
    let short = Decree {
        expires_ms: NOW + 1000,
        ..decree(1, ban(content))
    };
    assert_eq!(register.take(verified(&short)), Ok(true));
    let peer = decree(1, ban(Banned::Peer(node(2))));
    assert_eq!(register.take(verified(&peer)), Ok(true));
    let provider = crate::keyspace::keys::provider(&[7; 32]);
    assert!(register.bans().key(&provider) && register.bans().peer(&node(2)));

    let snapshot = register.bans().clone();
    let lift = decree(2, Order::Unban(Banned::Peer(node(2))));
    assert_eq!(register.take(verified(&lift)), Ok(true));
    assert!(!register.bans().peer(&node(2)) && snapshot.peer(&node(2)));
    let replayed = register.take(verified(&peer));
    assert_eq!(replayed, Err(DecreeError::Superseded { held: 2 }));

    assert_eq!(register.next_expiry(), Some(NOW + 1000));
    assert_eq!(register.expire(NOW + 999), []);
    assert_eq!(register.expire(NOW + 1000), [short]);
    assert!(register.bans().is_empty() && !register.bans().key(&provider));
    assert_eq!(register.len(), 1);
    assert_eq!(register.expire(NOW + MAX_LIFE_MS).len(), 1);
    assert_eq!(register.digest(), Key::default());
}

#[test]
fn a_register_has_its_limit_and_takes_what_replaces() {
    let mut register = Register::default();
    let of = |i: usize, sequence, lifted| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&i.to_le_bytes());
        let what = Banned::Content(hash);
        let order = if lifted {
            Order::Unban(what)
        } else {
            ban(what)
        };
        let decree = decree(sequence, order);
        let signed = wire::Signed {
            body: Bytes::from(decree.to_wire().encode_to_vec()),
            ..Default::default()
        };
        // Not signed: 4096 signatures take longer than this test should.
        VerifiedDecree { decree, signed }
    };
    for i in 0..MAX_DECREES {
        assert_eq!(register.take(of(i, 1, false)), Ok(true));
    }
    let more = register.take(of(MAX_DECREES, 1, false));
    assert_eq!(more, Err(DecreeError::Full));
    assert_eq!(register.take(of(3, 2, true)), Ok(true));
    let keys = register.ranks().map(|(subject, (sequence, tie), _)| {
        let subject = subject.to_bytes();
        wire::DecreeKey {
            subject,
            sequence: sequence + NOW,
            tie,
        }
    });
    let all = wire::DecreeKeys {
        keys: keys.collect(),
        want: true,
    };
    assert!(all.encoded_len() <= limits::core(&wire::core_message::Kind::DecreeKeys(all.clone())));
}

#[test]
fn a_record_is_banned_by_its_publisher_or_by_what_it_holds_or_points_at() {
    let publisher = Identity::from_secret([5; 32]);
    let data = Bytes::from_static(b"forbidden");
    let hash: [u8; 32] = *blake3::hash(&data).as_bytes();
    let content = Bytes::copy_from_slice(&hash);
    let value = |name: &str| {
        Payload::Value(wire::Value {
            name: name.into(),
            data: data.clone(),
        })
    };
    let provider = Payload::Provider(wire::Provider {
        content: content.clone(),
        size: 9,
    });
    let item = Payload::Item(wire::Item {
        name: "x".into(),
        content,
        terms: vec!["x".into()],
        ..Default::default()
    });
    let harmless = Payload::Value(wire::Value {
        name: "n".into(),
        data: Bytes::from_static(b"good"),
    });
    let record = |payload| Record::sign(&publisher, "net", 1, NOW, 60, payload).unwrap();
    let bans = |what| {
        let mut register = Register::default();
        register.take(verified(&decree(1, ban(what)))).unwrap();
        register.bans().clone()
    };
    let by_content = bans(Banned::Content(hash));
    for payload in [value(""), value("named"), provider, item] {
        let found = by_content.of(&record(payload));
        assert_eq!(found, Some(Banned::Content(hash)));
    }
    assert_eq!(by_content.of(&record(harmless.clone())), None);
    assert!(by_content.key(&record(value("")).id()));
    let by_publisher = bans(Banned::Publisher(publisher.node_id()));
    assert!(by_publisher.of(&record(harmless.clone())).is_some());
    // A peer that is banned may have published before.
    let by_peer = bans(Banned::Peer(publisher.node_id()));
    assert_eq!(by_peer.of(&record(harmless)), None);
}
