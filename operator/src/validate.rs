//! From the resource, and what was found beside it, to what cannot be wrong.
//!
//! The API server has checked most of it, by the bounds and rules of the definition; but that may
//! be of another version, and it cannot look into everything.

mod behavior; // how fast an autoscaler may be
mod pod_template; // what is to be different in the pods
pub(crate) mod quantity; // numbers from text
mod resources; // what a node gets of its machine

use std::fmt::Display;

use k8s_openapi::api::core::v1::{PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::names::Names;
use crate::resource::{
    Aggregation, AggregationType, Autoscaling, Compression, ImagePullPolicy, LogAggregator,
    LogFiles, PART_BYTES_MAX, PART_BYTES_MIN, REPLICAS_MAX, RETENTION_SECONDS_MAX, SLOTS, Storage,
    WhenDeleted,
};
pub use pod_template::InvalidPodTemplate;

const NAME_LENGTH_MAX: usize = 40;
/// How many nodes there are if nobody says it.
const REPLICAS_DEFAULT: i32 = 3;
const SIZE_MIN: u64 = 1 << 30;

/// What is known beside the resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// How the operator was installed.
    pub installation: Installation,
    /// The replicas of the StatefulSet, if there is one.
    pub replicas: Option<i32>,
    /// How many members the settings say that the cluster began with, if there are settings:
    /// what [`crate::build::founders`] reads from them.
    pub founders: Option<i32>,
    /// What the nodes require of those who change the cluster; made up once, then kept.
    pub token: String,
}

/// How the operator was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The image of nodes that name none.
    pub image: String,
    /// The namespace of the operator's pods.
    pub namespace: String,
    /// Whether the cluster knows the kind ServiceMonitor.
    pub service_monitors: bool,
    /// Whether the cluster knows the kind PrometheusRule.
    pub prometheus_rules: bool,
}

/// An aggregator of which every part is valid, and valid beside the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidAggregator {
    /// What its objects are called.
    pub names: Names,
    /// Where they are.
    pub namespace: String,
    /// What marks them as its own.
    pub owner: OwnerReference,
    /// How many nodes there are to be in the end: seeded, and between the bounds of autoscaling.
    pub replicas: i32,
    /// With how many members the cluster began, if that is settled.
    pub founders: Option<i32>,
    /// Into how many parts the counting is divided.
    pub slots: i32,
    /// How many nodes vote at most.
    pub voters: i32,
    /// On how many nodes a request is durable.
    pub copies: i32,
    /// The volume of each node.
    pub volume: Volume,
    /// What is counted and rebuilt.
    pub aggregations: Vec<Aggregation>,
    /// How the number of nodes follows the load, if it does.
    pub autoscaling: Option<Autoscaling>,
    /// The image of the nodes.
    pub image: String,
    /// When it is pulled, if that is said.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Whether everything stays as it is.
    pub paused: bool,
    /// Processor time and memory of a node.
    pub resources: ResourceRequirements,
    /// The most bytes of memory that a node may take, if it is limited.
    pub memory_limit: Option<u64>,
    /// What is to be different in the pods.
    pub pod_template: PodTemplateSpec,
    /// What the nodes require of those who change the cluster.
    pub token: String,
    /// How the operator was installed.
    pub installation: Installation,
}

/// The volume of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its size as it was written.
    pub size: Quantity,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its storage class; the cluster's default if none is named.
    pub class: Option<String>,
    /// What becomes of it when the aggregator is deleted.
    pub when_deleted: WhenDeleted,
}

