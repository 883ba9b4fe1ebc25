//! What the nodes have of the writers' files. Each node tells of those that it has itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use sheaf_proto::files::RebuiltFile;
use sheaf_proto::names::{ADMIN_PORT, FILES_PATH};

use super::Contents;
use super::writers;
use crate::machine;
use crate::scene::Scene;

/// How long the files of each id are, the shortest first; `None` while a node does not answer.
pub(super) async fn lengths(scene: &Scene) -> Option<BTreeMap<String, Vec<usize>>> {
    let mut lengths: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (_, file) in files(scene).await? {
        lengths.entry(file.id).or_default().push(file.bytes.try_into().unwrap());
    }
    lengths.values_mut().for_each(|files| files.sort_unstable());
    Some(lengths)
}

/// What is in them.
pub(super) async fn contents(scene: &Scene) -> Contents {
    let mut contents = Contents::new();
    for (pod, file) in files(scene).await.expect("all nodes answer") {
        let content = read(&pod, &file).await;
        contents.entry(file.id).or_default().push(content);
    }
    contents
}

/// Each file, and a pod that has as much of it as any.
async fn files(scene: &Scene) -> Option<Vec<(Pod, RebuiltFile)>> {
    let mut found: BTreeMap<(String, u64), (Pod, RebuiltFile)> = BTreeMap::new();
    for pod in scene.pods().await {
        let path = format!("{FILES_PATH}?limit=100000");
        let files: Vec<RebuiltFile> = scene.ask_pod(&pod, &path).await.ok()?;
        for file in files.into_iter().filter(|file| writers::wrote(scene, &file.id)) {
            let name = (file.id.clone(), file.session);
            let longest = found.get(&name).is_none_or(|(_, other)| other.bytes < file.bytes);
            if longest {
                found.insert(name, (pod.clone(), file));
            }
        }
    }
    Some(found.into_values().collect())
}

/// The content, as the pod's machine is told it: the API server would lose what is escaped in the path.
async fn read(pod: &Pod, file: &RebuiltFile) -> Vec<u8> {
    let address = pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap();
    let (id, session) = (file.id.replace('/', "%2F"), file.session);
    let url = format!("http://{address}:{ADMIN_PORT}{FILES_PATH}/{id}/{session}");
    machine::output(machine::machine(pod), &["curl", "--fail", "--silent", "--show-error", &url])
        .await
}
