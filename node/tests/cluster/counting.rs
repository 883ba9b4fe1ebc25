//! What several nodes count is what was sent to them, whoever dies or joins meanwhile.

use serde_json::value::RawValue;
use sheaf_proto::statistics::Ledger;

use super::load::Load;
use super::nodes::{Nodes, settled, view};
use super::tally::Lines;
use crate::http::Connection;
use crate::process::{Process, eventually};

/// Requests that a node acknowledges before something happens.
const SOME: u64 = 50;

/// A cluster under load.
pub(super) struct Campaign {
    pub(super) nodes: Nodes,
    /// How many form the cluster; the others join later.
    founders: usize,
    pub(super) running: Vec<Option<Process>>,
    pub(super) load: Load,
    lines: Lines,
}

impl Campaign {
    /// Forms a cluster of the first `founders` of so many nodes.
    pub(super) fn begin(founders: usize, count: usize) -> Campaign {
        let mut campaign = Campaign::begin_with(founders, count, "");
        (0..founders).for_each(|node| campaign.wait_for_more(node));
        campaign
    }

    /// Starts the first `founders` of so many nodes with these failpoints.
    fn begin_with(founders: usize, count: usize, failpoints: &str) -> Campaign {
        let (nodes, load) = (Nodes::new(count), Load::start(count));
        let running = (0..count).map(|_| None).collect();
        let lines = Lines::default();
        let mut campaign = Campaign { nodes, founders, running, load, lines };
        (0..founders).for_each(|node| campaign.start_with(node, failpoints));
        campaign
    }

    pub(super) fn start(&mut self, node: usize) {
        self.start_with(node, "");
    }

    /// Starts a node with more settings.
    pub(super) fn start_counting(&mut self, node: usize, settings: &[&str]) {
        let process = self.nodes.start_counting(node, self.founders, settings);
        self.take(node, process);
    }

    fn start_with(&mut self, node: usize, failpoints: &str) {
        let process = self.nodes.start_with(node, self.founders, failpoints);
        self.take(node, process);
    }

    fn take(&mut self, node: usize, mut process: Process) {
        self.load.reaches(node, process.otlp_http().unwrap());
        self.running[node] = Some(process);
    }

    /// Ends a node by SIGKILL.
    pub(super) fn kill(&mut self, node: usize) {
        let ended = self.running[node].take().unwrap().kill();
        self.lines.add(node, &ended.stdout);
    }

    /// Waits until a node has died by itself, and says which.
    #[cfg(feature = "failpoints")]
    fn wait_for_death(&mut self) -> usize {
        eventually("a death", || {
            let mut running = self.running.iter_mut();
            running.position(|node| node.as_mut().is_some_and(Process::is_over))
        })
    }

    /// Waits until a node has acknowledged some more requests.
    pub(super) fn wait_for_more(&mut self, node: usize) {
        self.wait_for(node, SOME);
    }

    /// Waits until a node has acknowledged so many more requests.
    pub(super) fn wait_for(&mut self, node: usize, more: u64) {
        let before = self.load.acknowledged(node);
        let process = self.running[node].as_mut().unwrap();
        eventually("some more requests", || {
            process.must_be_alive();
            (self.load.acknowledged(node) >= before + more).then_some(())
        });
    }

    /// Ends a node by SIGTERM.
    pub(super) fn terminate(&mut self, node: usize) {
        let ended = self.running[node].take().unwrap().terminate();
        assert!(ended.status.success(), "{}", ended.stderr);
        self.lines.add(node, &ended.stdout);
    }

    /// Waits until somebody prints another line.
    pub(super) fn wait_for_line(&self) {
        let printed = || -> usize {
            let running = self.running.iter().flatten();
            running.map(|process| process.printed().lines().count()).sum()
        };
        let before = printed();
        eventually("another line", || (printed() > before).then_some(()));
    }

