//! The lines of the last hour that this node printed.

use crate::event::time::{SECOND, UnixNanos, Window};
use crate::failpoint::may_die;
use crate::store::{Store, StoreError, Table, keys};

/// How long a line is kept after its window's end.
const KEPT: u64 = 3600 * SECOND;

/// Records a line, in place of an earlier one of its window, and forgets those that are an
/// hour older.
///
/// # Errors
/// When the database cannot be written.
pub fn record(
    store: &Store,
    aggregation: u32,
    window: Window,
    line: &[u8],
) -> Result<(), StoreError> {
    let mut batch = store.batch();
    batch.put(Table::Windows, &keys::window(window.end, aggregation), line)?;
    let expired = UnixNanos(window.end.0.saturating_sub(KEPT));
    let oldest = keys::window(UnixNanos(0), 0);
    batch.delete_range(Table::Windows, &oldest, &keys::window(expired, 0))?;
    may_die("printed-before-record");
    store.commit(batch)?;
    may_die("printed-after-record");
    Ok(())
}

/// The line of a window, if it was printed here.
///
/// # Errors
/// When the database cannot be read.
pub fn find(
    store: &Store,
    aggregation: u32,
    window: Window,
) -> Result<Option<Vec<u8>>, StoreError> {
    store.get(Table::Windows, &keys::window(window.end, aggregation))
}

/// The lines of windows that ended at `since` or later, newest first, at most `limit`.
///
/// # Errors
/// When the database cannot be read.
pub fn newest(store: &Store, since: UnixNanos, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let (from, to) = (keys::window(since, 0), keys::window(UnixNanos(u64::MAX), 0));
    let mut lines = Vec::new();
    for row in store.scan(Table::Windows, &from, &to)? {
        lines.push(row?.1.into_vec());
    }
    lines.reverse();
    lines.truncate(limit);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Disk;

    fn window(end: u64) -> Window {
        Window { start: UnixNanos(end - SECOND), end: UnixNanos(end) }
    }

    #[test]
    fn lines_are_kept_for_an_hour_and_told_from_the_newest_on() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        for (end, line) in [(SECOND, "first"), (2 * SECOND, "second")] {
            record(&store, 1, window(end), line.as_bytes()).unwrap();
        }
        let lines = newest(&store, UnixNanos(0), 9).unwrap();
        assert_eq!(lines, [b"second".to_vec(), b"first".to_vec()]);
        assert_eq!(find(&store, 1, window(SECOND)).unwrap().as_deref(), Some(&b"first"[..]));
        record(&store, 1, window(2 * SECOND + KEPT), b"third").unwrap();
        assert_eq!(
            newest(&store, UnixNanos(0), 9).unwrap(),
            [b"third".to_vec(), b"second".to_vec()]
        );
    }
}
