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
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n"]);
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
