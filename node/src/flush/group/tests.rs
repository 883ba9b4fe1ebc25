use super::*;
use crate::aggregation::distinct_logs::MemoryLimit;
use crate::checkpoint::facts::command::Command;
use crate::event::entry::{EntryWriter, RequestId};
use crate::event::node::NodeId;
use crate::flush::example::{Appended, Cluster, at, entry, packed, register, slots, window};
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

/// A group of all slots, and what it is folded from.
struct Fold {
    cluster: Arc<Cluster>,
    appended: Appended,
    scratch: tempfile::TempDir,
}

impl Fold {
    fn of(cluster: Arc<Cluster>) -> Fold {
        let (appended, scratch) = (Appended::default(), tempfile::tempdir().unwrap());
        Fold { cluster, appended, scratch }
    }

    fn settings(&self, journal_bytes_max: u64) -> FlushSettings {
        let scratch = self.scratch.path().to_owned();
        let memory = 1 << 20;
        FlushSettings { memory, window_memory: MemoryLimit(memory), scratch, journal_bytes_max }
    }

    fn resume(&self, slots: SlotSet, carries: Vec<Carry>) -> Group {
        self.resume_from(slots, BTreeMap::new(), carries)
    }

    fn resume_from(&self, slots: SlotSet, from: BTreeMap<u32, u64>, carries: Vec<Carry>) -> Group {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let files = Files::new(self.scratch.path().join("files"), store);
        Group::resume(slots, from, carries, &self.cluster.now(), &self.settings(0), &files).unwrap()
    }

    fn begin(&self) -> Group {
        self.resume(slots("0-255"), Vec::new())
    }

    /// Appends an entry with one record in each of these slots.
    fn append(&mut self, segment: u64, second: u64, records: &[(u8, u64)]) {
        self.appended.push(segment, at(second), entry(0, records));
    }

    /// Folds what was appended to a segment, from its beginning, and says whether it could.
    fn fold(&self, group: &mut Group, segment: u64) -> bool {
        let batch = self.appended.batch(segment, 0, usize::MAX, &slots("0-255"));
        group.fold(segment, &batch, &self.settings(0)).unwrap()
    }

    fn register(&self, group: &mut Group) {
        group.register(&self.cluster.now(), &self.settings(0)).unwrap();
    }

    fn close(&self, group: &mut Group) -> Vec<Closing> {
        let decided = self.appended.decided(&self.cluster.now());
        assert!(group.decide(&decided, &self.settings(0)).unwrap());
        group.close(&self.cluster.now()).unwrap().now
    }
}

/// Records and distinct ones of each slot in a window.
fn totals(closing: Closing) -> Vec<(u8, u64, u64)> {
    let closed = closing.state.map(|state| state.close(9).unwrap().slots).unwrap_or_default();
    closed.into_iter().map(|totals| (totals.slot, totals.records, totals.distinct)).collect()
}

/// The windows with the slots that claim them.
fn due_slots(closings: &[Closing]) -> Vec<(Window, String)> {
    closings.iter().map(|closing| (closing.due.window, closing.due.slots.to_string())).collect()
}

/// A cluster in which the first window stays open: a segment that ended before its end is
/// not told of.
fn with_missing() -> (Fold, u64, u64) {
    let cluster = Cluster::of(2);
    let (own, missing) = (cluster.open(1), cluster.open(2));
    cluster.apply(Command::BeginSeal { segment: missing, ceiling: at(10) });
    (Fold::of(cluster), own, missing)
}

#[test]
fn an_entry_is_folded_once_however_often_it_comes() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    for body in 1..=3 {
        fold.append(segment, 5, &[(7, body), (8, 1)]);
        assert!(fold.fold(&mut group, segment));
        assert_eq!(group.next(segment), body);
    }
    fold.cluster.cut(10, &fold.appended.counts());
    let [closing] = <[_; 1]>::try_from(fold.close(&mut group)).ok().unwrap();
    assert_eq!(totals(closing), [(7, 3, 3), (8, 3, 1)]);
}

#[test]
fn positions_that_say_nothing_of_the_slots_are_passed() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    group.fold(segment, &Batch { next: 5, parts: Vec::new() }, &fold.settings(0)).unwrap();
    assert_eq!(group.next(segment), 5);
    fold.append(segment, 5, &[(7, 1)]);
    fold.fold(&mut group, segment);
    assert_eq!(group.next(segment), 5, "an older batch changes nothing");
    assert_eq!(group.current(9).count(), 0);
}

