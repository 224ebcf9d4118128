use std::sync::mpsc::channel;

use super::*;

fn put(store: &Store, n: u8, data: &'static str) -> Result<(), StoreError> {
    let (tell, told) = channel();
    store.write(
        vec![Change::Put(
            Key([n; 32]),
            Bytes::from_static(data.as_bytes()),
        )],
        Box::new(move |result| tell.send(result).unwrap()),
    );
    told.recv().unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, 1, "one").unwrap();
    put(&store, 2, "two").unwrap();
    put(&store, 1, "new").unwrap();
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(
        store.get(&Key([1; 32])),
        Ok(Some(Bytes::from_static(b"new")))
    );
    assert_eq!(store.get(&Key([3; 32])), Ok(None));
    let mut seen = Vec::new();
    store.scan(|id, bytes| seen.push((id, bytes))).unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1], (Key([2; 32]), Bytes::from_static(b"two")));
}

#[test]
fn every_batch_of_many_threads_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = &store;
            scope.spawn(move || (0..50).for_each(|_| put(store, n, "x").unwrap()));
        }
    });
    let mut count = 0;
    store.scan(|_, _| count += 1).unwrap();
    assert_eq!(count, 8);
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _open = Store::open(dir.path()).unwrap();
    let second = Store::open(dir.path()).map(|_| ());
    assert_eq!(second, Err(StoreError::Locked(dir.path().to_owned())));
}

#[test]
fn a_path_that_is_a_file_cannot_be_a_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = Store::open(file.path()).map(|_| ());
    assert!(
        matches!(opened, Err(StoreError::Unwritable { .. })),
        "{opened:?}"
    );
}

#[test]
fn another_format_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    {
        let db = fjall::Database::builder(dir.path()).open().unwrap();
        let meta = db.keyspace("meta", Default::default).unwrap();
        meta.insert("format", 9u32.to_le_bytes()).unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let opened = Store::open(dir.path()).map(|_| ());
    assert!(
        matches!(opened, Err(StoreError::Version { found: 9, .. })),
        "{opened:?}"
    );
}

#[test]
fn a_damaged_store_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, 1, "one").unwrap();
    drop(store);
    let mut damaged = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.metadata().unwrap().len() > 0 {
            std::fs::write(&path, b"not what was written").unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let opened = Store::open(dir.path()).map(|_| ());
    assert!(
        matches!(opened, Err(StoreError::Corrupt { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_store_in_memory_acknowledges_at_once() {
    let store = Store::in_memory();
    put(&store, 1, "one").unwrap();
    assert_eq!(
        store.get(&Key([1; 32])),
        Ok(Some(Bytes::from_static(b"one")))
    );
}
