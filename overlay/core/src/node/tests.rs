//! Anything from anybody: a core never panics, and nothing in it grows without
//! bound.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use canopy_proto::wire::{self, Topology, core_message::Kind};
use proptest::prelude::*;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::election::mandate::{self, Basis, Mandate};
use crate::keyspace::Key;
use crate::preset::Preset;

const START_MS: u64 = 1_800_000_000_000;

pub(super) fn identity(i: u8) -> Identity {
    Identity::from_secret([i; 32])
}

pub(super) fn now_at(ms: u64) -> Now {
    Now {
        at: Time(ms * 1000),
        unix_ms: START_MS + ms,
    }
}

pub(super) fn contact_of(i: u8) -> Contact {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(i)));
    Contact::sign(&identity(i), &[addr], "", START_MS)
}

pub(super) fn designation(i: u8, operator: &Identity) -> wire::SignedMandate {
    designation_of(i, 1, operator)
}

fn designation_of(i: u8, term: u64, operator: &Identity) -> wire::SignedMandate {
    Mandate {
        network: "test".into(),
        term,
        candidate: identity(i).node_id(),
        basis: Basis::Designated,
        capacity_bps: 50_000_000,
        issued_ms: START_MS,
        expires_ms: START_MS + 3_600_000,
        beacon: Key::default(),
        ballots: Vec::new(),
        officer: operator.node_id(),
        assembly: Vec::new(),
        domain: String::new(),
        deputy: false,
    }
    .designate(operator)
}

pub(super) fn core(i: u8, serves: bool, uplink_bps: Option<u64>) -> Core {
    let operator = identity(99);
    let config = Config {
        network: "test".into(),
        topology: Topology::Elected,
        operator: Some(operator.node_id()),
        stand: Stand::Auto,
        uplink_bps,
        zone: String::new(),
        addrs: contact_of(i).addrs.clone(),
        port: 1000 + u16::from(i),
        peers: Vec::new(),
        timing: Preset::Local.timings(),
        max_leaves: 20,
        ratio: 40,
        floor_bps: 1_000_000,
        cache: 20,
        designation: serves.then(|| designation(i, &operator)),
    };
    Core::new(config, identity(i), 1, now_at(0), None)
}

/// Makes messages of well-formed and malformed parts.
struct Maker(SmallRng);

/// Signing is slow without optimisation: everything is signed once.
struct Signed {
    contacts: Vec<Contact>,
    mandates: Vec<wire::SignedMandate>,
}

fn signed() -> &'static Signed {
    static SIGNED: std::sync::OnceLock<Signed> = std::sync::OnceLock::new();
    SIGNED.get_or_init(|| Signed {
        contacts: (0..60).map(contact_of).collect(),
        mandates: (0..60)
            .flat_map(|i| [designation(i, &identity(99)), designation(i, &identity(i))])
            .collect(),
    })
}

