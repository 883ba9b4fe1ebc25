//! Which objects there are that were built for aggregators: no more of each than tells whose it is
//! and whether it has changed, so that thousands fit in little memory.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use serde_json::json;
use siphasher::sip::SipHasher13;
use tokio::sync::watch;

use crate::names::INSTANCE_LABEL;
use crate::resource::LogAggregator;

/// What an object is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: String,
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Tells it from the object of the same name before it.
    pub uid: String,
    /// Changes whenever it does, but for its status where that can be told.
    pub version: String,
    /// The uid of the object that controls it, if one does.
    pub owner: Option<String>,
    /// The aggregator that it says it is for.
    pub instance: Option<String>,
}

impl Existing {
    /// What is to be known of an object of that kind.
    pub fn of(kind: &str, metadata: &ObjectMeta) -> Existing {
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        let labels = metadata.labels.as_ref();
        Existing {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: version(kind, metadata),
            owner: owner.map(|owner| owner.uid.clone()),
            instance: labels.and_then(|labels| labels.get(INSTANCE_LABEL)).cloned(),
        }
    }
}

/// What changes with an object, but not with its status, which a controller may write every few
/// seconds: a generation, or else who has written what is no status and when. Kinds that have
/// neither, or no status, have their resource version.
fn version(kind: &str, metadata: &ObjectMeta) -> String {
    let is_autoscaler = kind == HorizontalPodAutoscaler::kind(&());
    let written = metadata.managed_fields.iter().flatten();
    let written = written.filter(|it| is_autoscaler && it.subresource.as_deref() != Some("status"));
    let written: Vec<_> = written.map(|it| (&it.manager, &it.time, &it.fields_v1)).collect();
    if metadata.generation.is_none() && written.is_empty() {
        return metadata.resource_version.clone().unwrap_or_default();
    }
    let ObjectMeta { generation, labels, annotations, owner_references, .. } = metadata;
    let mut hasher = SipHasher13::new();
    let known = json!([generation, written, labels, annotations, owner_references]);
    hasher.write(known.to_string().as_bytes());
    format!("{:016x}", hasher.finish())
}

/// The objects that were seen.
pub struct Owned {
    seen: Mutex<Seen>,
    /// How many kinds were not listed yet.
    pending: watch::Sender<usize>,
}

#[derive(Default)]
struct Seen {
    objects: HashMap<Key, Existing>,
    /// Of a kind that is being listed: what was.
    listing: HashMap<String, HashSet<Key>>,
    listed: HashSet<String>,
}

impl Owned {
    /// Nothing was seen, and so many kinds are watched.
    pub fn new(kinds: usize) -> Owned {
        Owned { seen: Mutex::default(), pending: watch::Sender::new(kinds) }
    }

    /// Waits until all kinds were listed.
    pub async fn listed(&self) {
        // The sender is `self`, so it is not gone.
        let _ = self.pending.subscribe().wait_for(|pending| *pending == 0).await;
    }

