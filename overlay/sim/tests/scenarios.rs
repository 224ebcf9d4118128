//! Runs of the simulator: they repeat, they hold, and they say when they do not.

use canopy_sim::report::{Report, Sample};
use canopy_sim::run::{Options, run};
use canopy_sim::scenario::{Fault, Scenario, Step, Target, Who};

/// Unoptimised builds take fewer seeds.
const SEEDS: u64 = if cfg!(debug_assertions) { 2 } else { 100 };

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

/// In two halves, so that two processors have something to do.
fn mixed_faults_heal(first: u64) {
    for seed in (first..=SEEDS).step_by(2) {
        held("chaos", seed);
    }
}

#[test]
fn mixed_faults_heal_with_odd_seeds() {
    mixed_faults_heal(1);
}

#[test]
fn mixed_faults_heal_with_even_seeds() {
    mixed_faults_heal(2);
}

/// While users write and read, three super-nodes become ten: four new ones at
/// once, so that some keys have new owners only.
#[test]
fn nothing_is_missed_while_the_overlay_grows() {
    let report = held("hot-key", 1);
    assert_eq!(report.figures["reads_that_missed_a_write"], 0.0);
    assert!(report.figures["operations_ok"] > 30_000.0);
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
fn a_third_lost_at_once_drags_nobody_along() {
    let report = held("cascade", 1);
    let at = report.faults.first().map_or(0.0, |(at, _)| *at);
    let before = report.samples.iter().take_while(|sample| sample.at_s < at);
    let serving = before.last().map_or(0, |sample| sample.super_nodes);
    assert!(serving >= 9, "{serving}");
}

/// Just before, the two that are left carry all users. The newcomer has nothing
/// and is sent everything, and each request that is late may be asked again: the
/// overlay must not stay busy with that.
#[test]
fn the_load_of_a_lost_server_does_not_pile_up_when_another_takes_its_place() {
    let mut scenario = Scenario::find("server-lost").expect("a built-in scenario");
    scenario.step.truncate(1);
    scenario.lasts_s = 600;
    scenario.expect.ok_within_s = 60;
    let users = scenario.users.as_mut().expect("a scenario with users");
    users.operations_per_s = 36;
    let report = run(&scenario, 1, &Options::default(), &mut |_, _| ()).expect("it runs");
    assert!(report.passed(), "{report}");
    assert!(report.figures["operations_failed"] < 20.0, "{report}");
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
    let replay = "canopy-sim replay half-loss --seed 1 --leaves 120";
    assert!(told.contains(replay), "{told}");
}

/// What pictures are drawn from agrees with what was counted elsewhere.
#[test]
fn a_report_has_what_pictures_show() {
    let report = report("half-loss", 1);
    let operations = report.figures["operations_ok"] + report.figures["operations_failed"];
    let reads: u64 = report.hops.iter().sum();
    assert!(reads > 0 && (reads as f64) < operations);
    let median = report.figures["hops_p50"] as usize;
    let within = |hops: usize| report.hops.iter().take(hops).sum::<u64>();
    assert!(within(median) <= reads / 2 && within(median + 1) >= reads / 2);
    assert_eq!(report.read_ms.len(), 101);
    assert!(report.read_ms.is_sorted());
    assert_eq!(report.requests.len(), report.unasked.len());
    let unasked: u64 = report.unasked.iter().sum();
    assert_eq!(
        report.figures["operations_that_nobody_could_begin"],
        unasked as f64
    );

    let done: u64 = report.loads.iter().map(|load| load.operations).sum();
    let due: f64 = report.loads.iter().map(|load| load.due).sum();
    assert!(done as f64 > operations);
    assert!((due / done as f64 - 1.0).abs() < 1e-6, "{due} of {done}");
    assert!(report.loads.iter().any(|load| !load.remains));
    let told = |sample: &Sample| sample.utilisation_bands.iter().sum::<u64>();
    assert!(report.samples.iter().all(|s| told(s) == s.super_nodes));
    assert!(report.samples.iter().any(|s| s.utilisation_worst > 0.0));

    let race = report.race.expect("somebody was elected");
    let mut peers = report.loads.iter().map(|load| load.peer);
    let other = peers.find(|peer| *peer != race.candidate);
    let options = Options {
        race: other,
        ..Options::default()
    };
    let scenario = Scenario::find("half-loss").expect("a built-in scenario");
    let again = run(&scenario, 1, &options, &mut |_, _| ()).expect("it runs");
    assert_eq!(again.race.map(|race| race.candidate), other);

    assert!(race.score_bps > 0 && race.decisive().is_some());
    for sitting in &race.sittings {
        let mut goodputs: Vec<u64> = sitting.ballots.iter().map(|b| b.goodput_bps).collect();
        goodputs.sort_unstable();
        assert_eq!(goodputs.len() as u64, sitting.counted, "{sitting:?}");
        let median = goodputs.get((goodputs.len() - 1) / 2);
        assert_eq!(median, Some(&sitting.median_bps), "{sitting:?}");
    }
}

#[test]
fn a_fault_that_finds_nobody_to_hit_is_no_test() {
    let mut scenario = Scenario::find("restart-all").expect("a built-in scenario");
    scenario.lasts_s = 120;
    scenario.users = None;
    // A tenth of three super-nodes is none.
    let target = Target {
        who: Who::SuperNodes,
        percent: Some(10),
        count: None,
    };
    let fault = Fault::Kill {
        target,
        wipe: false,
    };
    scenario.step = vec![Step { at_s: 60, fault }];
    let report = run(&scenario, 1, &Options::default(), &mut |_, _| ()).expect("it runs");
    let told = report.to_string();
    assert!(told.contains("found nobody to hit"), "{told}");
}

/// Seeds that broke before each was understood.
#[test]
fn clocks_that_are_off_and_jump_keep_nobody_from_writing() {
    for seed in [1, 4] {
        held("clocks", seed);
    }
}

/// From nothing, a crowd comes to the ratio in a few rounds that each double it,
/// and its leaves come to those who were elected last: nobody keeps what the
/// founders once had.
#[test]
fn a_crowd_grows_to_the_ratio_and_spreads_over_all_who_serve() {
    let mut scenario = Scenario::find("cold-start").expect("a built-in scenario");
    scenario.preset = canopy_core::preset::Preset::Lan;
    scenario.uptime_s = Some(5);
    scenario.ratio = 16;
    scenario.leaves = 520;
    scenario.lasts_s = 20;
    scenario.expect.served_within_s = 400;
    let report = run(&scenario, 1, &Options::default(), &mut |_, _| ());
    let report = report.expect("a scenario that can be run");
    assert!(report.passed(), "{report}");
    let ratio = report.figures["leaves_a_super_node"];
    assert!((12.8..=19.2).contains(&ratio), "{report}");
    // The three founders had all of them: ten times the mean of who serves now.
    assert!(report.figures["leaves_worst_over_mean"] < 5.0, "{report}");
}

/// Elections that were held before give papers that the cores take for good, and
/// the overlay that starts with them has no need of any other election.
#[test]
fn an_overlay_that_has_run_before_serves_at_once_and_changes_nothing() {
    let mut scenario = Scenario::find("steady").expect("a built-in scenario");
    scenario.users = None;
    scenario.leaves = 820;
    scenario.lasts_s = 300;
    scenario.expect.served_within_s = 60;
    let report = run(&scenario, 1, &Options::default(), &mut |_, _| ());
    let report = report.expect("a scenario that can be run");
    assert!(report.passed(), "{report}");
    assert_eq!(report.figures["super_nodes"], 20.0);
    assert_eq!(report.figures["role_changes"], 0.0);
}
