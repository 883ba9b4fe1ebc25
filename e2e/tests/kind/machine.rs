//! What is done to a machine from outside of Kubernetes. A machine is a container of Docker here.

use k8s_openapi::api::core::v1::Pod;
use tokio::process::Command;

/// Kills the node of a pod with SIGKILL, which nothing within its container could do: there it is
/// the first process.
const KILL: &str = r#"for process in $(pgrep -x sheaf-node); do
  if tr - _ </proc/$process/cgroup | grep -q "$1"; then kill -9 "$process" && exit 0; fi
done
exit 1"#;

/// Kills the node of a pod, on its machine.
pub(crate) async fn kill(pod: &Pod) {
    let uid = pod.metadata.uid.as_ref().unwrap().replace('-', "_");
    let machine = pod.spec.as_ref().unwrap().node_name.as_ref().unwrap();
    docker(&["exec", machine, "sh", "-c", KILL, "kill", &uid]).await;
}

async fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().await.unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {output:?}");
}
