//! `sheaf tail`, one life after the other.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::eventually;
use crate::tail::writers::FilePlace;

/// A folder with logs and one with the state of agents that use them one after the other.
pub(crate) struct Agents {
    host: &'static str,
    to: String,
    folder: TempDir,
    running: Option<Child>,
}

impl Agents {
    /// They call their machine `host`, and send to one of these URLs.
    pub(crate) fn new(host: &'static str, to: &str) -> Agents {
        let folder = tempfile::tempdir().unwrap();
        for name in ["logs", "sources"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Agents { host, to: to.to_owned(), folder, running: None }
    }

    /// Where a log of this name is written.
    pub(crate) fn place(&self, name: &str) -> FilePlace {
        let log = self.folder.path().join("logs").join(name);
        let id = format!("{}{}", self.host, log.to_str().unwrap());
        FilePlace { id, log, sources: self.folder.path().join("sources") }
    }

    /// Starts one.
    pub(crate) fn start(&mut self) {
        let program = Path::new(env!("CARGO_BIN_EXE_sheaf-node")).with_file_name("sheaf");
        assert!(
            program.exists(),
            "cargo build --package sheaf makes the agent, which is not there"
        );
        let said = OpenOptions::new().create(true).append(true).open(self.words()).unwrap();
        let child = Command::new(program)
            .arg("tail")
            .arg(self.folder.path().join("logs/*.log"))
            .args(["--to", &self.to, "--host-name", self.host])
            .args(["--chunk-interval", "20ms", "--rotate-wait", "300ms", "--state"])
            .arg(self.folder.path().join("state"))
            .stdin(Stdio::null())
            .stderr(said)
            .spawn();
        self.running = Some(child.unwrap());
    }

    /// Ends the one that runs by SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
    }

    /// Asks the one that runs to stop. It may say that it has given a file up: one that was deleted
    /// after an agent had died that had not noted the last answer yet.
    pub(crate) fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
        let status = eventually("the end of the agent", || running.try_wait().unwrap());
        let is_sound = matches!(status.code(), Some(0 | 1));
        assert!(is_sound, "{status}: {}", fs::read_to_string(self.words()).unwrap());
    }

    fn words(&self) -> PathBuf {
        self.folder.path().join("words")
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended, and a test that failed has already said why.
            let _ = running.kill();
            let _ = running.wait();
        }
        if std::thread::panicking() {
            let words = fs::read_to_string(self.words()).unwrap_or_default();
            eprintln!("the agents of {} said:\n{words}", self.host);
        }
    }
}
