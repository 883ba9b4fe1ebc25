//! How fast an autoscaler may be, as the API server takes it in a HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::{Invalid, in_bounds, quantity};
use crate::resource::{
    PERIOD_SECONDS_MAX, POLICY_TYPES, SELECT_POLICIES, STABILIZATION_SECONDS_MAX,
};

/// Checks both directions.
pub(super) fn check(behavior: &HorizontalPodAutoscalerBehavior) -> Result<(), Invalid> {
    let directions = [("scaleDown", &behavior.scale_down), ("scaleUp", &behavior.scale_up)];
    directions.into_iter().try_for_each(|(direction, rules)| match rules {
        Some(rules) => check_rules(&format!("autoscaling.behavior.{direction}"), rules),
        None => Ok(()),
    })
}

fn check_rules(direction: &str, rules: &HPAScalingRules) -> Result<(), Invalid> {
    let field = |name: &str| format!("{direction}.{name}");
    if let Some(seconds) = rules.stabilization_window_seconds {
        in_bounds(field("stabilizationWindowSeconds"), seconds, 0, STABILIZATION_SECONDS_MAX)?;
    }
    if let Some(policy) = &rules.select_policy {
        one_of(field("selectPolicy"), policy, &SELECT_POLICIES)?;
    }
    if let Some(tolerance) = rules.tolerance.as_ref()
        && quantity::nanos(&tolerance.0).is_none()
    {
        return Err(Invalid::Quantity { field: field("tolerance"), value: tolerance.0.clone() });
    }
    if rules.policies.as_ref().is_some_and(Vec::is_empty) {
        return Err(Invalid::NoPolicy(field("policies")));
    }
    for policy in rules.policies.iter().flatten() {
        one_of(field("policies[].type"), &policy.type_, &POLICY_TYPES)?;
        in_bounds(field("policies[].value"), policy.value, 1, i32::MAX)?;
        let seconds = policy.period_seconds;
        in_bounds(field("policies[].periodSeconds"), seconds, 1, PERIOD_SECONDS_MAX)?;
    }
    Ok(())
}

fn one_of(field: String, value: &str, allowed: &[&str]) -> Result<(), Invalid> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Invalid::Word { field, value: value.to_owned(), allowed: allowed.join(" or ") })
}
