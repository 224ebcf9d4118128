//! The program `leaf`, alone and in overlays of real processes.

#![allow(missing_docs, reason = "a test")]

mod cli;
mod commands;
#[cfg(unix)]
mod processes;
