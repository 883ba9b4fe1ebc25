//! What senders of chunks are asked by each node.

use super::nodes::{Nodes, settled};
use crate::http::Connection;
use crate::process::{Process, eventually};

/// What a node says on its port for chunks.
fn ask(node: &mut Process, path: &str) -> Option<String> {
    node.must_be_alive();
    let answer = Connection::open(node.chunks()?).and_then(|mut node| node.get(path)).ok()?;
    (answer.status == 200).then_some(answer.body)
}

#[test]
fn what_one_node_is_told_to_ask_of_senders_all_of_them_ask_also_after_they_died() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    running.iter_mut().for_each(|node| drop(settled(node, 3)));
    let told = "Log server throttle = 7";
    eventually("a decision", || {
        let answer = ask(&mut running[1], "/throttle?seconds=7")?;
        assert_eq!(answer, told);
        Some(())
    });
    for _ in 0..2 {
        for node in &mut running {
            eventually("a node that asks the same", || {
                (ask(node, "/throttle?seconds=-1")? == told).then_some(())
            });
        }
        drop(running);
        running = nodes.start_all();
    }
}
