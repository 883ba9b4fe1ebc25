//! `sheaf tail` as a process, against a node that does what the test says: whatever happens to
//! files, agent and node, each incarnation of a file is rebuilt byte for byte.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod tail {
    pub(crate) mod agent; // the real binary
    pub(crate) mod chaos; // writers that rotate their files, whatever happens
    pub(crate) mod node; // takes chunks, and rebuilds files
}

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, symlink},
    time::{Duration, Instant},
};

use tail::{
    agent::{Scene, inode, rebuilt, wait_until},
    chaos::{Rotation, Writer},
    node::{Mood, Node},
};

/// Numbered lines.
fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

#[test]
fn a_file_is_rebuilt_while_it_grows() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n"]);
    scene.write("b.log", lines(0..200_000));
    rebuilt(&node, &scene.id("b.log"), &[&lines(0..200_000)]);
    scene.write("c.txt", "not asked for");
    assert_eq!(node.ids(), [scene.id("a.log"), scene.id("b.log")]);
    assert!(agent.stop());
}

#[test]
fn a_restart_goes_on_where_the_last_life_ended() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    assert!(agent.stop());
    scene.write("a.log", "two\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n"]);
    agent.kill();
    scene.write("a.log", "three\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\nthree\n"]);
    assert!(agent.stop());
}

#[test]
fn once_sends_what_there_is_and_ends() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--once"]);
    scene.write("a.log", lines(0..300_000));
    scene.write("empty.log", "");
    assert!(scene.start().ends());
    assert_eq!(node.files(&scene.id("a.log")), [lines(0..300_000)]);
    scene.write("a.log", "more\n");
    assert!(scene.start().ends());
    assert_eq!(node.files(&scene.id("a.log")), [[lines(0..300_000), b"more\n".into()].concat()]);
    assert_eq!(node.repeated(), 0);
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_next_begins() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let mut log = scene.log("a.log");
    log.write_all(b"one\n").unwrap();
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    // The writer comes late, and then later still.
    log.write_all(b"two\n").unwrap();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\n"]);
    log.write_all(b"three\n").unwrap();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\nthree\n", b"next\n"]);
    assert!(agent.stop());
}

#[test]
fn a_rename_that_is_noticed_late_loses_nothing() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    agent.freeze();
    scene.write("a.log", "two\n");
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\n"]);
    // And while nobody looks, twice.
    agent.kill();
    scene.write("a.log", "next two\n");
    scene.rename("a.log.1", "a.log.2");
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "last\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\nnext two\n", b"last\n"]);
    assert!(agent.stop());
}

#[test]
fn a_file_that_is_renamed_to_a_followed_name_stays_what_it_is() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.follow("*.log*");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"next\n"]);
    scene.write("a.log.1", "late\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nlate\n", b"next\n"]);
    agent.kill();
    scene.rename("a.log.1", "a.log.2");
    scene.write("a.log.2", "later\n");
    let agent = scene.follow("*.log*");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nlate\nlater\n", b"next\n"]);
    assert_eq!(node.ids(), [scene.id("a.log")]);
    assert!(agent.stop());
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    agent.freeze();
    scene.write("a.log", lines(0..300_000));
    fs::remove_file(scene.path("a.log")).unwrap();
    scene.write("a.log", "next\n");
    agent.thaw();
    let first = [b"one\n".to_vec(), lines(0..300_000)].concat();
    rebuilt(&node, &scene.id("a.log"), &[&first, b"next\n"]);
    assert!(agent.stop());
}

#[test]
fn what_was_read_of_a_deleted_file_outlives_the_agent() {
    let node = Node::start(Mood::Silent);
    let scene = Scene::new(&node);
    scene.write("a.log", lines(0..300_000));
    let agent = scene.start();
    wait_until("it sends", || node.streams() > 0);
    fs::remove_file(scene.path("a.log")).unwrap();
    let spool = scene.state().join("spool/1");
    let length = || fs::metadata(&spool).map(|it| it.len()).unwrap_or(0);
    wait_until("all is kept", || length() == lines(0..300_000).len() as u64);
    agent.kill();
    node.be(Mood::Takes);
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..300_000)]);
    wait_until("nothing is kept", || !spool.exists());
    assert!(agent.stop());
}

