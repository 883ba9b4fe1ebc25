//! Whole clusters in one thread each: the real node with its disk, its clock and its
//! network simulated (docs/simulation.md). Needs the feature `failpoints`.
//!
//! `SEEDS=1000` runs so many seeds, `SEED=5` repeats one and shows what happens.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod sim {
    pub(crate) mod checker; // what has to hold
    pub(crate) mod cluster; // machines, faults and the end of both
    pub(crate) mod faults; // what is done to a cluster
    pub(crate) mod history; // what happened
    pub(crate) mod machine; // a disk, a clock, an address, and a node
    pub(crate) mod senders; // what goes in
}

use std::str::FromStr;

use sim::checker::contradictions;
use sim::cluster::{Plan, run};
use sim::faults::CLOCK_BOUND;
use sim::history::trace;

const SEEDS: u64 = 5;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_cluster_keeps_its_promises_whatever_is_done_to_it() {
    let only: Option<u64> = variable("SEED");
    if only.is_some() {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_env_filter(variable::<String>("LOG").unwrap_or("info".to_owned()))
            .init();
    }
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let began = std::time::Instant::now();
        let history = run(Plan::of(seed));
        let found = contradictions(&history, CLOCK_BOUND);
        eprintln!(
            "seed {seed}: {} events, {:?}, {:x}",
            history.len(),
            began.elapsed(),
            trace(&history)
        );
        if only.is_some() {
            history.iter().for_each(|happened| eprintln!("{happened}"));
        }
        assert!(found.is_empty(), "{}\nrun again with: make sim SEED={seed}", found.join("\n"));
    }
}
