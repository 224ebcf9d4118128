//! How a command fails: one line on stderr that says what to do, and an exit
//! code that a script can act on.

use std::process::ExitCode;

use tonic::Code;

use crate::control::{AccessError, ControlError};
use crate::data_dir::DataDirError;
use crate::host::StartError;
use crate::http::HttpError;
use crate::secret::SecretError;
use crate::settings::ConfigError;

/// There is no such value or item.
pub const NOTHING: u8 = 1;
/// Flags, configuration or input are wrong.
pub const USAGE: u8 = 2;
/// No daemon or no super-node was reached in time.
pub const UNREACHABLE: u8 = 3;
/// Super-nodes refused the request.
pub const REFUSED: u8 = 4;
/// Something of this machine: a file, a port, the data directory.
pub const LOCAL: u8 = 5;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What the program exits with.
    pub code: u8,
    /// One line that says what to do.
    pub message: String,
}

impl Failure {
    /// There is no such value or item.
    pub fn nothing(message: impl Into<String>) -> Self {
        Self::new(NOTHING, message)
    }

    /// Flags, configuration or input are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// Nobody was reached in time.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, message)
    }

    /// Somebody else refused.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(REFUSED, message)
    }

    /// Something of this machine.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(LOCAL, message)
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        // One line, whatever was quoted in it.
        let message = message
            .into()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        Self { code, message }
    }

    /// What an answer of an API other than the one asked for means to a user;
    /// `stranger` is said where what answers is another program.
    pub fn of_status(status: &tonic::Status, stranger: &str) -> Self {
        let message = status.message();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::usage(message),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                Self::unreachable(message)
            }
            Code::Unimplemented => Self::unreachable(stranger),
            Code::Internal => Self::local(message),
            _ => Self::refused(message),
        }
    }

    /// Prints the line, as `program` says it; returns the exit code.
    pub fn report(&self, program: &str) -> ExitCode {
        anstream::eprintln!("{program}: {}", self.message);
        ExitCode::from(self.code)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Setting(_) => Self::usage(error.to_string()),
            StartError::Lookup { .. } => Self::unreachable(error.to_string()),
            StartError::DataDir(_) | StartError::Listen { .. } | StartError::Peer(_) => {
                Self::local(error.to_string())
            }
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Open(_) | ControlError::Access(AccessError::Line { .. }) => {
                Self::usage(error.to_string())
            }
            _ => Self::local(error.to_string()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::local(error.to_string())
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::local(error.to_string())
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::local(error.to_string())
    }
}

/// Standard input or output failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::local(format!("input or output failed: {error}"))
    }
}
