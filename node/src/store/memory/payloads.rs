//! Payload files in memory: of what was not synced, a crash leaves any part or nothing.

use std::collections::BTreeMap;

use super::Database;
use crate::store::Reason;
use crate::store::payloads::{PayloadFile, PayloadLimits, Payloads, Place};

/// A disk in memory is small: so is what stands in files here, and so are they.
const LIMITS: PayloadLimits = PayloadLimits { value: 96, together: 200 };
const FILE_BYTES_ENOUGH: usize = 1 << 10;

/// The files of a disk.
#[derive(Default)]
pub(super) struct Files(BTreeMap<PayloadFile, Content>);

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    /// The bytes that were synced; `None` if the file's name was not.
    synced: Option<usize>,
}

impl Files {
    pub(super) fn crash(&mut self) {
        self.0.retain(|_, content| content.synced.is_some());
        for content in self.0.values_mut() {
            let synced = content.synced.unwrap_or(0);
            let unsynced = content.bytes.len() - synced;
            // Half the time the disk has written nothing on its own.
            let luck =
                if unsynced > 0 && fastrand::bool() { fastrand::usize(..=unsynced) } else { 0 };
            content.bytes.truncate(synced + luck);
            content.synced = Some(content.bytes.len());
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.0.values().map(|content| content.bytes.len() as u64).sum()
    }

    /// The file to which the next payloads of a segment are added.
    fn last(&mut self, segment: u64, index: u64) -> (PayloadFile, &mut Content) {
        let of_segment = PayloadFile { segment, first: 0 }..=PayloadFile { segment, first: index };
        let last = self.0.range(of_segment).next_back();
        let open = last.filter(|(_, content)| content.bytes.len() < FILE_BYTES_ENOUGH);
        let file = open.map_or(PayloadFile { segment, first: index }, |(&file, _)| file);
        (file, self.0.entry(file).or_default())
    }
}

impl Payloads for Database {
    fn limits(&self) -> PayloadLimits {
        LIMITS
    }

    fn append(
        &self,
        segment: u64,
        index: u64,
        payloads: &[&[u8]],
        sync: bool,
    ) -> Result<Vec<Place>, Reason> {
        let mut content = self.content()?;
        let (fails, sync) = (content.writes_fail, sync && !content.syncs_are_skipped);
        let (file, of_file) = content.payloads.last(segment, index);
        if fails {
            // Something may have been written all the same.
            let bytes = payloads.concat();
            of_file.bytes.extend(&bytes[..fastrand::usize(..=bytes.len())]);
            return Err("its disk takes no writes".to_owned());
        }
        let places = payloads.iter().map(|payload| {
            let offset = of_file.bytes.len() as u64;
            of_file.bytes.extend_from_slice(payload);
            Place { file, offset }
        });
        let places = places.collect();
        if sync {
            of_file.synced = Some(of_file.bytes.len());
        }
        Ok(places)
    }

    fn read(&self, place: Place, length: usize) -> Result<Option<Vec<u8>>, Reason> {
        let content = self.content()?;
        let Some(of_file) = content.payloads.0.get(&place.file) else { return Ok(None) };
        let begin = usize::try_from(place.offset).ok();
        let range = begin.and_then(|begin| Some(begin..begin.checked_add(length)?));
        Ok(range.and_then(|range| of_file.bytes.get(range)).map(<[u8]>::to_vec))
    }

    fn files(&self) -> Result<Vec<PayloadFile>, Reason> {
        Ok(self.content()?.payloads.0.keys().copied().collect())
    }

    fn cut(&self, end: Place) -> Result<(), Reason> {
        let mut content = self.writable()?;
        if let Some(of_file) = content.payloads.0.get_mut(&end.file) {
            of_file.bytes.truncate(usize::try_from(end.offset).unwrap_or(usize::MAX));
            of_file.synced = of_file.synced.map(|synced| synced.min(of_file.bytes.len()));
        }
        Ok(())
    }

    fn remove(&self, file: PayloadFile) -> Result<(), Reason> {
        self.writable()?.payloads.0.remove(&file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Disk, Store, StoreError};

    const PAYLOAD: [u8; 64] = [7; 64];

    fn append(store: &Store, index: u64) -> Result<Place, StoreError> {
        Ok(store.append_payloads(1, index, &[&PAYLOAD])?[0])
    }

    fn length(disk: &Disk) -> Option<usize> {
        let content = disk.lock();
        content.payloads.0.values().next().map(|content| content.bytes.len())
    }

    #[test]
    fn a_crash_leaves_all_that_was_synced_and_any_part_of_the_rest() {
        let mut left = [false; 65];
        for seed in 0..200 {
            fastrand::seed(seed);
            let disk = Disk::default();
            let store = Store::in_memory(&disk).unwrap();
            let synced = append(&store, 0).unwrap();
            disk.skip_syncs(true);
            append(&store, 1).unwrap();
            disk.crash();
            let store = Store::in_memory(&disk).unwrap();
            assert_eq!(store.payload(synced, 64).unwrap().as_deref(), Some(&PAYLOAD[..]));
            left[length(&disk).unwrap() - 64] = true;
        }
        let parts = left[1..64].iter().filter(|left| **left).count();
        assert!(left[0] && parts > 10, "{parts} different parts");
    }

    #[test]
    fn a_crash_takes_a_file_of_which_nothing_was_synced() {
        let disk = Disk::default();
        let store = Store::in_memory(&disk).unwrap();
        disk.skip_syncs(true);
        append(&store, 0).unwrap();
        assert_eq!(store.payload_files().unwrap().len(), 1);
        disk.crash();
        assert_eq!(Store::in_memory(&disk).unwrap().payload_files().unwrap(), []);
    }

    #[test]
    fn a_write_that_fails_may_leave_something_and_ends_the_store() {
        let mut torn = 0;
        for seed in 0..20 {
            fastrand::seed(seed);
            let disk = Disk::default();
            let store = Store::in_memory(&disk).unwrap();
            disk.fail_writes(true);
            assert!(append(&store, 0).is_err());
            disk.fail_writes(false);
            assert!(matches!(append(&store, 0), Err(StoreError::Write { .. })));
            torn += usize::from(length(&disk).unwrap_or(0) > 0);
        }
        assert!(torn > 5, "{torn} torn writes");
    }

    #[test]
    fn a_store_whose_disk_crashed_has_no_payloads() {
        let disk = Disk::default();
        let dead = Store::in_memory(&disk).unwrap();
        let place = append(&dead, 0).unwrap();
        disk.crash();
        assert!(dead.payload(place, 64).is_err() && dead.payload_files().is_err());
        assert!(append(&dead, 1).is_err());
        assert!(dead.cut_payloads(place).is_err() && dead.remove_payloads(place.file).is_err());
        assert_eq!(disk.used(), 64);
    }
}