    /// The node that leads, once it and all that run agree on that.
    pub(super) fn leader(&mut self) -> usize {
        eventually("a leader that all agree on", || {
            let running = self.running.iter_mut().enumerate();
            let running = running.filter_map(|(node, process)| Some((node, process.as_mut()?)));
            let views: Option<Vec<_>> =
                running.map(|(node, process)| Some((node, view(process)?))).collect();
            let views = views?;
            let leader = views[0].1.leader?;
            let agree = views.iter().all(|(_, view)| view.leader == Some(leader));
            let leads = views.iter().find(|(_, view)| view.node == Some(leader));
            leads.filter(|_| agree).map(|&(node, _)| node)
        })
    }

    /// Ends the load, and checks that all nodes tell the same, and what was sent.
    pub(super) fn end(mut self) -> Lines {
        let requests = self.load.stop();
        let count = self.running.len();
        let mut running: Vec<_> = self.running.iter_mut().flatten().collect();
        let acknowledged = requests.iter().filter(|request| request.acknowledged);
        let acknowledged = acknowledged.map(|request| request.records).sum();
        let all_run = running.len() == count;
        let ledgers: Vec<_> =
            running.iter_mut().map(|node| settled_ledger(node, acknowledged, all_run)).collect();
        assert!(ledgers.iter().all(|ledger| *ledger == ledgers[0]), "{ledgers:#?}");
        // What a node counted that does not run any more another owner has.
        let windows: Vec<_> = running
            .iter_mut()
            .map(|node| {
                eventually("the windows of all records", || {
                    let windows = get(node, "/v1/windows?limit=36000")?;
                    let windows: Vec<Box<RawValue>> = serde_json::from_str(&windows).unwrap();
                    let windows: Vec<_> = windows.iter().map(|w| w.get().to_owned()).collect();
                    let lines: String = windows.iter().map(|line| format!("{line}\n")).collect();
                    let mut shown = Lines::default();
                    shown.add(0, &lines);
                    (shown.records() == ledgers[0].aggregations[0].flushed).then_some(windows)
                })
            })
            .collect();
        // Agreed on is not yet printed.
        eventually("the lines of all records", || {
            let mut printed = self.lines.clone();
            let whole = |stdout: String| stdout.rfind('\n').map(|end| stdout[..=end].to_owned());
            for stdout in running.iter().filter_map(|node| whole(node.printed())) {
                printed.add(0, &stdout);
            }
            let has_all = printed.records() >= ledgers[0].aggregations[0].flushed;
            (has_all && printed.is_complete()).then_some(())
        });
        // Who leads hands the lead on when it ends, and the next one repeats a line.
        let leader = self.leader();
        for node in (0..count).filter(|&node| node != leader).chain([leader]) {
            if self.running[node].is_some() {
                self.terminate(node);
            }
        }
        for shown in windows {
            let printed = self.lines.newest_first();
            let missing = shown.iter().find(|line| !printed.contains(&line.as_str()));
            assert_eq!(missing, None, "a line is shown and was not printed");
            assert!(shown == printed, "lines were printed and are not shown, or not in order");
        }
        self.lines.check(&requests);
        self.lines
    }
}

/// A node's ledger of the cluster once everything is flushed. What is pending is known while
/// all nodes run; what they have accepted, always.
fn settled_ledger(node: &mut Process, acknowledged: u64, all_run: bool) -> Ledger {
    eventually("a ledger with nothing pending", || {
        let ledger: Ledger = serde_json::from_str(&get(node, "/v1/ledger")?).ok()?;
        let [account] = ledger.aggregations.as_slice() else { return None };
        // What was stamped after the latest cut is in no account yet.
        let is_known = account.accepted >= acknowledged && account.accepted == ledger.accepted;
        if !is_known || account.flushed != account.accepted {
            return None;
        }
        assert!(!all_run || ledger.balanced && account.pending == 0, "{ledger:?}");
        Some(ledger)
    })
}

