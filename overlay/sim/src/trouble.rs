//! Making a scenario's faults happen.

use std::collections::BTreeMap;
use std::time::Duration;

use canopy_core::keyspace::Key;
use canopy_core::node::{Role, Stand};

use crate::net::Nat;
use crate::run::{Run, SECOND};
use crate::scenario::{Fault, Target, Who};
use crate::world::PeerId;

/// Networks that all Sybils live in.
const SYBIL_NETWORKS: u32 = 4;
/// What one Sybil's line carries, bits a second.
const SYBIL_BPS: u64 = 400_000_000;
/// Pause between two random faults, at most, milliseconds.
const CHAOS_PAUSE_MS: u64 = 8_000;

/// Makes `fault` happen.
pub(crate) fn happen(run: &mut Run<'_>, fault: Fault) {
    match fault {
        Fault::Kill { target, wipe } => {
            for id in chosen(run, target) {
                run.world.kill(id, true);
                if wipe {
                    run.world.wipe(id);
                }
            }
        }
        Fault::Stop { target } => each(run, target, |run, id| run.world.kill(id, false)),
        Fault::Start { target, within_s } => each(run, target, |run, id| {
            let after = run.draw.below(within_s.max(1) * SECOND);
            run.world.start_at(id, run.world.clock() + after);
        }),
        Fault::Join { count, within_s } => {
            for _ in 0..count {
                let id = run.world.add(|_| ());
                let after = run.draw.below(within_s.max(1) * SECOND);
                run.world.start_at(id, run.world.clock() + after);
            }
        }
        Fault::Sybils { count } => sybils(run, count),
        Fault::Split { percent, bridged } => split(run, percent, bridged),
        Fault::Heal => run.world.heal(),
        Fault::Clock { target, offset_ms } => each(run, target, |run, id| {
            let ahead = run.draw.chance(500_000);
            let offset_ms = if ahead { offset_ms } else { -offset_ms };
            run.world.alter(id, |spec| spec.clock_ms += offset_ms);
        }),
        Fault::Slow {
            target,
            times,
            lag_ms,
            loss_ppm,
            line_bps,
        } => each(run, target, |run, id| {
            run.world.alter(id, |spec| {
                spec.slow = times.max(1);
                spec.lag_us = lag_ms * 1000;
                spec.loss_ppm = loss_ppm;
                if line_bps > 0 {
                    spec.up_bps = line_bps;
                }
            });
        }),
        Fault::Unreachable { target } => each(run, target, |run, id| {
            run.world.alter(id, |spec| spec.nat = Nat::Home);
        }),
        Fault::Relocate { target } => each(run, target, |run, id| run.world.relocate(id)),
        Fault::Drain { target } => each(run, target, |run, id| run.world.drain(id)),
        Fault::Garbage { target, messages } => each(run, target, |run, id| {
            for _ in 0..messages {
                let seed = run.draw.seed();
                run.world.garble(id, seed);
            }
        }),
        Fault::Chaos { lasts_s } => chaos(run, lasts_s),
    }
}

fn each(run: &mut Run<'_>, target: Target, mut act: impl FnMut(&mut Run<'_>, PeerId)) {
    for id in chosen(run, target) {
        act(run, id);
    }
}

fn chosen(run: &mut Run<'_>, target: Target) -> Vec<PeerId> {
    let world = &run.world;
    let serves = |id: &PeerId| world.peer(*id).role == Role::SuperNode;
    let all: Vec<PeerId> = match target.who {
        Who::Anyone => world.online().collect(),
        Who::SuperNodes => world.with_role(Role::SuperNode),
        Who::Leaves => world.online().filter(|id| !serves(id)).collect(),
        Who::Deputies => world.with_role(Role::Deputy),
        Who::Domain => largest_domain(run),
        Who::Owners => owners(run),
        Who::Offline => {
            let all = 0..run.world.peers().len() as PeerId;
            all.filter(|id| !run.world.peer(*id).online()).collect()
        }
    };
    let count = match (target.count, target.percent) {
        (Some(count), _) => count,
        (None, Some(percent)) => all.len() * percent as usize / 100,
        (None, None) => all.len(),
    };
    let chosen = run.draw.some(&all, count);
    run.hit += chosen.len();
    chosen
}

