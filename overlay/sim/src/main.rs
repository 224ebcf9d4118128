//! The program `canopy-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    canopy_sim::cli::main()
}
