//! What is to be different in the pods: read from an object without a schema.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;

use crate::names;
use crate::resource::PodTemplate;

/// Why the pods cannot be changed like that. The text goes on after the field's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPodTemplate {
    /// A value is not of its field's type.
    #[error(": {0}")]
    Malformed(String),
    /// This version knows no such field.
    #[error("{0} is a field that this version of the operator does not know: remove it")]
    Unknown(String),
    /// The operator needs the field itself.
    #[error("{field} is reserved: {advice}")]
    Reserved {
        /// The field.
        field: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// A container is neither the node's nor complete.
    #[error(
        ".spec.containers: \"{0}\" has no image; the node's container is called \"{node}\"",
        node = names::CONTAINER
    )]
    NoImage(String),
}

/// Reads what is to be different in the pods of an aggregator: nothing, if nothing is said.
pub(super) fn parse(
    written: Option<&PodTemplate>,
    aggregator: &str,
) -> Result<PodTemplateSpec, InvalidPodTemplate> {
    let Some(PodTemplate(written)) = written else { return Ok(PodTemplateSpec::default()) };
    let written = Value::Object(written.clone());
    let template: PodTemplateSpec = serde_json::from_value(written.clone())
        .map_err(|error| InvalidPodTemplate::Malformed(error.to_string()))?;
    let read = serde_json::to_value(&template)
        .map_err(|error| InvalidPodTemplate::Malformed(error.to_string()))?;
    if let Some(field) = first_lost("", &written, &read) {
        return Err(InvalidPodTemplate::Unknown(field));
    }
    check_metadata(&template, aggregator)?;
    template.spec.as_ref().map_or(Ok(()), check_spec)?;
    Ok(template)
}

/// The first field that was written and not read.
fn first_lost(path: &str, written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            written.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match read.get(name) {
                    Some(read) => first_lost(&path, value, read),
                    None => Some(path),
                }
            })
        }
        (Value::Array(written), Value::Array(read)) => {
            written.iter().zip(read).enumerate().find_map(|(place, (value, read))| {
                first_lost(&format!("{path}[{place}]"), value, read)
            })
        }
        _ => None,
    }
}

fn check_metadata(template: &PodTemplateSpec, aggregator: &str) -> Result<(), InvalidPodTemplate> {
    let Some(metadata) = &template.metadata else { return Ok(()) };
    let ours = names::labels(aggregator);
    let mut labels = metadata.labels.iter().flatten().map(|(label, _)| label);
    if let Some(label) = labels.find(|label| ours.contains_key(*label)) {
        let advice = "the pods are found by it, so choose another label";
        return Err(reserved(format!(".metadata.labels.{label}"), advice));
    }
    let ours = [names::ZONE_ANNOTATION, names::RESTART_ANNOTATION];
    let mut annotations = metadata.annotations.iter().flatten().map(|(annotation, _)| annotation);
    match annotations.find(|annotation| ours.contains(&annotation.as_str())) {
        Some(annotation) => {
            let advice = "the operator writes it, so choose another annotation";
            Err(reserved(format!(".metadata.annotations.{annotation}"), advice))
        }
        None => Ok(()),
    }
}

fn check_spec(spec: &PodSpec) -> Result<(), InvalidPodTemplate> {
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if value.is_some() {
            let advice = "the nodes reach each other by it, so remove it";
            return Err(reserved(format!(".spec.{field}"), advice));
        }
    }
    let ours =
        [names::DATA_VOLUME, names::SETTINGS_VOLUME, names::CONTROL_VOLUME, names::POD_VOLUME];
    let mut volumes = spec.volumes.iter().flatten();
    if let Some(volume) = volumes.find(|volume| ours.contains(&volume.name.as_str())) {
        let advice = "the operator mounts it, so choose another name";
        return Err(reserved(format!(".spec.volumes: \"{}\"", volume.name), advice));
    }
    spec.containers.iter().try_for_each(check_container)
}

fn check_container(container: &Container) -> Result<(), InvalidPodTemplate> {
    if container.name != names::CONTAINER {
        return match &container.image {
            Some(_) if !container.name.is_empty() => Ok(()),
            _ => Err(InvalidPodTemplate::NoImage(container.name.clone())),
        };
    }
    if container.args.is_some() {
        let advice = "give settings as variables in env, such as SHEAF_LOG_LEVEL";
        return Err(reserved(".spec.containers: args of \"node\"".to_owned(), advice));
    }
    let ours = [names::DATA_PATH, names::SETTINGS_PATH, names::CONTROL_PATH, names::POD_PATH];
    // What is mounted below hides a part, so that it goes where nothing is kept.
    let hides = |path: &str| ours.iter().any(|ours| Path::new(path).starts_with(ours));
    let mut mounts = container.volume_mounts.iter().flatten();
    match mounts.find(|mount| hides(&mount.mount_path)) {
        Some(mount) => {
            let advice = "the operator mounts something there, so choose another path";
            Err(reserved(format!(".spec.containers: a mount at {}", mount.mount_path), advice))
        }
        None => Ok(()),
    }
}

fn reserved(field: String, advice: &'static str) -> InvalidPodTemplate {
    InvalidPodTemplate::Reserved { field, advice }
}
