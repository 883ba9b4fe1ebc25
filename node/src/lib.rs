//! Requests in, flushed aggregates out. A module imports only those below it; `app`
//! alone knows them all.
pub mod app; // settings, start, run, drain

pub mod admin; // probes, metrics, statistics
pub mod source; // one protocol -> events; never touches the store

pub mod intake; // decode, admit, append, acknowledge: the hot path

pub mod cluster; // members and placement

pub mod flush; // fold -> due -> claim -> deliver -> complete -> trim

pub mod aggregation; // the folds; no clock, no network
pub mod sink; // ways out

pub mod checkpoint; // facts that cannot be derived again

pub mod journal; // segments, positions, cuts

pub mod store; // tables and atomic batches, in a folder or in memory

pub mod event; // what flows, and its bytes

pub mod blocking; // where work runs that takes long
pub mod failpoint; // where a test makes the node die
