//! The cluster: how it comes to be, who belongs to it, and who owns what.

pub mod membership; // from a volume to a member that takes part

pub mod view; // the cluster as a node knows it, for people

pub mod proposals; // commands to the leader, wherever it is
pub mod standing; // what a node is to the others

pub mod peers; // what nodes ask of each other

pub mod duties; // what the leader has to see to among the members
pub mod formation; // how a cluster comes to be, decided from what everybody sees
pub mod placement; // which nodes own which slot

pub mod address; // where a node is reached
pub mod initial; // who forms a new cluster

#[cfg(test)]
mod example; // nodes for tests
