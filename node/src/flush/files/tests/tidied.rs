//! What is old is removed, and what is full is compressed.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::aggregation::definition::{Definition, Kind, LogFiles};

/// A chunk of 3,000 bytes.
const PAYLOAD: &str = {
    const BYTES: [u8; 3_000] = [b'x'; 3_000];
    match str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    }
};

fn member() -> serde_json::Value {
    json!({
        "checkpointSeconds": 2, "retentionSeconds": 60, "partBytes": 4_096, "compression": "Zstd",
    })
}

fn wanted(member: &serde_json::Value) -> LogFiles {
    let definition = json!({"name": "files", "type": "LogFiles", "logFiles": member});
    let definition: Definition = serde_json::from_value(definition).unwrap();
    let Kind::LogFiles(wanted) = definition.kind else { panic!("another kind") };
    wanted
}

impl Setting {
    /// Files in parts of 4 KiB; one file has three chunks in a checkpoint, and so two full parts
    /// and a third.
    async fn in_parts() -> (Setting, Life) {
        let it = Setting::new();
        let life = it.node.start();
        it.cluster.apply(register_as(&member()));
        everybody_waits().await;
        for seq in 1..=3 {
            it.append(3, ("a", seq), PAYLOAD);
        }
        it.cut(4).await;
        assert_eq!(it.kept("a"), Some((9_000, 0)));
        (it, life)
    }

    /// Tidies the file's slot at a time.
    fn tidy(&self, second: u64, member: &serde_json::Value) -> Tidied {
        let slot = Setting::key("a").slot();
        let checkpoint = self.cluster.now().aggregations()[&FILES].progress(slot).number();
        let (wanted, since) = (wanted(member), UnixNanos(0));
        let tidy = Tidy { wanted: &wanted, now: at(second), since, goes_on: &|| true };
        self.node.files().tidy(FILES, (slot, checkpoint), &tidy).unwrap()
    }

    /// Files below the folder of the aggregation, by name.
    fn names(&self) -> Vec<String> {
        names(&self.node.files())
    }

    fn bytes(&self, id: &str, part: Range<u64>) -> Result<usize, FilesError> {
        let pieces = self.node.files().read(FILES, &stream(id), 7, &part)?;
        Ok(pieces.collect::<Result<Vec<_>, _>>()?.concat().len())
    }
}

fn names(files: &Files) -> Vec<String> {
    let path = files.path(FILES, &stream("a"), 7);
    let parts = Parts::find(&path).unwrap();
    let name = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.trim_start_matches('0').to_owned()
    };
    parts.iter().map(|(part, _)| name(&part.path)).collect()
}

