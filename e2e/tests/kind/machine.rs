//! What is done to machines, also from outside of Kubernetes. A machine is a container of Docker
//! here.

use k8s_openapi::api::core::v1::Pod;
use tokio::process::Command;

/// Finds the process of a pod, which is the first one in its container.
const FIND: &str = r#"for process in $(pgrep -x "$1"); do
  if tr - _ </proc/$process/cgroup | grep -q "$2"; then echo "$process"; exit; fi
done
exit 1"#;

/// Kills a program in a pod with SIGKILL, from its machine: within its container nothing could.
pub(crate) async fn kill(pod: &Pod, program: &str) {
    let process = process(pod, program).await;
    docker(&["exec", machine(pod), "kill", "-9", &process]).await;
}

/// How much memory a program in a pod has, in KiB.
pub(crate) async fn memory(pod: &Pod, program: &str) -> u64 {
    let status = format!("/proc/{}/status", process(pod, program).await);
    let told = docker(&["exec", machine(pod), "grep", "VmRSS", &status]).await;
    told.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn process(pod: &Pod, program: &str) -> String {
    let uid = pod.metadata.uid.as_ref().unwrap().replace('-', "_");
    let found = docker(&["exec", machine(pod), "sh", "-c", FIND, "find", program, &uid]).await;
    found.trim().to_owned()
}

/// What a program prints on a machine.
pub(crate) async fn output(machine: &str, command: &[&str]) -> Vec<u8> {
    bytes("docker", &[&["exec", machine], command].concat()).await
}

/// The machine of a pod.
pub(crate) fn machine(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().node_name.as_ref().unwrap()
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

/// What `kubectl` prints, text or not.
pub(crate) async fn kubectl_bytes(arguments: &[&str]) -> Vec<u8> {
    bytes("kubectl", arguments).await
}

/// What `helm` prints, which has to succeed.
pub(crate) async fn helm(arguments: &[&str]) -> String {
    run("helm", arguments).await
}

async fn docker(arguments: &[&str]) -> String {
    run("docker", arguments).await
}

async fn run(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(bytes(program, arguments).await).unwrap()
}

async fn bytes(program: &str, arguments: &[&str]) -> Vec<u8> {
    succeeds(program, arguments).await.unwrap_or_else(|error| panic!("{error}"))
}

/// What a program prints when it succeeds, or else what it complains of.
pub(crate) async fn succeeds(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}: {complaint}", output.status))
}
