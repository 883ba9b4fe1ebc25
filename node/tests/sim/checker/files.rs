//! What has to hold of files, when everything has had the time to be put together.

use super::{Contradiction, Known, Written};

/// Whether each file is whole, on as many nodes as there are `copies`.
pub(super) fn judge(known: &Known<'_>, copies: usize, found: &mut Vec<Contradiction>) {
    for (file, Written { bytes, unanswered, checkpointed, .. }) in &known.files {
        if let Some(seq) = unanswered.first() {
            found.push(format!("stuck: chunk {seq} of {file} was never acknowledged"));
            continue;
        }
        let whole = checkpointed.values().filter(|found| *found == bytes).count();
        // What only machines had that are gone is lost, and what follows waits.
        if whole < copies && !known.has_destroyed {
            found.push(format!(
                "missing: {file} has {bytes} bytes, but nodes have {checkpointed:?} of it"
            ));
        }
    }
}