#[test]
fn of_a_truncated_file_the_rest_is_read_from_its_copy() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", lines(0..100));
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..100)]);
    agent.freeze();
    scene.write("a.log", lines(100..200));
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    fs::write(scene.path("a.log"), "next\n").unwrap();
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..200), b"next\n"]);
    // Once more, while nobody looks; the file grows beyond what was read of it.
    agent.kill();
    scene.write("a.log", "two\n");
    fs::copy(scene.path("a.log"), scene.path("a.log.2")).unwrap();
    fs::write(scene.path("a.log"), lines(500..600)).unwrap();
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..200), b"next\ntwo\n", &lines(500..600)]);
    assert!(agent.stop());
}

#[test]
fn a_file_that_was_truncated_and_grew_again_is_a_new_session_whatever_its_banner() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let banner = "=".repeat(3_000);
    let first = format!("{banner}\none\n");
    scene.write("a.log", &first);
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[first.as_bytes()]);
    agent.freeze();
    let second = format!("{banner}\ntwo, and more than there was before\n");
    fs::write(scene.path("a.log"), &second).unwrap();
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[first.as_bytes(), second.as_bytes()]);
    agent.says("there is no copy");
    assert!(agent.stop());
}

#[test]
fn the_hole_of_a_writer_that_does_not_append_is_not_sent() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let log = File::create(scene.path("a.log")).unwrap();
    log.write_all_at(&lines(0..10_000), 0).unwrap();
    let end = lines(0..10_000).len() as u64;
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..10_000)]);
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    log.set_len(0).unwrap();
    log.write_all_at(b"after the hole\n", end).unwrap();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..10_000), b"after the hole\n"]);
    assert!(agent.stop());
}

#[test]
fn a_reused_inode_with_the_same_banner_is_a_new_session() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "banner\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"banner\n"]);
    agent.kill();
    let before = inode(&scene.path("a.log"));
    fs::remove_file(scene.path("a.log")).unwrap();
    // The file system gives the number away again, sooner or later.
    for attempt in 0..10_000 {
        scene.write("a.log", "");
        if inode(&scene.path("a.log")) == before {
            break;
        }
        assert!(attempt < 9_999, "no file system for this test");
        scene.rename("a.log", &format!("other-{attempt}"));
    }
    scene.write("a.log", "banner\nmore\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"banner\n", b"banner\nmore\n"]);
    assert!(agent.stop());
}

#[test]
fn empty_files_are_no_sessions_and_never_the_same() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "");
    let agent = scene.start();
    agent.says("follows 1 files");
    agent.kill();
    fs::remove_file(scene.path("a.log")).unwrap();
    scene.write("a.log", "");
    let agent = scene.start();
    scene.write("a.log", "one\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    for _ in 0..3 {
        scene.write("a.log", "");
        fs::remove_file(scene.path("a.log")).unwrap();
    }
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\n"]);
    assert!(agent.stop());
}

#[test]
fn a_link_that_is_switched_leads_to_another_session_and_back() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--poll", "100ms"]);
    fs::create_dir(scene.path("real")).unwrap();
    scene.write("real/one", "one\n");
    scene.write("real/two", "two\n");
    let switch = |to: &str| {
        symlink(scene.path(to), scene.path("new")).unwrap();
        scene.rename("new", "a.log");
    };
    switch("real/one");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    switch("real/two");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\n"]);
    scene.write("real/two", "more\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\nmore\n"]);
    switch("real/one");
    scene.write("real/one", "again\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nagain\n", b"two\nmore\n"]);
    assert!(agent.stop());
}

