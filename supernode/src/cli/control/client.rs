//! Finds the control plane that a command is for, and connects to it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use canopy_proto::control::control_client::ControlClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Request, Status};

use super::super::args::AskArgs;
use super::super::failure::Failure;
use crate::control::MAX_REPLY;
use crate::data_dir::DataDir;
use crate::secret::{open_to_others, read_text};

/// Longest wait for a host to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest file of certificates or a token, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// A control plane, and the token that it is shown.
pub(in crate::cli) type Client = ControlClient<InterceptedService<Channel, Bearer>>;

/// Shows a token, if there is one.
#[derive(Clone)]
pub(in crate::cli) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// How to call whoever is called.
struct Means {
    ca: Option<Certificate>,
    own: Option<Identity>,
    bearer: Bearer,
}

impl Means {
    fn of(args: &AskArgs) -> Result<Self, Failure> {
        let ca = match &args.ca {
            Some(path) => Some(Certificate::from_pem(read(path)?)),
            None => None,
        };
        let token = match &args.token_file {
            Some(path) => {
                let token = format!("Bearer {}", read(path)?.trim());
                let mut token: MetadataValue<Ascii> = token
                    .parse()
                    .map_err(|_| Failure::usage(format!("{} holds no token", path.display())))?;
                token.set_sensitive(true);
                Some(token)
            }
            None => None,
        };
        let own = match &args.client_cert {
            Some(path) => {
                let mode = open_to_others(path).ok().flatten();
                if let Some(mode) = mode {
                    return Err(Failure::local(format!(
                        "{path} can be read by other users (mode {mode:o}); run `chmod 600 {path}`",
                        path = path.display()
                    )));
                }
                let pem = read(path)?;
                Some(Identity::from_pem(&pem, &pem))
            }
            None => None,
        };
        Ok(Self {
            ca,
            own,
            bearer: Bearer(token),
        })
    }

    async fn dial(&self, addr: &str) -> Result<Client, String> {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        let channel = Channel::from_shared(format!("{scheme}://{addr}"));
        let mut channel = channel.map_err(|error| error.to_string())?;
        if let Some(ca) = &self.ca {
            let mut tls = ClientTlsConfig::new().ca_certificate(ca.clone());
            if let Some(own) = &self.own {
                tls = tls.identity(own.clone());
            }
            channel = channel.tls_config(tls).map_err(|error| words(&error))?;
        }
        let channel = channel.connect_timeout(CONNECT).connect().await;
        let channel = channel.map_err(|error| words(&error))?;
        let client = ControlClient::with_interceptor(channel, self.bearer.clone());
        Ok(client.max_decoding_message_size(MAX_REPLY))
    }
}

/// The innermost reason: the others only say that there is one.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => words(source),
        None => error.to_string(),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    read_text(path, MAX_FILE)
        .map_err(|error| Failure::local(format!("cannot read {}: {error}", path.display())))
}

/// `--control` first, else the host of the data directory.
pub(in crate::cli) async fn connect(args: &AskArgs) -> Result<Client, Failure> {
    let means = Means::of(args)?;
    if let Some(addr) = &args.control {
        let local = addr.parse::<SocketAddr>();
        let local = local.is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
        if means.bearer.0.is_some() && means.ca.is_none() && !local {
            return Err(Failure::usage(
                "a token must not go over a network in plain text; give --ca",
            ));
        }
        return means.dial(addr).await.map_err(|reason| {
            Failure::unreachable(format!(
                "no host answers at {addr} ({reason}); start one with `supernode run --control {addr}`, or correct --control"
            ))
        });
    }
    let (path, addrs) = match &args.data_dir {
        Some(path) => (path.clone(), Vec::from_iter(DataDir::control_of(path))),
        None => {
            let path = DataDir::default_path_of("supernode")?;
            let addrs = DataDir::controls_beside(&path);
            (path, addrs)
        }
    };
    // One left behind by a host that was killed leads nowhere.
    for addr in addrs {
        if let Ok(client) = means.dial(&addr.to_string()).await {
            return Ok(client);
        }
    }
    Err(Failure::unreachable(format!(
        "no host runs with {}; start one with `supernode run`, or give --control ADDR or --data-dir PATH",
        path.display()
    )))
}