#[test]
fn what_was_flushed_is_not_folded_again() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    for (second, body) in [(5, 1), (9, 2), (11, 3)] {
        fold.append(segment, second, &[(7, body)]);
    }
    let end = fold.cluster.cut(10, &[(segment, 2)]);
    fold.cluster.flush(1, "0-255", FIRST, end);
    let mut group = fold.begin();
    assert_eq!(group.next(segment), 2);
    fold.fold(&mut group, segment);
    let open: Vec<_> = group.current(9).map(|open| (open.window, open.counts.records)).collect();
    assert_eq!(open, [(window(10, 20), 1)]);
}

#[test]
fn what_is_folded_again_of_a_flushed_window_is_dropped() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    fold.append(segment, 5, &[(7, 1)]);
    let later = fold.cluster.cut(12, &[(segment, 1)]);
    fold.cluster.flush(1, "0-255", FIRST, later);
    let mut group = fold.begin();
    assert_eq!(group.next(segment), 0, "the cut has something of the next window");
    fold.fold(&mut group, segment);
    assert_eq!(group.current(9).count(), 1);
    assert_eq!(due_slots(&fold.close(&mut group)), []);
    assert_eq!(group.current(9).count(), 0);
}

#[test]
fn an_aggregation_that_is_not_known_yet_is_waited_for() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    fold.append(segment, 5, &[(7, 1)]);
    fold.appended.push(
        segment,
        at(6),
        packed(EntryWriter::new(None), &[(0, &[(7, 2)]), (1, &[(9, 2)])]),
    );
    assert!(!fold.fold(&mut group, segment));
    assert_eq!(group.next(segment), 1);
    fold.cluster.apply(register(&[("by-foo", 10), ("by-bar", 10)]));
    fold.cluster.aware(segment);
    fold.register(&mut group);
    assert!(!fold.fold(&mut group, segment), "it has not begun");
    fold.cluster.cut(6, &[(segment, 1)]);
    fold.register(&mut group);
    assert!(fold.fold(&mut group, segment));
    let open: Vec<_> = group.current(9).map(|open| open.counts.records).collect();
    assert_eq!(open, [2, 1]);
}

#[test]
fn an_aggregation_counts_nothing_from_before_it_began() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    for body in 1..=3 {
        let both: &[(u32, &[(u8, u64)])] = &[(0, &[(7, body)]), (1, &[(7, body)])];
        fold.appended.push(segment, at(1 + body), packed(EntryWriter::new(None), both));
    }
    fold.cluster.apply(register(&[("by-foo", 10), ("by-bar", 10)]));
    fold.cluster.aware(segment);
    fold.cluster.cut(4, &[(segment, 2)]);
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    let open: Vec<_> = group.current(9).map(|open| open.counts.records).collect();
    assert_eq!(open, [3, 1]);
}

#[test]
fn an_aggregation_counts_nothing_that_is_stamped_at_its_end_or_later() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let both: &[(u32, &[(u8, u64)])] = &[(0, &[(7, 1)]), (1, &[(7, 1)])];
    for second in [3, 4, 5] {
        fold.appended.push(segment, at(second), packed(EntryWriter::new(None), both));
    }
    fold.cluster.apply(register(&[("by-bar", 10)]));
    fold.cluster.aware(segment);
    fold.cluster.cut(4, &[(segment, 1)]);
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    let open: Vec<_> = group.current(9).map(|open| open.counts.records).collect();
    assert_eq!(open, [1, 2]);
}

#[test]
fn an_aggregation_that_has_ended_holds_nobody_up() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    fold.cluster.apply(register(&[("by-bar", 10)]));
    fold.cluster.aware(segment);
    fold.cluster.cut(5, &[(segment, 0)]);
    let end = fold.cluster.cut(10, &[(segment, 0)]);
    fold.cluster.flush(1, "0-255", FIRST, end);
    for second in 11..90 {
        fold.cluster.cut(second, &[(segment, 0)]);
    }
    assert_eq!(fold.cluster.now().cut(end), None, "nobody goes on from there");
    fold.appended.push(segment, at(91), entry(1, &[(7, 1)]));
    let mut group = fold.begin();
    assert!(fold.fold(&mut group, segment));
    assert_eq!(group.current(9).map(|open| open.counts.records).sum::<u64>(), 1);
}

