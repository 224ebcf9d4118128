//! A peer that sends papers which nobody gave it gets nowhere: every peer
//! refuses them and says so, and nobody's placement changes.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use canopy_core::contact::Contact;
use canopy_core::election::ballot::{Ballot, VerifiedBallot};
use canopy_core::election::mandate::{self, Basis, Mandate};
use canopy_core::election::release::{self, Release};
use canopy_core::election::tally;
use canopy_core::identity::Identity;
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::node::{Event, Input, Role};
use canopy_core::placement::R;
use canopy_proto::wire::{self, core_message::Kind};
use harness::{Plan, World, addr, id, identity};

const MBIT: u64 = 1_000_000;
const HOSTILE: u8 = 200;
const HOUR: u64 = 3_600_000;

fn overlay(seed: u64) -> World {
    let mut world = World::new(seed);
    for i in 1..=10 {
        world.start(Plan::new(i, 5 * MBIT * u64::from(i), &[1]));
    }
    let founded = |world: &World| {
        let serving = world.with_role(Role::SuperNode);
        serving.len() >= R && world.all_know(&serving)
    };
    assert!(world.run_until(Duration::from_secs(30), founded));
    world.run(Duration::from_secs(10));
    world
}

/// The identity behind a node of the harness.
fn key_of(node: NodeId) -> Identity {
    (1..=255)
        .map(identity)
        .find(|i| i.node_id() == node)
        .expect("a peer of the harness")
}

fn contact(index: u8, now_ms: u64) -> Contact {
    Contact::sign(&identity(index), &[addr(index)], "", now_ms)
}

/// A mandate that sybils voted for; what `change` makes of it.
fn sybils_choice(world: &World, term: u64, change: impl Fn(&mut Mandate)) -> wire::SignedMandate {
    let now_ms = world.now().unix_ms;
    let beacon = Key([4; 32]);
    let vote = |voter: u8| {
        let ballot = Ballot {
            network: "test".into(),
            term,
            beacon,
            jury: 0,
            level: 3,
            voter: id(voter),
            candidate: id(HOSTILE),
            share_bps: 100 * MBIT,
            up_bps: 100 * MBIT,
            down_bps: 100 * MBIT,
            round_trip_us: 900,
            loss_ppm: 0,
            issued_ms: now_ms,
            voter_prefix: addr(voter).to_string(),
        };
        VerifiedBallot::cast(&identity(voter), ballot).expect("a plausible ballot")
    };
    let ballots: Vec<_> = (HOSTILE + 1..HOSTILE + 8).map(vote).collect();
    let mut assembly: Vec<NodeId> = (HOSTILE..HOSTILE + 8).map(id).collect();
    assembly.sort_unstable();
    let mut mandate = Mandate {
        network: "test".into(),
        term,
        candidate: id(HOSTILE),
        basis: Basis::Founded,
        capacity_bps: tally::capacity_bps(&ballots),
        issued_ms: now_ms,
        expires_ms: now_ms + HOUR,
        beacon,
        ballots,
        officer: id(HOSTILE + 1),
        assembly,
        domain: "elsewhere".into(),
        deputy: false,
    };
    change(&mut mandate);
    mandate.draft()
}

fn sealed(mut draft: wire::SignedMandate, signers: &[Identity]) -> wire::SignedMandate {
    let sign = |i: &Identity| mandate::endorse(i, &draft.body);
    draft.endorsements = signers.iter().map(sign).collect();
    draft
}

fn sybils() -> Vec<Identity> {
    (HOSTILE + 1..HOSTILE + 8).map(identity).collect()
}

fn entry(world: &World, signed: wire::SignedMandate) -> wire::RosterEntry {
    wire::RosterEntry {
        mandate: Some(signed),
        contact: Some(contact(HOSTILE, world.now().unix_ms).signed.clone()),
        release: None,
    }
}

/// A session that the hostile peer opened, and what it says over it.
fn say(world: &mut World, to: NodeId, entries: Vec<wire::RosterEntry>) {
    let now_ms = world.now().unix_ms;
    let up = Input::SessionUp {
        contact: contact(HOSTILE, now_ms),
        inbound: true,
        observed: None,
        round_trip: Duration::from_millis(1),
        clock_offset_ms: 0,
    };
    world.tell(to, up);
    let roster = wire::RosterEntries {
        entries,
        dead: Vec::new(),
    };
    let message = Box::new(wire::CoreMessage {
        kind: Some(Kind::Roster(roster)),
    });
    world.tell(
        to,
        Input::Message {
            from: id(HOSTILE),
            message,
        },
    );
}

fn members(world: &World, node: NodeId) -> Vec<NodeId> {
    world
        .core(node)
        .placement()
        .members()
        .map(|m| m.node)
        .collect()
}

/// Everyone refuses `entry`, says so, and knows the same super-nodes after as
/// before.
fn refused_everywhere(world: &mut World, what: &str, entry: &wire::RosterEntry) {
    ignored_everywhere(world, what, entry, true);
}

