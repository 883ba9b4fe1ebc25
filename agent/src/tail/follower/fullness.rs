//! What there is no room for, and whether people were told. No clock, no I/O.

use std::time::{Duration, Instant};

/// That there is no room is told when it lasts: under load it is so again and again.
const LASTS: Duration = Duration::from_secs(5);

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Memory for chunks under way.
    Window,
    /// Disk space for what is left of files that went away.
    Spool,
}

/// Since when there is no room.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    window: Option<Full>,
    spool: Option<Full>,
}

#[derive(Debug, Clone, Copy)]
struct Full {
    since: Instant,
    is_told: bool,
}

impl Fullness {
    /// There is no room.
    pub(super) fn note(&mut self, lack: Lack, now: Instant) {
        self.of(lack).get_or_insert(Full { since: now, is_told: false });
    }

    /// There is room again. `true`: that there was none was told.
    pub(super) fn has_ended(&mut self, lack: Lack) -> bool {
        self.of(lack).take().is_some_and(|full| full.is_told)
    }

    /// What is to be told now, and is from now on.
    pub(super) fn take_untold(&mut self, now: Instant) -> Vec<Lack> {
        let mut lasting = Vec::new();
        for lack in [Lack::Window, Lack::Spool] {
            if let Some(full) = self.of(lack)
                && !full.is_told
                && now >= full.since + LASTS
            {
                full.is_told = true;
                lasting.push(lack);
            }
        }
        lasting
    }

    /// When something is to be told, if nothing changes.
    pub(super) fn next_to_tell(&self) -> Option<Instant> {
        let untold = [self.window, self.spool].into_iter().flatten().filter(|full| !full.is_told);
        untold.map(|full| full.since + LASTS).min()
    }

    fn of(&mut self, lack: Lack) -> &mut Option<Full> {
        match lack {
            Lack::Window => &mut self.window,
            Lack::Spool => &mut self.spool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_each_lack_ends_by_itself() {
        let mut full = Fullness::default();
        let now = Instant::now();
        full.note(Lack::Window, now);
        full.note(Lack::Spool, now + LASTS);
        assert_eq!(full.next_to_tell(), Some(now + LASTS));
        assert_eq!(full.take_untold(now + LASTS), [Lack::Window]);
        assert_eq!(full.take_untold(now + LASTS), []);
        full.note(Lack::Window, now + LASTS);
        assert_eq!(full.take_untold(now + 2 * LASTS), [Lack::Spool]);
        assert!(full.has_ended(Lack::Window));
        assert!(!full.has_ended(Lack::Window));
        assert!(full.has_ended(Lack::Spool));
        assert_eq!(full.next_to_tell(), None);
    }
}
