//! One `LogAggregator` in, one running cluster of nodes out. A module imports only those below it.

pub mod app; // settings, start, run, drain

pub mod custom_metrics; // how full the nodes are, for whoever scales them
pub mod election; // who acts
pub mod serving; // probes and metrics

pub mod reconcile; // one round: look, decide, act, tell

pub mod context; // what every round has at hand
pub mod watches; // what is watched

pub mod decide; // what to do next; pure

pub mod build; // the objects that a valid aggregator asks for; pure, and cannot fail
#[cfg(any(test, feature = "example"))]
pub mod example; // aggregators for tests
pub mod validate; // from the resource and what was found to what cannot be wrong; pure

pub mod metrics; // what the operator tells of itself
pub mod nodes; // what nodes are asked
pub mod owned; // whose an object is, and whether it has changed

pub mod names; // what objects, labels, annotations and files are called
pub mod resource; // the LogAggregator: its fields, its rules, and how a cluster learns of it

#[cfg(test)]
mod permissions; // what the chart permits the operator
#[cfg(test)]
mod scripted; // an API server for tests
