//! Several processes on one machine, told of one another by `--peer` alone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use super::daemon::{Daemon, within};

/// Starts `count` processes in directories of their own under `base`: one alone,
/// the rest with it as their only peer.
pub(crate) async fn start(base: &Path, group: &str, count: usize) -> Vec<Daemon> {
    let dir = |i: usize| base.join(format!("{group}{i}"));
    let first = Daemon::start(&dir(0), &[]).await;
    let peer = [first.listen];
    let mut all = vec![first];
    for i in 1..count {
        all.push(Daemon::start(&dir(i), &peer).await);
    }
    all
}

/// Restarts all from their directories, as they were started first.
pub(crate) async fn restart(dirs: &[std::path::PathBuf]) -> Vec<Daemon> {
    let first = Daemon::start(&dirs[0], &[]).await;
    let peer: [SocketAddr; 1] = [first.listen];
    let mut all = vec![first];
    for dir in &dirs[1..] {
        all.push(Daemon::start(dir, &peer).await);
    }
    all
}

/// Waits until all list the same super-nodes, `count` of them, with none of
/// `gone`; returns them.
pub(crate) async fn agreed(all: &[Daemon], count: usize, gone: &[String]) -> Vec<String> {
    let what = format!("all list the same {count} super-nodes, and no dead one");
    let start = Instant::now();
    let found = within(async || {
        let nodes = all[0].super_nodes().await;
        if nodes.len() != count || nodes.iter().any(|node| gone.contains(node)) {
            return None;
        }
        for daemon in &all[1..] {
            if daemon.super_nodes().await != nodes {
                return None;
            }
        }
        Some(nodes)
    })
    .await;
    let Some(nodes) = found else {
        for daemon in all {
            let (status, nodes) = (daemon.status().await, daemon.super_nodes().await);
            println!("{} {} {nodes:.6?}", status.node_id, status.role);
        }
        panic!("not in time: {what}");
    };
    println!("{:>6.1} s until {what}", start.elapsed().as_secs_f64());
    nodes
}

/// Where the process of `node` is in `all`.
pub(crate) fn position(all: &[Daemon], node: &str) -> usize {
    let found = all.iter().position(|daemon| daemon.node_id == node);
    found.expect("one of these processes")
}
