//! A few facts to agree on.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::{Facts, Settings};
use crate::event::node::NodeId;

/// The facts before the first command.
pub(crate) fn initial() -> Facts {
    Facts::new(Settings { slots: 4 })
}

/// A command that is always allowed.
pub(crate) fn count_up() -> Command {
    join("node:4000".to_owned())
}

/// A command of a little more than this many bytes.
pub(crate) fn large(bytes: usize) -> Command {
    join("n".repeat(bytes))
}

/// How many commands were applied.
pub(crate) fn counted(facts: &Facts) -> u64 {
    facts.members().len() as u64
}

/// A command that is never allowed.
pub(crate) fn forbidden() -> Command {
    Command::Activate { node: NodeId(u64::MAX) }
}

/// Somebody new joins.
fn join(address: String) -> Command {
    static BORN: AtomicU64 = AtomicU64::new(1);
    let uuid = Uuid::from_u128(BORN.fetch_add(1, Ordering::Relaxed).into());
    Command::Join { uuid, address, zone: None }
}
