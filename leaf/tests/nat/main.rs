//! Leaves behind every kind of NAT reach each other, and what they send outlives
//! the loss of paths: real processes in network namespaces, with the kernel's own
//! NAT between them and super-nodes.
//!
//! Needs root, `ip` and `nft`, and those of `mapping` need `miniupnpd`. Where these are
//! missing it says so and passes, unless `CANOPY_TEST_NAT` is `required`.
//! `CANOPY_TEST_NAT_MIB` is the size of the transfers. With the name of a module as
//! argument only its tests run; with the argument `host` this program is a super-node of
//! the tests.

#![allow(missing_docs, reason = "a test")]

mod bed;
mod mapping;
mod matrix;
mod net;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    let only = std::env::args().nth(1);
    if only.as_deref() == Some("host") {
        return bed::host();
    }
    let wanted = |module| only.as_deref().is_none_or(|only| only == module);
    if let Some(missing) = net::missing() {
        return without(&missing);
    }
    if wanted("matrix") {
        matrix::every_pair_connects();
        matrix::leaves_of_one_network_find_each_other();
        matrix::a_message_crosses_two_super_nodes_where_it_must();
    }
    if wanted("transfer") {
        transfer::outlives_its_relay_and_its_addresses();
    }
    if wanted("mapping") {
        if let Some(missing) = mapping::missing() {
            return without(&missing);
        }
        mapping::a_leaf_is_linked_to_at_the_port_that_its_router_gave();
        mapping::who_is_let_in_is_dialled_back();
        mapping::a_host_serves_and_relays_behind_its_router();
    }
    ExitCode::SUCCESS
}

/// Ends where a test cannot run.
fn without(missing: &str) -> ExitCode {
    if std::env::var("CANOPY_TEST_NAT").is_ok_and(|value| value == "required") {
        eprintln!("the NAT tests are required, and {missing}");
        return ExitCode::FAILURE;
    }
    println!("SKIPPED: NAT tests, because {missing}");
    ExitCode::SUCCESS
}
