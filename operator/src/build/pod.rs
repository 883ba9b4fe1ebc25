//! One node: a pod that may do nothing but run it.

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use sheaf_proto::names::PEER_PORT;

use super::network::{ADMIN, PORTS, Port};
use super::settings::Settings;
use crate::names;
use crate::resource::ImagePullPolicy;
use crate::validate::ValidAggregator;

/// Nobody's number: it owns nothing in any image.
const USER: i64 = 65_532;
/// A node takes at most 25 s to finish what is in flight.
const GRACE_SECONDS: i64 = 35;
const LIVE_PATH: &str = "/livez";
const READY_PATH: &str = "/readyz";

/// The pods' template: what every node needs, and over it what the aggregator wants different.
pub(super) fn template(aggregator: &ValidAggregator, settings: &Settings) -> PodTemplateSpec {
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(names::labels(&aggregator.names.aggregator)),
            annotations: Some(names::labeled([(
                names::RESTART_ANNOTATION,
                settings.restart_hash().as_str(),
            )])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(aggregator)],
            volumes: Some(volumes(aggregator)),
            topology_spread_constraints: Some(spread(aggregator)),
            service_account_name: Some(aggregator.names.aggregator.clone()),
            automount_service_account_token: Some(false),
            // Variables of a Service called "sheaf" would be read as settings.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(pod_security()),
            ..PodSpec::default()
        }),
    };
    let given = aggregator.pod_template.clone();
    let built = template.spec.iter_mut().flat_map(|spec| &mut spec.containers);
    built.for_each(|built| give_way(built, &given));
    template.merge_from(given);
    template
}

/// A probe has one way to ask. Where another one is given, what was built for it goes.
fn give_way(built: &mut Container, given: &PodTemplateSpec) {
    let given = given.spec.iter().flat_map(|spec| &spec.containers);
    for given in given.filter(|given| given.name == built.name) {
        let probes = [
            (&mut built.startup_probe, &given.startup_probe),
            (&mut built.liveness_probe, &given.liveness_probe),
            (&mut built.readiness_probe, &given.readiness_probe),
        ];
        for (built, given) in probes {
            let asks_otherwise = given.as_ref().is_some_and(|it| {
                it.exec.is_some() || it.grpc.is_some() || it.tcp_socket.is_some()
            });
            if let Some(built) = built.as_mut().filter(|_| asks_otherwise) {
                built.http_get = None;
            }
        }
    }
}

fn container(aggregator: &ValidAggregator) -> Container {
    let host = aggregator.names.host("$(POD_NAME)", &aggregator.namespace);
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(aggregator.image.clone()),
        image_pull_policy: aggregator
            .image_pull_policy
            .map(ImagePullPolicy::as_str)
            .map(Into::into),
        command: Some(vec!["sheaf-node".to_owned()]),
        // As flags, which no variable overrules.
        args: Some(vec![
            format!("--config={}/{}", names::SETTINGS_PATH, names::SETTINGS_FILE),
            format!("--data-dir={}", names::DATA_PATH),
            format!("--peer-address={host}:{PEER_PORT}"),
        ]),
        env: Some(vec![from_pod("POD_NAME", "metadata.name")]),
        ports: Some(PORTS.iter().map(container_port).collect()),
        resources: Some(aggregator.resources.clone()),
        volume_mounts: Some(vec![
            mount(names::DATA_VOLUME, names::DATA_PATH, false),
            mount(names::SETTINGS_VOLUME, names::SETTINGS_PATH, true),
            mount(names::CONTROL_VOLUME, names::CONTROL_PATH, true),
            mount(names::POD_VOLUME, names::POD_PATH, true),
        ]),
        // It answers while it reads its journal, which may take minutes.
        startup_probe: Some(probe(LIVE_PATH, 1, 60)),
        liveness_probe: Some(probe(LIVE_PATH, 10, 6)),
        readiness_probe: Some(probe(READY_PATH, 2, 2)),
        security_context: Some(container_security()),
        ..Container::default()
    }
}

fn from_pod(variable: &str, field: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field_of_pod(field)),
            ..EnvVarSource::default()
        }),
        value: None,
    }
}

fn field_of_pod(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }
}

fn container_port(port: &Port) -> ContainerPort {
    ContainerPort {
        name: Some(port.name.to_owned()),
        container_port: port.number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN.name.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn volumes(aggregator: &ValidAggregator) -> Vec<Volume> {
    let named = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let item = |file: &str| {
        Some(vec![KeyToPath { key: file.to_owned(), path: file.to_owned(), mode: None }])
    };
    let zone = DownwardAPIVolumeFile {
        path: names::ZONE_FILE.to_owned(),
        field_ref: Some(field_of_pod(&format!(
            "metadata.annotations['{}']",
            names::ZONE_ANNOTATION
        ))),
        ..DownwardAPIVolumeFile::default()
    };
    vec![
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: aggregator.names.aggregator.clone(),
                items: item(names::SETTINGS_FILE),
                ..ConfigMapVolumeSource::default()
            }),
            ..named(names::SETTINGS_VOLUME)
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(aggregator.names.control.clone()),
                items: item(names::TOKEN_FILE),
                ..SecretVolumeSource::default()
            }),
            ..named(names::CONTROL_VOLUME)
        },
        Volume {
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![zone]),
                default_mode: None,
            }),
            ..named(names::POD_VOLUME)
        },
    ]
}

/// Over machines and over zones, as evenly as there is room: a pod that is in the way of evenness
/// is better than one that does not run.
fn spread(aggregator: &ValidAggregator) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew: 1,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        node_taints_policy: Some("Honor".to_owned()),
        label_selector: Some(names::selecting(names::selector(&aggregator.names.aggregator))),
        ..TopologySpreadConstraint::default()
    };
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(over).into()
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}
