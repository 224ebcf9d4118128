//! Carrying out what the core wants: sessions, messages, measurements.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::keyspace::NodeId;
use canopy_core::node::{Event, Input, Measured, Output, Role};
use canopy_proto::wire::CoreMessage;

use super::{Command, Inner, PeerEvent, Permits};
use crate::fabric::{DialError, MeasurePlan, NotifyError, Target};

/// Time that a session the core asked for may take to open.
const DIAL: Duration = Duration::from_secs(5);
/// Time that a dial-back may take.
const DIAL_BACK: Duration = Duration::from_secs(3);
/// Messages that wait for one session to open.
const WAITING: usize = 64;
/// Sessions being opened at once.
const MAX_DIALS: usize = 1024;
/// Permits kept; a jury has 31.
const MAX_PERMITS: usize = 1024;

/// Acts for the core. Never blocks: what takes time is a task of its own that
/// reports back.
pub(super) struct Carrier {
    inner: Arc<Inner>,
    permits: Permits,
    waiting: HashMap<NodeId, Vec<CoreMessage>>,
    dials: usize,
}

impl Carrier {
    pub(super) fn new(inner: Arc<Inner>, permits: Permits) -> Self {
        Self {
            inner,
            permits,
            waiting: HashMap::new(),
            dials: 0,
        }
    }

    /// True where the core's state is worth saving.
    pub(super) fn carry(&mut self, output: Output) -> bool {
        match output {
            Output::Connect { node, addrs } => {
                let open = node.is_some_and(|node| self.inner.fabric.session(&node).is_some());
                if !open {
                    self.dial(node, addrs);
                }
            }
            Output::Send {
                node,
                addrs,
                message,
            } => self.send(node, addrs, *message),
            Output::Disconnect { node } => {
                let session = self.inner.fabric.session(&node);
                if let Some(session) = session.filter(|session| session.in_flight() == 0) {
                    session.close("no longer needed");
                }
            }
            Output::DialBack { token, node, addr } => self.dial_back(token, node, addr),
            Output::Measure {
                token,
                node,
                addrs,
                share_bps,
                duration,
            } => {
                self.measure(token, node, addrs, share_bps, duration);
            }
            Output::Permit {
                voters,
                share_bps,
                lasts,
            } => self.permit(voters, share_bps, lasts),
            Output::Contact(contact) => self.inner.fabric.set_contact(contact),
            Output::Placement(placement) => {
                let version = placement.version();
                self.inner.placement.store(Arc::new(placement));
                self.inner.placements.send_replace(version);
            }
            Output::Bans(bans) => {
                self.inner.fabric.set_bans(bans.clone());
                self.inner.bans.send_replace(bans);
            }
            Output::Role(role) => {
                if role == Role::SuperNode {
                    // It needs no home, and looks for new ones afterwards.
                    self.inner.homes.send_replace(Vec::new());
                }
                self.inner.role.send_replace(role);
            }
            Output::Event(event) => {
                tracing::info!(?event, "peer.event");
                self.inner.inputs.counters.event(&event);
                if let Event::Homes(homes) = &event {
                    self.inner.homes.send_replace(homes.clone());
                }
                let _ = self.inner.events.send(PeerEvent::Core(event));
            }
            Output::Save => return true,
        }
        false
    }

    fn send(&mut self, node: NodeId, addrs: Vec<SocketAddr>, message: CoreMessage) {
        if let Some(session) = self.inner.fabric.session(&node) {
            match session.notify(&message) {
                Ok(()) => return,
                Err(NotifyError::Closed(_)) => {}
                Err(error) => return tracing::debug!(?node, %error, "peer.send"),
            }
        }
        let dialling = self.waiting.contains_key(&node);
        if !dialling && addrs.is_empty() {
            return self.inner.inputs.push(Input::Unreachable(node));
        }
        let waiting = self.waiting.entry(node).or_default();
        if waiting.len() < WAITING {
            waiting.push(message);
        }
        if !dialling {
            self.dial(Some(node), addrs);
        }
    }

    fn dial(&mut self, node: Option<NodeId>, addrs: Vec<SocketAddr>) {
        if self.dials >= MAX_DIALS || addrs.is_empty() {
            return;
        }
        self.dials += 1;
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let target = Target {
                id: node,
                addrs: addrs.clone(),
            };
            let result = inner
                .fabric
                .connect(&target, DIAL)
                .await
                .map(|session| session.peer());
            let _ = inner.inputs.sender.send(Command::Dialled {
                node,
                addrs,
                result,
            });
        });
    }

    /// A dial ended: sends what waited for it, or tells the core that it failed.
    pub(super) fn dialled(
        &mut self,
        node: Option<NodeId>,
        addrs: &[SocketAddr],
        result: Result<NodeId, DialError>,
    ) -> Option<Input> {
        self.dials = self.dials.saturating_sub(1);
        let waiting = node
            .and_then(|node| self.waiting.remove(&node))
            .unwrap_or_default();
        match result {
            Ok(peer) => {
                *self.inner.join_error.lock() = None;
                let session = self.inner.fabric.session(&peer)?;
                for message in waiting {
                    if let Err(error) = session.notify(&message) {
                        tracing::debug!(?peer, %error, "peer.send");
                    }
                }
                None
            }
            Err(DialError::Myself) => None,
            Err(error) => {
                self.inner.inputs.counters.dials_failed.one();
                if let Some(addr) = addrs.first().copied() {
                    tracing::debug!(?node, %addr, %error, "peer.dial");
                    *self.inner.join_error.lock() = Some((addr, error.clone()));
                    let _ = self
                        .inner
                        .events
                        .send(PeerEvent::JoinFailed { addr, error });
                }
                node.map(Input::Unreachable)
            }
        }
    }

    fn dial_back(&self, token: u64, node: NodeId, addr: SocketAddr) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let reached = inner.fabric.dial_back(addr, node, DIAL_BACK).await;
            let counters = &inner.inputs.counters;
            match reached {
                true => counters.dial_backs_reached.one(),
                false => counters.dial_backs_failed.one(),
            }
            inner.inputs.push(Input::DialedBack { token, reached });
        });
    }

    fn measure(
        &self,
        token: u64,
        node: NodeId,
        addrs: Vec<SocketAddr>,
        share_bps: u64,
        duration: Duration,
    ) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let target = Target {
                id: Some(node),
                addrs,
            };
            let plan = MeasurePlan {
                share_bps,
                duration,
                term: token,
            };
            let result = match inner.fabric.connect(&target, DIAL).await {
                Ok(session) => session
                    .measure(&plan)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let result = result
                .map_err(|error| tracing::debug!(?node, %error, "peer.measure"))
                .ok()
                .map(|measured| Measured {
                    up_bps: measured.up_bps,
                    down_bps: measured.down_bps,
                    round_trip: measured.rtt,
                    loss_ppm: measured.loss_ppm,
                });
            let counters = &inner.inputs.counters;
            match result {
                Some(_) => counters.measured.one(),
                None => counters.measurements_failed.one(),
            }
            inner.inputs.push(Input::Measured { token, result });
        });
    }

    fn permit(&self, voters: Vec<NodeId>, share_bps: u64, lasts: Duration) {
        let now = Instant::now();
        let mut permits = self.permits.lock();
        permits.retain(|_, (_, until)| *until > now);
        for voter in voters {
            if permits.len() < MAX_PERMITS {
                permits.insert(voter, (share_bps, now + lasts));
            }
        }
    }
}
