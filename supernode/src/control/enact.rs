//! Decrees of the operator through this peer: checked here, so that whoever asks
//! is told what is wrong, and then given to the core.

use bytes::Bytes;
use canopy_core::decree::{Banned, Decree, DecreeError, Order, Policy, Subject};
use canopy_core::election::criteria::CriteriaConfig;
use canopy_core::election::law::LawConfig;
use canopy_core::keyspace::Key;
use canopy_core::node::Core;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire;
use prost::Message;
use tonic::Status;

use super::act::named;
use crate::designation::{Designation, Holder};
use crate::host::Host;
use crate::status::Role;

/// `Enact`.
pub(super) async fn enact(
    host: &Host,
    request: pb::EnactRequest,
    caller: &str,
) -> Result<pb::EnactReply, Status> {
    let caller = named(caller)?;
    let signed = wire::Signed::decode(Bytes::from(request.decree)).map_err(|_| {
        Status::invalid_argument(
            "decree: give an encoded canopy.wire.v1.Signed, as `supernode ban` and its like make",
        )
    })?;
    let judged = {
        let signed = signed.clone();
        host.peer()
            .look(move |core, now| core.judge_decree(now, &signed))
            .await
    };
    let changed = judged
        .ok_or_else(closing)?
        .map_err(|error| refused(&error))?;
    let decree = Decree::decode(&signed.body).map_err(|error| refused(&error))?;
    let note = sensible(host, &decree)?;
    let serves = host.role() == Role::SuperNode;
    if !serves && host.status().homes.is_empty() {
        return Err(Status::failed_precondition(
            "this peer has not joined the overlay, so it could tell nobody; ask one that serves, or wait until it has",
        ));
    }
    if !request.dry_run && changed {
        host.peer().decree(signed);
        let subject = decree.order.subject();
        let action = match subject {
            Subject::Policy => "policy".to_owned(),
            _ => format!("{} {subject}", decree.order.as_str()),
        };
        host.operated(&action, caller);
        // It is in force here before this is answered.
        host.peer().look(|_, _| ()).await.ok_or_else(closing)?;
    }
    let super_nodes = host.placement().members().count();
    Ok(pb::EnactReply {
        decree: Some(told(&decree)),
        changed,
        super_nodes: super_nodes as u32,
        note,
    })
}

/// What an operator ought to know before it is too late.
fn sensible(host: &Host, decree: &Decree) -> Result<String, Status> {
    let own = host.node_id();
    match &decree.order {
        Order::Ban {
            what: Banned::Peer(node),
            ..
        } if *node == own => Err(Status::failed_precondition(
            "this is the peer that you ban, and it could not tell the others; ask another one",
        )),
        Order::Designate {
            host: node,
            mandate,
        } => {
            let holder = Holder {
                network: host.network(),
                node: *node,
                operator: None,
            };
            let opened = Designation::open(&mandate.encode_to_vec(), &holder, host.now_ms());
            match opened {
                Ok(_) => Ok("the host takes office when it hears of it: at once if it serves or has a home, else when it joins".to_owned()),
                Err(error) => Err(Status::invalid_argument(format!(
                    "the designation within the decree {error}"
                ))),
            }
        }
        Order::Undesignate(_) => Ok(
            "a host that holds the operator's key designates itself anew at its next start; start it without --operator-key"
                .to_owned(),
        ),
        _ => Ok(String::new()),
    }
}

fn closing() -> Status {
    Status::unavailable("this peer is closing; ask another")
}

fn refused(error: &DecreeError) -> Status {
    let message = error.to_string();
    match error {
        DecreeError::NoOperator => Status::failed_precondition(message),
        DecreeError::Signer { .. } | DecreeError::Signature(_) => {
            Status::permission_denied(message)
        }
        DecreeError::Superseded { .. } => Status::aborted(message),
        DecreeError::Full => Status::resource_exhausted(message),
        _ => Status::invalid_argument(message),
    }
}

