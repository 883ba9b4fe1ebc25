//! Log files: every file that senders cut into chunks, byte for byte.

pub mod names; // what a rebuilt file is called on disk
pub mod session; // chunks of one file -> how far it reaches without a gap