/// As [`refused_everywhere`]; `loud` where nobody may have known it before.
fn ignored_everywhere(world: &mut World, what: &str, entry: &wire::RosterEntry, loud: bool) {
    for node in world.alive() {
        let (before, events) = (members(world, node), world.events.len());
        say(world, node, vec![entry.clone()]);
        assert_eq!(members(world, node), before, "{what}");
        let said = world.events[events..]
            .iter()
            .any(|(_, who, event)| *who == node && matches!(event, Event::MandateRefused { .. }));
        assert!(
            said || !loud,
            "{what}: {:?} did not say so",
            world.core(node).role()
        );
    }
    let serving = world.with_role(Role::SuperNode);
    world.run(Duration::from_secs(20));
    assert_eq!(world.with_role(Role::SuperNode), serving, "{what}");
    assert!(world.all_know(&serving), "{what}");
}

#[test]
fn self_made_mandates_are_refused_by_leaves_and_super_nodes() {
    let mut world = overlay(21);
    let serving: Vec<Identity> = world
        .with_role(Role::SuperNode)
        .into_iter()
        .map(key_of)
        .collect();
    let officer = serving[0].node_id();
    let elected = |m: &mut Mandate| (m.basis, m.assembly) = (Basis::Elected, Vec::new());

    let own_assembly = sealed(sybils_choice(&world, 9, |_| ()), &sybils());
    let strangers = sealed(sybils_choice(&world, 9, elected), &sybils());
    let recognised = sybils_choice(&world, 9, |m| {
        elected(m);
        m.basis = Basis::Recognised;
    });
    let by_officer = sybils_choice(&world, 9, |m| {
        elected(m);
        m.officer = officer;
    });
    let mut with_itself = vec![identity(HOSTILE)];
    with_itself.extend(serving.iter().take(2).cloned());
    let own = sealed(by_officer.clone(), &with_itself);
    let too_few = sealed(by_officer.clone(), &serving[..1]);
    let mut unsigned = sealed(by_officer, &serving);
    for endorsement in &mut unsigned.endorsements {
        endorsement.signature = Bytes::from(vec![7; 64]);
    }
    for (what, signed) in [
        ("an assembly of sybils", own_assembly),
        ("endorsed by strangers", strangers),
        ("recognised by strangers", sealed(recognised, &sybils())),
        ("endorsed by its candidate", own),
        ("too few signatures", too_few),
        ("made-up signatures", unsigned),
    ] {
        let entry = entry(&world, signed);
        refused_everywhere(&mut world, what, &entry);
    }
}

#[test]
fn forged_expired_and_replayed_mandates_are_refused() {
    let mut world = overlay(22);
    let serving = world.with_role(Role::SuperNode);
    let keys: Vec<Identity> = serving.iter().copied().map(key_of).collect();
    let elected = |m: &mut Mandate| {
        (m.basis, m.assembly, m.officer) = (Basis::Elected, Vec::new(), serving[0]);
    };
    let expired = sybils_choice(&world, 9, |m| {
        elected(m);
        (m.issued_ms, m.expires_ms) = (m.issued_ms - HOUR, m.issued_ms - 1);
    });
    let hasty = sybils_choice(&world, 9, |m| {
        elected(m);
        (m.issued_ms, m.expires_ms) = (m.issued_ms + HOUR, m.expires_ms + HOUR);
    });
    let endless = sybils_choice(&world, u64::MAX, elected);
    for (what, body) in [("expired", expired), ("issued in the future", hasty)] {
        let entry = entry(&world, sealed(body, &keys));
        refused_everywhere(&mut world, what, &entry);
    }
    // Even those who may sign cannot use up all terms at once.
    let last = entry(&world, sealed(endless, &keys));
    for node in world.alive() {
        say(&mut world, node, vec![last.clone()]);
        assert!(!members(&world, node).contains(&id(HOSTILE)));
    }

    let papers = world.core(serving[1]).save().0.entries;
    let genuine = papers.iter().find(|e| {
        e.mandate
            .as_ref()
            .is_some_and(|m| body(m).candidate == serving[2].0[..])
    });
    let genuine = genuine
        .and_then(|e| e.mandate.clone())
        .expect("the papers of a super-node");
    let mut forged = genuine.clone();
    let mut bytes = forged.body.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    forged.body = bytes.into();
    let entry = entry(&world, forged);
    refused_everywhere(&mut world, "a changed byte", &entry);

    // What was laid down stays down, whoever brings the old paper back.
    world.tell(serving[2], Input::StepDown);
    let settled = |world: &World| {
        let now = world.with_role(Role::SuperNode);
        now.len() == R && !now.contains(&serving[2]) && world.all_know(&now)
    };
    assert!(world.run_until(Duration::from_secs(30), settled));
    let replayed = wire::RosterEntry {
        mandate: Some(genuine),
        contact: None,
        release: None,
    };
    ignored_everywhere(&mut world, "replayed after its release", &replayed, false);
    world.kill(serving[2]);
    let newcomer = world.start(Plan::new(50, 2 * MBIT, &[1]));
    assert!(world.run_until(Duration::from_secs(10), settled));
    say(&mut world, newcomer, vec![replayed]);
    // It may not have heard of the release yet; its home names who is gone
    // when they compare rosters.
    let gone = |world: &World| !members(world, newcomer).contains(&serving[2]);
    assert!(world.run_until(Duration::from_secs(10), gone));
    world.run(Duration::from_secs(10));
    assert!(gone(&world));
}

