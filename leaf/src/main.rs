//! The `leaf` program; all of it is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    canopy_leaf::cli::main()
}
