//! `sheaf get` as a process, against a node that does what the test says.
#![allow(clippy::unwrap_used)]

mod get {
    pub(crate) mod node; // lists and serves files
}

use std::{
    fs::{self, File},
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use get::node::Node;

const PATIENCE: Duration = Duration::from_secs(60);

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command.arg("get").args(arguments).args(["--endpoint", &node.url()]);
    command
}

fn run(node: &Node, arguments: &[&str]) -> Output {
    command(node, arguments).output().unwrap()
}

/// What it writes to stdout, which it does with success.
fn read(node: &Node, arguments: &[&str]) -> Vec<u8> {
    let output = run(node, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    output.stdout
}

fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The last words of one that fails.
fn refusal(node: &Node, arguments: &[&str]) -> String {
    let output = run(node, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    words(&output).lines().last().unwrap().to_owned()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// More than comes at once.
fn long() -> Vec<u8> {
    (0..200_000_u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

#[test]
fn files_are_listed_page_by_page() {
    let node = Node::start();
    for (id, session) in [("h/a.log", 7), ("h/a.log", 10), ("h/b.txt", 7), ("h/c/a.log", 1)] {
        node.append(id, session, "content");
    }
    let listed = |arguments: &[&str]| String::from_utf8(read(&node, arguments)).unwrap();
    let all = listed(&[]);
    assert_eq!(all.matches("h/").count(), 4, "{all}");
    let some = listed(&["--list", "h/*.log"]);
    assert_eq!((some.matches("h/a.log").count(), some.matches("h/").count()), (2, 2), "{some}");
    assert_eq!(listed(&["-l", "h/*.csv"]), "no files\n");
    let pages = listed(&["--json", "h/**/*.log"]);
    let ids = pages.lines().flat_map(|page| {
        let page: sheaf_proto::files::RebuiltFiles = serde_json::from_str(page).unwrap();
        page.files.into_iter().map(|file| file.id)
    });
    assert_eq!(ids.collect::<Vec<_>>(), ["h/a.log", "h/a.log", "h/c/a.log"]);
}

#[test]
fn a_list_that_lacks_something_says_so() {
    let node = Node::start();
    node.append("a", 7, "content");
    node.state().waits_for = Some(2);
    let output = run(&node, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("a"));
    assert!(words(&output).contains("slots 0-84 wait for 2"), "{}", words(&output));
}

#[test]
fn the_newest_session_is_read_or_the_one_that_is_named_or_all() {
    let node = Node::start();
    for session in [9, 10, 100] {
        node.append("h/ä %.log", session, format!("session {session}\n"));
    }
    node.append("h/ä %.log2", 200, "another one\n");
    let id = "h/ä %.log";
    assert_eq!(read(&node, &[id]), b"session 100\n");
    assert_eq!(read(&node, &[id, "--session", "10"]), b"session 10\n");
    assert_eq!(read(&node, &[id, "--all"]), b"session 9\nsession 10\nsession 100\n");
    assert!(refusal(&node, &["h/b.log"]).contains("sheaf get lists"));
    assert!(refusal(&node, &[id, "-s", "11"]).contains("has no session 11"));
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let node = Node::start();
    node.append("a", 7, long());
    node.state().breaks_after = Some(700_000);
    node.state().refuses = 2;
    assert!(read(&node, &["a"]) == long());
    assert!(node.state().ranges.len() > 2, "{:?}", node.state().ranges);
}

#[test]
fn the_next_node_is_asked_if_one_does_not_answer() {
    let node = Node::start();
    node.append("a", 7, "content");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    assert_eq!(read(&node, &["a", "--endpoint", &nobody]), b"content");
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf"))
        .args(["get", "a", "--endpoint", &nobody])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("Connection refused"), "{}", words(&output));
}

#[test]
fn the_end_of_a_file_is_counted_in_lines_or_bytes() {
    let node = Node::start();
    node.append("ends", 7, "one\ntwo\n\nfour\n");
    node.append("open", 7, "one\ntwo\nthree");
    node.append("empty", 7, "");
    node.append("long", 7, [vec![b'x'; 200_000], b"\ny\n".to_vec()].concat());
    for (id, lines, expected) in [
        ("ends", "1", "four\n"),
        ("ends", "2", "\nfour\n"),
        ("ends", "4", "one\ntwo\n\nfour\n"),
        ("ends", "99", "one\ntwo\n\nfour\n"),
        ("ends", "0", ""),
        ("open", "1", "three"),
        ("open", "2", "two\nthree"),
        ("empty", "1", ""),
        ("long", "1", "y\n"),
    ] {
        let read = read(&node, &[id, "--tail", lines]);
        assert_eq!(String::from_utf8(read).unwrap(), expected, "{lines} of {id}");
    }
    assert_eq!(read(&node, &["long", "-n", "2"]).len(), 200_003);
    assert_eq!(read(&node, &["open", "--bytes", "5"]), b"three");
    assert_eq!(read(&node, &["open", "-c", "99"]), b"one\ntwo\nthree");
}

#[test]
fn a_file_on_disk_is_gone_on_with_but_never_overwritten() {
    let node = Node::start();
    node.append("a", 7, long());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let to = path.to_str().unwrap();
    assert_eq!(read(&node, &["a", "--output", to]), b"");
    assert!(fs::read(&path).unwrap() == long());
    assert!(refusal(&node, &["a", "-o", to]).contains("--resume"));
    File::options().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    node.state().ranges.clear();
    read(&node, &["a", "-o", to, "--resume"]);
    assert!(fs::read(&path).unwrap() == long());
    assert_eq!(node.state().ranges, ["995904-999999", "1000000-"]);
    read(&node, &["a", "-o", to, "--resume"]);
    assert!(fs::read(&path).unwrap() == long(), "there is nothing more");
    node.append("b", 7, "another one");
    node.append("c", 7, [&long()[..1_000_000], b"something else"].concat());
    for (id, reason) in [("b", "only 11"), ("c", "only 1000014")] {
        assert!(refusal(&node, &[id, "-o", to, "--resume"]).contains(reason));
    }
    fs::write(&path, "other bytes").unwrap();
    assert!(refusal(&node, &["a", "-o", to, "--resume"]).contains("does not begin like it"));
    assert_eq!(fs::read(&path).unwrap(), b"other bytes");
    read(&node, &["b", "-o", to, "--force"]);
    assert_eq!(fs::read(&path).unwrap(), b"another one");
}

#[test]
fn a_session_begins_with_what_is_left_of_it() {
    let node = Node::start();
    for session in [7, 8, 9] {
        node.append("a", session, "one\ntwo\nthree\n");
    }
    node.state().removed.extend([(7, 14), (8, 6)]);
    let told = |arguments: &[&str], expected: &str| {
        let output = run(&node, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{arguments:?}");
        words(&output)
    };
    let cut = "sheaf: the first 6 bytes of session 8 of a were removed because of their age\n";
    let gone = "sheaf: the first 14 bytes of session 7 of a were removed because of their age: \
                nothing is left\n";
    assert_eq!(told(&["a", "-s", "8"], "o\nthree\n"), cut);
    assert_eq!(told(&["a", "-s", "7"], ""), gone);
    assert_eq!(told(&["a", "-s", "9"], "one\ntwo\nthree\n"), "");
    let all = told(&["a", "--all"], "o\nthree\none\ntwo\nthree\n");
    let sessions = ["7", "8", "9"].map(|session| format!("sheaf: a, session {session}\n"));
    let [first, second, third] = sessions;
    assert_eq!(all, [&first, gone, &second, cut, &third].concat());
    assert_eq!(told(&["a", "-s", "8", "--tail", "1"], "three\n"), "");
    assert_eq!(told(&["a", "-s", "8", "--tail", "2"], "o\nthree\n"), cut);
    assert_eq!(told(&["a", "-s", "7", "--tail", "1"], ""), gone);
    assert_eq!(told(&["a", "-s", "8", "--bytes", "8"], "o\nthree\n"), "");
    let some =
        "sheaf: 2 bytes from byte 4 on of session 8 of a were removed because of their age\n";
    assert_eq!(told(&["a", "-s", "8", "--bytes", "10"], "o\nthree\n"), some);
}

#[test]
fn a_file_on_disk_is_gone_on_with_if_nothing_between_was_removed() {
    let node = Node::start();
    node.append("a", 7, "0123456789");
    node.state().removed.insert(7, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let to = path.to_str().unwrap();
    for has in ["0123", "012345", "0123456789"] {
        fs::write(&path, has).unwrap();
        read(&node, &["a", "-o", to, "--resume"]);
        assert_eq!(fs::read(&path).unwrap(), b"0123456789", "{has}");
    }
    fs::write(&path, "012x5").unwrap();
    assert!(refusal(&node, &["a", "-o", to, "--resume"]).contains("does not begin like it"));
    for has in ["", "012"] {
        fs::write(&path, has).unwrap();
        let reason = refusal(&node, &["a", "-o", to, "--resume"]);
        assert!(reason.contains("cannot be read any more; --force"), "{reason}");
        assert_eq!(fs::read(&path).unwrap(), has.as_bytes());
    }
    read(&node, &["a", "-o", to, "--force"]);
    assert_eq!(fs::read(&path).unwrap(), b"456789");
}

#[test]
fn what_is_removed_while_a_file_is_read_is_not_passed_over() {
    let node = Node::start();
    node.append("a", 7, long());
    node.state().breaks_after = Some(700_000);
    node.state().removes = Some(1_000_000);
    let output = run(&node, &["a"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(output.stdout == long()[..700_000]);
    let reason = "byte 700000 of session 7 of a was removed because of its age before it was read";
    assert!(words(&output).contains(reason), "{}", words(&output));
}

/// One that follows, and what it says.
struct Follower {
    child: Child,
    folder: tempfile::TempDir,
}

impl Follower {
    fn start(node: &Node, arguments: &[&str]) -> Follower {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(folder.path().join(name)).unwrap());
        let mut command = command(node, arguments);
        let child = command.arg("--follow").stdout(file("out")).stderr(file("err")).spawn();
        Follower { child: child.unwrap(), folder }
    }

    fn has(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        let found = |path: &Path| fs::read_to_string(path).unwrap();
        wait_until(&format!("{text:?} is in {name}"), || match name {
            "out" => found(&path) == text,
            _ => found(&path).contains(text),
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It never ends by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_is_followed_into_its_next_session() {
    let node = Node::start();
    node.append("a", 7, "one\ntwo\n");
    let follower = Follower::start(&node, &["a", "--tail", "1"]);
    follower.has("out", "two\n");
    node.append("a", 7, "three\n");
    follower.has("out", "two\nthree\n");
    node.append("a", 9, "next\n");
    let seen = node.state().lists + 2;
    wait_until("it has seen the next session", || node.state().lists >= seen);
    node.append("a", 7, "late\n");
    follower.has("err", "a goes on with session 9");
    follower.has("out", "two\nthree\nlate\nnext\n");
    node.state().refuses = 3;
    node.append("a", 9, "more\n");
    follower.has("out", "two\nthree\nlate\nnext\nmore\n");
}

#[test]
fn whoever_follows_goes_on_behind_what_was_removed_and_is_told() {
    let node = Node::start();
    node.append("a", 7, long());
    node.append("a", 9, "next\n");
    node.state().breaks_after = Some(700_000);
    node.state().removes = Some(1_000_000);
    node.state().removed.insert(9, 2);
    let follower = Follower::start(&node, &["a", "--session", "7"]);
    let passed = "300,000 bytes from byte 700000 on of session 7 of a were removed";
    follower.has("err", passed);
    follower.has("err", "a goes on with session 9");
    follower.has("err", "the first 2 bytes of session 9 of a were removed");
    let left = [&long()[..700_000], &long()[1_000_000..], b"xt\n"].concat();
    follower.has("out", &String::from_utf8(left).unwrap());
}

#[test]
fn a_session_that_waits_for_a_chunk_is_waited_for_and_not_for_ever() {
    let node = Node::start();
    node.append("a", 7, "one\n");
    node.state().gaps.insert(7, 2);
    node.append("a", 9, "next\n");
    let follower = Follower::start(&node, &["a", "--session", "7"]);
    follower.has("out", "one\n");
    follower.has("err", "session 7 still waits for its chunk 2");
    follower.has("out", "one\nnext\n");
}

#[test]
fn a_file_is_followed_before_there_is_one() {
    let node = Node::start();
    let follower = Follower::start(&node, &["a"]);
    follower.has("err", "there is no file with the id a yet");
    node.append("a", 7, "one\n");
    follower.has("out", "one\n");
}

#[test]
fn whoever_has_seen_enough_may_close_stdout() {
    let node = Node::start();
    node.append("a", 7, long());
    let mut child = command(&node, &["a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    assert!(child.wait().unwrap().success());
}
