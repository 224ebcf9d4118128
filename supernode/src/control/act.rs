//! What an operator has this peer do: cordon, drain, step down, elect. Everything may be asked
//! again, and what is no dry run is told as an event.

use std::time::Duration;

use canopy_core::node::MAX_CALLED;
use canopy_core::placement::R;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use futures_util::stream;
use tokio::sync::watch;
use tonic::Status;

use super::watch::Stream;
use crate::host::Host;
use crate::service::HandOver;
use crate::settings::Topology;
use crate::status::Role;

/// Longest name of a caller, bytes.
const MAX_CALLER: usize = 64;
/// A drain is told of as often, though nothing may have changed.
const TOLD: Duration = Duration::from_millis(250);

/// `Cordon` and `Uncordon`.
pub(super) fn cordon(
    host: &Host,
    request: pb::CordonRequest,
    caller: &str,
    on: bool,
) -> Result<pb::CordonReply, Status> {
    meant(host, &request.node_id)?;
    let caller = named(caller)?;
    let changed = host.figures().cordoned != on;
    if !request.dry_run {
        set_cordon(host, on)?;
        host.operated(if on { "cordon" } else { "uncordon" }, caller);
    }
    let serves = host.role() == Role::SuperNode;
    let note = match (on, serves) {
        (true, true) => "it goes on serving what it has; `drain` ends that",
        (false, false) => {
            "it stands for election as its settings say; a designated host that was drained needs a new designation"
        }
        _ => "",
    };
    Ok(pb::CordonReply {
        node_id: host.node_id().to_string(),
        changed,
        note: note.to_owned(),
    })
}

fn set_cordon(host: &Host, on: bool) -> Result<(), Status> {
    let set = host.cordon(on);
    set.map_err(|error| Status::internal(format!("nothing was changed: {error}")))
}

/// Whether this peer is the one that is meant.
pub(super) fn meant(host: &Host, node_id: &str) -> Result<(), Status> {
    let own = host.node_id().to_string();
    let wanted = node_id.to_ascii_lowercase();
    if wanted.is_empty() || (wanted.len() >= 8 && own.starts_with(&wanted)) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this is {own}, and a peer acts on itself alone; ask the control plane of {node_id}, which GetSuperNode names"
    )))
}

pub(super) fn named(caller: &str) -> Result<&str, Status> {
    let plain = caller.len() <= MAX_CALLER && !caller.chars().any(char::is_control);
    match (plain, caller.is_empty()) {
        (false, _) => Err(Status::invalid_argument(format!(
            "caller: give a name of up to {MAX_CALLER} bytes, without control characters"
        ))),
        (true, true) => Ok("somebody on this machine"),
        (true, false) => Ok(caller),
    }
}

/// `Drain`.
pub(super) fn drain(
    host: &Host,
    request: pb::DrainRequest,
    caller: &str,
) -> Result<Stream<pb::DrainProgress>, Status> {
    meant(host, &request.node_id)?;
    let caller = named(caller)?;
    let serves = host.role() == Role::SuperNode;
    may_leave(host, request.force)?;
    if request.dry_run {
        let planned = pb::DrainProgress {
            phase: "planned".to_owned(),
            note: match serves {
                true => String::new(),
                false => "it serves nobody: it would be cordoned and nothing else".to_owned(),
            },
            ..progress(host, &HandOver::default())
        };
        return Ok(Box::pin(stream::iter([Ok(planned)])));
    }
    set_cordon(host, true)?;
    host.operated("drain", caller);
    // Who retires already goes on with that.
    host.peer().step_down();
    let drain = Drain {
        host: host.clone(),
        role: host.peer().role(),
        handed: host.hand_over(),
        began: serves,
        told: false,
        over: false,
    };
    Ok(Box::pin(stream::unfold(drain, |mut drain| async move {
        let progress = drain.next().await?;
        Some((Ok(progress), drain))
    })))
}

