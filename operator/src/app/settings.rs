//! Flags and variables.

use std::net::SocketAddr;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum};

use crate::custom_metrics::Place;
use crate::watches::Scope;

/// Runs clusters of Sheaf nodes, one for each LogAggregator.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "sheaf-operator", version, max_term_width = 100)]
pub struct Settings {
    /// A namespace whose LogAggregators are looked after; several by repeating the flag, or by
    /// commas in the variable. Without any, all namespaces are
    #[arg(
        long = "namespace",
        env = "SHEAF_OPERATOR_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    namespaces: Vec<String>,

    /// The namespace that the operator runs in
    #[arg(long = "own-namespace", env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// What the operator calls itself; no other one may have the same name
    #[arg(long, env = "POD_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub identity: String,

    /// The lease that the operator has to hold to act
    #[arg(long, env = "SHEAF_OPERATOR_LEASE_NAME", value_name = "NAME", default_value = "sheaf-operator", value_parser = NonEmptyStringValueParser::new())]
    pub lease_name: String,

    /// The image of nodes whose LogAggregator names none
    #[arg(long, env = "SHEAF_OPERATOR_DEFAULT_IMAGE", value_name = "IMAGE", default_value = "")]
    pub default_image: String,

    /// How many LogAggregators may replace outdated pods at a time
    #[arg(long, env = "SHEAF_OPERATOR_ROLLING_MAX", value_name = "COUNT", default_value_t = 1, value_parser = count)]
    pub rolling_max: usize,

    /// Where probes and metrics are answered
    #[arg(
        long,
        env = "SHEAF_OPERATOR_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub listen: SocketAddr,

    /// The Service at which the API custom.metrics.k8s.io is to be served, if it is
    #[arg(
        long,
        env = "SHEAF_OPERATOR_CUSTOM_METRICS_SERVICE",
        value_name = "NAME",
        requires = "custom_metrics_secret",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub custom_metrics_service: Option<String>,

    /// The Secret, which has to be there, for the certificate of that API
    #[arg(
        long,
        env = "SHEAF_OPERATOR_CUSTOM_METRICS_SECRET",
        value_name = "NAME",
        requires = "custom_metrics_service",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub custom_metrics_secret: Option<String>,

    /// Where that API is answered, over TLS
    #[arg(
        long,
        env = "SHEAF_OPERATOR_CUSTOM_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8443"
    )]
    pub custom_metrics_listen: SocketAddr,

    /// How the operator's own log is written
    #[arg(long, env = "SHEAF_OPERATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What the operator's own log has, as in info or sheaf_operator=debug,warn
    #[arg(long, env = "SHEAF_OPERATOR_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with none at a time no pod would ever change: use 1 or more".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

impl Settings {
    /// Where aggregators are looked after.
    pub fn scopes(&self) -> Vec<Scope> {
        let mut named: Vec<&String> =
            self.namespaces.iter().filter(|name| !name.is_empty()).collect();
        named.sort_unstable();
        named.dedup();
        if named.is_empty() {
            return vec![Scope::Everywhere];
        }
        named.into_iter().map(|name| Scope::Namespace(name.clone())).collect()
    }

    /// Where the API `custom.metrics.k8s.io` is served, if it is.
    pub fn custom_metrics(&self) -> Option<Place> {
        Some(Place {
            namespace: self.namespace.clone(),
            service: self.custom_metrics_service.clone()?,
            secret: self.custom_metrics_secret.clone()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Settings {
        let all = [&["sheaf-operator", "--identity", "one"], flags].concat();
        Settings::try_parse_from(all).unwrap()
    }

    #[test]
    fn all_namespaces_are_looked_after_unless_some_are_named() {
        assert_eq!(parse(&[]).scopes(), [Scope::Everywhere]);
        assert_eq!(parse(&["--namespace", ""]).scopes(), [Scope::Everywhere]);
        let named = parse(&["--namespace", "b,a", "--namespace", "b"]).scopes();
        assert_eq!(named, ["a", "b"].map(|name| Scope::Namespace(name.to_owned())));
    }

    #[test]
    fn metrics_are_served_only_if_that_is_said_and_where() {
        assert_eq!(parse(&[]).custom_metrics(), None);
        let place = parse(&[
            "--own-namespace=sheaf-system",
            "--custom-metrics-service=operator",
            "--custom-metrics-secret=certificate",
        ]);
        let expected = Place {
            namespace: "sheaf-system".to_owned(),
            service: "operator".to_owned(),
            secret: "certificate".to_owned(),
        };
        assert_eq!(place.custom_metrics(), Some(expected));
        for half in ["--custom-metrics-service=a", "--custom-metrics-secret=a"] {
            let flags = ["sheaf-operator", "--identity", "one", half];
            assert!(Settings::try_parse_from(flags).is_err(), "{half}");
        }
    }

    #[test]
    fn one_aggregator_at_least_may_roll() {
        assert_eq!((parse(&[]).rolling_max, parse(&["--rolling-max=4"]).rolling_max), (1, 4));
        let none = ["sheaf-operator", "--identity", "one", "--rolling-max=0"];
        let refused = Settings::try_parse_from(none).unwrap_err().to_string();
        assert!(refused.contains("use 1 or more"), "{refused}");
    }

    #[test]
    fn an_operator_has_a_name() {
        assert!(Settings::try_parse_from(["sheaf-operator", "--identity", ""]).is_err());
    }
}
