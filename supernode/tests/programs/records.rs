//! Records from a peer that lies: a running host refuses each, says why, and
//! keeps what it has.

use canopy_core::identity::{Domain, Identity};
use canopy_proto::wire::refusal::Code;
use canopy_proto::{limits, wire};

use crate::running::{Running, key};
use crate::visitor::{Visitor, now_ms, value};

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_are_refused_by_their_reason_and_replace_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    key(home.path(), "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(home.path(), &args);
    assert_eq!(host.event("role_changed")["to"], "super-node");
    let visitor = Visitor::at(&host).await;
    let honest = visitor.record(7, value("n", b"honest".to_vec()));
    let outcomes = visitor.put(vec![honest.signed.clone()]).await;
    assert_eq!(outcomes, [wire::PutOutcome::default()]);

    // Signed as it stands, whatever it says; a later one of the same name.
    let lie = |change: fn(&mut wire::Record)| {
        let mut body = wire::Record {
            sequence: 8,
            payload: Some(value("n", b"a lie".to_vec())),
            ..honest.body.clone()
        };
        change(&mut body);
        visitor.identity.sign(Domain::Record, &body)
    };
    let stranger = Identity::from_secret([6; 32]);
    let body = wire::Record {
        sequence: 8,
        ..honest.body.clone()
    };
    let another = stranger.sign(Domain::Record, &body);
    let mut forged = another.clone();
    forged.signer = honest.signed.signer.clone();
    let mut changed = honest.signed.clone();
    changed.body = lie(|_| ()).body;
    let no_record = wire::Signed {
        body: vec![0xff; 100].into(),
        ..honest.signed.clone()
    };
    let cases = [
        (forged, Code::Invalid, "signature"),
        (changed, Code::Invalid, "signature"),
        (no_record, Code::Invalid, "record: "),
        (wire::Signed::default(), Code::Invalid, "record: "),
        (another, Code::Invalid, "another peer than its publisher"),
        (lie(|r| r.issued_ms -= HOUR_MS), Code::Invalid, "expired"),
        (
            lie(|r| r.issued_ms = now_ms() + HOUR_MS),
            Code::Invalid,
            "check the clocks",
        ),
        (lie(|r| r.ttl_s = u32::MAX), Code::Malformed, "lifetime"),
        (lie(|r| r.network = "other".into()), Code::Network, "other"),
        (lie(|r| r.payload = None), Code::Malformed, "no payload"),
        (
            lie(|r| r.payload = Some(value("n", vec![0; limits::VALUE + 1]))),
            Code::Malformed,
            "the limit is 65536",
        ),
        (
            lie(|r| r.payload = Some(value(&"n".repeat(1025), Vec::new()))),
            Code::Malformed,
            "the limit is 1024",
        ),
    ];
    let (records, wanted): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(record, code, text)| (record, (code, text)))
        .unzip();
    let outcomes = visitor.put(records).await;
    assert_eq!(outcomes.len(), wanted.len());
    for (outcome, (code, text)) in outcomes.into_iter().zip(wanted) {
        let refusal = outcome.refusal.expect(text);
        assert_eq!(refusal.code(), code, "{text}: {}", refusal.message);
        assert!(refusal.message.contains(text), "{}", refusal.message);
    }
    assert_eq!(visitor.get(&honest).await, Some(honest.signed.clone()));
    host.end("-TERM");
}
