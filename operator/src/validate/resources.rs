//! Processor time, memory and devices of a node, as the API server takes them in a pod.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Invalid, quantity};

/// Of a node: below it the smallest queue that takes an ordinary request would not fit.
const MEMORY_MIN: u64 = 128 << 20;
/// What every machine has, and may be promised more often than it is there.
const ORDINARY: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// How the names of large pages begin.
const LARGE_PAGES: &str = "hugepages-";

/// What a node gets if nobody says it.
pub(super) fn default() -> ResourceRequirements {
    let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", "250m"), quantity("memory", "512Mi")].into()),
        limits: Some([quantity("memory", "1Gi")].into()),
        ..ResourceRequirements::default()
    }
}

/// Checks that requests and limits are quantities of what there is, and fit together.
pub(super) fn check(resources: &ResourceRequirements) -> Result<(), Invalid> {
    let limits = resources.limits.iter().flatten();
    for (name, limit) in limits.clone() {
        check_name(name)?;
        amount("limits", name, limit)?;
    }
    for (name, request) in resources.requests.iter().flatten() {
        check_name(name)?;
        let asked = amount("requests", name, request)?;
        let limit = limits.clone().find(|(limited, _)| *limited == name).map(|(_, limit)| limit);
        let most = limit.map(|limit| amount("limits", name, limit)).transpose()?;
        let is_shared = ORDINARY.contains(&name.as_str());
        let fits = match most {
            Some(most) if is_shared => asked <= most,
            Some(most) => asked == most,
            None => is_shared,
        };
        if !fits {
            let text = |quantity: &Quantity| quantity.0.clone();
            return Err(Invalid::Request {
                name: name.clone(),
                request: text(request),
                limit: limit.map_or_else(|| "none".to_owned(), text),
                relation: if is_shared { "at most" } else { "the same as" },
            });
        }
    }
    // Whatever has a request has a limit, but for what is ordinary.
    let requests = resources.requests.iter().flatten();
    let mut named = limits.clone().chain(requests).map(|(name, _)| name.as_str());
    let pages = limits.map(|(name, _)| name).find(|name| name.starts_with(LARGE_PAGES));
    match pages {
        Some(pages) if !named.any(|name| ["cpu", "memory"].contains(&name)) => {
            Err(Invalid::LargePagesAlone(pages.clone()))
        }
        _ => Ok(()),
    }
}

/// The most bytes of memory that a node may take, if it is limited.
pub(super) fn memory_limit(resources: &ResourceRequirements) -> Result<Option<u64>, Invalid> {
    let Some(Quantity(limit)) = resources.limits.as_ref().and_then(|limits| limits.get("memory"))
    else {
        return Ok(None);
    };
    match quantity::bytes(limit) {
        Some(bytes) if bytes >= MEMORY_MIN => Ok(Some(bytes)),
        _ => Err(Invalid::Size {
            field: "resources.limits.memory",
            value: limit.clone(),
            least: "128Mi",
        }),
    }
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let is_device = name.split_once('/').is_some_and(|(domain, device)| {
        !domain.is_empty() && !device.is_empty() && !device.contains('/')
    });
    if ORDINARY.contains(&name) || name.starts_with(LARGE_PAGES) || is_device {
        return Ok(());
    }
    Err(Invalid::ResourceName(name.to_owned()))
}

fn amount(kind: &str, name: &str, quantity: &Quantity) -> Result<u128, Invalid> {
    let Quantity(value) = quantity;
    quantity::nanos(value).ok_or_else(|| Invalid::Quantity {
        field: format!("resources.{kind}.{name}"),
        value: value.clone(),
    })
}
