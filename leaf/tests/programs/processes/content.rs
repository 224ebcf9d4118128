//! A fetch outlives the process that does it.

use canopy_proto::leaf as pb;
use canopy_proto::leaf::fetch_update::What;
use canopy_proto::leaf::share_update;

use super::daemon::Daemon;
use super::host::Designated;

const PIECE: u64 = 1024 * 1024;
const PIECES: u64 = 32;

async fn pieces(daemon: &Daemon) -> (u64, u64) {
    let mut client = daemon.client.clone();
    let list = client.list_shares(pb::ListSharesRequest {});
    let stats = list.await.expect("told").into_inner().stats.expect("told");
    (stats.pieces, stats.uploaded)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_after_its_process_was_killed_and_fetches_nothing_twice() {
    let host = Designated::start(Default::default()).await;
    let base = tempfile::tempdir().expect("a directory");
    let (file, to) = (base.path().join("file"), base.path().join("to"));
    let mut data = vec![0; (PIECES * PIECE) as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    std::fs::write(&file, &data).expect("written");
    let start = async |name: &str| {
        let dir = base.path().join(name);
        let args = ["--stand", "never", "--preset", "local"];
        let operator = ["--operator", &host.operator, "--upload", "40 Mbit/s"];
        Daemon::start_with(&dir, &[host.addr], &[&args[..], &operator].concat()).await
    };
    let seeder = start("seeder").await;
    let path = file.to_str().expect("a text").to_owned();
    let shared = seeder.client.clone().share(pb::ShareRequest { path }).await;
    let mut updates = shared.expect("it may").into_inner();
    let content = loop {
        let update = updates.message().await.expect("told").expect("more");
        if let Some(share_update::What::Shared(shared)) = update.what {
            break shared.content;
        }
    };
    let ask = pb::FetchRequest {
        content,
        to: to.to_str().expect("a text").to_owned(),
    };

    let mut first = start("fetcher").await;
    let updates = first.client.clone().fetch(ask.clone()).await;
    let mut updates = updates.expect("it may").into_inner();
    let mut there = 0;
    while there < PIECES / 4 {
        let update = updates.message().await.expect("told").expect("more");
        if let Some(What::Progress(progress)) = update.what {
            there = progress.bytes / PIECE;
        }
    }
    first.kill();
    drop(first);

    let second = start("fetcher").await;
    let updates = second.client.clone().fetch(ask).await;
    let mut updates = updates.expect("it may").into_inner();
    while updates.message().await.expect("it goes on").is_some() {}
    assert!(std::fs::read(&to).expect("there") == data, "other bytes");
    let (again, uploaded) = (pieces(&second).await.0, pieces(&seeder).await.1);
    println!("{there} pieces before and {again} after, {uploaded} bytes sent");
    assert!(there + again <= PIECES, "{there} and {again} pieces");
    // What was under way when it was killed comes again.
    assert!(uploaded <= (PIECES + 5) * PIECE, "{uploaded}");
}
