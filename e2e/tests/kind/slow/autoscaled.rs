use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::ledger;
use crate::load::Load;
use crate::machine::kubectl;
use crate::scene::{Scene, aggregator, play};

/// More requests under way than the queues of three nodes hold. Each waits for its turn.
const CROWD: [&str; 14] = [
    "--rate",
    "20000",
    "--batch",
    "500",
    "--in-flight",
    "96",
    "--connections",
    "6",
    "--duration",
    "30m",
    "--retry-for",
    "15m",
    "--timeout",
    "5m",
];
/// Has the node of a pod work off requests slowly, or as fast as it can again.
const THROTTLE: &str = r#"exec 3<>/dev/tcp/127.0.0.1/9466
printf '%s HTTP/1.1\r\nHost: node\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n' \
  "$1" "$(</etc/sheaf/control/token)" >&3
read -r _ status _ <&3
[[ $status == 2* ]]"#;

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_backlog_adds_a_node_and_its_end_takes_one_away_and_nothing_is_lost() {
    play("autoscaled", async |scene| {
        scene.start(&aggregator(scaled())).await;
        let load = Load::begin(scene, &CROWD).await;
        throttle(scene, "POST /v1/throttle?bytes_per_second=50000").await;
        scene.pods_become("fourth pod", |count| count == 4).await;
        scene.settled(4).await;
        throttle(scene, "DELETE /v1/throttle").await;
        let sent = load.stop(scene).await;
        scene.pods_become("pod fewer", |count| count == 3).await;
        scene.settled(3).await;
        ledger::balances(scene, &[sent]).await;
    });
}

/// Three nodes or four, with small queues.
fn scaled() -> Value {
    let env = json!([
        {"name": "SHEAF_QUEUE_SIZE", "value": "3MiB"},
        {"name": "SHEAF_MAX_REQUEST_SIZE", "value": "1MiB"},
    ]);
    json!({
        "autoscaling": {
            "minReplicas": 3, "maxReplicas": 4, "targetQueuePercent": 50,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
        "podTemplate": {"spec": {"containers": [{"name": "node", "env": env}]}},
    })
}

async fn throttle(scene: &Scene, request: &str) {
    let namespace = format!("--namespace={}", scene.namespace);
    for pod in scene.pods().await {
        let name = pod.name_any();
        let command = ["--", "bash", "-euc", THROTTLE, "throttle", request];
        kubectl(&[&["exec", &namespace, &name][..], &command].concat()).await;
    }
}
