//! The designation that a host holds: found, kept over restarts, and renewed
//! while the operator's key is at hand.

use std::path::Path;
use std::sync::Arc;

use canopy_core::identity::Identity;
use canopy_proto::limits;

use super::args::RunArgs;
use super::failure::Failure;
use crate::data_dir::{DataDir, read_bounded};
use crate::designation::{Designation, DesignationError, Holder, MAX_DAYS, Terms};
use crate::host::Plan;

/// A designation that a host signs for itself lasts as long, days.
const DAYS: u32 = 365;
const _: () = assert!(DAYS <= MAX_DAYS);

/// What a host holds, and what it takes to renew it.
pub(super) struct Office {
    data_dir: Arc<DataDir>,
    held: Option<Designation>,
    renewal: Option<(Identity, Terms)>,
}

impl Office {
    /// Finds the designation of the host that is about to start by `plan`:
    /// the later of the one given and the one kept, or a new one where the key
    /// is at hand and neither will do.
    pub(super) fn find(
        args: &RunArgs,
        key: Option<Identity>,
        plan: &Plan,
        data_dir: &Arc<DataDir>,
        now_ms: u64,
    ) -> Result<Self, Failure> {
        let holder = Holder {
            network: &plan.network,
            node: plan.identity.node_id(),
            operator: plan.operator,
        };
        let given = match &args.designation {
            Some(path) => Some(read(path, &holder, now_ms)?),
            None => None,
        };
        let kept = match data_dir.designation()? {
            Some(bytes) => match Designation::open(&bytes, &holder, now_ms) {
                Ok(kept) => Some(kept),
                // There is another, or there will be.
                Err(_) if given.is_some() || key.is_some() => None,
                Err(error) => return Err(stale(data_dir, &error)),
            },
            None => None,
        };
        let later = |a: &Designation, b: &Designation| a.mandate().term >= b.mandate().term;
        let held = match (given, kept.clone()) {
            (Some(given), Some(kept)) if later(&kept, &given) => Some(kept),
            (given, kept) => given.or(kept),
        };
        let renewal = match key {
            Some(key) => {
                let terms = terms(args, plan, held.as_ref())?;
                Some((key, terms))
            }
            None => None,
        };
        let mut office = Self {
            data_dir: data_dir.clone(),
            held,
            renewal,
        };
        if office.outdated(now_ms) {
            office.renew(now_ms)?;
        } else if let Some(held) = office
            .held
            .as_ref()
            .filter(|held| kept.as_ref() != Some(held))
        {
            data_dir.keep_designation(&held.to_bytes())?;
        }
        Ok(office)
    }

    /// The designation, if the host has one.
    pub(super) fn held(&self) -> Option<&Designation> {
        self.held.as_ref()
    }

    /// Whether the key is at hand and what is held is not as it should be.
    pub(super) fn outdated(&self, now_ms: u64) -> bool {
        match (&self.renewal, &self.held) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((_, terms)), Some(held)) => {
                held.is_due(now_ms) || held.mandate().capacity_bps != terms.capacity_bps
            }
        }
    }

    /// Signs and keeps the next one; `None` without the key.
    pub(super) fn renew(&mut self, now_ms: u64) -> Result<Option<&Designation>, Failure> {
        let Some((key, terms)) = &self.renewal else {
            return Ok(None);
        };
        let next = Designation::sign(key, terms, self.held.as_ref(), now_ms)
            .map_err(|error| Failure::usage(format!("such a designation {error}")))?;
        self.data_dir.keep_designation(&next.to_bytes())?;
        Ok(Some(self.held.insert(next)))
    }
}

fn read(path: &Path, holder: &Holder<'_>, now_ms: u64) -> Result<Designation, Failure> {
    let name = path.display();
    let bytes = read_bounded(path, limits::MANDATE as u64)
        .map_err(|error| Failure::local(format!("cannot read the designation {name}: {error}")))?;
    Designation::open(&bytes, holder, now_ms)
        .map_err(|error| Failure::usage(format!("the designation {name} {error}")))
}

fn stale(data_dir: &DataDir, error: &DesignationError) -> Failure {
    let path = data_dir.path().join("designation");
    Failure::usage(format!(
        "the designation kept in {} {error}; or remove that file to run without one",
        path.display()
    ))
}

/// What this host signs for itself.
fn terms(args: &RunArgs, plan: &Plan, held: Option<&Designation>) -> Result<Terms, Failure> {
    let capacity_bps = args
        .capacity
        .or(plan.uplink)
        .map(|rate| rate.0)
        .or_else(|| held.map(|held| held.mandate().capacity_bps));
    let Some(capacity_bps) = capacity_bps else {
        return Err(Failure::usage(
            "--operator-key needs to know what this host can send; give e.g. --capacity \"100 Mbit/s\"",
        ));
    };
    Ok(Terms {
        network: plan.network.clone(),
        node: plan.identity.node_id(),
        capacity_bps,
        days: DAYS,
        zone: plan.zone.clone(),
    })
}