#[test]
fn slots_that_left_are_not_claimed() {
    let mut fold = Fold::of(Cluster::of(2));
    let segment = fold.cluster.open(1);
    fold.append(segment, 5, &[(7, 1), (9, 1)]);
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    group.retain(|slot| slot < 8);
    fold.cluster.cut(10, &[(segment, 1)]);
    assert_eq!(due_slots(&fold.close(&mut group)), [(FIRST, "0-7".to_owned())]);
}

#[test]
fn a_window_is_handed_out_once_until_it_was() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    fold.append(segment, 5, &[(7, 1)]);
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    fold.cluster.cut(10, &[(segment, 1)]);
    assert_eq!(fold.close(&mut group).len(), 1);
    assert_eq!(fold.close(&mut group).len(), 0);
    group.closed(0, FIRST);
    assert_eq!(due_slots(&fold.close(&mut group)).len(), 0, "nobody else has something of it");
}

#[test]
fn older_windows_that_stay_open_are_carried_when_a_later_one_gives_up_the_journal() {
    let (mut fold, own, missing) = with_missing();
    for (second, body) in [(5, 1), (15, 2), (25, 3), (35, 4)] {
        fold.append(own, second, &[(7, body)]);
    }
    let mut group = fold.begin();
    let carried = |closings: &[Closing]| -> Vec<Window> {
        closings.iter().flat_map(|closing| &closing.carries).map(|carry| carry.window).collect()
    };
    fold.fold(&mut group, own);
    fold.cluster.cut(20, &[(own, 2)]);
    let closings = fold.close(&mut group);
    assert_eq!(due_slots(&closings), [(window(10, 20), "0-255".to_owned())]);
    assert_eq!(carried(&closings), [FIRST]);
    assert_eq!(closings[0].carries[0].next, [(own, 4), (missing, 0)].into());

    fold.cluster.cut(30, &[(own, 3)]);
    let closings = fold.close(&mut group);
    assert_eq!((closings.len(), carried(&closings)), (1, Vec::new()), "it has nothing more");
}

#[test]
fn nothing_is_carried_for_a_window_that_closes_after_its_end() {
    let (mut fold, own, _) = with_missing();
    for (second, body) in [(5, 1), (15, 2)] {
        fold.append(own, second, &[(7, body)]);
    }
    let mut group = fold.begin();
    fold.fold(&mut group, own);
    fold.cluster.cut(21, &[(own, 2)]);
    let closings = fold.close(&mut group);
    assert_eq!((closings.len(), closings[0].carries.len()), (1, 0));
}

#[test]
fn a_window_goes_on_from_what_was_carried_of_it() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    for body in 1..=2 {
        fold.append(segment, 5, &[(7, body)]);
    }
    fold.fold(&mut group, segment);
    let cut = fold.cluster.cut(6, &[(segment, 1)]);
    let carries = group.carry(&fold.settings(0)).unwrap().unwrap();
    let facts = fold.cluster.now();
    let epochs = facts.slots().iter().map(|(&slot, owned)| (slot, owned.epoch)).collect();
    let (node, aggregation) = (NodeId(1), 0);
    fold.cluster.apply(Command::Carry { node, aggregation, slots: epochs, cut, keeps: true });
    drop(group);

    for body in 2..=4 {
        fold.append(segment, 7, &[(7, body)]);
    }
    let mut group = fold.resume(slots("0-255"), carries);
    assert_eq!(group.next(segment), 1, "from the cut, though the window has more");
    fold.fold(&mut group, segment);
    fold.cluster.cut(10, &fold.appended.counts());
    assert_eq!(group.pending(&fold.cluster.now(), at(6)), [(0, 2)].into());
    let [closing] = <[_; 1]>::try_from(fold.close(&mut group)).ok().unwrap();
    assert_eq!(totals(closing), [(7, 5, 4)]);
}

#[test]
fn a_window_that_is_carried_again_before_the_group_is_as_far_as_before_counts_nothing_twice() {
    let mut fold = Fold::of(Cluster::of(2));
    let (one, other) = (fold.cluster.open(1), fold.cluster.open(2));
    let mut group = fold.begin();
    for body in 1..=2 {
        fold.append(one, 5, &[(7, body)]);
    }
    fold.fold(&mut group, one);
    let carries = group.carry(&fold.settings(0)).unwrap().unwrap();
    let mut group = fold.resume(slots("0-255"), carries);
    fold.append(other, 5, &[(7, 3)]);
    fold.fold(&mut group, other);
    let carries = group.carry(&fold.settings(0)).unwrap().unwrap();
    assert_eq!(carries[0].next, [(one, 2), (other, 1)].into());
    fold.fold(&mut group, one);
    fold.cluster.cut(10, &fold.appended.counts());
    let [closing] = <[_; 1]>::try_from(fold.close(&mut group)).ok().unwrap();
    assert_eq!(totals(closing), [(7, 3, 3)]);
}

