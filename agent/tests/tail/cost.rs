//! What following costs. With the release build:
//! `cargo test --release -p sheaf --test tail -- --ignored --nocapture`

use std::time::{Duration, Instant};

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
