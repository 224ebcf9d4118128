//! `supernode run`: an operator's host, and its events on standard output.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use canopy_core::identity::Identity;
use serde_json::json;
use tokio::sync::{broadcast, oneshot};

use super::args::RunArgs;
use super::failure::Failure;
use super::office::Office;
use super::output::{note, print_event, print_line};
use super::program::interrupted;
use crate::control::{Control, ControlConfig};
use crate::data_dir::DataDir;
use crate::event::{Event, EventKind, Events, unix_ms};
use crate::host::{Host, Plan, Setup};
use crate::http::{Http, Serving};
use crate::secret;
use crate::settings::{Bandwidth, Settings, Stand, Topology};
use crate::status::Role;

/// How often the designation's end is looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// Longest wait for the peer to say goodbye.
const GOODBYE: Duration = Duration::from_secs(30);

pub(super) async fn run(args: Box<RunArgs>) -> Result<ExitCode, Failure> {
    let mut settings = args.peer.settings()?;
    let key = match &args.operator_key {
        Some(path) => Some(secret::read(path)?),
        None => None,
    };
    settle(&mut settings, key.as_ref())?;
    let usual = ControlConfig::default();
    let control = ControlConfig {
        listen: args.control.or(settings.control).unwrap_or(usual.listen),
        tls: args.control_tls.clone().or(settings.control_tls.take()),
        access: args
            .control_access
            .clone()
            .or(settings.control_access.take()),
        client_ca: args
            .control_client_ca
            .clone()
            .or(settings.control_client_ca.take()),
    };
    let control = Control::bind(control).await?;
    let data_dir = match settings.data_dir.take() {
        Some(path) => DataDir::open(&path)?,
        None => DataDir::open_free(&DataDir::default_path_of("supernode")?)?,
    };
    let data_dir = Arc::new(data_dir);
    let closing = interrupted()?;
    let http = Http::bind(args.http.over(&settings)).await?;
    let setup = Setup {
        settings,
        data_dir: Some(data_dir.clone()),
        process_cpu: true,
        ..Setup::default()
    };
    let mut plan = setup.plan().await?;
    let office = Office::find(&args, key, &plan, &data_dir, unix_ms())?;
    appoint(&mut plan, &office)?;
    let (host, events) = plan.open(Host::start_watched).await?;
    data_dir.remember_port(host.status().listen.port())?;
    let run = Run {
        http: http.show(host.clone()).serve(host.clone()),
        host,
        office,
        operator: plan.operator.map(|operator| operator.to_string()),
        as_json: args.json,
    };
    run.serve(&data_dir, control, events, anstream::stdout(), closing)
        .await
}

/// Fills in what is particular to an operator's host.
fn settle(settings: &mut Settings, key: Option<&Identity>) -> Result<(), Failure> {
    if settings.api.is_some() {
        return Err(Failure::usage(
            "`api` is for `leaf run`: an operator's host has no local API; remove it from the configuration",
        ));
    }
    settings.stand.get_or_insert(Stand::Always);
    let Some(key) = key.map(Identity::node_id) else {
        return Ok(());
    };
    match settings.operator.replace(key) {
        Some(named) if named != key => Err(Failure::usage(format!(
            "--operator-key is the key of {key}, but --operator says {named}; give one of them only"
        ))),
        _ => Ok(()),
    }
}

/// Enters the designation into the plan.
fn appoint(plan: &mut Plan, office: &Office) -> Result<(), Failure> {
    match office.held() {
        Some(held) => {
            plan.operator = Some(held.operator());
            plan.designation = Some(held.signed().clone());
            Ok(())
        }
        None if plan.topology == Topology::Hybrid => Err(Failure::usage(
            "in the topology hybrid only designated hosts serve; give --designation or --operator-key",
        )),
        None => Ok(()),
    }
}

struct Run {
    host: Host,
    http: Serving,
    office: Office,
    operator: Option<String>,
    as_json: bool,
}

