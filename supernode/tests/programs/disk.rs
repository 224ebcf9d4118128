//! A full disk: a small file system in memory, in a mount namespace of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use canopy_core::record::Record;
use canopy_proto::wire;

use crate::http::series;
use crate::running::{Running, fails, key};
use crate::visitor::{Visitor, value};

/// A file system of 4 MiB. It is gone when this is dropped.
struct SmallDisk {
    holder: Child,
    path: PathBuf,
    _mount_point: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`: this user may not have one.
    fn mount() -> Option<Self> {
        let mount_point = tempfile::tempdir().expect("a directory");
        let dir = mount_point.path().to_str().expect("a name that is text");
        let script = format!("mount -t tmpfs -o size=4m none {dir} && echo mounted && read end");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c", &script]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = unshare.stderr(Stdio::null()).spawn().ok()?;
        let mut said = String::new();
        let mut out = BufReader::new(holder.stdout.take().expect("piped"));
        out.read_line(&mut said).expect("text");
        // The way to it from outside its namespace.
        let path = PathBuf::from(format!("/proc/{}/root{dir}", holder.id()));
        let disk = Self {
            holder,
            path,
            _mount_point: mount_point,
        };
        let usable = said == "mounted\n" && File::create(disk.path.join("probe")).is_ok();
        usable.then_some(disk)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = File::create(self.path.join("filler")).expect("made");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("it has an end");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return println!("SKIPPED: needs Linux and the right to make a mount namespace");
    };
    disk.fill();
    // Whole, because no path leads here from the root of our own namespace.
    let data = disk.path.join("data");
    let start = ["run", "--data-dir", data.to_str().expect("text")];
    fails(&disk.path, &start, 5, "free space");
    disk.make_room();

    key(&disk.path, "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(&disk.path, &args);
    assert_eq!(host.event("role_changed")["to"], "super-node");
    let visitor = Visitor::at(&host).await;
    let kept = visitor.record(1, value("kept", b"kept".to_vec()));
    let outcomes = visitor.put(vec![kept.signed.clone()]).await;
    assert_eq!(outcomes, [wire::PutOutcome::default()]);

    disk.fill();
    // A system may still find room for a few.
    let mut acknowledged = vec![kept];
    let (refused, refusal) = loop {
        let record = large(&visitor, acknowledged.len());
        let outcomes = visitor.put(vec![record.signed.clone()]).await;
        match &outcomes[0].refusal {
            Some(refusal) => break (record, refusal.clone()),
            None => acknowledged.push(record),
        }
    };
    assert!(refusal.message.contains("disk is full"), "{refusal:?}");
    let warning = host.event("warning")["message"].to_string();
    assert!(warning.contains("free space and restart"), "{warning}");
    // An alert stands on this.
    assert!(series(&host)["canopy_store_failures_total"] >= 1.0);
    for record in &acknowledged {
        assert_eq!(visitor.get(record).await, Some(record.signed.clone()));
    }
    host.end("-TERM");

    disk.make_room();
    let host = Running::start(&disk.path, &[]);
    assert_eq!(host.event("role_changed")["to"], "super-node");
    let visitor = Visitor::at(&host).await;
    for record in &acknowledged {
        assert_eq!(visitor.get(record).await, Some(record.signed.clone()));
    }
    let outcomes = visitor.put(vec![refused.signed]).await;
    assert_eq!(outcomes, [wire::PutOutcome::default()]);
    host.end("-TERM");
}

/// A record of bytes that no journal makes fewer.
fn large(visitor: &Visitor, number: usize) -> Record {
    let mut data = vec![0; 60_000];
    let mut hasher = blake3::Hasher::new();
    let seeded = hasher.update(&number.to_le_bytes());
    seeded.finalize_xof().fill(&mut data);
    visitor.record(1, value(&format!("large {number}"), data))
}