/// The super-nodes of the failure domain with most of them; and all others of
/// that domain.
fn largest_domain(run: &Run<'_>) -> Vec<PeerId> {
    let mut domains: BTreeMap<u32, usize> = BTreeMap::new();
    for id in run.world.with_role(Role::SuperNode) {
        *domains.entry(run.world.domain_of(id)).or_default() += 1;
    }
    let largest = domains.into_iter().max_by_key(|(_, count)| *count);
    let Some((domain, _)) = largest else {
        return Vec::new();
    };
    let online = run.world.online();
    online
        .filter(|id| run.world.domain_of(*id) == domain)
        .collect()
}

fn owners(run: &mut Run<'_>) -> Vec<PeerId> {
    let key = Key::hash("a key", &[&run.draw.seed().to_le_bytes()]);
    let serving = run.world.with_role(Role::SuperNode);
    let one = run.draw.some(&serving, 1);
    let core = one.first().and_then(|id| run.world.peer(*id).core());
    let owners = core.map_or_else(Vec::new, |core| core.placement().owners(&key, 3));
    owners
        .iter()
        .filter_map(|node| run.world.find(node))
        .collect()
}

fn sybils(run: &mut Run<'_>, count: u32) {
    for i in 0..count {
        let id = run.world.add(|spec| {
            spec.nat = Nat::Open;
            spec.stand = Stand::Always;
            spec.up_bps = SYBIL_BPS;
            spec.down_bps = SYBIL_BPS;
            spec.claim_bps = SYBIL_BPS;
            spec.drops = true;
            // Addresses follow the number; the same few prefixes for all.
            spec.zone = 0;
        });
        run.world.crowd(id, i % SYBIL_NETWORKS);
        let after = run.draw.below(10 * SECOND);
        run.world.start_at(id, run.world.clock() + after);
    }
}

fn split(run: &mut Run<'_>, percent: u32, bridged: bool) {
    let sides: Vec<u8> = (0..run.world.peers().len())
        .map(|_| match run.draw.below(100) < u64::from(percent) {
            true => 1,
            false if bridged => [0, 2][run.draw.index(2)],
            false => 0,
        })
        .collect();
    run.world
        .split(bridged, |id| sides.get(id as usize).copied().unwrap_or(0));
}

/// One fault after the other, of every kind; at the end all is mended and
/// everybody runs.
fn chaos(run: &mut Run<'_>, lasts_s: u64) {
    let end = run.world.clock() + lasts_s * SECOND;
    while run.world.clock() < end {
        let fault = random_fault(run);
        happen(run, fault);
        let pause = run.draw.between(200, CHAOS_PAUSE_MS);
        run.pass(Duration::from_millis(pause));
    }
    run.world.heal();
    for id in 0..run.world.peers().len() as PeerId {
        run.world.alter(id, |spec| {
            spec.slow = 1;
            spec.lag_us = 0;
            spec.loss_ppm = 0;
            spec.clock_ms = 0;
        });
        run.world.start(id);
    }
}

fn random_fault(run: &mut Run<'_>) -> Fault {
    let count = Some(1 + run.draw.index(2));
    let of = |who| Target {
        who,
        percent: None,
        count,
    };
    let who = [
        Who::Anyone,
        Who::SuperNodes,
        Who::Leaves,
        Who::Deputies,
        Who::Owners,
    ];
    let target = of(who[run.draw.index(who.len())]);
    match run.draw.below(14) {
        0 | 1 => Fault::Kill {
            target,
            wipe: false,
        },
        2 => Fault::Stop { target },
        3..=5 => Fault::Start {
            target: Target {
                who: Who::Offline,
                percent: Some(50),
                count: None,
            },
            within_s: 3,
        },
        6 => Fault::Join {
            count: 1,
            within_s: 1,
        },
        7 => Fault::Split {
            percent: 30,
            bridged: run.draw.chance(300_000),
        },
        8 | 9 => Fault::Heal,
        10 => Fault::Clock {
            target,
            offset_ms: 8_000,
        },
        11 => Fault::Slow {
            target,
            times: 10,
            lag_ms: 200,
            loss_ppm: 200_000,
            line_bps: 0,
        },
        12 => Fault::Drain { target },
        _ => Fault::Garbage {
            target,
            messages: 20,
        },
    }
}