/// `ListDecrees`.
pub(super) async fn list(
    host: &Host,
    request: &pb::ListDecreesRequest,
) -> Result<pb::ListDecreesReply, Status> {
    const KINDS: [&str; 6] = ["", "policy", "host", "peer", "publisher", "content"];
    if !KINDS.contains(&request.kind.as_str()) {
        return Err(Status::invalid_argument(format!(
            "kind: {:?} is none; give policy, host, peer, publisher or content, or nothing for all",
            request.kind.chars().take(32).collect::<String>()
        )));
    }
    let read = |core: &Core| {
        let all: Vec<Decree> = core.decrees().decrees().cloned().collect();
        (all, core.operator())
    };
    let (all, operator) = host
        .peer()
        .look(move |core, _| read(core))
        .await
        .ok_or_else(closing)?;
    if operator.is_some() {
        all_known(host)?;
    }
    let decrees = all.iter().map(told);
    Ok(pb::ListDecreesReply {
        decrees: decrees
            .filter(|decree| request.kind.is_empty() || decree.kind == request.kind)
            .collect(),
        network: host.network().to_owned(),
        operator: operator.map_or_else(String::new, |key| key.to_string()),
    })
}

/// A leaf is told of what concerns itself alone.
fn all_known(host: &Host) -> Result<(), Status> {
    match host.role() {
        Role::SuperNode => Ok(()),
        _ => Err(Status::failed_precondition(
            "this peer does not serve, so it does not know all decrees; ask one that serves, as `supernode members` lists them",
        )),
    }
}

/// `GetPolicy`.
pub(super) async fn policy(host: &Host) -> Result<pb::GetPolicyReply, Status> {
    let read = |core: &Core| {
        let held = core.decrees().get(&Subject::Policy);
        let policy = core.decrees().policy();
        let sequence = held.map_or(0, |decree| decree.sequence);
        (
            policy,
            sequence,
            core.overlay_law(),
            core.overlay_criteria(),
        )
    };
    let (policy, sequence, law, criteria) = host
        .peer()
        .look(move |core, _| read(core))
        .await
        .ok_or_else(closing)?;
    Ok(pb::GetPolicyReply {
        set: Some(told_policy(&policy)),
        in_force: Some(in_force(&law, &criteria)),
        sequence,
    })
}

fn in_force(law: &LawConfig, criteria: &CriteriaConfig) -> pb::Policy {
    let small = |of: u64| Some(u32::try_from(of).unwrap_or(u32::MAX));
    pb::Policy {
        ratio: small(law.ratio as u64),
        band_milli: small(law.band_milli),
        grow_milli: small(law.grow_milli),
        shrink_milli: small(law.shrink_milli),
        survive_milli: small(law.survive_milli),
        per_address: small(criteria.per_address as u64),
        per_prefix: small(criteria.per_prefix as u64),
    }
}

pub(super) fn told_policy(of: &Policy) -> pb::Policy {
    pb::Policy {
        ratio: of.ratio,
        band_milli: of.band_milli,
        grow_milli: of.grow_milli,
        shrink_milli: of.shrink_milli,
        survive_milli: of.survive_milli,
        per_address: of.per_address,
        per_prefix: of.per_prefix,
    }
}

/// The same the other way.
pub(crate) fn policy_of(of: &pb::Policy) -> Policy {
    Policy {
        ratio: of.ratio,
        band_milli: of.band_milli,
        grow_milli: of.grow_milli,
        shrink_milli: of.shrink_milli,
        survive_milli: of.survive_milli,
        per_address: of.per_address,
        per_prefix: of.per_prefix,
    }
}

/// A decree, as the API tells it.
pub(crate) fn told(of: &Decree) -> pb::Decree {
    let (kind, id) = match of.order.subject() {
        Subject::Policy => ("policy", String::new()),
        Subject::Host(node) => ("host", node.to_string()),
        Subject::Ban(Banned::Peer(node)) => ("peer", node.to_string()),
        Subject::Ban(Banned::Publisher(node)) => ("publisher", node.to_string()),
        Subject::Ban(Banned::Content(hash)) => ("content", Key(hash).to_string()),
    };
    let mut told = pb::Decree {
        says: of.order.as_str().to_owned(),
        kind: kind.to_owned(),
        id,
        sequence: of.sequence,
        issued_ms: of.issued_ms,
        expires_ms: of.expires_ms,
        ..Default::default()
    };
    match &of.order {
        Order::Ban { reason, .. } => told.reason.clone_from(reason),
        Order::Designate { mandate, .. } => {
            let body = wire::Mandate::decode(mandate.body.clone());
            told.capacity_bps = body.map_or(0, |body| body.capacity_bps);
        }
        Order::Policy(policy) => told.policy = Some(told_policy(policy)),
        _ => {}
    }
    told
}
