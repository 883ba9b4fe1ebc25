//! The account at the end of each test under load: sent = acknowledged = counted.

use std::collections::BTreeMap;

use sheaf_proto::names::{LEDGER_PATH, WINDOWS_PATH};
use sheaf_proto::statistics::{Ledger, ValueCount, WindowCounts};

use crate::load::Sent;
use crate::scene::Scene;

/// Checks that everything was acknowledged, and that it is in windows exactly once, value by
/// value. Only these senders may have sent, with other seeds each.
pub(crate) async fn balances(scene: &Scene, sent: &[Sent]) {
    for run in sent {
        let summary = &run.summary;
        let is_whole = (summary.rejected, summary.failed) == (0, 0);
        assert!(is_whole && summary.acknowledged == summary.sent, "{summary:?}");
        eprintln!("{}: {} records, {}", scene.namespace, summary.sent, summary.latency_ms);
    }
    let acknowledged: u64 = sent.iter().map(|run| run.summary.acknowledged).sum();
    let ledger = scene
        .eventually("ledger with everything in printed windows", async || {
            let ledger: Ledger = scene.ask(LEDGER_PATH).await.ok()?;
            let mut accounts = ledger.aggregations.iter();
            let is_done = accounts.all(|it| it.pending == 0 && it.flushed >= acknowledged);
            (is_done && ledger.balanced).then_some(ledger)
        })
        .await;
    for account in &ledger.aggregations {
        assert_eq!((account.flushed, account.lost), (acknowledged, 0), "{ledger:?}");
    }
    let windows: Vec<WindowCounts> = scene.ask(WINDOWS_PATH).await.unwrap();
    compare(&windows, sent, acknowledged);
}

fn compare(windows: &[WindowCounts], sent: &[Sent], acknowledged: u64) {
    assert!(windows.iter().all(|window| window.complete && window.other.values == 0));
    let records: u64 = windows.iter().map(|window| window.records).sum();
    let distinct: u64 = windows.iter().map(|window| window.distinct).sum();
    let expected: u64 = sent.iter().map(|run| run.expected.distinct).sum();
    assert_eq!((records, distinct), (acknowledged, expected));
    let counted = windows.iter().flat_map(|window| &window.counts);
    let expected = sent.iter().flat_map(|run| &run.expected.counts);
    assert_eq!(by_value(counted), by_value(expected));
}

fn by_value<'a>(counts: impl Iterator<Item = &'a ValueCount>) -> BTreeMap<String, u64> {
    counts.fold(BTreeMap::new(), |mut sums, count| {
        *sums.entry(count.value.to_string()).or_default() += count.count;
        sums
    })
}
