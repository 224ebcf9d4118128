//! The `supernode` program; all of it is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    canopy_supernode::cli::main()
}