/// Why an aggregator cannot be built, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It does not come from an API server.
    #[error("the LogAggregator has no {0}: it was never stored")]
    Unstored(&'static str),
    /// Its name does not fit what is named after it.
    #[error(
        "metadata.name \"{0}\": use at most {NAME_LENGTH_MAX} lower-case letters, digits and \
         \"-\", with a letter first and no \"-\" last"
    )]
    Name(String),
    /// A number is out of its bounds.
    #[error("spec.{field} is {value}: use {allowed}")]
    Number {
        /// The field.
        field: String,
        /// What it says.
        value: i64,
        /// What it may say.
        allowed: String,
    },
    /// There would be more copies than nodes.
    #[error("spec.copies is {copies}, but spec.{field} is {nodes}: lower copies, or raise {field}")]
    Copies {
        /// How many copies.
        copies: i32,
        /// What says how many nodes.
        field: &'static str,
        /// How many nodes.
        nodes: i32,
    },
    /// The bounds of autoscaling are the wrong way round.
    #[error(
        "spec.autoscaling.minReplicas is {least}, but maxReplicas is {most}: lower the one, or \
         raise the other"
    )]
    Bounds {
        /// The fewest nodes.
        least: i32,
        /// The most nodes.
        most: i32,
    },
    /// Nothing would be counted or rebuilt, or something twice.
    #[error("spec.aggregations: {0}")]
    Aggregations(String),
    /// A size is none, or too small.
    #[error("spec.{field} is \"{value}\": use a quantity of at least {least}")]
    Size {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
        /// The smallest.
        least: &'static str,
    },
    /// A word is none of those that there are.
    #[error("spec.{field} is \"{value}\": use {allowed}")]
    Word {
        /// The field.
        field: String,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: String,
    },
    /// A quantity is none, or negative.
    #[error("spec.{field} is \"{value}\": use a quantity such as 500m, 2 or 1Gi")]
    Quantity {
        /// The field.
        field: String,
        /// What it says.
        value: String,
    },
    /// An autoscaler may do nothing.
    #[error("spec.{0} is an empty list: name a policy, or leave the list out")]
    NoPolicy(String),
    /// There is no such thing to get of a machine.
    #[error(
        "spec.resources names \"{0}\": use cpu, memory, ephemeral-storage, or a device such as \
         example.com/gpu"
    )]
    ResourceName(String),
    /// More is requested than the limit allows.
    #[error(
        "spec.resources.requests.{name} is {request}, but limits.{name} is {limit}: it has to be \
         {relation} the limit"
    )]
    Request {
        /// Of what.
        name: String,
        /// How much is requested.
        request: String,
        /// The limit.
        limit: String,
        /// How the two have to be to each other.
        relation: &'static str,
    },
    /// Large pages are all that is named.
    #[error(
        "spec.resources names {0} alone: a pod gets none without a request or a limit of cpu or \
         memory, so add one"
    )]
    LargePagesAlone(String),
    /// The name of the storage class is none.
    #[error(
        "spec.storage.storageClassName is \"{0}\": use the name of a StorageClass (kubectl get \
         storageclasses), or leave it out for the cluster's default class"
    )]
    StorageClass(String),
    /// The image's name is none.
    #[error(
        "spec.image is \"{0}\": use a name without spaces, such as registry.example.com/sheaf:1"
    )]
    Image(String),
    /// There is no image.
    #[error(
        "spec.image is empty, and the operator was installed without an image for nodes: name one"
    )]
    NoImage,
    /// The pods cannot be changed like that.
    #[error("spec.podTemplate{0}")]
    PodTemplate(#[from] InvalidPodTemplate),
}

impl Invalid {
    /// The word for it in a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::PodTemplate(_) => "InvalidPodTemplate",
            _ => "InvalidSpec",
        }
    }
}

/// Checks an aggregator, and fills in what it leaves open.
///
/// # Errors
/// The first thing that is wrong; it stays wrong until somebody changes the resource.
pub fn validate(aggregator: &LogAggregator, found: Found) -> Result<ValidAggregator, Invalid> {
    let spec = &aggregator.spec;
    let names = names(&aggregator.name_any())?;
    let namespace = aggregator.namespace().ok_or(Invalid::Unstored("namespace"))?;
    let owner = aggregator.controller_owner_ref(&()).ok_or(Invalid::Unstored("uid"))?;
    in_bounds("slots", spec.slots, SLOTS, SLOTS)?;
    in_bounds("copies", spec.copies, 1, 3)?;
    check_voters(spec.voters)?;
    check_aggregations(&spec.aggregations)?;
    let replicas = replicas(aggregator, found.replicas)?;
    let resources = spec.resources.clone().unwrap_or_else(resources::default);
    resources::check(&resources)?;
    Ok(ValidAggregator {
        pod_template: pod_template::parse(spec.pod_template.as_ref(), &names.aggregator)?,
        names,
        namespace,
        owner,
        replicas,
        founders: found.founders,
        slots: spec.slots,
        voters: spec.voters,
        copies: spec.copies,
        volume: volume(&spec.storage)?,
        aggregations: spec.aggregations.clone(),
        autoscaling: spec.autoscaling.clone(),
        image: image(spec.image.as_deref(), &found.installation)?,
        image_pull_policy: spec.image_pull_policy,
        paused: spec.paused,
        memory_limit: resources::memory_limit(&resources)?,
        resources,
        token: found.token,
        installation: found.installation,
    })
}

