//! Many lives of a node on one folder, and what they have to add up to.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::RawValue;
use sheaf_proto::statistics::Ledger;
use tempfile::TempDir;

use super::oracle::{Fault, Oracle};
use super::power::Power;
use super::senders::{Seen, Senders};
use crate::http::{Answer, Connection};
use crate::process::{Ended, Process, eventually};

const SIGKILL: i32 = 9;
/// Windows so short that many end in a campaign.
const SHORT_WINDOWS: &[&str] = &["--window", "1s"];
/// Windows so long, and limits so low, that windows are spilled and carried.
const LARGE_WINDOWS: &[&str] =
    &["--window", "4s", "--journal-limit", "1MiB", "--memory-limit", "1MiB"];
/// What ids are padded to then.
const LARGE_ID: usize = 400;

/// A folder, the lives that were led on it, and what went in and came out.
pub(crate) struct Campaign {
    pub(crate) rng: fastrand::Rng,
    root: TempDir,
    windows: &'static [&'static str],
    id_length: usize,
    oracle: Oracle,
    seen: Arc<Seen>,
    power: Option<Power>,
}

/// A node that takes requests, until it dies.
pub(crate) struct Life {
    node: Process,
    seen: Arc<Seen>,
}

impl Life {
    /// Waits until the node has died by itself.
    pub(crate) fn wait_for_death(&mut self) {
        eventually("the node's death", || self.node.is_over().then_some(()));
    }

    /// Waits until the node has logged this.
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(text, || self.node.log().contains(text).then_some(()));
    }

    /// Waits until the senders see more of something.
    pub(crate) fn wait_for_more(&self, what: &str, count: impl Fn(&Seen) -> u64) {
        let before = count(&self.seen);
        eventually(what, || (count(&self.seen) > before).then_some(()));
    }

    /// Waits until the node says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        eventually("a ready node", || {
            self.node.must_be_alive();
            ask(&mut self.node, "/readyz").filter(|answer| answer.status == 200)
        });
    }
}

impl Campaign {
    /// A campaign whose random moments are those of `CRASH_SEED`, if that is set.
    pub(crate) fn begin() -> Campaign {
        let seed = std::env::var("CRASH_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("to choose the same moments again: CRASH_SEED={seed}");
        Campaign {
            rng: fastrand::Rng::with_seed(seed),
            root: tempfile::tempdir().unwrap(),
            windows: SHORT_WINDOWS,
            id_length: 0,
            oracle: Oracle::default(),
            seen: Arc::default(),
            power: None,
        }
    }

    /// Lets every death take away what was not synced.
    pub(crate) fn with_power_cuts(self) -> Campaign {
        let power = Power::new(self.root.path());
        Campaign { power: Some(power), ..self }
    }

    /// Lets windows become so large that they are spilled and carried.
    pub(crate) fn with_large_windows(self) -> Campaign {
        Campaign { windows: LARGE_WINDOWS, id_length: LARGE_ID, ..self }
    }

    /// How often a campaign does what it repeats: `CRASH_ROUNDS`, or a few times.
    pub(crate) fn rounds() -> usize {
        std::env::var("CRASH_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap())
    }

    /// What the senders of all lives have seen.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Leads a life with these failpoints, under load, to its end: it is killed when
    /// `live` returns, if not before.
    pub(crate) fn live(&mut self, failpoints: &str, live: impl FnOnce(&mut Life)) {
        let Ended { status, stderr, .. } = self.lead(failpoints, live, Process::kill);
        assert_eq!(status.signal(), Some(SIGKILL), "{failpoints}: {status}: {stderr}");
        if let Some(power) = &self.power {
            power.cut(&self.folder(), &mut self.rng);
        }
    }

    /// Leads a life under load that is ended by SIGTERM when `live` returns.
    pub(crate) fn drain(&mut self, live: impl FnOnce(&mut Life)) {
        let Ended { status, stderr, .. } = self.lead("", live, Process::terminate);
        assert!(status.success(), "{status}: {stderr}");
    }

    fn lead(
        &mut self,
        failpoints: &str,
        live: impl FnOnce(&mut Life),
        end: impl FnOnce(Process) -> Ended,
    ) -> Ended {
        let node = self.start(failpoints);
        let mut life = Life { node, seen: Arc::clone(&self.seen) };
        let to = life.node.otlp_http();
        let senders = to.map(|to| Senders::start(to, self.id_length, &self.seen, &mut self.rng));
        live(&mut life);
        let ended = end(life.node);
        self.oracle.sent(senders.map(Senders::stop).unwrap_or_default());
        self.oracle.printed(&ended.stdout);
        ended
    }

    /// Sends nothing again of what was sent so far.
    pub(crate) fn give_up(&mut self) {
        self.oracle.sent(self.seen.take_unsettled());
    }

    /// Leads a last life until everything is flushed, and returns what is wrong. A node
    /// that ends by itself has refused its folder, and nothing can be compared.
    pub(crate) fn faults(mut self) -> Vec<Fault> {
        let mut node = self.start("");
        let ledger = eventually("a ledger with nothing pending", || {
            if node.is_over() {
                return Some(None);
            }
            let answer = ask(&mut node, "/v1/ledger").filter(|answer| answer.status == 200)?;
            let ledger: Ledger = serde_json::from_str(&answer.body).unwrap();
            // What was stamped after the latest cut is in no account yet.
            let [account] = ledger.aggregations.as_slice() else { return None };
            let counted = account.accepted + account.deduplicated;
            let is_over = counted == ledger.accepted && account.pending == 0;
            is_over.then_some(Some(ledger))
        });
        self.give_up();
        let Some(ledger) = ledger else { return vec![Fault::Refused(node.end().stderr)] };
        // A window is flushed before its line is printed.
        eventually("the lines of all windows", || {
            node.must_be_alive();
            let counted = ledger.aggregations.iter().map(|account| account.accepted).sum();
            (self.oracle.records_with(&node.printed()) >= counted).then_some(())
        });
        let kept = ask(&mut node, "/v1/windows?limit=36000").unwrap();
        let kept: Vec<Box<RawValue>> = serde_json::from_str(&kept.body).unwrap();
        let ended = node.terminate();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        self.oracle.printed(&ended.stdout);
        self.oracle.faults(&ledger, &kept)
    }

    /// Ends the campaign; nothing may be wrong, and something must have happened.
    pub(crate) fn end(self) {
        let acknowledged = self.seen.acknowledged();
        let faults = self.faults();
        let first = faults.iter().take(10).map(|fault| format!("\n  {fault}"));
        assert!(faults.is_empty(), "{} faults:{}", faults.len(), first.collect::<String>());
        assert!(acknowledged > 0, "no request was acknowledged, so nothing was tested");
    }

    fn start(&self, failpoints: &str) -> Process {
        let mut environment = vec![("FAILPOINTS", failpoints.to_owned())];
        if let Some(power) = &self.power {
            environment.extend(power.watch(&self.folder()));
        }
        let all_ids = ["--attribute", "id", "--stats-limit", "1000000"];
        Process::start(&self.folder(), &[&all_ids, self.windows].concat(), &environment)
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("data")
    }
}

/// The admin port's answer, or `None` if it gave none.
fn ask(node: &mut Process, path: &str) -> Option<Answer> {
    Connection::open(node.admin()?).and_then(|mut connection| connection.get(path)).ok()
}
