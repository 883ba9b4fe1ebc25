//! What both databases have to do alike: RocksDB is held to the one in memory.

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

type Key = Vec<u8>;

/// Where a store is opened again and again.
enum Place {
    Folder(TempDir),
    Memory(Disk),
}

impl Place {
    fn both() -> [Place; 2] {
        [Place::Folder(tempfile::tempdir().unwrap()), Place::Memory(Disk::default())]
    }

    fn open(&self) -> Result<Store, StoreError> {
        match self {
            Place::Folder(folder) => Store::open(folder.path()),
            Place::Memory(disk) => Store::in_memory(disk),
        }
    }

    fn crash(&self) {
        match self {
            // A folder outlives the process, and nothing cuts the machine's power.
            Place::Folder(_) => {}
            Place::Memory(disk) => disk.crash(),
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(Table, Key, Vec<u8>),
    Delete(Table, Key),
    DeleteRange(Table, Key, Key),
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    GiveUp(Vec<Change>),
    Get(Table, Key),
    Scan(Table, Key, Key),
    Reopen,
    Crash,
}

/// Short keys of few bytes meet often, and are often each other's beginnings.
fn key() -> impl Strategy<Value = Key> {
    vec(prop::sample::select(vec![0, 1, 0x7f, 0xff]), 0..4)
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(Table::ALL.to_vec())
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (table(), key(), vec(any::<u8>(), 0..4)).prop_map(|(t, k, v)| Change::Put(t, k, v)),
        1 => (table(), key()).prop_map(|(t, k)| Change::Delete(t, k)),
        1 => (table(), key(), key()).prop_map(|(t, from, to)| Change::DeleteRange(t, from, to)),
    ];
    vec(change, 0..12)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => changes().prop_map(Step::Commit),
        1 => changes().prop_map(Step::GiveUp),
        2 => (table(), key()).prop_map(|(t, k)| Step::Get(t, k)),
        4 => (table(), key(), key()).prop_map(|(t, from, to)| Step::Scan(t, from, to)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

fn batch<'a>(store: &'a Store, changes: &[Change]) -> Batch<'a> {
    let mut batch = store.batch();
    for change in changes {
        match change {
            Change::Put(table, key, value) => batch.put(*table, key, value),
            Change::Delete(table, key) => batch.delete(*table, key),
            Change::DeleteRange(table, from, to) => batch.delete_range(*table, from, to),
        }
        .unwrap();
    }
    batch
}

fn scan(store: &Store, table: Table, from: &[u8], to: &[u8]) -> Vec<Row> {
    store.scan(table, from, to).unwrap().map(Result::unwrap).collect()
}

/// Takes the steps; `Ok` is what was seen on the way, and everything at the end.
fn walk(place: &Place, steps: &[Step]) -> Vec<Vec<Row>> {
    let mut store = place.open().unwrap();
    let mut seen = Vec::new();
    for step in steps {
        match step {
            Step::Commit(changes) => store.commit(batch(&store, changes)).unwrap(),
            Step::GiveUp(changes) => drop(batch(&store, changes)),
            Step::Get(table, key) => {
                let value = store.get(*table, key).unwrap();
                let row = value.map(|value| (key.as_slice().into(), value.into()));
                seen.push(row.into_iter().collect());
            }
            Step::Scan(table, from, to) => seen.push(scan(&store, *table, from, to)),
            Step::Reopen | Step::Crash => {
                if matches!(step, Step::Crash) {
                    place.crash();
                }
                drop(store);
                store = place.open().unwrap();
            }
        }
    }
    seen.extend(Table::ALL.map(|table| scan(&store, table, &[], &[0xff; 5])));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_databases_answer_alike_whatever_is_done_to_them(steps in vec(step(), 0..24)) {
        let [folder, memory] = Place::both();
        prop_assert_eq!(walk(&folder, &steps), walk(&memory, &steps));
    }
}

#[test]
fn what_is_released_leaves_the_rest_alone() {
    for place in Place::both() {
        for keys in [0..5, 5..9] {
            let puts = keys.map(|n| Change::Put(Table::Journal, vec![n], b"entry".to_vec()));
            let store = place.open().unwrap();
            store.commit(batch(&store, &puts.collect::<Vec<_>>())).unwrap();
        }
        let store = place.open().unwrap();
        store.release(Table::Journal, &[0], &[5]).unwrap();
        let rest = scan(&store, Table::Journal, &[5], &[9]);
        assert_eq!(rest.iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }
}

#[test]
fn a_note_outlives_its_store() {
    for place in Place::both() {
        let store = place.open().unwrap();
        assert_eq!(store.note().unwrap(), b"");
        store.write_note(b"one").unwrap();
        store.write_note(b"two").unwrap();
        assert_eq!(store.note().unwrap(), b"two");
        drop(store);
        assert_eq!(place.open().unwrap().note().unwrap(), b"two");
    }
}

#[test]
fn a_database_is_opened_by_one_store_at_a_time() {
    for place in Place::both() {
        let store = place.open().unwrap();
        assert!(matches!(place.open(), Err(StoreError::Open { .. })));
        drop(store);
        place.open().unwrap();
    }
}

fn append(store: &Store, index: u64, payloads: &[&[u8]]) -> Vec<super::Place> {
    store.append_payloads(7, index, payloads).unwrap()
}

#[test]
fn payloads_outlive_their_store_and_a_power_cut() {
    for place in Place::both() {
        let store = place.open().unwrap();
        let first = append(&store, 3, &[b"one", b"", b"three"]);
        let then = append(&store, 9, &[b"four"]);
        drop(store);
        place.crash();
        let store = place.open().unwrap();
        let read = |place, length| store.payload(place, length).unwrap();
        assert_eq!(read(first[0], 3).as_deref(), Some(&b"one"[..]));
        assert_eq!(read(first[1], 0).as_deref(), Some(&b""[..]));
        assert_eq!(read(first[2], 5).as_deref(), Some(&b"three"[..]));
        assert_eq!(read(then[0], 4).as_deref(), Some(&b"four"[..]));
        assert_eq!(read(then[0], 5), None, "there is no more");
        let nowhere = super::Place { file: PayloadFile { segment: 8, first: 3 }, offset: 0 };
        assert_eq!(read(nowhere, 0), None);
    }
}

#[test]
fn files_of_payloads_are_cut_and_removed_for_good() {
    for place in Place::both() {
        let store = place.open().unwrap();
        let places = append(&store, 3, &[b"one", b"two"]);
        let file = PayloadFile { segment: 7, first: 3 };
        assert_eq!(store.payload_files().unwrap(), [file]);
        store.cut_payloads(super::Place { file, offset: 3 }).unwrap();
        assert_eq!(store.payload(places[1], 3).unwrap(), None);
        drop(store);
        let store = place.open().unwrap();
        assert_eq!(store.payload(places[1], 3).unwrap(), None);
        assert!(store.payload(places[0], 3).unwrap().is_some());
        store.remove_payloads(file).unwrap();
        drop(store);
        let store = place.open().unwrap();
        assert_eq!(store.payload_files().unwrap(), []);
        assert_eq!(store.payload(places[0], 3).unwrap(), None);
    }
}
