use super::super::Config;
use super::super::Output;
use super::super::tests::{contact_of, core, designation, identity, now_at};
use super::*;
use crate::roster::Roster;

/// A super-node that knows these besides itself.
fn knows(own: u8, others: impl Iterator<Item = u8>) -> Core {
    let mut core = core(own, true, None);
    for other in others.filter(|other| *other != own) {
        let entry = wire::RosterEntry {
            mandate: Some(designation(other, &identity(99))),
            contact: Some(contact_of(other).signed.clone()),
            release: None,
        };
        core.admit(now_at(0), &entry, false).expect("designated");
    }
    while core.poll().is_some() {}
    core
}

/// What one sends the other.
fn sent(from: &mut Core, to: &Core) -> Vec<Kind> {
    std::iter::from_fn(|| from.poll())
        .filter_map(|output| match output {
            Output::Send { node, message, .. } if node == to.node_id() => message.kind,
            _ => None,
        })
        .collect()
}

#[test]
fn two_who_know_nearly_the_same_list_only_the_parts_that_differ() {
    let (mut one, mut other) = (knows(1, 2..90), knows(2, 1..91));
    let lacked = identity(90).node_id();
    assert!(one.roster().get(&lacked).is_none());
    let summary = one.summary();
    assert_eq!(summary.parts.len(), 512);
    other.on_roster_digest(now_at(1), one.node_id(), summary);
    let mut listed = sent(&mut other, &one);
    let Some(Kind::RosterDigest(digest)) = listed.pop() else {
        panic!("{listed:?}");
    };
    assert_eq!(digest.among.count_ones(), 1);
    let listed = digest.keys.iter().map(|key| key.node_id.as_ref());
    let listed: Vec<&[u8]> = listed.collect();
    assert!(listed.contains(&lacked.0.as_slice()) && listed.len() < 20);
    one.on_roster_digest(now_at(2), other.node_id(), digest);
    // It lists its own of this part, and so learns what it lacks and no more.
    let [Kind::RosterDigest(digest)] = &sent(&mut one, &other)[..] else {
        panic!("one list");
    };
    other.on_roster_digest(now_at(3), one.node_id(), digest.clone());
    let [Kind::Roster(entries)] = &sent(&mut other, &one)[..] else {
        panic!("one message");
    };
    assert_eq!(entries.entries.len(), 1);
    one.on_roster(now_at(4), other.node_id(), entries.clone());
    assert!(one.roster().serves(&lacked));
    assert_eq!(one.roster().digest(true), other.roster().digest(true));
    assert_eq!(one.roster().parts(), other.roster().parts());
}

#[test]
fn the_parts_follow_each_change() {
    let mut core = knows(1, 2..90);
    let roster = &mut core.roster;
    let same = |roster: &Roster| assert_eq!(roster.parts(), Some(&roster.parts_afresh()));
    same(roster);
    let later = contact_of(6).issued_ms + 1;
    let moved = Contact::sign(&identity(6), &[([127, 0, 0, 1], 9).into()], "", later);
    assert!(roster.contact(moved));
    same(roster);
    assert!(roster.set_down(&identity(7).node_id(), true));
    same(roster);
    let next = roster.next_expiry().expect("some expire");
    assert_eq!(roster.expire(next - 1), []);
    assert!(roster.expire(next).len() > 80);
    same(roster);
    assert!(roster.next_expiry().is_none_or(|after| after > next));
}

#[test]
fn who_restarts_where_it_was_is_no_news() {
    let before = core(1, true, None);
    let saved = before.save();
    let again = |config, now| Core::new(config, identity(1), 2, now, Some(&saved));
    let same = again(before.config.clone(), now_at(60_000));
    assert_eq!(same.contact(), before.contact());
    assert_eq!(same.role(), Role::SuperNode);
    // Its clock may have been set back since.
    let early = Now {
        unix_ms: before.contact().issued_ms - 5_000,
        ..now_at(0)
    };
    for now in [now_at(60_000), early] {
        let elsewhere = Config {
            addrs: vec![([127, 0, 0, 1], 7).into()],
            ..before.config.clone()
        };
        let moved = again(elsewhere, now);
        assert!(moved.contact().issued_ms > before.contact().issued_ms);
        assert_eq!(
            moved.roster().get(&moved.node_id()).map(Entry::addrs),
            Some(moved.contact().addrs.as_slice())
        );
    }
}
