//! Volumes, and whether their machine is gone for good.
//!
//! A machine is gone when its Node is deleted, or a person has tainted it `out-of-service`; one
//! that is merely silent may come back. Only a volume that exists on one machine goes with it.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::decide::fleet::{self, Claim, Pod};
use crate::names::{DATA_VOLUME, INSTANCE_LABEL, MEMBER_ANNOTATION};
use crate::reconcile::ReconcileError;
use crate::resource::LogAggregator;
use crate::validate::quantity;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The ends of labels that tell one machine from all others.
const MACHINE_LABELS: [&str; 3] = ["/hostname", "/node", "/nodename"];

/// The claims of an aggregator.
///
/// # Errors
/// When the API server does not tell of a volume.
pub(super) async fn claims(
    aggregator: &LogAggregator,
    context: &Context,
    pods: &[Pod],
) -> Result<Vec<Claim>, ReconcileError> {
    let (name, namespace) = (aggregator.name_any(), aggregator.namespace());
    let prefix = format!("{DATA_VOLUME}-{name}");
    let is_own = |claim: &PersistentVolumeClaim| {
        claim.namespace() == namespace && claim.labels().get(INSTANCE_LABEL) == Some(&name)
    };
    let mut claims = Vec::new();
    for object in context.stores.claims.state_filter(is_own) {
        let Some(mut claim) = seen(&prefix, &object) else { continue };
        let pod = pods.iter().find(|pod| pod.ordinal == claim.ordinal);
        // Only a pod that no machine can take has lost its volume, perhaps.
        if !claim.lost && pod.is_some_and(|pod| pod.unschedulable) {
            claim.lost = is_lost(context, &object).await?;
        }
        claims.push(claim);
    }
    Ok(claims)
}

fn seen(prefix: &str, claim: &PersistentVolumeClaim) -> Option<Claim> {
    let name = claim.name_any();
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let size = requests.and_then(|requests| quantity::bytes(&requests.get("storage")?.0));
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    Some(Claim {
        ordinal: fleet::ordinal(prefix, &name)?,
        uid: claim.uid()?,
        member: claim.annotations().get(MEMBER_ANNOTATION).and_then(|id| id.parse().ok()),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        lost: phase == Some("Lost"),
        size: size?,
        name,
    })
}

async fn is_lost(context: &Context, claim: &PersistentVolumeClaim) -> Result<bool, ReconcileError> {
    let Some(machines) = &context.stores.machines else { return Ok(false) };
    let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) else {
        return Ok(false);
    };
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = volumes.get_opt(volume).await;
    let volume =
        volume.map_err(ReconcileError::api(format!("read the volume of {}", claim.name_any())))?;
    Ok(volume.is_some_and(|volume| is_stranded(&volume, machines)))
}

/// Whether a volume can be reached from one machine only, and that one is gone.
fn is_stranded(volume: &PersistentVolume, machines: &Store<Node>) -> bool {
    let affinity =
        volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let Some(terms) = affinity.map(|required| &required.node_selector_terms) else { return false };
    let is_of_a_machine = terms.iter().all(names_a_machine);
    let is_there = |machine: &Node| {
        !is_out_of_service(machine) && terms.iter().any(|term| fits(term, machine))
    };
    is_of_a_machine && machines.find(is_there).is_none()
}

fn is_out_of_service(machine: &Node) -> bool {
    let taints = machine.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn names_a_machine(term: &NodeSelectorTerm) -> bool {
    let has_label = |rule: &NodeSelectorRequirement| {
        rule.operator == "In" && MACHINE_LABELS.iter().any(|end| rule.key.ends_with(end))
    };
    let rules = term.match_expressions.iter().flatten();
    rules.clone().any(has_label) || term.match_fields.iter().flatten().next().is_some()
}

fn fits(term: &NodeSelectorTerm, machine: &Node) -> bool {
    let label = |key: &str| machine.labels().get(key).cloned();
    let name = |key: &str| (key == "metadata.name").then(|| machine.name_any());
    term.match_expressions.iter().flatten().all(|rule| holds(rule, label(&rule.key)))
        && term.match_fields.iter().flatten().all(|rule| holds(rule, name(&rule.key)))
}

/// Whether a machine with this value of a label satisfies a rule. Rules that compare numbers name
/// no machine; they are taken to hold, so that nothing is lost by them.
fn holds(rule: &NodeSelectorRequirement, value: Option<String>) -> bool {
    let is_listed = |value: &String| rule.values.iter().flatten().any(|listed| listed == value);
    match rule.operator.as_str() {
        "In" => value.as_ref().is_some_and(is_listed),
        "NotIn" => !value.as_ref().is_some_and(is_listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::{Value, json};

    use super::*;

    fn machines(taints: Value) -> Store<Node> {
        let (store, mut writer) = reflector::store();
        for (name, taints) in [("one", taints), ("two", json!([]))] {
            let labels = json!({"kubernetes.io/hostname": name, "zone": "a"});
            let node =
                json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
            writer.apply_watcher_event(&Event::Apply(serde_json::from_value(node).unwrap()));
        }
        store
    }

    fn volume(key: &str, value: &str) -> PersistentVolume {
        let rule = json!({"key": key, "operator": "In", "values": [value]});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [rule]}]});
        let spec = json!({"nodeAffinity": {"required": terms}});
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_volume_is_lost_with_its_machine() {
        let machines = machines(json!([]));
        assert!(is_stranded(&volume("kubernetes.io/hostname", "gone"), &machines));
        assert!(!is_stranded(&volume("kubernetes.io/hostname", "one"), &machines));
    }

    #[test]
    fn a_machine_that_a_person_has_taken_out_of_service_is_gone() {
        let taint = |key| json!([{"key": key, "effect": "NoExecute"}]);
        let one = volume("kubernetes.io/hostname", "one");
        assert!(is_stranded(&one, &machines(taint(OUT_OF_SERVICE))));
        let unreachable = "node.kubernetes.io/unreachable";
        assert!(!is_stranded(&one, &machines(taint(unreachable))), "it may come back");
    }

    #[test]
    fn a_volume_of_a_zone_outlives_its_machines() {
        assert!(!is_stranded(&volume("topology.kubernetes.io/zone", "b"), &machines(json!([]))));
        assert!(!is_stranded(&PersistentVolume::default(), &machines(json!([]))));
    }

    #[test]
    fn rules_are_read_as_the_scheduler_reads_them() {
        let rule = |operator: &str| NodeSelectorRequirement {
            key: "k".into(),
            operator: operator.into(),
            values: Some(vec!["a".into()]),
        };
        let (a, b) = (|| Some("a".to_owned()), || Some("b".to_owned()));
        assert!(holds(&rule("In"), a()) && !holds(&rule("In"), b()) && !holds(&rule("In"), None));
        assert!(!holds(&rule("NotIn"), a()) && holds(&rule("NotIn"), b()));
        assert!(holds(&rule("Exists"), b()) && !holds(&rule("Exists"), None));
        assert!(!holds(&rule("DoesNotExist"), b()) && holds(&rule("DoesNotExist"), None));
    }
}
