//! The account at the end of each test under load: sent = acknowledged = counted.

use std::collections::BTreeMap;
use std::fmt::Debug;

use sheaf_proto::names::{LEDGER_PATH, WINDOWS_PATH};
use sheaf_proto::statistics::{Ledger, ValueCount, WindowCounts};

use crate::load::Sent;
use crate::scene::Scene;

/// Checks that everything was acknowledged, and that it is in windows exactly once, value by
/// value. Only these senders may have sent, with other seeds each.
pub(crate) async fn balances(scene: &Scene, sent: &[Sent]) {
    show(scene, sent);
    let found = audit(scene, sent).await;
    assert_eq!(found, Ok(()), "{}", scene.namespace);
}

/// As [`balances`], of one of several aggregations.
pub(crate) async fn balances_of(scene: &Scene, aggregation: &str, sent: &[Sent]) {
    show(scene, sent);
    let found = audit_of(scene, &|name| name == aggregation, sent).await;
    assert_eq!(found, Ok(()), "{}", scene.namespace);
}

fn show(scene: &Scene, sent: &[Sent]) {
    for Sent { summary, .. } in sent {
        eprintln!(
            "{}: {} records, {} retries, longest gap {:.0} ms, latency {}",
            scene.namespace,
            summary.sent,
            summary.retries,
            summary.longest_gap_ms,
            summary.latency_ms
        );
    }
}

/// What is wrong with the account of these senders, if anything is.
pub(crate) async fn audit(scene: &Scene, sent: &[Sent]) -> Result<(), String> {
    audit_of(scene, &|_| true, sent).await
}

async fn audit_of(
    scene: &Scene,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
    sent: &[Sent],
) -> Result<(), String> {
    for Sent { summary, .. } in sent {
        let is_whole = (summary.rejected, summary.failed) == (0, 0);
        equal("what was acknowledged", (summary.acknowledged, is_whole), (summary.sent, true))?;
    }
    let acknowledged: u64 = sent.iter().map(|run| run.summary.acknowledged).sum();
    let ledger = scene
        .eventually("ledger with everything flushed", async || {
            let mut ledger: Ledger = scene.ask(LEDGER_PATH).await.ok()?;
            ledger.aggregations.retain(|account| is_meant(&account.aggregation));
            let mut accounts = ledger.aggregations.iter();
            let is_done = accounts.all(|it| it.pending == 0 && it.flushed >= acknowledged);
            (is_done && ledger.balanced).then_some(ledger)
        })
        .await;
    for account in &ledger.aggregations {
        equal("what was flushed, and lost", (account.flushed, account.lost), (acknowledged, 0))?;
    }
    // The last window is printed a moment later, and whoever is asked hears of it later still.
    let windows = scene
        .eventually("windows with everything", async || {
            let mut windows: Vec<WindowCounts> = scene.ask(WINDOWS_PATH).await.ok()?;
            windows.retain(|window| is_meant(&window.aggregation));
            (records(&windows) >= acknowledged).then_some(windows)
        })
        .await;
    compare(&windows, sent, acknowledged)
}

fn compare(windows: &[WindowCounts], sent: &[Sent], acknowledged: u64) -> Result<(), String> {
    let is_whole = |window: &WindowCounts| window.complete && window.other.values == 0;
    equal("whether all windows are whole", windows.iter().all(is_whole), true)?;
    equal("records in windows", records(windows), acknowledged)?;
    let distinct: u64 = windows.iter().map(|window| window.distinct).sum();
    equal("distinct records", distinct, sent.iter().map(|run| run.expected.distinct).sum())?;
    let counted = windows.iter().flat_map(|window| &window.counts);
    let expected = sent.iter().flat_map(|run| &run.expected.counts);
    equal("counts by value", by_value(counted), by_value(expected))
}

fn records(windows: &[WindowCounts]) -> u64 {
    windows.iter().map(|window| window.records).sum()
}

fn equal<T: Debug + PartialEq>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

fn by_value<'a>(counts: impl Iterator<Item = &'a ValueCount>) -> BTreeMap<String, u64> {
    counts.fold(BTreeMap::new(), |mut sums, count| {
        *sums.entry(count.value.to_string()).or_default() += count.count;
        sums
    })
}
