//! The journal: what is acknowledged is there, in order, whole, or the node does not
//! start. Where it is about files and syncs, the disk is a real one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use futures::executor::block_on;
use sheaf_node::event::time::{Clock, SECOND, UnixNanos};
use sheaf_node::journal::copies::Copies;
use sheaf_node::journal::replay::replay;
use sheaf_node::journal::{
    AppendError, CommitFigures, Events, Extent, FRAME_BYTES, Journal, JournalError, Opening,
    Position, Replay, frame,
};
use sheaf_node::store::{Disk, Store, StoreError};

const NOW: UnixNanos = UnixNanos(1_800_000_000 * SECOND + 5);

/// What stands in a payload file.
const LARGE: usize = 1 << 20;

/// Longer than any test stamps.
const LEASE: UnixNanos = UnixNanos(u64::MAX);

struct Life {
    journal: Journal,
    commits: mpsc::Receiver<CommitFigures>,
    thread: JoinHandle<Result<(), JournalError>>,
}

impl Life {
    fn begin(store: Result<Store, StoreError>) -> Life {
        Life::begin_above(store, UnixNanos(0))
    }

    /// In a segment in which nothing may be stamped before `floor`.
    fn begin_above(store: Result<Store, StoreError>, floor: UnixNanos) -> Life {
        let store = Arc::new(store.unwrap());
        let found = replay(&store, |_| Ok::<_, JournalError>(())).unwrap();
        let last = found.segments.keys().next_back().copied();
        let segment = last.unwrap_or(0) + 1;
        let opening = Opening { segment, floor, lease: LEASE, mirrors: Vec::new() };
        let (sender, commits) = mpsc::channel();
        let observer = Box::new(move |figures| sender.send(figures).unwrap_or_default());
        let clock = Clock::new(|| NOW);
        let (journal, writer) = Journal::new(store, &found, clock, observer);
        let thread = std::thread::spawn(move || writer.run());
        // If the disk fails, it is told by what is appended next.
        let _ = block_on(journal.open(opening));
        Life { journal, commits, thread }
    }

    /// The stamps of the open segment's entries.
    async fn stamps(&self, entries: u64) -> Vec<UnixNanos> {
        let from = Position { segment: self.journal.segment(), index: 0 };
        let mut follower = self.journal.follow(from).unwrap();
        let mut stamps = Vec::new();
        while follower.position().index < entries {
            let read = follower.next(usize::MAX).await.unwrap();
            stamps.extend(read.into_iter().map(|followed| followed.stamp));
        }
        stamps
    }

    async fn append(&self, content: &str) -> Result<Position, AppendError> {
        self.journal.append(packed(content), Events::of_records(1), Box::new(())).await
    }

    fn end(self) {
        self.journal.close();
        self.thread.join().unwrap().unwrap();
    }

    /// Appends what is not acknowledged, which ends this life.
    async fn fail(self) {
        assert_eq!(self.append("refused").await, Err(AppendError::Closed));
        let error = self.thread.join().unwrap().unwrap_err();
        assert!(matches!(error, JournalError::Store(StoreError::Write { .. })), "{error}");
    }
}

fn packed(content: &str) -> Vec<u8> {
    let mut entry = vec![0; FRAME_BYTES];
    entry.extend_from_slice(content.as_bytes());
    frame::checksum_content(&mut entry);
    entry
}

fn contents(store: Result<Store, StoreError>) -> Result<(Vec<String>, Replay), JournalError> {
    let mut contents = Vec::new();
    let found = replay(&store?, |replayed| {
        contents.push(String::from_utf8_lossy(replayed.entry).into_owned());
        Ok::<_, JournalError>(())
    })?;
    Ok((contents, found))
}

#[tokio::test]
async fn what_was_acknowledged_is_replayed_in_order_across_lives() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    assert_eq!(life.append("a").await, Ok(Position { segment: 1, index: 0 }));
    assert_eq!(life.append("b").await, Ok(Position { segment: 1, index: 1 }));
    life.end();
    let life = Life::begin(Store::in_memory(&disk));
    assert_eq!(life.append("c").await, Ok(Position { segment: 2, index: 0 }));
    life.end();
    let (found, replay) = contents(Store::in_memory(&disk)).unwrap();
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!((replay.events.records, replay.last_stamp), (3, NOW));
}

#[tokio::test]
async fn entries_that_wait_together_share_a_commit_and_keep_their_order() {
    // On a disk whose syncs take time, so that entries wait.
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(Store::open(folder.path()));
    let appends: Vec<_> =
        (0..500).map(|n| life.append(Box::leak(n.to_string().into_boxed_str()))).collect();
    let positions = futures::future::join_all(appends).await;
    let indices: Vec<_> = positions.into_iter().map(|p| p.unwrap().index).collect();
    assert_eq!(indices, (0..500).collect::<Vec<_>>());
    let groups = life.commits.try_iter().count();
    assert!(groups < 250, "{groups} groups");
    life.end();
}

