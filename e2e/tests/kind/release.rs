//! The chart, as it is installed.

use crate::machine::{helm, succeeds};

/// Where it is installed.
pub(crate) const NAMESPACE: &str = "sheaf-system";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sheaf");

/// Sets values, `NAME=VALUE` each, beside those that are set already, and waits until the pods are
/// as they say.
pub(crate) async fn set(values: &[&str]) {
    helm(&[&upgrade(values)[..], &["--wait"]].concat()).await;
}

/// Takes back what was set last, and waits for that too.
pub(crate) async fn undo() {
    helm(&["rollback", "sheaf", "--namespace", NAMESPACE, "--wait"]).await;
}

/// As [`set`], but nothing is done; otherwise what `helm` says against it.
pub(crate) async fn would_set(values: &[&str]) -> Result<(), String> {
    let arguments = [&upgrade(values)[..], &["--dry-run=server"]].concat();
    succeeds("helm", &arguments).await.map(drop)
}

fn upgrade<'a>(values: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["upgrade", "sheaf", CHART, "--namespace", NAMESPACE, "--reuse-values"];
    arguments.into_iter().chain(values.iter().flat_map(|value| ["--set", value])).collect()
}
