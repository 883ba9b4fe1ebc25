//! What the cluster says when a test fails, as a person would ask it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// What is asked for in the namespace of the test, each with the name of a file.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("aggregators.yaml", &["get", "logaggregators", "--output=yaml"]),
    (
        "objects.txt",
        &["get", "statefulsets,pods,persistentvolumeclaims,jobs,services", "--output=wide"],
    ),
    ("pods.txt", &["describe", "pods"]),
    ("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]),
    (
        "nodes.log",
        &["logs", "--selector=app.kubernetes.io/name=sheaf-node", "--prefix", "--tail=500"],
    ),
    (
        "before.log",
        &["logs", "--selector=app.kubernetes.io/name=sheaf-node", "--prefix", "--previous"],
    ),
];
const AGENTS: [&str; 5] = [
    "logs",
    "--namespace=sheaf-agent",
    "--selector=app.kubernetes.io/component=agent",
    "--prefix",
    "--tail=-1",
];
const OPERATOR: [&str; 5] = [
    "logs",
    "--namespace=sheaf-system",
    "--selector=app.kubernetes.io/component=operator",
    "--prefix",
    "--tail=-1",
];

/// Writes it into a folder of the namespace's name in `E2E_EVIDENCE`, or prints it if there is
/// no such variable.
pub(crate) async fn collect(namespace: &str) {
    let folder =
        std::env::var("E2E_EVIDENCE").ok().map(|folder| Path::new(&folder).join(namespace));
    for (file, question) in QUESTIONS {
        let selected = format!("--namespace={namespace}");
        let answer = kubectl(&[question, &[&selected]].concat()).await;
        keep(folder.as_deref(), file, &answer);
    }
    keep(folder.as_deref(), "operator.log", &kubectl(&OPERATOR).await);
    keep(folder.as_deref(), "agents.log", &kubectl(&AGENTS).await);
    if let Some(folder) = folder {
        eprintln!("{namespace}: what the cluster said is in {}", folder.display());
    }
}

async fn kubectl(arguments: &[&str]) -> String {
    let asked = Command::new("kubectl").args(arguments).stdin(Stdio::null()).output().await;
    match asked {
        Ok(output) => {
            let [said, complained] =
                [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
            format!("{said}{complained}")
        }
        Err(error) => format!("kubectl: {error}\n"),
    }
}

/// A test that fails has to fail for its own reason, so nothing here does.
fn keep(folder: Option<&Path>, file: &str, text: &str) {
    let Some(folder) = folder else { return eprintln!("--- {file}\n{text}") };
    let written =
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(file), text));
    if let Err(error) = written {
        eprintln!("{}: {error}", folder.join(file).display());
    }
}
