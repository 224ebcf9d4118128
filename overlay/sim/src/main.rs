//! The program `canopy-sim`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A run is mostly small allocations, which this one serves in less time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    canopy_sim::cli::main()
}
