//! What a power cut leaves of rebuilt files: all that rows of the database say was synced, and
//! any part of the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_node::flush::files::Files;
use sheaf_node::store::{Disk, Store};

/// The number of the aggregation that rebuilds files.
const AGGREGATION: u32 = 2;
/// Bytes of a fingerprint in an index.
const FINGERPRINT_BYTES: u64 = 16;

/// Cuts the power of a machine that has its files in a folder.
pub(crate) fn cut_power(disk: &Disk, folder: &Path) {
    disk.crash();
    let root = folder.join("files");
    let synced = synced(disk, &root);
    for part in [AGGREGATION.to_string(), format!("{AGGREGATION}.index")] {
        for path in below(&root.join(part)) {
            tear(&path, synced.get(&path).copied());
        }
    }
}

/// How much of each file is durable.
fn synced(disk: &Disk, root: &Path) -> BTreeMap<PathBuf, u64> {
    let files = Files::new(root.to_owned(), Arc::new(Store::in_memory(disk).unwrap()));
    let mut synced = BTreeMap::new();
    let of_slots = (0..=u8::MAX).flat_map(|slot| files.of_slot(AGGREGATION, slot).unwrap());
    for (key, kept) in of_slots {
        let reached = kept.now.reached;
        let path = files.path(AGGREGATION, &kept.id, key.session);
        let name = path.strip_prefix(root.join(AGGREGATION.to_string())).unwrap();
        let index = root.join(format!("{AGGREGATION}.index")).join(name);
        let mut folder = path.clone().into_os_string();
        folder.push("~");
        for part in below(Path::new(&folder)) {
            let name = part.file_name().unwrap().to_str().unwrap();
            // What is compressed is synced as a whole before it has this name.
            let is_whole = name.ends_with(".zst");
            let Ok(begin) = name.trim_end_matches(".zst").parse::<u64>() else { continue };
            if is_whole || begin < reached.length {
                let bytes = if is_whole { u64::MAX } else { reached.length - begin };
                synced.insert(part, bytes);
            }
        }
        synced.insert(path, reached.length);
        synced.insert(index, (reached.next.number() - 1) * FINGERPRINT_BYTES);
    }
    synced
}

/// Leaves a part of what is not durable, or zeros in its place; of a file of which nothing is,
/// perhaps not even the name.
fn tear(path: &Path, synced: Option<u64>) {
    if synced.is_none() && fastrand::bool() {
        return fs::remove_file(path).unwrap();
    }
    let file = fs::File::options().write(true).open(path).unwrap();
    let (synced, length) = (synced.unwrap_or(0), file.metadata().unwrap().len());
    if length <= synced {
        return;
    }
    let left = fastrand::u64(synced..=length);
    file.set_len(if fastrand::bool() { synced } else { left }).unwrap();
    file.set_len(left).unwrap();
}

/// All files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // What is drawn for each must not depend on the order in which they are found.
    paths.sort();
    let within =
        paths.into_iter().map(|path| if path.is_dir() { below(&path) } else { vec![path] });
    within.flatten().collect()
}
