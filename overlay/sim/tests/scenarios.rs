//! Runs of the simulator: they repeat, they hold, and they say when they do not.

use canopy_sim::report::Report;
use canopy_sim::run::{Options, run};
use canopy_sim::scenario::Scenario;

/// Unoptimised builds take fewer seeds.
const SEEDS: u64 = if cfg!(debug_assertions) { 1 } else { 10 };

fn report(name: &str, seed: u64) -> Report {
    let scenario = Scenario::find(name).expect("a built-in scenario");
    run(&scenario, seed, &Options::default(), &mut |_, _| ()).expect("a scenario that can be run")
}

fn held(name: &str, seed: u64) -> Report {
    let report = report(name, seed);
    assert!(report.passed(), "{report}");
    report
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, again) = (report("chaos", 3), report("chaos", 3));
    assert_eq!(one.digest, again.digest);
    assert_eq!(one.events, again.events);
    assert_eq!(one.samples, again.samples);
    assert_ne!(one.digest, report("chaos", 4).digest);
}

#[test]
fn mixed_faults_heal() {
    for seed in 1..=SEEDS {
        held("chaos", seed);
    }
}

#[test]
fn all_super_nodes_lost_with_deputies_left_are_replaced() {
    held("all-loss", 1);
}

#[test]
fn a_restart_of_everybody_brings_the_overlay_back() {
    held("restart-all", 1);
}

#[test]
fn what_does_not_hold_is_told_with_the_way_to_replay_it() {
    let mut scenario = Scenario::find("half-loss").expect("a built-in scenario");
    // Nobody can notice in a second that half of them died.
    scenario.expect.recovered_within_s = 1;
    let report = run(&scenario, 1, &Options::default(), &mut |_, _| ()).expect("it runs");
    assert!(!report.passed());
    let told = report.to_string();
    assert!(told.contains("the overlay recovers in time"), "{told}");
    let replay = "canopy-sim replay half-loss --seed 1 --leaves 60";
    assert!(told.contains(replay), "{told}");
}