#[test]
fn windows_are_carried_when_the_journal_that_they_need_is_too_large() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    fold.append(segment, 5, &[(7, 1)]);
    fold.fold(&mut group, segment);
    let bytes = entry(0, &[(7, 1)]).len() as u64;
    assert_eq!(group.carry(&fold.settings(bytes)).unwrap(), None);
    assert_eq!(group.carry(&fold.settings(bytes - 1)).unwrap().unwrap().len(), 1);
    assert_eq!(group.carry(&fold.settings(0)).unwrap(), None, "all of it is carried");
    group.retain(|slot| slot < 128);
    fold.append(segment, 5, &[(7, 2)]);
    fold.fold(&mut group, segment);
    assert_eq!(group.carry(&fold.settings(2 * bytes)).unwrap(), None);
    let carries = group.carry(&fold.settings(2 * bytes - 1)).unwrap().unwrap();
    assert_eq!(carries[0].slots, slots("0-127"), "others have about as much");
}

#[test]
fn a_window_that_does_not_grow_is_carried_once_and_asks_for_no_more() {
    let mut fold = Fold::of(Cluster::of(1));
    fold.cluster.apply(register(&[("by-foo", 10), ("by-day", 86_400)]));
    fold.cluster.cut(2, &[]);
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    let both: &[(u32, &[(u8, u64)])] = &[(0, &[(7, 1)]), (1, &[(7, 1)])];
    fold.appended.push(segment, at(5), packed(EntryWriter::new(None), both));
    fold.fold(&mut group, segment);
    assert_eq!(group.carry(&fold.settings(0)).unwrap().unwrap().len(), 2);
    let limit = 3 * entry(0, &[(7, 1)]).len() as u64;
    let carried = (1..=8).map(|body| {
        fold.append(segment, 6, &[(7, body)]);
        fold.fold(&mut group, segment);
        group.carry(&fold.settings(limit)).unwrap().map(|carries| carries.len())
    });
    let carried: Vec<_> = carried.collect();
    assert_eq!(carried, [None, None, None, Some(1), None, None, None, Some(1)]);
}

#[test]
fn records_are_pending_until_the_facts_know_their_window_as_flushed() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    for second in [5, 9, 11] {
        fold.append(segment, second, &[(7, second), (8, second)]);
    }
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    let pending = |group: &Group, second| group.pending(&fold.cluster.now(), at(second))[&0];
    assert_eq!([5, 6, 10, 12].map(|second| pending(&group, second)), [0, 2, 4, 6]);
    let end = fold.cluster.cut(10, &[(segment, 2)]);
    assert_eq!(fold.close(&mut group).len(), 1);
    assert_eq!(pending(&group, 12), 6);
    fold.cluster.flush(1, "0-7", FIRST, end);
    assert_eq!(pending(&group, 12), 4);
    fold.cluster.flush(1, "8-255", FIRST, end);
    assert_eq!(pending(&group, 12), 2);
}

