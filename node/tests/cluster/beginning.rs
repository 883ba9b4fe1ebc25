//! An aggregation that is new while the cluster counts.

use sheaf_proto::statistics::{Ledger, WindowCounts};

use super::counting::{Campaign, get};
use crate::process::{Process, eventually};

/// Windows of the new aggregation that are looked at.
const SOME: usize = 4;

/// The windows that a node knows of an aggregation, newest first.
fn windows(node: &mut Process, aggregation: &str) -> Option<Vec<WindowCounts>> {
    let all: Vec<WindowCounts> =
        serde_json::from_str(&get(node, "/v1/windows?limit=36000")?).ok()?;
    Some(all.into_iter().filter(|window| window.aggregation == aggregation).collect())
}

/// Both count every record in windows of the same length, so they have the same windows from
/// the first on that the new one counts.
#[test]
fn an_aggregation_that_is_new_misses_nothing_from_its_first_window_on() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    let restarted = (campaign.leader() + 1) % 3;
    campaign.terminate(restarted);
    campaign.start_counting(restarted, &["--attribute", "other"]);
    campaign.wait_for_more(restarted);
    let node = campaign.running[restarted].as_mut().unwrap();
    eventually("windows of the new aggregation", || {
        (windows(node, "by-other")?.len() >= SOME).then_some(())
    });
    campaign.load.stop();
    let (new, old) = eventually("a ledger with nothing pending", || {
        let ledger: Ledger = serde_json::from_str(&get(node, "/v1/ledger")?).ok()?;
        let is_flushed = ledger.balanced && ledger.aggregations.iter().all(|a| a.pending == 0);
        let mut printed = |name: &str| {
            let printed = windows(node, name)?;
            let records: u64 = printed.iter().map(|window| window.records).sum();
            let account = ledger.aggregations.iter().find(|a| a.aggregation == name)?;
            (records == account.accepted && records == account.flushed).then_some(printed)
        };
        is_flushed.then(|| Some((printed("by-other")?, printed("by-request")?)))?
    });
    let count = |window: &WindowCounts| (window.window, window.complete, window.records);
    let new: Vec<_> = new.iter().map(count).collect();
    let old: Vec<_> = old.iter().take(new.len()).map(count).collect();
    assert_eq!(new, old);
    assert!(new.iter().all(|(_, complete, _)| *complete));
}
