//! How long senders of chunks are asked to wait before they send more.

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::refused::Refused;

impl Facts {
    /// How many seconds all senders of chunks are asked to wait; 0 if they need not.
    pub fn throttle_seconds(&self) -> u32 {
        self.throttle_seconds
    }

    pub(super) fn throttle(&mut self, seconds: u32) -> Result<Applied, Refused> {
        self.throttle_seconds = seconds;
        Ok(Applied::Done)
    }
}

/// Facts in which nobody has to wait are those that earlier versions wrote.
pub(super) fn is_none(seconds: &u32) -> bool {
    *seconds == 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::Cluster;
    use super::*;
    use crate::checkpoint::facts::command::Command;

    #[test]
    fn what_was_asked_last_holds_and_facts_in_which_nothing_was_are_as_before() {
        let mut cluster = Cluster::of(1);
        let before = serde_json::to_value(&cluster.facts).unwrap();
        assert_eq!(cluster.facts.throttle_seconds(), 0);
        cluster.accept(Command::Throttle { seconds: 7 });
        cluster.repeat(Command::Throttle { seconds: 7 });
        let json = serde_json::to_value(&cluster.facts).unwrap();
        assert_eq!(json["throttle_seconds"], 7);
        assert_eq!(serde_json::from_value::<Facts>(json).unwrap().throttle_seconds(), 7);
        cluster.accept(Command::Throttle { seconds: 0 });
        assert_eq!(serde_json::to_value(&cluster.facts).unwrap(), before);
    }
}
