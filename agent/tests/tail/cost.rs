//! What following costs. With the release build:
//! `cargo test --release -p sheaf --test tail -- --ignored --nocapture`

use std::{
    fs::{self, File},
    io::Write,
    time::{Duration, Instant},
};

use super::{
    agent::{Scene, wait_until},
    node::{Mood, Node},
};

#[test]
#[ignore = "takes half a minute, and wants a machine for itself"]
fn ten_thousand_files_cost_next_to_nothing_while_nobody_writes() {
    const FILES: usize = 10_000;
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    for number in 0..FILES {
        scene.write(&format!("{number}.log"), format!("the first line of {number}\n").repeat(40));
    }
    let agent = scene.start();
    wait_until("all are there", || node.ids().len() == FILES);
    let (begun, before) = (Instant::now(), agent.cpu_time());
    wait_until("it was idle for a while", || begun.elapsed() > Duration::from_secs(20));
    let share = (agent.cpu_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let memory = agent.memory_kib("VmRSS:");
    eprintln!("{memory} KiB, {:.2}% CPU", share * 100.0);
    assert!(memory < 100 << 10, "{memory} KiB");
    assert!(share < 0.02, "{share}");
    scene.write("7.log", "more\n");
    wait_until("it is awake", || {
        node.look(&scene.id("7.log"), |files| files[0].ends_with(b"more\n"))
    });
    assert!(agent.stop());
}

/// How fast one large file is read, beside `cp` with a sync.
#[test]
#[ignore = "measures, and wants a machine for itself"]
fn a_large_file_is_read_about_as_fast_as_it_is_copied() {
    const BYTES: usize = 1 << 30;
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--once"]);
    let block: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(..)).collect();
    let mut log = scene.log("a.log");
    for _ in 0..BYTES / block.len() {
        log.write_all(&block).unwrap();
    }
    log.sync_all().unwrap();
    let begun = Instant::now();
    fs::copy(scene.path("a.log"), scene.path("copy")).unwrap();
    File::open(scene.path("copy")).unwrap().sync_all().unwrap();
    let copied = begun.elapsed();
    let begun = Instant::now();
    assert!(scene.start().ends());
    let sent = begun.elapsed();
    eprintln!("copied in {copied:?}, sent in {sent:?}");
    assert_eq!(node.received(), BYTES / block.len());
}
