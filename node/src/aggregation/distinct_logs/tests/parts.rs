//! The parts of entries, folded apart, against the whole.

use super::*;
use crate::event::entry::part::Splitter;
use crate::event::fingerprint::SLOTS;

const PRIMARIES: usize = 3;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_folded_apart_adds_up_slot_by_slot(
        requests in prop::collection::vec(records(), 0..6),
        assignment in prop::collection::vec(0..PRIMARIES as u8, SLOTS),
    ) {
        let assignment = std::array::from_fn(|slot| assignment[slot]);
        let folder = scratch();
        let mut whole = window(folder.path());
        let mut apart = [(); PRIMARIES].map(|()| window(folder.path()));
        let mut splitter = Splitter::default();
        for records in &requests {
            let entry = pack(&mut Packer::new(KEY), records);
            whole.fold(&section(&entry)).unwrap();
            let entry = Entry::parse(&entry).unwrap();
            let parts = splitter.split(&entry, &assignment, PRIMARIES).unwrap();
            for (window, part) in apart.iter_mut().zip(parts) {
                if let Some(part) = part {
                    window.fold(&section(&part)).unwrap();
                }
            }
        }
        let whole = whole.close(1000).unwrap();
        let apart = apart.map(|window| window.close(1000).unwrap());

        let sum = |count: fn(&Counts) -> u64| -> u64 {
            apart.iter().map(|closed| count(&closed.counts)).sum()
        };
        prop_assert_eq!(sum(|counts| counts.records), whole.counts.records);
        prop_assert_eq!(sum(|counts| counts.unknown), whole.counts.unknown);
        let mut slots = Vec::new();
        for (primary, closed) in apart.iter().enumerate() {
            for totals in &closed.slots {
                prop_assert_eq!(usize::from(assignment[usize::from(totals.slot)]), primary);
                slots.push(*totals);
            }
        }
        slots.sort_by_key(|totals| totals.slot);
        prop_assert_eq!(slots, whole.slots);
    }
}
