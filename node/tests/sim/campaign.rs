//! Many seeds, each in a process of its own: what the process has done before, such as the
//! numbers that it gave to tasks, must not matter.

use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// What a contradiction begins with: which check found it.
pub(crate) const CHECKS: [&str; 13] = [
    "lost", "repeated", "torn", "unsent", "stamp", "sum", "key", "changed", "bytes", "missing",
    "ledger", "halted", "stuck",
];

/// How long a simulation may take, which usually is over in seconds.
const SEED_MAX: Duration = Duration::from_secs(600);

/// What the environment says.
pub(crate) fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether a check is among those that found something.
pub(crate) fn is_found(told: &str, check: &str) -> bool {
    told.lines().any(|line| line.split_once(": ").is_some_and(|(first, _)| first == check))
}

/// Ends the process, and says so, unless the answer is dropped before: the simulation hangs,
/// in a place where its own time stands still.
pub(crate) fn watch() -> Sender<()> {
    let (running, ended) = channel();
    thread::spawn(move || {
        if ended.recv_timeout(SEED_MAX) == Err(RecvTimeoutError::Timeout) {
            println!("stuck: the simulation has not ended within {SEED_MAX:?}");
            std::process::exit(1);
        }
    });
    running
}

/// What a run tells: its trace, and what it found.
pub(crate) fn replay(seed: u64, failpoints: &str) -> String {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "one_seed", "--ignored", "--nocapture"]);
    process.env("SEED", seed.to_string()).env("FAILPOINTS", failpoints);
    let ended = process.stderr(Stdio::piped()).output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    let is_told = |line: &&str| {
        line.starts_with("trace: ") || CHECKS.iter().any(|check| is_found(line, check))
    };
    let mut told: String = out.lines().filter(is_told).map(|line| format!("{line}\n")).collect();
    if !ended.status.success() && !CHECKS.iter().any(|check| is_found(&told, check)) {
        // A panic of the node itself is told only here.
        let error = String::from_utf8_lossy(&ended.stderr);
        let panic = error.find("panicked at").unwrap_or_default();
        told.push_str(&format!("halted: {}", error[panic..].replace('\n', " ")));
    }
    told
}

/// The smallest of the first `seeds` in which something is found, and what; all processors take
/// part.
pub(crate) fn first_failure(seeds: u64, failpoints: &str) -> Option<(u64, String)> {
    let next = Mutex::new(0);
    let failure: Mutex<Option<(u64, String)>> = Mutex::default();
    let work = || loop {
        let seed = {
            let mut next = next.lock().unwrap();
            *next += 1;
            *next - 1
        };
        if seed >= seeds || failure.lock().unwrap().is_some() {
            return;
        }
        let told = replay(seed, failpoints);
        if CHECKS.iter().any(|check| is_found(&told, check)) {
            let mut failure = failure.lock().unwrap();
            if failure.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                *failure = Some((seed, told));
            }
        }
    };
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (0..processors).for_each(|_| drop(scope.spawn(work)));
    });
    failure.into_inner().unwrap()
}