#[test]
fn records_are_pending_with_whoever_has_their_slots() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    fold.append(segment, 5, &[(7, 1), (8, 1)]);
    fold.append(segment, 6, &[(7, 2)]);
    let mut group = fold.begin();
    fold.fold(&mut group, segment);
    let pending =
        |group: &Group| [6, 7].map(|second| group.pending(&fold.cluster.now(), at(second))[&0]);
    assert_eq!(pending(&group), [2, 3]);
    let carries = group.carry(&fold.settings(0)).unwrap().unwrap();
    group.retain(|slot| slot != 7);
    assert_eq!(pending(&group), [1, 1]);
    for (own, records) in [("7", [1, 2]), ("0-6,8-255", [1, 1]), ("9", [0, 0])] {
        let another = fold.resume(slots(own), carries.clone());
        assert_eq!(pending(&another), records, "{own}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_named() {
    let fold = Fold::of(Cluster::of(1));
    let part = Part { index: 4, stamp: at(5), entry: vec![9; 8].into() };
    let batch = Batch { next: 5, parts: vec![part] };
    let error = fold.begin().fold(3, &batch, &fold.settings(0)).unwrap_err();
    assert!(matches!(error, FlushError::Entry { segment: 3, index: 4, .. }), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn slots_are_alike_that_go_on_from_the_same_cut_with_the_same_carries() {
    let cluster = Cluster::of(1);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-99", FIRST, end);
    let (state, next) = (serde_json::Value::Null, Positions::new());
    let carry = |of| Carry {
        aggregation: 0,
        window: FIRST,
        slots: slots(of),
        next: next.clone(),
        state: state.clone(),
    };
    let carries = [carry("50-149"), carry("200-201")];
    let found = alike(&cluster.now(), &slots("0-210"), &carries);
    let mut found: Vec<_> = found.iter().map(SlotSet::to_string).collect();
    found.sort();
    assert_eq!(found, ["0-49", "100-149", "150-199,202-210", "200-201", "50-99"]);
}

#[test]
fn a_window_is_not_due_before_all_of_it_is_decided() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    fold.append(segment, 5, &[(7, 1)]);
    fold.fold(&mut group, segment);
    let cut = fold.cluster.cut(10, &fold.appended.counts());
    let closings = group.close(&fold.cluster.now()).unwrap();
    assert_eq!((closings.now.len(), closings.is_behind), (0, true));
    assert_ne!(group.newest_reached(&fold.cluster.now()), Some(cut));
    assert_eq!(fold.close(&mut group).len(), 1);
    assert_eq!(group.newest_reached(&fold.cluster.now()), Some(cut));
}

#[test]
fn what_is_carried_ends_before_what_waits_for_a_cut() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    fold.append(segment, 5, &[(7, 1)]);
    let request = RequestId { session: [7; 16], sequence: 1 };
    let named = packed(EntryWriter::new(Some(request)), &[(0, &[(7, 2)])]);
    fold.appended.push(segment, at(5), named);
    fold.append(segment, 5, &[(7, 3)]);
    fold.fold(&mut group, segment);
    assert_eq!(group.next(segment), 3);
    let carries = group.carry(&fold.settings(0)).unwrap().unwrap();
    assert_eq!(carries[0].next, [(segment, 1)].into());
    let mut group = fold.resume(slots("0-255"), carries);
    fold.fold(&mut group, segment);
    fold.cluster.cut(10, &fold.appended.counts());
    let [closing] = <[_; 1]>::try_from(fold.close(&mut group)).ok().unwrap();
    assert_eq!(totals(closing), [(7, 3, 3)]);
}

#[test]
fn what_waits_for_a_cut_is_bounded_and_goes_on_when_the_cut_has_decided() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    let records: Vec<(u8, u64)> = (0..50_000).map(|body| (7, body)).collect();
    let request = RequestId { session: [7; 16], sequence: 1 };
    let large = packed(EntryWriter::new(Some(request)), &[(0, &records)]);
    let held = HELD_BYTES_MAX / large.len() + 1;
    let count = held + 2;
    (0..count).for_each(|_| fold.appended.push(segment, at(5), large.clone()));
    let part = |index| Part { index, stamp: at(5), entry: large.clone() };
    let next = count as u64;
    let batch = Batch { next, parts: (0..next).map(part).collect() };
    let settings = fold.settings(0);
    assert!(!group.fold(segment, &batch, &settings).unwrap());
    assert_eq!((group.next(segment), group.current(9).count()), (held as u64, 0));
    fold.cluster.cut(6, &fold.appended.counts());
    let decided = fold.appended.decided(&fold.cluster.now());
    assert!(group.decide(&decided, &settings).unwrap());
    assert!(group.fold(segment, &batch, &settings).unwrap());
    assert_eq!((group.next(segment), group.held_bytes), (next, 0));
    assert_eq!(group.current(9).map(|open| open.counts.records).sum::<u64>(), 50_000);
}

#[test]
fn slots_of_which_nothing_is_open_stay_at_a_cut_for_a_minute() {
    let mut fold = Fold::of(Cluster::of(2));
    let segment = fold.cluster.open(1);
    let group = fold.resume(slots("0-6"), Vec::new());
    let mut idle = |second| {
        // Slots of others have something.
        fold.append(segment, second - 1, &[(7, second)]);
        let cut = fold.cluster.cut(second, &fold.appended.counts());
        group.idle(&fold.cluster.now(), cut)
    };
    assert!([idle(3), idle(40)].iter().all(Vec::is_empty));
    assert_eq!(idle(70), [0]);
}

