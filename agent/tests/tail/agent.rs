//! The real binary, the folder with the files that it follows, and what it says.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use super::node::Node;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for logs, one for the state, and agents that use them one after the other.
#[derive(Debug)]
pub(crate) struct Scene {
    folder: TempDir,
    nodes: String,
    options: Vec<String>,
    /// What a shell does before it becomes the agent.
    before: &'static str,
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    words: PathBuf,
}

impl Scene {
    /// Agents follow `*.log` in the folder and send to the node.
    pub(crate) fn new(node: &Node) -> Scene {
        Scene::with_nodes(&[node])
    }

    /// Agents send to one of the nodes.
    pub(crate) fn with_nodes(nodes: &[&Node]) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let nodes: Vec<String> = nodes.iter().map(|node| node.url()).collect();
        let quick = ["--host-name", "host", "--chunk-interval", "20ms", "--rotate-wait", "300ms"];
        let options = quick.map(str::to_owned).to_vec();
        Scene { folder, nodes: nodes.join(","), options, before: ":" }
    }

    /// With more options, which take the place of those that are there.
    pub(crate) fn and(mut self, options: &[&str]) -> Scene {
        if let Some(at) = self.options.iter().position(|option| option == options[0]) {
            self.options.drain(at..at + 2);
        }
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// In a shell that did this before.
    pub(crate) fn after(mut self, command: &'static str) -> Scene {
        self.before = command;
        self
    }

    /// A path in the folder for logs.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// What a log's id is.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("host{}", self.path(name).to_str().unwrap())
    }

    /// A log that can be appended to, made if it is not there.
    pub(crate) fn log(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap()
    }

    /// Appends to a log.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.log(name).write_all(bytes.as_ref()).unwrap();
    }

    /// A new name for a log.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Starts an agent that follows `*.log`.
    pub(crate) fn start(&self) -> Agent {
        self.follow("*.log")
    }

    /// Starts an agent that follows what matches.
    pub(crate) fn follow(&self, pattern: &str) -> Agent {
        let words = self.folder.path().join("words");
        let stderr = OpenOptions::new().create(true).append(true).open(&words).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("{}; exec \"$0\" \"$@\"", self.before)])
            .args([env!("CARGO_BIN_EXE_sheaf"), "tail"])
            .arg(self.path(pattern))
            .args(["--to", &self.nodes])
            .arg("--state")
            .arg(self.state())
            .args(&self.options)
            .stderr(Stdio::from(stderr))
            .spawn()
            .unwrap();
        Agent { child, words }
    }
}

impl Agent {
    /// What all agents of the scene have said.
    pub(crate) fn words(&self) -> String {
        fs::read_to_string(&self.words).unwrap()
    }

    /// Waits until it has said something.
    pub(crate) fn says(&self, text: &str) {
        wait_until(&format!("it says {text:?}"), || self.words().contains(text));
    }

    /// Waits until it has said something so often.
    pub(crate) fn says_times(&self, text: &str, count: usize) {
        let is_said = || self.words().matches(text).count() == count;
        wait_until(&format!("it says {text:?} {count} times"), is_said);
    }

    /// Files may grow to so many bytes; nothing: to any size.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// Stops it for a while, so that it notices nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        wait_until("it stands still", || fs::read_to_string(&stat).unwrap().contains(") T "));
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once, without a chance to do anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; says whether it did so with success.
    pub(crate) fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let is_success = self.wait();
        if !is_success {
            eprintln!("{}", self.words());
        }
        is_success
    }

    /// Waits until it ends by itself; says whether with success.
    pub(crate) fn ends(mut self) -> bool {
        self.wait()
    }

    /// A figure of its memory, as the system names it.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let figure = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        figure.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How long it has been computing.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let figures = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        let ticks: u64 = figures.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32
    }

    fn wait(&mut self) -> bool {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.words());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the node has these files of the id, and no others, in this order.
pub(crate) fn rebuilt(node: &Node, id: &str, wanted: &[&[u8]]) {
    let deadline = Instant::now() + PATIENCE;
    while !node.look(id, |files| files == wanted) {
        if Instant::now() >= deadline {
            let found = node.look(id, shown);
            panic!("{id}: {found} instead of {}", shown(wanted));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The lengths of files, and how they begin.
fn shown(files: &[&[u8]]) -> String {
    let one = |bytes: &[u8]| {
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        format!("{} bytes {head:?}", bytes.len())
    };
    format!("{:?}", files.iter().map(|file| one(file)).collect::<Vec<_>>())
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The inode of a file.
pub(crate) fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

/// Numbered lines.
pub(crate) fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}