impl Maker {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())].clone()
    }

    fn node(&mut self) -> NodeId {
        self.one(&signed().contacts[1..9]).node_id
    }

    fn number(&mut self) -> u64 {
        let any = self.0.next_u64();
        self.one(&[
            0,
            1,
            2,
            7,
            1000,
            any,
            u64::from(u32::MAX),
            u64::MAX,
            u64::MAX - 1,
        ])
    }

    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn bytes(&mut self) -> Bytes {
        let mut any = [0; 32];
        self.0.fill_bytes(&mut any);
        let known = self.node().to_bytes();
        let odd = self.0.random_range(0..200);
        self.one(&[
            known.clone(),
            known,
            Bytes::new(),
            Bytes::copy_from_slice(&any),
            Bytes::from(vec![3; odd]),
        ])
    }

    fn text(&mut self) -> String {
        self.one(&[
            "",
            "127.0.0.1:1001",
            "127.0.0.1:1002",
            "test",
            "日本 \0",
            "[::1]:9",
        ])
        .into()
    }

    fn signed(&mut self) -> Option<wire::Signed> {
        let contact = self.one(&signed().contacts).signed.clone();
        let garbage = wire::Signed {
            body: self.bytes(),
            signer: self.bytes(),
            signature: self.bytes(),
        };
        self.one(&[None, Some(contact.clone()), Some(contact), Some(garbage)])
    }

    fn many<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = self.one(&[0, 1, 3, 3, 20, 100]);
        (0..count).map(|_| make(self)).collect()
    }

    fn candidacy(&mut self) -> Option<wire::Candidacy> {
        let (eligible, claim_bps) = (self.0.random(), self.number());
        Some(wire::Candidacy {
            eligible,
            claim_bps,
        })
    }

    fn endorsement(&mut self) -> wire::Endorsement {
        wire::Endorsement {
            signer: self.bytes(),
            signature: self.bytes(),
        }
    }

    fn mandate(&mut self) -> wire::SignedMandate {
        let signed = self.one(&signed().mandates);
        let garbage = wire::SignedMandate {
            body: self.bytes(),
            endorsements: self.many(Self::endorsement),
            ballots: self.bytes(),
            assembly: self.bytes(),
        };
        self.one(&[signed.clone(), signed, garbage])
    }

    fn entry(&mut self) -> wire::RosterEntry {
        let mandate = self.mandate();
        let release = wire::SignedRelease {
            body: self.bytes(),
            endorsements: vec![],
        };
        wire::RosterEntry {
            mandate: self.one(&[None, Some(mandate)]),
            contact: self.signed(),
            release: self.one(&[None, Some(release)]),
        }
    }

    fn roster(&mut self) -> wire::RosterEntries {
        wire::RosterEntries {
            entries: self.many(Self::entry),
            dead: self.many(Self::bytes),
        }
    }

    fn member(&mut self) -> wire::MusterEntry {
        wire::MusterEntry {
            contact: self.signed(),
            candidacy: self.candidacy(),
            age_ms: self.small(),
        }
    }

    fn kind(&mut self) -> Kind {
        match self.0.random_range(0..25) {
            0 => Kind::Gossip(self.bytes()),
            1 => Kind::RosterDigest(wire::RosterDigest {
                digest: self.bytes(),
                super_nodes: self.small(),
                keys: self.many(|m| wire::RosterKey {
                    node_id: m.bytes(),
                    term: m.number(),
                    released: m.0.random(),
                    deputy: m.0.random(),
                    contact_ms: m.number(),
                }),
                want: self.0.random(),
                leaf: self.0.random(),
                summary: self.0.random(),
                decrees: self.bytes(),
                asks_dead: self.0.random(),
                parts: self.bytes(),
                among: self.number(),
            }),
            2 | 3 => Kind::Roster(self.roster()),
            4 => Kind::SeatsAsk(wire::SeatsAsk {
                position: self.bytes(),
                count: self.small(),
            }),
            5 => Kind::Muster(wire::Muster {
                members: self.many(Self::member),
                limit: self.bytes(),
                electing: self.0.random(),
            }),
            6 => Kind::Attach(wire::Attach {
                contact: self.signed(),
                candidacy: self.candidacy(),
                slot: self.small(),
                other_home: self.bytes(),
                probe: self.0.random(),
            }),
            7 => Kind::Attached(wire::Attached {
                utilisation_milli: self.small(),
                leaves: self.small(),
                probe: self.0.random(),
            }),
            8 => Kind::Redirect(wire::Redirect {
                to: self.many(Self::entry),
                not_serving: self.0.random(),
            }),
            9 => Kind::Standing(wire::Standing {
                candidacy: self.candidacy(),
            }),
            10 => Kind::HomeLost(wire::HomeLost {
                node_id: self.bytes(),
            }),
            11 => Kind::LoadReport(wire::LoadReport {
                at_ms: self.number(),
                leaves: self.small(),
                connections_milli: self.small(),
                candidates: self.many(Self::member).into_iter().take(9).collect(),
                term: self.number(),
                ..Default::default()
            }),
            12 => Kind::DialBackAsk(wire::DialBackAsk {
                token: self.number(),
                addr: self.text(),
                contact: self.signed(),
            }),
            13 => Kind::DialBackResult(wire::DialBackResult {
                token: self.number(),
                reached: self.0.random(),
                addr: self.text(),
            }),
            14 => Kind::BeaconAsk(wire::BeaconAsk {
                term: self.number(),
                candidate: self.bytes(),
            }),
            15 => Kind::BeaconShare(wire::BeaconShare {
                term: self.number(),
                candidate: self.bytes(),
                share: self.bytes(),
            }),
            16 => Kind::VotersAsk(wire::VotersAsk {
                term: self.number(),
                candidate: self.bytes(),
                beacon: self.bytes(),
                count: self.small(),
            }),
            17 => Kind::Summons(wire::Summons {
                term: self.number(),
                beacon: self.bytes(),
                candidate: self.signed(),
                jury: self.small(),
                level: self.small(),
                share_bps: self.number(),
                duration_ms: self.small(),
                officer: self.signed(),
                voter_prefix: self.text(),
                start_in_ms: self.small(),
            }),
            18 => Kind::SummonsReply(wire::SummonsReply {
                term: self.number(),
                candidate: self.bytes(),
                jury: self.small(),
                level: self.small(),
                ballot: self.signed(),
                sits_out: self.0.random(),
                voter: self.bytes(),
            }),
            19 => Kind::JuryNotice(wire::JuryNotice {
                term: self.number(),
                beacon: self.bytes(),
                voters: self.many(Self::bytes),
                share_bps: self.number(),
                duration_ms: self.small(),
            }),
            20 => {
                let mandate = self.mandate();
                Kind::AuditAsk(wire::AuditAsk {
                    mandate: self.one(&[None, Some(mandate)]),
                    release: self.bytes(),
                })
            }
            21 => Kind::AuditReply(wire::AuditReply {
                subject: self.bytes(),
                endorsement: Some(self.endorsement()),
                refusal: self.text(),
            }),
            22 => Kind::Decrees(wire::Decrees {
                decrees: self.many(|m| m.signed().unwrap_or_default()),
            }),
            23 => Kind::DecreeKeys(wire::DecreeKeys {
                keys: self.many(|m| wire::DecreeKey {
                    subject: m.bytes(),
                    sequence: m.number(),
                    tie: m.number(),
                }),
                want: self.0.random(),
            }),
            _ => {
                let inner = Kind::HomeLost(wire::HomeLost {
                    node_id: self.bytes(),
                });
                let message = wire::CoreMessage { kind: Some(inner) }
                    .encode_to_vec()
                    .into();
                Kind::Forward(wire::Forward {
                    from: self.bytes(),
                    to: self.bytes(),
                    message,
                })
            }
        }
    }

    /// Something happens to the core at `now`.
    fn happen(&mut self, core: &mut Core, now: Now) {
        let contact = self.one(&signed().contacts[2..]);
        let node = contact.node_id;
        let offset: i64 = self.one(&[0, 5, i64::MAX, i64::MIN, -20_000]);
        match self.0.random_range(0..10) {
            0 => core.handle(
                now,
                Input::SessionUp {
                    contact,
                    inbound: self.0.random(),
                    observed: None,
                    round_trip: self.one(&[Duration::ZERO, Duration::MAX]),
                    clock_offset_ms: offset,
                },
            ),
            1 => core.handle(now, Input::SessionDown(node)),
            2 => core.handle(now, Input::Unreachable(node)),
            3 => core.timeout(now),
            _ => {
                let message = Box::new(wire::CoreMessage {
                    kind: Some(self.kind()),
                });
                core.handle(
                    now,
                    Input::Message {
                        from: node,
                        message,
                    },
                );
            }
        }
    }
}

