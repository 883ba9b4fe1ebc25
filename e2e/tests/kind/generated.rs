use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams, ValidationDirective};
use kube::{Api, Resource, ResourceExt as _};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_operator::build::build;
use sheaf_operator::example::any::any_one;
use sheaf_operator::example::nothing;
use sheaf_operator::names::MANAGED_BY;
use sheaf_operator::resource::LogAggregator;
use sheaf_operator::validate::validate;

use crate::scene::{Scene, play};

const AGGREGATORS: usize = 50;

/// Nothing of it is kept: the API server says what it would do.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_api_server_takes_what_is_built_of_any_aggregator_that_it_takes() {
    play("generated", async |scene| {
        let mut random = TestRunner::deterministic();
        for _ in 0..AGGREGATORS {
            let made_up = any_one().new_tree(&mut random).unwrap().current();
            takes_all_of(scene, made_up).await;
        }
    });
}

async fn takes_all_of(scene: &Scene, mut aggregator: LogAggregator) {
    aggregator.metadata.namespace = Some(scene.namespace.clone());
    let valid = validate(&aggregator, nothing()).unwrap();
    aggregator.metadata.uid = None;
    takes(scene, &aggregator).await;
    let objects = build(&valid, valid.replicas);
    takes(scene, &objects.service_account).await;
    takes(scene, &objects.control).await;
    takes(scene, &objects.settings).await;
    takes(scene, &objects.nodes).await;
    takes(scene, &objects.service).await;
    takes(scene, &objects.network_policy).await;
    takes(scene, &objects.disruption_budget).await;
    takes(scene, &objects.stateful_set).await;
    if let Some(autoscaler) = &objects.autoscaler {
        takes(scene, autoscaler).await;
    }
}

/// Has the API server check an object as if it were applied.
async fn takes<K>(scene: &Scene, object: &K)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let parameters = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(MANAGED_BY)
    };
    let api: Api<K> = scene.api();
    let taken = api.patch(&object.name_any(), &parameters, &Patch::Apply(object)).await;
    if let Err(error) = taken {
        let text = serde_json::to_string_pretty(object).unwrap();
        panic!("{} is refused: {error}\n{text}", K::kind(&()));
    }
}
