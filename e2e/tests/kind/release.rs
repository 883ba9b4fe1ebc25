//! The chart, as it is installed.

use crate::machine::helm;

/// Where it is installed.
pub(crate) const NAMESPACE: &str = "sheaf-system";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sheaf");

/// Sets values, `NAME=VALUE` each, beside those that are set already, and waits until the pods are
/// as they say.
pub(crate) async fn set(values: &[&str]) {
    let namespace = format!("--namespace={NAMESPACE}");
    let arguments = ["upgrade", "sheaf", CHART, &namespace, "--reuse-values", "--wait"];
    let values = values.iter().flat_map(|value| ["--set", value]);
    helm(&arguments.into_iter().chain(values).collect::<Vec<_>>()).await;
}
