use std::time::Instant;

use serde_json::{Value, json};
use sheaf_proto::names::LEDGER_PATH;
use sheaf_proto::statistics::Ledger;

use crate::ledger;
use crate::load::Load;
use crate::scene::{Scene, aggregator, play};

const SAMPLE: &str = include_str!("../../../config/samples/logs.yaml");

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_is_sent_through_the_service_is_counted_exactly() {
    play("counting", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::begin(scene, &["--records", "50000", "--rate", "10000"]).await;
        let sent = load.end(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn records_of_a_sender_that_nobody_knows_of_are_found_out() {
    play("unknown-sender", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let known = Load::begin(scene, &["--records", "10000"]).await.end(scene).await;
        Load::begin(scene, &["--records", "100", "--seed", "1"]).await.end(scene).await;
        let found = ledger::audit(scene, &[known]).await;
        let what = "what was flushed, and lost: found (10100, 0), expected (10000, 0)";
        assert_eq!(found, Err(what.to_owned()));
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_sample_counts_soon_after_it_is_applied() {
    play("sample", async |scene| {
        let sample: Value = serde_saphyr::from_str(SAMPLE).unwrap();
        // It tries until there is somebody who takes it.
        let load = Load::begin(scene, &["--records", "1000", "--retry-for", "120s"]).await;
        let begun = Instant::now();
        scene.start(&sample).await;
        eprintln!("sample: ready {:.1?} after it was applied", begun.elapsed());
        scene.eventually("record that is counted", async || is_counting(scene).await).await;
        eprintln!("sample: a record is counted {:.1?} after it was applied", begun.elapsed());
        let sent = load.end(scene).await;
        assert_eq!((sent.summary.acknowledged, sent.summary.failed), (1_000, 0));
    });
}

/// Whether a cut has a record.
async fn is_counting(scene: &Scene) -> Option<()> {
    let ledger: Ledger = scene.ask(LEDGER_PATH).await.ok()?;
    ledger.aggregations.iter().any(|account| account.accepted > 0).then_some(())
}
