//! Which windows a cut has closed.

use std::collections::BTreeSet;

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::cuts::Cut;
use crate::checkpoint::facts::windows::WindowFact;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::failpoint::is_to_fail;

/// A window that is due in some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The window.
    pub window: Window,
    /// The number of the cut at which it is claimed.
    pub cut: u64,
    /// The slots that it is claimed for. None are left if all were flushed before: then what
    /// was folded again is not needed.
    pub slots: SlotSet,
}

/// What is due, and what will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dues {
    /// The windows that are due: what is claimed already, and then the oldest first.
    pub now: Vec<Due>,
    /// Whether another one may be due once more is folded.
    pub is_behind: bool,
}

/// The windows of an aggregation that are due in `slots` when `folded` tells for each segment
/// which entry is folded next.
///
/// Something was folded into the windows in `open`; of others, a window is due if the facts
/// know that another slot has something of it: an absent slot is missing, never empty. A
/// window of which a cut misses something waits for one that does not.
pub fn due(
    facts: &Facts,
    number: u32,
    slots: &SlotSet,
    open: impl Iterator<Item = Window>,
    folded: impl Fn(u64) -> u64,
) -> Dues {
    let mut dues = Dues::default();
    let Some(aggregation) = facts.aggregations().get(&number) else { return dues };
    let waiting = |window: Window| -> SlotSet {
        let now = facts.latest_cut().time;
        slots.iter().filter(|&slot| aggregation.waits_for(slot, window, now)).collect()
    };
    let claimed = slots.iter().filter_map(|slot| Some(aggregation.progress(slot).claimed?.window));
    let claimed: BTreeSet<_> = claimed.collect();
    // Most windows of the last hour wait for nobody.
    let waits = |fact: &WindowFact| {
        !fact.waiting.is_empty() && slots.iter().any(|slot| fact.waiting.contains(slot))
    };
    let waited_for = aggregation.windows.iter().filter(|(_, fact)| waits(fact));
    let waited_for = waited_for.map(|(&start, fact)| Window { start, end: fact.end });
    let candidates = open.chain(waited_for).chain(claimed.iter().copied());
    // A slot has one claim at a time: what is claimed comes first, then what ended first.
    let order = |window: Window| (!claimed.contains(&window), window.end, window);
    let candidates: BTreeSet<_> = candidates.map(order).collect();
    for (_, _, window) in candidates {
        let slots = waiting(window);
        let Some(cut) = closing_cut(facts, aggregation, &slots, window) else { continue };
        if !is_reached(facts, cut, &folded) {
            dues.is_behind = true;
            break;
        }
        dues.now.push(Due { window, cut: cut.number, slots });
    }
    // What is not folded yet may belong to a window that is not open yet.
    dues.is_behind |= !is_reached(facts, facts.latest_cut(), &folded);
    dues
}

/// The number of the newest cut below which everything was folded.
pub fn newest_reached(facts: &Facts, folded: impl Fn(u64) -> u64) -> Option<u64> {
    facts.cuts().filter(|cut| is_reached(facts, cut, &folded)).map(|cut| cut.number).max()
}

/// The cut at which a window is claimed: the one at which it was claimed before, or the first
/// after its end that misses nothing of it and that all these slots can go on from.
pub fn closing_cut<'a>(
    facts: &'a Facts,
    aggregation: &Aggregation,
    slots: &SlotSet,
    window: Window,
) -> Option<&'a Cut> {
    let claimed = |slot: Slot| aggregation.progress(slot).claimed.filter(|c| c.window == window);
    let claimed = slots.iter().find_map(claimed).and_then(|claim| facts.cut(claim.cut));
    let carried = slots.iter().map(|slot| aggregation.carried(slot)).max().unwrap_or(0);
    let closes = |cut: &&Cut| {
        cut.number >= carried && cut.time >= window.end && cut.missing_of(window).next().is_none()
    };
    claimed.or_else(|| facts.cuts().find(closes))
}

