//! The CustomResourceDefinition, and the files that it is written to.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
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
        if let Some(schema) = version.schema.as_mut().and_then(|it| it.open_api_v3_schema.as_mut())
        {
            bound_names(schema);
        }
    }
    definition
}

/// Gives names a length: what a rule may cost is reckoned from it.
fn bound_names(schema: &mut JSONSchemaProps) {
    let Some(metadata) = schema.properties.as_mut().and_then(|all| all.get_mut("metadata")) else {
        return;
    };
    let name = JSONSchemaProps {
        type_: Some("string".to_owned()),
        max_length: Some(NAME_LENGTH_MAX),
        ..JSONSchemaProps::default()
    };
    let both = ["name", "generateName"].map(|field| (field.to_owned(), name.clone()));
    metadata.properties = Some(both.into());
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
