//! The map in `lib.rs` is true: a module imports only those below it, and what is called pure is.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// What decides and never acts.
const PURE: &[&str] = &[
    "decide",
    "build",
    "validate",
    "names",
    "resource",
    "custom_metrics/documents",
    "custom_metrics/front_proxy",
    "custom_metrics/question",
    "custom_metrics/refusal",
    "custom_metrics/rotation",
];
/// What only those name who act: the API, other tasks, the clock.
const ACTS: &[&str] = &["Api::", "Api<", "Client", "async ", ".await", "tokio::", "::now()"];

#[test]
fn a_module_imports_only_those_below_it() {
    let map = map();
    assert!(map.len() > 3, "lib.rs is read: {map:?}");
    let mut wrong = Vec::new();
    for (floor, module) in map.iter().enumerate() {
        for (place, line) in code(module) {
            let above = map.iter().take(floor).find(|above| names(&line, above));
            wrong.extend(above.map(|above| format!("{place}: {module} uses {above}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_pure_asks_nobody() {
    let mut wrong = Vec::new();
    for (place, line) in PURE.iter().flat_map(|module| code(module)) {
        let acts = ACTS.iter().find(|word| line.contains(**word));
        wrong.extend(acts.map(|word| format!("{place}: {word}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules that `lib.rs` lists, from the top down, but for those of tests.
fn map() -> Vec<String> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let module = |line: &str| Some(line.strip_prefix("pub mod ")?.split_once(';')?.0.to_owned());
    text.lines().filter_map(module).collect()
}

fn names(line: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    line.match_indices(&path).any(|(at, _)| {
        let rest = line.get(at + path.len()..).unwrap_or_default();
        !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
    })
}

/// All lines of a module but comments and tests, each with its place.
fn code(module: &str) -> Vec<(String, String)> {
    let mut files = vec![root().join(format!("{module}.rs"))];
    files.extend(below(&root().join(module)));
    files.retain(|file| !file.components().any(|part| part.as_os_str() == "tests"));
    let lines = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let name = file.display().to_string();
        let lines = text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
        let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
        code.map(|(at, line)| (format!("{name}:{}", at + 1), line.to_owned())).collect::<Vec<_>>()
    };
    files.iter().filter(|file| !file.ends_with("tests.rs")).flat_map(lines).collect()
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