#[test]
fn slots_of_which_nothing_is_open_let_go_of_a_journal_that_only_a_drained_member_has() {
    let mut fold = Fold::of(Cluster::of(2));
    let (own, leaving) = (fold.cluster.open(1), fold.cluster.open(2));
    let group = fold.resume(slots("0-6"), Vec::new());
    for segment in [own, leaving] {
        fold.append(segment, 1, &[(7, 1)]);
    }
    fold.cluster.cut(2, &fold.appended.counts());
    fold.cluster.apply(Command::Drain { node: NodeId(2) });
    let idle = |second| {
        let cut = fold.cluster.cut(second, &fold.appended.counts());
        group.idle(&fold.cluster.now(), cut)
    };
    assert!(idle(3).is_empty(), "it may still grow");
    fold.cluster.seal(leaving, 1, 3);
    assert_eq!(idle(4), [0]);
}

/// The oldest and the newest cut from which each aggregation of a group may begin anew.
fn beginning(fold: &Fold, group: &Group) -> Option<Vec<(u64, u64)>> {
    let beginning = group.beginning(&fold.cluster.now())?;
    Some(beginning.cuts.values().map(|cuts| (*cuts.start(), *cuts.end())).collect())
}

#[test]
fn slots_begin_anew_where_they_were_flushed_or_later_if_nothing_is_open() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    let mut group = fold.begin();
    let cut = fold.cluster.cut(3, &[]);
    assert_eq!(beginning(&fold, &group), Some(vec![(1, cut)]));
    fold.append(segment, 5, &[(7, 1)]);
    fold.fold(&mut group, segment);
    assert_eq!(beginning(&fold, &group), Some(vec![(1, 1)]));

    let end = fold.cluster.cut(10, &fold.appended.counts());
    assert_eq!(fold.close(&mut group).len(), 1);
    assert_eq!(beginning(&fold, &group), None, "the window is on its way out");
    fold.cluster.flush(1, "0-255", FIRST, end);
    group.closed(0, FIRST);
    let latest = fold.cluster.cut(11, &[]);
    assert_eq!(beginning(&fold, &group), Some(vec![(end, latest)]));
    let claimed = fold.cluster.cut(20, &[]);
    fold.cluster.claim(1, "7", window(10, 20), claimed);
    assert_eq!(beginning(&fold, &group), None, "somebody has claimed it");
}

#[test]
fn groups_are_one_where_there_is_a_cut_for_all_that_is_not_long_ago() {
    let cluster = Cluster::of(1);
    let cuts: Vec<u64> = (10..20).map(|second| cluster.cut(second, &[])).collect();
    let facts = cluster.now();
    let group = |number: u64, oldest: usize, newest: usize| {
        let slots = SlotSet::from_iter([number as u8]);
        (number, Beginning { slots, cuts: [(0, cuts[oldest]..=cuts[newest])].into() })
    };
    let found = |groups: &[&(u64, Beginning)]| -> Vec<(Vec<u64>, String, u64)> {
        let joint = joint(&facts, groups.iter().copied().cloned()).into_iter();
        joint.map(|(numbers, of)| (numbers, of.slots().to_string(), of.newest()[&0])).collect()
    };
    let (ended_at_7, idle_since_1) = (group(1, 7, 7), group(2, 1, 9));
    let both = (vec![1, 2], "1-2".to_owned(), cuts[7]);
    assert_eq!(found(&[&ended_at_7, &idle_since_1]), std::slice::from_ref(&both));
    let others = [&ended_at_7, &group(3, 8, 8), &idle_since_1, &group(4, 8, 9)];
    let expected = [both, (vec![3, 4], "3-4".to_owned(), cuts[8])];
    assert_eq!(found(&others), expected);
    assert_eq!(found(&[&group(1, 3, 3), &group(2, 3, 3)]), [], "much is to be folded again");
    assert_eq!(found(&[&ended_at_7]), []);
}

#[test]
fn slots_that_begin_at_a_later_cut_fold_nothing_from_before_it() {
    let mut fold = Fold::of(Cluster::of(1));
    let segment = fold.cluster.open(1);
    fold.append(segment, 2, &[(7, 1)]);
    let cut = fold.cluster.cut(3, &fold.appended.counts());
    fold.append(segment, 4, &[(7, 2)]);
    let mut group = fold.resume_from(slots("0-255"), [(0, cut)].into(), Vec::new());
    assert_eq!(group.next(segment), 1);
    fold.fold(&mut group, segment);
    assert_eq!(group.current(9).map(|open| open.counts.records).sum::<u64>(), 1);
}
