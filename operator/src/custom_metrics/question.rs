//! What is asked for: parsed once, so that nothing of it has to be checked again.

use http::{Method, Uri};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec,
};
use percent_encoding::percent_decode_str;

use super::documents::Document;
use super::front_proxy::User;
use super::refusal::Refusal;
use super::{GROUP, VERSION};

/// The longest name of an object.
const NAME_BYTES_MAX: usize = 253;

/// Something that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What can be asked for.
    Document(Document),
    /// Values of a metric.
    Values(Values),
}

/// Values of a metric of pods in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) namespace: String,
    pub(super) pods: Pods,
    pub(super) metric: String,
}

/// Which pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pods {
    /// The one of this name.
    Named(String),
    /// All that a selector, which may be empty, selects. The API server judges it.
    Selected(String),
}

impl Question {
    /// What a request asks for.
    ///
    /// # Errors
    /// When there is no such thing, or it makes no sense.
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Question, Refusal> {
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        let path = uri.path();
        if let Some(document) = Document::at(path) {
            return Ok(Question::Document(document));
        }
        let unknown = || Refusal::Unknown(format!("there is nothing at {path}"));
        let parts = parts(path).ok_or_else(unknown)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["", "apis", GROUP, VERSION, "namespaces", namespace, "pods", name, metric]
                if is_name(namespace) && (*name == "*" || is_name(name)) =>
            {
                let pods = pods(name, uri.query().unwrap_or_default())?;
                let (namespace, metric) = ((*namespace).to_owned(), (*metric).to_owned());
                Ok(Question::Values(Values { namespace, pods, metric }))
            }
            _ => Err(unknown()),
        }
    }

    /// What somebody has to be allowed who asks.
    pub(super) fn review(&self, user: User, path: &str) -> SubjectAccessReviewSpec {
        let mut review = SubjectAccessReviewSpec {
            user: Some(user.name),
            uid: user.uid,
            groups: Some(user.groups),
            extra: Some(user.extra),
            ..SubjectAccessReviewSpec::default()
        };
        let verb = Some("get".to_owned());
        match self {
            Question::Values(values) => {
                review.resource_attributes = Some(ResourceAttributes {
                    namespace: Some(values.namespace.clone()),
                    verb,
                    group: Some(GROUP.to_owned()),
                    version: Some(VERSION.to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some(values.metric.clone()),
                    name: Some(values.pods.name().to_owned()),
                    ..ResourceAttributes::default()
                });
            }
            Question::Document(_) => {
                let path = Some(path.to_owned());
                review.non_resource_attributes = Some(NonResourceAttributes { path, verb });
            }
        }
        review
    }
}

impl Pods {
    /// What stands for them in a path.
    pub(super) fn name(&self) -> &str {
        match self {
            Pods::Named(name) => name,
            Pods::Selected(_) => "*",
        }
    }
}

/// Whether it is asked only whether anybody is there, which everybody may.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/healthz")
}

/// The parts of a path, decoded, if they are text.
fn parts(path: &str) -> Option<Vec<String>> {
    let decoded = |part| percent_decode_str(part).decode_utf8().map(|part| part.into_owned());
    path.split('/').map(decoded).collect::<Result<_, _>>().ok()
}

/// Whether something may be an object's name: it becomes part of another path.
fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let ends_well = is_end(bytes.first()) && is_end(bytes.last());
    bytes.len() <= NAME_BYTES_MAX && ends_well && bytes.iter().copied().all(is_fine)
}

fn pods(name: &str, query: &str) -> Result<Pods, Refusal> {
    let mut selector = String::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "labelSelector" => selector = value.into_owned(),
            "metricLabelSelector" if !value.is_empty() => {
                let message = "the metric has no labels to select by";
                return Err(Refusal::Malformed(message.to_owned()));
            }
            _ => {}
        }
    }
    Ok(if name == "*" { Pods::Selected(selector) } else { Pods::Named(name.to_owned()) })
}

#[cfg(test)]
mod tests;
