//! Real processes on loopback that are told of one another by `--peer` alone:
//! they elect their super-nodes, and lose nothing when they are killed.

mod bad_input;
mod clock;
mod content;
mod daemon;
mod ends;
mod host;
mod merge;
mod overlay;
mod traffic;
mod version;

use std::path::PathBuf;
use std::time::Instant;

use daemon::Daemon;
use tokio::sync::Mutex;
use traffic::{Known, Traffic};

/// Super-nodes of a small overlay.
const SERVING: usize = 3;

/// One overlay at a time: elections measure what the machine has to give.
static MACHINE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_processes_elect_serve_and_lose_nothing_when_killed() {
    let _machine = MACHINE.lock().await;
    let base = tempfile::tempdir().expect("a directory");
    let start = Instant::now();
    let mut all = overlay::start(base.path(), "leaf", 10).await;
    all[9].event("super_node_up").await;
    println!(
        "{:>6.1} s until a super-node serves",
        start.elapsed().as_secs_f64()
    );
    overlay::agreed(&all, SERVING, &[]).await;

    let mut known = what_one_writes_all_read(&all).await;
    a_killed_super_node_is_replaced(&mut all, &mut known).await;
    a_killed_leaf_is_not_missed(&mut all, &mut known).await;
    after_a_power_cut_all_is_there(all, &known).await;
}

/// Puts and publishes on each, gets and searches on others.
async fn what_one_writes_all_read(all: &[Daemon]) -> Known {
    let mut known = Known::new();
    for (i, daemon) in all.iter().enumerate() {
        let (name, value) = (format!("name {i}"), format!("value {i}"));
        daemon.put(&name, &value).await.expect("stored");
        known.insert((daemon.node_id.clone(), name), value);
        daemon
            .publish(&format!("item{i}.txt"), "red panda 한국어 日本語")
            .await;
    }
    for daemon in all {
        traffic::all_there(daemon, &known).await;
        for query in ["panda", "red 日本", "한국어 panda"] {
            let found = daemon.search(query).await.expect("an answer");
            assert_eq!(found.len(), all.len(), "{query}: {found:?}");
        }
    }
    known
}

async fn a_killed_super_node_is_replaced(all: &mut Vec<Daemon>, known: &mut Known) {
    let victim = overlay::agreed(all, SERVING, &[]).await.remove(0);
    let mut victim = all.remove(overlay::position(all, &victim));
    let traffic = Traffic::start(&all[0], known, "while a super-node died");
    victim.kill();
    let gone = [victim.node_id.clone()];
    let nodes = overlay::agreed(all, SERVING, &gone).await;
    traffic.end(known).await;
    let successor = &all[overlay::position(all, &nodes[0])];
    traffic::all_there(successor, known).await;
    let found = successor.search("panda").await.expect("an answer");
    assert_eq!(found.len(), all.len() + 1, "{found:?}");

    // It comes back to an overlay that did without it.
    all.push(Daemon::start(victim.dir(), &[all[0].listen]).await);
    overlay::agreed(all, SERVING, &[]).await;
    traffic::all_there(&all[all.len() - 1], known).await;
}

async fn a_killed_leaf_is_not_missed(all: &mut Vec<Daemon>, known: &mut Known) {
    let serving = overlay::agreed(all, SERVING, &[]).await;
    let leaf = all.iter().position(|leaf| !serving.contains(&leaf.node_id));
    let mut victim = all.remove(leaf.expect("not all serve"));
    let traffic = Traffic::start(&all[0], known, "while a leaf died");
    victim.kill();
    let back = Daemon::start(victim.dir(), &[all[0].listen]).await;
    traffic::all_there(&back, known).await;
    all.push(back);
    traffic.end(known).await;
    assert_eq!(overlay::agreed(all, SERVING, &[]).await, serving);
}

async fn after_a_power_cut_all_is_there(mut all: Vec<Daemon>, known: &Known) {
    let serving = overlay::agreed(&all, SERVING, &[]).await;
    all.iter_mut().for_each(Daemon::kill);
    let dirs: Vec<PathBuf> = all.iter().map(|daemon| daemon.dir().to_owned()).collect();
    drop(all);
    let start = Instant::now();
    let all = overlay::restart(&dirs).await;
    println!(
        "{:>6.1} s to start all again",
        start.elapsed().as_secs_f64()
    );
    traffic::all_there(&all[all.len() - 1], known).await;
    println!(
        "{:>6.1} s until all was read",
        start.elapsed().as_secs_f64()
    );
    for daemon in &all {
        traffic::all_there(daemon, known).await;
        // Each knows what it has to refresh: its values and its one item.
        let own = known.keys().filter(|(id, _)| *id == daemon.node_id);
        let kept = daemon.status().await.requests.expect("told").kept;
        assert_eq!(kept, own.count() as u64 + 1);
        let found = daemon.search("panda").await.expect("an answer");
        assert_eq!(found.len(), all.len(), "{found:?}");
    }
    assert_eq!(overlay::agreed(&all, SERVING, &[]).await, serving);
}
