//! The CustomResourceDefinition, and the files that it is written to.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt, ResourceExt};

use super::LogAggregator;

const HEAD: &str =
    "# Written by crdgen from operator/src/resource.rs; `make crds` writes it anew.\n";
/// The most characters of a name that the rules about names are asked about: those of any object.
const NAME_LENGTH_MAX: i64 = 253;

/// A file that is generated from the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is, from the root of the workspace.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

/// All files that are generated from the definition.
///
/// # Errors
/// When the definition cannot be written as YAML.
pub fn files() -> Result<[File; 2], serde_saphyr::ser::Error> {
    Ok([
        File { path: "crds/logaggregators.sheaf.dev.yaml", text: manifest()? },
        File { path: "charts/sheaf/templates/crds.yaml", text: chart_template()? },
    ])
}

/// The definition of `LogAggregator`.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = LogAggregator::crd();
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            tidy(schema);
            name_every_object(schema);
        }
    }
    definition
}

/// Makes of every `null` a field that is left out, as Kubernetes' own types do, and of a comment
/// that fits into a line of code a sentence.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    schema.properties.iter_mut().flat_map(BTreeMap::values_mut).for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Describes what every object has, so that names have a length: what a rule may cost is reckoned
/// from it. An API server looks at it only if all four fields are there.
fn name_every_object(schema: &mut JSONSchemaProps) {
    let text = |max_length| JSONSchemaProps {
        type_: Some("string".to_owned()),
        max_length: Some(max_length),
        ..JSONSchemaProps::default()
    };
    let names = ["name", "generateName"].map(|field| (field.to_owned(), text(NAME_LENGTH_MAX)));
    let metadata = JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some(names.into()),
        ..JSONSchemaProps::default()
    };
    let properties = schema.properties.get_or_insert_default();
    properties.insert("metadata".to_owned(), metadata);
    for field in ["apiVersion", "kind"] {
        properties.insert(field.to_owned(), text(NAME_LENGTH_MAX));
    }
}

/// The definition as `kubectl apply` takes it.
fn manifest() -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{HEAD}{}", serde_saphyr::to_string(&definition())?))
}

/// The definition as a template of the chart: it is installed if the values say so, and stays when
/// the release goes, because all aggregators would go with it.
fn chart_template() -> Result<String, serde_saphyr::ser::Error> {
    let mut definition = definition();
    definition.annotations_mut().insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    let text = serde_saphyr::to_string(&definition)?;
    Ok(format!("{HEAD}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"))
}

#[cfg(test)]
mod tests;
