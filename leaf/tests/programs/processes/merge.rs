//! Two groups that knew nothing of one another, and a newcomer that knows one
//! of each.

use super::daemon::Daemon;
use super::traffic::{self, Known};
use super::{MACHINE, SERVING, overlay};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_become_one_overlay_when_somebody_knows_both() {
    let _machine = MACHINE.lock().await;
    let base = tempfile::tempdir().expect("a directory");
    let mut one = overlay::start(base.path(), "one", 5).await;
    overlay::agreed(&one, SERVING, &[]).await;
    let mut other = overlay::start(base.path(), "other", 5).await;
    overlay::agreed(&other, SERVING, &[]).await;
    let mut known = Known::new();
    for daemon in one.iter().chain(&other) {
        daemon.put("name", "value").await.expect("stored");
        known.insert((daemon.node_id.clone(), "name".into()), "value".into());
        daemon.publish("item.txt", "red panda").await;
    }
    let peers = [one[0].listen, other[0].listen];
    let newcomer = Daemon::start(&base.path().join("newcomer"), &peers).await;
    let mut all = vec![newcomer];
    all.append(&mut one);
    all.append(&mut other);
    overlay::agreed(&all, SERVING, &[]).await;
    for daemon in &all {
        traffic::all_there(daemon, &known).await;
        let found = daemon.search("panda").await.expect("an answer");
        assert_eq!(found.len(), all.len() - 1, "{found:?}");
    }
}
