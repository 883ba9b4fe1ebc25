//! What the nodes have of the writers' files, which any of them says.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use sheaf_proto::files::RebuiltFiles;
use sheaf_proto::names::{FILES_MAX, FILES_PATH};

use super::Lengths;
use super::writers;
use crate::machine::kubectl_bytes;
use crate::scene::Scene;

/// The ids, as some node says them.
pub(super) async fn ids(scene: &Scene) -> Option<BTreeSet<String>> {
    let list: RebuiltFiles = scene.ask(&path()).await.ok()?;
    Some(lengths_in(scene, list)?.into_keys().collect())
}

/// How long the sessions of each id are, if all nodes say the same and have heard of everything.
pub(super) async fn lengths(scene: &Scene) -> Option<Lengths> {
    let mut told = Vec::new();
    for pod in scene.pods().await {
        let list: RebuiltFiles = scene.ask_pod(&pod, &path()).await.ok()?;
        told.push(lengths_in(scene, list)?);
    }
    let last = told.pop()?;
    told.iter().all(|other| *other == last).then_some(last)
}

fn path() -> String {
    format!("{FILES_PATH}?limit={FILES_MAX}")
}

/// How long the sessions of each id are, if the list lacks nothing.
fn lengths_in(scene: &Scene, list: RebuiltFiles) -> Option<Lengths> {
    assert_eq!(list.next, None, "one answer has all files");
    let mut lengths: Lengths = BTreeMap::new();
    for file in list.files.into_iter().filter(|file| writers::wrote(scene, &file.id)) {
        lengths.entry(file.id).or_default().push(file.bytes.try_into().unwrap());
    }
    list.complete.then_some(lengths)
}

/// What is in all sessions of an id, in their order, as the node in this pod says it.
pub(super) async fn content(scene: &Scene, pod: &Pod, id: &str) -> Vec<u8> {
    let (namespace, name) = (format!("--namespace={}", scene.namespace), pod.name_any());
    kubectl_bytes(&["exec", &namespace, &name, "--", "sheaf", "get", id, "--all"]).await
}
