//! What can be asked for, in the forms in which the API server and its clients ask for that:
//! discovery, and OpenAPI as far as there is something to tell.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, GroupVersionForDiscovery,
};
use serde_json::{Value, json};
use sheaf_proto::names::QUEUE_METRIC;

use super::{GROUP, VERSION};

/// Where OpenAPI 3 has the document of the API.
const OPEN_API_V3: &str = "/openapi/v3/apis/custom.metrics.k8s.io/v1beta2";
const KIND: &str = "MetricValueList";

/// A document that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// All groups, which is one.
    Groups,
    /// The group, with its versions.
    Group,
    /// What the version has.
    Resources,
    /// The same as OpenAPI 2.
    OpenApiV2,
    /// Which documents there are of OpenAPI 3 ..
    OpenApiV3,
    /// .. and the one of this API.
    OpenApiV3OfGroup,
}

impl Document {
    /// The document at a path, if one is there.
    pub(super) fn at(path: &str) -> Option<Document> {
        match path {
            "/apis" => Some(Document::Groups),
            "/apis/custom.metrics.k8s.io" => Some(Document::Group),
            "/apis/custom.metrics.k8s.io/v1beta2" => Some(Document::Resources),
            "/openapi/v2" => Some(Document::OpenApiV2),
            "/openapi/v3" => Some(Document::OpenApiV3),
            OPEN_API_V3 => Some(Document::OpenApiV3OfGroup),
            _ => None,
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// None that a value in memory can cause.
    pub(super) fn body(self) -> serde_json::Result<Value> {
        match self {
            Document::Groups => serde_json::to_value(APIGroupList { groups: vec![group()] }),
            Document::Group => serde_json::to_value(group()),
            Document::Resources => serde_json::to_value(resources()),
            Document::OpenApiV2 => Ok(open_api_v2()),
            Document::OpenApiV3 => {
                let path = OPEN_API_V3.trim_start_matches("/openapi/v3/");
                Ok(json!({"paths": {path: {"serverRelativeURL": OPEN_API_V3}}}))
            }
            Document::OpenApiV3OfGroup => Ok(open_api_v3()),
        }
    }
}

fn group_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn group() -> APIGroup {
    let version =
        GroupVersionForDiscovery { group_version: group_version(), version: VERSION.to_owned() };
    APIGroup {
        name: GROUP.to_owned(),
        preferred_version: Some(version.clone()),
        versions: vec![version],
        ..APIGroup::default()
    }
}

fn resources() -> APIResourceList {
    let metric = APIResource {
        name: format!("pods/{QUEUE_METRIC}"),
        namespaced: true,
        kind: KIND.to_owned(),
        verbs: vec!["get".to_owned()],
        ..APIResource::default()
    };
    APIResourceList { group_version: group_version(), resources: vec![metric] }
}

fn open_api_v2() -> Value {
    let text = |place: &str, name: &str| json!({"in": place, "name": name, "type": "string"});
    let schema = json!({"$ref": format!("#/definitions/{}", definition_name())});
    let answer = json!({"description": "OK", "schema": schema});
    let operation = operation(text, answer);
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": {path(): {"get": with(operation, "produces", json!(["application/json"]))}},
        "definitions": {definition_name(): definition()},
    })
}

fn open_api_v3() -> Value {
    let text =
        |place: &str, name: &str| json!({"in": place, "name": name, "schema": {"type": "string"}});
    let schema = json!({"$ref": format!("#/components/schemas/{}", definition_name())});
    let answer = json!({"description": "OK", "content": {"application/json": {"schema": schema}}});
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": {path(): {"get": operation(text, answer)}},
        "components": {"schemas": {definition_name(): definition()}},
    })
}

fn info() -> Value {
    json!({"title": "Sheaf", "version": env!("CARGO_PKG_VERSION")})
}

fn path() -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/pods/{{name}}/{QUEUE_METRIC}")
}

/// The one thing to do: `text` describes a parameter by where it is and what it is called.
fn operation(text: impl Fn(&str, &str) -> Value, answer: Value) -> Value {
    let required = |name| with(text("path", name), "required", json!(true));
    json!({
        "operationId": "readCustomMetricsV1beta2NamespacedPodSheafQueueUsedPercent",
        "description": "How full the queues of pods were in the last minute, in percent; * is all pods.",
        "tags": ["customMetrics_v1beta2"],
        "parameters": [required("namespace"), required("name"), text("query", "labelSelector")],
        "responses": {"200": answer},
        "x-kubernetes-action": "get",
        "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": KIND},
    })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn definition_name() -> String {
    format!("io.k8s.metrics.pkg.apis.custom_metrics.{VERSION}.{KIND}")
}

fn definition() -> Value {
    let text = json!({"type": "string"});
    let described = json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text, "namespace": text, "name": text,
    }});
    let value = json!({"type": "object", "properties": {
        "describedObject": described,
        "metric": {"type": "object", "properties": {"name": text}},
        "timestamp": {"type": "string", "format": "date-time"},
        "windowSeconds": {"type": "integer", "format": "int64"},
        "value": {"type": "string", "description": "A quantity."},
    }});
    json!({
        "type": "object",
        "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"},
            "items": {"type": "array", "items": value},
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": KIND}],
    })
}

#[cfg(test)]
mod tests;