#[test]
fn who_answers_is_measured_whatever_its_papers_say() {
    let mut world = overlay(25);
    let mut weak = Plan::new(HOSTILE, 900 * MBIT, &[1]);
    weak.true_bps = Some(MBIT / 2);
    let weak = world.start(weak);
    world.run(Duration::from_secs(2));
    let serving = world.with_role(Role::SuperNode);
    let papers = sealed(sybils_choice(&world, 9, |_| ()), &sybils());
    let entry = entry(&world, papers);
    for node in world.alive() {
        say(&mut world, node, vec![entry.clone()]);
    }
    let raced = |world: &World| {
        world.events.iter().any(|(_, _, event)| {
            matches!(event, Event::Raced { candidate, score_bps: 0, .. } if *candidate == weak)
        })
    };
    assert!(
        world.run_until(Duration::from_secs(30), raced),
        "nobody looked"
    );
    world.run(Duration::from_secs(20));
    assert_eq!(world.with_role(Role::SuperNode), serving);
}

fn body(signed: &wire::SignedMandate) -> wire::Mandate {
    canopy_proto::Message::decode(signed.body.clone()).expect("a mandate that was accepted")
}

#[test]
fn a_release_ends_the_present_term_alone_and_only_by_those_who_may() {
    let mut world = overlay(23);
    let serving = world.with_role(Role::SuperNode);
    let victim = serving[0];
    let release = |term, candidate| Release {
        network: "test".into(),
        candidate,
        term,
        issued_ms: world.now().unix_ms,
        reason: "none".into(),
    };
    let by_strangers = release(1, victim).encode();
    let signed = sybils()
        .iter()
        .map(|i| release::endorse(i, &by_strangers))
        .collect();
    let forged = release::sealed(by_strangers, signed);
    // A super-node may lay its role down, but not in terms to come.
    let early = release(u64::MAX, victim).lay_down(&key_of(victim));
    for release in [forged, early] {
        let entry = wire::RosterEntry {
            mandate: None,
            contact: None,
            release: Some(release),
        };
        for node in world.alive() {
            say(&mut world, node, vec![entry.clone()]);
        }
    }
    world.run(Duration::from_secs(10));
    assert_eq!(world.with_role(Role::SuperNode), serving);
    assert!(world.all_know(&serving));
    // Terms go on.
    world.kill(victim);
    let replaced = |world: &World| world.with_role(Role::SuperNode).len() == R;
    assert!(world.run_until(Duration::from_secs(30), replaced));
}

#[test]
fn a_newcomer_takes_its_first_roster_from_nobody_it_was_not_told_of() {
    let mut world = World::new(24);
    let newcomer = world.start(Plan::new(1, 50 * MBIT, &[2]));
    world.run(Duration::from_secs(3));
    let signed = sealed(sybils_choice(&world, 1, |_| ()), &sybils());
    let entry = entry(&world, signed);
    say(&mut world, newcomer, vec![entry.clone()]);
    assert!(world.core(newcomer).placement().is_empty());

    // Nor from one that it dialled only because others spoke of it, whatever
    // address that one says it has.
    let now_ms = world.now().unix_ms;
    let pretender = Contact::sign(&identity(HOSTILE), &[addr(HOSTILE), addr(2)], "", now_ms);
    let known = wire::MusterEntry {
        contact: Some(pretender.signed.clone()),
        candidacy: None,
        age_ms: 0,
    };
    let muster = Kind::Muster(wire::Muster {
        members: vec![known],
        ..Default::default()
    });
    let message = Box::new(wire::CoreMessage { kind: Some(muster) });
    world.tell(
        newcomer,
        Input::Message {
            from: id(HOSTILE),
            message,
        },
    );
    let up = Input::SessionUp {
        contact: pretender,
        inbound: false,
        observed: None,
        round_trip: Duration::from_millis(1),
        clock_offset_ms: 0,
    };
    world.tell(newcomer, up);
    let roster = wire::RosterEntries {
        entries: vec![entry],
        dead: Vec::new(),
    };
    let message = Box::new(wire::CoreMessage {
        kind: Some(Kind::Roster(roster)),
    });
    world.tell(
        newcomer,
        Input::Message {
            from: id(HOSTILE),
            message,
        },
    );
    assert!(world.core(newcomer).placement().is_empty());
}
