//! Finds the control plane that a command is for, and connects to it.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_proto::control::control_client::ControlClient;
use tonic::transport::Channel;

use super::super::args::AskArgs;
use super::super::failure::Failure;
use crate::control::MAX_REPLY;
use crate::data_dir::DataDir;

/// Longest wait for a host to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// `--control` first, else the host of the data directory.
pub(super) async fn connect(args: &AskArgs) -> Result<ControlClient<Channel>, Failure> {
    if let Some(addr) = args.control {
        let client = dial(addr).await;
        return client.ok_or_else(|| {
            Failure::unreachable(format!(
                "no host answers at {addr}; start one with `supernode run --control {addr}`, or correct --control"
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
        if let Some(client) = dial(addr).await {
            return Ok(client);
        }
    }
    Err(Failure::unreachable(format!(
        "no host runs with {}; start one with `supernode run`, or give --control ADDR or --data-dir PATH",
        path.display()
    )))
}

async fn dial(addr: SocketAddr) -> Option<ControlClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{addr}")).ok()?;
    let channel = channel.connect_timeout(CONNECT).connect().await.ok()?;
    Some(ControlClient::new(channel).max_decoding_message_size(MAX_REPLY))
}
