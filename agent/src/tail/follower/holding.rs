//! Sessions of which a node does not take the next chunk, as it is: too large for it, say. A chunk
//! that was noted cannot be cut anew, since the node before may have taken it; another node may
//! take it, or this one when it was told to take more. Until then the others go on.

use std::time::{Duration, Instant};

use super::Follower;
use crate::tail::{report::tell_of, session::Key};

/// It is sent again after this time at first, and then after twice as long each time ..
const WAIT_MIN: Duration = Duration::from_secs(5);
/// .. up to this.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Until when a session waits, and which chunk it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) until: Instant,
    seq: u64,
    wait: Duration,
}

impl Follower {
    /// A node does not take a chunk: it and what follows on it are sent again, later.
    pub(super) fn put_off(&mut self, key: Key, seq: u64, reason: &str) {
        self.unhand(key, seq);
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return;
        };
        let wait = file.held.map_or(WAIT_MIN, |held| WAIT_MAX.min(2 * held.wait));
        let until = Instant::now() + wait;
        if file.held.replace(Held { until, seq, wait }).is_none() {
            let cut = session.unanswered.iter().find(|cut| cut.seq == seq);
            let length = cut.map_or(0, |cut| cut.length);
            let text = format!(
                "ERROR: chunk {seq} of {length} bytes is not taken: {reason}. The file waits, and \
                 no other; the chunk is sent again as it is. If it is too large, raise \
                 --max-request-size (maxRequestSize) of the nodes; a smaller --chunk-size counts \
                 for what is not cut yet"
            );
            tell_of(&session.path, &text);
        }
        self.look_at(key, until);
    }

    /// A chunk that was handed over was not sent.
    pub(super) fn unhand(&mut self, key: Key, seq: u64) {
        if let Some(file) = self.files.get_mut(&key) {
            file.handed = file.handed.min(seq - 1);
        }
    }

    /// A node took this chunk of a session.
    pub(super) fn release(&mut self, key: Key, seq: u64) {
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return;
        };
        if file.held.take_if(|held| held.seq <= seq).is_some() {
            tell_of(&session.path, "its chunks are taken again");
        }
    }
}