#[test]
fn what_an_overflowed_queue_did_not_tell_is_found_at_once() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--poll", "1h"]);
    scene.write("a.log", "one\n");
    scene.write("b.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("b.log"), &[b"one\n"]);
    agent.freeze();
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let (mut one, mut two) = (scene.log("a.log"), scene.log("b.log"));
    for _ in 0..queue.trim().parse::<u32>().unwrap() {
        one.write_all(b".").unwrap();
        two.write_all(b".").unwrap();
    }
    scene.write("c.log", "unseen\n");
    scene.rename("b.log", "b.log.1");
    scene.write("b.log", "next\n");
    let first = fs::read(scene.path("b.log.1")).unwrap();
    agent.thaw();
    rebuilt(&node, &scene.id("c.log"), &[b"unseen\n"]);
    rebuilt(&node, &scene.id("b.log"), &[&first, b"next\n"]);
    assert!(agent.stop());
}

#[test]
fn files_are_found_by_polling_alone() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--poll", "100ms"]);
    // Its folder is not there when folders begin to be watched.
    let agent = scene.follow("deep/*/x.log");
    agent.says("");
    fs::create_dir_all(scene.path("deep/er")).unwrap();
    scene.write("deep/er/x.log", "one\n");
    rebuilt(&node, &scene.id("deep/er/x.log"), &[b"one\n"]);
    assert!(agent.stop());
}

#[test]
fn what_one_node_does_not_take_goes_to_the_next() {
    let nodes = [Node::start(Mood::Unavailable(Some(100))), Node::start(Mood::Takes)];
    let scene = Scene::with_nodes(&[&nodes[0], &nodes[1]]);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&nodes[1], &scene.id("a.log"), &[b"one\n"]);
    agent.says("takes nothing: UNAVAILABLE: scripted");
    agent.says("takes chunks; for ");
    assert_eq!(nodes[0].received(), 0);
    nodes[1].be(Mood::Unavailable(None));
    nodes[0].be(Mood::Takes);
    scene.write("a.log", "two\n");
    wait_until("the first has it", || nodes[0].received() > 0);
    assert!(agent.stop());
}

#[test]
fn a_node_is_left_alone_for_as_long_as_it_asks() {
    let node = Node::start(Mood::Unavailable(Some(900)));
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    wait_until("it was asked", || node.streams() == 1);
    let asked = Instant::now();
    node.be(Mood::Throttles(1));
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    assert!(asked.elapsed() >= Duration::from_millis(850), "{:?}", asked.elapsed());
    let throttled = Instant::now();
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n"]);
    assert!(throttled.elapsed() >= Duration::from_millis(850), "{:?}", throttled.elapsed());
    assert!(agent.stop());
}

#[test]
fn a_refused_chunk_ends_its_file_and_no_other() {
    let node = Node::start(Mood::Refuses);
    let scene = Scene::new(&node);
    scene.write("a.log", "x\n");
    scene.write("b.log", "one\n");
    let agent = scene.start();
    agent.says("a.log: ERROR: it is given up: a node refuses chunk 1: it begins with an x");
    scene.write("a.log", "more\n");
    scene.write("b.log", "two\n");
    rebuilt(&node, &scene.id("b.log"), &[b"one\ntwo\n"]);
    assert_eq!(node.ids(), [scene.id("b.log")]);
    assert!(!agent.stop());
    node.be(Mood::Takes);
    let agent = scene.start();
    scene.write("b.log", "three\n");
    rebuilt(&node, &scene.id("b.log"), &[b"one\ntwo\nthree\n"]);
    assert_eq!(node.ids(), [scene.id("b.log")]);
    assert!(agent.stop());
}

