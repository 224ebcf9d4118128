//! A process that is killed loses nothing that it acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use bytes::Bytes;
use canopy_core::keyspace::Key;
use canopy_supernode::store::{Change, Store};

const DIR: &str = "CANOPY_TEST_CRASH_DIR";

#[test]
#[ignore = "what the killed process runs"]
fn writes_until_it_is_killed() {
    let dir = std::env::var_os(DIR).unwrap();
    let store = Store::open(dir.as_ref()).unwrap();
    for n in 0u64.. {
        let (tell, told) = std::sync::mpsc::channel();
        let change = Change::Put(key(n), Bytes::from(n.to_le_bytes().to_vec()));
        store.write(vec![change], Box::new(move |done| tell.send(done).unwrap()));
        told.recv().unwrap().unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    // The second round writes over what the first left.
    for round in 1..=2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            let Some((_, n)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged = n.parse().unwrap();
            if acknowledged == 300 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..=acknowledged {
            let kept = store.get(&key(n)).unwrap();
            assert_eq!(kept.as_deref(), Some(&n.to_le_bytes()[..]), "record {n}");
        }
    }
    assert!(acknowledged >= 600);
}

fn key(n: u64) -> Key {
    Key::hash("crash test", &[&n.to_le_bytes()])
}
