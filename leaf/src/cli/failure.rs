//! How a command of `leaf` fails.

pub(super) use canopy_supernode::cli::failure::{Failure, NOTHING};

use crate::api::ApiError;

/// Printed below `leaf --help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  there is no such value or item, or not every file was published
  2  wrong flags, configuration or input
  3  no daemon or no super-node was reached in time
  4  refused by super-nodes: a quota, a later write, a wrong clock
  5  a file, a port or the data directory cannot be used

Every flag with a CANOPY_* variable can be set in the environment; a flag goes
before the environment, and that before the file given with --config.
CANOPY_LOG sets what is logged to stderr, e.g. CANOPY_LOG=debug.";

/// What an answer of the API other than the one asked for means to a user.
pub(super) fn from_status(status: &tonic::Status) -> Failure {
    Failure::of_status(
        status,
        "what answers there is no leaf of this version; check --api, or restart the daemon",
    )
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NotLoopback(_) => Self::usage(error.to_string()),
            _ => Self::local(error.to_string()),
        }
    }
}
