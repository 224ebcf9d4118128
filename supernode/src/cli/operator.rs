//! What an operator does once: make a key, and sign designations.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::{DesignateArgs, KeyArgs};
use super::failure::Failure;
use super::output::{note, print, print_json};
use crate::designation::{Designation, Terms};
use crate::event::unix_ms;
use crate::secret;
use crate::settings::DEFAULT_NETWORK;

/// `supernode operator-key`.
pub(super) fn key(args: &KeyArgs) -> Result<ExitCode, Failure> {
    let path = args.file.display();
    let identity = match args.show {
        true => secret::read(&args.file)?,
        false => secret::create(&args.file)?,
    };
    let public = identity.node_id().to_string();
    if args.json {
        let file = path.to_string();
        return print_json(&json!({ "operator": public, "file": file }));
    }
    if !args.show {
        note(&format!(
            "the secret key is in {path}: keep a copy offline; all peers of the network get --operator"
        ));
    }
    print(&format!("{public}\n"))
}

/// `supernode designate -o`.
pub(super) fn designate(args: &DesignateArgs, output: &Path) -> Result<ExitCode, Failure> {
    let operator = secret::read(&args.operator_key)?;
    let terms = Terms {
        network: args.network.clone().unwrap_or(DEFAULT_NETWORK.to_owned()),
        node: args.node,
        capacity_bps: args.capacity.0,
        days: args.days,
        zone: args.zone.clone(),
    };
    let made = Designation::sign(&operator, &terms, None, unix_ms())
        .map_err(|error| Failure::usage(format!("such a designation {error}")))?;
    let path = output.display();
    std::fs::write(output, made.to_bytes())
        .map_err(|error| Failure::local(format!("cannot write {path}: {error}")))?;
    let mandate = made.mandate();
    if args.ask.json {
        return print_json(&json!({
            "node_id": mandate.candidate.to_string(),
            "operator": made.operator().to_string(),
            "network": mandate.network,
            "capacity_bps": mandate.capacity_bps,
            "term": mandate.term,
            "expires_ms": mandate.expires_ms,
            "file": path.to_string(),
        }));
    }
    print(&format!(
        "{} serves {:?} with {} for {} days; start it with `supernode run --designation {path}`\n",
        mandate.candidate, mandate.network, args.capacity, args.days
    ))
}
