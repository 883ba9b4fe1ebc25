//! One `LogAggregator` in, one running cluster of nodes out. A module imports only those below it.

pub mod build; // the objects that a valid aggregator asks for; pure, and cannot fail
pub mod names; // what objects, labels, annotations and files are called
pub mod resource;
pub mod validate; // from the resource and what was found to what cannot be wrong; pure // the LogAggregator: its fields, its rules, and how a cluster learns of it

#[cfg(test)]
mod example; // an aggregator for tests
