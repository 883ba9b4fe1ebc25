//! What is decided, done: each can be done again without harm, and concerns the very object that
//! was seen, not another one of its name.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{debug, info};

use super::dereferencing::namespaced;
use super::events::{self, Happened};
use super::{Decided, ReconcileError};
use crate::context::Context;
use crate::decide::conditions::Untaken;
use crate::decide::fleet::Seen;
use crate::decide::plan::{self, Act};
use crate::names::{MANAGED_BY, MEMBER_ANNOTATION, ZONE_ANNOTATION};
use crate::nodes::{Change, NodeError};
use crate::resource::LogAggregator;

/// What the cluster or the API server did not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) undrained: Option<Untaken>,
    pub(super) unforgotten: Option<Untaken>,
    pub(super) refused_growth: Option<String>,
}

/// Does what was decided.
///
/// # Errors
/// When the API server does not do something. What was refused is no error, nor are nodes that do
/// not answer: what is to be done beside that may be what brings them back.
pub(super) async fn act(
    aggregator: &LogAggregator,
    context: &Context,
    decided: &Decided,
    seen: &Seen,
) -> Result<Outcome, ReconcileError> {
    let hand = Hand { aggregator, context, decided, seen };
    let mut outcome = Outcome::default();
    for act in &decided.plan.acts {
        hand.act(act, &mut outcome).await?;
    }
    Ok(outcome)
}

impl Outcome {
    /// Whether nodes were asked and did not answer.
    pub(super) fn met_silence(&self) -> bool {
        let asked = [&self.undrained, &self.unforgotten];
        asked.into_iter().flatten().any(|untaken| matches!(untaken, Untaken::Unanswered(_)))
    }
}

struct Hand<'a> {
    aggregator: &'a LogAggregator,
    context: &'a Context,
    decided: &'a Decided,
    seen: &'a Seen,
}

impl Hand<'_> {
    async fn act(&self, act: &Act, outcome: &mut Outcome) -> Result<(), ReconcileError> {
        match act {
            Act::TellZone { pod, zone } => {
                let change = annotation(ZONE_ANNOTATION, zone);
                self.patch::<Pod>(&pod.name, &pod.uid, change).await
            }
            Act::Mark { claim, member } => {
                let change = annotation(MEMBER_ANNOTATION, &member.to_string());
                self.patch::<PersistentVolumeClaim>(&claim.name, &claim.uid, change).await
            }
            Act::Drain { member } => {
                outcome.undrained = self.change(Change::Drain(*member)).await;
                Ok(())
            }
            Act::Forget { member } => {
                outcome.unforgotten = self.change(Change::Forget(*member)).await;
                Ok(())
            }
            Act::DeleteClaim(claim) => {
                self.tell(Happened::ClaimDeleted(&claim.name)).await;
                self.delete::<PersistentVolumeClaim>(&claim.name, &claim.uid).await
            }
            Act::Displace(pod) => {
                self.tell(Happened::Displaced(&pod.name)).await;
                self.delete::<Pod>(&pod.name, &pod.uid).await
            }
            Act::Renew(pod) => {
                self.tell(Happened::Renewed(&pod.name)).await;
                self.delete::<Pod>(&pod.name, &pod.uid).await
            }
            Act::Resize(claim) => {
                let refused = self.resize(&claim.name, &claim.uid).await?;
                outcome.refused_growth = outcome.refused_growth.take().or(refused);
                Ok(())
            }
            Act::ReplaceStatefulSet => self.replace_stateful_set().await,
        }
    }

    /// Has the cluster change; returns why it does not.
    async fn change(&self, change: Change) -> Option<Untaken> {
        let (Change::Drain(member) | Change::Forget(member)) = change;
        let Some(address) = self.address_but_for(member) else {
            return Some(Untaken::Unanswered("no other node answers".to_owned()));
        };
        let token = &self.decided.valid.token;
        match self.context.nodes.change(address, change, token).await {
            Ok(()) => {
                info!(aggregator = self.aggregator.name_any(), ?change, "the cluster changes");
                self.tell(Happened::Changed(change)).await;
                None
            }
            Err(NodeError::Refused(reason) | NodeError::Unknown(reason)) => {
                Some(Untaken::Refused(reason))
            }
            Err(error @ NodeError::Unanswered { .. }) => {
                debug!(%error, ?change, "nobody says whether the cluster changes");
                Some(Untaken::Unanswered(error.to_string()))
            }
        }
    }

    /// The leader's pod, or else any other one than the member's own: it decides nothing about
    /// itself any more.
    fn address_but_for(&self, member: u64) -> Option<std::net::IpAddr> {
        let leader = plan::leader(&self.seen.answers);
        let is_able = |ordinal: &u32| {
            let told = self.seen.answers.by_ordinal.get(ordinal);
            told.is_some_and(|told| told.formed && told.node != Some(member))
        };
        let mut able: Vec<_> = self.seen.pods.iter().filter(|pod| is_able(&pod.ordinal)).collect();
        able.sort_by_key(|pod| (Some(pod.ordinal) != leader, pod.ordinal));
        able.first().and_then(|pod| pod.address)
    }

    async fn resize(&self, name: &str, uid: &str) -> Result<Option<String>, ReconcileError> {
        let size = &self.decided.valid.volume.size;
        let change = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        match self.patch::<PersistentVolumeClaim>(name, uid, change).await {
            Err(ReconcileError::Api { source, .. }) if is_refusal(&source) => {
                Ok(Some(source.to_string()))
            }
            done => done.map(|()| None),
        }
    }

    /// The pods stay, and the StatefulSet that is built in the next round takes them over.
    async fn replace_stateful_set(&self) -> Result<(), ReconcileError> {
        let Some(metadata) = &self.seen.stateful_set else { return Ok(()) };
        if metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        self.tell(Happened::StatefulSetReplaced).await;
        let preconditions = Preconditions {
            uid: metadata.uid.clone(),
            // It may have been given replicas that this round does not know of.
            resource_version: None,
        };
        let parameters = DeleteParams::orphan().preconditions(preconditions);
        let name = self.aggregator.name_any();
        self.delete_by::<StatefulSet>(&name, &parameters).await
    }

    async fn patch<K>(&self, name: &str, uid: &str, mut change: Value) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        change["metadata"]["uid"] = json!(uid);
        let api: Api<K> = namespaced(self.aggregator, self.context);
        let manager = Some(MANAGED_BY.to_owned());
        let parameters = PatchParams { field_manager: manager, ..PatchParams::default() };
        match api.patch(name, &parameters, &Patch::Merge(change)).await {
            // Gone meanwhile, or another one of that name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            patched => {
                let what = format!("change {} {name}", K::kind(&()));
                patched.map(drop).map_err(ReconcileError::api(what))
            }
        }
    }

    async fn delete<K>(&self, name: &str, uid: &str) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        self.delete_by::<K>(name, &parameters).await
    }

    async fn delete_by<K>(&self, name: &str, how: &DeleteParams) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = namespaced(self.aggregator, self.context);
        match api.delete(name, how).await {
            // Gone meanwhile, or another one of that name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            deleted => {
                let what = format!("delete {} {name}", K::kind(&()));
                deleted.map(drop).map_err(ReconcileError::api(what))
            }
        }
    }

    async fn tell(&self, happened: Happened<'_>) {
        events::tell(self.aggregator, self.context, happened.event()).await;
    }
}

fn annotation(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

/// Whether the API server will never do it as things are.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden() || status.is_invalid())
}