pub(super) fn get(node: &mut Process, path: &str) -> Option<String> {
    node.must_be_alive();
    let answer = Connection::open(node.admin()?).and_then(|mut connection| connection.get(path));
    answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body)
}

#[test]
fn three_nodes_count_together_and_one_prints_each_window() {
    let mut campaign = Campaign::begin(3, 3);
    for _ in 0..3 {
        campaign.wait_for_line();
    }
    let leader = campaign.leader();
    let lines = campaign.end();
    assert_eq!((lines.repeated(), lines.printers()), (0, [leader].into()));
}

#[test]
fn a_node_that_was_killed_and_comes_back_costs_nothing() {
    let mut campaign = Campaign::begin(3, 3);
    let (leader, killed) = (campaign.leader(), 0);
    let killed = if leader == killed { 1 } else { killed };
    campaign.kill(killed);
    (0..3).filter(|node| *node != killed).for_each(|node| campaign.wait_for_more(node));
    campaign.start(killed);
    campaign.wait_for_more(killed);
    campaign.wait_for_line();
    let lines = campaign.end();
    assert_eq!(lines.repeated(), 0);
}

/// Each record is on two nodes before it is acknowledged.
#[test]
fn a_node_that_never_comes_back_takes_nothing_with_it() {
    for is_leader in [false, true] {
        let mut campaign = Campaign::begin(3, 3);
        let leader = campaign.leader();
        let killed = if is_leader { leader } else { (leader + 1) % 3 };
        campaign.wait_for_more(killed);
        // Between two windows' ends: the results of the last one are handed out.
        campaign.wait_for_line();
        campaign.kill(killed);
        (0..3).filter(|node| *node != killed).for_each(|node| campaign.wait_for_more(node));
        campaign.wait_for_line();
        campaign.end();
    }
}

#[test]
fn another_node_prints_when_the_leader_was_killed_and_no_line_is_missing() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    let killed = campaign.leader();
    campaign.kill(killed);
    assert_ne!(campaign.leader(), killed);
    (0..3).filter(|node| *node != killed).for_each(|node| campaign.wait_for_more(node));
    campaign.start(killed);
    campaign.wait_for_more(killed);
    campaign.wait_for_line();
    let lines = campaign.end();
    assert!(lines.printers().len() > 1, "{:?}", lines.printers());
}

/// Each node dies when it leads and has agreed on its second line, or has just printed it.
#[cfg(feature = "failpoints")]
#[test]
fn a_line_that_was_agreed_on_when_the_leader_died_is_printed_by_the_next() {
    for place in ["print-before-deliver", "print-after-deliver"] {
        let mut campaign = Campaign::begin_with(3, 3, &format!("{place}=1*off->return"));
        let mut left: std::collections::BTreeSet<_> = (0..3).collect();
        for _ in 0..2 {
            let died = campaign.wait_for_death();
            campaign.kill(died);
            campaign.leader();
            campaign.start(died);
            left.remove(&died);
        }
        for node in left {
            campaign.kill(node);
            campaign.start(node);
        }
        (0..3).for_each(|node| campaign.wait_for_more(node));
        campaign.wait_for_line();
        campaign.end();
    }
}

#[test]
fn a_cluster_that_was_killed_under_load_loses_nothing() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    (0..3).for_each(|node| campaign.kill(node));
    (0..3).for_each(|node| campaign.start(node));
    (0..3).for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();
    campaign.end();
}

#[test]
fn a_node_that_joins_under_load_takes_slots_and_counts_stay_exact() {
    let mut campaign = Campaign::begin(3, 4);
    campaign.start(3);
    let joined = campaign.running[3].as_mut().unwrap();
    settled(joined, 4);
    eventually("slots on the new node", || {
        let cluster = view(joined)?;
        let own = cluster.members.iter().find(|member| Some(member.id) == cluster.node)?;
        (own.slots > 0).then_some(())
    });
    campaign.wait_for_more(3);
    campaign.wait_for_line();
    campaign.end();
}
