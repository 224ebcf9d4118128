//! Leaves behind every kind of NAT reach each other, and what they send outlives
//! the loss of paths: real processes in network namespaces, with the kernel's own
//! NAT between them and super-nodes.
//!
//! Needs root, `ip` and `nft`. Where these are missing it says so and passes,
//! unless `CANOPY_TEST_NAT` is `required`. `CANOPY_TEST_NAT_MIB` is the size of the
//! transfers. With the argument `host` this program is a super-node of the tests.

#![allow(missing_docs, reason = "a test")]

mod bed;
mod matrix;
mod net;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("host") {
        return bed::host();
    }
    let required = std::env::var("CANOPY_TEST_NAT").is_ok_and(|value| value == "required");
    match net::missing() {
        Some(missing) if required => {
            eprintln!("the NAT tests are required, and {missing}");
            ExitCode::FAILURE
        }
        Some(missing) => {
            println!("SKIPPED: the NAT tests, because {missing}");
            ExitCode::SUCCESS
        }
        None => {
            matrix::every_pair_connects();
            matrix::leaves_of_one_network_find_each_other();
            matrix::a_message_crosses_two_super_nodes_where_it_must();
            transfer::outlives_its_relay_and_its_addresses();
            ExitCode::SUCCESS
        }
    }
}
