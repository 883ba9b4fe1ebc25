//! The logs of containers, on their machines and as they are rebuilt.

mod rebuilt; // what the nodes have
mod writers; // pods that write numbered lines

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::json;
use sheaf_proto::names::LEDGER_PATH;
use sheaf_proto::statistics::Ledger;

use crate::agents;
use crate::machine;
use crate::scene::{Scene, aggregator, play};
use writers::Writers;

/// What is in the files of each id, in the order in which they were written.
type Contents = BTreeMap<String, Vec<Vec<u8>>>;
/// How long they are.
type Lengths = BTreeMap<String, Vec<usize>>;

#[test]
#[ignore = "needs a cluster: make e2e"]
fn logs_of_containers_are_rebuilt_while_nodes_come_go_and_are_killed() {
    play("files", async |scene| {
        let files = json!({"checkpointSeconds": 2});
        let files = json!([{"name": "files", "type": "LogFiles", "logFiles": files}]);
        scene.start(&aggregator(json!({"aggregations": files}))).await;
        agents::start(scene).await;
        let writers = Writers::begin(scene).await;
        scene
            .eventually("file of each writer", async || {
                (rebuilt::ids(scene).await? == writers.ids()).then_some(())
            })
            .await;
        scene.scale(5).await;
        kill_a_node(scene).await;
        scene.settled(5).await;
        scene.scale(2).await;
        kill_an_agent(scene).await;
        scene.settled(2).await;
        let sources = writers.end(scene).await;
        are_rebuilt(scene, &sources).await;
        agents::stop(scene).await;
    });
}

async fn kill_a_node(scene: &Scene) {
    let pods = scene.pods().await;
    let victim = pods.first().expect("a node");
    eprintln!("{}: {} is killed", scene.namespace, victim.name_any());
    machine::kill(victim, "sheaf-node").await;
}

async fn kill_an_agent(scene: &Scene) {
    let pods = agents::pods(scene).await;
    machine::kill(pods.first().expect("an agent"), agents::PROGRAM).await;
    agents::ready(scene).await;
}

/// Waits until every node says that all that was written can be read, and compares it byte for
/// byte, as one node after the other says it.
async fn are_rebuilt(scene: &Scene, sources: &Contents) {
    let wanted: Lengths = sources.iter().map(|(id, files)| (id.clone(), lengths(files))).collect();
    scene
        .eventually("end of all files", async || {
            (rebuilt::lengths(scene).await? == wanted).then_some(())
        })
        .await;
    let pods = scene.pods().await;
    for ((id, files), pod) in sources.iter().zip(pods.iter().cycle()) {
        // Not printed: they have megabytes.
        assert!(rebuilt::content(scene, pod, id).await == files.concat(), "{id} has other bytes");
    }
    let bytes: usize = wanted.values().flatten().sum();
    let count: usize = wanted.values().map(Vec::len).sum();
    eprintln!("{}: {count} files, {bytes} bytes are as their sources", scene.namespace);
    let ledger: Ledger = scene.ask(LEDGER_PATH).await.unwrap();
    let lost: Vec<u64> = ledger.aggregations.iter().map(|account| account.lost).collect();
    assert_eq!((ledger.balanced, lost), (true, vec![0]));
}

fn lengths(files: &[Vec<u8>]) -> Vec<usize> {
    files.iter().map(Vec::len).collect()
}
