//! Each module of the node imports only those that stand below it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down; modules in one row do not know each other.
const FLOORS: &[&[&str]] = &[
    &["app"],
    &["source", "admin"],
    &["intake"],
    &["cluster"],
    &["flush"],
    &["aggregation", "sink"],
    &["checkpoint"],
    &["journal"],
    &["store"],
    &["event"],
    &["blocking", "failpoint"],
];

/// Libraries that a single file may name, and those in the folder beside it.
const SOLE_USERS: &[(&str, &str)] =
    &[("rocksdb", "store/rocks.rs"), ("openraft", "checkpoint/raft.rs"), ("fail", "failpoint.rs")];

#[test]
fn a_module_imports_only_those_below_it() {
    let mut wrong = Vec::new();
    for file in sources(&root()) {
        let module = module_of(&file);
        let Some(floor) = floor_of(&module) else {
            assert!(["lib", "main"].contains(&module.as_str()), "{module} is on no floor");
            continue;
        };
        for (number, imported) in imports(&fs::read_to_string(&file).unwrap()) {
            let below = floor_of(&imported).is_some_and(|other| other > floor);
            if imported != module && !below {
                wrong.push(format!("{}:{number}: {module} uses {imported}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_library_with_a_sole_user_is_named_nowhere_else() {
    for file in sources(&root()) {
        let text = fs::read_to_string(&file).unwrap();
        for (library, user) in SOLE_USERS {
            let named = text.contains(&format!("{library}::"));
            let user = root().join(user).with_extension("");
            let is_user = file.with_extension("").starts_with(user);
            assert!(!named || is_user, "{} names {library}", file.display());
        }
    }
}

#[test]
fn the_check_sees_imports_in_every_form() {
    let text = "use crate::store::{Store, keys};\nlet x = crate::intake::scan();\nuse crate::{\n    event,\n    app::x,\n};";
    let seen: Vec<_> = imports(text).into_iter().map(|(_, module)| module).collect();
    assert_eq!(seen, ["store", "intake", "event", "app"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module of the first level that a file belongs to.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(root()).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The modules of the first level that a source names, with line numbers.
fn imports(text: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let line = text[..at].lines().count().max(1);
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(list) => found.extend(top_level(list).into_iter().map(|item| (line, word(item)))),
        }
    }
    found
}

/// The items of a braced list, but not those of lists within it.
fn top_level(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(list[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}
