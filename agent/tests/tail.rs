//! `sheaf tail` as a process, against a node that does what the test says: whatever happens to
//! files, agent and node, each incarnation of a file is rebuilt byte for byte.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod tail {
    pub(crate) mod agent; // the real binary
    pub(crate) mod chaos; // writers that rotate their files, whatever happens
    mod cost; // what following costs
    mod delivery; // nodes that do not take everything at once
    mod incarnations; // files that are renamed, deleted, truncated, replaced
    pub(crate) mod node; // takes chunks, and rebuilds files
}

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use tail::{
    agent::{Scene, lines, rebuilt, wait_until},
    chaos::{Rotation, Writer},
    node::{Mood, Node},
};

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
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..300_000)]);
    scene.write("a.log", "more\n");
    assert!(scene.start().ends());
    let more = [lines(0..300_000), b"more\n".into()].concat();
    rebuilt(&node, &scene.id("a.log"), &[&more]);
    assert_eq!(node.repeated(), 0);
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
    // It counts once it is noted, and what comes after it is noted after it.
    scene.write("b.log", "later\n");
    let noted = || fs::read(scene.state().join("log")).unwrap();
    wait_until("it is noted", || noted().windows(5).any(|bytes| bytes == b"b.log"));
    agent.kill();
    node.be(Mood::Takes);
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..300_000)]);
    wait_until("nothing is kept", || !spool.exists());
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
            Writer { name: "long.log", rotation: Rotation::Copy, slowness: 300, line: 1 << 20 },
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
    scene.write("last.log", "the end\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("last.log"), &[b"the end\n"]);
    for (name, contents) in &written {
        eprintln!("{name}: {} incarnations", contents.len());
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        rebuilt(&node, &scene.id(name), &contents);
    }
    eprintln!("{} chunks, {} of them again", node.received(), node.repeated());
    // Whether the end of a deleted file was answered an agent that was killed need not know.
    let words = agent.words();
    assert!(agent.stop() || words.contains("deleted.log: ERROR: it is given up: what follows"));
}