/// Every collection of a core that something from outside can add to.
fn check_bounds(core: &Core) {
    let config = &core.config;
    assert!(core.links.len() <= config.max_leaves + SPARE_LINKS);
    assert!(core.assemblies.len() <= 8);
    assert!(core.loopback.is_empty());
    assert!(core.config.peers.len() <= 512);
    core.homes.check_bounds();
    core.candidacy.check_bounds(core.links.len());
    core.addresses.check_bounds();
    core.jury.check_bounds();
    core.merge.check_bounds();
    match &core.host {
        Some(host) => {
            assert!(host.leaves.len() <= config.max_leaves);
            assert!(core.roster.len() <= config.most_super_nodes());
            assert!(host.moved.len() <= 16_384);
            assert!(host.joining.len() <= core.roster.len());
            assert!(host.reports.len() <= core.roster.len());
        }
        None => assert!(core.roster.len() <= config.cache + 3),
    }
    assert!(
        core.muster
            .as_ref()
            .is_none_or(|muster| muster.len() <= 256)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn anything_from_anybody_is_survived_and_bounded(
        seed: u64,
        serves: bool,
        uplink in prop::option::of(prop::sample::select(vec![0, 1, 5_000_000, u64::MAX])),
    ) {
        let mut maker = Maker(SmallRng::seed_from_u64(seed));
        let mut core = core(1, serves, uplink);
        let mut ms = 0;
        for _ in 0..200 {
            ms += maker.one(&[0, 1, 30, 700]);
            let mut now = now_at(ms);
            if maker.0.random_range(0..40) == 0 {
                // The wall clock jumps.
                now.unix_ms = maker.one(&[0, START_MS - 60_000, START_MS + 60_000]);
            }
            maker.happen(&mut core, now);
            while let Some(output) = core.poll() {
                if let Output::Measure { token, .. } = output {
                    let round_trip = maker.one(&[Duration::ZERO, Duration::MAX]);
                    let (up_bps, down_bps) = (maker.number(), maker.number());
                    let loss_ppm = maker.small();
                    let result = Some(Measured { up_bps, down_bps, round_trip, loss_ppm });
                    core.handle(now, Input::Measured { token, result });
                } else if let Output::DialBack { token, .. } = output {
                    let reached = maker.0.random();
                    core.handle(now, Input::DialedBack { token, reached });
                }
            }
            check_bounds(&core);
        }
        core.timeout(Now { at: Time(u64::MAX / 2), unix_ms: u64::MAX });
        let _ = core.status(Now { at: Time(u64::MAX / 2), unix_ms: u64::MAX });
    }
}

/// A super-node that knows the designations of `count` others, of rising terms.
fn among(count: u8) -> Core {
    let mut core = core(0, true, None);
    let operator = identity(99);
    let entry = |i: u8| wire::RosterEntry {
        mandate: Some(designation_of(i, 10 * u64::from(i), &operator)),
        contact: Some(contact_of(i).signed.clone()),
        release: None,
    };
    let others: Vec<u8> = (1..=count).filter(|i| *i != 99).collect();
    for some in others.chunks(sync::BATCH) {
        let entries = some.iter().map(|i| entry(*i)).collect();
        let dead = Vec::new();
        core.on_roster(
            now_at(0),
            contact_of(1).node_id,
            wire::RosterEntries { entries, dead },
        );
    }
    core
}

#[test]
fn a_large_overlay_elects_in_lanes_whose_terms_never_meet() {
    let small = among(30);
    assert_eq!(small.lanes(), 1);
    assert_eq!(small.next_term(0), small.roster.max_term() + 1);
    let large = among(40);
    assert_eq!(large.lanes(), 2);
    let of: Vec<usize> = (0..2).map(|lane| large.in_lane(lane).count()).collect();
    assert_eq!(of.iter().sum::<usize>(), large.roster.len());
    for lane in 0..2 {
        let term = large.next_term(lane);
        assert_eq!(term % 2, lane);
        assert!(large.in_lane(lane).all(|entry| entry.term < term));
        assert_eq!(large.officers(term).len(), 3);
    }
}

#[test]
fn a_leaf_is_sent_as_many_super_nodes_as_it_has_room_for_and_those_next_to_it() {
    let mut core = among(60);
    let _ = std::iter::from_fn(|| core.poll()).count();
    let leaf = contact_of(200).node_id;
    let digest = wire::RosterDigest {
        want: true,
        leaf: true,
        ..Default::default()
    };
    core.on_roster_digest(now_at(0), leaf, digest);
    let mut told: Vec<NodeId> = Vec::new();
    while let Some(output) = core.poll() {
        let Output::Send { node, message, .. } = output else {
            continue;
        };
        assert_eq!(node, leaf);
        if let Some(Kind::Roster(roster)) = message.kind {
            for mandate in roster.entries.iter().filter_map(|e| e.mandate.as_ref()) {
                assert!(mandate.ballots.is_empty());
                told.extend(roster::named_in(mandate).map(|(node, _)| node));
            }
        }
    }
    let mut all: Vec<NodeId> = core.roster.serving().map(|entry| entry.node()).collect();
    all.sort_by_key(|node| (*node < leaf, *node));
    assert_eq!(told, all[..core.config.cache.min(32)]);
}

#[test]
fn who_stays_outside_an_assembly_asks_one_who_is_inside() {
    let lot_of = |i: u8| assembly::lot("test", &contact_of(i).node_id);
    let mut peers: Vec<u8> = (1..100).collect();
    peers.sort_by_key(|i| lot_of(*i));
    let (inside, last) = (peers[0], peers[98]);
    let mut core = core(last, false, None);
    let told_by = [peers[96], peers[97]];
    for from in told_by.map(contact_of) {
        let member = wire::MusterEntry {
            contact: Some(contact_of(inside).signed.clone()),
            candidacy: Some(wire::Candidacy {
                eligible: true,
                ..Default::default()
            }),
            age_ms: 0,
        };
        let muster = wire::Muster {
            members: vec![member],
            limit: lot_of(inside).to_bytes(),
            electing: false,
        };
        core.on_muster(now_at(0), from.node_id, muster);
    }
    assert!(core.muster.as_ref().is_some_and(|muster| muster.outside()));
    let outputs: Vec<Output> = std::iter::from_fn(|| core.poll()).collect();
    let dialled = outputs.iter().filter_map(|output| match output {
        Output::Connect { node, .. } => *node,
        _ => None,
    });
    assert_eq!(dialled.collect::<Vec<_>>(), [contact_of(inside).node_id]);
}

#[test]
fn a_deputy_that_is_cordoned_is_called_into_office_no_more() {
    let mut core = core(1, false, None);
    let mut mandate = mandate::read(&designation(1, &identity(99))).unwrap();
    mandate.deputy = true;
    core.handle(
        now_at(0),
        Input::Designated(mandate.designate(&identity(99))),
    );
    assert_eq!(core.role, Role::Deputy);
    core.handle(now_at(1), Input::Cordon(true));
    assert_eq!(core.role, Role::Leaf);
    let own = core.roster.get(&core.node_id()).unwrap();
    assert!(own.release.is_some());
}