fn names(aggregator: &str) -> Result<Names, Invalid> {
    if aggregator.len() > NAME_LENGTH_MAX || !is_label(aggregator) {
        return Err(Invalid::Name(aggregator.to_owned()));
    }
    Ok(Names::of(aggregator))
}

/// Whether a name is lower-case letters, digits and `-`, a letter first and no `-` last.
fn is_label(name: &str) -> bool {
    is_part_of_name(name) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Whether an object's name may have this before, between or after points (RFC 1123).
fn is_part_of_name(part: &str) -> bool {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
    part.bytes().all(allowed) && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
}

/// Whether YAML has no place for it (YAML 1.2.2, section 5.1): an API server reads what is applied
/// as YAML, and JSON leaves most of these as they are.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn in_bounds<N>(field: impl Into<String>, value: N, least: N, most: N) -> Result<(), Invalid>
where
    N: Copy + PartialOrd + Display + Into<i64>,
{
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let allowed = if least == most { least.to_string() } else { format!("from {least} to {most}") };
    Err(Invalid::Number { field: field.into(), value: value.into(), allowed })
}

fn check_voters(voters: i32) -> Result<(), Invalid> {
    if [1, 3, 5].contains(&voters) {
        return Ok(());
    }
    let allowed = "1, 3 or 5".to_owned();
    Err(Invalid::Number { field: "voters".to_owned(), value: voters.into(), allowed })
}

fn check_aggregations(aggregations: &[Aggregation]) -> Result<(), Invalid> {
    if aggregations.is_empty() {
        return Err(Invalid::Aggregations("the list is empty: name one at least".to_owned()));
    }
    for (place, aggregation) in aggregations.iter().enumerate() {
        let name = &aggregation.name;
        if name.len() > 63 || !is_label(name) {
            let advice = "use at most 63 lower-case letters, digits and \"-\", with a letter first";
            return Err(Invalid::Aggregations(format!("the name \"{name}\": {advice}")));
        }
        if aggregations.iter().take(place).any(|earlier| earlier.name == *name) {
            let advice = "give each a name of its own";
            return Err(Invalid::Aggregations(format!("two are named \"{name}\": {advice}")));
        }
        check_member(aggregation)?;
    }
    let files = |it: &&Aggregation| it.type_ == AggregationType::LogFiles;
    if aggregations.iter().filter(files).count() > 1 {
        let advice = "a chunk does not say which of them it is for, so leave the others out";
        return Err(Invalid::Aggregations(format!("several are of the type LogFiles: {advice}")));
    }
    Ok(())
}

/// Checks the member that belongs to the type, which has to be there, and no other.
fn check_member(aggregation: &Aggregation) -> Result<(), Invalid> {
    let Aggregation { name, type_, distinct_logs, log_files } = aggregation;
    let needed = match (type_, distinct_logs, log_files) {
        (AggregationType::DistinctLogs, Some(distinct), None) => {
            if distinct.attribute.is_empty() {
                let advice = "names no attribute: name one";
                return Err(Invalid::Aggregations(format!("\"{name}\" {advice}")));
            }
            if distinct.attribute.contains(is_unprintable) {
                let advice = "use an attribute without control characters";
                return Err(Invalid::Aggregations(format!("\"{name}\": {advice}")));
            }
            let field = "aggregations[].distinctLogs.windowSeconds";
            return in_bounds(field, distinct.window_seconds, 1, 86_400);
        }
        (AggregationType::LogFiles, None, Some(files)) => return check_files(name, files),
        (AggregationType::DistinctLogs, ..) => "type DistinctLogs needs the member distinctLogs",
        (AggregationType::LogFiles, ..) => "type LogFiles needs the member logFiles",
    };
    Err(Invalid::Aggregations(format!("\"{name}\": {needed} and no other")))
}

fn check_files(name: &str, files: &LogFiles) -> Result<(), Invalid> {
    in_bounds("aggregations[].logFiles.checkpointSeconds", files.checkpoint_seconds, 1, 3_600)?;
    if let Some(seconds) = files.retention_seconds {
        let field = "aggregations[].logFiles.retentionSeconds";
        in_bounds(field, seconds, 1, RETENTION_SECONDS_MAX)?;
    }
    match (files.part_bytes, files.compression) {
        (Some(bytes), _) => {
            in_bounds("aggregations[].logFiles.partBytes", bytes, PART_BYTES_MIN, PART_BYTES_MAX)
        }
        (None, Compression::None) => Ok(()),
        (None, Compression::Zstd) => {
            let advice = "compression needs partBytes: set it, or leave compression out";
            Err(Invalid::Aggregations(format!("\"{name}\": {advice}")))
        }
    }
}

/// How many nodes there are to be: as many as are asked for, or as there are, or as a new
/// aggregator begins with; always between the bounds of autoscaling.
fn replicas(aggregator: &LogAggregator, found: Option<i32>) -> Result<i32, Invalid> {
    let spec = &aggregator.spec;
    if let Some(asked) = spec.replicas {
        in_bounds("replicas", asked, 1, REPLICAS_MAX)?;
    }
    let known = spec.replicas.or(found.filter(|replicas| (1..=REPLICAS_MAX).contains(replicas)));
    let Some(autoscaling) = &spec.autoscaling else {
        let replicas = known.unwrap_or(REPLICAS_DEFAULT);
        return at_least_copies(spec.copies, "replicas", replicas).map(|()| replicas);
    };
    let Autoscaling { min_replicas, max_replicas, target_queue_percent, behavior } = autoscaling;
    let (least, most) = (*min_replicas, *max_replicas);
    in_bounds("autoscaling.targetQueuePercent", *target_queue_percent, 1, 100)?;
    in_bounds("autoscaling.minReplicas", least, 1, REPLICAS_MAX)?;
    in_bounds("autoscaling.maxReplicas", most, 1, REPLICAS_MAX)?;
    if least > most {
        return Err(Invalid::Bounds { least, most });
    }
    at_least_copies(spec.copies, "autoscaling.minReplicas", least)?;
    behavior.as_ref().map_or(Ok(()), behavior::check)?;
    Ok(known.unwrap_or(least).clamp(least, most))
}

fn at_least_copies(copies: i32, field: &'static str, nodes: i32) -> Result<(), Invalid> {
    if copies <= nodes { Ok(()) } else { Err(Invalid::Copies { copies, field, nodes }) }
}

fn volume(storage: &Storage) -> Result<Volume, Invalid> {
    let class = storage.storage_class_name.as_deref().unwrap_or_default();
    if !class.is_empty() && !class.split('.').all(is_part_of_name) {
        return Err(Invalid::StorageClass(class.to_owned()));
    }
    let bytes = quantity::bytes(&storage.size).filter(|bytes| *bytes >= SIZE_MIN);
    let bytes = bytes.ok_or_else(|| Invalid::Size {
        field: "storage.size",
        value: storage.size.clone(),
        least: "1Gi",
    })?;
    Ok(Volume {
        size: Quantity(storage.size.clone()),
        bytes,
        class: storage.storage_class_name.clone(),
        when_deleted: storage.retention.when_deleted,
    })
}

fn image(asked: Option<&str>, installation: &Installation) -> Result<String, Invalid> {
    let image = asked.unwrap_or(&installation.image);
    if image.is_empty() {
        return Err(Invalid::NoImage);
    }
    if image.contains(char::is_whitespace) {
        return Err(Invalid::Image(image.to_owned()));
    }
    Ok(image.to_owned())
}

#[cfg(test)]
mod tests;
