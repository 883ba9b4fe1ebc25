//! What is done to machines, also from outside of Kubernetes. A machine is a container of Docker
//! here.

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

/// Turns a machine off.
pub(crate) async fn stop(machine: &str) {
    docker(&["stop", machine]).await;
}

/// Turns it on again.
pub(crate) async fn start(machine: &str) {
    docker(&["start", machine]).await;
}

/// What `kubectl` prints, which has to succeed.
pub(crate) async fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments).await
}

/// What `helm` prints, which has to succeed.
pub(crate) async fn helm(arguments: &[&str]) -> String {
    run("helm", arguments).await
}

/// What `docker` prints, which has to succeed.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    run("docker", arguments).await
}

async fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
