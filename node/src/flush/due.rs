//! Which windows a cut has closed.

use std::collections::BTreeSet;

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::cuts::Cut;
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
    /// The windows that are due, those that are claimed first, and then the oldest.
    pub now: Vec<Due>,
    /// Whether another one is due once more is folded.
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
    for window in candidates(aggregation, slots, open, waiting) {
        let slots = waiting(window);
        let Some(cut) = closing_cut(facts, aggregation, &slots, window) else { continue };
        if !is_reached(facts, cut, &folded) {
            dues.is_behind = true;
            break;
        }
        dues.now.push(Due { window, cut: cut.number, slots });
    }
    dues
}

/// The number of the newest cut below which everything was folded.
pub fn newest_reached(facts: &Facts, folded: impl Fn(u64) -> u64) -> Option<u64> {
    facts.cuts().filter(|cut| is_reached(facts, cut, &folded)).map(|cut| cut.number).max()
}

/// The windows that are open or claimed, or have something in other slots, in the order in
/// which they end. Those that are claimed come first, for a slot can claim no other before:
/// an older one may have waited for a cut that misses nothing of it.
fn candidates(
    aggregation: &Aggregation,
    slots: &SlotSet,
    open: impl Iterator<Item = Window>,
    waiting: impl Fn(Window) -> SlotSet,
) -> Vec<Window> {
    let claimed = slots.iter().filter_map(|slot| Some(aggregation.progress(slot).claimed?.window));
    let claimed: BTreeSet<Window> = claimed.collect();
    let known = aggregation.windows.iter().map(|(&start, fact)| Window { start, end: fact.end });
    let waits = |window: &Window| !waiting(*window).is_empty();
    let all = known.filter(waits).chain(claimed.iter().copied()).chain(open);
    let mut all: Vec<_> = BTreeSet::from_iter(all).into_iter().collect();
    all.sort_by_key(|window| (!claimed.contains(window), window.end, window.start));
    all
}

/// The cut at which a window is claimed: the one at which it was claimed before, or the first
/// after its end that misses nothing of it.
pub fn closing_cut<'a>(
    facts: &'a Facts,
    aggregation: &Aggregation,
    slots: &SlotSet,
    window: Window,
) -> Option<&'a Cut> {
    let claimed = |slot: Slot| aggregation.progress(slot).claimed.filter(|c| c.window == window);
    let claimed = slots.iter().find_map(claimed).and_then(|claim| facts.cut(claim.cut));
    let closes = |cut: &&Cut| cut.time >= window.end && cut.missing_of(window).next().is_none();
    claimed.or_else(|| facts.cuts().find(closes))
}

/// Whether everything below a cut was folded. Segments that are gone were needed by nobody.
fn is_reached(facts: &Facts, cut: &Cut, folded: &impl Fn(u64) -> u64) -> bool {
    let is_folded = |segment, entries| {
        !facts.segments().contains_key(&segment)
            || folded(segment) >= entries
            || is_to_fail("planted-claim-unfolded")
    };
    cut.counts.iter().all(|(&segment, extent)| is_folded(segment, extent.entries))
}
