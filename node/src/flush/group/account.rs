//! One aggregation's open windows, in some slots.

use std::collections::BTreeMap;

use super::{Closing, Positions};
use crate::aggregation::distinct_logs::{OpenWindow, Sizes, SlotRecords};
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::Facts;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
use crate::failpoint::is_to_fail;
use crate::flush::carried::Kept;
use crate::flush::due::Due;
use crate::flush::feed::Part;
use crate::flush::{Aggregation, FlushError, FlushSettings};

/// One aggregation's open windows.
pub(super) struct Account {
    pub(super) aggregation: Aggregation,
    /// The first entry of each segment that is its own, and was not flushed or carried.
    pub(super) begin: Positions,
    /// What is stamped then or later is not its own.
    pub(super) end: Option<UnixNanos>,
    pub(super) windows: BTreeMap<Window, Open>,
    /// Windows that are being handed out, with what was folded into them.
    pub(super) closing: BTreeMap<Window, SlotRecords>,
    /// How large the last window became.
    pub(super) like: Option<Sizes>,
}

pub(super) struct Open {
    /// The first entry of each segment that is not in what was carried.
    pub(super) begin: Positions,
    /// The bytes that the group had folded before the first entry that is not carried.
    pub(super) bytes_before: u64,
    pub(super) state: OpenWindow,
    /// Its records that were stamped since the newest cut, by second.
    pub(super) recent: BTreeMap<UnixNanos, SlotRecords>,
    /// Whether it has more than what was carried.
    pub(super) has_grown: bool,
}

impl Account {
    pub(super) fn new(
        aggregation: Aggregation,
        begin: Positions,
        end: Option<UnixNanos>,
    ) -> Account {
        let (windows, closing) = (BTreeMap::new(), BTreeMap::new());
        Account { aggregation, begin, end, windows, closing, like: None }
    }

    /// Whether nothing is open, and nothing on its way out.
    pub(super) fn is_idle(&self) -> bool {
        self.windows.is_empty() && self.closing.is_empty()
    }

    pub(super) fn begin(&self, segment: u64) -> u64 {
        self.begin.get(&segment).copied().unwrap_or(0)
    }

    /// Goes on with a window where it was carried.
    pub(super) fn take_up(
        &mut self,
        carry: Carry,
        settings: &FlushSettings,
    ) -> Result<(), FlushError> {
        let kept = Kept::of(&carry)?;
        let Carry { window, next, .. } = carry;
        let state = OpenWindow::resume(settings.window_memory, &settings.scratch, kept.state)?;
        let recent = kept.recent.into_iter().collect();
        let (begin, bytes_before, has_grown) = (next, 0, false);
        self.windows.insert(window, Open { begin, bytes_before, state, recent, has_grown });
        Ok(())
    }

    /// The window that an entry falls into, or `None` if it was flushed or carried before, or
    /// is not the aggregation's any more.
    pub(super) fn window(
        &mut self,
        segment: u64,
        part: &Part,
        bytes_before: u64,
        settings: &FlushSettings,
    ) -> Option<&mut Open> {
        if part.index < self.begin(segment) || self.end.is_some_and(|end| end <= part.stamp) {
            return None;
        }
        let seconds = self.aggregation.definition.kind.window_seconds()?;
        let mut window = Window::of(part.stamp, seconds);
        if is_to_fail("planted-fold-as-it-arrives") {
            window = self.windows.keys().next_back().copied().unwrap_or(window).max(window);
        }
        let like = self.like.as_ref();
        let open = self.windows.entry(window).or_insert_with(|| Open {
            begin: Positions::new(),
            bytes_before,
            state: OpenWindow::new(settings.window_memory, &settings.scratch, like),
            recent: BTreeMap::new(),
            has_grown: false,
        });
        let carried = open.begin.get(&segment).copied().unwrap_or(0);
        (part.index >= carried).then_some(open)
    }

    /// Takes a window out. With it the journal before the cut is given up, if the cut is the
    /// window's end: what older windows that stay open have of it is kept.
    pub(super) fn close(
        &mut self,
        due: Due,
        facts: &Facts,
        slots: &SlotSet,
        next: &Positions,
        bytes: u64,
    ) -> Result<Option<Closing>, FlushError> {
        let open = self.windows.remove(&due.window);
        if due.slots.is_empty() {
            return Ok(None);
        }
        let state = open.map(|open| open.state);
        let records = state.as_ref().map(|state| state.records().clone()).unwrap_or_default();
        self.like = state.as_ref().map(OpenWindow::sizes).or(self.like);
        self.closing.insert(due.window, records);
        let gives_up = facts.cut(due.cut).is_some_and(|cut| cut.time == due.window.end);
        let older = |window: Window| gives_up && window.end < due.window.end;
        let carries = self.carry(older, slots, next, bytes)?;
        Ok(Some(Closing { aggregation: self.aggregation.clone(), due, state, carries }))
    }

    /// Records of slots that were stamped before a time, and that the facts do not know as
    /// flushed. No cut is later.
    pub(super) fn pending(&self, facts: &Facts, slots: &SlotSet, before: UnixNanos) -> u64 {
        let Some(known) = facts.aggregations().get(&self.aggregation.number) else { return 0 };
        let now = facts.latest_cut().time;
        let waiting = |window: Window| -> SlotSet {
            slots.iter().filter(|&slot| known.waits_for(slot, window, now)).collect()
        };
        let open = self.windows.iter().map(|(&window, open)| open.before(before, &waiting(window)));
        let closing = self.closing.iter().map(|(&window, records)| records.of(&waiting(window)));
        open.chain(closing).sum()
    }

    /// A cut was made: what was stamped before it is not told apart any more.
    pub(super) fn cut(&mut self, time: UnixNanos) {
        for open in self.windows.values_mut() {
            open.recent = open.recent.split_off(&time);
        }
    }

    /// Makes the states of such windows durable that have more than what was carried of them.
    pub(super) fn carry(
        &mut self,
        such: impl Fn(Window) -> bool,
        slots: &SlotSet,
        next: &Positions,
        bytes: u64,
    ) -> Result<Vec<Carry>, FlushError> {
        let mut carries = Vec::new();
        let such = |(window, open): &(&Window, &mut Open)| open.has_grown && such(**window);
        for (&window, open) in self.windows.iter_mut().filter(such) {
            let state = open.state.carry()?;
            let recent = open.recent.iter().map(|(&second, records)| (second, records.clone()));
            let kept = Kept { state, recent: recent.collect() };
            (open.bytes_before, open.has_grown) = (bytes, false);
            // It may have been carried when the group was further than it is in this life.
            open.begin = later(&open.begin, next);
            carries.push(Carry {
                aggregation: self.aggregation.number,
                window,
                slots: *slots,
                next: open.begin.clone(),
                state: kept.written()?,
            });
        }
        Ok(carries)
    }
}

impl Open {
    fn before(&self, time: UnixNanos, slots: &SlotSet) -> u64 {
        let later = self.recent.range(time..).map(|(_, records)| records.of(slots));
        self.state.records().of(slots).saturating_sub(later.sum())
    }
}

/// Of each segment, the later of two entries.
fn later(one: &Positions, other: &Positions) -> Positions {
    let mut later = one.clone();
    for (&segment, &index) in other {
        let known = later.entry(segment).or_default();
        *known = index.max(*known);
    }
    later
}
