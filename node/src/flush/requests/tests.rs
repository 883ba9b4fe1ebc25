use super::*;
use crate::checkpoint::facts::command::Command;
use crate::event::entry::EntryWriter;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::example::{Appended, Cluster, at, packed, register, window};
use crate::store::Disk;

fn request(session: u8, sequence: u64) -> RequestId {
    RequestId { session: [session; 16], sequence }
}

/// What was appended, and what a node learns of it.
struct Setting {
    cluster: Arc<Cluster>,
    appended: Appended,
}

impl Setting {
    /// Two nodes with a segment each.
    fn new() -> (Setting, u64, u64) {
        let cluster = Cluster::of(2);
        let (one, other) = (cluster.open(1), cluster.open(2));
        (Setting { cluster, appended: Appended::default() }, one, other)
    }

    /// Appends an entry of one record in slot 7.
    fn append(&mut self, segment: u64, second: u64, request: RequestId) {
        let records: &[(u8, u64)] = &[(7, request.sequence)];
        let entry = packed(EntryWriter::new(Some(request)), &[(0, records)]);
        self.appended.push(segment, at(second), entry);
    }

    fn cut(&self, second: u64) -> u64 {
        self.cluster.cut(second, &self.appended.counts())
    }

    /// Everything comes, segment by segment, in this order.
    fn learn(&self, requests: &mut Requests, segments: &[u64]) {
        for &segment in segments {
            let from = requests.next(segment);
            let batch = self.appended.batch(segment, from, usize::MAX, &SlotSet::default());
            requests.take(segment, &batch).unwrap();
        }
    }

    fn decide(&self, requests: &mut Requests) -> Progress {
        requests.decide(&self.cluster.now())
    }

    /// What is decided once everything has come.
    fn decided(&self, segments: &[u64]) -> Arc<Decided> {
        let mut requests = Requests::new(Arc::default());
        self.learn(&mut requests, segments);
        assert_eq!(self.decide(&mut requests), Progress::Decided);
        Arc::clone(requests.decided())
    }
}

#[test]
fn of_entries_with_one_id_one_counts_in_whatever_order_they_come() {
    let (mut it, one, other) = Setting::new();
    it.append(one, 5, request(1, 1));
    it.append(one, 5, request(1, 2));
    it.append(other, 5, request(1, 2));
    it.append(other, 4, request(1, 1));
    it.append(other, 5, request(2, 1));
    let cut = it.cut(6);
    let decided = it.decided(&[one, other]);
    assert_eq!(it.decided(&[other, one]), decided);
    let repeats = |segment, index| decided.is_repeated(segment, index);
    assert_eq!([repeats(one, 0), repeats(one, 1)], [Some(true), Some(false)], "by stamps");
    assert_eq!(
        [0, 1, 2].map(|index| repeats(other, index)),
        [Some(true), Some(false), Some(false)]
    );
    assert_eq!(repeats(other, 3), None, "no cut has decided on it");
    assert_eq!((decided.cut, &decided.records), (cut, &[(0, 2)].into()));
}

#[test]
fn an_earlier_cut_goes_before_an_earlier_stamp() {
    let (mut it, told, silent) = Setting::new();
    it.append(told, 8, request(1, 1));
    it.cluster.cut(9, &[(told, 1)]);
    it.append(silent, 5, request(1, 1));
    it.cut(10);
    let decided = it.decided(&[told, silent]);
    assert_eq!(decided.is_repeated(told, 0), Some(false));
    assert_eq!(decided.is_repeated(silent, 0), Some(true));
}

#[test]
fn a_cut_decides_when_everything_that_it_counts_has_come() {
    let (mut it, one, other) = Setting::new();
    let first = it.cut(2);
    it.append(one, 5, request(1, 1));
    it.append(other, 5, request(1, 1));
    let cut = it.cut(6);
    let mut requests = Requests::new(Arc::default());
    it.learn(&mut requests, &[one]);
    assert_eq!(it.decide(&mut requests), Progress::Decided);
    assert_eq!((requests.decided().cut, requests.decided().is_repeated(one, 0)), (first, None));
    it.learn(&mut requests, &[other]);
    it.decide(&mut requests);
    assert_eq!(
        (requests.decided().cut, requests.decided().is_repeated(one, 0)),
        (cut, Some(false))
    );
}

