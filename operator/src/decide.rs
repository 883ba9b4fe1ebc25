//! What to do next, decided from what was seen. Facts come in, steps go out: nothing in here
//! reads, writes, waits or remembers.

pub mod plan; // a whole round

pub mod conditions; // what is told of it
pub mod departed; // members whose machine or volume is lost
pub mod replicas; // how many pods a StatefulSet begins with
pub mod retained; // whose volumes these are
pub mod rolling; // which pod is replaced by its new version next
pub mod scaling; // how many pods there are next, and who leaves before
pub mod settled; // whether the cluster could do without one more node
pub mod storage; // volumes that grow, and those that hold nothing any more

pub mod fleet; // pods, volumes and members, as they were seen