#[test]
fn when_no_node_answers_reading_stops_and_says_so() {
    let node = Node::start(Mood::Silent);
    let scene = Scene::new(&node).and(&["--window", "16MiB"]);
    let content: Vec<u8> = (0..10_000_000_u32).flat_map(u32::to_le_bytes).collect();
    scene.write("a.log", &content);
    let agent = scene.start();
    agent.says("reading waits, the files keep what is written");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 60 << 10, "{kib} KiB");
    node.be(Mood::Takes);
    rebuilt(&node, &scene.id("a.log"), &[&content]);
    assert_eq!(agent.words().matches("reading waits").count(), 1);
    assert!(agent.stop());
}

#[test]
fn a_stop_waits_for_the_answers() {
    let node = Node::start(Mood::TakesSilently);
    let scene = Scene::new(&node);
    scene.write("a.log", lines(0..100));
    let agent = scene.start();
    wait_until("all was sent", || node.received() == 1);
    let stopping = std::thread::spawn(move || agent.stop());
    let words = || fs::read_to_string(scene.state().with_file_name("words")).unwrap();
    wait_until("it was told", || words().contains("stopping"));
    node.be(Mood::Takes);
    assert!(stopping.join().unwrap());
    let agent = scene.start();
    scene.write("a.log", "more\n");
    wait_until("more was sent", || node.received() == 2);
    assert_eq!(node.repeated(), 0);
    assert!(agent.stop());
}

#[test]
fn what_was_sent_and_not_answered_is_sent_again_as_it_was() {
    let node = Node::start(Mood::TakesSilently);
    let scene = Scene::new(&node);
    scene.write("a.log", lines(0..100));
    let agent = scene.start();
    wait_until("one was sent", || node.received() == 1);
    agent.kill();
    // Cut anew, the first chunk would be another one.
    scene.write("a.log", lines(100..200));
    node.be(Mood::Takes);
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..200)]);
    assert_eq!(node.repeated(), 1);
    assert!(agent.stop());
}

#[test]
fn a_state_that_cannot_be_trusted_is_refused() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let first = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    let second = scene.start();
    second.says("is in use by another sheaf tail");
    assert!(!second.ends());
    assert!(first.stop());
    let log = scene.state().join("log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[40] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let third = scene.start();
    third.says("log is damaged at byte ");
    assert!(!third.ends());
    assert_eq!(fs::read(&log).unwrap(), bytes);
}

/// `TAIL_SECONDS=300` makes it long.
#[test]
fn every_incarnation_is_rebuilt_however_often_agent_and_connections_die() {
    let seconds = std::env::var("TAIL_SECONDS").map_or(8, |seconds| seconds.parse().unwrap());
    let node = Node::start(Mood::Cuts(30));
    let scene = Scene::new(&node);
    let until = Instant::now() + Duration::from_secs(seconds);
    let written = std::thread::scope(|scope| {
        let writers = [
            Writer { name: "fast.log", rotation: Rotation::Rename, slowness: 1, line: 60_000 },
            Writer { name: "slow.log", rotation: Rotation::Rename, slowness: 30, line: 100 },
            Writer { name: "copied.log", rotation: Rotation::Copy, slowness: 5, line: 5_000 },
            Writer { name: "long.log", rotation: Rotation::Copy, slowness: 50, line: 1 << 20 },
            Writer { name: "deleted.log", rotation: Rotation::Delete, slowness: 5, line: 2_000 },
        ];
        let (scene, node) = (&scene, &node);
        let writers = writers.map(|writer| scope.spawn(move || writer.write(scene, node, until)));
        let mut lives = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            let agent = scene.start();
            let life = Instant::now() + Duration::from_millis(fastrand::u64(20..1_500));
            wait_until("its life is over", || Instant::now() >= life);
            agent.kill();
            lives += 1;
        }
        eprintln!("{lives} lives");
        writers.map(|writer| writer.join().unwrap())
    });
    node.be(Mood::Takes);
    let agent = scene.start();
    for (name, contents) in &written {
        eprintln!("{name}: {} incarnations", contents.len());
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        rebuilt(&node, &scene.id(name), &contents);
    }
    eprintln!("{} chunks, {} of them again", node.received(), node.repeated());
    assert!(agent.stop());
}