/// As if a part had been written last at a time.
fn written_at(path: &Path, second: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(at(second).0)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn full_parts_are_compressed_once_a_checkpoint_has_them() {
    let (it, life) = Setting::in_parts().await;
    it.append(5, ("a", 4), PAYLOAD);
    it.cut(5).await;
    assert_eq!(it.names(), ["a.7", "4096", "8192"]);
    let done = it.tidy(6, &member());
    assert_eq!(done, Tidied { removed: 0, compressed: 8_192 });
    assert_eq!(it.names(), [".zst", "4096.zst", "8192"]);
    assert_eq!(it.tidy(6, &member()), Tidied::default());
    it.append(6, ("a", 5), PAYLOAD);
    it.cut(6).await;
    assert_eq!(it.kept("a"), Some((15_000, 0)));
    assert_eq!(it.bytes("a", 0..15_000).unwrap(), 15_000);
    drop(life);
    everybody_waits().await;
    let life = it.node.start();
    it.append(7, ("a", 6), PAYLOAD);
    it.cut(8).await;
    assert_eq!(it.kept("a"), Some((18_000, 0)));
    assert_eq!(it.bytes("a", 0..18_000).unwrap(), 18_000);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_to_which_nothing_was_added_for_long_is_removed_and_may_go_on() {
    let (it, life) = Setting::in_parts().await;
    let only_old = json!({"retentionSeconds": 60});
    assert_eq!(it.tidy(63, &only_old), Tidied::default());
    assert_eq!(it.tidy(64, &only_old), Tidied { removed: 9_000, compressed: 0 });
    assert_eq!(it.tidy(65, &only_old), Tidied::default());
    assert_eq!(it.names(), ["9000"]);
    assert_eq!(shown(&it, "a"), Some((9_000, 9_000, None, 0)), "it is known");
    assert_eq!(removed(&it.node.files()), 9_000);
    let gone = it.bytes("a", 8_999..9_000).unwrap_err();
    assert!(matches!(gone, FilesError::Gone { begin: 9_000, .. }), "{gone}");

    let before = it.flushed();
    it.append(65, ("a", 2), PAYLOAD);
    it.append(65, ("a", 3), "other bytes");
    it.append(65, ("a", 4), "goes on");
    it.cut(66).await;
    assert_eq!((it.flushed().0 - before.0, it.flushed().1 - before.1), (3, 1), "one is new");
    let kept = it.node.files().kept(&Setting::key("a")).unwrap().unwrap();
    assert_eq!(kept.now.contradicting, 1);
    assert_eq!(it.bytes("a", 9_000..9_007).unwrap(), 7);
    runs(life).await;
}

fn removed(files: &Files) -> u64 {
    let key = Setting::key("a");
    let slots = [key.slot()].into_iter().collect();
    let (named, after) = (Named::Hash(key.hash), None);
    let wanted = Wanted { aggregation: FILES, slots, named, after, limit: 1 };
    files.list(&wanted).unwrap().pop().unwrap().file.removed_bytes
}

#[tokio::test(start_paused = true)]
async fn full_parts_go_when_they_are_old_and_the_first_ones_first() {
    let (it, life) = Setting::in_parts().await;
    let path = it.node.files().path(FILES, &stream("a"), 7);
    it.append(65, ("a", 4), "x");
    it.cut(66).await;
    let second = path.with_file_name("a.7~").join("000000000004096");
    written_at(&path, 10);
    written_at(&second, 9);
    assert_eq!(it.tidy(69, &member()).removed, 0, "the first one is younger");
    assert_eq!(it.tidy(70, &member()).removed, 8_192, "also what was compressed meanwhile");
    assert_eq!((it.names(), removed(&it.node.files())), (vec!["8192".to_owned()], 8_192));
    assert_eq!(it.bytes("a", 8_192..9_001).unwrap(), 809);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_checkpoint_has_stays_whatever_its_age() {
    let (it, life) = Setting::in_parts().await;
    it.cut(64).await;
    it.append(65, ("a", 4), PAYLOAD);
    it.cut(65).await;
    assert_eq!(shown(&it, "a"), Some((12_000, 9_000, None, 0)));
    let path = it.node.files().path(FILES, &stream("a"), 7);
    for (part, _) in Parts::find(&path).unwrap().iter() {
        written_at(&part.path, 5);
    }
    let only_old = json!({"retentionSeconds": 60});
    assert_eq!(it.tidy(65, &only_old), Tidied::default());
    assert_eq!(it.bytes("a", 0..12_000).unwrap(), 12_000);
    it.cut(66).await;
    assert_eq!(it.kept("a"), Some((12_000, 0)));
    assert_eq!(it.tidy(66, &only_old).removed, 8_192, "the full parts");
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_checkpoint_has_that_was_not_completed_stays() {
    let (it, life) = Setting::in_parts().await;
    let (wanted, slot) = (wanted(&member()), Setting::key("a").slot());
    for (second, checkpoint, is_touched) in [(64, 0, false), (5, 0, false), (5, 1, true)] {
        let tidy =
            Tidy { wanted: &wanted, now: at(second), since: UnixNanos(0), goes_on: &|| true };
        let done = it.node.files().tidy(FILES, (slot, checkpoint), &tidy).unwrap();
        assert_eq!(done != Tidied::default(), is_touched, "{second}, {checkpoint}");
    }
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn other_owners_get_what_is_left_and_where_it_begins() {
    let (it, life) = Setting::in_parts().await;
    let ((_root, there), here) = (other(), it.node.files());
    there.divide(FILES, wanted(&member()).part);
    let only_old = json!({"retentionSeconds": 60});
    it.tidy(64, &only_old);
    it.append(65, ("a", 4), "goes on");
    it.cut(66).await;
    let sent = parts(&here, ask(&there, 9));
    assert_eq!(sent, ["a true", "4 chunks", "from 9000", "goes on"]);
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!((names(&there), removed(&there)), (vec!["9000".to_owned()], 9_000));
    let key = Setting::key("a");
    assert_eq!(there.kept(&key).unwrap(), here.kept(&key).unwrap());
    assert_eq!(ask(&there, 9).known[&key].reached.length, 9_007, "it lacks nothing");

    // Whoever has more of it than the others keeps that.
    it.append(67, ("a", 5), PAYLOAD);
    it.cut(68).await;
    it.tidy(128, &only_old);
    assert_eq!(names(&here), ["12007"]);
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!(names(&there), ["12007"], "what lies between is nowhere");
    assert_eq!(there.kept(&key).unwrap(), here.kept(&key).unwrap());
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_compressed_parts_has_the_same_bytes_in_parts_of_its_own() {
    let (it, life) = Setting::in_parts().await;
    it.tidy(5, &member());
    let ((_root, there), here) = (other(), it.node.files());
    there.divide(FILES, wanted(&member()).part);
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!(names(&there), ["a.7", "4096", "8192"]);
    let path = there.path(FILES, &stream("a"), 7);
    let bytes: Vec<_> = Pieces::open(path, 0..9_000).unwrap().map(Result::unwrap).collect();
    assert!(bytes.concat() == [PAYLOAD; 3].concat().as_bytes());
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn files_that_nothing_can_have_happened_to_are_not_looked_at() {
    let (it, life) = Setting::in_parts().await;
    let slot = Setting::key("a").slot();
    let wanted = wanted(&json!({"retentionSeconds": 60}));
    let tidy = |since: u64, now: u64| {
        let (now, since) = (at(now), at(since));
        let tidy = Tidy { wanted: &wanted, now, since, goes_on: &|| true };
        it.node.files().tidy(FILES, (slot, 1), &tidy).unwrap().removed
    };
    assert_eq!(tidy(65, 70), 0, "it was old before");
    assert_eq!(tidy(64, 70), 9_000);
    runs(life).await;
}

/// A file in parts that this node keeps for another, and does not fold.
async fn kept_for_another() -> (Setting, Life, tempfile::TempDir, Files) {
    let (it, life) = Setting::in_parts().await;
    let ((root, there), here) = (other(), it.node.files());
    there.divide(FILES, wanted(&member()).part);
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    (it, life, root, there)
}

fn tidy(files: &Files, second: u64, goes_on: &dyn Fn() -> bool) -> Tidied {
    let (wanted, now, since) = (wanted(&member()), at(second), UnixNanos(0));
    let tidy = Tidy { wanted: &wanted, now, since, goes_on };
    files.tidy(FILES, (Setting::key("a").slot(), 9), &tidy).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_from_another_owner_is_left_for_the_next_time() {
    let (_it, life, _root, there) = kept_for_another().await;
    let (key, id) = (Setting::key("a"), stream("a"));
    let reached = there.kept(&key).unwrap().unwrap().now.reached;
    let open = there.open(&key, &id, reached, reached).unwrap();
    assert_eq!(tidy(&there, 5, &|| true), Tidied::default());
    assert_eq!(tidy(&there, 64, &|| true), Tidied::default());
    drop(open);
    assert_eq!(tidy(&there, 5, &|| true).compressed, 8_192);
    assert_eq!(tidy(&there, 64, &|| true).removed, 9_000);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_compressed_while_the_file_was_opened_counts_for_nothing() {
    let (_it, life, _root, there) = kept_for_another().await;
    let (key, id) = (Setting::key("a"), stream("a"));
    let reached = there.kept(&key).unwrap().unwrap().now.reached;
    let meanwhile = || there.open(&key, &id, reached, reached).is_ok();
    assert_eq!(tidy(&there, 5, &meanwhile), Tidied::default());
    assert_eq!(names(&there), ["a.7", "4096", "8192"]);
    assert_eq!(tidy(&there, 5, &|| true).compressed, 8_192);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_compresses_nothing_more() {
    let (_it, life, root, there) = kept_for_another().await;
    let asked = std::cell::Cell::new(0);
    let goes_on = || asked.replace(asked.get() + 1) < 2;
    assert_eq!(tidy(&there, 5, &goes_on).compressed, 4_096);
    assert_eq!(names(&there), [".zst", "4096", "8192"]);
    let folder = root.path().join("1/a.7~");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "nothing half-done is left");
    runs(life).await;
}
