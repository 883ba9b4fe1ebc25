//! Sheaf on a real Kubernetes, as its users have it: `make e2e` makes one, installs the chart,
//! and runs these. Each test has a namespace, and with it a cluster of nodes, of its own.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod agents; // what follows the logs of all containers
mod evidence; // what the cluster says when a test fails
mod ledger; // sent = acknowledged = counted
mod load; // senders that run in the cluster
mod machine; // what is done to machines, also from outside of Kubernetes
mod operator; // what is done to the operator
mod release; // the chart, as it is installed
mod scene; // a namespace, an aggregator in it, and waiting for what becomes of it

mod counting; // what is sent is counted exactly
mod custom_metrics; // what autoscalers are told
mod deletion; // what goes and what stays
mod drift; // what somebody else changes or deletes
mod failures; // what dies comes back, and nothing is lost
mod generated; // what is built of any aggregator
mod manifests; // what is refused, and in which words
mod rolling; // other pods, other settings, other images
mod scaling; // more nodes, fewer nodes, and changes of mind

mod alone; // what others would notice: one test at a time
mod slow; // what takes minutes: one at a time, and only when all tests are run