#[test]
fn what_a_cut_does_not_count_waits_for_the_next_one() {
    let (mut it, one, other) = Setting::new();
    it.append(one, 5, request(1, 1));
    it.cut(6);
    it.append(one, 7, request(1, 1));
    it.append(other, 7, request(1, 2));
    let mut requests = Requests::new(Arc::default());
    it.learn(&mut requests, &[one, other]);
    it.decide(&mut requests);
    assert_eq!(requests.decided().is_repeated(one, 1), None);
    it.cut(8);
    it.decide(&mut requests);
    assert_eq!(requests.decided().is_repeated(one, 1), Some(true));
    assert_eq!(requests.decided().is_repeated(other, 0), Some(false));
}

#[test]
fn a_request_is_remembered_for_ten_minutes_of_cuts() {
    let (mut it, segment, _) = Setting::new();
    it.append(segment, 5, request(1, 1));
    it.append(segment, 5, request(2, 1));
    it.cut(6);
    it.append(segment, 605, request(1, 1));
    it.cut(606);
    it.append(segment, 607, request(2, 1));
    it.append(segment, 607, request(1, 1));
    it.cut(608);
    let decided = it.decided(&[segment]);
    let repeated = [2, 3, 4].map(|index| decided.is_repeated(segment, index));
    assert_eq!(repeated, [Some(true), Some(false), Some(true)]);
}

#[test]
fn repeated_entries_are_forgotten_with_the_journal() {
    let (mut it, segment, _) = Setting::new();
    it.append(segment, 5, request(1, 1));
    it.append(segment, 6, request(1, 1));
    it.append(segment, 8, request(1, 1));
    let cut = it.cut(10);
    assert_eq!(it.decided(&[segment]).repeated.len(), 2);
    let mut requests = Requests::new(it.decided(&[segment]));
    it.cluster.flush(1, "0-255", window(0, 10), cut);
    it.append(segment, 11, request(1, 1));
    it.cut(12);
    it.learn(&mut requests, &[segment]);
    it.decide(&mut requests);
    assert_eq!(requests.decided().repeated, [(segment, 3)].into());
    assert_eq!(requests.decided().records, [(0, 3)].into());
}

#[test]
fn the_account_is_of_the_cuts_for_which_an_aggregation_counts() {
    let (mut it, segment, other) = Setting::new();
    it.append(segment, 5, request(1, 1));
    it.append(segment, 5, request(1, 1));
    it.cluster.apply(register(&[("by-foo", 10), ("new", 10)]));
    for segment in [segment, other] {
        it.cluster.aware(segment);
    }
    it.cut(6);
    it.append(segment, 7, request(1, 1));
    it.cut(8);
    assert_eq!(it.decided(&[segment]).records, [(0, 2), (1, 1)].into());
}

#[test]
fn an_aggregation_of_files_has_no_repeated_requests_in_its_account() {
    let (mut it, segment, other) = Setting::new();
    it.cluster.register_files();
    for segment in [segment, other] {
        it.cluster.aware(segment);
    }
    it.cut(5);
    it.append(segment, 6, request(1, 1));
    it.append(segment, 6, request(1, 1));
    it.cut(7);
    assert_eq!(it.decided(&[segment]).records, [(0, 1)].into());
}

#[test]
fn what_lies_behind_the_end_of_a_sealed_segment_says_nothing() {
    let (mut it, one, other) = Setting::new();
    it.append(one, 5, request(1, 1));
    it.append(one, 5, request(1, 2));
    it.cluster.seal(one, 1, 6);
    it.append(other, 7, request(1, 2));
    it.cluster.cut(8, &[(other, 1)]);
    let decided = it.decided(&[one, other]);
    assert_eq!(decided.is_repeated(other, 0), Some(false));
}

#[test]
fn whoever_goes_on_later_decides_the_same() {
    let (mut it, one, other) = Setting::new();
    it.append(one, 5, request(1, 1));
    it.cut(6);
    let store = Store::in_memory(&Disk::default()).unwrap();
    record(&store, &it.decided(&[one, other])).unwrap();
    it.append(other, 7, request(1, 1));
    it.append(other, 7, request(1, 2));
    it.cut(8);
    let mut later = Requests::new(Arc::new(recorded(&store).unwrap()));
    assert_eq!((later.next(one), later.next(other)), (1, 0));
    it.learn(&mut later, &[other]);
    it.decide(&mut later);
    assert_eq!(*later.decided(), it.decided(&[one, other]));
}

