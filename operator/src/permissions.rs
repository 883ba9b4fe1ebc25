//! What the operator is permitted: the rules of the chart's roles, which helm puts there as they
//! are in their files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::scripted::Asked;

/// A group, a resource of it, and a verb.
pub(crate) type Right = (String, String, String);

/// The rights in each namespace that is looked after.
pub(crate) fn namespaced() -> BTreeSet<Right> {
    file("aggregators.yaml")
}

/// All rights to look after aggregators: without those beyond namespaces it is not noticed that a
/// machine is gone, and nodes have no zones.
pub(crate) fn everywhere() -> BTreeSet<Right> {
    namespaced().into_iter().chain(file("machines.yaml")).collect()
}

/// The rights in the operator's own namespace.
pub(crate) fn own() -> BTreeSet<Right> {
    file("leader.yaml")
}

/// The rights that serving `custom.metrics.k8s.io` takes besides: those that are given with it, and
/// those of a role that every cluster has.
pub(crate) fn custom_metrics() -> BTreeSet<Right> {
    let front_proxy = right("", "configmaps", "get");
    let files = file("certificate.yaml").into_iter().chain(file("custom-metrics.yaml"));
    files.chain([front_proxy]).collect()
}

fn file(name: &str) -> BTreeSet<Right> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sheaf/rules");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let rules: Vec<PolicyRule> = serde_saphyr::from_str(&text).unwrap();
    rules.iter().flat_map(rights).collect()
}

fn rights(rule: &PolicyRule) -> Vec<Right> {
    let of = |group: &String| {
        let resources = rule.resources.iter().flatten();
        resources.map(|resource| (group.clone(), resource.clone())).collect::<Vec<_>>()
    };
    let resources = rule.api_groups.iter().flatten().flat_map(of);
    let with_verbs = |(group, resource): (String, String)| {
        let verbs = rule.verbs.iter();
        verbs.map(move |verb| right(&group, &resource, verb)).collect::<Vec<_>>()
    };
    resources.flat_map(with_verbs).collect()
}

pub(crate) fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

/// The rights that requests take.
pub(crate) fn needed<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> BTreeSet<Right> {
    asked.into_iter().flat_map(of).collect()
}

/// What has to be permitted for a request.
fn of(asked: &Asked) -> Vec<Right> {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => panic!("{} is no object", asked.path),
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let resource = match rest {
        // Which kinds there are everybody may ask.
        [] => return Vec::new(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        _ => panic!("{} is no object", asked.path),
    };
    let verbs: &[&str] = match asked.method.as_str() {
        "GET" if rest.len() > 1 => &["get"],
        "GET" if asked.query.contains("watch=true") => &["watch"],
        "GET" => &["list"],
        "POST" => &["create"],
        "PUT" => &["update"],
        // What is applied and is not there is made.
        "PATCH" if asked.made => &["patch", "create"],
        "PATCH" => &["patch"],
        "DELETE" => &["delete"],
        method => panic!("{method} is nothing that is asked"),
    };
    verbs.iter().map(|verb| right(group, &resource, verb)).collect()
}