#[tokio::test]
async fn nothing_is_stamped_before_a_time_of_which_was_told_how_much_is() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    life.append("before").await.unwrap();
    let cut = UnixNanos(NOW.0 + 10 * SECOND).whole_second();
    let told = life.journal.stamped(cut, LEASE).await.unwrap()[&1];
    assert_eq!((told.before, told.last), (Extent::new(1, Events::of_records(1)), NOW));
    life.append("after").await.unwrap();
    assert_eq!(life.stamps(2).await, [NOW, cut]);
    assert_eq!(life.journal.stamped(cut, LEASE).await.unwrap()[&1].before, told.before);
    life.end();
}

#[tokio::test]
async fn nothing_is_stamped_before_the_floor_of_its_segment_or_an_earlier_entry() {
    let disk = Disk::default();
    let floor = UnixNanos(NOW.0 + 10 * SECOND);
    for earliest in [floor, UnixNanos(0)] {
        let life = Life::begin_above(Store::in_memory(&disk), earliest);
        life.append("late").await.unwrap();
        assert_eq!(life.stamps(1).await, [floor]);
        life.end();
    }
}

#[tokio::test]
async fn a_closed_journal_commits_what_waits_and_refuses_what_comes() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    life.append("a").await.unwrap();
    life.journal.close();
    assert_eq!(life.append("b").await, Err(AppendError::Closed));
    life.end();
    assert_eq!(contents(Store::in_memory(&disk)).unwrap().0, ["a"]);
}

#[tokio::test]
async fn a_trimmed_journal_begins_where_it_was_trimmed() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    for content in ["a", "b", "c"] {
        life.append(content).await.unwrap();
    }
    let copies = Copies::open(Arc::new(Store::in_memory(&Disk::default()).unwrap())).unwrap();
    life.journal.trim(&copies, &BTreeMap::from([(1, 2)]), NOW).unwrap();
    life.end();
    let (found, replay) = contents(Store::in_memory(&disk)).unwrap();
    assert_eq!(found, ["c"]);
    assert_eq!(replay.events.records, 3);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    for content in ["a", "b"] {
        life.append(content).await.unwrap();
    }
    disk.crash();
    life.fail().await;
    assert_eq!(contents(Store::in_memory(&disk)).unwrap().0, ["a", "b"]);
}

#[tokio::test]
async fn a_power_cut_that_took_what_is_noted_as_acknowledged_stops_the_start() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    life.append("synced").await.unwrap();
    disk.skip_syncs(true);
    for _ in 0..10 {
        life.append("not synced").await.unwrap();
    }
    disk.crash();
    life.fail().await;
    let error = contents(Store::in_memory(&disk)).unwrap_err();
    assert!(matches!(error, JournalError::Gap { segment: 1, index: 1.., .. }), "{error}");
}

#[tokio::test]
async fn a_journal_whose_disk_was_full_goes_on_when_it_is_opened_again() {
    let disk = Disk::default();
    let life = Life::begin(Store::in_memory(&disk));
    life.append("a").await.unwrap();
    disk.fail_writes(true);
    life.fail().await;
    disk.fail_writes(false);
    let life = Life::begin(Store::in_memory(&disk));
    assert_eq!(life.append("b").await, Ok(Position { segment: 2, index: 0 }));
    life.end();
    assert_eq!(contents(Store::in_memory(&disk)).unwrap().0, ["a", "b"]);
}

#[tokio::test]
async fn a_journal_that_lost_an_acknowledged_tail_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(Store::open(folder.path()));
    for content in ["a", "b", "c"] {
        life.append(content).await.unwrap();
    }
    life.end();
    let log = files(folder.path()).into_iter().find(|f| f.extension().is_some_and(|e| e == "log"));
    let log = fs::File::options().write(true).open(log.unwrap()).unwrap();
    log.set_len(log.metadata().unwrap().len() - 20).unwrap();
    let error = contents(Store::open(folder.path())).unwrap_err();
    assert!(matches!(error, JournalError::Gap { segment: 1, index: 2, .. }), "{error}");
}

/// A folder with two lives of two large entries each, and the entries.
async fn large() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let contents: Vec<_> = ["a", "b", "c", "d"].map(|content| content.repeat(LARGE)).into();
    for two in contents.chunks(2) {
        let life = Life::begin(Store::open(folder.path()));
        for content in two {
            life.append(content).await.unwrap();
        }
        life.end();
    }
    (folder, contents)
}

