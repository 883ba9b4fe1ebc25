use super::*;
use crate::flush::files::tidied::compressed_to;

/// A file in a folder of its own.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("a.7")
    }

    fn open(&self, length: u64, part_bytes: Option<u64>) -> Writing {
        Writing::open(self.path(), length, part_bytes).unwrap()
    }

    /// A file of three parts: 4 bytes, 4, and 2.
    fn with_parts() -> Place {
        let place = Place::new();
        place.open(0, Some(4)).write_at(0, b"abcdefghij").unwrap();
        place
    }

    /// The names of all parts, and what is in them.
    fn parts(&self) -> Vec<(String, String)> {
        let name =
            |path: &Path| path.strip_prefix(self.root.path()).unwrap().to_str().unwrap().to_owned();
        let parts = Parts::find(&self.path()).unwrap();
        let content = |path: &Path| String::from_utf8(fs::read(path).unwrap()).unwrap();
        parts.iter().map(|(part, _)| (name(&part.path), content(&part.path))).collect()
    }

    fn read(&self, bytes: Range<u64>) -> Result<String, FilesError> {
        let read = Pieces::open(self.path(), bytes)?.collect::<Result<Vec<_>, _>>()?;
        Ok(String::from_utf8(read.concat()).unwrap())
    }

    fn compress(&self, from: u64, end: u64) {
        let path = part_path(&self.path(), from, false);
        let part = Part { from, path, is_compressed: false };
        let unfinished = unfinished(&self.path(), from);
        assert!(compressed_to(&unfinished, &part, end, &|| true).unwrap());
        fs::rename(unfinished, part_path(&self.path(), from, true)).unwrap();
        fs::remove_file(part.path).unwrap();
    }
}

fn owned(parts: &[(&str, &str)]) -> Vec<(String, String)> {
    parts.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[test]
fn a_file_goes_on_in_another_part_when_one_is_full() {
    let place = Place::new();
    let mut file = place.open(0, Some(4));
    for (at, bytes) in [(0, "abc"), (3, "defghi"), (9, ""), (9, "j")] {
        file.write_at(at, bytes.as_bytes()).unwrap();
    }
    let all = [("a.7", "abcd"), ("a.7~/000000000000004", "efgh"), ("a.7~/000000000000008", "ij")];
    assert_eq!(place.parts(), owned(&all));
    assert_eq!(place.read(0..10).unwrap(), "abcdefghij");
    assert_eq!(place.read(3..9).unwrap(), "defghi");
    assert!(place.read(0..11).is_err(), "what is not there is not made up");
}

#[test]
fn another_length_of_parts_is_that_of_the_next_ones() {
    let place = Place::with_parts();
    place.open(10, Some(3)).write_at(10, b"klmno").unwrap();
    place.open(15, None).write_at(15, b"pqrst").unwrap();
    let all = [
        ("a.7", "abcd"),
        ("a.7~/000000000000004", "efgh"),
        ("a.7~/000000000000008", "ijk"),
        ("a.7~/000000000000011", "lmn"),
        ("a.7~/000000000000014", "opqrst"),
    ];
    assert_eq!(place.parts(), owned(&all));
    assert_eq!(place.read(0..20).unwrap(), "abcdefghijklmnopqrst");
}

#[test]
fn what_another_life_wrote_is_written_again_where_it_is() {
    let place = Place::with_parts();
    place.open(3, Some(5)).write_at(3, b"DEFGHIJK").unwrap();
    let all = [("a.7", "abcD"), ("a.7~/000000000000004", "EFGH"), ("a.7~/000000000000008", "IJK")];
    assert_eq!(place.parts(), owned(&all));
}

#[test]
fn parts_behind_the_newest_chunk_are_cut_off() {
    let place = Place::with_parts();
    for (length, left) in [(9, 3), (8, 3), (7, 2), (4, 2), (2, 1), (0, 1)] {
        place.open(length, Some(4)).cut_off(length).unwrap();
        assert_eq!(place.parts().len(), left, "{length}");
        assert_eq!(place.read(0..length).unwrap(), "abcdefghij"[..length as usize]);
        assert_eq!(Parts::find(&place.path()).unwrap().end().unwrap(), length);
    }
}

#[test]
fn a_compressed_part_is_read_like_any_other() {
    let place = Place::with_parts();
    place.compress(0, 4);
    place.compress(4, 8);
    assert!(!place.path().exists());
    for from in 0..10 {
        for to in from..=10 {
            let expected = &"abcdefghij"[from as usize..to as usize];
            if from < to {
                assert_eq!(place.read(from..to).unwrap(), expected);
            }
        }
    }
    let mut file = place.open(10, Some(4));
    file.write_at(10, b"kl").unwrap();
    assert_eq!(place.read(0..12).unwrap(), "abcdefghijkl");
}

#[test]
fn a_compressed_part_that_is_written_again_is_unpacked_first() {
    let place = Place::with_parts();
    place.compress(0, 4);
    place.compress(4, 8);
    place.open(6, Some(4)).write_at(6, b"GH").unwrap();
    let parts = place.parts_that_are_compressed();
    assert_eq!(parts, [true, false, false]);
    assert_eq!(place.read(0..10).unwrap(), "abcdefGHij");
}

impl Place {
    fn parts_that_are_compressed(&self) -> Vec<bool> {
        let parts = Parts::find(&self.path()).unwrap();
        parts.iter().map(|(part, _)| part.is_compressed).collect()
    }
}

#[test]
fn what_is_large_is_compressed_and_found_anywhere() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|at| (at / 7).to_le_bytes()).collect();
    let length = bytes.len() as u64;
    place.open(0, Some(length)).write_at(0, &[&bytes[..], b"rest"].concat()).unwrap();
    place.compress(0, length);
    let packed = part_path(&place.path(), 0, true);
    assert!(fs::metadata(packed).unwrap().len() < length / 2);
    for from in [0, 1, length / 2 - 1, length - 3] {
        let read = Pieces::open(place.path(), from..length + 4).unwrap();
        let read = read.collect::<Result<Vec<_>, _>>().unwrap().concat();
        assert!(read[..read.len() - 4] == bytes[from as usize..] && read.ends_with(b"rest"));
    }
}

