//! Whatever an id holds, its file has a name of its own below the folder of all of them, from which
//! the id can be told; plain ids stay as they are. Whatever a path is, it names one file or none.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use sheaf_node::aggregation::log_files::names::{of_path, path_of};
use sheaf_node::event::chunk::StreamId;

const NAME_BYTES_MAX: usize = 255;

fuzz_target!(|input: (&str, u64)| {
    let (text, session) = input;
    if let Some((id, session)) = of_path(Path::new(text)) {
        assert_eq!(path_of(&id, session), Path::new(text));
    }
    let Ok(id) = StreamId::try_from(text.to_owned()) else { return };
    let path = path_of(&id, session);
    for component in path.components() {
        let Component::Normal(name) = component else { panic!("{path:?}") };
        assert!(name.len() <= NAME_BYTES_MAX && !name.as_encoded_bytes().starts_with(b"."));
    }
    assert_eq!(of_path(&path), Some((id, session)));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.len() < 100 && !text.starts_with('.') && text.bytes().all(is_plain) {
        assert_eq!(path.as_os_str(), format!("{text}.{session}").as_str());
    }
});