impl Run {
    async fn serve(
        mut self,
        data_dir: &DataDir,
        control: Control,
        events: broadcast::Receiver<Event>,
        mut out: impl Write,
        closing: impl Future<Output = ()>,
    ) -> Result<ExitCode, Failure> {
        let addr = control.addr();
        data_dir.announce_control(addr)?;
        let (close_control, control_closing) = oneshot::channel::<()>();
        let mut control = tokio::spawn(control.serve(self.host.clone(), async move {
            // An error says that this side is gone, which is the same.
            let _ = control_closing.await;
        }));
        let mut control_ended = false;
        let mut outcome = Ok(ExitCode::SUCCESS);
        self.print_ready(data_dir, addr, &mut out);
        let mut events = Events::new(events);
        self.resume(&mut out)?;
        let mut look = tokio::time::interval(LOOK);
        let mut warned = None;
        tokio::pin!(closing);
        loop {
            tokio::select! {
                () = &mut closing => break,
                ended = &mut control => {
                    control_ended = true;
                    outcome = match ended {
                        Ok(Err(error)) => Err(error.into()),
                        _ => Err(Failure::local("the control plane ended by itself")),
                    };
                    break;
                }
                _ = look.tick() => self.look_after(&mut warned, &mut out),
                event = events.next() => match event {
                    Some(event) => {
                        print_event(&mut out, &event, self.as_json);
                        let again = matches!(&event.kind, EventKind::Operated { action, .. } if action == "uncordon");
                        // Drained hosts hold a designation that is void.
                        if again && let Err(failure) = self.resume(&mut out) {
                            self.warn(&failure.message, &mut out);
                        }
                    }
                    // The peer closed by itself.
                    None => break,
                },
            }
        }
        if !self.as_json {
            note("closing");
        }
        let _ = close_control.send(());
        if !control_ended {
            // It bounds its own end; how it ended no longer matters.
            let _ = control.await;
        }
        data_dir.withdraw_control();
        if tokio::time::timeout(GOODBYE, self.host.close())
            .await
            .is_err()
        {
            tracing::warn!("the peer did not close in {GOODBYE:?} and is left as it is");
        }
        outcome
    }

    fn print_ready(&self, data_dir: &DataDir, control: SocketAddr, out: &mut impl Write) {
        let status = self.host.status();
        if self.as_json {
            let ready = json!({
                "event": "ready",
                "node_id": status.node_id.to_string(),
                "listen": status.listen.to_string(),
                "http": self.http.addr().to_string(),
                "control": control.to_string(),
                "operator": self.operator,
            });
            return print_line(out, &ready.to_string());
        }
        print_line(out, &format!("node      {}", status.node_id));
        print_line(out, &format!("listen    {}", status.listen));
        let http = self.http.addr();
        print_line(out, &format!("dashboard http://{http}/"));
        print_line(out, &format!("metrics   http://{http}/metrics"));
        print_line(out, &format!("control   {control}"));
        print_line(out, &format!("data      {}", data_dir.path().display()));
        if let Some(operator) = &self.operator {
            print_line(out, &format!("operator  {operator}"));
        }
        let standing = match self.office.held() {
            Some(held) => format!(
                "designated for {}, {} days left",
                Bandwidth(held.mandate().capacity_bps),
                held.days_left(unix_ms())
            ),
            None => "not designated: it stands for election".to_owned(),
        };
        print_line(out, &format!("office    {standing}"));
    }

    /// A host that laid its role down holds a designation that is void: with
    /// the key it signs another.
    fn resume(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        let serves = self.host.role() == Role::SuperNode;
        if serves || self.office.held().is_none() {
            return Ok(());
        }
        if let Some(next) = self.office.renew(unix_ms())? {
            self.host.designate(next.signed().clone());
        } else {
            self.warn(
                "this host laid its role down, which made its designation void; sign another with `supernode designate` and start with --designation",
                out,
            );
        }
        Ok(())
    }

    /// Renews the designation in time, or says every day that it ends.
    fn look_after(&mut self, warned: &mut Option<u64>, out: &mut impl Write) {
        let now_ms = unix_ms();
        if self.office.outdated(now_ms) {
            match self.office.renew(now_ms) {
                Ok(Some(next)) => self.host.designate(next.signed().clone()),
                Ok(None) => {}
                Err(failure) => self.warn(&failure.message, out),
            }
            return;
        }
        let Some(held) = self.office.held().filter(|held| held.is_due(now_ms)) else {
            return;
        };
        let days = held.days_left(now_ms);
        if warned.replace(days) != Some(days) {
            let message = format!(
                "the designation ends in {days} days; sign another with `supernode designate --node {}` and start with --designation",
                held.mandate().candidate
            );
            self.warn(&message, out);
        }
    }

    fn warn(&self, message: &str, out: &mut impl Write) {
        let warning = Event {
            at_ms: unix_ms(),
            kind: EventKind::Warning {
                message: message.to_owned(),
            },
        };
        print_event(out, &warning, self.as_json);
    }
}