fn length(file: &Path) -> u64 {
    file.metadata().unwrap().len()
}

#[tokio::test]
async fn a_large_entry_stands_in_a_file_of_its_segment_and_nowhere_else() {
    let (folder, expected) = large().await;
    assert_eq!(contents(Store::open(folder.path())).unwrap().0, expected);
    let payloads = payloads(folder.path());
    let lengths: Vec<_> = payloads.iter().map(|file| length(file)).collect();
    assert_eq!(lengths, [2 * LARGE as u64; 2], "{payloads:?}");
    let rest: u64 = files_in(folder.path()).iter().map(|file| length(file)).sum();
    assert!(rest < LARGE as u64, "{rest} bytes in the database");
}

#[tokio::test]
async fn what_no_frame_says_of_a_payload_file_is_cut_off_at_the_start() {
    let (folder, expected) = large().await;
    let file = &payloads(folder.path())[1];
    let torn = fs::File::options().append(true).open(file).unwrap();
    std::io::Write::write_all(&mut &torn, b"torn").unwrap();
    let stray = file.with_file_name(format!("{:016x}-{:016x}", 2, 2));
    fs::write(&stray, b"stray").unwrap();
    assert_eq!(contents(Store::open(folder.path())).unwrap().0, expected);
    assert_eq!(length(file), 2 * LARGE as u64);
    assert!(!stray.exists());
}

#[tokio::test]
async fn a_payload_file_that_is_short_or_gone_stops_the_start() {
    let (folder, _) = large().await;
    let file = payloads(folder.path()).remove(0);
    fs::File::options().write(true).open(&file).unwrap().set_len(2 * LARGE as u64 - 1).unwrap();
    let short = contents(Store::open(folder.path())).unwrap_err();
    assert!(matches!(short, JournalError::Damaged { segment: 1, index: 1, .. }), "{short}");
    fs::remove_file(file).unwrap();
    let gone = contents(Store::open(folder.path())).unwrap_err();
    assert!(matches!(gone, JournalError::Damaged { segment: 1, index: 0, .. }), "{gone}");
}

#[tokio::test]
async fn payload_files_go_with_what_is_trimmed() {
    let (folder, _) = large().await;
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let found = replay(&store, |_| Ok::<_, JournalError>(())).unwrap();
    let copies = Copies::open(Arc::clone(&store)).unwrap();
    let clock = Clock::new(|| NOW);
    let (journal, _) = Journal::new(store, &found, clock, Box::new(|_| ()));
    journal.trim(&copies, &BTreeMap::from([(1, 1), (2, 0)]), NOW).unwrap();
    assert_eq!(payloads(folder.path()).len(), 2, "some of each is needed");
    journal.trim(&copies, &BTreeMap::from([(2, 1)]), NOW).unwrap();
    assert_eq!(payloads(folder.path()).len(), 1);
}

#[tokio::test]
async fn any_flipped_byte_is_detected_or_harmless_but_never_a_smaller_count() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let life = Life::begin(Store::open(folder.path()));
        for n in 0..20 {
            // Some of them stand in payload files.
            let more = "!".repeat(if n % 10 == 0 { LARGE } else { 0 });
            life.append(&format!("entry {n}{more}")).await.unwrap();
        }
        life.end();
    }
    let (whole, _) = contents(Store::open(folder.path())).unwrap();
    assert_eq!(whole.len(), 40);
    let damaged = tempfile::tempdir().unwrap();
    let (mut detected, mut harmless) = (0, 0);
    for file in files(folder.path()) {
        let bytes = fs::read(&file).unwrap();
        let step = (bytes.len() / 40).max(1);
        for at in (0..bytes.len()).step_by(step) {
            copy(folder.path(), damaged.path());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            let name = file.strip_prefix(folder.path()).unwrap();
            fs::write(damaged.path().join(name), flipped).unwrap();
            match contents(Store::open(damaged.path())) {
                Err(_) => detected += 1,
                Ok((found, _)) => {
                    assert_eq!(found, whole, "byte {at} of {}", file.display());
                    harmless += 1;
                }
            }
        }
    }
    assert!(detected > 40, "{detected} detected, {harmless} harmless");
}

/// The files of a database, those of payloads the last.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_in(folder);
    files.extend(payloads(folder));
    files
}

fn payloads(folder: &Path) -> Vec<PathBuf> {
    files_in(&folder.join("payloads"))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(to) {
        fs::remove_file(file).unwrap();
    }
    fs::create_dir_all(to.join("payloads")).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.strip_prefix(from).unwrap())).unwrap();
    }
}
