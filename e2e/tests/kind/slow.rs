//! What takes minutes: one test at a time, and only when all tests are run.

mod autoscaled; // as many nodes as the queues ask for
mod files; // logs of containers that are rebuilt
mod many; // two hundred aggregators
mod stopped; // a machine that is turned off
