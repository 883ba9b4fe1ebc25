//! The cluster: how it comes to be, who belongs to it, and who owns what.

pub mod membership; // from a volume to a member that takes part

pub mod printing; // the leader's lines
pub mod view; // the cluster as a node knows it, for people

pub mod gathering; // the results of all slots, added up
pub mod live; // what is counted and not flushed yet, added up
pub mod reading; // rebuilt files, whoever has them

pub mod awareness; // from when on a node packs what is new

pub mod adopting; // results of members that leave
pub mod announcing; // where this node stands
pub mod clocks; // how far clocks are apart
pub mod copying; // results from other members
pub mod cutting; // the leader's cuts
pub mod fetching; // rebuilt files from other members
pub mod filling; // what owners of slots have, to a node that is to be one
pub mod forgetting; // rebuilt files of slots that others own
pub mod gaps; // of which files only what closes their gaps is taken
pub mod keeping; // what is kept of slots that others lead
pub mod leases; // who may stamp until when
pub mod leaving; // how a node gets away
pub mod lending; // a node's journal and results, for the others
pub mod mirroring; // the open segment to its other copies
pub mod opening; // the open segment, and what follows it
pub mod pace; // how fast is copied from others
pub mod routing; // entries to where they are folded
pub mod sealing; // where a segment ends
pub mod sending; // what is kept of slots that this node leads, to their other owners
pub mod stamping; // how much each node has stamped
pub mod tidying; // what is old or full of rebuilt files

pub mod departures; // who may leave
pub mod proposals; // commands to the leader, wherever it is
pub mod standing; // what a node is to the others

pub mod peers; // what nodes ask of each other

pub mod duties; // what the leader has to see to among the members
pub mod formation; // how a cluster comes to be, decided from what everybody sees
pub mod owners; // which slots get other owners
pub mod placement; // which nodes own which slot

pub mod address; // where a node is reached
pub mod initial; // who forms a new cluster

#[cfg(test)]
mod example; // nodes for tests
