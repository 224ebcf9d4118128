//! What Canopy is compared with works as it should, in the same network and with
//! the same users.

use canopy_sim::report::Report;
use canopy_sim::run::{Options, run};
use canopy_sim::scenario::{Scenario, Topology};

fn scenario(name: &str, leaves: u32, minutes: u64) -> Scenario {
    let mut scenario = Scenario::find(name).expect("a built-in scenario");
    scenario.leaves = leaves;
    scenario.lasts_s = minutes * 60;
    if let Some(users) = &mut scenario.users {
        users.count = leaves / 2;
        users.keys = 200;
    }
    scenario
}

fn report(scenario: &Scenario, seed: u64, topology: Topology) -> Report {
    let options = Options {
        topology: Some(topology),
        ..Options::default()
    };
    run(scenario, seed, &options, &mut |_, _| ()).expect("a scenario that can be run")
}

#[test]
fn flat_kademlia_finds_all_that_was_stored_when_nothing_fails() {
    let mut scenario = scenario("steady", 120, 5);
    scenario.net.loss_ppm = 0;
    let report = report(&scenario, 1, Topology::Flat);
    assert!(report.passed(), "{report}");
    let figure = |name: &str| report.figures[name];
    assert!(figure("operations_ok") > 5_000.0, "{report}");
    assert_eq!(figure("operations_failed"), 0.0, "{report}");
    assert_eq!(figure("first_try_milli"), 1000.0, "{report}");
    assert!(figure("hops_p50") >= 1.0, "{report}");
    // Every open peer serves, and nobody else.
    let serving = figure("super_nodes");
    assert!((50.0..90.0).contains(&serving), "{report}");
    // Each has as much due as another, and pictures tell how busy they are.
    assert_eq!(report.loads.len() as f64, serving);
    assert!(
        report
            .loads
            .iter()
            .all(|load| load.seats == 1 && load.remains)
    );
    let done: u64 = report.loads.iter().map(|load| load.operations).sum();
    assert!(done as f64 > figure("operations_ok"), "{done}");
    assert!(report.samples.iter().any(|s| s.utilisation_worst > 0.0));
}

#[test]
fn flat_kademlia_keeps_what_was_stored_while_peers_come_and_go() {
    let report = report(&scenario("baseline-harsh", 120, 60), 2, Topology::Flat);
    assert!(report.passed(), "{report}");
    assert_eq!(report.figures["values_gone_with_two_of_their_owners"], 0.0);
}

#[test]
fn flat_kademlia_survives_mixed_faults_the_same_way_each_time() {
    let scenario = Scenario::find("chaos").expect("a built-in scenario");
    let one = report(&scenario, 3, Topology::Flat);
    let again = report(&scenario, 3, Topology::Flat);
    assert_eq!(one.digest, again.digest);
    assert_eq!(one.samples, again.samples);
    assert_ne!(one.digest, report(&scenario, 4, Topology::Flat).digest);
}

#[test]
fn as_many_static_super_nodes_serve_as_the_ratio_says() {
    let mut scenario = scenario("steady", 80, 2);
    scenario.ratio = 16;
    let report = report(&scenario, 1, Topology::Random);
    assert!(report.passed(), "{report}");
    assert_eq!(report.figures["super_nodes"], 5.0, "{report}");
    assert_eq!(report.figures["races"], 0.0, "{report}");
}
