//! Nodes that do not take everything at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{
    agent::{Scene, lines, rebuilt, wait_until},
    node::{Mood, Node},
};

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
    // However late this test notices what happens, nothing may have happened too early.
    let begun = Instant::now();
    let agent = scene.start();
    wait_until("it was asked", || node.streams() == 1);
    node.be(Mood::Throttles(1));
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    // What is sent before the answer to the chunk before has come knows of no pause yet.
    let mut content = b"one\n".to_vec();
    for _ in 0..3 {
        scene.write("a.log", "two\n");
        content.extend_from_slice(b"two\n");
        rebuilt(&node, &scene.id("a.log"), &[&content]);
    }
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
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
    let memory = agent.memory_kib("VmHWM:");
    assert!(memory < 60 << 10, "{memory} KiB");
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
fn a_chunk_that_is_too_large_holds_up_its_file_and_no_other() {
    let node = Node::start(Mood::TakesUpTo(1 << 20));
    let scene = Scene::new(&node).and(&["--window", "16MiB"]);
    let content: Vec<u8> = (0..10_000_000_u32).flat_map(u32::to_le_bytes).collect();
    scene.write("a.log", &content);
    let agent = scene.start();
    agent.says("a.log: ERROR: chunk 1 of 1048576 bytes is not taken");
    agent.says("RESOURCE_EXHAUSTED: the request is larger than 1048576 bytes");
    scene.write("b.log", "one\n");
    rebuilt(&node, &scene.id("b.log"), &[b"one\n"]);
    scene.write("b.log", "two\n");
    rebuilt(&node, &scene.id("b.log"), &[b"one\ntwo\n"]);
    node.be(Mood::Takes);
    rebuilt(&node, &scene.id("a.log"), &[&content]);
    agent.says("a.log: its chunks are taken again");
    assert_eq!(agent.words().matches("is not taken").count(), 1);
    assert!(agent.stop());
}

#[test]
fn a_full_spool_leaves_the_rest_in_the_open_file_and_says_so() {
    let node = Node::start(Mood::Silent);
    let scene = Scene::new(&node).and(&["--window", "16MiB", "--spool", "8MiB"]);
    let content: Vec<u8> = (0..10_000_000_u32).flat_map(u32::to_le_bytes).collect();
    scene.write("a.log", &content);
    let agent = scene.start();
    agent.says("reading waits");
    fs::remove_file(scene.path("a.log")).unwrap();
    agent.says("a.log: the spool is full (--spool)");
    agent.says("the spool is full (--spool): what is left of renamed and deleted files waits");
    let spool = || fs::read_dir(scene.state().join("spool")).unwrap();
    let spooled = || spool().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(spooled() <= 8 << 20, "{}", spooled());
    node.be(Mood::Takes);
    rebuilt(&node, &scene.id("a.log"), &[&content]);
    agent.says("nodes answer again");
    agent.says("the spool has room again");
    wait_until("nothing is kept", || spool().next().is_none());
    assert!(agent.stop());
}

#[test]
fn what_was_sent_and_is_gone_before_it_was_answered_is_given_up_with_an_error() {
    let node = Node::start(Mood::TakesSilently);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    wait_until("it was sent", || node.received() == 1);
    agent.kill();
    fs::remove_file(scene.path("a.log")).unwrap();
    node.be(Mood::Takes);
    let agent = scene.start();
    agent.says("a.log: it went away while nobody followed it");
    agent.says("a.log: ERROR: it is given up: what follows on its first 0 bytes cannot be sent");
    assert!(!agent.stop());
}

#[test]
fn nothing_is_sent_that_could_not_be_written_down() {
    let node = Node::start(Mood::Takes);
    // A write beyond the limit is an error then, and no end.
    let scene = Scene::new(&node).after("trap '' XFSZ");
    for number in 0..40 {
        scene.write(&format!("{number}.log"), "one\n");
    }
    let agent = scene.start();
    for number in 0..40 {
        rebuilt(&node, &scene.id(&format!("{number}.log")), &[b"one\n"]);
    }
    let log = scene.state().join("log");
    let length = || fs::metadata(&log).unwrap().len();
    // Answers are written down a second later.
    let mut before = 0;
    wait_until("nothing more is to be written", || {
        std::thread::sleep(Duration::from_millis(1_500));
        std::mem::replace(&mut before, length()) == length()
    });
    // The next batch is torn.
    agent.limit_files(Some(length() + 20));
    scene.write("7.log", "two\n");
    agent.says("nothing is read or sent until it can be");
    assert_eq!(node.look(&scene.id("7.log"), |files| files.concat()), b"one\n");
    agent.limit_files(None);
    agent.says("the state can be written again");
    rebuilt(&node, &scene.id("7.log"), &[b"one\ntwo\n"]);
    agent.kill();
    let agent = scene.start();
    scene.write("7.log", "three\n");
    rebuilt(&node, &scene.id("7.log"), &[b"one\ntwo\nthree\n"]);
    assert!(agent.stop());
}
