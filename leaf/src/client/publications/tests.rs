//! The list on disk.

use canopy_core::identity::Identity;
use canopy_proto::wire::record::Payload;

use super::*;

const NOW: u64 = 1_800_000_000_000;
const DAY_S: u32 = 24 * 3600;

fn me() -> Identity {
    Identity::from_secret([9; 32])
}

fn value(name: &str, sequence: u64) -> Record {
    let value = Payload::Value(wire::Value {
        name: name.into(),
        data: Bytes::from_static(b"data"),
    });
    Record::sign(&me(), "net", sequence, NOW, DAY_S, value).unwrap()
}

fn open(path: &Path) -> Publications {
    Publications::open(path, "net", me().node_id()).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let base = tempfile::tempdir().unwrap();
    let (first, after) = (base.path().join("first"), base.path().join("after"));
    let list = open(&first);
    list.remember(&[value("a", NOW), value("b", NOW), value("c", NOW)])
        .await
        .unwrap();
    list.remember(&[value("a", NOW + 5)]).await.unwrap();
    assert_eq!(list.forget(&[value("b", 0).id()]).await, Ok(true));
    assert_eq!(list.forget(&[value("b", 0).id()]).await, Ok(false));
    // The disk as it is now, without a clean end.
    std::fs::create_dir(&after).unwrap();
    copy(&first, &after);
    let list = open(&after);
    assert_eq!(list.count(), 2);
    let kept = list.get(&value("a", 0).id()).unwrap();
    assert_eq!(kept, value("a", NOW + 5));
    assert_eq!(list.get(&value("b", 0).id()), None);
}

#[tokio::test]
async fn a_leaf_that_only_reads_keeps_nothing_on_disk() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("publications");
    let list = open(&path);
    assert_eq!(list.get(&value("a", 0).id()), None);
    assert_eq!(list.forget(&[value("a", 0).id()]).await, Ok(false));
    assert!(!path.exists());
    // Several at once make it once.
    let (a, b) = (value("a", NOW), value("b", NOW));
    let (a, b) = ([a], [b]);
    let (first, second) = tokio::join!(list.remember(&a), list.remember(&b));
    assert_eq!((first, second, list.count()), (Ok(()), Ok(()), 2));
    drop(list);
    assert_eq!(open(&path).count(), 2);
}

#[tokio::test]
async fn a_list_that_cannot_be_made_stops_the_write_that_needs_it() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    std::fs::write(&file, "").unwrap();
    let list = open(&file.join("publications"));
    let error = list.check_room(&[(value("a", NOW).id(), 100)]).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Publications(_)), "{error}");
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            }
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test]
async fn another_network_and_another_identity_have_lists_of_their_own() {
    let base = tempfile::tempdir().unwrap();
    let list = open(base.path());
    list.remember(&[value("a", NOW)]).await.unwrap();
    drop(list);
    let stranger = Identity::from_secret([8; 32]).node_id();
    for (network, who) in [("other", me().node_id()), ("net", stranger)] {
        let list = Publications::open(base.path(), network, who).unwrap();
        assert_eq!((list.count(), list.next_due_ms()), (0, None));
        assert_eq!(list.forget(&[value("a", 0).id()]).await, Ok(false));
    }
    assert_eq!(open(base.path()).count(), 1);
}

#[tokio::test]
async fn a_record_is_due_about_half_way_through_its_life() {
    let list = Publications::in_memory("net", me().node_id());
    let records: Vec<Record> = (0..200).map(|i| value(&i.to_string(), NOW)).collect();
    list.remember(&records).await.unwrap();
    let day_ms = u64::from(DAY_S) * 1000;
    assert!(list.due(NOW + day_ms * 2 / 5, 1000).is_empty());
    assert_eq!(list.due(NOW + day_ms / 2, 1000).len(), 200);
    // They are spread over a tenth of it.
    let half = list.due(NOW + day_ms * 9 / 20, 1000).len();
    assert!((60..=140).contains(&half), "{half} in the first half");
    assert_eq!(list.due(NOW + day_ms, 7).len(), 7);
}

#[tokio::test]
async fn a_refresh_undoes_neither_a_removal_nor_a_later_write() {
    let list = Publications::in_memory("net", me().node_id());
    list.remember(&[value("a", 10), value("b", 10)])
        .await
        .unwrap();
    // Under way: a at 11, b at 11.
    list.forget(&[value("a", 0).id()]).await.unwrap();
    list.remember(&[value("b", 20)]).await.unwrap();
    list.refreshed(&[value("a", 11), value("b", 11)])
        .await
        .unwrap();
    assert_eq!(list.count(), 1);
    let kept = list.get(&value("b", 0).id()).unwrap();
    assert_eq!(kept.body.sequence, 20);
}

#[tokio::test]
async fn a_failure_is_tried_again_ever_more_seldom() {
    let list = Publications::in_memory("net", me().node_id());
    let record = value("a", NOW);
    list.remember(std::slice::from_ref(&record)).await.unwrap();
    let mut now_ms = list.next_due_ms().unwrap();
    let mut pauses = Vec::new();
    for _ in 0..20 {
        list.postpone(&record.id(), now_ms);
        let next = list.next_due_ms().unwrap();
        pauses.push(next - now_ms);
        now_ms = next;
    }
    assert!((30_000..=60_000).contains(&pauses[0]), "{pauses:?}");
    let longest = RETRY_MAX.as_millis() as u64;
    assert!((longest / 2..=longest).contains(&pauses[19]), "{pauses:?}");
    list.refreshed(&[value("a", NOW + 1)]).await.unwrap();
    list.postpone(&record.id(), now_ms);
    assert!(list.next_due_ms().unwrap() - now_ms <= 60_000);
}
