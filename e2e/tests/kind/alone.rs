//! What others would notice, such as an operator that is gone: one test at a time.

mod adapter; // who else tells autoscalers how full things are
mod drained; // a machine that is drained
mod namespace; // a namespace that is deleted while there is no operator
mod operator_killed; // an operator that is killed in the middle of something
mod scoped; // an operator of one namespace