#[test]
fn nobody_decides_across_a_gap_unless_nobody_can_tell_more() {
    let (mut it, segment, _) = Setting::new();
    it.append(segment, 5, request(1, 1));
    let end = it.cut(10);
    it.cluster.flush(1, "0-255", window(0, 10), end);
    let mut late = Requests::new(Arc::default());
    assert_eq!(it.decide(&mut late), Progress::Gap, "its journal is given up");
    assert!(!Decided::default().can_go_on(&it.cluster.now()));
    assert!(it.decided_in_time(segment).can_go_on(&it.cluster.now()));
    late.pass_gaps(&it.cluster.now());
    assert_eq!(it.decide(&mut late), Progress::Decided);
    assert_eq!((late.decided().cut, late.next(segment)), (end, 1));
    it.append(segment, 11, request(1, 1));
    it.cut(12);
    it.learn(&mut late, &[segment]);
    it.decide(&mut late);
    assert_eq!(late.decided().is_repeated(segment, 1), Some(false), "it does not know better");
}

impl Setting {
    /// What is decided by someone who has learned all before it was given up.
    fn decided_in_time(&self, segment: u64) -> Arc<Decided> {
        let mut requests = Requests::new(Arc::default());
        self.learn(&mut requests, &[segment]);
        self.decide(&mut requests);
        Arc::clone(requests.decided())
    }
}

#[test]
fn a_segment_that_is_gone_before_it_was_learned_is_a_gap_and_so_is_a_cut() {
    let (mut it, one, _) = Setting::new();
    it.append(one, 5, request(1, 1));
    it.cluster.seal(one, 1, 6);
    let end = it.cut(10);
    let known = it.decided_in_time(one);
    it.cluster.flush(1, "0-255", window(0, 10), end);
    assert!(!it.cluster.now().segments().contains_key(&one));
    let mut late = Requests::new(Arc::default());
    assert_eq!(it.decide(&mut late), Progress::Gap);
    late.pass_gaps(&it.cluster.now());
    assert_eq!((it.decide(&mut late), late.decided().cut), (Progress::Decided, end));

    let mut behind = Requests::new(known);
    for second in 11..=80 {
        let cut = it.cluster.cut(second, &[]);
        let node = NodeId(1);
        let epoch = |slot| (slot, it.cluster.now().slots()[&slot].epoch);
        let slots = (0..=255).map(epoch).collect();
        let command = Command::Carry { node, aggregation: 0, slots, cut, keeps: false };
        it.cluster.apply(command);
    }
    assert_eq!(it.decide(&mut behind), Progress::Gap, "cuts are not kept for ever");
}

#[test]
fn what_was_learned_of_a_segment_that_is_lost_another_node_may_tell() {
    let (mut it, one, lost) = Setting::new();
    it.append(lost, 5, request(1, 1));
    it.append(one, 7, request(1, 1));
    it.cluster.cut(6, &[(lost, 1)]);
    it.cluster.seal(lost, 1, 6);
    let cut = it.cluster.cut(8, &[(one, 1)]);
    let mut early = Requests::new(Arc::default());
    it.learn(&mut early, &[lost, one]);
    assert_eq!(it.decide(&mut early), Progress::Decided);
    it.cluster.apply(Command::Forget { node: NodeId(2) });
    assert!(it.cluster.now().segments().contains_key(&lost));

    let mut late = Requests::new(Arc::default());
    it.learn(&mut late, &[one]);
    assert_eq!(it.decide(&mut late), Progress::Gap);
    assert!(early.decided().can_go_on(&it.cluster.now()));
    assert_eq!(early.decided().is_repeated(one, 0), Some(true));
    late.pass_gaps(&it.cluster.now());
    assert_eq!((it.decide(&mut late), late.decided().cut), (Progress::Decided, cut));
    assert_eq!(late.decided().is_repeated(one, 0), Some(false), "nobody could tell");
}

#[test]
fn what_is_kept_never_changes() {
    let (mut it, one, other) = Setting::new();
    it.append(one, 5, request(0xab, 1));
    it.append(other, 5, request(0xab, 3));
    it.append(other, 5, request(0xab, 1));
    it.cut(6);
    let decided = it.decided(&[one, other]);
    let sessions =
        r#"{"abababababababababababababababab":{"last":6000000000,"seen":[[1,1],[3,3]]}}"#;
    let json = format!(
        r#"{{"cut":2,"counts":{{"{one}":1,"{other}":2}},"sessions":{sessions},"repeated":[[{other},1]],"records":{{"0":1}}}}"#
    );
    assert_eq!(serde_json::to_string(&*decided).unwrap(), json);
    assert_eq!(serde_json::from_str::<Decided>(&json).unwrap(), *decided);
}