/// Whether everything below a cut was folded. Segments that are gone were needed by nobody.
pub fn is_reached(facts: &Facts, cut: &Cut, folded: &impl Fn(u64) -> u64) -> bool {
    let is_folded = |segment, entries| {
        !facts.segments().contains_key(&segment)
            || folded(segment) >= entries
            || is_to_fail("planted-claim-unfolded")
    };
    cut.counts.iter().all(|(&segment, extent)| is_folded(segment, extent.entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::event::time::UnixNanos;
    use crate::flush::example::{Cluster, at, slots, window};

    const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

    /// What is due in all slots of these open windows when so much of each segment is folded.
    fn dues(cluster: &Cluster, open: &[Window], folded: u64) -> Dues {
        due(&cluster.now(), 0, &slots("0-255"), open.iter().copied(), |_| folded)
    }

    fn due_now(cluster: &Cluster, open: &[Window]) -> Vec<(Window, u64, String)> {
        let Dues { now, is_behind } = dues(cluster, open, u64::MAX);
        assert!(!is_behind);
        now.into_iter().map(|due| (due.window, due.cut, due.slots.to_string())).collect()
    }

    fn all(window: Window, cut: u64) -> (Window, u64, String) {
        (window, cut, "0-255".to_owned())
    }

    #[test]
    fn a_window_is_due_at_the_first_cut_at_its_end_and_not_before() {
        let cluster = Cluster::of(1);
        cluster.cut(9, &[]);
        assert_eq!(due_now(&cluster, &[FIRST]), []);
        let end = cluster.cut(10, &[]);
        cluster.cut(11, &[]);
        assert_eq!(due_now(&cluster, &[FIRST]), [all(FIRST, end)]);
    }

    #[test]
    fn a_claimed_window_is_due_at_the_cut_at_which_it_was_claimed() {
        let cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let claimed = cluster.cut(11, &[]);
        cluster.claim(1, "0-255", FIRST, claimed);
        assert_eq!(due_now(&cluster, &[FIRST]), [all(FIRST, claimed)]);
        assert_eq!(due_now(&cluster, &[]), [all(FIRST, claimed)], "though nothing was folded");
    }

    #[test]
    fn a_claimed_window_comes_before_older_ones_for_a_slot_has_one_claim_at_a_time() {
        let cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let second = cluster.cut(20, &[]);
        cluster.claim(1, "0-255", window(10, 20), second);
        let found = due_now(&cluster, &[FIRST, window(10, 20)]);
        assert_eq!(found.iter().map(|due| due.0).collect::<Vec<_>>(), [window(10, 20), FIRST]);
    }

    #[test]
    fn a_cut_that_misses_something_of_a_window_is_passed_over_and_holds_no_later_window_up() {
        let cluster = Cluster::of(1);
        let segment = cluster.open(1);
        cluster.cut(5, &[(segment, 3)]);
        cluster.cut(10, &[]);
        assert_eq!(due_now(&cluster, &[FIRST]), []);
        // Its writer is being sealed, and had stamped nothing from second 10 on.
        cluster.apply(Command::BeginSeal { segment, ceiling: at(10) });
        let end = cluster.cut(20, &[]);
        assert_eq!(due_now(&cluster, &[FIRST, window(10, 20)]), [all(window(10, 20), end)]);
        let told = cluster.cut(21, &[(segment, 4)]);
        assert_eq!(due_now(&cluster, &[FIRST]), [all(FIRST, told)]);
    }

    #[test]
    fn a_window_is_not_due_before_all_segments_are_folded_up_to_the_cut() {
        let cluster = Cluster::of(2);
        let (one, other) = (cluster.open(1), cluster.open(2));
        let end = cluster.cut(10, &[(one, 3), (other, 5)]);
        let behind = Dues { now: Vec::new(), is_behind: true };
        assert_eq!(dues(&cluster, &[FIRST], 4), behind);
        let Dues { now, is_behind } = dues(&cluster, &[FIRST], 5);
        assert_eq!((now.len(), now[0].cut, is_behind), (1, end, false));
        let folded = |segment| if segment == one { 2 } else { 5 };
        let facts = cluster.now();
        assert_eq!(due(&facts, 0, &slots("0-9"), [FIRST].into_iter(), folded), behind);
    }

    #[test]
    fn a_window_that_is_not_open_yet_may_be_due_once_more_is_folded() {
        let cluster = Cluster::of(1);
        let segment = cluster.open(1);
        cluster.cut(10, &[(segment, 3)]);
        assert!(dues(&cluster, &[], 2).is_behind);
        assert!(!dues(&cluster, &[], 3).is_behind);
    }

    #[test]
    fn segments_that_nobody_needs_any_more_are_not_waited_for() {
        let cluster = Cluster::of(1);
        let segment = cluster.open(1);
        cluster.seal(segment, 3, 5);
        let end = cluster.cut(10, &[]);
        cluster.flush(1, "0-255", FIRST, end);
        assert!(!cluster.now().segments().contains_key(&segment));
        assert_eq!(newest_reached(&cluster.now(), |_| 0), Some(end));
    }

    #[test]
    fn slots_that_were_flushed_are_left_out() {
        let cluster = Cluster::of(1);
        let end = cluster.cut(10, &[]);
        cluster.flush(1, "0-9", FIRST, end);
        let rest = (FIRST, end, "10-255".to_owned());
        assert_eq!(due_now(&cluster, &[FIRST]), [rest]);
        cluster.flush(1, "10-255", FIRST, end);
        assert_eq!(due_now(&cluster, &[]), []);
        assert_eq!(due_now(&cluster, &[FIRST]), [(FIRST, end, String::new())]);
    }

    #[test]
    fn a_window_of_which_only_others_have_something_is_due() {
        let cluster = Cluster::of(2);
        cluster.place("0-9", 2);
        let end = cluster.cut(10, &[]);
        assert_eq!(due_now(&cluster, &[]), []);
        cluster.claim(2, "0", FIRST, end);
        cluster.complete(2, "0");
        let found = due(&cluster.now(), 0, &slots("10-255"), [].into_iter(), |_| u64::MAX);
        assert_eq!(found.now, [Due { window: FIRST, cut: end, slots: slots("10-255") }]);
    }

    #[test]
    fn a_window_that_others_tell_of_late_is_due_at_a_cut_from_which_the_slots_can_go_on() {
        let cluster = Cluster::of(2);
        cluster.place("0-9", 2);
        let end = cluster.cut(10, &[]);
        let next = cluster.cut(20, &[]);
        cluster.flush(1, "10-255", window(10, 20), next);
        cluster.flush(2, "0-9", FIRST, end);
        let found = due(&cluster.now(), 0, &slots("10-255"), [].into_iter(), |_| u64::MAX);
        assert_eq!(found.now, [Due { window: FIRST, cut: next, slots: slots("10-255") }]);
    }

    #[test]
    fn windows_are_due_in_the_order_of_their_ends() {
        let cluster = Cluster::of(1);
        let end = cluster.cut(30, &[]);
        let open = [window(20, 30), FIRST, window(10, 20)];
        let expected = [all(FIRST, end), all(window(10, 20), end), all(window(20, 30), end)];
        assert_eq!(due_now(&cluster, &open), expected);
    }

    #[test]
    fn the_newest_cut_is_reached_when_all_that_it_counts_is_folded() {
        let cluster = Cluster::of(1);
        let segment = cluster.open(1);
        let first = cluster.cut(5, &[(segment, 3)]);
        let second = cluster.cut(6, &[(segment, 7)]);
        let reached = |folded| newest_reached(&cluster.now(), |_| folded);
        assert_eq!([2, 3, 6, 7].map(reached), [1, first, first, second].map(Some));
    }
}