#[test]
fn what_a_death_left_beside_a_part_is_removed_when_the_file_is_written() {
    let place = Place::with_parts();
    let packed = part_path(&place.path(), 4, true);
    for stale in [&packed, &unfinished(&place.path(), 8)] {
        fs::write(stale, "half of it").unwrap();
    }
    assert_eq!(place.read(0..10).unwrap(), "abcdefghij");
    place.open(10, Some(4));
    assert_eq!(fs::read_dir(folder_of(&place.path())).unwrap().count(), 2);
}

#[test]
fn a_file_without_its_first_parts_goes_on_and_says_where_it_begins() {
    let place = Place::with_parts();
    fs::remove_file(place.path()).unwrap();
    place.open(10, Some(4)).write_at(10, b"kl").unwrap();
    assert_eq!(place.read(4..12).unwrap(), "efghijkl");
    let gone = place.read(3..12).unwrap_err();
    assert!(matches!(gone, FilesError::Gone { begin: 4, .. }), "{gone}");
    let gone = place.open(10, Some(4)).write_at(3, b"d").unwrap_err();
    assert!(matches!(gone, FilesError::Gone { begin: 4, .. }), "{gone}");
}

#[test]
fn a_file_that_lacks_something_is_not_gone_on_with() {
    let place = Place::with_parts();
    for length in 0..=10 {
        assert!(Parts::find(&place.path()).unwrap().reach(length).unwrap());
    }
    let short = Writing::open(place.path(), 11, Some(4)).err().unwrap();
    assert!(matches!(short, FilesError::Short { found: 10, expected: 11, .. }), "{short}");
    fs::remove_file(part_path(&place.path(), 8, false)).unwrap();
    assert!(!Parts::find(&place.path()).unwrap().reach(9).unwrap());
    Parts::remove(&place.path()).unwrap();
    assert_eq!(fs::read_dir(place.root.path()).unwrap().count(), 0);
    assert!(!Parts::find(&place.path()).unwrap().reach(1).unwrap());
}

#[test]
fn parts_that_no_checkpoint_has_are_no_beginning() {
    let place = Place::with_parts();
    fs::remove_file(place.path()).unwrap();
    let short = Writing::open(place.path(), 3, Some(4)).err().unwrap();
    assert!(matches!(short, FilesError::Short { expected: 3, .. }), "{short}");
    place.open(0, Some(4)).write_at(0, b"ABCDE").unwrap();
    assert_eq!(place.parts(), owned(&[("a.7", "ABCD"), ("a.7~/000000000000004", "E")]));
}

#[test]
fn names_that_are_no_parts_are_none() {
    assert_eq!(of_name("000000000000004"), Some((4, false)));
    assert_eq!(of_name("000000000000004.zst"), Some((4, true)));
    assert_eq!(of_name("1000000000000000"), Some((1_000_000_000_000_000, false)));
    for name in ["4", "00000000000000a", "+00000000000004", "000000000000004.new", ".zst", ""] {
        assert_eq!(of_name(name), None, "{name}");
    }
}