    /// What is known of an object.
    pub fn get(&self, key: &Key) -> Option<Existing> {
        self.lock().objects.get(key).cloned()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes notice of an event of a kind, and tells which aggregators it concerns.
    pub fn notice<K: Resource>(
        &self,
        kind: &str,
        event: &Event<K>,
    ) -> Vec<ObjectRef<LogAggregator>> {
        let mut seen = self.lock();
        match event {
            Event::Init => {
                seen.listing.insert(kind.to_owned(), HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (key, existing) = (key(kind, object.meta()), Existing::of(kind, object.meta()));
                if let Some(listing) = seen.listing.get_mut(kind) {
                    listing.insert(key.clone());
                }
                let concerned = concerned(&key, &existing);
                seen.objects.insert(key, existing);
                concerned.into_iter().collect()
            }
            Event::Delete(object) => {
                let key = key(kind, object.meta());
                let gone = seen.objects.remove(&key);
                gone.and_then(|gone| concerned(&key, &gone)).into_iter().collect()
            }
            Event::InitDone => {
                let kept = seen.listing.remove(kind).unwrap_or_default();
                let missed = |key: &Key, _: &mut Existing| key.kind == kind && !kept.contains(key);
                let gone: Vec<_> = seen.objects.extract_if(missed).collect();
                if seen.listed.insert(kind.to_owned()) {
                    self.pending.send_modify(|pending| *pending = pending.saturating_sub(1));
                }
                gone.iter().filter_map(|(key, existing)| concerned(key, existing)).collect()
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(kind: &str, metadata: &ObjectMeta) -> Key {
    Key {
        kind: kind.to_owned(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn concerned(key: &Key, existing: &Existing) -> Option<ObjectRef<LogAggregator>> {
    let instance = existing.instance.as_deref()?;
    Some(ObjectRef::new(instance).within(&key.namespace))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use k8s_openapi::api::core::v1::Service;
    use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
    use serde_json::Value;

    use super::*;

    fn service(name: &str, version: &str) -> PartialObjectMeta<Service> {
        let metadata: ObjectMeta = serde_json::from_value(json!({
            "name": name, "namespace": "ns", "uid": "u", "resourceVersion": version,
            "labels": {"app.kubernetes.io/instance": "logs"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "other"},
                {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "owner", "controller": true},
            ],
        }))
        .unwrap();
        metadata.into_response_partial()
    }

    fn named(name: &str) -> Key {
        Key { kind: "Service".into(), namespace: "ns".into(), name: name.into() }
    }

    fn logs() -> Vec<ObjectRef<LogAggregator>> {
        vec![ObjectRef::new("logs").within("ns")]
    }

    #[test]
    fn an_object_is_known_by_its_owner_and_version() {
        let owned = Owned::new(1);
        assert_eq!(owned.notice("Service", &Event::Apply(service("a", "7"))), logs());
        let existing = owned.get(&named("a")).unwrap();
        assert_eq!((existing.version.as_str(), existing.owner.as_deref()), ("7", Some("owner")));
        assert_eq!(owned.notice("Service", &Event::Delete(service("a", "8"))), logs());
        assert_eq!(owned.get(&named("a")), None);
    }

    #[test]
    fn what_a_controller_tells_in_a_status_is_no_change() {
        let version = |kind: &str, more: Value| {
            let mut metadata = json!({"name": "a", "resourceVersion": "1"});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Existing::of(kind, &serde_json::from_value(metadata).unwrap()).version
        };
        let first = version("StatefulSet", json!({"generation": 3}));
        assert_eq!(version("StatefulSet", json!({"generation": 3, "resourceVersion": "2"})), first);
        assert_ne!(version("StatefulSet", json!({"generation": 4})), first);
        assert_ne!(version("StatefulSet", json!({"generation": 3, "labels": {"a": "b"}})), first);
        assert_eq!(version("Service", json!({})), "1");

        let written = |spec: &str, status: &str| {
            json!({"resourceVersion": format!("{spec}{status}"), "managedFields": [
                {"manager": "sheaf-operator", "operation": "Apply", "time": spec},
                {"manager": "kcm", "operation": "Update", "subresource": "status", "time": status},
            ]})
        };
        let (early, late) = ("2026-11-21T03:00:00Z", "2026-11-21T04:00:00Z");
        let autoscaler = "HorizontalPodAutoscaler";
        let first = version(autoscaler, written(early, early));
        assert_eq!(version(autoscaler, written(early, late)), first);
        assert_ne!(version(autoscaler, written(late, early)), first);
        assert_ne!(
            version("Service", written(early, late)),
            version("Service", written(early, early))
        );
    }

    #[test]
    fn what_is_missing_in_a_new_list_was_deleted_meanwhile() {
        let owned = Owned::new(1);
        owned.notice("Service", &Event::Apply(service("a", "7")));
        owned.notice("Secret", &Event::Apply(service("a", "7")));
        owned.notice("Service", &Event::Apply(service("b", "7")));
        owned.notice("Service", &Event::<PartialObjectMeta<Service>>::Init);
        owned.notice("Service", &Event::InitApply(service("b", "9")));
        assert!(owned.get(&named("a")).is_some(), "the list is not complete");
        let done = Event::<PartialObjectMeta<Service>>::InitDone;
        assert_eq!(owned.notice("Service", &done), logs());
        assert_eq!(owned.get(&named("a")), None);
        assert_eq!(owned.get(&named("b")).map(|it| it.version).as_deref(), Some("9"));
        assert_eq!(owned.len(), 2, "another kind's list is another");
    }

    #[test]
    fn all_kinds_are_listed_before_anything_is_decided() {
        let owned = Owned::new(2);
        let done = Event::<PartialObjectMeta<Service>>::InitDone;
        owned.notice("Service", &done);
        owned.notice("Service", &done);
        assert!(owned.listed().now_or_never().is_none());
        owned.notice("Secret", &done);
        assert!(owned.listed().now_or_never().is_some());
    }
}