/// `StepDown`.
pub(super) fn step_down(
    host: &Host,
    request: &pb::StepDownRequest,
    caller: &str,
) -> Result<pb::StepDownReply, Status> {
    meant(host, &request.node_id)?;
    let caller = named(caller)?;
    let holds = matches!(host.role(), Role::SuperNode | Role::Deputy);
    may_leave(host, request.force)?;
    if holds && !request.dry_run {
        host.operated("step-down", caller);
        host.peer().step_down();
    }
    let note = match (holds, host.figures().cordoned) {
        (false, _) => "it neither serves nor is in reserve",
        (true, true) => "it is cordoned, and stands for election again after `uncordon`",
        (true, false) => {
            "it stands for election again after its back-off; a designation that it holds is void"
        }
    };
    Ok(pb::StepDownReply {
        node_id: host.node_id().to_string(),
        changed: holds,
        note: note.to_owned(),
    })
}

/// `CallElection`.
pub(super) async fn call_election(
    host: &Host,
    request: &pb::CallElectionRequest,
    caller: &str,
) -> Result<pb::CallElectionReply, Status> {
    let caller = named(caller)?;
    let places = match request.places as usize {
        0 => 1,
        places if places <= MAX_CALLED => places,
        places => {
            let why = format!("places: {places} is over {MAX_CALLED}; call more than once");
            return Err(Status::invalid_argument(why));
        }
    };
    let closing = || Status::unavailable("this peer is closing; ask another");
    if host.topology() == Topology::Hybrid {
        return Err(Status::failed_precondition(
            "in the topology hybrid nobody is elected; designate a host with `supernode designate`",
        ));
    }
    let callable = host.peer().look(|core, now| core.callable(now)).await;
    let callable = callable.ok_or_else(closing)?;
    let callable = callable.map_err(|why| Status::failed_precondition(why.to_string()))?;
    let mut opened = false;
    if !request.dry_run {
        host.peer().call_election(places);
        let running = host.peer().look(|core, _| core.election()).await;
        opened = running.ok_or_else(closing)? == Some(callable.term);
        if opened {
            host.operated("elect", caller);
        }
    }
    Ok(pb::CallElectionReply {
        term: callable.term,
        candidates: callable.candidates as u32,
        deputies: callable.deputies as u32,
        opened,
    })
}

/// Refuses where too few would be left.
fn may_leave(host: &Host, force: bool) -> Result<(), Status> {
    if host.role() != Role::SuperNode {
        return Ok(());
    }
    match others(host) as usize {
        0 => Err(Status::failed_precondition(
            "nobody else serves: there is nobody to hand over to; let another host serve first",
        )),
        others if others < R && !force => Err(Status::failed_precondition(format!(
            "{others} super-nodes would be left, too few for {R} copies; let another host serve first, or force it"
        ))),
        _ => Ok(()),
    }
}

fn others(host: &Host) -> u32 {
    let own = host.node_id();
    let placement = host.placement();
    placement
        .members()
        .filter(|member| member.node != own)
        .count() as u32
}

fn progress(host: &Host, handed: &HandOver) -> pb::DrainProgress {
    let figures = host.figures();
    pb::DrainProgress {
        node_id: host.node_id().to_string(),
        phase: "draining".to_owned(),
        others: others(host),
        leaves: figures.leaves,
        records: figures.held.map_or(0, |held| held.records),
        looked_at: handed.records,
        confirmed: handed.confirmed,
        sent: handed.sent,
        note: String::new(),
    }
}

/// A drain that somebody watches; it goes on without.
struct Drain {
    host: Host,
    role: watch::Receiver<canopy_core::node::Role>,
    handed: watch::Receiver<HandOver>,
    /// The peer served when this began, and may not have heard yet.
    began: bool,
    told: bool,
    over: bool,
}

impl Drain {
    async fn next(&mut self) -> Option<pb::DrainProgress> {
        use canopy_core::node::Role::{Retiring, SuperNode};
        if self.over {
            return None;
        }
        let serving = |role: &canopy_core::node::Role| matches!(role, SuperNode | Retiring);
        if !self.told && self.began {
            self.told = true;
            return Some(progress(&self.host, &self.handed.borrow_and_update()));
        }
        let ended = async {
            let left = self.role.wait_for(|role| !serving(role)).await;
            left.is_ok()
        };
        let step = tokio::time::timeout(TOLD, ended).await;
        let handed = *self.handed.borrow_and_update();
        let progress = progress(&self.host, &handed);
        match step {
            Err(_) => Some(progress),
            Ok(true) => {
                self.over = true;
                let phase = "done".to_owned();
                Some(pb::DrainProgress { phase, ..progress })
            }
            // The peer was closed.
            Ok(false) => None,
        }
    }
}
